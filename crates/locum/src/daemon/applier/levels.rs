//! Levels on their way to the applier: the newest of each owner, handed over together.
//!
//! What leaves the election in one drain is one job: thousands of leases are renewed every second,
//! and each job by itself would wake the applier. How many levels may wait is bounded by their
//! number, not by that of the jobs.

use std::mem;
use std::sync::Arc;

use locum_engine::{Announcement, InstanceId};
use locum_vrrp::Time;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::kind::Apply;

#[derive(Debug)]
pub enum Job {
    Apply(WaitingLevels),
    Announce {
        instance: InstanceId,
        /// Too late afterwards: this node may be master no more.
        until: Time,
        frames: Vec<Announcement>,
    },
    /// Everything before this is done.
    Flush(oneshot::Sender<()>),
}

/// The newest level of each owner, in the order of the owners.
#[derive(Debug, Default)]
pub struct Levels(Vec<Apply>);

impl Levels {
    /// Takes the place of an older one of its owner.
    pub fn put(&mut self, apply: Apply) {
        // A drain goes through the owners in their order.
        if self.0.last().is_none_or(|last| last.owner < apply.owner) {
            return self.0.push(apply);
        }
        match self.0.binary_search_by_key(&apply.owner, |other| other.owner) {
            Ok(at) => self.0[at] = apply,
            Err(at) => self.0.insert(at, apply),
        }
    }

    /// These are newer.
    pub fn append(&mut self, newer: Levels) {
        if self.0.is_empty() {
            *self = newer;
        } else {
            newer.0.into_iter().for_each(|apply| self.put(apply));
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One after the other, at most so many at once.
    pub fn parts(&self, most: usize) -> impl Iterator<Item = &[Apply]> {
        self.0.chunks(most)
    }
}

/// Levels that wait, and the room that they take until somebody carries them out.
#[derive(Debug)]
pub struct WaitingLevels {
    levels: Levels,
    _room: OwnedSemaphorePermit,
}

impl WaitingLevels {
    /// Gives the room back.
    pub fn take(self) -> Levels {
        self.levels
    }
}

/// The way to the applier. Nothing here waits.
#[derive(Clone, Debug)]
pub struct JobSender {
    jobs: Sender<Job>,
    room: Arc<Semaphore>,
}

/// Room for so many jobs, and within them for so many levels.
pub fn queue(jobs: usize, levels: usize) -> (JobSender, Receiver<Job>) {
    let (sender, receiver) = mpsc::channel(jobs);
    (JobSender { jobs: sender, room: Arc::new(Semaphore::new(levels)) }, receiver)
}

impl JobSender {
    /// # Errors
    /// The job, when there is no room for it.
    pub fn try_send(&self, job: Job) -> Result<(), TrySendError<Job>> {
        self.jobs.try_send(job)
    }

    /// Hands over as many as there is room for, together; the others stay.
    pub fn offer(&self, levels: &mut Levels) {
        // Whoever offers is alone: there will not be less room than this.
        let count = levels.len().min(self.room.available_permits());
        let permits = u32::try_from(count).unwrap_or(u32::MAX);
        if count == 0 {
            return;
        }
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(permits) else { return };
        let left = levels.0.split_off(count);
        let batch = WaitingLevels { levels: mem::replace(levels, Levels(left)), _room: room };
        if let Err(
            TrySendError::Full(Job::Apply(batch)) | TrySendError::Closed(Job::Apply(batch)),
        ) = self.jobs.try_send(Job::Apply(batch))
        {
            let later = mem::replace(levels, batch.take());
            levels.append(later);
        }
    }
}

#[cfg(test)]
mod tests {
    use locum_engine::{Owner, Seq};

    use super::*;

    fn level(seq: Seq, owner: u32) -> Apply {
        let owner = Owner::Instance(InstanceId::new(owner));
        Apply { seq, owner, hold: Arc::default(), drop: Vec::new() }
    }

    fn levels(of: &[(Seq, u32)]) -> Levels {
        let mut levels = Levels::default();
        of.iter().for_each(|(seq, owner)| levels.put(level(*seq, *owner)));
        levels
    }

    fn numbers(levels: &Levels) -> Vec<Seq> {
        levels.parts(usize::MAX).flatten().map(|apply| apply.seq).collect()
    }

    #[test]
    fn the_newest_of_each_owner_stays_in_the_order_of_the_owners() {
        let mut all = levels(&[(1, 3), (2, 5), (3, 4), (4, 3)]);
        assert_eq!(numbers(&all), [4, 3, 2]);
        all.append(levels(&[(5, 4), (6, 9), (7, 1)]));
        assert_eq!(numbers(&all), [7, 4, 5, 2, 6]);
        let parts: Vec<_> = all.parts(2).map(<[Apply]>::len).collect();
        assert_eq!(parts, [2, 2, 1]);
    }

    #[test]
    fn levels_without_room_wait_and_room_comes_back_when_they_are_taken() {
        let (sender, mut jobs) = queue(2, 3);
        let mut taken = || match jobs.try_recv() {
            Ok(Job::Apply(batch)) => Some(numbers(&batch.take())),
            Ok(Job::Announce { .. } | Job::Flush(_)) | Err(_) => None,
        };
        let mut waiting = levels(&[(1, 1), (2, 2), (3, 3), (4, 4)]);
        sender.offer(&mut waiting);
        sender.offer(&mut waiting);
        assert_eq!(numbers(&waiting), [4], "room for three");
        assert_eq!(taken(), Some(vec![1, 2, 3]));
        waiting.append(levels(&[(5, 1)]));
        sender.offer(&mut waiting);
        assert!(waiting.is_empty());
        waiting.append(levels(&[(6, 1)]));
        sender.offer(&mut waiting);
        waiting.append(levels(&[(7, 1), (8, 2)]));
        sender.offer(&mut waiting);
        assert_eq!(numbers(&waiting), [7, 8], "room for two jobs");
        assert_eq!([taken(), taken(), taken()], [Some(vec![5, 4]), Some(vec![6]), None]);
    }
}

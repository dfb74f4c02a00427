//! Which addresses are not in place although a level asked for them: nothing is announced for them
//! (G-020).
//!
//! An announcement names the level it follows, and none follows a level that has been replaced. So
//! the newest level of each instance is enough.

use std::collections::HashMap;
use std::net::IpAddr;

use locum_engine::{Announcement, Asked, Refusal, Seq};
use locum_plan::Name;

#[derive(Debug, Default)]
pub struct Unheld(HashMap<Name, (Seq, Extent)>);

/// How much of a level.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Extent {
    /// It was not done, or nobody knows.
    All,
    /// On this interface, this address. Not empty.
    These(Vec<(Name, IpAddr)>),
}

impl Unheld {
    /// What became of a level, which asks for addresses or only lets go of some.
    pub fn record(
        &mut self,
        instance: &Name,
        seq: Seq,
        asks: bool,
        result: &Result<Vec<Refusal>, String>,
    ) {
        let extent = match result {
            Err(_) if asks => Some(Extent::All),
            Err(_) => None,
            Ok(refusals) => {
                let refused = refusals.iter().filter(|refusal| refusal.asked == Asked::Hold);
                let these: Vec<_> =
                    refused.map(|refusal| (refusal.interface.clone(), refusal.address)).collect();
                (!these.is_empty()).then_some(Extent::These(these))
            }
        };
        match extent {
            Some(extent) => self.0.insert(instance.clone(), (seq, extent)),
            // An instance that lets go leaves nothing behind here.
            None => self.0.remove(instance),
        };
    }

    /// The frames that may be sent after this level.
    pub fn sendable(
        &self,
        instance: &Name,
        after: Seq,
        frames: Vec<Announcement>,
    ) -> Vec<Announcement> {
        match self.0.get(instance) {
            Some((seq, Extent::All)) if *seq == after => Vec::new(),
            Some((seq, Extent::These(these))) if *seq == after => {
                let is_held = |frame: &Announcement| {
                    let mut these = these.iter();
                    !these.any(|(interface, address)| {
                        *interface == frame.interface && *address == frame.address
                    })
                };
                frames.into_iter().filter(is_held).collect()
            }
            Some(_) | None => frames,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn frame(last: u8) -> Announcement {
        Announcement {
            interface: "eth0".into(),
            interface_index: 2,
            address: Ipv4Addr::new(192, 0, 2, last).into(),
            frame: Vec::new(),
        }
    }

    fn refusal(asked: Asked, last: u8) -> Refusal {
        let address = Ipv4Addr::new(192, 0, 2, last).into();
        Refusal { asked, interface: "eth0".into(), address, error: "no".to_owned() }
    }

    fn sent(unheld: &Unheld, after: Seq) -> Vec<IpAddr> {
        let frames = vec![frame(10), frame(11)];
        let sent = unheld.sendable(&"web".into(), after, frames);
        sent.into_iter().map(|frame| frame.address).collect()
    }

    #[test]
    fn g_020_only_what_the_level_put_in_place_is_announced_after_it() {
        let (web, both) = ("web".into(), vec![frame(10).address, frame(11).address]);
        let mut unheld = Unheld::default();
        unheld.record(&web, 1, true, &Ok(vec![refusal(Asked::Hold, 11), refusal(Asked::Drop, 10)]));
        assert_eq!(sent(&unheld, 1), [frame(10).address]);
        unheld.record(&web, 2, true, &Err("no socket".to_owned()));
        assert_eq!(sent(&unheld, 2), [IpAddr::V4(Ipv4Addr::UNSPECIFIED); 0]);
        unheld.record(&web, 3, true, &Ok(Vec::new()));
        assert_eq!(sent(&unheld, 3), both);
        let other = "db".into();
        unheld.record(&other, 4, true, &Err("no socket".to_owned()));
        assert_eq!(sent(&unheld, 3), both, "of another instance");
    }

    #[test]
    fn an_instance_that_lets_go_is_forgotten() {
        let mut unheld = Unheld::default();
        unheld.record(&"web".into(), 1, true, &Err("no socket".to_owned()));
        unheld.record(&"web".into(), 2, false, &Err("no socket".to_owned()));
        assert!(unheld.0.is_empty());
    }
}

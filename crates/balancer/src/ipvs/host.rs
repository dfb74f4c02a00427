//! What IPVS has of this host as a whole: its settings while something is served, and the threads
//! that synchronise connections.
//!
//! A setting is read before it is written, and put back when nothing is served any more, unless
//! somebody else has written it since (I-046). What was there is written down first, so that a daemon
//! that died in between finds it again.

use std::collections::BTreeMap;

use locum_kernel::ipvs::{ConnectionTimeouts, Ipvs, SyncState, SyncThread, set_value, value};
use locum_plan::{IpvsSettings, SyncRole, WantedIpvs};
use serde::{Deserialize, Serialize};

use crate::state_file::StateFile;

/// Names of the timeouts, which are no files, among the settings.
const TIMEOUTS: [&str; 3] = ["tcp_timeout", "tcp_fin_timeout", "udp_timeout"];

/// Which of the settings are the synchronisation's, and are set as long as that runs.
const OF_SYNC: [&str; 2] = ["sync_threshold", "sync_refresh_period"];

#[derive(Debug)]
pub(super) struct IpvsHost {
    state: StateFile,
    /// `None` until the file was read.
    held: Option<HeldSettings>,
    /// What could not be done, one sentence for each.
    pub failed: Vec<String>,
}

/// What is ours, as the state file has it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct HeldSettings {
    #[serde(default)]
    settings: BTreeMap<String, OwnedValue>,
    /// Threads may run that we have started.
    #[serde(default)]
    sync: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct OwnedValue {
    before: String,
    ours: String,
}

/// Reads and writes settings by name.
trait SettingStore {
    fn get(&mut self, name: &str) -> Result<String, String>;
    fn set(&mut self, name: &str, value: &str) -> Result<(), String>;
}

impl SettingStore for Ipvs {
    fn get(&mut self, name: &str) -> Result<String, String> {
        let Some(at) = TIMEOUTS.iter().position(|timeout| *timeout == name) else {
            return value(name).map_err(|error| error.to_string());
        };
        let timeouts = self.timeouts().map_err(|error| error.to_string())?;
        Ok([timeouts.tcp, timeouts.tcp_fin, timeouts.udp][at].to_string())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let Some(at) = TIMEOUTS.iter().position(|timeout| *timeout == name) else {
            return set_value(name, value).map_err(|error| error.to_string());
        };
        let seconds = value.parse().map_err(|_| format!("`{value}` is no number"))?;
        let mut three = [0; 3];
        three[at] = seconds;
        let [tcp, tcp_fin, udp] = three;
        let timeouts = ConnectionTimeouts { tcp, tcp_fin, udp };
        self.set_timeouts(timeouts).map_err(|error| error.to_string())
    }
}

impl IpvsHost {
    pub(super) fn new(state: StateFile) -> Self {
        Self { state, held: None, failed: Vec::new() }
    }

    /// Nothing is wanted and nothing is held: the kernel need not be asked.
    pub(super) fn is_idle(&mut self, wanted: &WantedIpvs, serves: bool) -> bool {
        let held = self.held();
        settings_of(wanted, serves).is_empty()
            && wanted.sync.is_none()
            && held.settings.is_empty()
            && !held.sync
    }

    fn held(&mut self) -> &mut HeldSettings {
        self.held.get_or_insert_with(|| self.state.load().unwrap_or_default())
    }

    /// `serves` says that there are tables here.
    pub(super) fn reconcile(&mut self, ipvs: &mut Ipvs, wanted: &WantedIpvs, serves: bool) {
        self.failed.clear();
        let threads: Vec<SyncThread> = thread_of(wanted).into_iter().collect();
        let mut held = self.held().clone();
        if !threads.is_empty() && !held.sync {
            held.sync = true;
            self.keep(held.clone());
        }
        let owned: &[SyncState] = if held.sync { &SyncState::ALL } else { &[] };
        if !owned.is_empty() {
            match ipvs.reconcile_sync(&threads, owned) {
                Ok(_) if threads.is_empty() => {
                    held.sync = false;
                    self.keep(held);
                }
                Ok(_) => {}
                Err(error) => self.failed.push(error.to_string()),
            }
        }
        self.reconcile_settings(ipvs, &settings_of(wanted, serves));
    }

    fn reconcile_settings(
        &mut self,
        settings: &mut dyn SettingStore,
        wanted: &BTreeMap<&'static str, String>,
    ) {
        let mut held = self.held().clone();
        let gone: Vec<String> = held
            .settings
            .keys()
            .filter(|name| !wanted.contains_key(name.as_str()))
            .cloned()
            .collect();
        for name in gone {
            let Some(owned) = held.settings.remove(&name) else { continue };
            // Somebody else's by now, or with the kernel's module gone nobody's.
            if settings.get(&name).as_ref() == Ok(&owned.ours)
                && let Err(error) = settings.set(&name, &owned.before)
            {
                self.failed.push(format!("cannot put back {name}={}: {error}", owned.before));
                // By a later call, or the next daemon.
                held.settings.insert(name, owned);
            }
        }
        for (name, value) in wanted {
            if held.settings.get(*name).is_some_and(|one| one.ours == *value) {
                continue;
            }
            let former = held.settings.get(*name).cloned();
            let result = settings.get(name).and_then(|there| {
                let known = former.as_ref().map(|one| one.before.clone());
                let before = known.unwrap_or_else(|| there.clone());
                let owned = OwnedValue { before, ours: value.clone() };
                held.settings.insert((*name).to_owned(), owned);
                self.keep(held.clone());
                if there == *value { Ok(()) } else { settings.set(name, value) }
            });
            if let Err(error) = result {
                self.failed.push(format!("cannot set {name}={value} of ipvs: {error}"));
                // What we have made of it before is still to be put back.
                match former {
                    Some(former) => held.settings.insert((*name).to_owned(), former),
                    None => held.settings.remove(*name),
                };
            }
        }
        self.keep(held);
    }

    fn keep(&mut self, held: HeldSettings) {
        if self.held.as_ref() != Some(&held) {
            self.state.save(&held);
            self.held = Some(held);
        }
    }
}

/// The settings that are wanted now, each as the kernel shows it.
fn settings_of(wanted: &WantedIpvs, serves: bool) -> BTreeMap<&'static str, String> {
    let IpvsSettings {
        tcp_timeout_s,
        tcp_fin_timeout_s,
        udp_timeout_s,
        expire_nodest_conn,
        expire_quiescent_template,
        conn_reuse_mode,
        sync,
    } = &*wanted.settings;
    let number = |number: &Option<u32>| number.map(|number| number.to_string());
    let switch = |is_on: &bool| is_on.then(|| "1".to_owned());
    let threshold = sync.as_ref().and_then(|sync| sync.threshold);
    let all = [
        ("tcp_timeout", number(tcp_timeout_s)),
        ("tcp_fin_timeout", number(tcp_fin_timeout_s)),
        ("udp_timeout", number(udp_timeout_s)),
        ("expire_nodest_conn", switch(expire_nodest_conn)),
        ("expire_quiescent_template", switch(expire_quiescent_template)),
        ("conn_reuse_mode", conn_reuse_mode.map(|mode| mode.to_string())),
        ("sync_threshold", threshold.map(|(first, every)| format!("{first} {every}"))),
        ("sync_refresh_period", number(&sync.as_ref().and_then(|sync| sync.refresh_s))),
    ];
    let is_wanted = |name: &str| match OF_SYNC.contains(&name) {
        true => wanted.sync.is_some(),
        // Whoever takes connections over remembers them as long.
        false => serves || wanted.sync.is_some(),
    };
    all.into_iter()
        .filter(|(name, _)| is_wanted(name))
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

fn thread_of(wanted: &WantedIpvs) -> Option<SyncThread> {
    let (sync, role) = (wanted.settings.sync.as_ref()?, wanted.sync?);
    Some(SyncThread {
        state: match role {
            SyncRole::Sender => SyncState::Master,
            SyncRole::Receiver => SyncState::Backup,
        },
        interface: sync.interface.to_string(),
        id: sync.id,
        longest: sync.longest,
        group: sync.group,
        port: sync.port,
        ttl: sync.ttl,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use locum_plan::{ConnectionSync, Name};

    use super::*;

    #[derive(Default)]
    struct Memory {
        values: BTreeMap<String, String>,
        writes: usize,
        /// It can be read, and not written.
        is_read_only: bool,
    }

    impl SettingStore for Memory {
        fn get(&mut self, name: &str) -> Result<String, String> {
            self.values.get(name).cloned().ok_or_else(|| "no such setting".to_owned())
        }

        fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
            if self.is_read_only {
                return Err("read-only".to_owned());
            }
            self.writes += 1;
            self.values.insert(name.to_owned(), value.to_owned());
            Ok(())
        }
    }

    fn memory(values: &[(&str, &str)]) -> Memory {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Memory { values: values.collect(), ..Memory::default() }
    }

    fn wanted(values: &[(&'static str, &str)]) -> BTreeMap<&'static str, String> {
        values.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    }

    #[test]
    fn i_046_settings_are_put_back_as_they_were_by_whichever_daemon_comes_next() {
        let directory = tempfile::tempdir().unwrap();
        let state = || StateFile::new(directory.path().join("host.json"));
        let mut kernel = memory(&[("expire_nodest_conn", "0"), ("tcp_timeout", "900")]);
        let both = wanted(&[("expire_nodest_conn", "1"), ("tcp_timeout", "60")]);
        let mut crashed = IpvsHost::new(state());
        crashed.reconcile_settings(&mut kernel, &both);
        assert_eq!(kernel.get("expire_nodest_conn").unwrap(), "1");
        crashed.reconcile_settings(&mut kernel, &both);
        assert_eq!(kernel.writes, 2, "a second time nothing is written");
        let mut next = IpvsHost::new(state());
        next.reconcile_settings(&mut kernel, &wanted(&[("tcp_timeout", "70")]));
        assert_eq!(kernel.values["expire_nodest_conn"], "0");
        assert_eq!(kernel.values["tcp_timeout"], "70");
        next.reconcile_settings(&mut kernel, &BTreeMap::new());
        assert_eq!(kernel.values["tcp_timeout"], "900", "not what we had made of it before");
        assert_eq!(next.failed, [""; 0]);
    }

    #[test]
    fn i_046_a_former_value_is_put_back_once_that_is_possible_whatever_failed_before() {
        let directory = tempfile::tempdir().unwrap();
        let state = || StateFile::new(directory.path().join("host.json"));
        let mut kernel = memory(&[("tcp_timeout", "900"), ("udp_timeout", "300")]);
        let mut host = IpvsHost::new(state());
        let ours = |tcp| wanted(&[("tcp_timeout", tcp), ("udp_timeout", "30")]);
        host.reconcile_settings(&mut kernel, &ours("60"));
        kernel.is_read_only = true;
        // One that is to be changed, and one that is to be put back.
        host.reconcile_settings(&mut kernel, &wanted(&[("tcp_timeout", "70")]));
        let expected = [
            "cannot put back udp_timeout=300: read-only",
            "cannot set tcp_timeout=70 of ipvs: read-only",
        ];
        assert_eq!(host.failed, expected);
        kernel.is_read_only = false;
        IpvsHost::new(state()).reconcile_settings(&mut kernel, &BTreeMap::new());
        assert_eq!(kernel.values, memory(&[("tcp_timeout", "900"), ("udp_timeout", "300")]).values);
    }

    #[test]
    fn i_046_what_somebody_else_has_written_since_stays() {
        let directory = tempfile::tempdir().unwrap();
        let mut host = IpvsHost::new(StateFile::new(directory.path().join("host.json")));
        let mut kernel = memory(&[("conn_reuse_mode", "1")]);
        host.reconcile_settings(&mut kernel, &wanted(&[("conn_reuse_mode", "0")]));
        kernel.set("conn_reuse_mode", "2").unwrap();
        host.reconcile_settings(&mut kernel, &BTreeMap::new());
        assert_eq!(kernel.values["conn_reuse_mode"], "2");
        host.reconcile_settings(&mut kernel, &wanted(&[("sync_threshold", "3 50")]));
        assert_eq!(host.failed, ["cannot set sync_threshold=3 50 of ipvs: no such setting"]);
    }

    #[test]
    fn settings_are_wanted_while_something_is_served_and_those_of_the_threads_while_they_run() {
        let sync = ConnectionSync {
            interface: Name::from("eth1"),
            instance: Name::from("web"),
            id: 51,
            longest: None,
            group: None,
            port: None,
            ttl: None,
            threshold: Some((0, 1)),
            refresh_s: Some(5),
        };
        let settings = Arc::new(IpvsSettings {
            udp_timeout_s: Some(30),
            expire_nodest_conn: true,
            sync: Some(sync),
            ..IpvsSettings::default()
        });
        let names = |sync, serves| -> Vec<&str> {
            let wanted = WantedIpvs { settings: Arc::clone(&settings), sync };
            settings_of(&wanted, serves).into_keys().collect()
        };
        assert_eq!(names(None, false), [""; 0]);
        assert_eq!(names(None, true), ["expire_nodest_conn", "udp_timeout"]);
        let all = ["expire_nodest_conn", "sync_refresh_period", "sync_threshold", "udp_timeout"];
        assert_eq!(names(Some(SyncRole::Receiver), false), all);
        let wanted = WantedIpvs { settings: Arc::clone(&settings), sync: Some(SyncRole::Sender) };
        assert_eq!(thread_of(&wanted).unwrap().state, SyncState::Master);
        assert_eq!(thread_of(&WantedIpvs { sync: None, ..wanted }), None);
    }
}

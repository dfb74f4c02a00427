//! Which services share a HAProxy: those of one instance that stand by in the same way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use locum_plan::{Activity, HaproxyFile, Name, Standby, WantedService};

/// The services of one process.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ServiceGroup {
    /// Of the process, in the status and in the log.
    pub name: Name,
    /// Of its files.
    pub stem: String,
    pub standby: Standby,
    pub instance: Option<Name>,
    /// Never empty.
    pub services: Vec<Arc<WantedService>>,
}

/// All of them, by their names.
pub(crate) fn groups<'a>(
    services: impl Iterator<Item = &'a Arc<WantedService>>,
) -> BTreeMap<Name, ServiceGroup> {
    let mut groups: BTreeMap<Name, ServiceGroup> = BTreeMap::new();
    for wanted in services {
        let service = &wanted.service;
        let of = match &service.instance {
            Some(instance) => format!("services of {instance}"),
            None => "services of every node".to_owned(),
        };
        let (name, suffix) = match service.standby {
            Standby::Warm => (of, ""),
            Standby::Cold => (format!("{of}, cold"), ".cold"),
        };
        let group = groups.entry(Name::from(name.as_str())).or_insert_with(|| ServiceGroup {
            name: Name::from(name.as_str()),
            stem: format!("{}{suffix}", stem(service.instance.as_deref())),
            standby: service.standby,
            instance: service.instance.clone(),
            services: Vec::new(),
        });
        group.services.push(Arc::clone(wanted));
    }
    groups
}

/// A file name that is no other's: a socket may have a hundred octets in all.
fn stem(instance: Option<&str>) -> String {
    const LONGEST: usize = 24;
    let Some(name) = instance else { return "+every-node".to_owned() };
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
    if name.len() <= LONGEST && name.bytes().all(is_plain) {
        return name.to_owned();
    }
    use sha2::{Digest, Sha256};
    let digest = hex::encode(Sha256::digest(name.as_bytes()));
    format!("+{}", &digest[..16])
}

impl ServiceGroup {
    /// That of all its services: they have an instance and a standby in common.
    pub(crate) fn activity(&self) -> Activity {
        self.services.first().map_or(Activity::Idle, |wanted| wanted.activity)
    }

    /// As a HAProxy with a file of its own, which is `config`.
    pub(crate) fn file(&self, config: PathBuf) -> HaproxyFile {
        HaproxyFile {
            name: self.name.clone(),
            instance: self.instance.clone(),
            config,
            program: "haproxy".into(),
            standby: self.standby,
            answer: None,
        }
    }

    pub(crate) fn path(&self, directory: &Path, extension: &str) -> PathBuf {
        directory.join(format!("{}.{extension}", self.stem))
    }
}

#[cfg(test)]
mod tests {
    use locum_plan::Service;

    use super::*;

    #[test]
    fn one_process_has_what_comes_and_goes_together() {
        let wanted = |name: &str, instance: Option<&str>, standby| {
            let listen: std::net::SocketAddr = "192.0.2.1:80".parse().unwrap();
            let mut service = Service::new(name.into(), listen.into());
            service.instance = instance.map(Name::from);
            service.standby = standby;
            let (activity, servers, lease) = (Activity::Active, Vec::new(), None);
            Arc::new(WantedService { service: Arc::new(service), activity, servers, lease })
        };
        let all = [
            wanted("a", Some("web"), Standby::Warm),
            wanted("b", Some("web"), Standby::Cold),
            wanted("c", Some("web"), Standby::Warm),
            wanted("d", None, Standby::Warm),
            wanted("e", Some("../x"), Standby::Warm),
        ];
        let groups = groups(all.iter());
        let found: Vec<_> = groups
            .values()
            .map(|one| {
                let names: Vec<&str> = one.services.iter().map(|it| &*it.service.name).collect();
                (one.name.to_string(), one.stem.as_str(), names.concat())
            })
            .collect();
        let expected = [
            ("services of ../x", "+9c5bf99e7dd4d0e1", "e"),
            ("services of every node", "+every-node", "d"),
            ("services of web", "web", "ac"),
            ("services of web, cold", "web.cold", "b"),
        ];
        let plain: Vec<_> =
            found.iter().map(|(name, stem, all)| (name.as_str(), *stem, all.as_str())).collect();
        assert_eq!(plain.len(), 4);
        for (found, expected) in plain.iter().zip(expected) {
            assert_eq!((found.0, found.2), (expected.0, expected.2));
        }
        assert_eq!(
            (plain[1].1, plain[2].1, plain[3].1),
            (expected[1].1, expected[2].1, expected[3].1)
        );
        assert!(plain[0].1.starts_with('+') && !plain[0].1.contains('/'), "{plain:?}");
    }
}

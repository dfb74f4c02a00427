//! What instances have in common, kept once: a large node's are alike in all but name, VRID and
//! addresses.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use locum_plan::{Hooks, Instance, Name};
use locum_vrrp::AnnounceSettings;

/// The values met so far.
#[derive(Debug, Default)]
pub(crate) struct Interned {
    interfaces: HashSet<Name>,
    hooks: HashSet<Arc<Hooks>>,
    announce: HashSet<Arc<AnnounceSettings>>,
}

impl Interned {
    /// The same instance; what an earlier one has too is that one's.
    pub fn share(&mut self, mut instance: Instance) -> Arc<Instance> {
        instance.interface = known(&mut self.interfaces, instance.interface);
        instance.hooks = known(&mut self.hooks, instance.hooks);
        let router = Arc::make_mut(&mut instance.router);
        router.announce = known(&mut self.announce, Arc::clone(&router.announce));
        Arc::new(instance)
    }
}

fn known<T: Hash + Eq + ?Sized>(values: &mut HashSet<Arc<T>>, value: Arc<T>) -> Arc<T> {
    if let Some(known) = values.get(&value) {
        return Arc::clone(known);
    }
    values.insert(Arc::clone(&value));
    value
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use locum_plan::Command;
    use locum_vrrp::{Family, RouterSettings, Version, Vrid};

    use super::*;

    fn instance(hook: &str, refresh: u64) -> Instance {
        let vrid = Vrid::new(1).unwrap();
        let mut router = RouterSettings::new(vrid, Family::V4, Version::V3);
        Arc::make_mut(&mut router.announce).refresh = Duration::from_secs(refresh);
        router.source = Some(Ipv4Addr::LOCALHOST.into());
        Instance {
            hooks: Arc::new(Hooks { any: vec![Command::argv([hook])], ..Hooks::default() }),
            ..Instance::new("a".into(), "eth0".into(), router)
        }
    }

    #[test]
    fn what_is_equal_is_one_and_what_differs_is_kept_apart() {
        let mut interned = Interned::default();
        let [a, b, c] = [("x", 1), ("x", 2), ("y", 1)].map(|(hook, refresh)| {
            let given = instance(hook, refresh);
            let kept = interned.share(given.clone());
            assert_eq!(*kept, given);
            kept
        });
        assert!(Arc::ptr_eq(&a.interface, &b.interface));
        assert!(Arc::ptr_eq(&a.hooks, &b.hooks) && !Arc::ptr_eq(&a.hooks, &c.hooks));
        let announce = |one: &Instance| Arc::clone(&one.router.announce);
        assert!(!Arc::ptr_eq(&announce(&a), &announce(&b)));
        assert!(Arc::ptr_eq(&announce(&a), &announce(&c)));
    }
}

//! What the advert sockets shall hear: which datagrams are for one of our routers, and which
//! senders must not be lost among others.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use locum_plan::Name;
use locum_vrrp::{Auth, Family, RouterSettings, Transport, Version};

use crate::output::{Listen, Masters, Output};

/// One entry for each interface and family that routers hear or speak on, sorted.
pub fn wanted<'a>(
    heard: impl Iterator<Item = (&'a Name, &'a RouterSettings)>,
    spoken: impl Iterator<Item = (&'a Name, Family)>,
) -> Vec<Listen> {
    let nothing = |interface: &Name, family| Listen {
        interface: interface.clone(),
        family,
        groups: Vec::new(),
        routers: Vec::new(),
        unicast_hop_limit: None,
        auth: None,
    };
    let mut wanted: BTreeMap<(&Name, Family), Listen> = BTreeMap::new();
    let mut auths: HashMap<(&Name, Family), Vec<&Auth>> = HashMap::new();
    for (interface, family) in spoken {
        wanted.entry((interface, family)).or_insert_with(|| nothing(interface, family));
    }
    for (interface, settings) in heard {
        let family = settings.family;
        let listen =
            wanted.entry((interface, family)).or_insert_with(|| nothing(interface, family));
        if settings.version == Version::V2 {
            let auths = auths.entry((interface, family)).or_default();
            auths.push(&settings.auth);
        }
        listen.routers.push((settings.version, settings.vrid));
        match &settings.transport {
            Transport::Multicast { group } => listen.groups.push(*group),
            Transport::Unicast { peers, .. } => {
                // A peer without a range may be any number of hops away.
                let least = peers.iter().map(|peer| peer.ttl.map_or(0, |(least, _)| least));
                let least = least.min().unwrap_or(0);
                let before = listen.unicast_hop_limit.unwrap_or(u8::MAX);
                listen.unicast_hop_limit = Some(least.min(before));
            }
        }
    }
    for (key, auths) in auths {
        let all_alike = auths.windows(2).all(|pair| pair[0] == pair[1]);
        if let Some(listen) = wanted.get_mut(&key).filter(|_| all_alike) {
            listen.auth = auths.first().copied().cloned();
        }
    }
    let mut wanted: Vec<Listen> = wanted.into_values().collect();
    for listen in &mut wanted {
        listen.groups.sort_unstable();
        listen.groups.dedup();
        listen.routers.sort_unstable();
        listen.routers.dedup();
    }
    wanted
}

/// How many instances of each interface and family follow each master, so that only the first and
/// the last of them are news.
#[derive(Debug, Default)]
pub struct MasterSources {
    followers: HashMap<(Name, Family), BTreeMap<IpAddr, usize>>,
    /// Whose set of masters is another one since the last drain.
    changed: Vec<(Name, Family)>,
}

impl MasterSources {
    /// An instance of this interface followed the master `from` and follows `to` from now on.
    pub fn follow(
        &mut self,
        interface: &Name,
        family: Family,
        from: Option<IpAddr>,
        to: Option<IpAddr>,
    ) {
        if from == to {
            return;
        }
        let key = (interface.clone(), family);
        let followers = self.followers.entry(key.clone()).or_default();
        let mut differs = false;
        if let Some(count) = from.and_then(|from| followers.get_mut(&from)) {
            *count -= 1;
            differs |= *count == 0;
        }
        if let Some(to) = to {
            let count = followers.entry(to).or_default();
            *count += 1;
            differs |= *count == 1;
        }
        followers.retain(|_, count| *count > 0);
        if followers.is_empty() {
            self.followers.remove(&key);
        }
        if differs && !self.changed.contains(&key) {
            self.changed.push(key);
        }
    }

    /// Those followed are the masters of these routers, by interface and family, and all that is
    /// new has been said. `Err` is what does not hold.
    pub fn check_invariants<'a>(
        &self,
        masters: impl Iterator<Item = (&'a Name, Family, IpAddr)>,
    ) -> Result<(), String> {
        let mut expected: HashMap<(Name, Family), BTreeMap<IpAddr, usize>> = HashMap::new();
        for (interface, family, master) in masters {
            let followers = expected.entry((interface.clone(), family)).or_default();
            *followers.entry(master).or_default() += 1;
        }
        if expected != self.followers {
            return Err(format!("{:?} are followed, masters are {expected:?}", self.followers));
        }
        if !self.changed.is_empty() {
            return Err(format!("nobody has heard of the masters of {:?}", self.changed));
        }
        Ok(())
    }

    /// Says what is another set now.
    pub fn drain(&mut self, out: &mut Vec<Output>) {
        for key in self.changed.drain(..) {
            let followers = self.followers.get(&key);
            let sources = followers.map(|all| all.keys().copied().collect()).unwrap_or_default();
            let (interface, family) = key;
            out.push(Output::Masters(Masters { interface, family, sources }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use locum_vrrp::{UnicastPeer, Vrid};

    use super::*;

    fn router(vrid: u8, version: Version) -> RouterSettings {
        RouterSettings::new(Vrid::new(vrid).unwrap(), Family::V4, version)
    }

    fn unicast(vrid: u8, ranges: &[Option<(u8, u8)>]) -> RouterSettings {
        let address = address("192.0.2.3");
        let peers = ranges.iter().map(|ttl| UnicastPeer { address, ttl: *ttl }).collect();
        let transport = Transport::Unicast { peers, ttl: 255, check_source: true };
        RouterSettings { transport, ..router(vrid, Version::V3) }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn heard(routers: &[(&Name, &RouterSettings)]) -> Vec<Listen> {
        wanted(routers.iter().copied(), iter::empty())
    }

    #[test]
    fn a_link_that_is_only_spoken_on_hears_nothing() {
        let (eth0, own) = (Name::from("eth0"), Name::from("eth0.7"));
        let seven = router(7, Version::V3);
        let all = wanted(iter::once((&eth0, &seven)), iter::once((&own, Family::V4)));
        let [heard, spoken] = &all[..] else { panic!("two sockets: {all:?}") };
        assert_eq!((&heard.interface, heard.routers.len()), (&eth0, 1));
        assert_eq!((&spoken.interface, spoken.routers.len()), (&own, 0));
        assert!(spoken.groups.is_empty() && spoken.unicast_hop_limit.is_none());
    }

    #[test]
    fn routers_of_one_interface_and_family_share_an_entry() {
        let (eth0, eth1) = (Name::from("eth0"), Name::from("eth1"));
        let (seven, three) = (router(7, Version::V3), router(3, Version::V2));
        let group = address("224.0.0.200");
        let transport = Transport::Multicast { group };
        let moved = RouterSettings { transport, ..router(9, Version::V3) };
        let all = heard(&[(&eth1, &seven), (&eth0, &seven), (&eth0, &moved), (&eth0, &three)]);
        assert_eq!(all.len(), 2);
        assert_eq!((&all[0].interface, &all[1].interface), (&eth0, &eth1));
        assert_eq!(all[0].groups, [address("224.0.0.18"), group]);
        let vrid = |number| Vrid::new(number).unwrap();
        let routers = [(Version::V2, vrid(3)), (Version::V3, vrid(7)), (Version::V3, vrid(9))];
        assert_eq!(all[0].routers, routers);
        assert_eq!(all[0].unicast_hop_limit, None, "nobody takes unicast");
    }

    /// V-330: what the most tolerant peer may send has to come through.
    #[test]
    fn the_hop_limit_asked_of_unicast_is_the_least_that_any_peer_may_have() {
        let eth0 = Name::from("eth0");
        let multicast = router(1, Version::V3);
        let strict = unicast(2, &[Some((255, 255)), Some((250, 255))]);
        let lax = unicast(3, &[Some((255, 255)), None]);
        let least = |routers: &[(&Name, &RouterSettings)]| heard(routers)[0].unicast_hop_limit;
        assert_eq!(least(&[(&eth0, &strict), (&eth0, &multicast)]), Some(250));
        assert_eq!(least(&[(&eth0, &strict), (&eth0, &lax)]), Some(0));
        assert!(heard(&[(&eth0, &strict)])[0].groups.is_empty());
    }

    #[test]
    fn what_routers_of_version_2_have_in_common_is_their_authentication() {
        let eth0 = Name::from("eth0");
        let [simple, other] = [b"password", b"passwore"].map(|text| Auth::Simple(*text));
        let router = |vrid, version, auth: &Auth| RouterSettings {
            auth: auth.clone(),
            ..router(vrid, version)
        };
        let auth = |routers: &[RouterSettings]| {
            let routers: Vec<_> = routers.iter().map(|router| (&eth0, router)).collect();
            heard(&routers)[0].auth.clone()
        };
        let [v2, v3] = [Version::V2, Version::V3];
        assert_eq!(auth(&[router(1, v3, &Auth::None)]), None);
        let alike = [router(1, v2, &simple), router(2, v3, &Auth::None), router(3, v2, &simple)];
        assert_eq!(auth(&alike), Some(simple.clone()));
        assert_eq!(auth(&[router(1, v2, &simple), router(2, v2, &other)]), None);
        assert_eq!(auth(&[router(1, v2, &simple), router(2, v2, &Auth::None)]), None);
        assert_eq!(auth(&[router(1, v2, &Auth::None)]), Some(Auth::None));
    }

    #[test]
    fn only_the_first_and_the_last_follower_of_a_master_change_something() {
        let (eth0, a, b) = (Name::from("eth0"), address("192.0.2.1"), address("192.0.2.2"));
        let mut masters = MasterSources::default();
        let mut changes = |from, to| {
            masters.follow(&eth0, Family::V4, from, to);
            let mut out = Vec::new();
            masters.drain(&mut out);
            let sources = out.into_iter().map(|output| match output {
                Output::Masters(masters) => masters.sources,
                other => panic!("{other:?}"),
            });
            sources.collect::<Vec<_>>()
        };
        assert_eq!(changes(None, Some(a)), [[a]]);
        assert!(changes(None, Some(a)).is_empty());
        assert_eq!(changes(Some(a), Some(b)), [[a, b]]);
        assert_eq!(changes(Some(a), Some(b)), [[b]]);
        assert!(changes(Some(b), Some(b)).is_empty());
        assert!(changes(Some(b), None).is_empty());
        assert_eq!(changes(Some(b), None), [Vec::<IpAddr>::new()]);
    }
}

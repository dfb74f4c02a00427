//! How what an instance serves decides its place among the nodes: here alone the priorities of all
//! of them are known.

use locum_plan::{
    Check, FitnessPolicy, HaproxyFile, Instance, Name, Ranking, Served, Service, Track, Tracked,
    Weight, weight_of,
};
use locum_vrrp::Priority;

use crate::dialect::Dialect;
use crate::parsed::{Parsed, ParsedInstance};
use crate::settings::track_services::TrackServices;

/// A name in a list of tracked objects is a check, else a service, else a HAProxy.
pub(crate) fn resolve_tracks(parsed: &mut Parsed) {
    let Parsed { dialect: Dialect::Toml, instances, checks, services, haproxy, .. } = parsed else {
        return;
    };
    let lists = instances.iter_mut().filter_map(|instance| instance.track.given_mut());
    for track in lists.flat_map(|list| &mut list.value) {
        let Tracked::Check(name) = &track.value.object else { continue };
        let is_check = checks.iter().any(|check| *check.name.value == **name);
        let is_service = services.iter().any(|service| *service.name.value == **name);
        let is_haproxy = haproxy.iter().any(|file| *file.name.value == **name);
        track.value.object = match (is_check, is_service, is_haproxy) {
            (false, true, _) => Tracked::Service(name.clone()),
            (false, false, true) => Tracked::Haproxy(name.clone()),
            (true, _, _) | (false, false, false) => continue,
        };
    }
}

/// Named without a weight, a service or HAProxy is followed as those of the instance are: it decides
/// the node's place, and never takes it out of the election.
pub(crate) fn is_followed(track: &Track) -> bool {
    match track.object {
        Tracked::Service(_) | Tracked::Haproxy(_) => track.weight.is_none(),
        Tracked::Check(_) | Tracked::Interface(_) => false,
    }
}

/// What an instance serves, with how much each of it counts; nothing in a keepalived.conf, where
/// the election is keepalived's own.
pub(crate) fn served(
    parsed: &ParsedInstance,
    services: &[Service],
    haproxy: &[HaproxyFile],
    dialect: Dialect,
) -> Vec<Served> {
    match dialect {
        Dialect::Toml => {}
        Dialect::Keepalived => return Vec::new(),
    }
    // Seldom any: most files have a service for each instance, and name none.
    let named: Vec<&Track> = parsed
        .track
        .list()
        .iter()
        .map(|at| &at.value)
        .filter(|track| matches!(track.object, Tracked::Service(_) | Tracked::Haproxy(_)))
        .collect();
    let kinds: [fn(Name) -> Tracked; 2] = [Tracked::Service, Tracked::Haproxy];
    let services = services.iter().map(|one| (kinds[0], &one.name, &one.instance));
    let haproxy = haproxy.iter().map(|one| (kinds[1], &one.name, &one.instance));
    let all = services.chain(haproxy).filter_map(|(kind, name, instance)| {
        let is_own = instance.as_deref() == Some(parsed.name.value.as_str());
        if !is_own && named.is_empty() {
            return None;
        }
        let object = kind(name.clone());
        let track = named.iter().find(|track| track.object == object);
        let weight = match track {
            // Its weight is the operator's, and that is all it does.
            Some(track) if !is_followed(track) => 0,
            Some(_) => weight(parsed, &object).max(1),
            None if is_own => weight(parsed, &object),
            None => 0,
        };
        (weight > 0).then_some(Served { object, weight })
    });
    all.collect()
}

fn weight(parsed: &ParsedInstance, object: &Tracked) -> u8 {
    match parsed.track_services.value() {
        None | Some(TrackServices::All) => 1,
        Some(TrackServices::Nothing) => 0,
        Some(TrackServices::Weights(weights)) => {
            let named = weights.iter().find(|(name, _)| *name.value == **object.name());
            named.map_or(1, |(_, weight)| *weight)
        }
    }
}

/// Sum of the weights of what is served.
pub(crate) fn sum(served: &[Served]) -> u16 {
    served.iter().fold(0, |sum, one| sum.saturating_add(u16::from(one.weight)))
}

/// The most that what an instance tracks may take from its priority, not above 0.
pub(crate) fn lowest_adjustment(track: &[Track], checks: &[Check]) -> i32 {
    let takes =
        track.iter().map(|track| weight_of(track, checks)).map(|Weight { value, reverse }| {
            let signed = i32::from(value);
            if reverse { -signed } else { signed }.min(0)
        });
    takes.sum()
}

/// The priorities of all nodes, as far as the file says.
pub(crate) fn priorities(parsed: &ParsedInstance) -> Vec<Priority> {
    parsed.priorities.iter().map(|(_, own)| Priority(*own)).collect()
}

/// The policy of an instance that serves something; `None` as well where its priorities leave no
/// room for one.
pub(crate) fn policy(
    parsed: &ParsedInstance,
    built: &Instance,
    checks: &[Check],
    served: Vec<Served>,
) -> Option<Box<FitnessPolicy>> {
    if served.is_empty() {
        return None;
    }
    let lowest = lowest_adjustment(&built.track, checks);
    let ranking = Ranking::new(&priorities(parsed), built.router.priority, lowest, sum(&served))?;
    Some(Box::new(FitnessPolicy { served, ranking }))
}

//! What is served and decides in the election: whether the names are right, and whether there is
//! room for it below the priorities of the nodes.

use locum_plan::{Instance, LEVELS_AMONG_UNKNOWN, Plan, Ranking};
use locum_vrrp::Priority;

use crate::assemble::fitness;
use crate::dialect::Dialect;
use crate::parsed::ParsedInstance;
use crate::settings::track_services::TrackServices;
use crate::span::{Report, Span};

pub(super) fn validate(
    parsed: &ParsedInstance,
    built: &Instance,
    plan: &Plan,
    dialect: Dialect,
    report: &mut Report,
) {
    names(parsed, plan, report);
    let served = fitness::served(parsed, &plan.services, &plan.haproxy, dialect);
    let Some(first) = served.first() else { return };
    if built.router.priority.is_owner() {
        let text = format!(
            "the priority of an owner (255) is never adjusted: it keeps the addresses of `{}` when {}",
            built.name,
            first.object.sentence(false)
        );
        report.warning(priority_span(parsed), "owner-services", text).help(
            "lower the priority to 254 or less, or set `track_services = false` where that is meant",
        );
        return;
    }
    let weights = fitness::sum(&served);
    if built.fitness.as_ref().is_some_and(|policy| policy.ranking.has_room_for(weights)) {
        return;
    }
    no_room(parsed, built, plan, weights, report);
}

/// What is lost beyond the room for it makes no difference between the nodes.
fn no_room(
    parsed: &ParsedInstance,
    built: &Instance,
    plan: &Plan,
    weights: u16,
    report: &mut Report,
) {
    let known = fitness::priorities(parsed);
    let mut different = known.clone();
    different.push(built.router.priority);
    different.sort_unstable();
    different.dedup();
    let lowest = different.first().copied().unwrap_or(Priority(0));
    let taken = -fitness::lowest_adjustment(&built.track, &plan.checks);
    let consequence = match built.fitness {
        None => "what it serves does not decide",
        Some(_) => "beyond some of it, all that a node cannot serve counts alike",
    };
    let name = &built.name;
    let has_room_below = built
        .fitness
        .as_ref()
        .is_some_and(|policy| policy.ranking.has_room_for(u16::from(LEVELS_AMONG_UNKNOWN)));
    if has_room_below && !Ranking::knows_others(&known) {
        let text = format!(
            "the priority of no other node of `{name}` is in the file, and what it serves has a \
             weight of {weights} where {LEVELS_AMONG_UNKNOWN} are kept apart: {consequence}"
        );
        report.warning(priority_span(parsed), "fitness-room", text).help(
            "give the priority of every node, as in { lb1 = 150, lb2 = 100 }, or lower the weights \
             in `track_services`",
        );
        return;
    }
    let checks = match taken {
        0 => String::new(),
        taken => format!(", of which checks may take {taken}"),
    };
    let text = format!(
        "no room below the lowest priority of `{name}`, {}{checks}: {consequence}",
        lowest.0
    );
    let needed = lowest_with_room(known.len(), different.len(), -taken, weights);
    let finding = report.warning(priority_span(parsed), "fitness-room", text);
    if let Some(needed) = needed {
        finding
            .help(format!("raise the lowest priority to {needed} or more, with the others above"));
    } else {
        finding
            .help("lower the weights in `track_services`, or serve some of it by another instance");
    }
}

/// The lowest priority that nodes with so many `different` priorities can have with room for all;
/// the file has `known` of them, equal ones too.
fn lowest_with_room(
    known: usize,
    different: usize,
    lowest_adjustment: i32,
    weights: u16,
) -> Option<u8> {
    let highest = Priority::OWNER.0.checked_sub(u8::try_from(different).ok()?)?;
    (1..=highest).find(|lowest| {
        let mut all: Vec<Priority> = (*lowest..).take(different).map(Priority).collect();
        all.resize(known.max(different), Priority(*lowest));
        Ranking::new(&all, Priority(*lowest), lowest_adjustment, weights)
            .is_some_and(|ranking| ranking.has_room_for(weights))
    })
}

fn priority_span(parsed: &ParsedInstance) -> Span {
    parsed.priority.given().map_or(parsed.name.span, |at| at.span)
}

/// A weight is for something that the instance serves.
fn names(parsed: &ParsedInstance, plan: &Plan, report: &mut Report) {
    let Some(TrackServices::Weights(weights)) = parsed.track_services.value() else { return };
    let services = plan.services.iter().map(|one| (&one.name, &one.instance));
    let haproxy = plan.haproxy.iter().map(|one| (&one.name, &one.instance));
    let all: Vec<_> = services.chain(haproxy).collect();
    let own = parsed.name.value.as_str();
    for (name, _) in weights {
        let mut named = all.iter().filter(|(known, _)| ***known == *name.value).peekable();
        if named.peek().is_none() {
            let text = format!("there is no service or haproxy `{}`", name.value);
            let known = all.iter().map(|(known, _)| &***known);
            report.error(name.span, "unknown-service", text).suggest(&name.value, known);
        } else if named.all(|(_, instance)| instance.as_deref() != Some(own)) {
            let text = format!("`{own}` does not serve `{}`", name.value);
            report
                .error(name.span, "unknown-service", text)
                .help("name it in `track`: it is then followed, whoever serves it");
        }
    }
}

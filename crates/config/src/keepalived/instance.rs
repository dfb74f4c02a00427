//! `vrrp_instance`: a virtual router, with keepalived's defaults where they are not ours.

use std::net::IpAddr;
use std::time::Duration;

use locum_vrrp::{
    ChecksumForm, ChecksumMode, Family, Preempt, Priority, Profile, UnicastPeer, Version, Vrid,
};

use crate::assemble;
use crate::keepalived::Lowering;
use crate::keepalived::address;
use crate::keepalived::blocks::Statement;
use crate::keepalived::keywords::{Row, Shape, accept, ignore, refuse, set};
use crate::span::{At, Span};
use crate::validate;
use crate::values;
use crate::wish::{AnnounceWish, Field, InstanceWish, UnicastWish, Wishes};
use locum_plan::{Dialect, Name, Track, Tracked, VirtualAddress};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Master,
    Backup,
}

/// An instance being read: what must be weighed against other lines waits here.
pub(super) struct InstanceDraft {
    wish: InstanceWish,
    state: Option<At<State>>,
    /// A priority was written, usable or not.
    ranked: bool,
    nopreempt: Option<Span>,
    preempt_delay: Option<At<Duration>>,
    peers: Field<Vec<At<UnicastPeer>>>,
    unicast: Option<Span>,
    ttl: Option<At<u8>>,
    check_source: Option<At<bool>>,
    password: Option<At<String>>,
    auth_type: Option<Span>,
    strict: Option<Span>,
}

const ROUTES: &str = "addresses alone move with an instance; set the route on both nodes";
const ACCEPTED: &str = "traffic to the address is accepted";

pub(super) const ROWS: &[Row<InstanceDraft>] = &[
    set("state", Shape::Line(1, 1), state),
    set("interface", Shape::Line(1, 1), |_, draft, statement| {
        draft.wish.interface = first_text(statement).into();
    }),
    set("virtual_router_id", Shape::Line(1, 1), |lowering, draft, statement| {
        let number = lowering.first_number::<u8>(statement, 1..=255);
        draft.wish.vrid = match number.and_then(|at| Vrid::new(at.value).map(|id| (id, at.span))) {
            Some((vrid, span)) => Field::Given(At::new(vrid, span)),
            None => Field::Bad,
        };
    }),
    set("priority", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.ranked = true;
        draft.wish.priority = lowering.first_number(statement, 1..=255);
    }),
    set("advert_int", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.wish.interval = lowering.first_seconds(statement);
        if let Some(at) = draft.wish.interval.as_ref().filter(|at| at.value < MIN_INTERVAL) {
            let text = "advert_int is at least 0.01";
            lowering.report.error(at.span, "out-of-range", text);
        }
    }),
    set("version", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.wish.version = version(lowering, statement);
    }),
    set("native_ipv6", Shape::Line(0, 0), |_, draft, statement| {
        draft.wish.family = Some(At::new(Family::V6, statement.span()));
    }),
    set("virtual_ipaddress", Shape::Block(0, 0), |lowering, draft, statement| {
        draft.wish.addresses = match addresses(lowering, statement) {
            Some(list) => Field::Given(At::new(list, statement.span())),
            None => Field::Bad,
        };
    }),
    set("virtual_ipaddress_excluded", Shape::Block(0, 0), |lowering, draft, statement| {
        draft.wish.excluded.extend(addresses(lowering, statement).unwrap_or_default());
    }),
    set("no_virtual_ipaddress", Shape::Line(0, 0), |_, draft, _| {
        draft.wish.without_addresses = true;
    }),
    set("authentication", Shape::Block(0, 0), |lowering, draft, statement| {
        let block = statement.block.as_deref().unwrap_or_default();
        lowering.run("an authentication", AUTHENTICATION, draft, block);
    }),
    set("nopreempt", Shape::Line(0, 0), |_, draft, statement| {
        draft.nopreempt = Some(statement.span());
    }),
    set("preempt", Shape::Line(0, 0), |_, draft, _| draft.nopreempt = None),
    set("preempt_delay", Shape::Line(1, 1), preempt_delay),
    set("mcast_src_ip", Shape::Line(1, 1), source),
    set("mcast_dst_ip", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.wish.group = first_address(lowering, statement);
    }),
    set("unicast_src_ip", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.unicast.get_or_insert(statement.span());
        source(lowering, draft, statement);
    }),
    set("unicast_peer", Shape::Block(0, 0), |lowering, draft, statement| {
        draft.unicast = Some(statement.span());
        draft.peers = match peers(lowering, statement) {
            Some(list) => Field::Given(At::new(list, statement.span())),
            None => Field::Bad,
        };
    }),
    set("unicast_ttl", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.ttl = lowering.first_number(statement, 0..=255);
    }),
    set("check_unicast_src", Shape::Line(0, 1), |lowering, draft, statement| {
        draft.check_source = lowering.switch(statement);
    }),
    accept("unicast_fault_no_peer"),
    set("track_script", Shape::Block(0, 0), |lowering, draft, statement| {
        for line in statement.block.as_deref().unwrap_or_default() {
            draft.wish.track.extend(track(lowering, line, Tracked::Check));
        }
    }),
    set("track_interface", Shape::Block(0, 0), |lowering, draft, statement| {
        for line in statement.block.as_deref().unwrap_or_default() {
            draft.wish.track.extend(track(lowering, line, Tracked::Interface));
        }
    }),
    refuse("track_process", "use a vrrp_script with \"killall -0 NAME\""),
    refuse("track_file", "use a vrrp_script that looks at the file"),
    refuse("track_bfd", "remove it"),
    set("notify", Shape::Line(1, 3), |lowering, draft, statement| {
        draft.wish.hooks.any.extend(lowering.hook(statement));
    }),
    set("notify_master", Shape::Line(1, 3), |lowering, draft, statement| {
        draft.wish.hooks.master.extend(lowering.hook(statement));
    }),
    set("notify_backup", Shape::Line(1, 3), |lowering, draft, statement| {
        draft.wish.hooks.backup.extend(lowering.hook(statement));
    }),
    set("notify_fault", Shape::Line(1, 3), |lowering, draft, statement| {
        draft.wish.hooks.fault.extend(lowering.hook(statement));
    }),
    set("notify_stop", Shape::Line(1, 3), |lowering, draft, statement| {
        draft.wish.hooks.stop.extend(lowering.hook(statement));
    }),
    ignore("notify_deleted", "a deleted instance runs notify_stop"),
    ignore("notify_master_rx_lower_pri", "after a conflict the master runs notify_master again"),
    ignore("notify_priority_changes", "use `locum history --json`"),
    accept("smtp_alert"),
    set("garp_master_delay", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.wish.announce.delay = lowering.first_seconds(statement);
    }),
    set("garp_master_repeat", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.wish.announce.repeat = lowering.first_number(statement, 0..=255);
    }),
    set("garp_master_refresh", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.wish.announce.refresh = lowering.first_seconds(statement);
    }),
    set("garp_master_refresh_repeat", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.wish.announce.refresh_repeat = lowering.first_number(statement, 0..=255);
    }),
    set("garp_lower_prio_delay", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.wish.announce.lower_priority_delay = lowering.first_seconds(statement);
    }),
    set("garp_lower_prio_repeat", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.wish.announce.lower_priority_repeat = lowering.first_number(statement, 0..=255);
    }),
    ignore("garp_extra_if", "the instance's own interface announces"),
    accept("vmac_garp_intvl"),
    set("lower_prio_no_advert", Shape::Line(0, 1), |lowering, draft, statement| {
        draft.wish.answer_lower = lowering.switch(statement).map(|at| at.map(|silent| !silent));
    }),
    set("higher_prio_send_advert", Shape::Line(0, 1), |lowering, draft, statement| {
        draft.wish.answer_higher = lowering.switch(statement);
    }),
    set("owner_ignore_adverts", Shape::Line(0, 1), |lowering, draft, statement| {
        draft.wish.owner_ignores_adverts = lowering.switch(statement);
    }),
    set("down_timer_adverts", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.wish.down_multiplier = lowering.first_number(statement, 1..=100);
    }),
    set("v3_checksum_as_v2", Shape::Line(0, 1), |lowering, draft, statement| {
        // The master's packets begin in this form; both are understood.
        let form = lowering.switch(statement);
        draft.wish.checksum = form
            .filter(|at| at.value)
            .map(|at| at.map(|_| ChecksumMode::Auto(ChecksumForm::Message)));
    }),
    set("old_unicast_checksum", Shape::Line(0, 1), |lowering, _, statement| {
        if statement.arguments().first().is_none_or(|word| word.text != "never") {
            let text = "the checksum of keepalived 1.3.6 and older is not supported";
            lowering.report.warning(statement.span(), "ignored-keyword", text);
        }
    }),
    set("strict_mode", Shape::Line(0, 1), |lowering, draft, statement| {
        let on = lowering.switch(statement).is_some_and(|at| at.value);
        draft.strict = on.then(|| statement.span());
    }),
    accept("skip_check_adv_addr"),
    accept("timer_expired_backup"),
    accept("thread_timer_expired"),
    accept("accept"),
    ignore("no_accept", ACCEPTED),
    refuse("use_vmac", "remove it: the address moves by gratuitous ARP"),
    refuse("use_vmac_addr", "remove it"),
    refuse("use_ipvlan", "remove it: the address moves by gratuitous ARP"),
    accept("vmac_xmit_base"),
    accept("vmac_prefix"),
    accept("vmac_addr_prefix"),
    accept("promote_secondaries"),
    refuse("vrf", "remove it"),
    ignore("track_src_ip", "a missing source address is a fault already"),
    ignore("dont_track_primary", "the instance's own interface is always tracked"),
    refuse("virtual_routes", ROUTES),
    refuse("virtual_rules", ROUTES),
    accept("linkbeat_use_polling"),
    ignore("lvs_sync_daemon_interface", "connections are not synchronised between directors"),
    accept("debug"),
    accept("global_tracking"),
    refuse("auth_hmac", "remove it"),
];

const AUTHENTICATION: &[Row<InstanceDraft>] = &[
    set("auth_type", Shape::Line(1, 1), |lowering, draft, statement| {
        let Some(word) = statement.arguments().first() else { return };
        match word.text.as_str() {
            "PASS" => draft.auth_type = Some(word.span),
            "AH" => {
                let text = "authentication by AH is not supported yet";
                lowering.report.error(word.span, "unsupported", text).help("use PASS");
            }
            other => {
                let text = format!("`{other}` is not an authentication: PASS");
                lowering.bad_value(word, text);
            }
        }
    }),
    set("auth_pass", Shape::Line(1, 1), |_, draft, statement| {
        draft.password = first_text(statement);
    }),
];

fn first_text(statement: &Statement) -> Option<At<String>> {
    statement.arguments().first().map(|word| At::new(word.text.clone(), word.span))
}

fn first_address(lowering: &mut Lowering<'_>, statement: &Statement) -> Option<At<IpAddr>> {
    statement.arguments().first().and_then(|word| lowering.ip_address(word))
}

fn source(lowering: &mut Lowering<'_>, draft: &mut InstanceDraft, statement: &Statement) {
    draft.wish.source = first_address(lowering, statement);
}

fn state(lowering: &mut Lowering<'_>, draft: &mut InstanceDraft, statement: &Statement) {
    let Some(word) = statement.arguments().first() else { return };
    let state = match word.text.as_str() {
        "MASTER" => State::Master,
        "BACKUP" => State::Backup,
        other => {
            let text = format!("`{other}` is not a state: MASTER or BACKUP");
            lowering.bad_value(word, text);
            return;
        }
    };
    draft.state = Some(At::new(state, word.span));
}

pub(super) fn version(lowering: &mut Lowering<'_>, statement: &Statement) -> Option<At<Version>> {
    let number = lowering.first_number::<i64>(statement, 2..=3)?;
    Some(number.map(|number| if number == 2 { Version::V2 } else { Version::V3 }))
}

/// keepalived's shortest: one centisecond, as the wire has it.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// keepalived's longest.
const MAX_PREEMPT_DELAY: Duration = Duration::from_secs(1000);

fn preempt_delay(lowering: &mut Lowering<'_>, draft: &mut InstanceDraft, statement: &Statement) {
    let delay = lowering.first_seconds(statement);
    if let Some(at) = delay.as_ref().filter(|at| at.value > MAX_PREEMPT_DELAY) {
        let text = "a preempt delay is 0 to 1000 seconds";
        lowering.report.error(at.span, "out-of-range", text);
        return;
    }
    draft.preempt_delay = delay;
}

fn addresses(
    lowering: &mut Lowering<'_>,
    statement: &Statement,
) -> Option<Vec<At<VirtualAddress>>> {
    let lines = statement.block.as_deref().unwrap_or_default();
    let read: Vec<_> = lines.iter().map(|line| address::read(lowering, line)).collect();
    read.into_iter().collect()
}

/// Lines of `ADDRESS [min_ttl N] [max_ttl N]`.
fn peers(lowering: &mut Lowering<'_>, statement: &Statement) -> Option<Vec<At<UnicastPeer>>> {
    let lines = statement.block.as_deref().unwrap_or_default();
    let read: Vec<_> = lines.iter().map(|line| peer(lowering, line)).collect();
    read.into_iter().collect()
}

fn peer(lowering: &mut Lowering<'_>, line: &Statement) -> Option<At<UnicastPeer>> {
    let address = lowering.ip_address(line.keyword())?;
    let (mut low, mut high) = (None, None);
    for pair in line.arguments().chunks(2) {
        let [name, value] = pair else {
            let text = format!("`{}` needs a value", pair[0].text);
            lowering.report.error(pair[0].span, "missing-argument", text);
            return None;
        };
        let number = lowering.number(value, 0..=255)?;
        let octet = u8::try_from(number.value).ok();
        match name.text.as_str() {
            "min_ttl" => low = octet,
            "max_ttl" => high = octet,
            other => {
                let text = format!("unknown option `{other}` of a peer");
                lowering
                    .report
                    .error(name.span, "unknown-keyword", text)
                    .suggest(other, ["min_ttl", "max_ttl"]);
                return None;
            }
        }
    }
    let ttl = match (low, high) {
        (None, None) => None,
        (low, high) => Some((low.unwrap_or(0), high.unwrap_or(255))),
    };
    Some(At::new(UnicastPeer { address: address.value, ttl }, line.span()))
}

/// `NAME [weight N [reverse]]`.
fn track(
    lowering: &mut Lowering<'_>,
    line: &Statement,
    kind: fn(Name) -> Tracked,
) -> Option<At<Track>> {
    let name = line.keyword();
    let weight = match tracked_weight(lowering, line) {
        Ok(weight) => weight,
        Err(Refused) => return None,
    };
    Some(At::new(Track { object: kind(name.text.as_str().into()), weight }, name.span))
}

/// The line cannot be used, and has been reported.
struct Refused;

fn tracked_weight(
    lowering: &mut Lowering<'_>,
    line: &Statement,
) -> Result<Option<locum_plan::Weight>, Refused> {
    let Some((option, rest)) = line.arguments().split_first() else { return Ok(None) };
    if option.text != "weight" {
        let text = format!("unknown option `{}` of a tracked object", option.text);
        lowering
            .report
            .error(option.span, "unknown-keyword", text)
            .suggest(&option.text, ["weight"]);
        return Err(Refused);
    }
    lowering.weight(option, rest).map(|at| Some(at.value)).ok_or(Refused)
}

pub(super) fn read(lowering: &mut Lowering<'_>, wishes: &mut Wishes, statement: &Statement) {
    let Some(name) = first_text(statement) else { return };
    let mut draft = InstanceDraft {
        wish: InstanceWish::new(statement.span(), name),
        state: None,
        ranked: false,
        nopreempt: None,
        preempt_delay: None,
        peers: Field::Absent,
        unicast: None,
        ttl: None,
        check_source: None,
        password: None,
        auth_type: None,
        strict: None,
    };
    let block = statement.block.as_deref().unwrap_or_default();
    lowering.run("a vrrp_instance", ROWS, &mut draft, block);
    wishes.instances.push(finish(lowering, draft));
}

/// Weighs the lines against each other and against `global_defs`.
fn finish(lowering: &mut Lowering<'_>, mut draft: InstanceDraft) -> InstanceWish {
    inherit(lowering, &mut draft);
    draft.wish.priority = priority(lowering, &draft);
    draft.wish.preempt = preempt(lowering, &draft);
    authenticate(lowering, &mut draft);
    if let Some(span) = draft.unicast {
        draft.wish.unicast = Some(UnicastWish {
            span,
            peers: std::mem::take(&mut draft.peers),
            ttl: draft.ttl.take(),
            check_source: draft.check_source.take(),
        });
    }
    overflow(lowering, &mut draft.wish);
    draft.wish
}

/// What `global_defs` sets for every instance that does not.
fn inherit(lowering: &mut Lowering<'_>, draft: &mut InstanceDraft) {
    let globals = &lowering.globals;
    let wish = &mut draft.wish;
    let global = &globals.announce;
    let own = std::mem::take(&mut wish.announce);
    let min_garp = globals.min_garp.as_ref().filter(|at| at.value).map(|at| at.span);
    let once = || min_garp.map(|span| At::new(1, span));
    let never = || min_garp.map(|span| At::new(Duration::ZERO, span));
    wish.announce = AnnounceWish {
        repeat: own.repeat.or_else(|| global.repeat.clone()).or_else(once),
        delay: own.delay.or_else(|| global.delay.clone()).or_else(never),
        refresh: own.refresh.or_else(|| global.refresh.clone()),
        refresh_repeat: own.refresh_repeat.or_else(|| global.refresh_repeat.clone()),
        lower_priority_repeat: own
            .lower_priority_repeat
            .or_else(|| global.lower_priority_repeat.clone()),
        lower_priority_delay: own
            .lower_priority_delay
            .or_else(|| global.lower_priority_delay.clone()),
        garp_interval: global.garp_interval.clone(),
        gna_interval: global.gna_interval.clone(),
    };
    inherit_one(&mut wish.start_delay, &globals.start_delay);
    inherit_one(&mut wish.answer_lower, &globals.answer_lower);
    inherit_one(&mut wish.answer_higher, &globals.answer_higher);
    inherit_one(&mut wish.owner_ignores_adverts, &globals.owner_ignores_adverts);
    inherit_one(&mut wish.down_multiplier, &globals.down_multiplier);
    inherit_one(&mut draft.check_source, &globals.check_unicast_source);
    draft.strict = draft.strict.or(globals.strict);
    let family = assemble::family(wish);
    match family {
        Family::V4 => {
            inherit_one(&mut wish.group, &globals.group_v4);
            inherit_one(&mut wish.version, &globals.version);
        }
        // The global version is about IPv4: IPv6 exists in version 3 only.
        Family::V6 => inherit_one(&mut wish.group, &globals.group_v6),
    }
    if let Some(span) = draft.strict {
        wish.profile = Some(At::new(Profile::Strict, span));
        let text = "strict mode here means the RFCs' rules for adverts; traffic to the address is accepted";
        lowering.report.warning(span, "strict-mode", text);
    }
}

fn inherit_one<T: Clone>(own: &mut Option<At<T>>, global: &Option<At<T>>) {
    if own.is_none() {
        own.clone_from(global);
    }
}

/// Without a priority, `state MASTER` means the owner's.
fn priority(lowering: &mut Lowering<'_>, draft: &InstanceDraft) -> Option<At<u8>> {
    if draft.ranked {
        return draft.wish.priority.clone();
    }
    let state = draft.state.as_ref().filter(|at| at.value == State::Master)?;
    let text = "state MASTER without a priority means 255, the owner of the addresses";
    lowering
        .report
        .warning(state.span, "implied-owner", text)
        .help("give a `priority` from 1 to 254");
    Some(At::new(Priority::OWNER.0, state.span))
}

/// `nopreempt` and `preempt_delay` need an initial state that is not MASTER.
fn preempt(lowering: &mut Lowering<'_>, draft: &InstanceDraft) -> Option<At<Preempt>> {
    let owner = draft.wish.priority.as_ref().is_some_and(|at| Priority(at.value).is_owner());
    let master = match &draft.state {
        Some(at) => at.value == State::Master,
        None => owner,
    };
    let delay = draft.preempt_delay.clone().filter(|at| !at.value.is_zero());
    if master {
        let delay_span = delay.as_ref().map(|at| at.span);
        for (name, span) in [("nopreempt", draft.nopreempt), ("preempt_delay", delay_span)] {
            if let Some(span) = span {
                let text = format!("`{name}` is ignored, because the initial state is MASTER");
                lowering
                    .report
                    .warning(span, "preempt-master", text)
                    .help("set `state BACKUP` on every node");
            }
        }
        return None;
    }
    match (draft.nopreempt, delay) {
        (Some(span), delay) => {
            if let Some(delay) = delay {
                let text = "`preempt_delay` is ignored beside `nopreempt`";
                lowering.report.warning(delay.span, "preempt-delay", text);
            }
            Some(At::new(Preempt::Never, span))
        }
        (None, Some(delay)) => Some(delay.map(Preempt::After)),
        (None, None) => None,
    }
}

/// A password longer than eight octets is cut, as keepalived cuts it. Strict mode has none.
fn authenticate(lowering: &mut Lowering<'_>, draft: &mut InstanceDraft) {
    let Some(password) = draft.password.take() else {
        if let Some(span) = draft.auth_type {
            let text = "`auth_type` without `auth_pass`";
            lowering.report.error(span, "missing-key", text);
        }
        return;
    };
    if draft.strict.is_some() {
        let text = "strict mode has no authentication, so this one is ignored";
        lowering.report.warning(password.span, "auth-strict", text);
        return;
    }
    if password.value.is_empty() {
        lowering.report.error(password.span, "bad-password", "the password is empty");
        return;
    }
    if password.value.len() > values::MAX_PASSWORD {
        let text = format!("auth_pass is cut to {} octets, as in keepalived", values::MAX_PASSWORD);
        lowering.report.warning(password.span, "password-too-long", text);
    }
    let auth = values::password(&password.value);
    draft.wish.auth = Some(At::new(auth, password.span));
}

/// Addresses that do not fit into the advert become excluded ones.
fn overflow(lowering: &mut Lowering<'_>, wish: &mut InstanceWish) {
    let family = assemble::family(wish);
    let version = wish.version.as_ref().map_or(
        match family {
            Family::V4 => crate::defaults::version(Dialect::Keepalived),
            Family::V6 => Version::V3,
        },
        |at| at.value,
    );
    let limit = validate::capacity(version, family);
    let Field::Given(list) = &mut wish.addresses else { return };
    let Some(first) = list.value.get(limit) else { return };
    let text = format!(
        "{} addresses do not fit into one advertisement: from here on they are excluded ones",
        list.value.len()
    );
    lowering.report.warning(first.span, "too-many-addresses", text);
    let mut rest = list.value.split_off(limit);
    rest.append(&mut wish.excluded);
    wish.excluded = rest;
}

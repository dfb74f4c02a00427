//! `vrrp_instance`: a virtual router, with keepalived's defaults where they are not ours.

use std::time::Duration;

use locum_vrrp::{
    ChecksumForm, ChecksumMode, Family, Preempt, Priority, Profile, UnicastPeer, Version,
};

use crate::assemble;
use crate::keepalived::address;
use crate::keepalived::blocks::Statement;
use crate::keepalived::correct::{self, version_in_force};
use crate::keepalived::globals::{FileDraft, Globals};
use crate::keepalived::keywords::{KeywordRow, Shape, accept, differs, ignore, refuse, set};
use crate::keepalived::lowering::{BlockTarget, Lowering, put, without_settings};
use crate::parsed::{Field, ParsedInstance};
use crate::settings::instance::INSTANCE;
use crate::settings::keywords;
use crate::settings::row::Block;
use crate::span::{At, Span};
use crate::validate;
use locum_plan::{Command, Name, Track, Tracked, VirtualAddress, Weight};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Master,
    Backup,
}

/// An instance being read: what must be weighed against other lines waits here.
pub(super) struct InstanceDraft {
    parsed: ParsedInstance,
    state: Option<At<State>>,
    nopreempt: Option<Span>,
    preempt_delay: Option<At<Duration>>,
    auth: AuthDraft,
    strict: Option<Span>,
}

/// What an `authentication` block says.
#[derive(Default)]
pub(super) struct AuthDraft {
    password: Option<At<String>>,
    /// `auth_type`, whichever.
    kind: Option<Span>,
    /// It is AH, which adverts of ours cannot carry.
    is_header: bool,
    /// It is none that there is: keepalived goes on without.
    is_unknown: bool,
}

without_settings!(AuthDraft);

impl BlockTarget for InstanceDraft {
    fn setting(&mut self, lowering: &mut Lowering<'_>, statement: &Statement) -> bool {
        INSTANCE.lower(lowering, Block::Instance, statement, &mut self.parsed)
    }

    fn keywords() -> Vec<&'static str> {
        keywords(Block::Instance)
    }
}

const ROUTES: &str = "addresses alone move with an instance; set the route on both nodes";
const ACCEPTED: &str = "traffic to the address is accepted";

pub(super) const ROWS: &[KeywordRow<InstanceDraft>] = &[
    set("state", Shape::Line(1, 1), state),
    set("advert_int", Shape::Line(1, 1), |lowering, draft, statement| {
        let Some(at) = lowering.first_seconds(statement) else { return };
        if INTERVALS.contains(&at.value) {
            draft.parsed.interval = Field::Given(at);
        } else {
            lowering.fault(at.span, "out-of-range", "advert_int is from 0.01 to 255 seconds");
        }
    }),
    set("native_ipv6", Shape::Line(0, 0), |_, draft, statement| {
        draft.parsed.family = Field::Given(At::new(Family::V6, statement.span()));
    }),
    set("virtual_ipaddress", Shape::Block(0, 0), |lowering, draft, statement| {
        let list = addresses(lowering, statement);
        match &mut draft.parsed.addresses {
            Field::Given(known) => known.value.extend(list),
            slot @ (Field::Absent | Field::Bad) => {
                *slot = Field::Given(At::new(list, statement.span()));
            }
        }
    }),
    set("virtual_ipaddress_excluded", Shape::Block(0, 0), |lowering, draft, statement| {
        let list = addresses(lowering, statement);
        draft.parsed.excluded.extend(list, statement.span());
    }),
    set("no_virtual_ipaddress", Shape::Line(0, 0), |_, draft, _| {
        draft.parsed.without_addresses = true;
    }),
    set("authentication", Shape::Block(0, 0), |lowering, draft, statement| {
        let block = statement.block.as_deref().unwrap_or_default();
        lowering.run("an authentication", AUTHENTICATION, &mut draft.auth, block);
    }),
    set("nopreempt", Shape::Line(0, 0), |_, draft, statement| {
        draft.nopreempt = Some(statement.span());
    }),
    set("preempt", Shape::Line(0, 0), |_, draft, _| draft.nopreempt = None),
    set("preempt_delay", Shape::Line(1, 1), preempt_delay),
    set("unicast_src_ip", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.parsed.unicast.span.get_or_insert(statement.span());
        let source = statement.arguments().first().and_then(|word| lowering.host(word));
        put(&mut draft.parsed.source, source);
    }),
    set("unicast_peer", Shape::Block(0, 0), |lowering, draft, statement| {
        draft.parsed.unicast.span = Some(statement.span());
        let list = peers(lowering, statement);
        match &mut draft.parsed.unicast.peers {
            Field::Given(known) => known.value.extend(list),
            slot @ (Field::Absent | Field::Bad) => {
                *slot = Field::Given(At::new(list, statement.span()));
            }
        }
    }),
    set("unicast_ttl", Shape::Line(1, 1), |lowering, draft, statement| {
        put(&mut draft.parsed.unicast.ttl, lowering.first_number(statement, 0..=255));
    }),
    accept(
        "unicast_fault_no_peer",
        "without peers adverts go to the multicast group, which is said",
    ),
    set("track_script", Shape::Block(0, 0), |lowering, draft, statement| {
        for line in statement.block.as_deref().unwrap_or_default() {
            let track = track(lowering, line, Tracked::Check);
            draft.parsed.track.extend(track, statement.span());
        }
    }),
    set("track_interface", Shape::Block(0, 0), |lowering, draft, statement| {
        for line in statement.block.as_deref().unwrap_or_default() {
            let track = track(lowering, line, Tracked::Interface);
            draft.parsed.track.extend(track, statement.span());
        }
    }),
    refuse("track_process", "use a vrrp_script with \"killall -0 NAME\""),
    refuse("track_file", "use a vrrp_script that looks at the file"),
    refuse("track_bfd", "remove it"),
    set("notify", Shape::Line(1, 3), |lowering, draft, statement| {
        first_hook(lowering, &mut draft.parsed.hooks.any, statement);
    }),
    set("notify_master", Shape::Line(1, 3), |lowering, draft, statement| {
        first_hook(lowering, &mut draft.parsed.hooks.master, statement);
    }),
    set("notify_backup", Shape::Line(1, 3), |lowering, draft, statement| {
        first_hook(lowering, &mut draft.parsed.hooks.backup, statement);
    }),
    set("notify_fault", Shape::Line(1, 3), |lowering, draft, statement| {
        first_hook(lowering, &mut draft.parsed.hooks.fault, statement);
    }),
    set("notify_stop", Shape::Line(1, 3), |lowering, draft, statement| {
        first_hook(lowering, &mut draft.parsed.hooks.stop, statement);
    }),
    ignore("notify_deleted", "a deleted instance runs notify_stop"),
    ignore("notify_master_rx_lower_pri", "after a conflict the master runs notify_master again"),
    ignore("notify_priority_changes", "use `locum history --json`"),
    accept("smtp_alert", "no mail is sent; use notify scripts"),
    ignore("garp_extra_if", "the instance's own interface announces"),
    accept("vmac_garp_intvl", "there are no virtual MACs"),
    set("v3_checksum_as_v2", Shape::Line(0, 1), |lowering, draft, statement| {
        // The master's packets begin in this form; both are understood.
        draft.parsed.checksum = match lowering.switch(statement) {
            Some(at) if at.value => {
                Field::Given(at.map(|_| ChecksumMode::Auto(ChecksumForm::Message)))
            }
            Some(_) | None => Field::Absent,
        };
    }),
    differs(
        "the checksum of keepalived 1.3.6 and older is not there",
        set("old_unicast_checksum", Shape::Line(0, 1), |lowering, _, statement| {
            if statement.arguments().first().is_none_or(|word| word.text != "never") {
                let text = "the checksum of keepalived 1.3.6 and older is not supported";
                lowering.report.warning(statement.span(), "ignored-keyword", text);
            }
        }),
    ),
    differs(
        "the RFCs' rules for adverts; traffic to the address is accepted",
        set("strict_mode", Shape::Line(0, 1), |lowering, draft, statement| {
            let on = lowering.switch(statement).is_some_and(|at| at.value);
            draft.strict = on.then(|| statement.span());
        }),
    ),
    accept(
        "skip_check_adv_addr",
        "a peer that advertises other addresses is counted and stays a peer",
    ),
    accept("timer_expired_backup", "after a pause a master listens before it goes on"),
    accept("thread_timer_expired", "after a pause a master listens before it goes on"),
    accept("accept", "traffic to the address is accepted"),
    ignore("no_accept", ACCEPTED),
    refuse("use_vmac", "remove it: the address moves by gratuitous ARP"),
    refuse("use_vmac_addr", "remove it"),
    refuse("use_ipvlan", "remove it: the address moves by gratuitous ARP"),
    accept("vmac_xmit_base", "there are no virtual MACs"),
    accept("vmac_prefix", "there are no virtual MACs"),
    accept("vmac_addr_prefix", "there are no virtual MACs"),
    accept("promote_secondaries", "there are no virtual MACs"),
    refuse("vrf", "remove it"),
    ignore("track_src_ip", "a missing source address is a fault already"),
    ignore("dont_track_primary", "the instance's own interface is always tracked"),
    refuse("virtual_routes", ROUTES),
    refuse("virtual_rules", ROUTES),
    accept("linkbeat_use_polling", "carrier is watched through the kernel"),
    ignore("lvs_sync_daemon_interface", "connections are not synchronised between directors"),
    accept("kernel_rx_buf_size", "sockets have what they need"),
    accept("debug", "the log level is an option of `locum run`"),
    accept("global_tracking", "an old word that does nothing in keepalived either"),
    refuse("auth_hmac", "remove it"),
];

pub(super) const AUTHENTICATION: &[KeywordRow<AuthDraft>] = &[
    set("auth_type", Shape::Line(1, 1), |lowering, draft, statement| {
        let Some(word) = statement.arguments().first() else { return };
        match word.text.as_str() {
            kind @ ("PASS" | "AH") => {
                draft.kind = Some(word.span);
                draft.is_header = kind == "AH";
            }
            other => {
                let text = format!("`{other}` is not an authentication");
                let effect = "there is no authentication";
                let finding = lowering.report.forgiven(word.span, "bad-value", text, effect);
                match other.strip_suffix(';') {
                    Some(kind) => drop(finding.help(format!("write `{kind}`, without `;`"))),
                    None => drop(finding.help("write `PASS`")),
                }
                draft.is_unknown = true;
            }
        }
    }),
    set("auth_pass", Shape::Line(1, 1), |_, draft, statement| {
        draft.password = first_text(statement);
    }),
];

/// Of several keepalived runs the first.
fn first_hook(
    lowering: &mut Lowering<'_>,
    hooks: &mut Field<Vec<At<Command>>>,
    statement: &Statement,
) {
    match hooks.span() {
        None => hooks.extend(lowering.hook(statement), statement.span()),
        Some(first) => {
            let text = format!("`{}` is there already", statement.keyword().text);
            let effect = "the first one runs";
            let finding =
                lowering.report.forgiven(statement.span(), "duplicate-hook", text, effect);
            drop(finding.see("first", first));
        }
    }
}

fn first_text(statement: &Statement) -> Option<At<String>> {
    statement.arguments().first().map(|word| At::new(word.text.clone(), word.span))
}

fn state(lowering: &mut Lowering<'_>, draft: &mut InstanceDraft, statement: &Statement) {
    let Some(word) = statement.arguments().first() else { return };
    let state = match word.text.as_str() {
        "MASTER" => State::Master,
        "BACKUP" => State::Backup,
        other => {
            let text = format!("`{other}` is not a state: MASTER or BACKUP");
            lowering
                .report
                .forgiven(word.span, "bad-value", text, "the state is BACKUP")
                .suggest(other, ["MASTER", "BACKUP"]);
            State::Backup
        }
    };
    draft.state = Some(At::new(state, word.span));
}

/// keepalived's: from one centisecond, as the wire has it.
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(255);

/// keepalived's longest.
const MAX_PREEMPT_DELAY: Duration = Duration::from_secs(1000);

fn preempt_delay(lowering: &mut Lowering<'_>, draft: &mut InstanceDraft, statement: &Statement) {
    let delay = lowering.first_seconds(statement);
    if let Some(at) = delay.as_ref().filter(|at| at.value > MAX_PREEMPT_DELAY) {
        let text = "a preempt delay is 0 to 1000 seconds";
        lowering.fault(at.span, "out-of-range", text);
        return;
    }
    draft.preempt_delay = delay;
}

/// Those that are usable: keepalived passes over the others.
fn addresses(lowering: &mut Lowering<'_>, statement: &Statement) -> Vec<At<VirtualAddress>> {
    let lines = statement.block.as_deref().unwrap_or_default();
    lines.iter().filter_map(|line| address::read(lowering, line)).collect()
}

/// Lines of `ADDRESS [min_ttl N] [max_ttl N]`.
fn peers(lowering: &mut Lowering<'_>, statement: &Statement) -> Vec<At<UnicastPeer>> {
    let lines = statement.block.as_deref().unwrap_or_default();
    lines.iter().filter_map(|line| peer(lowering, line)).collect()
}

fn peer(lowering: &mut Lowering<'_>, line: &Statement) -> Option<At<UnicastPeer>> {
    let address = lowering.host(line.keyword())?;
    let (mut low, mut high) = (None, None);
    let mut words = line.arguments().iter();
    while let Some(name) = words.next() {
        let slot = match name.text.as_str() {
            "min_ttl" => &mut low,
            "max_ttl" => &mut high,
            other => {
                let text = format!("unknown option `{other}` of a peer");
                lowering
                    .report
                    .forgiven(name.span, "unknown-keyword", text, "the word is ignored")
                    .suggest(other, ["min_ttl", "max_ttl"]);
                continue;
            }
        };
        let Some(value) = words.next() else {
            let text = format!("`{}` needs a value", name.text);
            lowering.report.forgiven(name.span, "missing-argument", text, "it is ignored");
            break;
        };
        *slot = lowering.number(value, 0..=255).map(|at| at.value).or(*slot);
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
    let weight = tracked_weight(lowering, line);
    Some(At::new(Track { object: kind(name.text.as_str().into()), weight }, name.span))
}

/// keepalived passes over options that it cannot use, and tracks what is named all the same.
fn tracked_weight(lowering: &mut Lowering<'_>, line: &Statement) -> Option<Weight> {
    let (option, rest) = line.arguments().split_first()?;
    if option.text != "weight" {
        let text = format!("unknown option `{}` of a tracked object", option.text);
        let effect = "it is tracked without it";
        lowering
            .report
            .forgiven(option.span, "unknown-keyword", text, effect)
            .suggest(&option.text, ["weight"]);
        return None;
    }
    lowering.weight(option, rest).map(|at| at.value)
}

/// A second block of one name is passed over, as is one without a name or with two.
pub(super) fn read(lowering: &mut Lowering<'_>, file: &mut FileDraft, statement: &Statement) {
    let Some(name) = lowering.only_name(statement) else { return };
    if let Some(first) = file.instance_names.get(&name.value) {
        let text = format!("instance `{}` is defined twice", name.value);
        let effect = "the second block is ignored";
        let finding = lowering.report.forgiven(name.span, "duplicate-name", text, effect);
        return drop(finding.see("first defined", *first));
    }
    file.instance_names.insert(name.value.clone(), name.span);
    let mut draft = InstanceDraft {
        parsed: ParsedInstance::new(statement.span(), name),
        state: None,
        nopreempt: None,
        preempt_delay: None,
        auth: AuthDraft::default(),
        strict: None,
    };
    let block = statement.block.as_deref().unwrap_or_default();
    lowering.run("a vrrp_instance", ROWS, &mut draft, block);
    file.parsed.instances.push(finish(lowering, &file.globals, draft));
}

/// Weighs the lines against each other and against `global_defs`.
fn finish(
    lowering: &mut Lowering<'_>,
    globals: &Globals,
    mut draft: InstanceDraft,
) -> ParsedInstance {
    inherit(lowering, globals, &mut draft);
    draft.parsed.priority = priority(lowering, &draft);
    draft.parsed.preempt = preempt(lowering, &draft);
    correct::instance(&mut draft.parsed, lowering.report);
    authenticate(lowering, &mut draft);
    overflow(lowering, &mut draft.parsed);
    draft.parsed
}

/// What `global_defs` sets for every instance that does not.
fn inherit(lowering: &mut Lowering<'_>, globals: &Globals, draft: &mut InstanceDraft) {
    let instance = &mut draft.parsed;
    INSTANCE.inherit(instance, &globals.instance);
    if let Some(min_garp) = globals.min_garp.given().filter(|at| at.value) {
        inherit_one(&mut instance.announce.repeat, &Field::Given(At::new(1, min_garp.span)));
        let never = Field::Given(At::new(Duration::ZERO, min_garp.span));
        inherit_one(&mut instance.announce.delay, &never);
    }
    draft.strict = draft.strict.or(globals.strict);
    match assemble::family(instance) {
        Family::V4 => {
            inherit_one(&mut instance.group, &globals.group_v4);
            inherit_one(&mut instance.version, &globals.version);
        }
        // The global version is about IPv4: IPv6 exists in version 3 only.
        Family::V6 => inherit_one(&mut instance.group, &globals.group_v6),
    }
    if let Some(span) = draft.strict {
        instance.profile = Field::Given(At::new(Profile::Strict, span));
        let text = "strict mode here means the RFCs' rules for adverts; traffic to the address is accepted";
        lowering.report.warning(span, "strict-mode", text);
    }
}

fn inherit_one<T: Clone>(own: &mut Field<T>, global: &Field<T>) {
    if own.is_absent() {
        own.clone_from(global);
    }
}

/// Without a priority, `state MASTER` means the owner's.
fn priority(lowering: &mut Lowering<'_>, draft: &InstanceDraft) -> Field<u8> {
    let is_master = draft.state.as_ref().filter(|at| at.value == State::Master);
    let (Field::Absent, Some(state)) = (&draft.parsed.priority, is_master) else {
        return draft.parsed.priority.clone();
    };
    let text = "state MASTER without a priority means 255, the owner of the addresses";
    lowering
        .report
        .warning(state.span, "implied-owner", text)
        .help("give a `priority` from 1 to 254");
    Field::Given(At::new(Priority::OWNER.0, state.span))
}

/// `nopreempt` and `preempt_delay` need an initial state that is not MASTER.
fn preempt(lowering: &mut Lowering<'_>, draft: &InstanceDraft) -> Field<Preempt> {
    let owner = draft.parsed.priority.value().is_some_and(|own| Priority(*own).is_owner());
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
        return Field::Absent;
    }
    match (draft.nopreempt, delay) {
        (Some(span), delay) => {
            if let Some(delay) = delay {
                let text = "`preempt_delay` is ignored beside `nopreempt`";
                lowering.report.warning(delay.span, "preempt-delay", text);
            }
            Field::Given(At::new(Preempt::Never, span))
        }
        (None, Some(delay)) => Field::Given(delay.map(Preempt::After)),
        (None, None) => Field::Absent,
    }
}

/// Version 3 has no authentication, nor has strict mode: what stands there is ignored, and it is
/// said, as keepalived does.
fn authenticate(lowering: &mut Lowering<'_>, draft: &mut InstanceDraft) {
    let AuthDraft { password, kind, is_header, is_unknown } = std::mem::take(&mut draft.auth);
    let Some(span) = password.as_ref().map(|at| at.span).or(kind) else { return };
    if is_unknown {
        return;
    }
    if version_in_force(&draft.parsed) == Version::V3 {
        let text = "VRRP version 3 has no authentication, so this one is ignored";
        lowering.report.warning(span, "auth-version", text);
        return;
    }
    if draft.strict.is_some() {
        let text = "strict mode has no authentication, so this one is ignored";
        lowering.report.warning(span, "auth-strict", text);
        return;
    }
    if let (true, Some(kind)) = (is_header, kind) {
        let text = "authentication by AH is not supported yet";
        lowering.report.error(kind, "unsupported", text).help("use PASS");
        return;
    }
    match (kind, password) {
        (Some(_), Some(password)) => {
            draft.parsed.auth.span = Some(password.span);
            draft.parsed.auth.simple = Field::Given(At::new((), password.span));
            draft.parsed.auth.password = Field::Given(password);
        }
        (kind, password) => {
            let text = match (kind, password) {
                (Some(_), None) => "`auth_type` without `auth_pass`",
                (_, _) => "`auth_pass` without `auth_type`",
            };
            let effect = "there is no authentication";
            lowering.report.forgiven(span, "auth-incomplete", text, effect);
        }
    }
}

/// Addresses that do not fit into the advert become excluded ones.
fn overflow(lowering: &mut Lowering<'_>, instance: &mut ParsedInstance) {
    let limit = validate::capacity(version_in_force(instance), assemble::family(instance));
    let Field::Given(list) = &mut instance.addresses else { return };
    let Some(first) = list.value.get(limit) else { return };
    let span = first.span;
    let text = format!(
        "{} addresses do not fit into one advertisement: from here on they are excluded ones",
        list.value.len()
    );
    lowering.report.warning(span, "too-many-addresses", text);
    let mut rest = list.value.split_off(limit);
    rest.extend(instance.excluded.list().iter().cloned());
    instance.excluded = Field::Given(At::new(rest, span));
}

/// Keywords of a vrrp_instance and of the blocks in it that are read here.
#[cfg(test)]
pub(super) fn names() -> Vec<&'static str> {
    let inner = AUTHENTICATION.iter().map(|row| row.name);
    ROWS.iter().map(|row| row.name).chain(inner).collect()
}

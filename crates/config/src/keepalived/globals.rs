//! `global_defs`: what applies to all instances and scripts of the file.

use std::collections::HashMap;
use std::net::IpAddr;

use locum_plan::Listener;
use locum_vrrp::{Family, Version};

use crate::keepalived::blocks::Statement;
use crate::keepalived::correct::ScriptNames;
use crate::keepalived::ipvs;
use crate::keepalived::keywords::{KeywordRow, Shape, accept, dead, differs, ignore, refuse, set};
use crate::keepalived::lowering::{BlockTarget, Lowering, put, without_settings};
use crate::parsed::{Field, Parsed, ParsedInstance, ParsedIpvs};
use crate::settings::instance::{INSTANCE, VERSION_FORM};
use crate::settings::keywords;
use crate::settings::row::Block;
use crate::span::{At, Span};

/// What a file says, and what its blocks that come later take from `global_defs`.
pub(super) struct FileDraft {
    pub parsed: Parsed,
    pub globals: Globals,
    pub groups: Vec<ServerGroup>,
    /// Where each instance is defined.
    pub instance_names: HashMap<String, Span>,
    pub scripts: ScriptNames,
}

without_settings!(FileDraft);

/// A `virtual_server_group`.
pub(super) struct ServerGroup {
    pub name: String,
    pub listeners: Field<Vec<At<Listener>>>,
}

/// What applies to all instances and scripts of the file.
#[derive(Default)]
pub(super) struct Globals {
    /// What every instance is that does not say otherwise.
    pub instance: ParsedInstance,
    /// Version of IPv4 instances.
    pub version: Field<Version>,
    /// One frame per address and no second burst, where nothing else is said.
    pub min_garp: Field<bool>,
    pub group_v4: Field<IpAddr>,
    pub group_v6: Field<IpAddr>,
    pub ipvs: ParsedIpvs,
    pub strict: Option<Span>,
    /// Interfaces may be made after the start.
    pub has_late_interfaces: bool,
}

impl BlockTarget for Globals {
    fn setting(&mut self, lowering: &mut Lowering<'_>, statement: &Statement) -> bool {
        INSTANCE.lower(lowering, Block::Globals, statement, &mut self.instance)
    }

    fn keywords() -> Vec<&'static str> {
        keywords(Block::Globals)
    }
}

const FIFO: &str =
    "nobody would hear what its reader acts on; use notify, or `locum history --json`";
const MAIL: &str = "no mail is sent; use notify scripts";
const SNMP: &str = "there is no SNMP agent";
const SECURITY: &str = "about checks of whose a script is, which are not made";
const EXPLAINED: &str = "a peer that advertises other addresses is counted and stays a peer";
const RELOAD: &str = "a reload is checked whole before anything changes";
const BUFFERS: &str = "sockets have what they need";
const LINK: &str = "carrier is watched through the kernel";
pub(super) const NO_PID: &str = "there are no pid files";
const PROCESS: &str = "there is one process, and it is scheduled by the service manager";

pub(super) const ROWS: &[KeywordRow<Globals>] = &[
    ignore("notification_email", MAIL),
    accept("notification_email_from", MAIL),
    accept("smtp_server", MAIL),
    accept("smtp_helo_name", MAIL),
    accept("smtp_connect_timeout", MAIL),
    accept("smtp_alert", MAIL),
    accept("smtp_alert_vrrp", MAIL),
    accept("smtp_alert_checker", MAIL),
    accept("no_email_faults", MAIL),
    accept("no_checker_emails", MAIL),
    accept("router_id", MAIL),
    set("vrrp_version", Shape::Line(1, 1), |lowering, globals, statement| {
        put(&mut globals.version, VERSION_FORM.lower(lowering, statement));
    }),
    set("script_user", Shape::Line(1, 2), script_user),
    ignore(
        "enable_script_security",
        "scripts run whoever else may change them: let root own them and every directory above",
    ),
    accept("use_symlink_paths", SECURITY),
    accept("set_supplementary_groups", SECURITY),
    set("vrrp_min_garp", Shape::Line(0, 1), |lowering, globals, statement| {
        put(&mut globals.min_garp, lowering.switch(statement));
    }),
    set("vrrp_mcast_group4", Shape::Line(1, 1), |lowering, globals, statement| {
        put(&mut globals.group_v4, multicast(lowering, statement, Family::V4));
    }),
    set("vrrp_mcast_group6", Shape::Line(1, 1), |lowering, globals, statement| {
        put(&mut globals.group_v6, multicast(lowering, statement, Family::V6));
    }),
    differs(
        "the RFCs' rules for adverts; traffic to the address is accepted",
        set("vrrp_strict", Shape::Line(0, 1), |lowering, globals, statement| {
            let on = lowering.switch(statement).is_some_and(|at| at.value);
            globals.strict = on.then(|| statement.span());
        }),
    ),
    accept("vrrp_skip_check_adv_addr", EXPLAINED),
    accept("log_unknown_vrids", EXPLAINED),
    differs(
        "an interface may always come later: with it nobody warns",
        set("dynamic_interfaces", Shape::Line(0, 1), |_, globals, _| {
            globals.has_late_interfaces = true;
        }),
    ),
    accept(
        "unicast_fault_no_peer",
        "without peers adverts go to the multicast group, which is said",
    ),
    ignore("vrrp_delay_after_boot", "use vrrp_startup_delay"),
    ignore("default_interface", "each instance names its own"),
    ignore("vrrp_iptables", "traffic to the address is accepted"),
    ignore("vrrp_ipsets", "traffic to the address is accepted"),
    ignore("nftables", "traffic to the address is accepted"),
    ignore("nftables_priority", "traffic to the address is accepted"),
    ignore("nftables_counters", "traffic to the address is accepted"),
    ignore("nftables_ifindex", "traffic to the address is accepted"),
    ignore("disable_local_igmp", "membership reports go out as the kernel sends them"),
    set("lvs_sync_daemon", Shape::Line(1, usize::MAX), |lowering, globals, statement| {
        ipvs::sync(lowering, &mut globals.ipvs, statement);
    }),
    ignore("lvs_flush", "the table is reconciled; what is not ours is left alone"),
    ignore("lvs_flush_on_stop", "the table is reconciled; what is not ours is left alone"),
    ignore("lvs_flush_onstop", "the table is reconciled; what is not ours is left alone"),
    set("lvs_timeouts", Shape::Line(2, 6), |lowering, globals, statement| {
        ipvs::timeouts(lowering, &mut globals.ipvs, statement);
    }),
    refuse("vrrp_notify_fifo", FIFO),
    refuse("vrrp_notify_fifo_script", FIFO),
    refuse("lvs_notify_fifo", FIFO),
    refuse("lvs_notify_fifo_script", FIFO),
    refuse("notify_fifo", FIFO),
    refuse("notify_fifo_script", FIFO),
    ignore("notify_priority_changes", "use `locum history --json`"),
    ignore("vrrp_notify_priority_changes", "use `locum history --json`"),
    refuse("startup_script", "let ExecStartPre= of the service manager run it"),
    refuse("shutdown_script", "let ExecStopPost= of the service manager run it"),
    accept("startup_script_timeout", "of a script that does not run"),
    accept("shutdown_script_timeout", "of a script that does not run"),
    ignore("enable_snmp_vrrp", SNMP),
    ignore("enable_snmp_checker", SNMP),
    ignore("enable_snmp_keepalived", SNMP),
    ignore("enable_snmp_rfc", SNMP),
    ignore("enable_snmp_rfcv2", SNMP),
    ignore("enable_snmp_rfcv3", SNMP),
    ignore("enable_traps", SNMP),
    accept("snmp_socket", SNMP),
    ignore("enable_dbus", "use the control socket"),
    accept("dbus_service_name", "there is no D-Bus service; use the control socket"),
    accept("dbus_no_interface_name", "there is no D-Bus service; use the control socket"),
    ignore("vrrp_priority", PROCESS),
    ignore("checker_priority", PROCESS),
    ignore("bfd_priority", PROCESS),
    ignore("vrrp_rt_priority", PROCESS),
    ignore("checker_rt_priority", PROCESS),
    ignore("bfd_rt_priority", PROCESS),
    ignore("vrrp_cpu_affinity", PROCESS),
    ignore("checker_cpu_affinity", PROCESS),
    ignore("bfd_cpu_affinity", PROCESS),
    ignore("vrrp_no_swap", PROCESS),
    ignore("checker_no_swap", PROCESS),
    ignore("bfd_no_swap", PROCESS),
    accept("vrrp_rlimit_rttime", PROCESS),
    accept("checker_rlimit_rttime", PROCESS),
    accept("bfd_rlimit_rttime", PROCESS),
    accept("vrrp_rlimit_rtime", PROCESS),
    accept("checker_rlimit_rtime", PROCESS),
    accept("bfd_rlimit_rtime", PROCESS),
    accept("max_auto_priority", PROCESS),
    accept("min_auto_priority_delay", PROCESS),
    accept("process_names", PROCESS),
    accept("process_name", PROCESS),
    accept("vrrp_process_name", PROCESS),
    accept("checker_process_name", PROCESS),
    accept("lvs_process_name", PROCESS),
    accept("bfd_process_name", PROCESS),
    accept("use_pid_dir", NO_PID),
    accept("child_wait_time", PROCESS),
    accept("umask", PROCESS),
    accept("tmp_config_directory", RELOAD),
    accept("config_save_dir", RELOAD),
    accept("reload_check_config", RELOAD),
    accept("reload_time_file", RELOAD),
    accept("reload_repeat", RELOAD),
    accept("reload_file", RELOAD),
    accept("json_version", "use `locum status --json`"),
    accept("state_dump_file", "use `locum status --json`"),
    accept("stats_dump_file", "use `locum status --json`"),
    accept("json_dump_file", "use `locum status --json`"),
    accept("state_dump_file_location", "use `locum status --json`"),
    accept("stats_dump_file_location", "use `locum status --json`"),
    accept("json_dump_file_location", "use `locum status --json`"),
    accept("data_use_instance", "use `locum status --json`"),
    accept("vrrp_netlink_cmd_rcv_bufs", BUFFERS),
    accept("vrrp_netlink_cmd_rcv_bufs_force", BUFFERS),
    accept("vrrp_netlink_monitor_rcv_bufs", BUFFERS),
    accept("vrrp_netlink_monitor_rcv_bufs_force", BUFFERS),
    accept("lvs_netlink_cmd_rcv_bufs", BUFFERS),
    accept("lvs_netlink_cmd_rcv_bufs_force", BUFFERS),
    accept("lvs_netlink_monitor_rcv_bufs", BUFFERS),
    accept("lvs_netlink_monitor_rcv_bufs_force", BUFFERS),
    accept("process_monitor_rcv_bufs", BUFFERS),
    accept("process_monitor_rcv_bufs_force", BUFFERS),
    accept("vrrp_rx_bufs_policy", BUFFERS),
    accept("vrrp_rx_bufs_multiplier", BUFFERS),
    accept("rs_init_notifies", "a server that starts runs no hook"),
    accept("iproute_usr_dir", "tables are given by number"),
    accept("iproute_etc_dir", "tables are given by number"),
    accept("linkbeat_use_polling", LINK),
    dead("lvs_id"),
    accept("vmac_prefix", "a name for virtual MACs, which are refused where they are asked for"),
    accept(
        "vmac_addr_prefix",
        "a name for virtual MACs, which are refused where they are asked for",
    ),
    accept("vrrp_garp_extra_if", "there are no virtual MACs"),
    accept("vrrp_vmac_garp_intvl", "there are no virtual MACs"),
    accept("vmac_garp_intvl", "there are no virtual MACs"),
    ignore("nftables_ipvs", "a group of addresses needs no marks here"),
    accept("nftables_ipvs_priority", "a group of addresses needs no marks here"),
    accept("nftables_ipvs_start_fwmark", "a group of addresses needs no marks here"),
    accept("namespace_with_ipsets", "there are no ipsets"),
    accept("checker_log_all_failures", "`locum history` has the turns of every server"),
    accept("fifo_write_vrrp_states_on_reload", "there is no FIFO"),
    accept("snmp_name", SNMP),
    accept("snmp_vs_stats_update_interval", SNMP),
    accept("snmp_rs_stats_update_interval", SNMP),
    accept("debug", "the log level is an option of `locum run`"),
    refuse("net_namespace", "start the daemon inside the namespace: ip netns exec NAME"),
    refuse("net_namespace_ipvs", "start the daemon inside the namespace: ip netns exec NAME"),
    refuse("instance", "use --run-dir to run several daemons on one host"),
];

fn script_user(lowering: &mut Lowering<'_>, _: &mut Globals, statement: &Statement) {
    let mut words = statement.arguments().iter().map(|word| word.text.clone());
    lowering.script_user = Some((words.next(), words.next()));
}

/// A group for the adverts of this family; keepalived passes over any other address.
fn multicast(
    lowering: &mut Lowering<'_>,
    statement: &Statement,
    family: Family,
) -> Option<At<IpAddr>> {
    let group = lowering.first_address(statement)?;
    if Family::of(&group.value) == family && group.value.is_multicast() {
        return Some(group);
    }
    lowering.fault(group.span, "bad-group", "this is no multicast address of that family");
    None
}

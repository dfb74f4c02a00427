//! `global_defs`: what applies to all instances and scripts of the file.

use std::collections::HashMap;
use std::net::IpAddr;

use locum_plan::Listener;
use locum_vrrp::{Family, Version};

use crate::keepalived::blocks::Statement;
use crate::keepalived::correct::ScriptNames;
use crate::keepalived::ipvs;
use crate::keepalived::keywords::{KeywordRow, Shape, accept, ignore, refuse, set};
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

const MAIL: &str = "no mail is sent; use notify scripts";
const SNMP: &str = "there is no SNMP agent";
const PROCESS: &str = "there is one process, and it is scheduled by the service manager";

pub(super) const ROWS: &[KeywordRow<Globals>] = &[
    ignore("notification_email", MAIL),
    accept("notification_email_from"),
    accept("smtp_server"),
    accept("smtp_helo_name"),
    accept("smtp_connect_timeout"),
    accept("smtp_alert"),
    accept("smtp_alert_vrrp"),
    accept("smtp_alert_checker"),
    accept("no_email_faults"),
    accept("no_checker_emails"),
    accept("router_id"),
    set("vrrp_version", Shape::Line(1, 1), |lowering, globals, statement| {
        put(&mut globals.version, VERSION_FORM.lower(lowering, statement));
    }),
    set("script_user", Shape::Line(1, 2), script_user),
    accept("enable_script_security"),
    accept("use_symlink_paths"),
    accept("set_supplementary_groups"),
    set("vrrp_min_garp", Shape::Line(0, 1), |lowering, globals, statement| {
        put(&mut globals.min_garp, lowering.switch(statement));
    }),
    set("vrrp_mcast_group4", Shape::Line(1, 1), |lowering, globals, statement| {
        put(&mut globals.group_v4, multicast(lowering, statement, Family::V4));
    }),
    set("vrrp_mcast_group6", Shape::Line(1, 1), |lowering, globals, statement| {
        put(&mut globals.group_v6, multicast(lowering, statement, Family::V6));
    }),
    set("vrrp_strict", Shape::Line(0, 1), |lowering, globals, statement| {
        let on = lowering.switch(statement).is_some_and(|at| at.value);
        globals.strict = on.then(|| statement.span());
    }),
    accept("vrrp_skip_check_adv_addr"),
    accept("log_unknown_vrids"),
    set("dynamic_interfaces", Shape::Line(0, 1), |_, globals, _| {
        globals.has_late_interfaces = true;
    }),
    accept("unicast_fault_no_peer"),
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
    ignore("vrrp_notify_fifo", "use notify, or `locum history --json`"),
    ignore("vrrp_notify_fifo_script", "use notify, or `locum history --json`"),
    ignore("lvs_notify_fifo", "use `locum history --json`"),
    ignore("lvs_notify_fifo_script", "use `locum history --json`"),
    ignore("notify_fifo", "use notify, or `locum history --json`"),
    ignore("notify_fifo_script", "use notify, or `locum history --json`"),
    ignore("notify_priority_changes", "use `locum history --json`"),
    ignore("vrrp_notify_priority_changes", "use `locum history --json`"),
    ignore("startup_script", "use ExecStartPre= of the service manager"),
    ignore("shutdown_script", "use ExecStopPost= of the service manager"),
    accept("startup_script_timeout"),
    accept("shutdown_script_timeout"),
    ignore("enable_snmp_vrrp", SNMP),
    ignore("enable_snmp_checker", SNMP),
    ignore("enable_snmp_keepalived", SNMP),
    ignore("enable_snmp_rfc", SNMP),
    ignore("enable_snmp_rfcv2", SNMP),
    ignore("enable_snmp_rfcv3", SNMP),
    ignore("enable_traps", SNMP),
    accept("snmp_socket"),
    ignore("enable_dbus", "use the control socket"),
    accept("dbus_service_name"),
    accept("dbus_no_interface_name"),
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
    accept("vrrp_rlimit_rttime"),
    accept("checker_rlimit_rttime"),
    accept("bfd_rlimit_rttime"),
    accept("vrrp_rlimit_rtime"),
    accept("checker_rlimit_rtime"),
    accept("bfd_rlimit_rtime"),
    accept("max_auto_priority"),
    accept("min_auto_priority_delay"),
    accept("process_names"),
    accept("process_name"),
    accept("vrrp_process_name"),
    accept("checker_process_name"),
    accept("lvs_process_name"),
    accept("bfd_process_name"),
    accept("use_pid_dir"),
    accept("child_wait_time"),
    accept("umask"),
    accept("tmp_config_directory"),
    accept("config_save_dir"),
    accept("reload_check_config"),
    accept("reload_time_file"),
    accept("reload_repeat"),
    accept("reload_file"),
    accept("json_version"),
    accept("state_dump_file"),
    accept("stats_dump_file"),
    accept("json_dump_file"),
    accept("state_dump_file_location"),
    accept("stats_dump_file_location"),
    accept("json_dump_file_location"),
    accept("data_use_instance"),
    accept("vrrp_netlink_cmd_rcv_bufs"),
    accept("vrrp_netlink_cmd_rcv_bufs_force"),
    accept("vrrp_netlink_monitor_rcv_bufs"),
    accept("vrrp_netlink_monitor_rcv_bufs_force"),
    accept("lvs_netlink_cmd_rcv_bufs"),
    accept("lvs_netlink_cmd_rcv_bufs_force"),
    accept("lvs_netlink_monitor_rcv_bufs"),
    accept("lvs_netlink_monitor_rcv_bufs_force"),
    accept("process_monitor_rcv_bufs"),
    accept("process_monitor_rcv_bufs_force"),
    accept("vrrp_rx_bufs_policy"),
    accept("vrrp_rx_bufs_multiplier"),
    accept("rs_init_notifies"),
    accept("iproute_usr_dir"),
    accept("iproute_etc_dir"),
    accept("linkbeat_use_polling"),
    accept("debug"),
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

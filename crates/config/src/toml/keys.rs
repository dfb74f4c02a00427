//! Every key of a TOML configuration: one row each. The reader knows no others.

/// Whether the value may be a table keyed by node name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PerNode {
    Yes,
    No,
}

#[derive(Debug)]
pub(super) struct Key {
    pub name: &'static str,
    pub per_node: PerNode,
    /// What to write, for messages: "must be …".
    pub shape: &'static str,
}

/// The keys of one kind of table.
#[derive(Debug)]
pub(super) struct Section {
    /// With its article, for messages: "in …".
    pub what: &'static str,
    pub keys: &'static [Key],
}

const fn key(name: &'static str, shape: &'static str) -> Key {
    Key { name, per_node: PerNode::No, shape }
}

/// A key whose value may differ between nodes.
const fn node_key(name: &'static str, shape: &'static str) -> Key {
    Key { name, per_node: PerNode::Yes, shape }
}

const DURATION: &str = "a duration in quotes with a unit, as in \"1s\"";
const BOOLEAN: &str = "true or false";
const TEXT: &str = "text in quotes";
const COUNT: &str = "a whole number from 1 to 1000000";
const REPEAT: &str = "a whole number from 0 to 255";
const COMMANDS: &str = "a list of programs, each a path or a list of words";
const WEIGHT: &str = "a whole number from -253 to 253, or { value = NUMBER, reverse = true }";
const ADDRESSES: &str = "a list of addresses, as in [\"192.0.2.10/24\"]";
const EXPECT: &str = "a status code, a range as in \"200-299\", or a list of them";

pub(super) const DOCUMENT: Section = Section {
    what: "the configuration",
    keys: &[
        key("nodes", "tables, as in [nodes.lb1]"),
        key("instance", "tables, as in [[instance]]"),
        key("check", "tables, as in [check.NAME]"),
        key("service", "tables, as in [[service]]"),
        key("haproxy", "tables, as in [[haproxy]]"),
        key("hooks", "a table, as in [hooks]"),
    ],
};

pub(super) const NODE: Section =
    Section { what: "a node", keys: &[key("address", "an IP address in quotes")] };

pub(super) const HOOKS: Section =
    Section { what: "the hook settings", keys: &[key("timeout", DURATION)] };

pub(super) const INSTANCE: Section = Section {
    what: "an instance",
    keys: &[
        key("name", TEXT),
        node_key("interface", "the name of an interface in quotes"),
        key("vrid", "a whole number from 1 to 255"),
        key("version", "2 or 3"),
        key("profile", "\"interop\" or \"strict\""),
        node_key("priority", "a whole number from 1 to 255"),
        key("advert_interval", DURATION),
        node_key("preempt", "true, false, or the delay before it, as in \"30s\""),
        key("addresses", ADDRESSES),
        key("excluded_addresses", ADDRESSES),
        key("transport", "\"multicast\" or \"unicast\""),
        key("unicast", "a table, as in { peers = [\"192.0.2.2\"] }"),
        key("group", "a multicast address in quotes"),
        node_key("source", "an IP address in quotes"),
        key("auth", "a table, as in { type = \"simple\", password = \"secret\" }"),
        key("checksum", "\"auto\", \"pseudo\" or \"message\""),
        key("down_multiplier", "a whole number from 1 to 100"),
        key("announce", "a table, as in { repeat = 5 }"),
        key("answer_lower", BOOLEAN),
        key("answer_higher", BOOLEAN),
        key("owner_ignores_adverts", BOOLEAN),
        node_key("start_delay", DURATION),
        key("vip_lease", "\"auto\", \"off\", or whole seconds as in \"3s\""),
        key("track", "a list of checks, each a name or { check = NAME, weight = NUMBER }"),
        key(
            "track_interfaces",
            "a list of interfaces, each a name or { interface = NAME, weight = NUMBER }",
        ),
        key("notify", COMMANDS),
        key("notify_master", COMMANDS),
        key("notify_backup", COMMANDS),
        key("notify_fault", COMMANDS),
        key("notify_stop", COMMANDS),
    ],
};

pub(super) const ADDRESS: Section = Section {
    what: "an address",
    keys: &[
        key("address", "an address with a prefix length, as in \"192.0.2.10/24\""),
        node_key("device", "the name of an interface in quotes"),
        key("label", TEXT),
        key("scope", "\"global\", \"site\", \"link\" or \"host\""),
        key("broadcast", "an IPv4 address in quotes"),
        key("dad", BOOLEAN),
        key("prefix_route", BOOLEAN),
    ],
};

pub(super) const UNICAST: Section = Section {
    what: "the unicast settings",
    keys: &[
        node_key("peers", "a list of addresses, as in [\"192.0.2.2\"]"),
        key("ttl", "a whole number from 1 to 255"),
        key("check_source", BOOLEAN),
    ],
};

pub(super) const PEER: Section = Section {
    what: "a peer",
    keys: &[
        key("address", "an IP address in quotes"),
        key("min_ttl", "a whole number from 1 to 255"),
        key("max_ttl", "a whole number from 1 to 255"),
    ],
};

pub(super) const AUTH: Section = Section {
    what: "the authentication",
    keys: &[key("type", "\"simple\""), key("password", "1 to 8 characters in quotes")],
};

pub(super) const ANNOUNCE: Section = Section {
    what: "the announcement settings",
    keys: &[
        key("repeat", REPEAT),
        key("delay", DURATION),
        key("refresh", DURATION),
        key("refresh_repeat", REPEAT),
        key("lower_priority_repeat", REPEAT),
        key("lower_priority_delay", DURATION),
        key("garp_interval", DURATION),
        key("gna_interval", DURATION),
    ],
};

pub(super) const TRACK: Section = Section {
    what: "a tracked check",
    keys: &[key("check", "the name of a check in quotes"), key("weight", WEIGHT)],
};

pub(super) const TRACK_INTERFACE: Section = Section {
    what: "a tracked interface",
    keys: &[key("interface", "the name of an interface in quotes"), key("weight", WEIGHT)],
};

pub(super) const WEIGHTS: Section = Section {
    what: "a weight",
    keys: &[key("value", "a whole number from -253 to 253"), key("reverse", BOOLEAN)],
};

pub(super) const COMMAND: Section = Section {
    what: "a command",
    keys: &[
        key("script", "a list of words, as in [\"/usr/bin/curl\", \"-sf\", \"URL\"]"),
        key("shell", "a line for /bin/sh in quotes"),
        key("user", TEXT),
        key("group", TEXT),
    ],
};

pub(super) const CHECK: Section = Section {
    what: "a check",
    keys: &[
        key("script", "a list of words, as in [\"/usr/bin/curl\", \"-sf\", \"URL\"]"),
        key("shell", "a line for /bin/sh in quotes"),
        key("process", "the name of a process in quotes"),
        key("tcp", "an address and a port, as in \"127.0.0.1:80\""),
        key("http", "a URL, as in \"http://127.0.0.1:8080/health\""),
        key("expect", EXPECT),
        key("host", "a host name in quotes"),
        key("interval", DURATION),
        key("timeout", DURATION),
        key("rise", COUNT),
        key("fall", COUNT),
        key("weight", WEIGHT),
        key("user", TEXT),
        key("group", TEXT),
        key("starts_failed", BOOLEAN),
    ],
};

pub(super) const SERVICE: Section = Section {
    what: "a service",
    keys: &[
        key("name", TEXT),
        key("instance", "the name of an instance in quotes"),
        key("serve", "\"master\" or \"always\""),
        key("listen", "an address and a port, as in \"192.0.2.10:80\""),
        key("protocol", "\"tcp\" or \"udp\""),
        key("backend", "\"auto\", \"ipvs\" or \"proxy\""),
        key("scheduler", "the name of a scheduler, as in \"wlc\""),
        key("forwarding", "\"nat\", \"direct\" or \"tunnel\""),
        key("health", "\"tcp\", or a table, as in { http = \"/health\", interval = \"2s\" }"),
        key("failed", "\"remove\" or \"quiesce\""),
        key("standby", "\"cold\" or \"warm\""),
        key("drain", DURATION),
        key("servers", "a list of tables, as in [{ address = \"10.0.0.1:80\", weight = 1 }]"),
    ],
};

pub(super) const HEALTH: Section = Section {
    what: "a health check",
    keys: &[
        key("tcp", "true"),
        key("http", "a path, as in \"/health\""),
        key("expect", EXPECT),
        key("host", "a host name in quotes"),
        key("port", "a whole number from 1 to 65535"),
        key("interval", DURATION),
        key("timeout", DURATION),
        key("rise", COUNT),
        key("fall", COUNT),
    ],
};

pub(super) const SERVER: Section = Section {
    what: "a server",
    keys: &[
        key("address", "an address, with a port where it is not the service's"),
        key("weight", "a whole number from 0 to 65535"),
    ],
};

pub(super) const HAPROXY: Section = Section {
    what: "a haproxy",
    keys: &[
        key("name", TEXT),
        key("instance", "the name of an instance in quotes"),
        key("config", "the path of a haproxy.cfg in quotes"),
        key("program", "the path of the haproxy program in quotes"),
        key("standby", "\"cold\" or \"warm\""),
    ],
};

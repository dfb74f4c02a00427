//! Nodes, the HAProxys they run, and the settings of all hooks.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use locum_plan::Standby;

use crate::field::Field;
use crate::settings::check::{URL, Url};
use crate::settings::form::{Form, Schema, TIME, ip_address, text, toml_only};
use crate::settings::row::{NameRow, Noun, Setting, Unset, field};
use crate::settings::service::STANDBY_FORM;
use crate::span::At;
use crate::toml::reader::{Key, Reader, Value};

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedNode {
    pub address: Field<IpAddr>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedHaproxy {
    pub name: At<String>,
    pub instance: Field<String>,
    pub config: Field<PathBuf>,
    pub program: Field<PathBuf>,
    pub standby: Field<Standby>,
    pub answer: Field<Url>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedHookSettings {
    pub timeout: Field<Duration>,
}

pub(crate) static NODE: Noun<ParsedNode> = Noun {
    name: "node",
    head: "[nodes.NAME]",
    what: "a node",
    about: "A director. It is known by its host name, in full or up to the first dot, or by `--node`.",
    rows: &[&ADDRESS],
};

static ADDRESS: Setting<ParsedNode, std::net::IpAddr> = Setting::new(
    "address",
    ip_address("an IP address in quotes"),
    field!(ParsedNode, std::net::IpAddr, address),
    Unset::Nothing("none"),
    "Address the other nodes know it by: peer of unicast instances and target of `switchover --to`.",
);

pub(crate) static HOOKS: Noun<ParsedHookSettings> = Noun {
    name: "hooks",
    head: "[hooks]",
    what: "the hook settings",
    about: "What all hooks have in common.",
    rows: &[&HOOK_TIMEOUT],
};

pub(crate) static HOOK_TIMEOUT: Setting<ParsedHookSettings, Duration> = Setting::new(
    "timeout",
    TIME,
    field!(ParsedHookSettings, Duration, timeout),
    Unset::Value(
        |_| Duration::from_secs(30),
        "long enough for a call of a cloud's interface, short enough that a hung one is seen",
    ),
    "A hook that runs longer is killed with its process group.",
);

pub(crate) static HAPROXY: Noun<ParsedHaproxy> = Noun {
    name: "haproxy",
    head: "[[haproxy]]",
    what: "a haproxy",
    about: "A HAProxy from its own configuration file, on the node that is master.",
    rows: &[
        &NameRow { about: "Name of this HAProxy in findings and in the status." },
        &HAPROXY_INSTANCE,
        &HAPROXY_CONFIG,
        &HAPROXY_PROGRAM,
        &HAPROXY_STANDBY,
        &HAPROXY_ANSWER,
    ],
};

static HAPROXY_INSTANCE: Setting<ParsedHaproxy, String> = Setting::new(
    "instance",
    text("the name of an instance in quotes"),
    field!(ParsedHaproxy, String, instance),
    Unset::Nothing("none: it runs on every node"),
    "It runs while this instance is master here.",
);

static HAPROXY_CONFIG: Setting<ParsedHaproxy, PathBuf> = Setting::new(
    "config",
    path("the path of a haproxy.cfg in quotes"),
    field!(ParsedHaproxy, PathBuf, config),
    Unset::Required,
    "The configuration file it is run from.",
);

pub(crate) static HAPROXY_PROGRAM: Setting<ParsedHaproxy, PathBuf> = Setting::new(
    "program",
    path("the path of the haproxy program in quotes"),
    field!(ParsedHaproxy, PathBuf, program),
    Unset::Value(|_| PathBuf::from("haproxy"), "looked up in PATH"),
    "The program to run.",
);

pub(crate) static HAPROXY_STANDBY: Setting<ParsedHaproxy, Standby> = Setting::new(
    "standby",
    STANDBY_FORM,
    field!(ParsedHaproxy, Standby, standby),
    Unset::Value(|_| Standby::Cold, "a backup that runs nothing can break nothing"),
    "Whether it runs on a backup as well, where its bind lines need `transparent`, or the host \
     net.ipv4.ip_nonlocal_bind=1.",
);

static HAPROXY_ANSWER: Setting<ParsedHaproxy, Url> = Setting::new(
    "answer",
    URL,
    field!(ParsedHaproxy, Url, answer),
    Unset::Nothing(
        "none: its `monitor-uri` is asked, and where it has none whether a client is accepted and, \
         in HTTP mode, whether HAProxy answers at all",
    ),
    "A page of it that is answered with a status from 200 to 399 while it serves, asked every \
     second while it runs here.",
);

const fn path(shape: &'static str) -> Form<PathBuf> {
    toml_only(shape, Schema::Text, read_path, |path| format!("\"{}\"", path.display()))
}

fn read_path(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<PathBuf> {
    let text = reader.text(value, key)?;
    if text.is_empty() {
        reader.bad_value(value, key, "the path is empty");
        return None;
    }
    Some(PathBuf::from(text))
}

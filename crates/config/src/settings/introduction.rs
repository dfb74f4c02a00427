//! Who a client is, said by one proxy to the next: the PROXY protocol of a `[[service]]`.

use locum_plan::{HeaderVersion, Introduction, SourceNetwork};

use crate::field::Field;
use crate::settings::form::{Form, Schema, list};
use crate::settings::row::{FieldAccess, Setting, Unset};
use crate::span::At;

#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedIntroduction {
    pub sent: Field<HeaderVersion>,
    pub accepted: Field<Vec<At<SourceNetwork>>>,
}

pub(crate) const fn send_proxy<N>(
    place: FieldAccess<N, HeaderVersion>,
) -> Setting<N, HeaderVersion> {
    Setting::new(
        "send_proxy",
        Form::Words(&[("v1", HeaderVersion::V1), ("v2", HeaderVersion::V2)]),
        place,
        Unset::Nothing("servers see the director as their client"),
        "Tell each server who its client is by the PROXY protocol of this version, ahead of all that \
         the client says, with the built-in proxy or HAProxy. The servers must expect it. Health checks that \
         ask a server at its own address and port say that they speak for nobody (UNKNOWN, LOCAL).",
    )
}

/// Of one server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ServerHeader {
    Not,
    Of(HeaderVersion),
}

pub(crate) const fn send_proxy_to<N>(
    place: FieldAccess<N, ServerHeader>,
) -> Setting<N, ServerHeader> {
    Setting::new(
        "send_proxy",
        Form::Words(&[
            ("v1", ServerHeader::Of(HeaderVersion::V1)),
            ("v2", ServerHeader::Of(HeaderVersion::V2)),
            ("none", ServerHeader::Not),
        ]),
        place,
        Unset::Nothing("that of the service"),
        "Whether this server is told who its client is, and by which version of the PROXY protocol, or \
         that it does not expect it (\"none\").",
    )
}

pub(crate) const fn accept_proxy<N>(
    place: FieldAccess<N, Vec<At<SourceNetwork>>>,
) -> Setting<N, Vec<At<SourceNetwork>>> {
    Setting::new(
        "accept_proxy",
        list(
            "a list of addresses and networks, as in [\"192.0.2.1\", \"10.0.0.0/8\"]",
            Schema::List(&Schema::Text),
            |reader, value, key| {
                reader.each(value, key, |reader, item| reader.parsed(item, key, str::parse))
            },
        ),
        place,
        Unset::Nothing("nobody: every client speaks for itself"),
        "Who comes from here is another proxy, which says for whom by the PROXY protocol (either \
         version), with the built-in proxy or HAProxy. One that does not say so within \
         `connect_timeout` is cut. All others speak for themselves.",
    )
}

impl ParsedIntroduction {
    pub fn assemble(&self) -> Introduction {
        Introduction { accepted: self.accepted.list().iter().map(|at| at.value).collect() }
    }
}

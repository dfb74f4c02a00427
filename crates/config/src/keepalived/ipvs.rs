//! What `global_defs` says of IPVS as a whole: `lvs_sync_daemon` and `lvs_timeouts`.

use std::time::Duration;

use crate::keepalived::blocks::Statement;
use crate::keepalived::lexer::Word;
use crate::keepalived::lowering::Lowering;
use crate::parsed::{ParsedIpvs, ParsedSync};
use crate::span::At;

/// `lvs_sync_daemon INTERFACE [INSTANCE] [id N] [maxlen N] [port N] [ttl N] [group ADDRESS]`.
pub(super) fn sync(lowering: &mut Lowering<'_>, ipvs: &mut ParsedIpvs, statement: &Statement) {
    const OPTIONS: [&str; 6] = ["id", "maxlen", "port", "ttl", "group", "inst"];
    let text = |word: &Word| Some(At::new(word.text.clone(), word.span)).into();
    let mut sync = ParsedSync { span: Some(statement.span()), ..ParsedSync::default() };
    let mut words = statement.arguments().iter().peekable();
    if let Some(interface) = words.next() {
        sync.interface = text(interface);
    }
    if let Some(instance) = words.next_if(|word| !OPTIONS.contains(&word.text.as_str())) {
        sync.instance = text(instance);
    }
    while let Some(option) = words.next() {
        let Some(value) = words.next() else {
            lowering.bad_value(option, format!("`{}` has no value", option.text));
            return;
        };
        match option.text.as_str() {
            "inst" => sync.instance = text(value),
            "id" => sync.id = lowering.number(value, 1..=255).into(),
            "maxlen" => sync.longest = lowering.number(value, 1024..=65_487).into(),
            "port" => sync.port = lowering.number(value, 1..=65_535).into(),
            "ttl" => sync.ttl = lowering.number(value, 1..=255).into(),
            "group" => sync.group = lowering.ip_address(value).into(),
            other => {
                lowering.bad_value(option, format!("`{other}` is no option of lvs_sync_daemon"));
            }
        }
    }
    ipvs.sync = sync;
}

/// `lvs_timeouts [tcp N] [tcpfin N] [udp N]`, in seconds; 0 leaves the kernel's.
pub(super) fn timeouts(lowering: &mut Lowering<'_>, ipvs: &mut ParsedIpvs, statement: &Statement) {
    let mut words = statement.arguments().iter();
    while let Some(option) = words.next() {
        let slot = match option.text.as_str() {
            "tcp" => &mut ipvs.tcp,
            "tcpfin" => &mut ipvs.tcp_fin,
            "udp" => &mut ipvs.udp,
            other => {
                let text = format!("`{other}` is none of tcp, tcpfin and udp");
                lowering.bad_value(option, text);
                return;
            }
        };
        let Some(value) = words.next() else {
            lowering.bad_value(option, format!("`{}` has no value", option.text));
            return;
        };
        let Some(seconds) = lowering.number::<u32>(value, 0..=2_000_000) else { continue };
        if seconds.value > 0 {
            let time = Duration::from_secs(seconds.value.into());
            *slot = Some(At::new(time, seconds.span)).into();
        }
    }
}

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
            "id" => sync.id = number(lowering, value, 1, 255),
            "maxlen" => sync.longest = number(lowering, value, 1024, 65_487),
            "port" => sync.port = number(lowering, value, 1, 65_535),
            "ttl" => sync.ttl = number(lowering, value, 1, 255),
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
        let Some(seconds) = lowering.number(value, 0..=2_000_000) else { continue };
        if seconds.value > 0 {
            let time = Duration::from_secs(seconds.value.unsigned_abs());
            *slot = Some(At::new(time, seconds.span)).into();
        }
    }
}

fn number<T: TryFrom<i64>>(
    lowering: &mut Lowering<'_>,
    word: &Word,
    low: i64,
    high: i64,
) -> crate::parsed::Field<T> {
    let found = lowering.number(word, low..=high);
    found.and_then(|at| Some(At::new(T::try_from(at.value).ok()?, at.span))).into()
}

//! `[[service]]`: a load-balanced service and its servers.

use std::net::{IpAddr, SocketAddr};

use ::toml::de::DeValue;

use crate::span::At;
use crate::toml::check::{expect, host, success};
use crate::toml::keys::{self, Key};
use crate::toml::reader::{Reader, Table, Value};
use crate::values;
use crate::wish::{Field, HealthWish, Serve, ServerWish, ServiceWish};
use locum_plan::{Backend, FailedServer, Forwarding, HealthKind, Protocol, Standby};

pub(super) fn read(
    reader: &mut Reader<'_>,
    table: &Table<'_, '_>,
    name: At<String>,
) -> ServiceWish {
    ServiceWish {
        span: name.span,
        name,
        instance: reader.optional(table, "instance", Reader::text),
        serve: reader.optional(table, "serve", |reader, value, key| {
            reader.word(value, key, &[("master", Serve::Master), ("always", Serve::Always)])
        }),
        listen: reader.field(table, "listen", listen),
        protocol: reader.optional(table, "protocol", |reader, value, key| {
            reader.word(value, key, &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)])
        }),
        backend: reader.optional(table, "backend", backend),
        scheduler: reader.optional(table, "scheduler", Reader::text),
        forwarding: reader.optional(table, "forwarding", |reader, value, key| {
            let words = [
                ("nat", Forwarding::Nat),
                ("direct", Forwarding::Direct),
                ("tunnel", Forwarding::Tunnel),
            ];
            reader.word(value, key, &words)
        }),
        health: reader.optional(table, "health", health).map(|at| at.value),
        failed: reader.optional(table, "failed", |reader, value, key| {
            let words = [("remove", FailedServer::Remove), ("quiesce", FailedServer::Quiesce)];
            reader.word(value, key, &words)
        }),
        standby: reader.optional(table, "standby", standby),
        drain: reader.optional(table, "drain", Reader::duration),
        servers: servers(reader, table),
    }
}

pub(super) fn standby(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    key: &'static Key,
) -> Option<Standby> {
    reader.word(value, key, &[("cold", Standby::Cold), ("warm", Standby::Warm)])
}

fn listen(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<SocketAddr> {
    reader.parsed(value, key, |text| {
        text.parse().map_err(|_| format!("`{text}` is not an IP address with a port"))
    })
}

fn backend(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<Backend> {
    if let DeValue::String(text) = value.get_ref() {
        let help = match text.as_ref() {
            "haproxy" => Some("run HAProxy from its own file with [[haproxy]]"),
            "nftables" => Some("use \"ipvs\", or \"proxy\" where the kernel has none"),
            _ => None,
        };
        if let Some(help) = help {
            let span = reader.span(value.span());
            let message = format!("the backend \"{text}\" is not available yet");
            reader.report.error(span, "backend-unavailable", message).help(help);
            return None;
        }
    }
    let words = [("auto", Backend::Auto), ("ipvs", Backend::Ipvs), ("proxy", Backend::Proxy)];
    reader.word(value, key, &words)
}

fn health(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<HealthWish> {
    let span = reader.span(value.span());
    if let DeValue::String(text) = value.get_ref()
        && text == "tcp"
    {
        let kind = At::new(HealthKind::Tcp, span);
        return Some(HealthWish {
            kind,
            interval: None,
            timeout: None,
            rise: None,
            fall: None,
            port: None,
        });
    }
    let table = reader.open_value(value, &keys::HEALTH, key.name, key.shape)?;
    let kind = health_kind(reader, &table);
    let interval = reader.optional(&table, "interval", Reader::duration);
    let timeout = reader.optional(&table, "timeout", Reader::duration);
    let rise = reader.optional(&table, "rise", Reader::count);
    let fall = reader.optional(&table, "fall", Reader::count);
    let port = reader.optional(&table, "port", |reader, value, key| {
        let number = reader.integer(value, key, 1..=65_535)?;
        u16::try_from(number).ok()
    });
    Some(HealthWish { kind: kind?, interval, timeout, rise, fall, port })
}

/// `tcp = true`, or `http = "/path"` with what goes along.
fn health_kind(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> Option<At<HealthKind>> {
    let tcp = reader.field(table, "tcp", Reader::boolean);
    let http = reader
        .field(table, "http", |reader, value, key| reader.parsed(value, key, values::http_path));
    let expect = reader.optional(table, "expect", expect);
    let host = reader.optional(table, "host", host);
    let wants_tcp = tcp.value() == Some(&true);
    match (wants_tcp, http) {
        (true, Field::Absent) => {
            let misplaced = [
                ("expect", expect.as_ref().map(|at| at.span)),
                ("host", host.as_ref().map(|at| at.span)),
            ];
            for (name, span) in misplaced {
                if let Some(span) = span {
                    let text = format!("`{name}` means nothing beside `tcp`");
                    reader.report.error(span, "misplaced-key", text);
                }
            }
            tcp.given().map(|at| At::new(HealthKind::Tcp, at.span))
        }
        (true, Field::Bad | Field::Given(_)) => {
            let text = "a health check asks one thing: `tcp` or `http`, not both";
            reader.report.error(table.span, "two-probes", text);
            None
        }
        (false, Field::Given(path)) => {
            let expect = expect.map_or_else(success, |at| at.value);
            let host = host.map(|at| at.value);
            Some(path.map(|path| HealthKind::Http { path, host, expect }))
        }
        (false, Field::Bad) => None,
        (false, Field::Absent) => {
            if !matches!(tcp, Field::Bad) {
                let text = "a health check has neither `tcp = true` nor `http = \"/path\"`";
                reader.report.error(table.span, "missing-key", text);
            }
            None
        }
    }
}

fn servers(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> Field<Vec<ServerWish>> {
    let read = reader.field(table, "servers", |reader, value, key| {
        reader.each(value, key, |reader, item| server(reader, item, key))
    });
    match read {
        Field::Absent => Field::Absent,
        Field::Bad => Field::Bad,
        Field::Given(at) => {
            Field::Given(at.map(|servers| servers.into_iter().map(|server| server.value).collect()))
        }
    }
}

/// `"10.0.0.1:80"`, or a table with a weight.
fn server(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<ServerWish> {
    if let DeValue::String(_) = value.get_ref() {
        let span = reader.span(value.span());
        let (address, port) = reader.parsed(value, key, server_address)?;
        return Some(ServerWish { address: At::new(address, span), port, weight: None });
    }
    let opened = reader.open_value(value, &keys::SERVER, key.name, key.shape)?;
    let address = reader
        .field(&opened, "address", |reader, value, key| reader.parsed(value, key, server_address));
    if address.is_absent() {
        reader.report.error(opened.span, "missing-key", "a server has no `address`");
    }
    let weight = reader.optional(&opened, "weight", |reader, value, key| {
        let number = reader.integer(value, key, 0..=65_535)?;
        u32::try_from(number).ok()
    });
    let At { value: (ip, port), span } = address.into_given()?;
    Some(ServerWish { address: At::new(ip, span), port, weight })
}

/// Address and port, or the address alone for the port of the service.
fn server_address(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Ok((socket.ip(), Some(socket.port())));
    }
    let address = text.parse::<IpAddr>();
    address
        .map(|address| (address, None))
        .map_err(|_| format!("`{text}` is not an IP address, with or without a port"))
}

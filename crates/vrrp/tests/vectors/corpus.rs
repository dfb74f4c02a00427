//! The vector files, as values: what every test of them shares.

use std::net::IpAddr;

use locum_vrrp::datagram::{strip_ipv4, strip_ipv6};
use locum_vrrp::packet::Advert;
use locum_vrrp::receive::{unmatched, validate, vrid_of};
use locum_vrrp::{
    Auth, ChecksumForm, ChecksumMode, Datagram, Discard, Family, Heard, Interval, Priority,
    RouterSettings, Transport, UnicastPeer, Version, Vrid,
};
use serde_json::Value;

pub const V2: &str = include_str!("vrrp_v2.json");
pub const V3_IPV4: &str = include_str!("vrrp_v3_ipv4.json");
pub const V3_IPV6: &str = include_str!("vrrp_v3_ipv6.json");
pub const NEGATIVE: &str = include_str!("vrrp_negative.json");
pub const ARP_ND: &str = include_str!("arp_nd.json");
pub const TIMERS: &str = include_str!("timers.json");

/// One entry of a vector file.
pub struct Vector {
    pub id: String,
    pub bytes: Vec<u8>,
    pub json: Value,
}

/// All entries of a file; panics on a malformed one.
pub fn rows(file: &str) -> Vec<Value> {
    let json: Value = serde_json::from_str(file).unwrap();
    json["vectors"].as_array().unwrap().clone()
}

/// All packets of a file.
pub fn vectors(file: &str) -> Vec<Vector> {
    rows(file)
        .into_iter()
        .map(|json| Vector {
            id: text(&json["id"]).to_owned(),
            bytes: hex(text(&json["hex"])),
            json,
        })
        .collect()
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

pub fn number<N: TryFrom<u64, Error: std::fmt::Debug>>(value: &Value) -> N {
    N::try_from(value.as_u64().unwrap()).unwrap()
}

pub fn address(value: &Value) -> IpAddr {
    text(value).parse().unwrap()
}

pub fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// The fields of a positive vector as the nouns of the crate.
pub struct Fields {
    pub version: Version,
    pub vrid: Vrid,
    pub priority: Priority,
    pub interval: Interval,
    pub auth: Auth,
    pub addresses: Vec<IpAddr>,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub hop_limit: u8,
    /// `None` where there is no choice, and in a form that is no [`ChecksumForm`].
    pub form: Option<ChecksumForm>,
}

impl Vector {
    /// `None` for vectors that give no fields of a VRRP message.
    pub fn fields(&self) -> Option<Fields> {
        let fields = &self.json["fields"];
        let version = match fields["version"].as_u64()? {
            2 => Version::V2,
            3 => Version::V3,
            other => panic!("{}: version {other}", self.id),
        };
        let centis = match version {
            Version::V2 => number::<u16>(&fields["adver_int_s"]) * 100,
            Version::V3 => number(&fields["max_adver_int_cs"]),
        };
        let auth = match fields["auth_type"].as_u64() {
            Some(1) => {
                Auth::Simple(hex(text(&fields["auth_data_hex"])).as_slice().try_into().unwrap())
            }
            Some(0) | None => Auth::None,
            Some(other) => panic!("{}: auth type {other}", self.id),
        };
        let source = address(&fields["src"]);
        let form = match (Family::of(&source), fields["checksum_mode"].as_str()) {
            (Family::V4, Some("message")) => Some(ChecksumForm::Message),
            (Family::V4, Some("pseudo")) => Some(ChecksumForm::Pseudo),
            (Family::V4 | Family::V6, _) => None,
        };
        Some(Fields {
            version,
            vrid: Vrid::new(number(&fields["vrid"])).unwrap(),
            priority: Priority(number(&fields["priority"])),
            interval: Interval::new(version, centis).unwrap(),
            auth,
            addresses: fields["vips"].as_array().unwrap().iter().map(address).collect(),
            source,
            destination: address(&fields["dst"]),
            hop_limit: number(&fields["ttl"]),
            form,
        })
    }

    pub fn strip(&self) -> Result<Datagram<'_>, Discard> {
        strip(text(&self.json["layer"]), &self.bytes)
    }

    /// The VRRP message where the vector says it begins.
    pub fn message(&self) -> &[u8] {
        &self.bytes[number(&self.json["vrrp_offset"])..]
    }
}

impl Fields {
    pub fn advert(&self) -> Advert<'_> {
        Advert {
            version: self.version,
            vrid: self.vrid,
            priority: self.priority,
            interval: self.interval,
            auth: &self.auth,
            addresses: &self.addresses,
        }
    }

    /// A router that shares everything with the sender.
    pub fn settings(&self) -> RouterSettings {
        let mut settings = RouterSettings::new(self.vrid, Family::of(&self.source), self.version);
        settings.interval = self.interval;
        settings.auth = self.auth.clone();
        settings.addresses.clone_from(&self.addresses);
        settings.checksum = ChecksumMode::Auto(ChecksumForm::Pseudo);
        if !self.destination.is_multicast() {
            let peers = vec![UnicastPeer { address: self.source, ttl: None }];
            settings.transport = Transport::Unicast { peers, ttl: 255, check_source: true };
        }
        settings
    }
}

pub fn strip<'a>(layer: &str, bytes: &'a [u8]) -> Result<Datagram<'a>, Discard> {
    match layer {
        "ipv4" => strip_ipv4(bytes),
        "ipv6" => strip_ipv6(bytes),
        other => panic!("layer {other}"),
    }
}

/// The whole pipeline on a link whose only router has these settings.
pub fn receive(
    settings: &RouterSettings,
    own_source: Option<IpAddr>,
    datagram: &Datagram<'_>,
) -> Result<Heard, Discard> {
    if vrid_of(datagram) == Some(settings.vrid) {
        validate(settings, own_source, datagram)
    } else {
        Err(unmatched(datagram))
    }
}

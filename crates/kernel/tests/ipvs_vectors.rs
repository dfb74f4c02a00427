//! IPVS messages octet for octet, against vectors of the specification.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use locum_kernel::ipvs::{
    ConnectionTimeouts, DestSpec, ForwardingMethod, IpFamily, IpProtocol, IpvsTraffic, Operation,
    ServiceFlags, ServiceId, ServiceSpec, SyncChange, SyncState, SyncThread, Tunnel, codec,
    sync_codec,
};

const TIMEOUTS: ConnectionTimeouts = ConnectionTimeouts { tcp: 900, tcp_fin: 120, udp: 300 };

/// Messages that concern no service.
fn others() -> BTreeMap<&'static str, Vec<u8>> {
    let start = SyncChange::Start(sync_thread());
    BTreeMap::from([
        ("IPVS-09", sync_codec::sync_change(&start)),
        ("IPVS-10", sync_codec::sync_change(&SyncChange::Stop(SyncState::Backup))),
        ("IPVS-11", sync_codec::set_timeouts(TIMEOUTS)),
    ])
}

fn sync_thread() -> SyncThread {
    SyncThread {
        state: SyncState::Master,
        interface: "eth0".to_owned(),
        id: 51,
        longest: Some(1400),
        group: Some("224.0.0.81".parse().expect("address")),
        port: Some(8848),
        ttl: Some(1),
    }
}

fn vectors() -> BTreeMap<String, Vec<u8>> {
    let text = include_str!("vectors/ipvs_genl.json");
    let file: serde_json::Value = serde_json::from_str(text).expect("vectors");
    let octets = |hex: &str| -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
            .collect()
    };
    let string = |value: &serde_json::Value| value.as_str().expect("string").to_owned();
    let vectors = file["vectors"].as_array().expect("list");
    vectors.iter().map(|entry| (string(&entry["id"]), octets(&string(&entry["hex"])))).collect()
}

fn listener(address: &str) -> ServiceId {
    ServiceId::listener(IpProtocol::Tcp, address.parse().expect("address"))
}

fn dest(address: &str, forwarding: ForwardingMethod, weight: u32) -> DestSpec {
    DestSpec::new(address.parse::<SocketAddr>().expect("address"), forwarding, weight)
}

fn operations() -> BTreeMap<&'static str, Operation> {
    let web = listener("192.0.2.10:80");
    let persistent = ServiceSpec {
        flags: ServiceFlags::PERSISTENT,
        persistence_seconds: 300,
        ..ServiceSpec::new(listener("[2001:db8::10]:443"), "wlc")
    };
    let mark = ServiceSpec {
        flags: ServiceFlags::FALLBACK.with(ServiceFlags::PORT),
        ..ServiceSpec::new(ServiceId::Mark { family: IpFamily::V4, mark: 77 }, "sh")
    };
    let masq = |weight| dest("10.0.0.1:8080", ForwardingMethod::Masq, weight);
    let gue = ForwardingMethod::Tunnel(Tunnel::Gue { port: 6080, flags: 1 });
    BTreeMap::from([
        ("IPVS-01", Operation::NewService(ServiceSpec::new(web, "rr"))),
        ("IPVS-02", Operation::NewService(persistent)),
        ("IPVS-03", Operation::NewService(mark)),
        ("IPVS-04", Operation::NewDest(web, masq(100))),
        ("IPVS-05", Operation::SetDest(web, masq(0))),
        ("IPVS-06", Operation::NewDest(web, dest("10.0.0.2:80", gue, 10))),
        ("IPVS-07", Operation::DelDest(web, masq(0).id)),
        ("IPVS-08", Operation::DelService(web)),
    ])
}

#[test]
#[cfg(target_endian = "little")]
fn i_010_every_message_is_encoded_octet_for_octet() {
    let vectors = vectors();
    let mut ours = others();
    ours.extend(operations().into_iter().map(|(id, one)| (id, codec::operation(&one))));
    for (id, octets) in &vectors {
        assert_eq!(ours.get(id.as_str()), Some(octets), "{id}");
    }
    assert_eq!(vectors.len(), ours.len());
}

#[test]
#[cfg(target_endian = "little")]
fn threads_and_timeouts_are_read_as_they_were_written() {
    let vectors = vectors();
    assert_eq!(sync_codec::read_sync_thread(&vectors["IPVS-09"]), Some(sync_thread()));
    let group: std::net::IpAddr = "ff02::81".parse().expect("address");
    let over_ipv6 = SyncThread { group: Some(group), port: None, ..sync_thread() };
    let octets = sync_codec::sync_change(&SyncChange::Start(over_ipv6.clone()));
    assert_eq!(sync_codec::read_sync_thread(&octets), Some(over_ipv6));
    assert_eq!(sync_codec::read_timeouts(&vectors["IPVS-11"]), Some(TIMEOUTS));
    assert_eq!(sync_codec::read_timeouts(&vectors["IPVS-09"]), None);
}

/// Of STATS the octets alone have 64 bits, of STATS64 all numbers.
#[test]
#[cfg(target_endian = "little")]
fn i_011_counters_are_those_of_64_bits_where_there_are_any() {
    let mut octets = vectors()["IPVS-01"].clone();
    let attribute = |kind: u16, value: &[u8]| -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).expect("short");
        let mut all = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        all.extend(value);
        all
    };
    let narrow: Vec<u8> = [
        attribute(1, &7_u32.to_ne_bytes()),
        attribute(4, &(1_u64 << 40).to_ne_bytes()),
        attribute(5, &9_u64.to_ne_bytes()),
        attribute(6, &3_u32.to_ne_bytes()),
        attribute(9, &20_u32.to_ne_bytes()),
        attribute(10, &30_u32.to_ne_bytes()),
    ]
    .concat();
    let wide =
        [attribute(1, &(1_u64 << 33).to_ne_bytes()), attribute(6, &(1_u64 << 40).to_ne_bytes())];
    let mut with = |kind: u16, stats: &[u8]| {
        octets.extend(attribute(kind, stats));
        let length = u16::try_from(octets.len() - 4).expect("short");
        octets[4..6].copy_from_slice(&length.to_ne_bytes());
        codec::read_service(&octets).expect("read").traffic
    };
    let expected = IpvsTraffic {
        connections: 7,
        connections_a_second: 3,
        octets_in: 1 << 40,
        octets_out: 9,
        octets_in_a_second: 20,
        octets_out_a_second: 30,
    };
    assert_eq!(with(10, &narrow), expected);
    let expected = IpvsTraffic {
        connections: 1 << 33,
        connections_a_second: 1 << 40,
        ..IpvsTraffic::default()
    };
    assert_eq!(with(12, &wide.concat()), expected);
}

#[test]
#[cfg(target_endian = "little")]
fn services_and_destinations_are_read_as_they_were_written() {
    let vectors = vectors();
    let (mut services, mut dests) = (0, 0);
    for (id, operation) in operations() {
        let octets = &vectors[id];
        match operation {
            Operation::NewService(spec) => {
                let read = codec::read_service(octets).expect(id);
                assert_eq!(read.spec, spec, "{id}");
                services += 1;
            }
            Operation::NewDest(service, spec) => {
                let read = codec::read_dest(octets, service.family()).expect(id);
                assert_eq!(read.spec, spec, "{id}");
                dests += 1;
            }
            Operation::SetService(_)
            | Operation::SetDest(..)
            | Operation::DelService(_)
            | Operation::DelDest(..) => {}
        }
    }
    assert_eq!((services, dests), (3, 2));
}

#[test]
fn every_forwarding_method_and_client_prefix_survives_the_way_there_and_back() {
    let methods = [
        ForwardingMethod::Masq,
        ForwardingMethod::Local,
        ForwardingMethod::Direct,
        ForwardingMethod::Bypass,
        ForwardingMethod::Tunnel(Tunnel::Ipip),
        ForwardingMethod::Tunnel(Tunnel::Gue { port: 6080, flags: 2 }),
        ForwardingMethod::Tunnel(Tunnel::Gre { flags: 1 }),
    ];
    let web = listener("192.0.2.10:80");
    for forwarding in methods {
        // I-017: a tunnel may lead to the other family.
        for address in ["10.0.0.1:80", "[2001:db8::1]:80"] {
            let spec = DestSpec {
                upper_threshold: 200,
                lower_threshold: 100,
                ..dest(address, forwarding, 7)
            };
            let octets = codec::operation(&Operation::NewDest(web, spec.clone()));
            assert_eq!(codec::read_dest(&octets, IpFamily::V4).expect("read").spec, spec);
        }
    }
    for (address, prefixes) in [("192.0.2.10:80", 0..=32), ("[2001:db8::10]:80", 1..=128)] {
        for client_prefix in prefixes {
            let engine = Some("sip".to_owned());
            let spec = ServiceSpec {
                client_prefix,
                persistence_engine: engine,
                ..ServiceSpec::new(listener(address), "mh")
            };
            let octets = codec::operation(&Operation::NewService(spec.clone()));
            assert_eq!(codec::read_service(&octets).expect("read").spec, spec);
        }
    }
}

#[test]
fn i_014_the_kernels_own_flag_is_no_difference() {
    let spec = ServiceSpec {
        flags: ServiceFlags(0x3),
        ..ServiceSpec::new(listener("192.0.2.10:80"), "rr")
    };
    let octets = codec::operation(&Operation::NewService(spec));
    let read = codec::read_service(&octets).expect("read");
    assert_eq!(read.spec.flags, ServiceFlags::PERSISTENT);
}

#[test]
fn i_006_the_reply_to_get_info_has_numbers_of_its_own() {
    let version: u32 = 0x0001_0201;
    let mut octets = vec![14, 1, 0, 0, 8, 0, 1, 0];
    octets.extend(version.to_ne_bytes());
    octets.extend([8, 0, 2, 0, 0, 16, 0, 0]);
    if cfg!(target_endian = "little") {
        assert_eq!(codec::read_info(&octets), Some([1, 2, 1]));
    }
    assert_eq!(codec::read_service(&octets), None);
}

#[test]
fn cut_and_twisted_messages_are_refused_and_never_panic() {
    for octets in vectors().values() {
        for end in 0..octets.len() {
            let _ = codec::read_service(&octets[..end]);
            let _ = codec::read_dest(&octets[..end], IpFamily::V6);
            let _ = codec::read_info(&octets[..end]);
            let _ = sync_codec::read_sync_thread(&octets[..end]);
            let _ = sync_codec::read_timeouts(&octets[..end]);
        }
        for at in 0..octets.len() {
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut twisted = octets.clone();
                twisted[at] = value;
                let _ = codec::read_service(&twisted);
                let _ = codec::read_dest(&twisted, IpFamily::V4);
                let _ = codec::read_info(&twisted);
                let _ = sync_codec::read_sync_thread(&twisted);
                let _ = sync_codec::read_timeouts(&twisted);
            }
        }
    }
}

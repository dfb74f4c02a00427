//! What a service by address translation would lack here: judged over a [`HostView`], purely.

use std::net::SocketAddr;

use locum_plan::{BackendKind, Service, first_few};

use crate::choice::Reach;
use crate::verify::forwarding::{
    IN_THE_KERNEL, Unforwarded, Unmet, masqueraded, or_way_out, unforwarded,
};
use crate::verify::host::HostView;

/// What `service` lacks on this host to be served by the packet filter.
pub(super) fn translated(service: &Service, host: &HostView) -> Vec<Unmet> {
    let is_ipv4 = service.addresses().all(|listen| listen.is_ipv4());
    let translates = if is_ipv4 { &host.translates_v4 } else { &host.translates_v6 };
    if let Err(text) = translates {
        let has_ipvs = host.ipvs.is_ok();
        let except = if has_ipvs { &[BackendKind::Nftables][..] } else { &IN_THE_KERNEL };
        let way_out = or_way_out(service, except);
        return vec![Unmet { reach: Reach::All, text: format!("{text}{way_out}") }];
    }
    let way_out = or_way_out(service, &IN_THE_KERNEL);
    let mut found = Vec::new();
    let loopback: Vec<String> = service
        .servers
        .iter()
        .filter(|server| server.address.ip().is_loopback())
        .map(|server| server.address.to_string())
        .collect();
    if !loopback.is_empty() {
        let text = format!(
            "clients of other hosts are not let in to {}: use an address of this host that is not \
             the loopback's{way_out}",
            first_few(&loopback, ", ")
        );
        found.push(Unmet { reach: Reach::All, text });
    }
    let mut ways = masqueraded(service, host);
    if !ways.is_empty() {
        // Requests come in by the link of the listener, and answers by those of the servers.
        ways.extend(service.addresses());
        found.extend(forwarding(&ways, host, &way_out));
    }
    found
}

fn forwarding(ways: &[SocketAddr], host: &HostView, way_out: &str) -> Option<Unmet> {
    let Unforwarded { servers, is_nowhere, switch } = unforwarded(ways, host);
    (!servers.is_empty()).then(|| {
        let text = format!(
            "what goes to its servers and comes back is forwarded by this host, which {switch}=0 \
             forbids: set it to 1{way_out}"
        );
        Unmet { reach: if is_nowhere { Reach::All } else { Reach::Part }, text }
    })
}

#[cfg(test)]
mod tests {
    use locum_kernel::own_links::OwnLink;
    use locum_plan::{BackendChoice, Name, Server};

    use super::*;
    use crate::verify::host::{HostLink, Modules};

    /// Clients at eth0, servers at eth1.
    fn host(forwards: [bool; 2]) -> HostView {
        let link = |name: &str, address: &str, forwards_v4| {
            let addresses = vec![(address.parse().unwrap(), 24)];
            let own = OwnLink { name: name.to_owned(), is_loopback: false, addresses };
            HostLink { own, forwards_v4 }
        };
        HostView {
            ipvs: Err("kernel 6.1 has no IPVS".to_owned()),
            modules: Modules::default(),
            translates_v4: Ok(()),
            translates_v6: Ok(()),
            links: vec![
                link("eth0", "10.77.0.1", forwards[0]),
                link("eth1", "10.78.0.1", forwards[1]),
            ],
            forwards_v6: false,
            proxy: Ok(()),
        }
    }

    fn service(servers: &[&str]) -> Service {
        let listen: SocketAddr = "10.77.0.100:80".parse().unwrap();
        let mut service = Service::new(Name::from("www"), listen.into());
        service.backend = BackendChoice::Only(BackendKind::Nftables);
        service.servers = servers.iter().map(|text| Server::new(text.parse().unwrap())).collect();
        service
    }

    fn texts(service: &Service, host: &HostView) -> Vec<(Reach, String)> {
        translated(service, host).into_iter().map(|one| (one.reach, one.text)).collect()
    }

    #[test]
    fn what_is_translated_is_forwarded_both_ways_and_only_where_it_goes_on() {
        let behind = service(&["10.78.0.11:80"]);
        let beside = service(&["10.77.0.11:80"]);
        let own = service(&["10.78.0.1:8080"]);
        assert_eq!(texts(&behind, &host([true, true])), []);
        assert_eq!(texts(&beside, &host([true, false])), [], "masqueraded, it comes back");
        assert_eq!(texts(&own, &host([false, false])), [], "a server on this host");
        let text = |switch: &str| {
            format!(
                "what goes to its servers and comes back is forwarded by this host, which \
                 {switch}=0 forbids: set it to 1, or use backend = \"proxy\""
            )
        };
        for (forwards, reach, switch) in [
            ([false, false], Reach::All, "net.ipv4.ip_forward"),
            ([true, false], Reach::Part, "net.ipv4.conf.eth1.forwarding"),
            ([false, true], Reach::Part, "net.ipv4.conf.eth0.forwarding"),
        ] {
            assert_eq!(texts(&behind, &host(forwards)), [(reach, text(switch))]);
        }
    }

    #[test]
    fn a_server_at_a_loopback_address_and_a_filter_without_modules_are_said() {
        let found = texts(&service(&["127.0.0.1:8080"]), &host([true, true]));
        assert_eq!(found.len(), 1);
        assert!(found[0].1.contains("127.0.0.1:8080: use an address of this host"), "{found:?}");
        let mut lacking = host([true, true]);
        lacking.translates_v4 = Err("it lacks nft_numgen".to_owned());
        let found = texts(&service(&["10.78.0.11:80"]), &lacking);
        let text = "it lacks nft_numgen, or use backend = \"proxy\"".to_owned();
        assert_eq!(found, [(Reach::All, text)]);
    }
}

//! Services by address translation, with real sockets: one host is client, director and servers.

mod namespace;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{io, thread};

use locum_kernel::conntrack::{IpProtocol, NatListener};
use locum_kernel::ipvs::IpFamily;
use locum_kernel::nftables::{NatBalancer, NatPersistence, NatSelection, NatServer, NatService};

use namespace::{in_namespace, ip};

const PATIENCE: Duration = Duration::from_secs(5);

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Addresses of one family: the listener, three servers, and two clients of one network.
#[derive(Clone, Copy)]
struct Net {
    listen: &'static str,
    servers: [&'static str; 3],
    clients: [&'static str; 2],
}

const V4: Net = Net {
    listen: "192.0.2.10:80",
    servers: ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8081"],
    clients: ["10.1.0.1", "10.1.0.2"],
};
const V6: Net = Net {
    listen: "[2001:db8::10]:80",
    servers: ["[2001:db8:1::1]:8080", "[2001:db8:1::2]:8080", "[2001:db8:1::3]:8081"],
    clients: ["2001:db8:2::1", "2001:db8:2::2"],
};

/// All addresses are this host's.
fn arrange(net: Net) {
    let sockets = net.servers.iter().chain([&net.listen]).map(|text| socket(text).ip());
    let clients = net.clients.iter().map(|text| text.parse::<IpAddr>().expect("an address"));
    for address in sockets.chain(clients) {
        let rest = if address.is_ipv4() { "/32 dev lo" } else { "/128 dev lo nodad" };
        ip(&format!("addr add {address}{rest}"));
    }
}

/// Accepts, says its own address, and closes.
fn serve(net: Net) {
    for address in net.servers {
        let listener = TcpListener::bind(address).expect("a server");
        // Ends with the process: the namespace is only this test's.
        thread::spawn(move || {
            for client in listener.incoming() {
                let _ = io::Write::write_all(&mut client.expect("a client"), address.as_bytes());
            }
        });
    }
}

/// Answers each datagram by its own address, until the sender of what is returned is dropped.
fn answer_datagrams(net: Net) {
    for address in net.servers {
        let socket = UdpSocket::bind(address).expect("a server");
        thread::spawn(move || {
            let mut octets = [0; 16];
            while let Ok((_, client)) = socket.recv_from(&mut octets) {
                let _ = socket.send_to(address.as_bytes(), client);
            }
        });
    }
}

fn datagram_client(net: Net) -> UdpSocket {
    let client = UdpSocket::bind(SocketAddr::new(socket(net.listen).ip(), 0)).expect("socket");
    client.set_read_timeout(Some(PATIENCE)).expect("time limit");
    client
}

/// Which server answers this client.
fn ask_by(client: &UdpSocket, net: Net) -> String {
    client.send_to(b"who", socket(net.listen)).expect("it leaves");
    let mut octets = [0; 64];
    let (length, from) = client.recv_from(&mut octets).expect("an answer");
    assert_eq!(from, socket(net.listen), "it comes from whom was asked");
    String::from_utf8_lossy(&octets[..length]).into_owned()
}

fn ask(net: Net) -> io::Result<String> {
    let mut client = TcpStream::connect_timeout(&socket(net.listen), PATIENCE)?;
    client.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    client.read_to_string(&mut text)?;
    Ok(text)
}

/// From this address.
fn ask_from(net: Net, client: &str) -> String {
    let (from, to) = (socket(&format!("{}:0", bracketed(client))), socket(net.listen));
    let domain = socket2::Domain::for_address(from);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("socket");
    socket.bind(&from.into()).expect("the client's address");
    socket.connect_timeout(&to.into(), PATIENCE).expect("connects");
    let mut text = String::new();
    TcpStream::from(socket).read_to_string(&mut text).expect("an answer");
    text
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

fn service(net: Net, protocol: IpProtocol, weights: [u32; 3]) -> NatService {
    let servers = net.servers.iter().zip(weights);
    NatService {
        listeners: vec![NatListener { protocol, address: socket(net.listen) }],
        selection: NatSelection::WeightedTurns,
        persistence: None,
        servers: servers
            .map(|(address, weight)| NatServer { address: socket(address), weight })
            .collect(),
    }
}

fn without(mut service: NatService, server: usize) -> NatService {
    service.servers.remove(server);
    service
}

fn shares(net: Net, count: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        *shares.entry(ask(net).expect("an answer")).or_default() += 1;
    }
    shares
}

fn nft(words: &str) -> String {
    let output = Command::new("nft").args(words.split(' ')).output().expect("nft runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft {words}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn clients_are_shared_by_weight(net: Net) {
    arrange(net);
    serve(net);
    let mut balancer = NatBalancer::default();
    assert!(ask(net).is_err(), "nobody listens there");
    let wanted = [service(net, IpProtocol::Tcp, [1, 2, 0])];
    assert_eq!(balancer.reconcile(&wanted).expect("nftables").applied, 1);
    let expected = [(net.servers[0].to_owned(), 10), (net.servers[1].to_owned(), 20)];
    assert_eq!(shares(net, 30), expected.into());
    let loads = balancer.loads().expect("nftables");
    assert_eq!(loads[&wanted[0].listeners[0]].accepted, 30);
    assert_eq!(balancer.reconcile(&wanted).expect("nftables").applied, 0, "it is there");
    // Another server, and one that takes no clients any more; what was counted stays.
    let changed = [service(net, IpProtocol::Tcp, [1, 0, 1])];
    assert_eq!(balancer.reconcile(&changed).expect("nftables").applied, 1);
    let expected = [(net.servers[0].to_owned(), 10), (net.servers[2].to_owned(), 10)];
    assert_eq!(shares(net, 20), expected.into());
    let loads = balancer.loads().expect("nftables");
    assert_eq!(loads[&changed[0].listeners[0]].accepted, 50);
    // The witness can read it.
    let family = if socket(net.listen).is_ipv4() { "ip" } else { "ip6" };
    let table = nft(&format!("list table {family} locum_balance"));
    assert!(table.contains("dnat") && table.contains("numgen inc mod 2"), "{table}");
    assert_eq!(balancer.look().expect("nftables").applied, 0);
    balancer.reconcile(&[]).expect("nftables");
    assert_eq!(nft("list tables"), "");
    assert!(ask(net).is_err(), "nobody listens there");
}

#[test]
fn clients_of_ipv4_are_shared_by_weight() {
    in_namespace("clients_of_ipv4_are_shared_by_weight", || clients_are_shared_by_weight(V4));
}

#[test]
fn clients_of_ipv6_are_shared_by_weight() {
    in_namespace("clients_of_ipv6_are_shared_by_weight", || clients_are_shared_by_weight(V6));
}

/// Ends what was left behind; returns how many connections that were.
fn sweep(balancer: &mut NatBalancer) -> usize {
    let Some(sweep) = balancer.sweep() else { return 0 };
    let cut = sweep.carry_out().expect("conntrack");
    balancer.swept(&sweep);
    cut
}

/// The client goes on with one socket, as a resolver does.
fn datagrams_go_elsewhere_when_their_server_has_left(net: Net) {
    arrange(net);
    answer_datagrams(net);
    let client = datagram_client(net);
    let mut balancer = NatBalancer::default();
    let mut other = service(net, IpProtocol::Udp, [1, 1, 1]);
    other.listeners[0].address.set_port(81);
    balancer.reconcile(&[other.clone()]).expect("nftables");
    // The first datagram is sent nowhere: nobody serves, and the kernel remembers that.
    client.send_to(b"who", socket(net.listen)).expect("it leaves");
    let ask = || ask_by(&client, net);
    let all = service(net, IpProtocol::Udp, [1, 1, 1]);
    let report = balancer.reconcile(&[other, all.clone()]).expect("nftables");
    assert_eq!((report.applied, sweep(&mut balancer)), (1, 1));
    let first = ask();
    assert_eq!(ask(), first, "it stays");
    let at = net.servers.iter().position(|server| *server == first).expect("a server");
    // Quiesced, it keeps what it has.
    let mut quiesced = all.clone();
    quiesced.servers[at].weight = 0;
    balancer.reconcile(&[quiesced]).expect("nftables");
    assert_eq!(sweep(&mut balancer), 0);
    assert_eq!(ask(), first);
    balancer.reconcile(&[without(all, at)]).expect("nftables");
    assert_eq!(sweep(&mut balancer), 1);
    assert_ne!(ask(), first);
}

#[test]
fn datagrams_of_ipv4_go_elsewhere_when_their_server_has_left() {
    in_namespace("datagrams_of_ipv4_go_elsewhere_when_their_server_has_left", || {
        datagrams_go_elsewhere_when_their_server_has_left(V4);
    });
}

#[test]
fn datagrams_of_ipv6_go_elsewhere_when_their_server_has_left() {
    in_namespace("datagrams_of_ipv6_go_elsewhere_when_their_server_has_left", || {
        datagrams_go_elsewhere_when_their_server_has_left(V6);
    });
}

#[test]
fn an_established_connection_is_cut_with_its_server_and_not_before() {
    in_namespace("an_established_connection_is_cut_with_its_server_and_not_before", || {
        arrange(V4);
        let listeners: Vec<_> =
            V4.servers.iter().map(|one| TcpListener::bind(one).expect("a server")).collect();
        let mut balancer = NatBalancer::default();
        let all = service(V4, IpProtocol::Tcp, [1, 1, 1]);
        balancer.reconcile(std::slice::from_ref(&all)).expect("nftables");
        let mut client = TcpStream::connect(V4.listen).expect("connects");
        let (mut server, _) = listeners[0].accept().expect("the first server's turn");
        let mut talk = |text: &[u8; 4]| -> io::Result<()> {
            let mut octets = [0; 4];
            io::Write::write_all(&mut client, text)?;
            server.read_exact(&mut octets)?;
            io::Write::write_all(&mut server, &octets)?;
            client.set_read_timeout(Some(PATIENCE))?;
            client.read_exact(&mut octets)
        };
        let mut quiesced = all.clone();
        quiesced.servers[0].weight = 0;
        let mut other = all.clone();
        other.listeners[0].address.set_port(81);
        for wanted in [all.clone(), quiesced, other.clone(), all.clone()] {
            balancer.reconcile(&[wanted]).expect("nftables");
            sweep(&mut balancer);
            talk(b"word").expect("it goes on");
        }
        balancer.reconcile(&[without(all, 0)]).expect("nftables");
        assert_eq!(sweep(&mut balancer), 1);
        server.set_read_timeout(Some(Duration::from_millis(200))).expect("time limit");
        let mut octets = [0; 4];
        // Another server does not know the connection, and resets it.
        let mut client = client;
        client.set_read_timeout(Some(PATIENCE)).expect("time limit");
        let _ = io::Write::write_all(&mut client, b"last");
        assert_eq!(client.read(&mut octets).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(server.read(&mut octets).is_err(), "and its server hears nothing");
    });
}

#[test]
fn clients_of_one_network_stay_on_their_server_over_a_change_and_a_restart() {
    in_namespace("clients_of_one_network_stay_on_their_server_over_a_change_and_a_restart", || {
        for net in [V4, V6] {
            arrange(net);
            serve(net);
            let timeout = Duration::from_secs(300);
            let prefix = if socket(net.listen).is_ipv4() { 24 } else { 64 };
            let mut all = service(net, IpProtocol::Tcp, [1, 1, 1]);
            all.persistence = Some(NatPersistence { timeout, prefix });
            let mut balancer = NatBalancer::default();
            balancer.reconcile(std::slice::from_ref(&all)).expect("nftables");
            let first = ask_from(net, net.clients[0]);
            let stays = |why: &str| {
                for client in [0, 1, 0, 1] {
                    assert_eq!(ask_from(net, net.clients[client]), first, "{why}");
                }
            };
            stays("with all servers");
            let at = net.servers.iter().position(|server| *server == first).expect("a server");
            let other = (at + 1) % 3;
            balancer.reconcile(&[without(all.clone(), other)]).expect("nftables");
            stays("when another server left");
            // A daemon that was killed, and comes back to a different level.
            drop(balancer);
            let mut balancer = NatBalancer::default();
            balancer.reconcile(std::slice::from_ref(&all)).expect("nftables");
            stays("after a restart");
            balancer.reconcile(&[without(all, at)]).expect("nftables");
            let second = ask_from(net, net.clients[0]);
            assert_ne!(second, first, "it has left");
            assert_eq!(ask_from(net, net.clients[1]), second, "and they stay together");
            balancer.reconcile(&[]).expect("nftables");
        }
    });
}

#[test]
fn a_hash_sends_a_client_always_to_the_same_server() {
    in_namespace("a_hash_sends_a_client_always_to_the_same_server", || {
        for net in [V4, V6] {
            arrange(net);
            serve(net);
            for selection in [NatSelection::SourceHash, NatSelection::ConsistentHash] {
                let mut all = service(net, IpProtocol::Tcp, [1, 1, 1]);
                all.selection = selection;
                let mut balancer = NatBalancer::default();
                balancer.reconcile(std::slice::from_ref(&all)).expect("nftables");
                for client in net.clients {
                    let first = ask_from(net, client);
                    assert_eq!(ask_from(net, client), first);
                    assert_eq!(ask_from(net, client), first);
                }
                balancer.reconcile(&[]).expect("nftables");
            }
        }
    });
}

#[test]
fn what_an_earlier_run_left_is_gone_on_with_or_cleaned_up() {
    in_namespace("what_an_earlier_run_left_is_gone_on_with_or_cleaned_up", || {
        arrange(V4);
        serve(V4);
        let wanted = [service(V4, IpProtocol::Tcp, [1, 1, 1])];
        NatBalancer::default().reconcile(&wanted).expect("nftables");
        shares(V4, 3);
        let mut second = NatBalancer::default();
        assert_eq!(second.reconcile(&wanted).expect("nftables").applied, 0, "nothing to do");
        assert_eq!(second.loads().expect("nftables")[&wanted[0].listeners[0]].accepted, 3);
        let fewer = [service(V4, IpProtocol::Tcp, [1, 0, 0])];
        assert_eq!(NatBalancer::default().reconcile(&fewer).expect("nftables").applied, 1);
        assert_eq!(shares(V4, 3), [(V4.servers[0].to_owned(), 3)].into());
        NatBalancer::default().reconcile(&[]).expect("nftables");
        assert_eq!(nft("list tables"), "");
    });
}

#[test]
fn what_somebody_else_changed_is_put_back_and_counted() {
    in_namespace("what_somebody_else_changed_is_put_back_and_counted", || {
        arrange(V4);
        serve(V4);
        let wanted = [service(V4, IpProtocol::Tcp, [1, 1, 1])];
        let mut balancer = NatBalancer::default();
        balancer.reconcile(&wanted).expect("nftables");
        nft("add table ip foreign");
        assert_eq!(balancer.look().expect("nftables").applied, 0, "a table of somebody else");
        for damage in [
            "flush ruleset",
            "flush chain ip locum_balance tcp-192.0.2.10-80",
            "flush map ip locum_balance slots-tcp-192.0.2.10-80",
            "delete element ip locum_balance listeners { 192.0.2.10 . tcp . 80 }",
            "flush map ip locum_balance dispatch",
            "delete chain ip locum_balance leaving",
            "add rule ip locum_balance arriving drop",
            "insert rule ip locum_balance tcp-192.0.2.10-80 drop",
        ] {
            if damage.starts_with("delete chain") {
                nft("flush chain ip locum_balance leaving");
            }
            nft(damage);
            assert_eq!(balancer.look().expect("nftables").applied, 1, "{damage}");
            assert_eq!(shares(V4, 3).len(), 3, "{damage}");
            assert_eq!(balancer.look().expect("nftables").applied, 0, "{damage}");
        }
        // And where a change meets it, before a look has.
        nft("flush ruleset");
        let fewer = [service(V4, IpProtocol::Tcp, [1, 0, 0])];
        balancer.reconcile(&fewer).expect("nftables");
        assert_eq!(shares(V4, 3), [(V4.servers[0].to_owned(), 3)].into());
    });
}

/// A node that died leaves rules behind, and its address runs out.
#[test]
fn what_is_for_another_host_is_left_alone() {
    in_namespace("what_is_for_another_host_is_left_alone", || {
        arrange(V4);
        serve(V4);
        NatBalancer::default()
            .reconcile(&[service(V4, IpProtocol::Tcp, [1, 1, 1])])
            .expect("nftables");
        assert!(ask(V4).is_ok());
        ip("addr del 192.0.2.10/32 dev lo");
        // As if it were another host's: nobody there takes it.
        ip("route add 192.0.2.10/32 dev lo");
        let short = Duration::from_millis(500);
        assert!(TcpStream::connect_timeout(&socket(V4.listen), short).is_err(), "nobody answers");
    });
}

#[test]
fn many_services_are_one_transaction_and_a_change_costs_what_changed() {
    in_namespace("many_services_are_one_transaction_and_a_change_costs_what_changed", || {
        arrange(V4);
        serve(V4);
        let many: Vec<NatService> = (1..=1000)
            .map(|port| {
                let mut one = service(V4, IpProtocol::Tcp, [1, 1, 1]);
                one.listeners[0].address.set_port(port);
                one
            })
            .collect();
        let mut balancer = NatBalancer::default();
        let begun = Instant::now();
        assert_eq!(balancer.reconcile(&many).expect("nftables").applied, 1000);
        println!("1,000 services in {:?}", begun.elapsed());
        assert_eq!(shares(V4, 3).len(), 3);
        let mut changed = many.clone();
        changed[79] = without(changed[79].clone(), 1);
        let begun = Instant::now();
        assert_eq!(balancer.reconcile(&changed).expect("nftables").applied, 1);
        println!("one of them changed in {:?}", begun.elapsed());
        assert_eq!(shares(V4, 4).len(), 2);
        let begun = Instant::now();
        nft("add table ip foreign");
        assert_eq!(balancer.look().expect("nftables").applied, 0);
        println!("all of them looked at in {:?}", begun.elapsed());
    });
}

#[test]
fn this_kernel_lacks_nothing_and_trying_leaves_nothing() {
    in_namespace("this_kernel_lacks_nothing_and_trying_leaves_nothing", || {
        let mut balancer = NatBalancer::default();
        for family in [IpFamily::V4, IpFamily::V6] {
            assert_eq!(balancer.missing(family).expect("nftables"), None);
        }
        assert_eq!(nft("list tables"), "");
    });
}

/// What changed twice before a look is judged by what is wanted now.
#[test]
fn a_server_that_came_after_a_change_keeps_its_clients() {
    in_namespace("a_server_that_came_after_a_change_keeps_its_clients", || {
        arrange(V4);
        answer_datagrams(V4);
        let mut balancer = NatBalancer::default();
        let all = service(V4, IpProtocol::Udp, [1, 1, 1]);
        balancer.reconcile(&[without(all.clone(), 2)]).expect("nftables");
        balancer.reconcile(std::slice::from_ref(&all)).expect("nftables");
        let clients: Vec<_> = (0..3).map(|_| datagram_client(V4)).collect();
        let ask_all = || clients.iter().map(|client| ask_by(client, V4)).collect::<Vec<_>>();
        let first = ask_all();
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3, "{first:?}");
        assert_eq!(sweep(&mut balancer), 0);
        assert_eq!(ask_all(), first, "each stays");
    });
}

#[test]
fn a_refused_service_touches_no_other_and_is_there_once_it_is_accepted() {
    in_namespace("a_refused_service_touches_no_other_and_is_there_once_it_is_accepted", || {
        arrange(V4);
        serve(V4);
        let at = |port| {
            let mut one = service(V4, IpProtocol::Tcp, [1, 1, 1]);
            one.listeners[0].address.set_port(port);
            one
        };
        let mut balancer = NatBalancer::default();
        balancer.reconcile(&[at(80)]).expect("nftables");
        shares(V4, 3);
        let chain = || nft("-a list chain ip locum_balance tcp-192.0.2.10-80");
        let before = chain();
        // It says of itself that it has a listener of the first one.
        let mut refused = at(81);
        refused.listeners.push(at(80).listeners[0]);
        let wanted = [at(80), refused.clone(), at(82), at(83)];
        for applied in [2, 0] {
            let report = balancer.reconcile(&wanted).expect("nftables");
            assert_eq!(report.refused.keys().collect::<Vec<_>>(), [&refused.listeners[0]]);
            assert_eq!(report.applied, applied);
            assert_eq!(chain(), before, "the same rules, by their handles");
        }
        let loads = balancer.loads().expect("nftables");
        let accepted = |port| loads.get(&at(port).listeners[0]).map(|load| load.accepted);
        assert_eq!([80, 81, 82, 83].map(accepted), [Some(3), None, Some(0), Some(0)]);
        // What was there of one that is refused goes on.
        let mut changed = at(82);
        changed.listeners.push(at(83).listeners[0]);
        let report = balancer.reconcile(&[at(80), changed, at(83)]).expect("nftables");
        assert_eq!(report.refused.len(), 1);
        let ports: BTreeSet<u16> = balancer
            .loads()
            .expect("nftables")
            .into_keys()
            .map(|listener| listener.address.port())
            .collect();
        assert_eq!(ports, [80, 82, 83].into());
        // Its listener is given up by another one.
        let report = balancer.reconcile(&[refused, at(82)]).expect("nftables");
        assert_eq!(report.refused, BTreeMap::new());
        assert_eq!(shares(V4, 3).len(), 3);
    });
}

//! One proxy after the other: what clients notice of it.

mod bench;

use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bench::{Client, PATIENCE, Proxy, eventually, fresh_address, service, start_server};
use locum_proxy::protocol::{
    ProgramFile, ProxyPersistence, ProxyService, ProxyServiceState, ProxyTransport,
};

/// Clients that come one after the other until it is dropped, each on a connection of its own.
struct Visitors {
    is_over: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Visitors {
    fn of(listen: SocketAddr) -> Self {
        let (is_over, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let visit = || {
            let (is_over, served) = (is_over.clone(), served.clone());
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(Client::connect(listen).finish(), "bye");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = [(); 4].map(|()| visit()).into();
        Self { is_over, served, threads }
    }

    fn wait_for(&self, more: u64) {
        let before = self.served.load(Ordering::Relaxed);
        eventually("more visitors", || {
            (self.served.load(Ordering::Relaxed) >= before + more).then_some(())
        });
    }

    /// How many there were; each was served.
    fn end(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("each visitor is served");
        }
        self.served.load(Ordering::Relaxed)
    }
}

#[test]
fn no_client_is_refused_or_cut_while_proxies_follow_each_other() {
    let web = service("web", "rr", &[(start_server('a'), 1), (start_server('b'), 1)]);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let mut staying = vec![Client::connect(web.listen)];
    let visitors = Visitors::of(web.listen);
    let mut earlier = Vec::new();
    for _ in 0..5 {
        visitors.wait_for(100);
        let mut next = proxy.successor();
        assert_eq!(next.status().services.len(), 0);
        let status = next.serve(std::slice::from_ref(&web));
        assert_eq!(status.services[0].state, ProxyServiceState::Listening);
        staying.push(Client::connect(web.listen));
        for client in &mut staying {
            client.echo("going on").unwrap();
        }
        earlier.push(std::mem::replace(&mut proxy, next));
    }
    visitors.wait_for(100);
    let visitors = visitors.end();
    let counts = staying.len() as u64;
    eventually("all counted by the last one", || {
        let service = proxy.service("web");
        (service.active == counts && service.accepted == visitors + counts).then_some(())
    });
    for client in staying {
        assert_eq!(client.finish(), "bye");
    }
    for mut proxy in earlier {
        assert!(proxy.wait_for_exit().success());
    }
    let service = proxy.service("web");
    assert_eq!((service.active, service.accepted), (0, visitors + counts), "what was, counts");
    assert!(proxy.socket().exists(), "not removed by one whose place was taken");
}

#[test]
fn those_that_wait_are_served_after_the_change_as_before_it() {
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    web.limits.connections = Some(1);
    let mut old = Proxy::start(&[]);
    old.serve(std::slice::from_ref(&web));
    let first = Client::connect(web.listen);
    // One is accepted and waits for a place, the others wait in the kernel.
    let waiting = [(); 4].map(|()| TcpStream::connect(web.listen).unwrap());
    eventually("all that wait", || {
        (old.service("web").full.is_some_and(|full| full.waiting >= 4)).then_some(())
    });
    let mut new = old.successor();
    new.serve(std::slice::from_ref(&web));
    assert_eq!(first.finish(), "bye");
    for stream in waiting {
        assert_eq!(Client::greeted(stream).finish(), "bye");
    }
    assert!(old.wait_for_exit().success());
    assert_eq!(new.service("web").accepted, 5);
}

#[test]
fn what_stays_behind_ends_with_its_drain_time() {
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    web.drain_ms = 500;
    let mut old = Proxy::start(&[]);
    old.serve(std::slice::from_ref(&web));
    let client = Client::connect(web.listen);
    let mut new = old.successor();
    new.serve(std::slice::from_ref(&web));
    let mut later = Client::connect(web.listen);
    assert!(client.ends_in_reset());
    assert!(old.wait_for_exit().success());
    later.echo("not ours").unwrap();
}

#[test]
fn a_server_that_fails_after_the_change_is_cut_where_its_connections_are() {
    let servers = [start_server('a'), start_server('b')];
    let mut web = service("web", "rr", &[(servers[0], 1), (servers[1], 1)]);
    let mut old = Proxy::start(&[]);
    old.serve(std::slice::from_ref(&web));
    let mut clients = [(); 2].map(|()| Client::connect(web.listen));
    clients.sort_by_key(|client| client.letter);
    let mut new = old.successor();
    new.serve(std::slice::from_ref(&web));
    web.servers.remove(0);
    web.failed = vec![servers[0]];
    new.serve(std::slice::from_ref(&web));
    let [failed, mut other] = clients;
    assert!(failed.ends_in_reset());
    other.echo("untouched").unwrap();
    assert_eq!(other.finish(), "bye");
    assert!(old.wait_for_exit().success());
}

#[test]
fn a_session_of_datagrams_goes_on_from_the_same_port_of_the_same_proxy_address() {
    let servers = [(); 2].map(|()| {
        let socket = UdpSocket::bind(fresh_address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    });
    let addresses = servers.each_ref().map(|socket| (socket.local_addr().unwrap(), 1));
    let dns = ProxyService { transport: ProxyTransport::Udp, ..service("dns", "rr", &addresses) };
    let mut old = Proxy::start(&[]);
    old.serve(std::slice::from_ref(&dns));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(dns.listen).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = |server: &UdpSocket| {
        let mut buffer = [0; 64];
        server.recv_from(&mut buffer).unwrap().1
    };
    client.send(b"one").unwrap();
    let port = heard(&servers[0]);
    let mut new = old.successor();
    new.serve(std::slice::from_ref(&dns));
    assert!(old.wait_for_exit().success(), "it has nobody left");
    // An answer to what was asked before, and more of the same client.
    servers[0].send_to(b"answer", port).unwrap();
    let mut buffer = [0; 64];
    assert_eq!(client.recv(&mut buffer).unwrap(), 6);
    client.send(b"two").unwrap();
    assert_eq!(heard(&servers[0]), port);
    assert_eq!(new.service("dns").active, 1);
}

#[test]
fn a_client_stays_with_its_server() {
    let servers = [start_server('a'), start_server('b')];
    let mut web = service("web", "rr", &[(servers[0], 1), (servers[1], 1)]);
    web.persistence = Some(ProxyPersistence { timeout_ms: 60_000, prefix: 32 });
    let mut old = Proxy::start(&[]);
    old.serve(std::slice::from_ref(&web));
    let sources: Vec<_> = (1..=20).map(|n| Ipv4Addr::new(127, 9, 9, n)).collect();
    let letter = |source: &Ipv4Addr| Client::connect_from(*source, web.listen).letter;
    let before: Vec<_> = sources.iter().map(letter).collect();
    let mut new = old.successor();
    new.serve(std::slice::from_ref(&web));
    // Anew, round robin would give them the other ones.
    let after: Vec<_> = sources.iter().rev().map(letter).rev().collect();
    assert_eq!(before, after);
}

#[test]
fn one_that_ends_before_its_first_level_has_taken_nothing() {
    let web = service("web", "rr", &[(start_server('a'), 1)]);
    let mut old = Proxy::start(&[]);
    old.serve(std::slice::from_ref(&web));
    let mut client = Client::connect(web.listen);
    old.successor().kill();
    client.echo("still here").unwrap();
    assert_eq!(Client::connect(web.listen).letter, 'a');
    assert_eq!(old.service("web").state, ProxyServiceState::Listening);
}

#[test]
fn one_whose_successor_died_serves_again_when_it_is_sent_a_level() {
    let web = service("web", "rr", &[(start_server('a'), 1)]);
    let mut old = Proxy::start(&[]);
    old.serve(std::slice::from_ref(&web));
    let mut client = Client::connect(web.listen);
    let mut new = old.successor();
    new.serve(std::slice::from_ref(&web));
    new.kill();
    let status = old.serve(std::slice::from_ref(&web));
    assert_eq!(status.services[0].state, ProxyServiceState::Listening);
    assert_eq!(Client::connect(web.listen).letter, 'a');
    client.echo("still here").unwrap();
}

/// It is a warm standby that changes hands.
#[test]
fn a_port_that_is_only_kept_is_handed_over_too() {
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    web.ready_only = true;
    let mut old = Proxy::start(&[]);
    old.serve(std::slice::from_ref(&web));
    let mut new = old.successor();
    let status = new.serve(std::slice::from_ref(&web));
    assert_eq!(status.services[0].state, ProxyServiceState::Ready);
    web.ready_only = false;
    new.serve(std::slice::from_ref(&web));
    assert_eq!(Client::connect(web.listen).letter, 'a');
    assert!(old.wait_for_exit().success());
}

#[test]
fn a_successor_of_nobody_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["proxy.sock", "before.sock"].map(|name| directory.path().join(name));
    let output = std::process::Command::new(bench::program())
        .args(["--socket".as_ref(), paths[0].as_os_str()])
        .args(["--predecessor".as_ref(), paths[1].as_os_str()])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("no proxy answers on") && said.contains("before.sock"), "{said}");
}

#[test]
fn a_proxy_says_which_program_it_is() {
    let mut proxy = Proxy::start(&["--user", "0:0"]);
    let start = proxy.status().start.unwrap();
    assert_eq!(start.program, ProgramFile::of(&bench::program()));
    assert_eq!(start.options, ["--user", "0:0"]);
}

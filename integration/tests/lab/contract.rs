//! What a service owes its clients, whatever serves it: one definition, one set of bodies, run by each
//! backend.
//!
//! ```text
//!              ipvs   nftables   haproxy   proxy
//!   TCP          x        x         x        x     every body
//!   datagrams    x        x                  x     shares, stays, dies, drains, sorry, handover
//! ```
//!
//! IPVS masquerades here, in a guest whose kernel has it (`ipvs::keeps_the_contract`), and then a
//! handover may cut what is under way; `ipvs::ways` has the others, which cut nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use std::time::Instant;

use locum_integration::datagram;
use locum_integration::lab::Shape;
use locum_integration::node::Node;
use locum_integration::old_clients::OldClient;
use locum_integration::old_clients::OldClients;
use locum_integration::pair::ELECTION;
use locum_integration::peer::Locum;
use locum_integration::peer::locum_command;
use locum_integration::real_server::RealServer;
use locum_integration::require;
use locum_integration::require::Company;
use locum_integration::service::Balanced;
use locum_integration::service::INSTANCE;
use locum_integration::vm;
use locum_integration::wait;
use locum_integration::wait::seconds;
use locum_integration::web::Requests;

/// Two servers, one that is added, and one that is sorry.
const SHAPE: Shape = Shape { directors: 2, servers: 4, company: Company::Shared };
/// The same for a backend that has nothing else to run beside it: the one processor of a guest.
const ALONE: Shape = Shape { company: Company::Alone, ..SHAPE };

const SERVICE: &str = r#"
[[service]]
name = "NAME"
instance = "web"
backend = "BACKEND"
protocol = "PROTOCOL"
listen = "192.168.1.100:PORT"
scheduler = "wrr"
health = { http = "/", port = 8000, interval = "INTERVAL", rise = 1, fall = 1 }
"#;

/// Of the health check: one of them is how long a dead server may still get clients.
const INTERVAL: Duration = seconds(1);

const WEIGHTED: [&str; 2] =
    ["{ address = \"10.0.0.1\", weight = 1 }", "{ address = \"10.0.0.2\", weight = 3 }"];
const ADDED: &str = "{ address = \"10.0.0.3\", weight = 2 }";

/// Where clients stay with their server.
const STAYING: u16 = 81;
const STAYING_DATAGRAMS: u16 = 54;
/// The client's second address.
const OTHER_CLIENT: &str = "192.168.1.210";

const HOOK: &str = "/run/lab/hook.sh";
const EVENTS: &str = "/run/lab/events";

/// Clients of each kind that keep what they have: in turn, both servers get some.
const OLD: usize = 6;

struct Contract {
    backend: &'static str,
    has_datagrams: bool,
    servers: Vec<RealServer>,
    balanced: Balanced,
}

impl Contract {
    fn config(backend: &str, has_datagrams: bool, servers: &[&str]) -> String {
        let service = |name: &str, protocol: &str, port: u16, to: u16, more: &str| {
            let list = servers.iter().map(|server| {
                let (address, rest) = server.split_once("\",").expect("an address and more");
                format!("{address}:{to}\",{rest}")
            });
            let text = SERVICE.replace("NAME", name).replace("BACKEND", backend);
            let text = text.replace("PROTOCOL", protocol).replace("PORT", &port.to_string());
            let text = text.replace("INTERVAL", &format!("{}s", INTERVAL.as_secs()));
            format!("{text}servers = [{}]\n{more}", list.collect::<Vec<_>>().join(", "))
        };
        let sorry = |to: u16| format!("sorry = \"10.0.0.4:{to}\"\n");
        let hooks =
            format!("quorum_up = [[\"{HOOK}\", \"up\"]]\nquorum_down = [[\"{HOOK}\", \"down\"]]\n");
        let stays = "persistence = \"5m\"\n";
        // The servers answer by way of the master.
        let both = "\"192.168.1.100/24\", { address = \"10.0.0.100/24\", device = \"eth1\" }";
        let mut text = INSTANCE.replace("300ms", "2s").replace("\"192.168.1.100/24\"", both);
        text += &service("www", "tcp", 80, 80, &format!("{}{hooks}", sorry(80)));
        text += &service("stay", "tcp", STAYING, 80, stays);
        if has_datagrams {
            text += &service("dns", "udp", datagram::PORT, datagram::PORT, &sorry(53));
            text += &service("stay-dns", "udp", STAYING_DATAGRAMS, datagram::PORT, stays);
        }
        text
    }

    /// Both directors run and the first one serves.
    fn settled(backend: &'static str, has_datagrams: bool) -> Self {
        let config = Self::config(backend, has_datagrams, &WEIGHTED);
        let shape = if vm::is_inside() { ALONE } else { SHAPE };
        let mut balanced = Balanced::bare(shape, &config);
        let lab = &balanced.lab;
        lab.client.run(&["ip", "addr", "add", &format!("{OTHER_CLIENT}/24"), "dev", "eth0"]);
        for server in &lab.servers {
            // Who is not masqueraded is answered by way of whoever is master.
            server.run(&["ip", "route", "add", "default", "via", "10.0.0.100"]);
        }
        for director in &lab.directors {
            director.write_script(HOOK, &format!("echo \"$LOCUM_STATE $1\" >> {EVENTS}"));
        }
        let servers = lab.servers.iter().map(RealServer::start).collect();
        balanced.start(0);
        balanced.expect_service_by(0);
        balanced.start(1);
        let contract = Self { backend, has_datagrams, servers, balanced };
        contract.expect_answers_by(&["srv1", "srv2"]);
        contract
    }

    fn client(&self) -> &Node {
        &self.balanced.lab.client
    }

    fn vip(&self) -> IpAddr {
        self.balanced.vip()
    }

    fn ask_datagram(&self) -> Result<String, String> {
        datagram::ask(self.client(), self.vip())
    }

    /// Waits until new clients of every kind are answered, by exactly these.
    fn expect_answers_by(&self, names: &[&str]) {
        self.balanced.expect_servers(names);
        if self.has_datagrams {
            wait::eventually(&format!("datagrams go to {names:?}"), ELECTION, || {
                let answers: BTreeSet<String> =
                    (0..8).map(|_| self.ask_datagram()).collect::<Result<_, _>>()?;
                match answers.iter().eq(names) {
                    true => Ok(()),
                    false => Err(format!("{answers:?}")),
                }
            });
        }
    }

    /// Runs a command at the master, for each of the services without persistence.
    fn order(&self, words: &[&str], server: &str) {
        for service in ["www", "dns"].iter().take(1 + usize::from(self.has_datagrams)) {
            let words = [&["server"], words, &[service, server]].concat();
            let output = locum_command(&self.balanced.lab.directors[0], &words);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    fn events(&self) -> Vec<String> {
        let text = self.balanced.lab.directors[0].read(EVENTS).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Old clients of each kind, some of them at each server.
    fn old_clients(&self) -> Vec<OldClients> {
        let mut all = vec![OldClients::connected(self.client(), self.vip(), OLD)];
        if self.has_datagrams {
            all.push(OldClients::by_datagram(self.client(), self.vip(), OLD));
        }
        for (place, clients) in all.iter().enumerate() {
            wait::eventually("each server has old clients", ELECTION, || {
                let found = clients.look();
                let is_so = found.iter().all(|client| client.answers > 0)
                    && ["srv1", "srv2"].iter().all(|name| found.iter().any(|c| c.by == *name));
                if is_so { Ok(()) } else { Err(format!("kind {place}: {found:?}")) }
            });
        }
        all
    }

    /// A quarter and three quarters of all new clients, by ±2 of a hundred.
    fn shares_by_weight(&self) {
        let is_a_quarter = |what: &str, ask: &dyn Fn() -> Result<String, String>| {
            let answers: Vec<String> =
                (0..100).map(|_| ask().expect("each question is answered")).collect();
            let first = answers.iter().filter(|name| *name == "srv1").count();
            assert!((23..=27).contains(&first), "{what}: {first} of 100 at weight 1 of 4");
        };
        is_a_quarter("connections", &|| self.balanced.get());
        if self.has_datagrams {
            is_a_quarter("datagrams", &|| self.ask_datagram());
        }
    }

    /// Who answers this address of the client where clients stay.
    fn staying(&self, from: &str) -> Result<String, String> {
        let page = format!("http://192.168.1.100:{STAYING}/");
        let words = ["curl", "-sS", "--max-time", "3", "--interface", from, &page];
        let output = self.client().output(&words);
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    fn staying_by_datagram(&self) -> Result<String, String> {
        datagram::ask_at(self.client(), (self.vip(), STAYING_DATAGRAMS).into())
    }

    /// Clients stay at their server, also when it has been away and they are at another one.
    fn stays(&self) {
        let stay_at = |name: &str, ask: &dyn Fn() -> Result<String, String>| {
            wait::eventually(&format!("a client stays at {name}"), ELECTION, || {
                for _ in 0..6 {
                    let answer = ask()?;
                    if answer != name {
                        return Err(answer);
                    }
                }
                Ok(())
            });
        };
        // Who answers is what counts here: on a machine that is short of time a question may have to be
        // asked again. What no client may lose is counted by the other bodies.
        let answer =
            |ask: &dyn Fn() -> Result<String, String>| wait::eventually("an answer", ELECTION, ask);
        let addresses = [locum_integration::lab::CLIENT, OTHER_CLIENT];
        for from in addresses {
            let name = answer(&|| self.staying(from));
            for _ in 0..6 {
                assert_eq!(answer(&|| self.staying(from)), name, "{from}");
            }
        }
        if self.has_datagrams {
            let name = answer(&|| self.staying_by_datagram());
            for _ in 0..6 {
                assert_eq!(answer(&|| self.staying_by_datagram()), name, "datagrams");
            }
        }
        let first = answer(&|| self.staying(addresses[0]));
        let gone = usize::from(first == "srv2");
        let other = ["srv2", "srv1"][gone];
        self.servers[gone].fail();
        stay_at(other, &|| self.staying(addresses[0]));
        if self.has_datagrams {
            stay_at(other, &|| self.staying_by_datagram());
        }
        self.servers[gone].recover();
        self.expect_answers_by(&["srv1", "srv2"]);
        stay_at(other, &|| self.staying(addresses[0]));
    }

    /// A server that dies: one interval after the check that found it out nobody is sent to it, neither
    /// who comes nor who was there, and all are answered elsewhere.
    fn dies(&self) {
        let old = self.old_clients();
        let requests = Requests::start(self.client(), self.vip());
        self.servers[0].fail();
        let known_at = wait::eventually("a check fails", ELECTION, || {
            self.servers[0].known_at().ok_or("none has".to_owned())
        });
        std::thread::sleep((known_at + INTERVAL).saturating_duration_since(Instant::now()));
        let (seen, before) = (self.servers[0].seen(), looks(&old));
        wait::throughout("nobody is sent to the dead server", 2 * INTERVAL, || {
            self.servers[0].seen() == seen
        });
        // Whose answer was on its way may wait for it until its patience ends.
        wait::eventually("all are answered elsewhere", ELECTION, || {
            let after = looks(&old);
            let mut both = before.iter().flatten().zip(after.iter().flatten());
            match both.all(|(old, new)| new.answers > old.answers && new.by == "srv2") {
                true => Ok(()),
                false => Err(format!("{before:?}\n{after:?}")),
            }
        });
        let (answered, failed) = requests.stop();
        assert!(failed.len() <= 1, "more than was in flight: {failed:?}, {answered} answered");
        let requests = Requests::start(self.client(), self.vip());
        self.servers[0].recover();
        self.expect_answers_by(&["srv1", "srv2"]);
        let (answered, failed) = requests.stop();
        assert!(failed.is_empty(), "when it came back: {failed:?}, {answered} answered");
    }

    /// Of a server that is drained: nobody new, and who is there goes on.
    fn drains(&self) {
        let old = self.old_clients();
        let requests = Requests::start(self.client(), self.vip());
        self.order(&["drain"], "10.0.0.1");
        self.expect_answers_by(&["srv2"]);
        let before = looks(&old);
        wait::eventually("all old clients go on", ELECTION, || {
            let after = looks(&old);
            let mut both = before.iter().flatten().zip(after.iter().flatten());
            match both.all(|(old, new)| new.answers >= old.answers + 5) {
                true => Ok(()),
                false => Err(format!("{after:?}")),
            }
        });
        let after = looks(&old);
        let of = |all: &[Vec<OldClient>]| -> Vec<(String, usize)> {
            all.iter().flatten().map(|client| (client.by.clone(), client.losses)).collect()
        };
        assert_eq!(of(&before), of(&after), "each where it was, without a loss");
        self.order(&["ready"], "10.0.0.1");
        self.expect_answers_by(&["srv1", "srv2"]);
        let (answered, failed) = requests.stop();
        assert!(failed.is_empty(), "{failed:?}, {answered} answered");
    }

    /// A server that is added has its share, and nobody notices.
    fn adds(&self) {
        let old = self.old_clients();
        let requests = Requests::start(self.client(), self.vip());
        let before = looks(&old);
        let [one, other] = WEIGHTED;
        let config = Self::config(self.backend, self.has_datagrams, &[one, other, ADDED]);
        for director in &self.balanced.lab.directors {
            Locum::NATIVE.configure(director, &config);
            let output = locum_command(director, &["reload"]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        self.expect_answers_by(&["srv1", "srv2", "srv3"]);
        let (answered, failed) = requests.stop();
        assert!(failed.is_empty(), "{failed:?}, {answered} answered");
        let after = looks(&old);
        let losses = |all: &[Vec<OldClient>]| -> Vec<usize> {
            all.iter().flatten().map(|client| client.losses).collect()
        };
        assert_eq!(losses(&before), losses(&after), "{after:?}");
    }

    /// While too few servers are left the sorry server has the clients, and hooks are told.
    fn is_sorry(&self) {
        assert_eq!(self.events(), [""; 0], "the quorum was there until now");
        self.servers[..3].iter().for_each(RealServer::fail);
        self.expect_answers_by(&["srv4"]);
        wait::until("the hook of the lost quorum", ELECTION, || self.events() == ["DOWN down"]);
        self.servers[1].recover();
        self.expect_answers_by(&["srv2"]);
        wait::until("the hook of the quorum", ELECTION, || self.events() == ["DOWN down", "UP up"]);
        self.servers[..3].iter().for_each(RealServer::recover);
        self.expect_answers_by(&["srv1", "srv2", "srv3"]);
    }

    /// What IPVS masquerades comes back by way of the servers' gateway: the new master, which knows
    /// nothing of a connection that began at the other. One client asks one at a time.
    fn cut_by_a_handover(&self) -> usize {
        usize::from(self.backend == "ipvs")
    }

    /// Handed over there and back: no connection fails, and datagrams are answered again.
    fn hands_over(&mut self) {
        let sockets =
            self.has_datagrams.then(|| OldClients::by_datagram(self.client(), self.vip(), OLD));
        let requests = Requests::start(self.client(), self.vip());
        for (from, to) in [(0, 1), (1, 0)] {
            let director = &self.balanced.lab.directors[from];
            let output = locum_command(director, &["switchover", "web"]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            self.balanced.expect_service_by(to);
            let before = sockets.as_ref().map(OldClients::look);
            wait::until("each socket is answered again", ELECTION, || {
                let after = sockets.as_ref().map(OldClients::look);
                let mut both = before.iter().flatten().zip(after.iter().flatten());
                both.all(|(old, new)| new.answers > old.answers + 2)
            });
        }
        let (answered, failed) = requests.stop();
        drop(sockets);
        let allowed = 2 * self.cut_by_a_handover();
        assert!(failed.len() <= allowed, "{failed:?}, {answered} answered");
        assert!(answered > 20, "only {answered} answered");
    }
}

fn looks(all: &[OldClients]) -> Vec<Vec<OldClient>> {
    all.iter().map(OldClients::look).collect()
}

type Body = fn(&Contract);

/// Every body, on one set of machines.
pub fn expect_all(backend: &'static str, has_datagrams: bool) {
    let begun = Instant::now();
    let mut contract = Contract::settled(backend, has_datagrams);
    println!("{backend} is settled in {:?}", begun.elapsed());
    let bodies: [(&str, Body); 6] = [
        ("shares by weight", Contract::shares_by_weight),
        ("stays", Contract::stays),
        ("dies", Contract::dies),
        ("drains", Contract::drains),
        ("adds", Contract::adds),
        ("is sorry", Contract::is_sorry),
    ];
    for (name, body) in bodies {
        let begun = Instant::now();
        println!("{backend} {name}");
        body(&contract);
        println!("{backend} {name} in {:?}", begun.elapsed());
    }
    let begun = Instant::now();
    contract.hands_over();
    println!("{backend} hands over in {:?}", begun.elapsed());
}

#[test]
fn kept_by_nftables() {
    if require::lab(&["nft", "curl"]) {
        expect_all("nftables", true);
    }
}

#[test]
fn kept_by_the_proxy() {
    if require::lab(&["nft", "curl"]) {
        expect_all("proxy", true);
    }
}

#[test]
fn kept_by_haproxy() {
    if require::lab(&["nft", "curl", "haproxy"]) {
        expect_all("haproxy", false);
    }
}

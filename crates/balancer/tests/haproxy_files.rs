//! What a haproxy.cfg names is a part of it: renewed certificates and changed maps are taken up.

mod bench;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use bench::{
    Bench, PATIENCE, finish, fresh_address, get, has_haproxy, serve, start_server, strain,
    tick_until,
};
use locum_balancer::Balancer;
use locum_plan::{Activity, HaproxyFile, Name, Standby, WantedHaproxy, WantedServices};

/// Self-signed for `first.example` and `renewed.example`, made for these tests.
const FIRST: &str = include_str!("data/first.pem");
const RENEWED: &str = include_str!("data/renewed.pem");

/// A HAProxy with a certificate and a map, each in a file of its own.
struct Shop {
    bench: Bench,
    plain: SocketAddr,
    secure: SocketAddr,
}

impl Shop {
    fn new() -> Self {
        let shop = Self { bench: Bench::new(), plain: fresh_address(), secure: fresh_address() };
        let (one, other) = (start_server('a'), start_server('b'));
        shop.put("site.pem", FIRST);
        shop.put("hosts.map", "test one\n");
        let text = format!(
            "global\n    ssl-default-bind-options ssl-max-ver TLSv1.2\ndefaults\n    mode http\n    \
             timeout connect 5s\n    timeout client 1m\n    timeout server 1m\nfrontend web\n    \
             bind {}\n    bind {} ssl crt {}\n    \
             use_backend %[req.hdr(host),lower,map({},other)]\nbackend one\n    server s {one}\n\
             backend other\n    server s {other}\n",
            shop.plain,
            shop.secure,
            shop.path("site.pem").display(),
            shop.path("hosts.map").display(),
        );
        shop.put("haproxy.cfg", &text);
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bench.path(name)
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn wanted(&self) -> WantedServices {
        let file = HaproxyFile {
            name: Name::from("shop"),
            instance: None,
            config: self.path("haproxy.cfg"),
            program: Path::new("haproxy").to_owned(),
            standby: Standby::Cold,
            answer: None,
        };
        let haproxy = vec![WantedHaproxy { file: Arc::new(file), activity: Activity::Active }];
        WantedServices { haproxy, ..WantedServices::default() }
    }

    /// Whether the certificate served is for this name. TLS 1.2 shows it before anything is secret.
    fn serves_certificate_of(&self, name: &str) -> bool {
        let mut stream = TcpStream::connect(self.secure).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&client_hello()).unwrap();
        let mut answer: Vec<u8> = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.windows(8).any(|octets| octets == b".example") {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "no certificate in {answer:?}");
            answer.extend(&buffer[..count]);
        }
        answer.windows(name.len()).any(|octets| octets == name.as_bytes())
    }
}

/// TLS 1.2 with ECDHE-ECDSA-AES128-GCM-SHA256 on P-256.
fn client_hello() -> Vec<u8> {
    fn with_length(octets: &[u8]) -> Vec<u8> {
        let mut sized = u16::try_from(octets.len()).unwrap().to_be_bytes().to_vec();
        sized.extend(octets);
        sized
    }
    let extensions = [
        // Groups, point formats, signature algorithms.
        &[0, 10, 0, 4, 0, 2, 0, 23][..],
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 4, 0, 2, 4, 3],
    ];
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    hello.extend(with_length(&extensions.concat()));
    let mut handshake = vec![1, 0];
    handshake.extend(with_length(&hello));
    let mut record = vec![22, 3, 1];
    record.extend(with_length(&handshake));
    record
}

fn pid(balancer: &mut Balancer) -> u32 {
    balancer.status().processes[0].pid.unwrap()
}

#[test]
fn a_renewed_certificate_is_taken_up_by_the_same_level() {
    if !has_haproxy() {
        return;
    }
    let shop = Shop::new();
    let mut balancer = shop.bench.balancer();
    serve(&mut balancer, &shop.wanted()).unwrap();
    let first = pid(&mut balancer);
    assert!(shop.serves_certificate_of("first.example"));
    serve(&mut balancer, &shop.wanted()).unwrap();
    assert_eq!(pid(&mut balancer), first, "nothing has changed");

    // Half written, as a tool that is interrupted leaves it.
    shop.put("site.pem", &RENEWED[..RENEWED.len() / 2]);
    serve(&mut balancer, &shop.wanted()).unwrap();
    assert!(strain(&balancer, "shop").unwrap().contains("haproxy refuses"));
    assert_eq!(pid(&mut balancer), first);
    assert!(shop.serves_certificate_of("first.example"));

    shop.put("site.pem", RENEWED);
    balancer.apply(&shop.wanted());
    let site = shop.path("site.pem");
    let taken_up = format!("with the changed {}", site.display());
    tick_until(&mut balancer, "the renewed certificate", |_, notes| {
        notes.iter().any(|note| note.text.contains(&taken_up))
    });
    assert_ne!(pid(&mut balancer), first);
    tick_until(&mut balancer, "it served", |_, _| shop.serves_certificate_of("renewed.example"));
    assert_eq!(balancer.progress().failed, []);
    finish(balancer);
}

#[test]
fn a_changed_map_is_taken_up_by_the_same_level_and_by_the_next_daemon() {
    if !has_haproxy() {
        return;
    }
    let shop = Shop::new();
    let mut balancer = shop.bench.balancer();
    serve(&mut balancer, &shop.wanted()).unwrap();
    assert_eq!(get(shop.plain).unwrap(), 'a');
    shop.put("hosts.map", "test other\n");
    serve(&mut balancer, &shop.wanted()).unwrap();
    tick_until(&mut balancer, "the new map", |_, _| get(shop.plain).unwrap() == 'b');
    let second = pid(&mut balancer);
    drop(balancer);
    // An unchanged one is kept.
    let mut balancer = shop.bench.balancer();
    serve(&mut balancer, &shop.wanted()).unwrap();
    assert_eq!(pid(&mut balancer), second);
    drop(balancer);
    shop.put("hosts.map", "test one\n");
    let mut balancer = shop.bench.balancer();
    serve(&mut balancer, &shop.wanted()).unwrap();
    assert_ne!(pid(&mut balancer), second);
    tick_until(&mut balancer, "the map changed again", |_, _| get(shop.plain).unwrap() == 'a');
    finish(balancer);
}

/// One level comes while somebody is writing, and none after it.
#[test]
fn a_file_that_is_being_written_is_taken_up_when_it_is_whole() {
    if !has_haproxy() {
        return;
    }
    let shop = Shop::new();
    let padding = "# a comment in a long map\n".repeat(200_000);
    shop.put("hosts.map", &(padding + "test one\n"));
    let mut balancer = shop.bench.balancer();
    serve(&mut balancer, &shop.wanted()).unwrap();
    let first = pid(&mut balancer);
    let map = shop.path("hosts.map");
    let (started, is_started) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        let mut file = fs::OpenOptions::new().append(true).open(map).unwrap();
        let mut number = 0;
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            file.write_all(format!("host{number} one\n").as_bytes()).unwrap();
            if number == 10 {
                started.send(()).unwrap();
            }
            number += 1;
        }
        file.write_all(b"last.example one\n").unwrap();
    });
    is_started.recv().unwrap();
    balancer.apply(&shop.wanted());
    assert_eq!(pid(&mut balancer), first);
    drop(stop);
    writer.join().unwrap();
    tick_until(&mut balancer, "the whole map", |balancer, _| {
        balancer.status().processes[0].pid.is_some_and(|pid| pid != first)
    });
    finish(balancer);
}

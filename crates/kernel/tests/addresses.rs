//! Addresses put on and taken off real interfaces, each test in a network namespace of its own.

mod namespace;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use locum_kernel::netlink::{
    AddressSpec, ApplyError, FactAction, FactRemoval, KernelFact, KernelScope, MonitorEvent,
    Netlink, RemovalScope, WantedFacts,
};

use socket2::{Domain, Socket, Type};

use namespace::{in_namespace, ip, sysctl, veth_pair};

/// Longer than anything here takes, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn with_netlink(test: &str, body: impl AsyncFnOnce(&mut Netlink) + Send + 'static) {
    in_namespace(test, move || {
        veth_pair();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            body(&mut Netlink::connect().expect("netlink")).await;
        });
    });
}

fn spec(address: &str, valid_seconds: Option<u32>) -> AddressSpec {
    let (address, prefix) = address.split_once('/').expect("prefix length");
    AddressSpec {
        interface: "left".into(),
        address: address.parse().expect("address"),
        prefix: prefix.parse().expect("prefix length"),
        broadcast: None,
        label: None,
        scope: KernelScope::Global,
        nodad: true,
        noprefixroute: false,
        valid_seconds,
    }
}

/// Applies one change that takes nothing away from others.
fn apply(
    netlink: &mut Netlink,
    hold: &[AddressSpec],
    drop: &[AddressSpec],
) -> Result<(), ApplyError> {
    let hold: Vec<_> = hold.iter().cloned().map(KernelFact::from).collect();
    let drop: Vec<_> = drop.iter().map(|spec| unwanted(spec, RemovalScope::Ours)).collect();
    netlink.apply(&WantedFacts { hold: &hold, drop: &drop })
}

fn unwanted(spec: &AddressSpec, whose: RemovalScope) -> FactRemoval {
    FactRemoval { fact: spec.clone().into(), whose }
}

/// A connection to this address, from both ends.
fn connection_to(address: &str) -> (TcpStream, TcpStream) {
    let address: IpAddr = address.parse().expect("an address");
    let listener = TcpListener::bind((address, 0)).expect("a listener");
    let to = listener.local_addr().expect("its address");
    // From another address: what is connected to itself would end at both ends anyhow.
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    let from: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    socket.bind(&SocketAddr::new(from, 0).into()).expect("an address");
    socket.connect(&to.into()).expect("connects");
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    (client, listener.accept().expect("a client").0)
}

/// Whoever waits for an answer would wait for ever.
#[test]
fn connections_end_with_their_address_and_no_others() {
    with_netlink("connections_end_with_their_address_and_no_others", async |netlink| {
        ip("link set lo up");
        let all = [
            spec("192.0.2.10/24", Some(30)),
            spec("2001:db8::10/64", Some(30)),
            spec("192.0.2.11/24", Some(30)),
        ];
        apply(netlink, &all, &[]).expect("added");
        let ending = ["192.0.2.10", "2001:db8::10"].map(connection_to);
        let (mut other, mut peer) = connection_to("192.0.2.11");
        apply(netlink, &all[2..], &all[..2]).expect("removed");
        for (mut client, _server) in ending {
            let error = client.read(&mut [0]).expect_err("there is nothing to read");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        peer.write_all(b"x").expect("it goes on");
        assert_eq!(other.read(&mut [0]).expect("an answer"), 1);
    });
}

/// The line of `text` that speaks of `word`.
fn line<'a>(text: &'a str, word: &str) -> &'a str {
    text.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("no {word} in {text}"))
}

fn marked(netlink: &mut Netlink) -> Vec<String> {
    let mut marked: Vec<_> = netlink
        .marked_addresses()
        .expect("dump")
        .into_iter()
        .map(|found| {
            let lease = if found.valid_seconds.is_some() { " leased" } else { "" };
            format!("{} {}/{}{lease}", found.interface, found.address, found.prefix)
        })
        .collect();
    marked.sort();
    marked
}

/// The next loss; other events before it are let pass.
async fn next_loss(netlink: &mut Netlink) -> (IpAddr, Option<String>) {
    loop {
        if let MonitorEvent::AddressLost { address, culprit, interface } = next(netlink).await {
            assert_eq!(&*interface, "left");
            return (address, culprit);
        }
    }
}

async fn next(netlink: &mut Netlink) -> MonitorEvent {
    let event = tokio::time::timeout(PATIENCE, netlink.next()).await;
    event.expect("an event comes in time").expect("netlink works")
}

#[test]
fn v_257_addresses_of_both_families_are_added_marked_renewed_and_removed() {
    let test = "v_257_addresses_of_both_families_are_added_marked_renewed_and_removed";
    with_netlink(test, async |netlink| {
        let label = AddressSpec {
            label: Some("left:vip".into()),
            broadcast: Some(Ipv4Addr::new(192, 0, 2, 255).into()),
            ..spec("192.0.2.10/24", Some(30))
        };
        let forever = AddressSpec { scope: KernelScope::Link, ..spec("192.0.2.11/32", None) };
        let hold =
            [label, forever, spec("2001:db8::10/64", Some(30)), spec("2001:db8::11/128", Some(30))];
        apply(netlink, &hold, &[]).expect("added");
        assert_eq!(
            marked(netlink),
            [
                "left 192.0.2.10/24 leased",
                "left 192.0.2.11/32",
                "left 2001:db8::10/64 leased",
                "left 2001:db8::11/128 leased",
            ]
        );
        let shown = ip("addr show dev left");
        assert!(
            shown.contains("192.0.2.10/24 brd 192.0.2.255 scope global dynamic left:vip"),
            "{shown}"
        );
        assert!(shown.contains("192.0.2.11/32 scope link left"), "{shown}");
        // V-255, V-256: no detection, and a host address is never chosen as a source.
        let host = line(&shown, "2001:db8::11/128");
        assert!(host.contains("nodad") && host.contains("deprecated"), "{shown}");
        assert!(!line(&shown, "2001:db8::10/64").contains("deprecated"), "{shown}");

        let longer: Vec<_> = hold
            .iter()
            .map(|spec| AddressSpec { valid_seconds: Some(5000), ..spec.clone() })
            .collect();
        apply(netlink, &longer, &[]).expect("renewed");
        let renewed = ip("addr show dev left");
        // What is left of them, on a machine that takes its time.
        let left = renewed.split("valid_lft ").filter_map(|rest| rest.split_once("sec"));
        let left = left.filter_map(|(seconds, _)| seconds.parse::<u32>().ok());
        assert_eq!(left.filter(|seconds| (4900..=5000).contains(seconds)).count(), 4, "{renewed}");
        assert_eq!(marked(netlink).len(), 4, "the mark survives a renewal");

        apply(netlink, &[], &hold).expect("removed");
        apply(netlink, &[], &hold).expect("removing what is not there is no error");
        assert_eq!(marked(netlink), [""; 0]);
    });
}

#[test]
fn a_lease_that_nobody_renews_runs_out_and_is_reported_without_a_culprit() {
    let test = "a_lease_that_nobody_renews_runs_out_and_is_reported_without_a_culprit";
    with_netlink(test, async |netlink| {
        apply(netlink, &[spec("192.0.2.10/24", Some(1))], &[]).expect("added");
        let loss = next_loss(netlink).await;
        assert_eq!(loss, (Ipv4Addr::new(192, 0, 2, 10).into(), None));
        assert_eq!(marked(netlink), [""; 0]);
    });
}

#[test]
fn v_257_an_address_without_our_mark_counts_as_held_and_is_never_touched() {
    let test = "v_257_an_address_without_our_mark_counts_as_held_and_is_never_touched";
    with_netlink(test, async |netlink| {
        ip("addr add 192.0.2.10/24 dev left");
        ip("addr add 2001:db8::10/64 dev left nodad");
        let state = || {
            let shown = ip("-oneline addr show dev left");
            [line(&shown, "192.0.2.10").to_owned(), line(&shown, "2001:db8::10").to_owned()]
        };
        let before = state();
        let hold = [spec("192.0.2.10/32", Some(60)), spec("2001:db8::10/128", Some(60))];
        for _ in 0..2 {
            apply(netlink, &hold, &[]).expect("satisfied");
            assert_eq!(state(), before);
        }
        apply(netlink, &[], &hold).expect("nothing to do");
        assert_eq!(state(), before);
        assert_eq!(marked(netlink), [""; 0]);

        // It counts as held: when it goes, ours comes.
        apply(netlink, &hold, &[]).expect("satisfied");
        ip("addr del 192.0.2.10/24 dev left");
        assert_eq!(next_loss(netlink).await.0, Ipv4Addr::new(192, 0, 2, 10));
        apply(netlink, &hold, &[]).expect("added");
        assert_eq!(marked(netlink), ["left 192.0.2.10/32 leased"]);
    });
}

#[test]
fn v_264_a_lost_address_is_reported_with_its_culprit_and_comes_back() {
    let test = "v_264_a_lost_address_is_reported_with_its_culprit_and_comes_back";
    with_netlink(test, async |netlink| {
        let hold = [spec("192.0.2.10/24", Some(60)), spec("2001:db8::10/64", Some(60))];
        apply(netlink, &hold, &[]).expect("added");
        // Not waited for, so that its name can still be read when it has ended.
        let mut culprit = Command::new("ip")
            .args(["addr", "del", "192.0.2.10/24", "dev", "left"])
            .spawn()
            .expect("ip runs");
        let (address, name) = next_loss(netlink).await;
        assert_eq!(address, Ipv4Addr::new(192, 0, 2, 10));
        assert_eq!(name, Some(format!("ip (pid {})", culprit.id())));
        culprit.wait().expect("ip ends");

        ip("addr del 2001:db8::10/64 dev left");
        assert_eq!(next_loss(netlink).await.0, hold[1].address);
        apply(netlink, &hold, &[]).expect("put back");
        assert_eq!(marked(netlink).len(), 2);
    });
}

#[test]
fn what_we_drop_on_purpose_is_not_lost() {
    with_netlink("what_we_drop_on_purpose_is_not_lost", async |netlink| {
        let hold = [
            spec("192.0.2.10/24", None),
            spec("2001:db8::10/64", None),
            spec("192.0.2.99/32", None),
        ];
        apply(netlink, &hold, &[]).expect("added");
        apply(netlink, &hold[2..], &hold[..2]).expect("dropped");
        ip("addr del 192.0.2.99/32 dev left");
        assert_eq!(next_loss(netlink).await.0, Ipv4Addr::new(192, 0, 2, 99));
    });
}

#[test]
fn dropping_the_first_address_of_a_subnet_leaves_the_others() {
    let test = "dropping_the_first_address_of_a_subnet_leaves_the_others";
    with_netlink(test, async |netlink| {
        sysctl("ipv4/conf/left/promote_secondaries", "0");
        sysctl("ipv4/conf/all/promote_secondaries", "0");
        let hold = [spec("192.0.2.10/24", Some(60)), spec("192.0.2.11/24", Some(60))];
        apply(netlink, &hold, &[]).expect("added");
        ip("addr add 192.0.2.12/24 dev left");
        apply(netlink, &[], &hold[..1]).expect("dropped");
        assert_eq!(marked(netlink), ["left 192.0.2.11/24 leased"]);
        let shown = ip("addr show dev left");
        assert!(shown.contains("192.0.2.12/24") && !shown.contains("192.0.2.10"), "{shown}");
        // What we caused ourselves is no loss.
        apply(netlink, &[spec("192.0.2.99/32", None)], &[]).expect("added");
        ip("addr del 192.0.2.99/32 dev left");
        assert_eq!(next_loss(netlink).await.0, Ipv4Addr::new(192, 0, 2, 99));
    });
}

#[test]
fn what_others_remove_while_we_remove_stays_removed() {
    let test = "what_others_remove_while_we_remove_stays_removed";
    with_netlink(test, async |netlink| {
        let ours = [spec("192.0.2.10/24", Some(60))];
        let mut others = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("ip runs");
        let lines = "addr add 203.0.113.1/24 dev right\naddr del 203.0.113.1/24 dev right\n";
        let mut input = others.stdin.take().expect("piped");
        let writer = std::thread::spawn(move || input.write_all(lines.repeat(4000).as_bytes()));
        // If we put theirs back, their next addition finds it there and fails.
        let ended = loop {
            apply(netlink, &ours, &[]).expect("added");
            apply(netlink, &[], &ours).expect("removed");
            if let Some(ended) = others.try_wait().expect("ip is our child") {
                break ended;
            }
        };
        let _ = writer.join().expect("the writer does not panic");
        assert!(ended.success(), "somebody put back what `ip` had removed");
    });
}

#[test]
fn another_prefix_length_replaces_the_old_one() {
    with_netlink("another_prefix_length_replaces_the_old_one", async |netlink| {
        let old = [spec("192.0.2.10/32", None), spec("2001:db8::10/128", None)];
        let new = [spec("192.0.2.10/24", None), spec("2001:db8::10/64", None)];
        apply(netlink, &old, &[]).expect("added");
        apply(netlink, &new, &old).expect("replaced");
        assert_eq!(marked(netlink), ["left 192.0.2.10/24", "left 2001:db8::10/64"]);
    });
}

#[test]
fn one_failing_address_does_not_stop_the_others_and_is_named() {
    let test = "one_failing_address_does_not_stop_the_others_and_is_named";
    with_netlink(test, async |netlink| {
        let nowhere = AddressSpec { interface: "nowhere".into(), ..spec("192.0.2.10/24", None) };
        let invalid = AddressSpec { prefix: 33, ..spec("192.0.2.11/24", None) };
        let hold = [nowhere.clone(), invalid, spec("192.0.2.12/24", None)];
        let Err(ApplyError::Facts(failures)) = apply(netlink, &hold, &[nowhere]) else {
            panic!("two addresses cannot be added");
        };
        let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
        assert_eq!(texts[0], "cannot add 192.0.2.10/24 on nowhere: no such device");
        assert!(texts[1].starts_with("cannot add 192.0.2.11/33 on left: invalid argument"));
        assert_eq!(texts.len(), 2);
        assert_eq!(marked(netlink), ["left 192.0.2.12/24"]);
    });
}

#[test]
fn with_ipv6_disabled_the_other_family_is_held_and_the_kernel_says_why() {
    let test = "with_ipv6_disabled_the_other_family_is_held_and_the_kernel_says_why";
    with_netlink(test, async |netlink| {
        sysctl("ipv6/conf/left/disable_ipv6", "1");
        let hold = [spec("192.0.2.10/24", Some(60)), spec("2001:db8::10/64", Some(60))];
        for _ in 0..2 {
            let Err(ApplyError::Facts(failures)) = apply(netlink, &hold, &[]) else {
                panic!("one address cannot be added");
            };
            assert_eq!(failures.len(), 1);
            assert_eq!(
                (&failures[0].fact, failures[0].action),
                (&hold[1].clone().into(), FactAction::Add)
            );
            let words = failures[0].error.to_string().to_lowercase();
            assert!(words.starts_with("permission denied"), "{words}");
            assert_eq!(marked(netlink), ["left 192.0.2.10/24 leased"]);
        }
        sysctl("ipv6/conf/left/disable_ipv6", "0");
        apply(netlink, &hold, &[]).expect("added");
        assert_eq!(marked(netlink).len(), 2);
    });
}

#[test]
fn a_later_process_adopts_what_an_earlier_one_left() {
    with_netlink("a_later_process_adopts_what_an_earlier_one_left", async |netlink| {
        let hold = [spec("192.0.2.10/24", Some(60)), spec("2001:db8::10/64", Some(60))];
        apply(netlink, &hold, &[]).expect("added");
        let mut later = Netlink::connect().expect("netlink");
        assert_eq!(marked(&mut later).len(), 2);
        apply(&mut later, &hold[..1], &hold[1..]).expect("one renewed, one removed");
        assert_eq!(marked(&mut later), ["left 192.0.2.10/24 leased"]);
        ip("addr del 192.0.2.10/24 dev left");
        assert_eq!(next_loss(&mut later).await.0, hold[0].address);
    });
}

#[test]
fn anyones_address_is_removed_only_when_that_is_asked_for() {
    let test = "anyones_address_is_removed_only_when_that_is_asked_for";
    with_netlink(test, async |netlink| {
        ip("addr add 192.0.2.10/24 dev left");
        ip("addr add 192.0.2.10/32 dev left");
        ip("addr add 2001:db8::10/64 dev left nodad");
        let drop = [spec("192.0.2.10/32", None), spec("2001:db8::10/128", None)];
        apply(netlink, &[], &drop).expect("nothing of ours");
        let shown = || ip("-oneline addr show dev left");
        assert_eq!(shown().matches("192.0.2.10/").count(), 2);
        assert!(shown().contains("2001:db8::10/64"));
        let anyones = drop.map(|spec| unwanted(&spec, RemovalScope::Anyones));
        netlink.apply(&WantedFacts { hold: &[], drop: &anyones }).expect("removed");
        assert!(!shown().contains("192.0.2.10") && !shown().contains("2001:db8"), "{}", shown());
    });
}

#[test]
fn each_change_is_answered_for_itself() {
    with_netlink("each_change_is_answered_for_itself", async |netlink| {
        let fact = |address: &str| [KernelFact::from(spec(address, Some(60)))];
        let holds = [fact("192.0.2.10/24"), fact("192.0.2.11/33"), fact("192.0.2.12/24")];
        let changes = holds.each_ref().map(|hold| WantedFacts { hold, drop: &[] });
        let answers = netlink.apply_all(&changes);
        let [Ok(()), Err(ApplyError::Facts(failures)), Ok(())] = &answers[..] else {
            panic!("only the second one fails: {answers:?}");
        };
        assert_eq!((failures.len(), &failures[0].fact), (1, &holds[1][0]));
        // The first instance gives up what the second one takes over, in whatever order.
        let [given, _, _] = &holds;
        let drop = [unwanted(&spec("192.0.2.10/24", None), RemovalScope::Ours)];
        for changes in [
            [WantedFacts { hold: &[], drop: &drop }, WantedFacts { hold: given, drop: &[] }],
            [WantedFacts { hold: given, drop: &[] }, WantedFacts { hold: &[], drop: &drop }],
        ] {
            assert!(netlink.apply_all(&changes).iter().all(Result::is_ok));
            let there = ["left 192.0.2.10/24 leased", "left 192.0.2.12/24 leased"];
            assert_eq!(marked(netlink), there);
        }
    });
}

#[test]
fn what_appeared_unheard_is_found_when_it_is_in_the_way() {
    let test = "what_appeared_unheard_is_found_when_it_is_in_the_way";
    with_netlink(test, async |netlink| {
        // The kernel names nobody for IPv6: what carries our mark counts as heard already.
        let hold = [spec("2001:db8::10/64", None)];
        let mut other = Netlink::connect().expect("netlink");
        apply(&mut other, &hold, &[]).expect("added");
        let hold = [spec("2001:db8::10/64", Some(60))];
        apply(netlink, &hold, &[]).expect("it is there with our mark: renewed");
        assert_eq!(marked(netlink), ["left 2001:db8::10/64 leased"]);
    });
}

#[test]
fn after_an_overrun_everything_is_reported_again() {
    with_netlink("after_an_overrun_everything_is_reported_again", async |netlink| {
        ip("link add doomed type veth peer name doomed2");
        apply(netlink, &[spec("198.51.100.1/32", None)], &[]).expect("added");
        // It can only be missed if it was known.
        loop {
            if let MonitorEvent::Link(link) = next(netlink).await
                && &*link.name == "doomed"
            {
                break;
            }
        }
        let mut churn = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("ip runs");
        let mut lines = String::from("link del doomed\naddr del 198.51.100.1/32 dev left\n");
        for _ in 0..4000 {
            lines
                .push_str("addr add 203.0.113.1/32 dev right\naddr del 203.0.113.1/32 dev right\n");
        }
        churn.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("written");
        assert!(churn.wait().expect("ip ends").success());

        let (mut gone, mut lost, mut reported) = (false, false, Vec::new());
        while !(gone && lost && reported.iter().any(|name| name == "right")) {
            match next(netlink).await {
                MonitorEvent::Link(link) => reported.push(link.name.to_string()),
                MonitorEvent::LinkGone { name } => gone |= &*name == "doomed",
                MonitorEvent::AddressLost { address, culprit, .. } => {
                    assert_eq!(address, Ipv4Addr::new(198, 51, 100, 1));
                    let seen = format!("(pid {})", churn.id());
                    assert!(culprit.is_some_and(|name| name.ends_with(&seen)), "first of all");
                    lost = true;
                }
            }
        }
    });
}

#[test]
fn what_is_held_is_remembered_over_a_lost_connection() {
    let test = "what_is_held_is_remembered_over_a_lost_connection";
    with_netlink(test, async |netlink| {
        let hold = [spec("192.0.2.10/24", Some(30))];
        apply(netlink, &hold, &[]).expect("added");
        // Deleted and not heard before the sockets are new: only the memory knows that it was held.
        ip("address delete 192.0.2.10/24 dev left");
        netlink.reconnect().expect("reconnected");
        assert_eq!(next_loss(netlink).await.0, hold[0].address);
        apply(netlink, &hold, &[]).expect("put back");
        assert!(ip("address show dev left").contains("192.0.2.10/24"));
    });
}

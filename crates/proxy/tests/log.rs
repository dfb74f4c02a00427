//! What the process logs comes with its answers.

mod bench;

use bench::{Client, Proxy, eventually, service, start_server};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn said(proxy: &mut Proxy) -> Vec<(u32, String)> {
    proxy.status().log.into_iter().map(|line| (line.pid, line.text)).collect()
}

fn terminate(proxy: &Proxy) {
    kill(Pid::from_raw(proxy.pid().cast_signed()), Signal::SIGTERM).unwrap();
}

#[test]
fn a_line_is_taken_once_by_whoever_controls_it() {
    let web = service("web", "rr", &[(start_server('a'), 1)]);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let client = Client::connect(web.listen);
    proxy.hang_up();
    terminate(&proxy);
    proxy.connect();
    let expected = (proxy.pid(), "asked to terminate: serving ends".to_owned());
    eventually("a line", || said(&mut proxy).contains(&expected).then_some(()));
    assert_eq!(said(&mut proxy), []);
    drop(client);
    assert!(proxy.wait_for_exit().success());
}

#[test]
fn what_the_proxy_before_says_comes_through_the_one_that_has_its_place() {
    let web = service("web", "rr", &[(start_server('a'), 1)]);
    let mut old = Proxy::start(&[]);
    old.serve(std::slice::from_ref(&web));
    let client = Client::connect(web.listen);
    let mut new = old.successor();
    let status = new.serve(std::slice::from_ref(&web));
    let text = "another proxy takes over connections=1".to_owned();
    assert_eq!(
        status.log.into_iter().map(|l| (l.pid, l.text)).collect::<Vec<_>>(),
        [(old.pid(), text)]
    );
    terminate(&old);
    let expected = (old.pid(), "asked to terminate: serving ends".to_owned());
    eventually("a line", || said(&mut new).contains(&expected).then_some(()));
    drop(client);
    assert!(old.wait_for_exit().success());
}

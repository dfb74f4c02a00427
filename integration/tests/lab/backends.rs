//! A service for tests of one backend: what each owes its clients alike stands in `contract`.

use locum_integration::node::Node;
use locum_integration::peer::locum_command;
use locum_integration::service::Balanced;
use locum_integration::service::every_second;
use locum_integration::web::Requests;

/// The service `www` of the instance `web` with weights 1 and 3.
pub fn weighted(backend: &str) -> String {
    let service = r#"
[[service]]
name = "www"
instance = "web"
listen = "192.168.1.100:80"
backend = "BACKEND"
scheduler = "wrr"
health = { http = "/health", interval = "500ms", timeout = "400ms", rise = 1, fall = 2 }
servers = [{ address = "10.0.0.1:80", weight = 1 }, { address = "10.0.0.2:80", weight = 3 }]
"#;
    service.replace("BACKEND", backend)
}

/// What `locum status` says.
pub fn status(node: &Node) -> String {
    String::from_utf8_lossy(&locum_command(node, &["status"]).stdout).into_owned()
}

/// Both directors serve it, the first one as master.
pub fn settled(backend: &str) -> Balanced {
    let balanced = Balanced::settled(&every_second(&weighted(backend)));
    balanced.expect_both_servers();
    balanced
}

/// Of a server that fails: once its check has seen that it gets nobody, and when it is back it gets its
/// share, without a request that is lost.
pub fn expect_a_server_to_fail_and_return(balanced: &Balanced) {
    balanced.web[0].set_status(503);
    balanced.expect_servers(&["srv2"]);
    let requests = Requests::start(&balanced.lab.client, balanced.vip());
    balanced.web[0].set_status(200);
    balanced.expect_both_servers();
    let (answered, failed) = requests.stop();
    assert!(failed.is_empty(), "{failed:?}, {answered} answered");
}

//! Services that read HTTP and end TLS by a HAProxy that is made for them: real clients and servers, and
//! what the published configurations ask, said in services.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;

use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::peer::locum_command;
use locum_integration::process::Process;
use locum_integration::require;
use locum_integration::service::Balanced;
use locum_integration::service::every_second;
use locum_integration::wait;
use locum_integration::wait::millis;
use locum_integration::wait::seconds;
use locum_integration::web::WebServer;

const VIP: &str = "192.168.1.100";
const HEALTH: &str = "health = { http = \"/health\", interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 2 }\n";

fn available(more: &[&str]) -> bool {
    require::lab(&[&["haproxy", "curl"], more].concat())
}

/// A service by HAProxy with these servers; `more` are lines of its table, and what stands below it.
fn service(name: &str, servers: &str, more: &str) -> String {
    format!(
        "\n[[service]]\nname = \"{name}\"\ninstance = \"web\"\nbackend = \"haproxy\"\n\
         scheduler = \"rr\"\nservers = [{servers}]\n{more}\n"
    )
}

fn listen(port: u16) -> String {
    format!("listen = \"{VIP}:{port}\"\n")
}

/// What curl says on the client, with these arguments; an error is text too.
fn curl(client: &Node, arguments: &[&str]) -> String {
    let all = [&["curl", "-s", "-S", "--max-time", "20"], arguments].concat();
    let output = client.output(&all);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

fn expect(client: &Node, arguments: &[&str], expected: &str) {
    wait::eventually(&format!("curl {arguments:?} says {expected}"), ELECTION, || {
        let found = curl(client, arguments);
        if found == expected { Ok(()) } else { Err(found) }
    });
}

/// Both daemons, once the first one holds the address.
fn started(balanced: &mut Balanced) {
    balanced.start(0);
    balanced.start(1);
    let node = &balanced.lab.directors[0];
    wait::until("lb1 is master", ELECTION, || node.holds(balanced.vip()));
}

/// Keys and certificates of these names by an authority of the lab, on the node: `NAME.pem` has both, and
/// `ca.pem` is the authority's.
fn certificates(nodes: &[&Node], names: &[&str]) {
    let Some((first, others)) = nodes.split_first() else { return };
    let mut script = "mkdir -p /run/tls && cd /run/tls\n\
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=lab\n"
        .to_owned();
    for name in names {
        script += &format!(
            "openssl req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}\n\
             echo subjectAltName=DNS:{name} > {name}.ext\n\
             openssl x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
             -out {name}.crt -days 30 -extfile {name}.ext\ncat {name}.crt {name}.key > {name}.pem\n"
        );
    }
    first.shell(&format!("({script}) 2>&1"));
    for name in names.iter().copied().chain(["ca"]) {
        let path = format!("/run/tls/{name}.pem");
        let text = first.read(&path).expect("it was made");
        others.iter().for_each(|node| node.write(&path, &text));
    }
}

/// nginx that says who it is, what it was asked in and what it heard of the client: plain at 8080, in HTTP/2 at
/// 8081, by TLS at 8443.
fn nginx(node: &Node, certificate: &str) -> Process {
    let name = node.name();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path /run/lab/nginx-{kind};\n"));
    let said = "$server_protocol $http_x_forwarded_for $http_x_forwarded_proto \
                $http_x_forwarded_port";
    let file = format!(
        "user root;\npid /run/lab/nginx.pid;\nerror_log stderr;\nworker_processes 1;\nevents {{}}\n\
         http {{\naccess_log off;\n{}\
         server {{ listen 8080; listen 8081 http2; listen 8443 ssl http2;\n\
         ssl_certificate /run/tls/{certificate}.pem; ssl_certificate_key /run/tls/{certificate}.pem;\n\
         location / {{ return 200 \"{name} {said}\"; }} }}\n}}\n",
        paths.concat()
    );
    node.write("/run/lab/nginx.conf", &file);
    node.spawn(&["nginx", "-c", "/run/lab/nginx.conf", "-e", "stderr", "-g", "daemon off;"])
}

/// `haproxy-acl-path.cfg`, `haproxy-blog.cfg`, `haproxy-acl-hdr.cfg` and the rules of `haproxy.cfg`, each
/// at a port.
#[test]
fn rules_of_the_published_files_send_requests_where_they_do() {
    if !available(&[]) {
        return;
    }
    let routed = |name: &str, port, server: &str, routes: &str| {
        service(name, server, &format!("{}[service.http]\nroutes = [{routes}]\n", listen(port)))
    };
    let pool = |name: &str, server: &str| service(name, server, "http = {}\n");
    let (one, two) = ("\"10.0.0.1:80\"", "\"10.0.0.2:80\"");
    let (three, four) = ("\"192.168.1.200:80\"", "\"10.0.0.202:8088\"");
    let config = [
        routed("static", 80, two, "{ path_begins = \"/api\", service = \"dynamic\" }"),
        pool("dynamic", one),
        routed("web-backend", 81, two, "{ path_begins = \"/blog\", service = \"blog-backend\" }"),
        pool("blog-backend", one),
        routed(
            "server_cache",
            82,
            four,
            "{ host_matches = \"^(www.z.cn|z.cn)\", service = \"server_www\" }, \
             { host_domain = \"bbs.z.cn\", service = \"server_bbs\" }, \
             { url_contains = \"buy_sid=\", ignore_case = true, service = \"server_app\" }",
        ),
        pool("server_www", one),
        pool("server_bbs", two),
        pool("server_app", three),
        routed(
            "webservers",
            83,
            two,
            "{ path_ends = \".php\", ignore_case = true, service = \"lamp\" }",
        ),
        pool("lamp", one),
    ];
    let mut balanced = Balanced::new(&every_second(&config.concat()));
    let _app = WebServer::start(&balanced.lab.client);
    let _cache = WebServer::start_at(&balanced.lab.directors[1], ([10, 0, 0, 202], 8088).into());
    started(&mut balanced);
    let cases = [
        (80, "/api/orders", "lab", "srv1"),
        (80, "/x/api", "lab", "srv2"),
        (81, "/blog/1", "lab", "srv1"),
        (81, "/", "lab", "srv2"),
        (82, "/", "www.z.cn", "srv1"),
        (82, "/", "Z.cn", "srv1"),
        (82, "/", "bbs.z.cn", "srv2"),
        (82, "/shop?BUY_sid=7", "other", "client"),
        (82, "/", "other", "lb2"),
        (83, "/index.PHP", "lab", "srv1"),
        (83, "/index.html", "lab", "srv2"),
    ];
    for (port, path, host, server) in cases {
        let url = format!("http://{VIP}:{port}{path}");
        expect(&balanced.lab.client, &["-H", &format!("Host: {host}"), &url], server);
    }
    // What routes lead to moves with the address.
    balanced.daemon(0).terminate();
    let url = format!("http://{VIP}:80/api/orders");
    expect(&balanced.lab.client, &[&url], "srv1");
}

/// `haproxy-httpchk.cfg`: the least connections, and a server whose page is not status 200 gets nobody; with
/// a cookie, who was there stays as long as the server is well.
#[test]
fn a_browser_stays_with_its_server_until_that_fails() {
    if !available(&[]) {
        return;
    }
    let http = "[service.http]\ncookie = \"SRV\"\n";
    let more = format!("{}{HEALTH}{http}", listen(80))
        .replace("http = \"/health\"", "http = \"/health\", expect = 200");
    let config = service("api", "\"10.0.0.1:80\", \"10.0.0.2:80\"", &more).replace("rr", "lc");
    let mut balanced = Balanced::new(&every_second(&config));
    started(&mut balanced);
    balanced.expect_both_servers();
    let client = &balanced.lab.client;
    let url = format!("http://{VIP}/");
    let visit = || curl(client, &["-b", "/run/jar", "-c", "/run/jar", &url]);
    let first = visit();
    assert!(first == "srv1" || first == "srv2", "{first}");
    for _ in 0..8 {
        assert_eq!(visit(), first);
    }
    let gone = usize::from(first == "srv2");
    let other = ["srv2", "srv1"][gone];
    balanced.web[gone].set_status(404);
    wait::until("the browser is at the other server", ELECTION, || visit() == other);
    balanced.web[gone].set_status(200);
    balanced.expect_both_servers();
    for _ in 0..8 {
        assert_eq!(visit(), other, "where it is now");
    }
    // An order counts like a failure: nobody new and nobody kept.
    let address = format!("10.0.0.{}", 2 - gone);
    let said = locum_command(&balanced.lab.directors[0], &["server", "drain", "api", &address]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    wait::until("the browser is back", ELECTION, || visit() == first);
}

/// Certificates by the name that is asked, HTTP/2 with clients and with servers, in plain and by TLS that
/// is verified, and a redirect for who comes without.
#[test]
fn tls_ends_here_by_name_and_servers_are_verified() {
    if !available(&["nginx", "openssl"]) {
        return;
    }
    let certificates_of = "certificates = [\"/run/tls/a.example.pem\", \"/run/tls/b.example.pem\"]";
    let server_tls =
        |name: &str| format!("server_tls = {{ name = \"{name}\", ca = \"/run/tls/ca.pem\" }}\n");
    let pool = |name: &str, port: u16, more: &str| {
        service(name, &format!("\"10.0.0.1:{port}\""), &format!("{more}\n"))
    };
    let front = format!(
        "listen = [\"{VIP}:80\", \"{VIP}:443\"]\ntls = {{ ports = [443], {certificates_of} }}\n\
         [service.http]\nredirects = [{{ scheme = \"https\", code = 301 }}]\n\
         routes = [\n{{ path = \"/h2\", service = \"h2\" }},\n{{ path = \"/tls\", service = \"tls\" }},\n\
         {{ path = \"/tls-h2\", service = \"tls-h2\" }},\n\
         {{ path = \"/forged\", service = \"forged\" }}]\n"
    );
    let config = [
        service("www", "\"10.0.0.1:8080\"", &front),
        pool("h2", 8081, "http = { server_http2 = true }"),
        pool("tls", 8443, &format!("{}http = {{}}", server_tls("srv.lab"))),
        pool("tls-h2", 8443, &format!("{}http = {{ server_http2 = true }}", server_tls("srv.lab"))),
        pool("forged", 8443, &format!("{}http = {{}}", server_tls("other.lab"))),
    ];
    let mut balanced = Balanced::new(&every_second(&config.concat()));
    let lab = &balanced.lab;
    let nodes = [&lab.directors[0], &lab.directors[1], &lab.servers[0], &lab.client];
    certificates(&nodes, &["a.example", "b.example", "srv.lab"]);
    let _nginx = nginx(&lab.servers[0], "srv.lab");
    started(&mut balanced);
    let client = &balanced.lab.client;
    let (to_a, to_b) = (format!("a.example:443:{VIP}"), format!("b.example:443:{VIP}"));
    let ask = |host: &str, path: &str, version: &str| -> (Vec<String>, String) {
        let words =
            ["--cacert", "/run/tls/ca.pem", "--resolve", &to_a, "--resolve", &to_b, version];
        (words.map(str::to_owned).to_vec(), format!("https://{host}{path}"))
    };
    let said = |host: &str, path: &str, version: &str, expected: &str| {
        let (words, url) = ask(host, path, version);
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        words.extend(["-w", " by %{http_version}", &url]);
        expect(client, &words, expected);
    };
    let heard = "192.168.1.200 https 443";
    said("a.example", "/", "--http2", &format!("srv1 HTTP/1.1 {heard} by 2"));
    said("b.example", "/", "--http1.1", &format!("srv1 HTTP/1.1 {heard} by 1.1"));
    said("a.example", "/h2", "--http2", &format!("srv1 HTTP/2.0 {heard} by 2"));
    said("a.example", "/tls", "--http1.1", &format!("srv1 HTTP/1.1 {heard} by 1.1"));
    said("a.example", "/tls-h2", "--http2", &format!("srv1 HTTP/2.0 {heard} by 2"));
    let (words, url) = ask("a.example", "/forged", "--http2");
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.extend(["-o", "/dev/null", "-w", "%{http_code}", &url]);
    expect(client, &words, "503");
    let redirected = ["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"];
    let url = format!("http://{VIP}/x?y");
    expect(client, &[&redirected[..], &[&url]].concat(), &format!("301 https://{VIP}/x?y"));
    // A node without one of the certificates cannot serve, and says so before it is asked to.
    let path = "/run/tls/b.example.pem";
    let text = balanced.lab.directors[1].read(path).expect("it was made");
    balanced.daemon(1).terminate();
    balanced.lab.directors[1].remove(path);
    balanced.start(1);
    let standby = &balanced.lab.directors[1];
    let misses_it = || {
        let status = locum_command(standby, &["status"]).stdout;
        String::from_utf8_lossy(&status).contains("b.example.pem")
    };
    wait::until("the standby misses its certificate", ELECTION, misses_it);
    standby.write(path, &text);
    wait::until("and has it again", seconds(60), || {
        locum_command(standby, &["status"]).status.success() && !misses_it()
    });
}

#[test]
fn a_web_socket_is_passed_on_until_it_is_silent() {
    if !available(&[]) {
        return;
    }
    let more = format!("{}[service.http]\ntunnel_timeout = \"2s\"\n", listen(80));
    let mut balanced = Balanced::new(&every_second(&service("ws", "\"10.0.0.1:8090\"", &more)));
    let _echo = balanced.lab.servers[0].spawn_in_network(|| {
        let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 8090))).expect("a port");
        for client in listener.incoming().flatten() {
            thread::spawn(move || drop(echo(client)));
        }
    });
    started(&mut balanced);
    let open = || -> std::io::Result<(TcpStream, String)> {
        let address = SocketAddr::from((balanced.vip(), 80));
        let mut stream = balanced.lab.client.in_network(|| TcpStream::connect(address))?;
        stream.set_read_timeout(Some(seconds(20)))?;
        // The key and its answer are those of RFC 6455 §1.3.
        stream.write_all(
            b"GET /chat HTTP/1.1\r\nHost: lab\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )?;
        let head = head(&mut stream)?;
        Ok((stream, head))
    };
    let (mut stream, head) =
        wait::eventually("the protocols are switched", ELECTION, || match open() {
            Ok((stream, head)) if head.starts_with("HTTP/1.1 101") => Ok((stream, head)),
            other => Err(format!("{other:?}")),
        });
    assert!(head.to_lowercase().contains("sec-websocket-accept: s3ppl"), "{head}");
    // Text, masked as a client has to: "hello".
    let mask = [7, 11, 13, 17];
    let masked: Vec<u8> =
        b"hello".iter().zip(mask.iter().cycle()).map(|(octet, mask)| octet ^ mask).collect();
    for _ in 0..3 {
        stream.write_all(&[&[0x81, 0x85], &mask[..], &masked].concat()).expect("it goes on");
        let mut frame = [0; 7];
        stream.read_exact(&mut frame).expect("an echo");
        assert_eq!(&frame, b"\x81\x05hello");
    }
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    assert!(ended.is_ok() && rest.is_empty(), "silence ends it: {ended:?} {rest:?}");
}

/// A server that takes a WebSocket and says every frame of up to 125 octets back.
fn echo(mut client: TcpStream) -> std::io::Result<()> {
    let head = head(&mut client)?;
    assert!(head.contains("dGhlIHNhbXBsZSBub25jZQ=="), "{head}");
    client.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    )?;
    loop {
        let mut begin = [0; 6];
        client.read_exact(&mut begin)?;
        let length = usize::from(begin[1] & 0x7f);
        let mut octets = vec![0; length];
        client.read_exact(&mut octets)?;
        let plain = octets.iter().zip(begin[2..].iter().cycle()).map(|(octet, mask)| octet ^ mask);
        let frame: Vec<u8> = [begin[0], begin[1] & 0x7f].into_iter().chain(plain).collect();
        client.write_all(&frame)?;
    }
}

/// Up to the empty line, octet by octet: what follows is somebody else's.
fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet)?;
        text.extend(octet);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn passwords_are_asked_for_and_numbers_are_shown() {
    if !available(&["openssl"]) {
        return;
    }
    let hash = std::process::Command::new("openssl").args(["passwd", "-6", "geheim"]).output();
    let hash = String::from_utf8(hash.expect("openssl runs").stdout).expect("text");
    let users = format!("users = [{{ name = \"ada\", password = \"{}\" }}]", hash.trim());
    let more = format!(
        "{}[service.http]\nauth = {{ realm = \"shop\", {users} }}\n\
         stats = {{ path = \"/haproxy\", refresh = \"3s\", {users} }}\n",
        listen(80)
    );
    let mut balanced = Balanced::new(&every_second(&service("shop", "\"10.0.0.1:80\"", &more)));
    started(&mut balanced);
    let client = &balanced.lab.client;
    let code = ["-o", "/dev/null", "-w", "%{http_code}"];
    for path in ["", "haproxy"] {
        let url = format!("http://{VIP}/{path}");
        expect(client, &[&code[..], &[&url]].concat(), "401");
        let wrong = curl(client, &[&code[..], &["-u", "ada:offen", &url]].concat());
        assert_eq!(wrong, "401");
    }
    expect(client, &["-u", "ada:geheim", &format!("http://{VIP}/")], "srv1");
    let page = curl(client, &["-u", "ada:geheim", &format!("http://{VIP}/haproxy;csv")]);
    assert!(page.contains("\nshop,10.0.0.1:80,"), "{page}");
    let status = locum_command(&balanced.lab.directors[0], &["status", "--json"]).stdout;
    let status = String::from_utf8_lossy(&status).into_owned();
    assert!(!status.contains(hash.trim()), "{status}");
}

/// A server with one place: who comes next waits for it, and not for ever.
#[test]
fn requests_wait_for_a_full_server() {
    if !available(&[]) {
        return;
    }
    let server = "{ address = \"10.0.0.1:8091\", max_connections = 1 }";
    let http = |time: &str| format!("queue_timeout = \"{time}\"\n[service.http]\n");
    let config = [
        service("patient", server, &format!("{}{}", listen(80), http("1m"))),
        service("hasty", server, &format!("{}{}", listen(81), http("1s"))),
    ];
    let mut balanced = Balanced::new(&every_second(&config.concat()));
    let (asked, requests) = mpsc::channel();
    let _slow = balanced.lab.servers[0].spawn_in_network(move || {
        let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 8091))).expect("a port");
        for mut client in listener.incoming().flatten() {
            // Who only looks whether somebody listens says nothing.
            if head(&mut client).is_ok() && asked.send(client).is_err() {
                return;
            }
        }
    });
    started(&mut balanced);
    let ask = |port: u16| {
        let address = SocketAddr::from((balanced.vip(), port));
        let mut stream = balanced.lab.client.in_network(|| TcpStream::connect(address))?;
        stream.set_read_timeout(Some(seconds(60)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
        std::io::Result::Ok(stream)
    };
    let answer = |mut client: TcpStream| {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        client.write_all(text).expect("somebody waits");
    };
    let status = |stream: TcpStream| {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer");
        line.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let next = || requests.recv_timeout(seconds(60)).expect("a request comes");
    for (port, of_second) in [(80, "200"), (81, "503")] {
        let first =
            wait::eventually("a connection", ELECTION, || ask(port).map_err(|e| e.to_string()));
        let at_server = next();
        let second = ask(port).expect("a connection");
        if of_second == "503" {
            assert_eq!(status(second), "503", "it has waited long enough");
            answer(at_server);
            assert_eq!(status(first), "200");
            continue;
        }
        assert!(requests.recv_timeout(millis(500)).is_err(), "one at a time");
        answer(at_server);
        assert_eq!(status(first), "200");
        answer(next());
        assert_eq!(status(second), of_second);
    }
}

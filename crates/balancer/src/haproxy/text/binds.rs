//! Where a HAProxy listens, and what a client may say there.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::haproxy::text::line::{ConfigLine, ConfigWord, is_section, lines};

/// Most addresses of one file: a range of ports may be all of them.
const ADDRESS_LIMIT: usize = 4096;

/// A `bind` line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Bind {
    /// Of the text, counted from 1.
    pub line: usize,
    /// Those of TCP that the text alone tells, in its order, ports of a range each for itself; the
    /// unspecified one is any address of the host.
    pub addresses: Vec<SocketAddr>,
    /// Of the section that it stands in.
    pub mode: Mode,
    /// A client has to speak TLS.
    pub tls: bool,
    /// A client has to speak another version of HTTP than 1 (`proto h2`).
    pub http2: bool,
    /// A client has to say first for whom it speaks (`accept-proxy`).
    pub accept_proxy: bool,
    /// Its addresses need not be there (`transparent`).
    pub transparent: bool,
    /// Clients of other interfaces, those of this host among them, do not reach it.
    pub interface: Option<String>,
    /// The path that HAProxy answers itself, in HTTP mode.
    pub monitor_uri: Option<String>,
}

/// What is spoken behind a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Whatever the server speaks.
    Tcp,
    Http,
    /// Not meant for clients: peers, logs.
    Internal,
}

/// The listeners of this text, in its order. Without those of disabled sections, of other network
/// namespaces and of descriptors that the process is given.
pub(crate) fn binds(text: &str) -> Vec<Bind> {
    let mut defaults = Defaults::default();
    let mut found = Vec::new();
    let mut section = Section::default();
    for line in lines(text) {
        let Some(first) = line.texts().next() else { continue };
        if is_section(first) {
            std::mem::take(&mut section).end(&mut defaults, &mut found);
            section = Section::begin(&line, &defaults);
        } else {
            section.read(&line);
        }
    }
    section.end(&mut defaults, &mut found);
    let mut room = ADDRESS_LIMIT;
    for bind in &mut found {
        bind.addresses.truncate(room);
        room -= bind.addresses.len();
    }
    found.retain(|bind| !bind.addresses.is_empty());
    found
}

/// What a `defaults` section hands on.
#[derive(Clone, Default)]
struct SectionSettings {
    mode: Option<Mode>,
    monitor_uri: Option<String>,
    disabled: bool,
}

#[derive(Default)]
struct Defaults {
    /// The nearest one above.
    last: SectionSettings,
    named: BTreeMap<String, SectionSettings>,
}

#[derive(Default)]
enum SectionKind {
    /// One that listens for clients.
    Proxy,
    Defaults {
        name: Option<String>,
    },
    /// `peers` and `log-forward`.
    Internal,
    #[default]
    Other,
}

#[derive(Default)]
struct Section {
    kind: SectionKind,
    settings: SectionSettings,
    binds: Vec<Bind>,
    /// `default-bind` of a `peers` section.
    default_bind: Vec<ConfigWord>,
}

impl Section {
    fn begin(line: &ConfigLine, defaults: &Defaults) -> Self {
        let words: Vec<&str> = line.texts().collect();
        let from = words.windows(2).find(|pair| pair[0] == "from").map(|pair| pair[1]);
        let from = from.and_then(|name| defaults.named.get(name)).cloned();
        let name = words.get(1).filter(|name| **name != "from").map(|name| (*name).to_owned());
        let (kind, settings) = match words[0] {
            "frontend" | "listen" => {
                (SectionKind::Proxy, from.unwrap_or_else(|| defaults.last.clone()))
            }
            "defaults" => (SectionKind::Defaults { name }, from.unwrap_or_default()),
            "peers" | "log-forward" => (SectionKind::Internal, SectionSettings::default()),
            _ => (SectionKind::Other, SectionSettings::default()),
        };
        Self { kind, settings, binds: Vec::new(), default_bind: Vec::new() }
    }

    fn read(&mut self, line: &ConfigLine) {
        let words: Vec<&str> = line.texts().collect();
        match words.as_slice() {
            ["bind", ..] if !line.conditional => {
                let options = line.words[1..].iter().skip(1).chain(&self.default_bind);
                let options: Vec<&str> = options.map(|word| word.text.as_str()).collect();
                let bind = |word| bind(line.number, word, &options);
                self.binds.extend(line.words.get(1).and_then(bind));
            }
            ["default-bind", ..] => self.default_bind = line.words[1..].to_vec(),
            ["mode", mode, ..] => {
                self.settings.mode = Some(match *mode {
                    "http" => Mode::Http,
                    "tcp" => Mode::Tcp,
                    _ => Mode::Internal,
                });
            }
            ["monitor-uri", path, ..] => self.settings.monitor_uri = Some((*path).to_owned()),
            ["disabled", ..] => self.settings.disabled = true,
            ["enabled", ..] => self.settings.disabled = false,
            _ => {}
        }
    }

    /// What of it holds for all of it may stand behind its binds.
    fn end(self, defaults: &mut Defaults, found: &mut Vec<Bind>) {
        let SectionSettings { mode, monitor_uri, disabled } = &self.settings;
        let mode = match self.kind {
            SectionKind::Defaults { name } => {
                defaults.named.extend(name.map(|name| (name, self.settings.clone())));
                defaults.last = self.settings;
                return;
            }
            SectionKind::Proxy if !disabled => mode.unwrap_or(Mode::Tcp),
            SectionKind::Internal if !disabled => Mode::Internal,
            SectionKind::Proxy | SectionKind::Internal | SectionKind::Other => return,
        };
        let monitor_uri = monitor_uri.as_ref().filter(|_| mode == Mode::Http);
        let complete = |bind| Bind { mode, monitor_uri: monitor_uri.cloned(), ..bind };
        found.extend(self.binds.into_iter().map(complete));
    }
}

/// One line; its section says the rest.
fn bind(line: usize, addresses: &ConfigWord, options: &[&str]) -> Option<Bind> {
    let value =
        |name: &str| options.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].to_owned());
    if addresses.has_variable || options.contains(&"namespace") {
        return None;
    }
    Some(Bind {
        line,
        addresses: addresses.text.split(',').flat_map(address).collect(),
        mode: Mode::Tcp,
        tls: options.contains(&"ssl"),
        http2: value("proto").is_some_and(|proto| proto != "h1"),
        accept_proxy: options.contains(&"accept-proxy"),
        transparent: options.contains(&"transparent"),
        interface: value("interface"),
        monitor_uri: None,
    })
}

/// One of the addresses between commas; none where the text alone does not tell.
fn address(text: &str) -> Vec<SocketAddr> {
    let (family, rest) = match text.split_once('@') {
        Some((prefix, rest)) => match prefix {
            "ipv4" | "tcp4" | "mptcp4" => (Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), rest),
            "ipv6" | "tcp6" | "mptcp6" => (Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), rest),
            "tcp" | "mptcp" => (None, rest),
            // Unix sockets, datagrams, descriptors.
            _ => return Vec::new(),
        },
        None => (None, text),
    };
    let Some((host, ports)) = rest.rsplit_once(':') else { return Vec::new() };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address = match host {
        "" | "*" => Some(family.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
        host => host.parse().ok(),
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (Some(address), Ok(first), Ok(last)) = (address, first.parse(), last.parse::<u16>()) else {
        return Vec::new();
    };
    let ports = (first..=last).filter(|port| *port != 0).take(ADDRESS_LIMIT);
    ports.map(|port| SocketAddr::new(address, port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_that_stand_in_the_text() {
        for (text, expected) in [
            ("*:80", "0.0.0.0:80"),
            (":80", "0.0.0.0:80"),
            (":80,:443", "0.0.0.0:80 0.0.0.0:443"),
            (":::80", "[::]:80"),
            ("[::]:80", "[::]:80"),
            ("2001:db8::1:80", "[2001:db8::1]:80"),
            ("ipv4@:80", "0.0.0.0:80"),
            ("ipv6@:80", "[::]:80"),
            ("tcp@10.0.0.1:80", "10.0.0.1:80"),
            ("10.0.0.1:8000-8002", "10.0.0.1:8000 10.0.0.1:8001 10.0.0.1:8002"),
            ("10.0.0.1:65535-65535", "10.0.0.1:65535"),
            ("10.0.0.1:3-1", ""),
            ("/run/x.sock", ""),
            ("unix@/run/x.sock,:80", "0.0.0.0:80"),
            ("abns@x", ""),
            ("fd@3", ""),
            ("quic4@:443", ""),
            ("udp@:443", ""),
            ("www.example:80", ""),
            ("10.0.0.1", ""),
            ("10.0.0.1:0", ""),
            ("10.0.0.1:65536", ""),
            ("", ""),
            (":", ""),
            ("@", ""),
            ("[", ""),
        ] {
            let found: Vec<_> = address_list(text).iter().map(ToString::to_string).collect();
            assert_eq!(found.join(" "), expected, "{text}");
        }
        fn address_list(text: &str) -> Vec<SocketAddr> {
            text.split(',').flat_map(address).collect()
        }
    }

    /// `ADDRESSES mode flags`, one line for each bind.
    fn summary(text: &str) -> Vec<String> {
        let one = |bind: &Bind| {
            let mut words: Vec<String> = bind.addresses.iter().map(ToString::to_string).collect();
            words.push(format!("{:?}", bind.mode).to_lowercase());
            let flags = [
                (bind.tls, "tls"),
                (bind.http2, "h2"),
                (bind.accept_proxy, "proxy"),
                (bind.transparent, "transparent"),
            ];
            words.extend(flags.iter().filter(|(set, _)| *set).map(|(_, word)| (*word).to_owned()));
            words.extend(bind.interface.clone());
            words.extend(bind.monitor_uri.clone());
            words.join(" ")
        };
        binds(text).iter().map(one).collect()
    }

    #[test]
    fn sections_say_what_is_spoken_and_inherit_it() {
        let text = "
            global
                stats socket /run/haproxy.sock
            defaults
                mode http
                monitor-uri /alive
            frontend one
                bind :80
                bind :443 ssl crt /etc/site.pem alpn h2,http/1.1
            listen two
                bind :81 accept-proxy
                bind :82 proto h2
                bind :83 proto h1 interface eth0
                monitor-uri /two
            backend three
                bind :84
            listen four
                bind :85
                mode tcp
            frontend five
                disabled
                bind :86
            defaults
            frontend six
                bind 10.0.0.1:87 transparent
            frontend seven
                bind :88 namespace blue
                bind \"$HOST:89\"
                .if defined(X)
                bind :90
                .endif
        ";
        assert_eq!(
            summary(text),
            [
                "0.0.0.0:80 http /alive",
                "0.0.0.0:443 http tls /alive",
                "0.0.0.0:81 http proxy /two",
                "0.0.0.0:82 http h2 /two",
                "0.0.0.0:83 http eth0 /two",
                "0.0.0.0:85 tcp",
                "10.0.0.1:87 tcp transparent",
            ]
        );
        assert_eq!(binds(text)[0].line, 8);
    }

    #[test]
    fn a_section_may_name_its_defaults() {
        let text = "
            defaults web
                mode http
            defaults quiet from web
                monitor-uri /q
            defaults
                mode tcp
                disabled
            frontend one from web
                bind :80
            listen two from quiet
                bind :81
            listen three
                bind :82
            listen four
                enabled
                bind :83
        ";
        assert_eq!(summary(text), ["0.0.0.0:80 http", "0.0.0.0:81 http /q", "0.0.0.0:83 tcp"]);
    }

    #[test]
    fn what_listens_for_others_than_clients_is_marked() {
        let text = "
            peers pair
                default-bind ssl crt /etc/p.pem
                bind 10.0.0.1:1024
            log-forward logs
                bind 10.0.0.1:514
            listen odd
                mode spop
                bind :9000
        ";
        assert_eq!(
            summary(text),
            ["10.0.0.1:1024 internal tls", "10.0.0.1:514 internal", "0.0.0.0:9000 internal"]
        );
    }

    #[test]
    fn a_range_of_all_ports_is_cut() {
        let text = "listen a\nbind :1-65535,:1-65535\nbind :1-65535\nbind :80\n";
        let found = binds(text);
        assert_eq!(found.iter().map(|bind| bind.addresses.len()).sum::<usize>(), ADDRESS_LIMIT);
    }

    #[test]
    fn the_published_file_listens_at_two_addresses() {
        let text = include_str!("../../../tests/data/haproxy.cfg");
        assert_eq!(summary(text), ["0.0.0.0:80 http", "0.0.0.0:8090 http"]);
    }

    /// Whatever stands in the file: cut everywhere, and with strange characters in every place.
    #[test]
    fn no_text_makes_it_panic() {
        let text =
            "defaults a\nmode http\nlisten b from a\nbind '*:80',\"[::1]:1-2\" ssl\\\n.if x\n";
        for end in 0..=text.len() {
            binds(&text[..end]);
            for odd in ["\0", "ß", ",", "@", "-", "'", "\\", ":", "[", "$"] {
                binds(&format!("{}{odd}{}", &text[..end], &text[end..]));
            }
        }
    }
}

//! What a HAProxy says of its servers: the answer to `show stat`, a table with the names of its columns
//! in the first line.

use std::collections::{BTreeMap, HashMap};

/// A server as HAProxy has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct SeenServer {
    /// Gets new clients.
    pub takes: bool,
    /// Gets nobody, not even who is kept on it.
    pub is_out: bool,
    pub weight: u32,
    pub active: u64,
    /// Attempts to connect, answers and checks that failed.
    pub failures: u64,
    /// New connections in the last second.
    pub rate: u64,
    /// From clients and to them.
    pub octets: (u64, u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct SeenFrontend {
    pub active: u64,
    pub accepted: u64,
    /// Of a backend: for a server with room.
    pub waiting: u64,
    pub octets: (u64, u64),
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct SeenServers {
    frontends: BTreeMap<String, SeenFrontend>,
    backends: BTreeMap<String, SeenFrontend>,
    servers: BTreeMap<String, BTreeMap<String, SeenServer>>,
}

impl SeenServers {
    pub(super) fn server(&self, section: &str, server: &str) -> Option<SeenServer> {
        self.servers.get(section)?.get(server).copied()
    }

    pub(super) fn frontend(&self, section: &str) -> Option<SeenFrontend> {
        self.frontends.get(section).copied()
    }

    /// What came to it from wherever.
    pub(super) fn backend(&self, section: &str) -> Option<SeenFrontend> {
        self.backends.get(section).copied()
    }

    /// Columns are found by their names, as releases have more and more of them. `None` for what is no
    /// such table.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter(|line| !line.is_empty());
        let names = lines.next()?.strip_prefix("# ")?;
        let columns: HashMap<&str, usize> =
            names.split(',').enumerate().map(|(at, name)| (name, at)).collect();
        let (section, name) = (*columns.get("pxname")?, *columns.get("svname")?);
        let mut seen = Self::default();
        for line in lines {
            let fields: Vec<&str> = line.split(',').collect();
            let field = |name: &str| fields.get(*columns.get(name)?).copied();
            let number = |name| field(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            let (Some(section), Some(name)) = (fields.get(section), fields.get(name)) else {
                continue;
            };
            let clients = || SeenFrontend {
                active: number("scur"),
                accepted: number("stot"),
                waiting: number("qcur"),
                octets: (number("bin"), number("bout")),
            };
            match *name {
                "FRONTEND" => {
                    seen.frontends.insert((*section).to_owned(), clients());
                }
                "BACKEND" => {
                    seen.backends.insert((*section).to_owned(), clients());
                }
                name => {
                    let status = field("status").unwrap_or_default();
                    let is_out = status.starts_with("MAINT");
                    // Of one that is out `weight` is that of the file.
                    let weight = if number("uweight") > 0 { "uweight" } else { "weight" };
                    let server = SeenServer {
                        takes: !is_out && !status.starts_with("DRAIN"),
                        is_out,
                        weight: u32::try_from(number(weight)).unwrap_or(u32::MAX),
                        active: number("scur"),
                        failures: number("econ").saturating_add(number("eresp")),
                        rate: number("rate"),
                        octets: (number("bin"), number("bout")),
                    };
                    let of_section = seen.servers.entry((*section).to_owned()).or_default();
                    of_section.insert(name.to_owned(), server);
                }
            }
        }
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_and_what_is_short_is_nothing() {
        let text = "# pxname,svname,qcur,scur,stot,econ,eresp,status,weight,rate,uweight,bin,bout,\n\
                    www,FRONTEND,,4,9,,,OPEN,,3,,100,2000,\n\
                    www,10.0.0.1:80,0,3,7,1,2,no check,5,6,5,90,1800,\n\
                    www,10.0.0.2:80,0,0,1,0,0,MAINT,5,0,0,0,0,\n\
                    www,10.0.0.3:80,0,0,1,0,0,DRAIN,0,0,0,0,0,\n\
                    www,BACKEND,2,3,8,,,UP,5,,,0,0,\n\nwww,";
        let seen = SeenServers::parse(text).unwrap();
        let frontend = SeenFrontend { active: 4, accepted: 9, waiting: 0, octets: (100, 2000) };
        assert_eq!(seen.frontend("www"), Some(frontend));
        let backend = SeenFrontend { active: 3, accepted: 8, waiting: 2, octets: (0, 0) };
        assert_eq!(seen.backend("www"), Some(backend));
        let one = SeenServer {
            takes: true,
            is_out: false,
            weight: 5,
            active: 3,
            failures: 3,
            rate: 6,
            octets: (90, 1800),
        };
        assert_eq!(seen.server("www", "10.0.0.1:80"), Some(one));
        assert!(seen.server("www", "10.0.0.2:80").unwrap().is_out);
        let drained = seen.server("www", "10.0.0.3:80").unwrap();
        assert!(!drained.takes && !drained.is_out);
        assert_eq!(seen.server("www", "BACKEND"), None);
        for text in ["", "\n", "# a,b\n", "Unknown command", "pxname,svname\n"] {
            assert_eq!(SeenServers::parse(text), None, "{text:?}");
        }
    }
}

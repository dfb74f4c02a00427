//! Which files a haproxy.cfg names: certificates and lists of them, maps, lists of patterns, answers
//! to errors, programs.
//!
//! There are too many keywords that take a path, and more with each release, to list them all. So an
//! absolute path counts wherever it stands, if there is a regular file. A relative one and a
//! directory count only behind the words that are known to take them: `path_beg /opt` is about URLs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::haproxy::text::line::{ConfigLine, lines, words};

/// What stands at a path, links followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PathKind {
    File,
    Directory,
}

/// What a text names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Named {
    /// Regular files and directories that are there, each once, in the order of the text.
    pub paths: Vec<PathBuf>,
    /// Those of them that list certificates, for [`Named::listed`].
    pub lists: Vec<PathBuf>,
    bases: Bases,
}

/// Where relative paths begin; empty is the current directory of the process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Bases {
    any: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    authority: PathBuf,
}

/// What follows a word that takes a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slot {
    /// A file, or all files of a directory.
    Certificate,
    Key,
    Authority,
    /// A list of certificates.
    List,
    Directory,
    File,
}

/// What the configuration `text` of the file `config` names. `kind` says what there is. Without what
/// HAProxy writes, or opens anew each time: its pid file, the state of servers, sockets, logs.
pub(crate) fn named(text: &str, config: &Path, kind: &dyn Fn(&Path) -> Option<PathKind>) -> Named {
    let lines = lines(text);
    let bases = Bases::of(&lines, config);
    let mut found = Finder { kind, seen: BTreeSet::new(), paths: Vec::new() };
    let mut lists = Vec::new();
    for line in lines.iter().filter(|line| !is_left_out(line)) {
        let words: Vec<&str> = line.texts().collect();
        for (at, word) in words.iter().enumerate().skip(1) {
            let slot = slot(&words[..at]);
            if let Some(slot) = slot
                && let Some(path) = found.add(bases.resolve(slot, word), slot)
                && slot == Slot::List
            {
                lists.push(path);
            }
            for piece in pieces(word) {
                found.add(PathBuf::from(piece), Slot::File);
            }
            for piece in maps(word) {
                found.add(bases.resolve(Slot::File, piece), Slot::File);
            }
        }
    }
    Named { paths: found.paths, lists, bases }
}

impl Named {
    /// What the text of one of [`Named::lists`] names: `FILE [OPTIONS] NAMES`, one on each line.
    pub(crate) fn listed(
        &self,
        text: &str,
        kind: &dyn Fn(&Path) -> Option<PathKind>,
    ) -> Vec<PathBuf> {
        let mut found = Finder { kind, seen: BTreeSet::new(), paths: Vec::new() };
        for line in text.lines() {
            let words = words(line);
            let words: Vec<&str> = words
                .iter()
                .map(|word| word.text.trim_matches(['[', ']']))
                .filter(|word| !word.is_empty())
                .collect();
            for (at, word) in words.iter().enumerate() {
                let slot = if at == 0 { Some(Slot::Certificate) } else { slot(&words[..at]) };
                if let Some(slot) = slot {
                    found.add(self.bases.resolve(slot, word), slot);
                }
            }
        }
        found.paths
    }
}

struct Finder<'a> {
    kind: &'a dyn Fn(&Path) -> Option<PathKind>,
    seen: BTreeSet<PathBuf>,
    paths: Vec<PathBuf>,
}

impl Finder<'_> {
    /// Takes it if it is what may stand there, and says which path that is.
    fn add(&mut self, path: PathBuf, slot: Slot) -> Option<PathBuf> {
        if path.as_os_str().is_empty() || path.as_os_str().as_encoded_bytes().contains(&0) {
            return None;
        }
        if self.seen.contains(&path) {
            return Some(path);
        }
        let takes_directory = match slot {
            Slot::Certificate | Slot::Authority | Slot::Directory => true,
            Slot::Key | Slot::List | Slot::File => false,
        };
        match (self.kind)(&path)? {
            PathKind::File => {}
            PathKind::Directory if takes_directory => {}
            PathKind::Directory => return None,
        }
        self.seen.insert(path.clone());
        self.paths.push(path.clone());
        if slot == Slot::Certificate {
            self.add_companions(&path);
        }
        Some(path)
    }

    /// What HAProxy reads beside a certificate without being asked to.
    fn add_companions(&mut self, certificate: &Path) {
        const ENDS: [&str; 7] = [".key", ".ocsp", ".issuer", ".sctl", ".rsa", ".ecdsa", ".dsa"];
        for end in ENDS {
            let mut path = certificate.as_os_str().to_owned();
            path.push(end);
            self.add(PathBuf::from(path), Slot::File);
        }
        // `ssl-load-extra-del-ext`.
        self.add(certificate.with_extension("key"), Slot::File);
    }
}

impl Bases {
    fn of(lines: &[ConfigLine], config: &Path) -> Self {
        let mut bases = Self::default();
        for line in lines {
            let words: Vec<&str> = line.texts().collect();
            match words.as_slice() {
                ["crt-base", path, ..] => bases.certificate = PathBuf::from(path),
                ["key-base", path, ..] => bases.key = PathBuf::from(path),
                ["ca-base", path, ..] => bases.authority = PathBuf::from(path),
                ["default-path", "config", ..] => {
                    bases.any = config.parent().unwrap_or(Path::new("")).to_owned();
                }
                ["default-path", "parent", ..] => {
                    bases.any = config.parent().unwrap_or(Path::new("")).join("..");
                }
                ["default-path", "origin", path, ..] => bases.any = PathBuf::from(path),
                _ => {}
            }
        }
        bases
    }

    fn resolve(&self, slot: Slot, text: &str) -> PathBuf {
        let text = without_type(text);
        if text.is_empty() {
            return PathBuf::new();
        }
        let base = match slot {
            Slot::Certificate => &self.certificate,
            Slot::Key if self.key.as_os_str().is_empty() => &self.certificate,
            Slot::Key => &self.key,
            Slot::Authority => &self.authority,
            Slot::List | Slot::Directory | Slot::File => &self.any,
        };
        // An absolute path replaces what it is joined to.
        self.any.join(base).join(text)
    }
}

/// `opt@PATH` and `file@PATH` without the type of the file, which newer releases tell so.
fn without_type(text: &str) -> &str {
    match text.split_once('@') {
        Some(("opt" | "file", path)) => path,
        Some(_) | None => text,
    }
}

/// What may stand behind these words.
fn slot(before: &[&str]) -> Option<Slot> {
    if let [.., "errorfile", _] = before {
        return Some(Slot::File);
    }
    match *before.last()? {
        "crt" => Some(Slot::Certificate),
        "key" => Some(Slot::Key),
        "crt-list" => Some(Slot::List),
        "errorfiles" | "issuers-chain-path" => Some(Slot::Directory),
        word if word.ends_with("ca-file") || word == "ca-verify-file" || word == "crl-file" => {
            Some(Slot::Authority)
        }
        "-f"
        | "config"
        | "file"
        | "lf-file"
        | "lua-load"
        | "lua-load-per-thread"
        | "ocsp"
        | "issuer"
        | "sctl" => Some(Slot::File),
        word if word.ends_with("-file") => Some(Slot::File),
        _ => None,
    }
}

/// Lines that name what HAProxy writes, or what a change of does not need another process.
fn is_left_out(line: &ConfigLine) -> bool {
    let mut words = line.texts();
    match (words.next().unwrap_or_default(), words.next().unwrap_or_default()) {
        ("stats", second) => second == "socket",
        (
            "pidfile" | "chroot" | "log" | "server-state-base" | "server-state-file" | "stats-file"
            | "shm-stats-file" | "external-check" | "command" | "crt-base" | "ca-base" | "key-base"
            | "default-path" | "unix-bind",
            _,
        ) => true,
        _ => false,
    }
}

/// The absolute paths in a word: it may be one, or an expression that holds some.
fn pieces(word: &str) -> impl Iterator<Item = &str> {
    let ends = |character: char| "()[]{},;='\"`".contains(character) || character.is_whitespace();
    word.split(ends).map(without_type).filter(|piece| piece.len() > 1 && piece.starts_with('/'))
}

/// The first arguments of converters whose name begins with `map`.
fn maps(word: &str) -> impl Iterator<Item = &str> {
    word.match_indices('(').filter_map(|(at, _)| {
        let name = word[..at].rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next()?;
        let (argument, _) = word[at + 1..].split_once([',', ')'])?;
        (name == "map" || name.starts_with("map_")).then_some(argument.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that ends with a slash here is a directory.
    fn there<'a>(paths: &'a [&'a str]) -> impl Fn(&Path) -> Option<PathKind> + 'a {
        move |path| {
            let path = path.to_str()?;
            let is_directory = |one: &&str| one.strip_suffix('/') == Some(path);
            match paths {
                _ if paths.contains(&path) => Some(PathKind::File),
                _ if paths.iter().any(is_directory) => Some(PathKind::Directory),
                _ => None,
            }
        }
    }

    fn found(text: &str, paths: &[&str]) -> Vec<String> {
        let named = named(text, Path::new("/etc/haproxy/haproxy.cfg"), &there(paths));
        named.paths.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn files_are_found_wherever_they_are_named() {
        for (line, path) in [
            ("bind :443 ssl crt /e/site.pem", "/e/site.pem"),
            ("bind :443 ssl crt /e/certs", "/e/certs/"),
            ("bind :443 ssl crt a.pem ca-file /e/ca.pem verify required", "/e/ca.pem"),
            ("bind :443 ssl crt-list /e/list", "/e/list"),
            ("use_backend %[req.hdr(host),lower,map(/e/hosts.map,b1)]", "/e/hosts.map"),
            ("http-request deny if { src -f /e/deny.lst }", "/e/deny.lst"),
            ("http-request deny if { src -f opt@/e/deny.lst }", "/e/deny.lst"),
            ("http-request deny if { src,map_ip(/e/geo.map) -m found }", "/e/geo.map"),
            ("http-request set-map(/e/x.map) %[src] %[req.hdr(x)]", "/e/x.map"),
            ("acl ok req.hdr(host) -i -f \"/e/with blank.lst\"", "/e/with blank.lst"),
            ("errorfile 503 /e/503.http", "/e/503.http"),
            ("errorfiles /e/errors", "/e/errors/"),
            ("lua-load /e/x.lua", "/e/x.lua"),
            ("lua-load-per-thread /e/x.lua argument", "/e/x.lua"),
            ("filter spoe engine e config /e/spoe.cfg", "/e/spoe.cfg"),
            ("http-request return status 200 file /e/page.html", "/e/page.html"),
            ("http-request return lf-string 'a' content-type x if { path /e/y }", "/e/y"),
            ("ssl-dh-param-file /e/dh.pem", "/e/dh.pem"),
            ("global-word some-new-word=/e/x", "/e/x"),
            ("lua-load x.lua", "x.lua"),
            ("use_backend %[req.hdr(host),map(hosts.map,b1)]", "hosts.map"),
        ] {
            assert_eq!(found(line, &[path]), [path.trim_end_matches('/')], "{line}");
            assert!(found(line, &[]).is_empty(), "{line}");
            assert!(found(&format!("# {line}"), &[path]).is_empty(), "{line}");
        }
    }

    #[test]
    fn what_haproxy_writes_or_only_looks_like_a_path_is_left_out() {
        for (line, path) in [
            ("pidfile /e/pid", "/e/pid"),
            ("server-state-file /e/state", "/e/state"),
            ("server-state-base /e", "/e/"),
            ("chroot /e", "/e/"),
            ("stats socket /e/sock mode 660", "/e/sock"),
            ("log /e/log local0", "/e/log"),
            ("external-check command /e/check", "/e/check"),
            ("acl static path_beg /e", "/e/"),
            ("acl static path_end -i etc", "etc"),
            ("use_backend etc if x", "etc"),
            ("server a 10.0.0.1:80 cookie /", "//"),
        ] {
            assert!(found(line, &[path]).is_empty(), "{line}");
        }
    }

    #[test]
    fn relative_paths_begin_at_their_base() {
        let text = "
            global
                crt-base /c
                ca-base /a
            frontend x
                bind :443 ssl crt x.pem crt /d/y.pem ca-file ca.pem crt-list l
            crt-store
                load crt z.pem key z.key
        ";
        let there = ["/c/x.pem", "/d/y.pem", "/a/ca.pem", "l", "/c/z.pem", "/c/z.key"];
        assert_eq!(found(text, &there), there);
        let text = "global\ndefault-path config\nfrontend x\nbind :443 ssl crt x.pem crt-list l\n";
        let there = ["/etc/haproxy/x.pem", "/etc/haproxy/l"];
        assert_eq!(found(text, &there), there);
        let text = "default-path origin /o\nlua-load x.lua";
        assert_eq!(found(text, &["/o/x.lua"]), ["/o/x.lua"]);
    }

    #[test]
    fn a_file_is_named_once_and_certificates_of_a_list_are_found() {
        let text = "crt-base /c\nbind :1 ssl crt-list /l crt a.pem\nbind :2 ssl crt-list /l";
        let there = there(&["/l", "/c/a.pem", "/c/b.pem", "/d/ca.pem"]);
        let named = named(text, Path::new("x"), &there);
        assert_eq!(named.paths, [Path::new("/l"), Path::new("/c/a.pem")]);
        let list = "# all\nb.pem [ca-file /d/ca.pem verify required] *.example\na.pem\nc.pem\n\n";
        let listed = named.listed(list, &there);
        let expected = ["/c/b.pem", "/d/ca.pem", "/c/a.pem"].map(PathBuf::from);
        assert_eq!(listed, expected);
    }

    #[test]
    fn no_text_makes_it_panic() {
        let text = "bind 'ß' crt opt@ crt \"%[src,map(/ß,ß)]\" map( (map(,) errorfile 5\\";
        let all = |_: &Path| Some(PathKind::File);
        for (end, _) in text.char_indices() {
            let named = named(&text[..end], Path::new(""), &all);
            named.listed(&text[end..], &all);
        }
    }
}

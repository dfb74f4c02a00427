//! The content of a HAProxy's file and of everything that it names, so that a renewed certificate is a
//! change like any other.
//!
//! It is looked at whenever a level comes, and there may be a thousand certificates: what has not
//! been touched since it was last read is not read again.

use std::collections::BTreeMap;
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::libc::O_NONBLOCK;
use sha2::{Digest, Sha256};

use crate::haproxy::text::{Bind, PathKind, binds, named};

/// Files that are read. What more there is counts by when it was changed, like what is too long.
const READ_LIMIT: usize = 1_000;

/// Longest file that is read, in octets.
const SIZE_LIMIT: u64 = 16 << 20;

/// Files that count at all: one directory may be anything.
const FILE_LIMIT: usize = 10_000;

/// How often one that changes while it is read is read at once.
const ATTEMPTS: usize = 3;

/// A file that was changed so shortly before it was read may have been changed in the same tick of
/// the file system's clock after that.
const FRESH: Duration = Duration::from_secs(2);

/// What a HAProxy is started from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct FileContent {
    /// Of all of it, in hexadecimal.
    pub digest: String,
    /// Of each file; empty when it was an earlier daemon that read them.
    files: BTreeMap<PathBuf, String>,
    /// Where it listens, likewise.
    pub binds: Vec<Bind>,
}

impl FileContent {
    /// All that is known of what an earlier daemon read.
    pub(super) fn of_digest(digest: String) -> Self {
        Self { digest, ..Self::default() }
    }

    /// Files that are other ones, new or gone in `after`; none when it is not known what they were.
    pub(super) fn changed(&self, after: &Self) -> Vec<PathBuf> {
        if self.files.is_empty() || after.files.is_empty() {
            return Vec::new();
        }
        let differs = |path: &&PathBuf| self.files.get(*path) != after.files.get(*path);
        let gone = self.files.keys().filter(|path| !after.files.contains_key(*path));
        after.files.keys().filter(differs).chain(gone).cloned().collect()
    }
}

/// Reads one HAProxy's files, and remembers what it read.
#[derive(Debug, Default)]
pub(super) struct FileReader {
    known: BTreeMap<PathBuf, Known>,
    /// Something changed while it was read.
    pub is_unsettled: bool,
}

#[derive(Clone, Debug)]
struct Known {
    stamp: Stamp,
    digest: String,
}

/// By which a change is seen without reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileReader {
    /// The present content.
    ///
    /// # Errors
    /// For a person, when the file itself cannot be read. One that it names may be missing or
    /// unreadable: HAProxy has the words for that.
    pub(super) fn read(&mut self, config: &Path) -> Result<FileContent, String> {
        let text = read_text(config)
            .map_err(|error| format!("cannot read {}: {error}", config.display()))?;
        let own = hex::encode(Sha256::digest(&text));
        self.is_unsettled = false;
        let mut before = std::mem::take(&mut self.known);
        let mut files = BTreeMap::from([(config.to_owned(), own.clone())]);
        for path in all_named(&text, config) {
            let Ok(known) = self.look(&path, before.remove(&path)) else { continue };
            files.insert(path.clone(), known.digest.clone());
            self.known.insert(path, known);
        }
        // Alone it is what an earlier release wrote down.
        let digest = if files.len() == 1 { own } else { digest_of_all(&files) };
        Ok(FileContent { digest, files, binds: binds(&String::from_utf8_lossy(&text)) })
    }

    fn look(&mut self, path: &Path, before: Option<Known>) -> io::Result<Known> {
        let stamp = Stamp::of(&fs::metadata(path)?);
        if let Some(known) = before.as_ref().filter(|known| known.stamp == stamp)
            && !stamp.is_fresh()
        {
            return Ok(known.clone());
        }
        if stamp.size > SIZE_LIMIT || self.known.len() >= READ_LIMIT {
            return Ok(Known { stamp, digest: stamp.digest() });
        }
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match read_once(path) {
                Ok((known, true)) => return Ok(known),
                Ok((known, false)) => last = Some(known),
                // It is there, and HAProxy may be allowed to read it.
                Err(_) => return Ok(Known { stamp, digest: stamp.digest() }),
            }
        }
        self.is_unsettled = true;
        // As if it had not been touched, until it can be read as a whole.
        before.or(last).ok_or_else(|| io::ErrorKind::Interrupted.into())
    }
}

/// What was read, and whether nobody wrote to it meanwhile.
fn read_once(path: &Path) -> io::Result<(Known, bool)> {
    // A pipe that has come to its place keeps nobody waiting.
    let mut file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    let before = Stamp::of(&file.metadata()?);
    let mut octets = Vec::new();
    Read::by_ref(&mut file).take(SIZE_LIMIT).read_to_end(&mut octets)?;
    let stamp = Stamp::of(&file.metadata()?);
    let is_whole = before == stamp && stamp.size == octets.len() as u64;
    Ok((Known { stamp, digest: hex::encode(Sha256::digest(&octets)) }, is_whole))
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Changed so lately, or by a clock so wrong, that its equality proves nothing.
    fn is_fresh(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanoseconds) = self.changed;
        let changed = u64::try_from(seconds).ok().zip(u32::try_from(nanoseconds).ok());
        changed.is_none_or(|(seconds, nanoseconds)| {
            now < Duration::new(seconds, nanoseconds).saturating_add(FRESH)
        })
    }

    /// In place of that of what is in it.
    fn digest(&self) -> String {
        let Self { inode, size, modified: (seconds, nanoseconds), .. } = self;
        format!("{inode}:{size}:{seconds}.{nanoseconds:09}")
    }
}

/// The text of a haproxy.cfg, as a whole.
///
/// # Errors
/// When there is no regular file to be read: a pipe in its place keeps nobody waiting.
pub(crate) fn read_text(config: &Path) -> io::Result<Vec<u8>> {
    read_regular(config, u64::MAX)
}

/// What this text names, itself or in a list of certificates; `kind` says what there is. Of a list
/// that is too long what fits, of one that is no regular file nothing.
pub(crate) fn paths_named(
    text: &[u8],
    config: &Path,
    kind: &dyn Fn(&Path) -> Option<PathKind>,
) -> Vec<PathBuf> {
    let named = named(&String::from_utf8_lossy(text), config, kind);
    let mut found = Vec::new();
    for list in &named.lists {
        if let Ok(text) = read_regular(list, SIZE_LIMIT) {
            found.extend(named.listed(&String::from_utf8_lossy(&text), kind));
        }
    }
    found.extend(named.paths);
    found
}

/// At most `limit` octets of it.
fn read_regular(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut octets = Vec::new();
    file.take(limit).read_to_end(&mut octets)?;
    Ok(octets)
}

/// All regular files that this text names: itself or by their directory, or in a list of
/// certificates. Sorted, each once.
fn all_named(text: &[u8], config: &Path) -> Vec<PathBuf> {
    let found = paths_named(text, config, &kind);
    let mut files = Vec::new();
    for path in found {
        match kind(&path) {
            Some(PathKind::File) => files.push(path),
            Some(PathKind::Directory) => {
                let entries = fs::read_dir(&path).into_iter().flatten().flatten();
                let entries = entries.map(|entry| entry.path()).take(FILE_LIMIT);
                files.extend(entries.filter(|path| kind(path) == Some(PathKind::File)));
            }
            None => {}
        }
    }
    files.retain(|path| path != config);
    files.sort();
    files.dedup();
    files.truncate(FILE_LIMIT);
    files
}

fn kind(path: &Path) -> Option<PathKind> {
    match fs::metadata(path).ok()? {
        file if file.is_file() => Some(PathKind::File),
        directory if directory.is_dir() => Some(PathKind::Directory),
        _ => None,
    }
}

fn digest_of_all(files: &BTreeMap<PathBuf, String>) -> String {
    let mut digest = Sha256::new();
    for (path, of_file) in files {
        // Neither holds a NUL.
        for part in [path.as_os_str().as_encoded_bytes(), b"\0", of_file.as_bytes(), b"\0"] {
            digest.update(part);
        }
    }
    hex::encode(digest.finalize())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// Replaced in one step, as every tool that renews certificates does.
        fn write(&self, name: &str, text: &str) {
            fs::write(self.path("draft"), text).unwrap();
            fs::rename(self.path("draft"), self.path(name)).unwrap();
        }

        fn read(&self, reader: &mut FileReader) -> FileContent {
            reader.read(&self.path("haproxy.cfg")).unwrap()
        }
    }

    #[test]
    fn each_named_file_is_a_part_of_the_content() {
        let place = Place::new();
        let directory = place.0.path().display();
        fs::create_dir(place.path("certs")).unwrap();
        for name in ["site.pem", "site.pem.key", "hosts.map", "certs/a.pem", "listed.pem"] {
            fs::write(place.path(name), name).unwrap();
        }
        place.write("list", &format!("{directory}/listed.pem x.example\n"));
        let text = format!(
            "listen a\nbind :1 ssl crt {directory}/site.pem crt {directory}/certs crt-list \
             {directory}/list\nuse_backend %[src,map({directory}/hosts.map)]\n"
        );
        place.write("haproxy.cfg", &text);
        let mut reader = FileReader::default();
        let mut before = place.read(&mut reader);
        assert_eq!(place.read(&mut reader), before);
        for name in [
            "site.pem",
            "site.pem.key",
            "hosts.map",
            "certs/a.pem",
            "certs/new.pem",
            "listed.pem",
            "list",
        ] {
            let text = fs::read_to_string(place.path(name)).unwrap_or_default();
            place.write(name, &(text + "\n# renewed"));
            let after = place.read(&mut reader);
            assert_ne!(after.digest, before.digest, "{name}");
            assert_eq!(before.changed(&after), [place.path(name)]);
            assert!(FileContent::of_digest(before.digest).changed(&after).is_empty());
            before = after;
        }
        fs::remove_file(place.path("hosts.map")).unwrap();
        let after = place.read(&mut reader);
        assert_eq!(before.changed(&after), [place.path("hosts.map")]);
        assert_eq!(after.files.len(), 7, "{after:?}");
    }

    /// In place, so that neither the directory nor the size nor the inode say anything.
    #[test]
    fn a_change_in_the_same_instant_is_seen() {
        let place = Place::new();
        let map = place.path("x.map");
        place.write("haproxy.cfg", &format!("use_backend %[src,map({})]\n", map.display()));
        let mut reader = FileReader::default();
        let mut digests = Vec::new();
        for round in 0..10 {
            fs::write(&map, format!("{round}")).unwrap();
            digests.push(place.read(&mut reader).digest);
        }
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 10);
    }

    #[test]
    fn a_file_that_names_nothing_has_the_digest_of_its_text() {
        let place = Place::new();
        place.write("haproxy.cfg", "abc");
        let content = place.read(&mut FileReader::default());
        assert_eq!(&content.digest[..16], "ba7816bf8f01cfea", "SHA-256 of abc");
        let missing = FileReader::default().read(&place.path("missing")).unwrap_err();
        assert!(missing.starts_with("cannot read "), "{missing}");
    }

    /// Files of /proc are never as long as they say: the same as one that grows meanwhile.
    #[test]
    fn one_that_is_written_to_while_it_is_read_is_what_it_was() {
        let place = Place::new();
        let map = place.path("x.map");
        let point_to = |target: &Path| {
            std::os::unix::fs::symlink(target, place.path("link")).unwrap();
            fs::rename(place.path("link"), &map).unwrap();
        };
        place.write("one", "a b\n");
        point_to(&place.path("one"));
        place.write("haproxy.cfg", &format!("use_backend %[src,map({})]\n", map.display()));
        let mut reader = FileReader::default();
        let before = place.read(&mut reader);
        assert!(!reader.is_unsettled);
        point_to(Path::new("/proc/self/stat"));
        for _ in 0..2 {
            assert_eq!(place.read(&mut reader), before);
            assert!(reader.is_unsettled);
        }
        place.write("two", "c d\n");
        point_to(&place.path("two"));
        let after = place.read(&mut reader);
        assert!(!reader.is_unsettled);
        assert_eq!(before.changed(&after), [map]);
    }

    #[test]
    fn what_is_too_long_or_cannot_be_read_counts_by_its_time() {
        let place = Place::new();
        let (long, pipe) = (place.path("long"), place.path("pipe"));
        File::create(&long).unwrap().set_len(SIZE_LIMIT + 1).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let text = format!("a -f {}\nb -f {}\n", long.display(), pipe.display());
        place.write("haproxy.cfg", &text);
        let mut reader = FileReader::default();
        let before = place.read(&mut reader);
        assert_eq!(before.files.len(), 2, "a pipe is no file");
        File::options().write(true).open(&long).unwrap().set_len(SIZE_LIMIT + 2).unwrap();
        assert_eq!(before.changed(&place.read(&mut reader)), [long]);
    }

    /// Whoever opens a pipe that nobody writes to waits for good.
    #[test]
    fn a_pipe_in_the_place_of_a_file_keeps_nobody_waiting() {
        let place = Place::new();
        let pipe = place.path("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (said, hears) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            // As it looks to somebody who watches for files that are not there yet.
            let kind = |_: &Path| Some(PathKind::File);
            let text = format!("listen a\nbind :1 ssl crt-list {}\n", pipe.display());
            let named = paths_named(text.as_bytes(), &place.path("haproxy.cfg"), &kind);
            said.send((named, FileReader::default().read(&pipe), pipe)).unwrap();
        });
        let (named, read, pipe) = hears.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(named, std::slice::from_ref(&pipe));
        let error = format!("cannot read {}: it is no regular file", pipe.display());
        assert_eq!(read.unwrap_err(), error);
        reader.join().unwrap();
    }

    #[test]
    fn a_list_that_is_no_text_names_what_can_be_read_of_it() {
        let place = Place::new();
        let list = place.path("list");
        fs::write(&list, b"/etc/a.pem\n# \xff\n/etc/b.pem\n").unwrap();
        let text = format!("listen a\nbind :1 ssl crt-list {}\n", list.display());
        let kind = |_: &Path| Some(PathKind::File);
        let named = paths_named(text.as_bytes(), &place.path("haproxy.cfg"), &kind);
        for path in ["/etc/a.pem", "/etc/b.pem"] {
            assert!(named.contains(&PathBuf::from(path)), "{named:?}");
        }
    }
}

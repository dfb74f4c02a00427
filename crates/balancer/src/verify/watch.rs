//! Which directories had a change: files that HAProxy reads are looked at again when they differ,
//! and not all the time.
//!
//! Directories are watched, not files: most files are replaced, and those that are missing may
//! appear.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// Most directories watched: a file may name anything. What is beyond is seen by the slow round.
const DIRECTORY_LIMIT: usize = 512;

/// A name in a directory; without a name all of it.
pub(crate) type Spot = (PathBuf, Option<OsString>);

#[derive(Debug, Default)]
pub(crate) struct Watcher {
    /// `None` before the first directory, or where the kernel gives none.
    inotify: Option<Inotify>,
    watches: Vec<(WatchDescriptor, PathBuf)>,
}

/// What happened since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// More than the kernel could keep.
    is_anything: bool,
    spots: Vec<Spot>,
}

impl Changes {
    pub(crate) fn touch(&self, spots: &[Spot]) -> bool {
        let meets = |(directory, name): &Spot| {
            spots.iter().any(|(of, wanted)| {
                of == directory && (wanted.is_none() || name.is_none() || wanted == name)
            })
        };
        self.is_anything || self.spots.iter().any(meets)
    }
}

impl Watcher {
    /// Watches these directories and no others.
    pub(crate) fn follow<'a>(&mut self, directories: impl Iterator<Item = &'a Path>) {
        let mut wanted: Vec<&Path> = Vec::new();
        for directory in directories {
            if wanted.len() < DIRECTORY_LIMIT && !wanted.contains(&directory) {
                wanted.push(directory);
            }
        }
        let gone = self.watches.iter().filter(|(_, path)| !wanted.contains(&path.as_path()));
        for watch in gone.map(|(watch, _)| *watch).collect::<Vec<_>>() {
            self.forget(watch);
        }
        for path in wanted {
            if !self.watches.iter().any(|(_, watched)| watched == path) {
                self.watch(path);
            }
        }
    }

    fn watch(&mut self, path: &Path) {
        if self.inotify.is_none() {
            self.inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok();
        }
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let Some(inotify) = &self.inotify else { return };
        if let Ok(watch) = inotify.add_watch(path, flags) {
            self.watches.push((watch, path.to_owned()));
        }
    }

    fn forget(&mut self, watch: WatchDescriptor) {
        self.watches.retain(|(of, _)| *of != watch);
        if let Some(inotify) = &self.inotify {
            // Gone already, with its directory.
            let _ = inotify.rm_watch(watch);
        }
    }

    /// Without waiting.
    pub(crate) fn changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        while let Some(events) = self.inotify.as_ref().and_then(|it| it.read_events().ok()) {
            if events.is_empty() {
                break;
            }
            for event in events {
                changes.is_anything |= event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                let watched = self.watches.iter().find(|(watch, _)| *watch == event.wd);
                let Some((_, directory)) = watched.cloned() else { continue };
                let leaves = AddWatchFlags::IN_DELETE_SELF
                    | AddWatchFlags::IN_MOVE_SELF
                    | AddWatchFlags::IN_UNMOUNT
                    | AddWatchFlags::IN_IGNORED;
                if event.mask.intersects(leaves) {
                    // Another one may take its name, which is watched anew.
                    self.forget(event.wd);
                    changes.spots.push((directory, None));
                } else {
                    changes.spots.push((directory, event.name));
                }
            }
        }
        changes
    }
}

/// Where a change of what stands at `path`, or of what a link there leads to, is seen. Of a path
/// that is not there, the nearest directory that is.
pub(crate) fn spots_of(path: &Path) -> Vec<Spot> {
    let mut spots = Vec::new();
    let mut add = |path: &Path| {
        let mut path = path;
        while let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            // One directory has one name here, whatever links lead to it.
            if let Ok(real) = parent.canonicalize() {
                spots.push((real, Some(name.to_owned())));
                return;
            }
            path = parent;
        }
    };
    add(path);
    if let Ok(real) = path.canonicalize() {
        add(&real);
        if real.is_dir() {
            spots.push((real, None));
        }
    }
    spots
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn follow(watcher: &mut Watcher, spots: &[Spot]) {
        watcher.follow(spots.iter().map(|(directory, _)| directory.as_path()));
    }

    #[test]
    fn what_is_written_replaced_removed_or_appears_is_a_change() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let path = root.join("site.pem");
        let spots = spots_of(&path);
        let mut watcher = Watcher::default();
        follow(&mut watcher, &spots);
        let mut changed = || watcher.changes().touch(&spots);
        assert!(!changed());
        fs::write(root.join("other.pem"), "x").unwrap();
        assert!(!changed(), "another file");
        fs::write(&path, "x").unwrap();
        assert!(changed());
        fs::rename(root.join("other.pem"), &path).unwrap();
        assert!(changed());
        fs::read(&path).unwrap();
        assert!(!changed(), "it was only read");
        fs::remove_file(&path).unwrap();
        assert!(changed());
        assert!(!changed());
    }

    #[test]
    fn a_link_is_followed_and_a_directory_that_is_not_there_is_awaited() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir(root.join("archive")).unwrap();
        fs::write(root.join("archive/1.pem"), "x").unwrap();
        symlink("archive/1.pem", root.join("live.pem")).unwrap();
        let mut watcher = Watcher::default();
        let spots = spots_of(&root.join("live.pem"));
        follow(&mut watcher, &spots);
        fs::write(root.join("archive/1.pem"), "y").unwrap();
        assert!(watcher.changes().touch(&spots));
        let missing = root.join("no/such/site.pem");
        let spots = spots_of(&missing);
        assert_eq!(spots, [(root.clone(), Some("no".into()))]);
        follow(&mut watcher, &spots);
        fs::create_dir_all(missing.parent().unwrap()).unwrap();
        assert!(watcher.changes().touch(&spots));
        // A directory that counts as a whole, and that another one replaces.
        let certificates = root.join("certificates");
        fs::create_dir(&certificates).unwrap();
        let spots = spots_of(&certificates);
        follow(&mut watcher, &spots);
        fs::write(certificates.join("new.pem"), "x").unwrap();
        assert!(watcher.changes().touch(&spots));
        fs::rename(&certificates, root.join("old")).unwrap();
        fs::create_dir(&certificates).unwrap();
        assert!(watcher.changes().touch(&spots));
        follow(&mut watcher, &spots);
        assert!(!watcher.changes().touch(&spots));
        fs::write(certificates.join("new.pem"), "x").unwrap();
        assert!(watcher.changes().touch(&spots), "the new one is watched");
    }
}

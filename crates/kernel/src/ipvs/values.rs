//! Settings of IPVS under /proc/sys/net/ipv4/vs, of the network namespace of the calling thread.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The value of a setting, such as `1` or `3 50`, with single spaces.
pub fn value(name: &str) -> io::Result<String> {
    let text = fs::read_to_string(path(name))?;
    Ok(text.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
}

/// The kernel keeps what it had when it refuses the new value.
pub fn set_value(name: &str, value: &str) -> io::Result<()> {
    fs::write(path(name), value)
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys/net/ipv4/vs").join(name)
}

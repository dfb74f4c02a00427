//! Switches of the kernel under /proc/sys.

use std::fs;
use std::path::Path;

/// Whether a switch under /proc/sys is on, as the kernel takes it: by any value but 0. One that is not
/// there is off.
pub fn is_switched_on(path: impl AsRef<Path>) -> bool {
    fs::read(path).is_ok_and(|text| text.first().is_some_and(|digit| *digit != b'0'))
}

//! What this process may not do: whoever takes it over by what a client sends has connections, and
//! nothing else of this host.
//!
//! | layer | what is left |
//! |---|---|
//! | [`files`] (Landlock) | removing what is in the directory of the control socket |
//! | [`privileges`] | ports below 1024, another user than root, nothing new by a program |
//! | [`calls`] (seccomp) | the system calls of sockets, memory and waiting |
//!
//! It is entered once the control socket is there and everything that must be opened is open. A
//! layer that this kernel or whoever started us does not grant is missing, and the others hold: a
//! service that is not served would be worse.

mod calls;
mod files;
mod privileges;

use std::path::Path;

pub use privileges::Account;

/// Confines this thread, which must be the only one. What is missing, a sentence for each.
pub fn enter(socket: &Path, account: Option<Account>) -> Vec<String> {
    let results = [
        files::shut(socket).map_err(|error| format!("files stay open to it: {error}")),
        privileges::drop(account).map_err(|error| format!("it keeps privileges: {error}")),
        // The last one: the others need calls that it refuses.
        calls::restrict().map_err(|error| format!("system calls stay open to it: {error}")),
    ];
    results.into_iter().filter_map(Result::err).collect()
}

//! Who this process is, and what it may do for that.

use std::io;

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
};

/// Ports below 1024: an address may be given to this node, or a service added, at any time.
const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// As whom to go on, by number: names may be known by another host that takes its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Account {
    pub user: u32,
    pub group: u32,
}

impl Account {
    /// From `USER:GROUP`.
    pub fn from_text(text: &str) -> Option<Self> {
        let (user, group) = text.split_once(':')?;
        Some(Self { user: user.parse().ok()?, group: group.parse().ok()? })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    #[error("cannot become user {user}: {error}", user = account.user)]
    Account { account: Account, error: io::Error },
    #[error("cannot give up capabilities: {0}")]
    Capabilities(io::Error),
    #[error("cannot rule out new privileges: {0}")]
    NoNewPrivileges(io::Error),
}

/// From now on this process has [`KEPT`], if it ever had it, and can get no more; it is `account`, or
/// stays who it is without one.
///
/// # Errors
/// The first thing that did not succeed; what could be given up has been.
pub fn drop(account: Option<Account>) -> Result<(), PrivilegesError> {
    let changed = account.map_or(Ok(()), |account| {
        become_account(account).map_err(|error| PrivilegesError::Account { account, error })
    });
    let kept = keep_only(KEPT).map_err(|error| PrivilegesError::Capabilities(error.into()));
    let sealed =
        set_no_new_privs(true).map_err(|error| PrivilegesError::NoNewPrivileges(error.into()));
    changed.and(kept).and(sealed)
}

fn become_account(account: Account) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(account.user), Gid::from_raw(account.group));
    // What is permitted outlives the change of the user; what is in force is set anew afterwards.
    set_keep_capabilities(true)?;
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    Ok(())
}

fn keep_only(kept: CapabilitySet) -> rustix::io::Result<()> {
    // Needs a capability of its own, which many a container lacks; the sets below are what counts.
    for capability in CapabilitySet::all().difference(kept).iter() {
        let _ = remove_capability_from_bounding_set(capability);
    }
    let _ = clear_ambient_capability_set();
    let permitted = capabilities(None)?.permitted.intersection(kept);
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: permitted, permitted, inheritable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_two_numbers() {
        assert_eq!(Account::from_text("65534:7"), Some(Account { user: 65_534, group: 7 }));
        for text in ["", "1", "1:", ":1", "nobody:nogroup", "1:2:3", "-1:2", "4294967296:1"] {
            assert_eq!(Account::from_text(text), None, "{text}");
        }
    }
}

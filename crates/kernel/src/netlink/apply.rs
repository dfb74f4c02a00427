//! Make the kernel hold and not hold addresses.
//!
//! ```text
//!   hold, drop ──► certain? ──no──► dump ──► plan ──► batch of requests ──► answers
//!                     └──────yes────────────►─┘
//! ```
//!
//! A renewal of what the ledger is certain of costs no dump: it happens every second.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use crate::KernelError;
use crate::netlink::AddressSpec;
use crate::netlink::Marked;
use crate::netlink::Monitor;
use crate::netlink::address::Found;
use crate::netlink::address::addition;
use crate::netlink::address::removal;
use crate::netlink::ledger::Holding;
use crate::netlink::ledger::Ledger;
use crate::netlink::link_index;
use crate::netlink::plan::Plan;
use crate::netlink::plan::Step;
use crate::netlink::plan::Wanted;
use crate::netlink::plan::is_certain;
use crate::netlink::plan::plan;
use crate::transport::Message;
use crate::transport::NLM_F_ACK;
use crate::transport::NLM_F_CREATE;
use crate::transport::NLM_F_EXCL;
use crate::transport::NLM_F_REPLACE;
use crate::transport::Request;
use crate::transport::Transport;

/// struct ifaddrmsg, all zero: addresses of every family on every link.
pub(crate) const ALL_ADDRESSES: [u8; 8] = [0; 8];

/// One address that could not be put on or taken off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub interface: Arc<str>,
    pub address: IpAddr,
    pub prefix: u8,
    /// What was being done.
    pub action: Action,
    /// ENODEV when there is no such interface.
    pub error: KernelError,
}

/// What is done to one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It was not there, and is not.
    Add,
    /// It was there and ours, and may run out.
    Renew,
    /// It is still there.
    Remove,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add",
            Self::Renew => "renew",
            Self::Remove => "remove",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, address, prefix, action, error } = self;
        write!(f, "cannot {action} {address}/{prefix} on {interface}: {error}")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Those that failed; all others of the same call were done.
    #[error("{}", list(.0))]
    Addresses(Vec<Failure>),
    /// The netlink socket itself failed: nothing is known about what was done.
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
}

/// Failures for a person, the first few in full.
fn list(failures: &[Failure]) -> String {
    const SHOWN: usize = 3;
    let mut text =
        failures.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if failures.len() > SHOWN {
        text.push_str(&format!("; and {} more", failures.len() - SHOWN));
    }
    text
}

/// Requests to the kernel. Synchronous: the kernel answers a netlink request within the call, so
/// that there is nothing to wait for. Use it from the thread that may take that time.
#[derive(Debug)]
pub struct Netlink {
    transport: Transport,
    ledger: Ledger,
}

impl Netlink {
    /// Opens both sides. The monitor must be made inside a tokio runtime with I/O enabled, and
    /// the two share a memory of what is held: what one `Netlink` drops on purpose is not
    /// reported as lost by its own monitor.
    pub fn connect() -> io::Result<(Self, Monitor)> {
        let transport = Transport::open(NETLINK_ROUTE)?;
        let ledger = Ledger::default();
        let monitor = Monitor::open(ledger.clone(), transport.port())?;
        Ok((Self { transport, ledger }, monitor))
    }

    /// New sockets in place of failed ones. What this process holds is remembered: a kernel before
    /// 5.18 could not tell. The new monitor reports what was lost meanwhile. After an error the old
    /// sockets stay.
    pub fn reconnect(&mut self) -> io::Result<Monitor> {
        let transport = Transport::open(NETLINK_ROUTE)?;
        let monitor = Monitor::open(self.ledger.clone(), transport.port())?;
        self.transport = transport;
        Ok(monitor)
    }

    /// Makes the kernel hold every address of `hold` (added, or renewed when it is ours) and none of
    /// `drop` (removed when it is ours). Applying the same again only renews. An address of `hold`
    /// that is on its interface without our mark is left alone and counts as held, whatever its
    /// prefix length; an address in both lists is held. One failing address does not stop the
    /// others. Where the kernel keeps no marks (before 5.18), what this process added is ours.
    pub fn apply(&mut self, hold: &[AddressSpec], drop: &[AddressSpec]) -> Result<(), ApplyError> {
        let mut indices = Indices::default();
        let mut failures = Vec::new();
        let mut wanted = Vec::with_capacity(hold.len());
        for spec in hold {
            match indices.of(&spec.interface) {
                Ok(index) => wanted.push(Wanted { spec, index }),
                Err(error) => failures.push(failure(spec, spec.prefix, Action::Add, error)),
            }
        }
        // What is on an interface that does not exist is dropped already.
        let unwanted: Vec<_> = drop
            .iter()
            .filter_map(|spec| Some(Wanted { spec, index: indices.of(&spec.interface).ok()? }))
            .collect();

        // Somebody else may add an address between our look and our request: look once more.
        const ROUNDS: usize = 2;
        for round in 1..=ROUNDS {
            let refused = self.round(&wanted, &unwanted, &mut failures)?;
            if refused.is_empty() {
                break;
            }
            for wanted in &refused {
                self.ledger.forget(wanted.key());
                if round == ROUNDS {
                    let error = KernelError::new(Errno::EEXIST);
                    failures.push(failure(wanted.spec, wanted.spec.prefix, Action::Add, error));
                }
            }
            wanted.retain(|wanted| refused.iter().any(|refused| refused.key() == wanted.key()));
        }
        if failures.is_empty() { Ok(()) } else { Err(ApplyError::Addresses(failures)) }
    }

    /// Every address in this network namespace that carries our mark.
    pub fn marked_addresses(&mut self) -> io::Result<Vec<Marked>> {
        let mut names: HashMap<u32, Option<Arc<str>>> = HashMap::new();
        let mut marked = Vec::new();
        for found in addresses(&mut self.transport)?.into_iter().filter(|found| found.marked) {
            // A link that went away since the dump took its addresses with it.
            let name = names.entry(found.index).or_insert_with(|| link_name(found.index));
            let Some(interface) = name.clone() else { continue };
            let Found { address, prefix, valid_seconds, .. } = found;
            marked.push(Marked { interface, address, prefix, valid_seconds });
        }
        Ok(marked)
    }

    /// Looks, plans and acts once. Returns the additions that met an address which was not there
    /// when we looked.
    fn round<'a>(
        &mut self,
        hold: &[Wanted<'a>],
        drop: &[Wanted<'a>],
        failures: &mut Vec<Failure>,
    ) -> io::Result<Vec<Wanted<'a>>> {
        let ledger = self.ledger.clone();
        let known = |key| ledger.get(key);
        let certain = is_certain(hold, known) && is_certain(drop, known);
        let found = if certain { Vec::new() } else { addresses(&mut self.transport)? };
        let Plan { steps, foreign, forgotten } = plan(hold, drop, known, &found);
        for (key, prefix) in foreign {
            ledger.set(key, prefix, Holding::Foreign);
        }
        for key in forgotten {
            ledger.forget(key);
        }
        let others =
            if steps.iter().any(may_cascade) { dump(&mut self.transport)? } else { vec![] };
        let refused = self.execute(&steps, failures)?;
        let added = steps.iter().any(|step| matches!(step, Step::Add(_)));
        if added && !ledger.keeps_marks() {
            self.look_for_marks()?;
        }
        if !others.is_empty() {
            self.restore(&others, &steps)?;
        }
        Ok(refused)
    }

    /// Has the kernel kept the mark of what was just added?
    fn look_for_marks(&mut self) -> io::Result<()> {
        if addresses(&mut self.transport)?.iter().any(|found| found.marked) {
            self.ledger.saw_mark();
        }
        Ok(())
    }

    fn execute<'a>(
        &mut self,
        steps: &[Step<'a>],
        failures: &mut Vec<Failure>,
    ) -> io::Result<Vec<Wanted<'a>>> {
        // Before the kernel is asked: the monitor may see the effect before we see the answer.
        for step in steps {
            match step {
                Step::Add(wanted) | Step::Renew(wanted) => {
                    self.ledger.set(wanted.key(), wanted.spec.prefix, Holding::Ours);
                }
                Step::Remove { wanted, prefix } => {
                    let entry = self.ledger.get(wanted.key());
                    if entry.is_none_or(|entry| entry.prefix == *prefix) {
                        self.ledger.forget(wanted.key());
                    }
                }
            }
        }
        let requests: Vec<_> = steps.iter().map(request).collect();
        let answers = self.transport.exchange(&requests)?;
        let mut refused = Vec::new();
        for (step, answer) in steps.iter().zip(answers) {
            let Some(error) = answer.error else { continue };
            match (step, error.errno()) {
                (Step::Add(wanted), Errno::EEXIST) => refused.push(*wanted),
                (Step::Add(wanted), _) => {
                    self.ledger.forget(wanted.key());
                    failures.push(failure(wanted.spec, wanted.spec.prefix, Action::Add, error));
                }
                (Step::Renew(wanted), _) => {
                    self.ledger.forget(wanted.key());
                    failures.push(failure(wanted.spec, wanted.spec.prefix, Action::Renew, error));
                }
                // Already gone, with or without its link.
                (Step::Remove { .. }, Errno::EADDRNOTAVAIL | Errno::ENODEV) => {}
                (Step::Remove { wanted, prefix }, _) => {
                    failures.push(failure(wanted.spec, *prefix, Action::Remove, error));
                }
            }
        }
        Ok(refused)
    }

    /// With `promote_secondaries` off, the kernel removes every other address of a subnet with the
    /// first one. Those are put back as they were, whoever they belong to.
    fn restore(&mut self, before: &[Message], steps: &[Step<'_>]) -> io::Result<()> {
        let identity = |found: &Found| (found.index, found.address, found.prefix);
        let removed = |found: &Found| {
            steps.iter().any(|step| match step {
                Step::Remove { wanted, prefix } => {
                    (wanted.index, wanted.spec.address, *prefix) == identity(found)
                }
                Step::Add(_) | Step::Renew(_) => false,
            })
        };
        let now = addresses(&mut self.transport)?;
        let mut requests = Vec::new();
        for message in before {
            let Some(found) = Found::parse(&message.body) else { continue };
            let still_there = now.iter().any(|now| identity(now) == identity(&found));
            if found.address.is_ipv4() && !still_there && !removed(&found) {
                tracing::info!(address = %found.address, "putting back an address of the same subnet");
                let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
                let body = message.body.clone();
                requests.push(Request { kind: libc::RTM_NEWADDR, flags, body });
            }
        }
        // One that cannot be put back, because its time is up or somebody was faster, is not ours
        // to insist on; our own ones are renewed with the next application.
        self.transport.exchange(&requests)?;
        Ok(())
    }
}

/// Could the kernel remove more than we ask for? IPv4 addresses with room for others beside them.
fn may_cascade(step: &Step<'_>) -> bool {
    match step {
        Step::Remove { wanted, prefix } => wanted.spec.address.is_ipv4() && *prefix < 32,
        Step::Add(_) | Step::Renew(_) => false,
    }
}

fn request(step: &Step<'_>) -> Request {
    match step {
        Step::Add(wanted) => Request {
            kind: libc::RTM_NEWADDR,
            flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
            body: addition(wanted.spec, wanted.index),
        },
        Step::Renew(wanted) => Request {
            kind: libc::RTM_NEWADDR,
            flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
            body: addition(wanted.spec, wanted.index),
        },
        Step::Remove { wanted, prefix } => Request {
            kind: libc::RTM_DELADDR,
            flags: NLM_F_ACK,
            body: removal(wanted.index, wanted.spec.address, *prefix),
        },
    }
}

fn failure(spec: &AddressSpec, prefix: u8, action: Action, error: KernelError) -> Failure {
    Failure { interface: spec.interface.clone(), address: spec.address, prefix, action, error }
}

fn dump(transport: &mut Transport) -> io::Result<Vec<Message>> {
    Ok(transport.dump(libc::RTM_GETADDR, &ALL_ADDRESSES)??)
}

/// Every address in this network namespace.
pub(crate) fn addresses(transport: &mut Transport) -> io::Result<Vec<Found>> {
    Ok(dump(transport)?.iter().filter_map(|message| Found::parse(&message.body)).collect())
}

fn link_name(index: u32) -> Option<Arc<str>> {
    let name = nix::net::if_::if_indextoname(index).ok()?;
    Some(name.to_string_lossy().into())
}

/// Interface names looked up once per application.
#[derive(Default)]
struct Indices<'a>(HashMap<&'a str, Result<u32, KernelError>>);

impl<'a> Indices<'a> {
    fn of(&mut self, name: &'a str) -> Result<u32, KernelError> {
        let look_up = || {
            link_index(name).map_err(|error| {
                let code = error.raw_os_error().unwrap_or(libc::ENODEV);
                KernelError { code, message: None }
            })
        };
        self.0.entry(name).or_insert_with(look_up).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_action_address_interface_and_the_kernels_words() {
        let failure = |last: u8| Failure {
            interface: "eth0".into(),
            address: IpAddr::from([192, 0, 2, last]),
            prefix: 24,
            action: Action::Add,
            error: KernelError { code: libc::EINVAL, message: Some("bad label".into()) },
        };
        let error = ApplyError::Addresses((1..=5).map(failure).collect());
        let first = "cannot add 192.0.2.1/24 on eth0: invalid argument (bad label)";
        assert!(error.to_string().starts_with(first), "{error}");
        assert!(error.to_string().ends_with("; and 2 more"), "{error}");
    }
}

//! Elect: adverts in, role changes and packets out, for one virtual router.
//!
//! Pure: no clock, no socket, no file, no random number, no log. Time comes in as an argument,
//! actions go out as values.
//!
//! ```text
//!   datagram ──► Router::receive ──► RouterAction (send, announce, changed role)
//!                  │          │
//!               Discard   deadline()
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`settings`] | what an operator fixes about a virtual router |
//! | [`packet`], [`checksum`] | the octets of an advertisement |
//! | [`datagram`] | what a socket delivers, less its IP header |
//! | [`receive`] | the validation pipeline: a datagram becomes `Heard` or a `Discard` reason |
//! | [`discard`] | why a datagram is not accepted |
//! | [`counters`] | how often things happened |
//! | [`frame`] | gratuitous ARP and unsolicited neighbour advertisement frames |
//! | [`timers`] | how long a backup waits, and a master that gives up |
//! | [`router`] | the state machine |
//! | [`role`] | what a router is, and why |
//! | [`report`] | what RFC 8347 reports of a router |
//! | [`announce`] | when to announce the addresses of a master |
//! | [`time`] | a point in time without a clock |

pub mod announce;
pub mod checksum;
pub mod counters;
pub mod datagram;
pub mod discard;
pub mod frame;
pub mod packet;
pub mod receive;
pub mod report;
pub mod role;
pub mod router;
pub mod settings;
pub mod time;
pub mod timers;

pub use counters::Counters;
pub use datagram::Datagram;
pub use discard::Discard;
pub use receive::{Accepted, Heard};
pub use report::{LastEvent, LinkCondition, NewMasterReason, RouterReport};
pub use role::{Cause, HeldBack, Role};
pub use router::{Router, RouterAction, RouterEvent};
pub use settings::{
    AnnounceSettings, Auth, ChecksumForm, ChecksumMode, Family, Fitness, Interval, Preempt,
    Priority, Profile, RouterSettings, Transport, UnicastPeer, Version, Vrid,
};
pub use time::Time;

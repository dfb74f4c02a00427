//! What few instances have to remember of their facts.

use std::ops::Deref;

use locum_vrrp::Time;

use super::fact::{Fact, Removal};
use super::refused::RefusedFacts;

/// What is out of the ordinary: refusals, repairs, what has to go.
#[derive(PartialEq, Debug)]
pub struct Exceptions {
    /// Refused while others are in place; empty when all are, or none is.
    pub refused: RefusedFacts,
    /// Found at start under our mark: to be removed with the next level, unless it wants them.
    pub inherited: Vec<Fact>,
    pub unwanted: Unwanted,
    /// Removals the kernel has not confirmed; each level asks for them again.
    pub withdrawals: Vec<Withdrawal>,
    pub failed_withdrawals: u32,
    /// Refusals of everything in a row.
    pub refusals: u32,
    /// When pending withdrawals are tried again.
    pub retry_at: Option<Time>,
    pub heal_at: Option<Time>,
    pub healed_at: Option<Time>,
    pub pause: Option<Pause>,
}

/// Facts that are there and must not be, whoever put them there.
#[derive(PartialEq, Debug)]
pub struct Unwanted {
    /// With whether it may be removed.
    pub facts: Vec<(Fact, bool)>,
    /// When to remove them.
    pub at: Option<Time>,
    pub removed_at: Option<Time>,
}

/// A removal that was asked for.
#[derive(PartialEq, Debug)]
pub struct Withdrawal {
    pub removal: Removal,
    /// The kernel's words, once it has refused.
    pub error: Option<String>,
}

/// All facts were refused.
#[derive(PartialEq, Debug)]
pub struct Pause {
    pub error: String,
    pub until: Time,
}

/// The exceptions of one instance. As a rule there are none, which takes no room: on a large node
/// thousands have none. They read as if they were always there.
#[derive(Debug, Default)]
pub struct Rare(Option<Box<Exceptions>>);

const fn none() -> Exceptions {
    Exceptions {
        refused: RefusedFacts::new(),
        inherited: Vec::new(),
        unwanted: Unwanted { facts: Vec::new(), at: None, removed_at: None },
        withdrawals: Vec::new(),
        failed_withdrawals: 0,
        refusals: 0,
        retry_at: None,
        heal_at: None,
        healed_at: None,
        pause: None,
    }
}

static NONE: Exceptions = none();

impl Rare {
    /// To change them, if there are any.
    pub fn get_mut(&mut self) -> Option<&mut Exceptions> {
        self.0.as_deref_mut()
    }

    /// To add to them.
    pub fn make(&mut self) -> &mut Exceptions {
        self.0.get_or_insert_with(|| Box::new(none()))
    }

    /// Forgets what is over.
    pub fn tidy(&mut self) {
        self.0.take_if(|all| **all == NONE);
    }
}

impl Deref for Rare {
    type Target = Exceptions;

    fn deref(&self) -> &Exceptions {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

//! How many connections each client address has with one service.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use crate::protocol::SourceStatus;

#[derive(Debug, Default)]
pub struct SourceCounts(RefCell<HashMap<IpAddr, u32>>);

impl SourceCounts {
    /// One more of this address, unless it has `most` already.
    pub fn enter(self: &Rc<Self>, address: IpAddr, most: Option<u32>) -> Option<Visit> {
        let address = address.to_canonical();
        let mut counts = self.0.borrow_mut();
        let count = counts.get(&address).copied().unwrap_or(0);
        if most.is_some_and(|most| count >= most) {
            return None;
        }
        counts.insert(address, count + 1);
        Some(Visit { sources: self.clone(), address })
    }

    /// The address with the most connections.
    pub fn busiest(&self) -> Option<SourceStatus> {
        let counts = self.0.borrow();
        let (address, active) =
            counts.iter().max_by_key(|(address, count)| (**count, **address))?;
        Some(SourceStatus { address: *address, active: u64::from(*active) })
    }
}

/// A connection of an address.
#[derive(Debug)]
pub struct Visit {
    sources: Rc<SourceCounts>,
    address: IpAddr,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut counts = self.sources.0.borrow_mut();
        match counts.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(counts.remove(&self.address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_has_all_it_may_enters_again_once_one_has_left() {
        let sources = Rc::new(SourceCounts::default());
        let enter = |text: &str| sources.enter(text.parse().unwrap(), Some(2));
        let held = [enter("192.0.2.1").unwrap(), enter("::ffff:192.0.2.1").unwrap()];
        assert!(enter("192.0.2.1").is_none());
        let _other = enter("2001:db8::1").unwrap();
        let busiest = sources.busiest().unwrap();
        assert_eq!((busiest.address.to_string(), busiest.active), ("192.0.2.1".to_owned(), 2));
        drop(held);
        assert_eq!(sources.0.borrow().len(), 1, "nothing is kept of who left");
        assert!(enter("192.0.2.1").is_some());
    }
}

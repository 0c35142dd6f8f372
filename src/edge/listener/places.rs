//! The places of a listener: how many connections are open, and how many of them come from one address.
//!
//! Owns: both counts. Must never: let one address have every place, or keep a place that was given back.
//! Look next: `super`, which gives a place to each connection; `limits`, the bounds.

use crate::limits;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All places of a listener.
#[derive(Debug)]
pub(super) struct Places {
    all: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    /// So many, all free.
    pub(super) fn new(all: usize) -> Arc<Self> {
        Arc::new(Self { all, taken: Mutex::default() })
    }

    /// A place for a connection from this address; nothing where all are taken, or too many by this address.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut taken = self.taken();
        let theirs = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.all >= self.all || theirs >= self.of_address() {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, theirs + 1);
        Some(Place { places: Arc::clone(self), address })
    }

    fn of_address(&self) -> usize {
        (self.all * limits::CONNECTIONS_OF_ADDRESS_QUARTERS).div_ceil(4)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all = taken.all.saturating_sub(1);
        let left = taken.by_address.get(&self.address).map_or(0, |theirs| theirs.saturating_sub(1));
        if left == 0 {
            taken.by_address.remove(&self.address);
        } else {
            taken.by_address.insert(self.address, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn one_address_never_has_every_place() {
        let places = Places::new(8);
        let mut held: Vec<Place> = std::iter::from_fn(|| places.take(address(1))).take(9).collect();
        assert_eq!(held.len(), 6);
        let mapped = IpAddr::V6(std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert!(places.take(mapped).is_none(), "the same address, written as IPv6");
        let others: Vec<Place> = std::iter::from_fn(|| places.take(address(2))).take(9).collect();
        assert_eq!(others.len(), 2);
        assert!(places.take(address(3)).is_none(), "all are taken");
        held.pop();
        assert!(places.take(address(3)).is_some());
    }

    #[test]
    fn what_is_given_back_is_forgotten() {
        let places = Places::new(2);
        drop((places.take(address(1)), places.take(address(2))));
        assert_eq!(places.taken().all, 0);
        assert!(places.taken().by_address.is_empty());
    }
}

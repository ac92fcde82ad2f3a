//! How many connections each address has: none gets all there are.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
};

/// The connections of each address. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub(super) struct Peers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    each_max: NonZeroU32,
    /// As many entries as there are connections, at most.
    counts: Mutex<BTreeMap<IpAddr, u32>>,
}

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    peers: Peers,
    address: IpAddr,
}

impl Peers {
    /// Nobody is connected; each address may have so many.
    pub(super) fn new(each_max: NonZeroU32) -> Self {
        Self(Arc::new(Inner { each_max, counts: Mutex::default() }))
    }

    /// Counts a connection; `None` if the address has as many as it may.
    pub(super) fn sit(&self, address: IpAddr) -> Option<Seat> {
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_insert(0);
        if *count >= self.0.each_max.get() {
            return None;
        }
        *count += 1;
        Some(Seat { peers: self.clone(), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.peers.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = counts.get_mut(&self.address) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_and_leaves_the_rest_to_others() {
        let peers = Peers::new(NonZeroU32::new(2).unwrap());
        let address = |last| IpAddr::from([192, 0, 2, last]);
        let (first, _second) = (peers.sit(address(1)), peers.sit(address(1)));
        assert!(first.is_some() && peers.sit(address(1)).is_none());
        let other = peers.sit(address(2));
        assert!(other.is_some());
        drop((first, other));
        assert!(peers.sit(address(1)).is_some());
        assert_eq!(peers.0.counts.lock().unwrap().len(), 1, "who is gone is forgotten");
    }
}

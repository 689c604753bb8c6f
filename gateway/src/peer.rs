//! Who is at the other end, by address: what is shared by all is not taken by one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// One address, with what it holds of the gateway.
#[derive(Debug)]
pub struct Peer {
    addr: IpAddr,
    connections: AtomicUsize,
    /// Calls under way.
    pub calls: Amount,
    /// Bytes of its bodies that are kept.
    pub kept: Amount,
    /// Answers whose reader does not read.
    pub unread: Amount,
}

impl Peer {
    pub fn new(addr: IpAddr) -> Self {
        let connections = AtomicUsize::new(0);
        let (calls, kept, unread) = Default::default();
        Self { addr, connections, calls, kept, unread }
    }

    pub const fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A part of something that all share, held by one address.
///
/// Whoever holds an eighth of the whole leaves the last eighth to others: so one address alone has at most seven of eight.
#[derive(Debug, Default)]
pub struct Amount(AtomicUsize);

impl Amount {
    /// Takes so many out of `all`, of which there are `most`. Whether they were there.
    pub fn take(&self, many: usize, all: &AtomicUsize, most: usize) -> bool {
        let left_to_others = most / 8;
        let own = self.0.load(Ordering::Relaxed).saturating_add(many);
        let most = if own > left_to_others { most - left_to_others } else { most };
        let more = |used: usize| used.checked_add(many).filter(|sum| *sum <= most);
        // Two at once may both pass the look at their own part, which makes it larger by one of them.
        if all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return false;
        }
        self.0.fetch_add(many, Ordering::Relaxed);
        true
    }

    /// Gives so many back.
    pub fn give(&self, many: usize, all: &AtomicUsize) {
        self.0.fetch_sub(many, Ordering::Relaxed);
        all.fetch_sub(many, Ordering::Relaxed);
    }
}

/// The addresses that have a connection.
#[derive(Debug, Default)]
pub struct Peers(Mutex<HashMap<IpAddr, Weak<Peer>>>);

impl Peers {
    pub fn of(&self, addr: IpAddr) -> Arc<Peer> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = known.get(&addr).and_then(Weak::upgrade) {
            return peer;
        }
        // As many as there are connections, and as many again at most.
        if known.len() == known.capacity() {
            known.retain(|_, peer| peer.strong_count() > 0);
        }
        let peer = Arc::new(Peer::new(addr));
        known.insert(addr, Arc::downgrade(&peer));
        peer
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_address_leaves_an_eighth_to_others() {
        let (all, one, two) = (AtomicUsize::new(0), Amount::default(), Amount::default());
        let took = (0..100).filter(|_| one.take(1, &all, 64)).count();
        assert_eq!(took, 56);
        assert_eq!((0..100).filter(|_| two.take(1, &all, 64)).count(), 8);
        assert!(!one.take(1, &all, 64) && !two.take(1, &all, 64), "it is full");
        one.give(56, &all);
        assert_eq!((0..100).filter(|_| two.take(1, &all, 64)).count(), 48);
        // Of few there is no eighth.
        let (few, alone) = (AtomicUsize::new(0), Amount::default());
        assert_eq!((0..9).filter(|_| alone.take(1, &few, 3)).count(), 3);
    }

    proptest! {
        #[test]
        fn the_whole_is_the_sum_and_never_exceeded(
            most in 1_usize..200,
            steps in prop::collection::vec((0_usize..4, 1_usize..40, any::<bool>()), 1..200),
        ) {
            let all = AtomicUsize::new(0);
            let owns: [Amount; 4] = Default::default();
            let mut held: Vec<Vec<usize>> = vec![Vec::new(); 4];
            for (who, many, gives) in steps {
                let given = if gives { held[who].pop() } else { None };
                match given {
                    Some(many) => owns[who].give(many, &all),
                    None if owns[who].take(many, &all, most) => held[who].push(many),
                    None => {}
                }
                let sum: usize = held.iter().flatten().sum();
                prop_assert!(sum <= most);
                prop_assert_eq!(all.load(Ordering::Relaxed), sum);
            }
        }
    }

    #[test]
    fn an_address_is_one_peer_as_long_as_it_has_a_connection() {
        let peers = Peers::default();
        let addr = IpAddr::from([127, 0, 0, 1]);
        let one = peers.of(addr);
        assert!(Arc::ptr_eq(&one, &peers.of(addr)));
        drop(one);
        for n in 0..10_000_u32 {
            peers.of(IpAddr::from(n.to_be_bytes()));
        }
        assert!(peers.0.lock().unwrap().len() < 1000, "those that left are forgotten");
    }
}

//! Who may connect now: places, so that whoever is no member cannot take those of members.
//!
//! Until its handshake has proven it a member, a connection counts with all others of its address, of which there may be a few
//! only; and if that address is no node's, with all of strangers. So one who floods this machine takes his own places, and,
//! with a node's address that is free, that node's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections at a time; more are closed at once.
const CONNECTIONS: usize = 128;
/// Of those, from one address, that have not proven to be a member's.
const UNPROVEN: usize = 32;
/// Of those, from addresses that are no node's: as many machines as may ask to join, and some that begin.
const STRANGERS: usize = super::ASKING + 16;

const _: () = assert!(STRANGERS + UNPROVEN < CONNECTIONS);

/// All places.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    strangers: usize,
    unproven: BTreeMap<IpAddr, usize>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    /// From where, until it is proven a member's.
    from: Option<IpAddr>,
    stranger: bool,
}

impl Places {
    /// A place for a connection from there, which is a node's address or a stranger's; `None` if there is none left.
    pub(super) fn take(self: &Arc<Self>, from: IpAddr, stranger: bool) -> Option<Place> {
        let mut taken = self.taken();
        let unproven = taken.unproven.get(&from).copied().unwrap_or(0);
        if taken.all >= CONNECTIONS || unproven >= UNPROVEN || (stranger && taken.strangers >= STRANGERS) {
            return None;
        }
        taken.all += 1;
        taken.strangers += usize::from(stranger);
        taken.unproven.insert(from, unproven + 1);
        Some(Place { places: Arc::clone(self), from: Some(from), stranger })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// It is a member's.
    pub(super) fn proven(&mut self) {
        let Some(from) = self.from.take() else { return };
        let mut taken = self.places.taken();
        taken.strangers -= usize::from(std::mem::take(&mut self.stranger));
        let left = taken.unproven.get(&from).map_or(0, |count| count - 1);
        if left == 0 {
            taken.unproven.remove(&from);
        } else {
            taken.unproven.insert(from, left);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.proven();
        self.places.taken().all -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> IpAddr {
        IpAddr::from([10, 77, 0, last])
    }

    fn all(places: &Arc<Places>, from: impl Iterator<Item = u8>, stranger: bool) -> Vec<Place> {
        from.filter_map(|last| places.take(at(last), stranger)).collect()
    }

    #[test]
    fn strangers_leave_room_for_members() {
        let places = Arc::default();
        let strangers = all(&places, (0..200).map(|n| 100 + n % 50), true);
        assert_eq!(strangers.len(), STRANGERS);
        let mut members = all(&places, (0..200).map(|n| 1 + n % 4), false);
        assert_eq!(members.len(), CONNECTIONS - STRANGERS);
        members.truncate(1);
        members.iter_mut().for_each(Place::proven);
        assert!(places.take(at(240), true).is_none());
        drop(strangers);
        assert!(places.take(at(240), true).is_some());
    }

    #[test]
    fn one_address_takes_its_own_places_until_it_is_proven() {
        let places = Arc::default();
        let mut here = all(&places, std::iter::repeat_n(1, 100), false);
        assert_eq!(here.len(), UNPROVEN);
        assert!(places.take(at(1), false).is_none() && places.take(at(2), false).is_some());
        here.iter_mut().for_each(Place::proven);
        assert_eq!(all(&places, std::iter::repeat_n(1, 100), false).len(), UNPROVEN);
        drop(here);
        let taken = places.taken();
        assert_eq!((taken.all, taken.strangers, taken.unproven.len()), (0, 0, 0));
    }
}

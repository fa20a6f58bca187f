//! Who may connect now: places, so that whoever is no member cannot take those of members.
//!
//! Until its handshake has proven it a member, a connection counts with all others of its address, of which there may be a few
//! only; and if that address is no node's, with all of strangers. So one who floods this machine takes his own places, and,
//! with a node's address that is free, that node's. A member that finds none is told so, as long as there are some for that.
//! A connection that has been proven lasts as long as its address is a node's: who is removed is hung up on.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster::limits;
use rustix::process::{Resource, Rlimit, setrlimit};

/// Network disks that a node's kernel can have: the parameter `nbds_max` in `image/image.toml`.
const DISKS: usize = 32;
/// Connections at a time that are served: every disk of every node, twice, because a node connects anew before it is noticed
/// that its old connection is dead; what is answered soon; and strangers. An idle one has touched little of its 320 KiB of
/// buffers; all of them together stay below 400 MB whatever they do, and `nbd-server` has a process for each disk.
pub(super) const CONNECTIONS: usize = limits::NODES * DISKS * 2 + 64 + STRANGERS;
/// Connections beyond these that are told so; more are closed at once.
const TOLD: usize = 16;
/// Of all, from one address, that have not proven to be a member's: a node that connects all of its disks anew.
const UNPROVEN: usize = DISKS + 8;
/// Of those, from addresses that are no node's: as many machines as may ask to join, and some that begin.
const STRANGERS: usize = super::ASKING + 16;

/// Files that this process may have open: a disk that is served takes ten.
const FILES: u64 = 16 * 1024;

const _: () = assert!((CONNECTIONS + TOLD) * 10 < 16 * 1024 - 100);

/// Lets this process open as many files as it may need.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn raise_files() -> io::Result<()> {
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(FILES), maximum: Some(FILES) })?)
}

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    /// How many are served.
    served: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    strangers: usize,
    unproven: BTreeMap<IpAddr, usize>,
    /// Those of members, by their numbers.
    proven: BTreeMap<u64, (IpAddr, TcpStream)>,
    /// The number of the next one.
    next: u64,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    from: IpAddr,
    /// Its number, when it is proven to be a member's.
    proven: Option<u64>,
    stranger: bool,
    /// Whether it is one too many.
    over: bool,
}

impl Places {
    /// So many are served.
    pub(super) fn new(served: usize) -> Arc<Self> {
        Arc::new(Self { served, taken: Mutex::default() })
    }

    /// A place for a connection from there, which is a node's address or a stranger's; `None` if there is none left.
    pub(super) fn take(self: &Arc<Self>, from: IpAddr, stranger: bool) -> Option<Place> {
        let mut taken = self.taken();
        let unproven = taken.unproven.get(&from).copied().unwrap_or(0);
        if taken.all >= self.served + TOLD || unproven >= UNPROVEN || (stranger && taken.strangers >= STRANGERS) {
            return None;
        }
        let over = taken.all >= self.served;
        taken.all += 1;
        taken.strangers += usize::from(stranger);
        taken.unproven.insert(from, unproven + 1);
        Some(Place { places: Arc::clone(self), from, proven: None, stranger, over })
    }

    /// Hangs up on whoever was proven to be a member and has an address that is no node's any more.
    pub(super) fn keep(&self, is_a_nodes: impl Fn(IpAddr) -> bool) {
        for (_, connection) in self.taken().proven.values().filter(|(from, _)| !is_a_nodes(*from)) {
            // It may have ended by itself.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Why whoever has it is not served: it is one too many.
    pub(super) fn refusal(&self) -> Option<String> {
        let text = || format!("it serves {} connections already, and no more at a time", self.places.served);
        self.over.then(text)
    }

    /// It is a member's, over this connection.
    pub(super) fn proven(&mut self, connection: TcpStream) {
        let mut taken = self.places.taken();
        taken.no_longer_unproven(self.from, std::mem::take(&mut self.stranger));
        let number = taken.next;
        taken.next += 1;
        taken.proven.insert(number, (self.from, connection));
        self.proven = Some(number);
    }
}

impl Taken {
    fn no_longer_unproven(&mut self, from: IpAddr, stranger: bool) {
        self.strangers -= usize::from(stranger);
        let left = self.unproven.get(&from).map_or(0, |count| count - 1);
        if left == 0 {
            self.unproven.remove(&from);
        } else {
            self.unproven.insert(from, left);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        match self.proven {
            Some(number) => drop(taken.proven.remove(&number)),
            None => taken.no_longer_unproven(self.from, self.stranger),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn at(last: u8) -> IpAddr {
        IpAddr::from([10, 77, 0, last])
    }

    /// A connection, and its other end.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, far)
    }

    fn proven(place: &mut Place) {
        place.proven(connection().0);
    }

    fn all(places: &Arc<Places>, from: impl Iterator<Item = u8>, stranger: bool) -> Vec<Place> {
        from.filter_map(|last| places.take(at(last), stranger)).collect()
    }

    #[test]
    fn strangers_leave_room_for_members() {
        let places = Places::new(128);
        let strangers = all(&places, (0..200).map(|n| 100 + n % 50), true);
        assert_eq!(strangers.len(), STRANGERS);
        let mut members = all(&places, (0..200).map(|n| 1 + n % 8), false);
        assert_eq!(members.len(), 128 + TOLD - STRANGERS);
        members.truncate(1);
        members.iter_mut().for_each(proven);
        assert!(places.take(at(240), true).is_none());
        drop(strangers);
        assert!(places.take(at(240), true).is_some());
    }

    #[test]
    fn one_address_takes_its_own_places_until_it_is_proven() {
        let places = Places::new(CONNECTIONS);
        let mut here = all(&places, std::iter::repeat_n(1, 100), false);
        assert_eq!(here.len(), UNPROVEN);
        assert!(places.take(at(1), false).is_none() && places.take(at(2), false).is_some());
        here.iter_mut().for_each(proven);
        assert_eq!(all(&places, std::iter::repeat_n(1, 100), false).len(), UNPROVEN);
        drop(here);
        let taken = places.taken();
        assert_eq!((taken.all, taken.strangers, taken.unproven.len(), taken.proven.len()), (0, 0, 0, 0));
    }

    #[test]
    fn who_is_no_node_any_more_is_hung_up_on_and_nobody_else() {
        let places = Places::new(CONNECTIONS);
        let mut here = all(&places, [1, 1, 2, 3].into_iter(), false);
        let mut far = Vec::new();
        for place in &mut here[..3] {
            let (near, other) = connection();
            place.proven(near);
            far.push(other);
        }
        places.keep(|from| from == at(2));
        for far in &mut far[..2] {
            assert_eq!(far.read(&mut [0]).unwrap(), 0);
        }
        far[2].set_nonblocking(true).unwrap();
        assert_eq!(far[2].read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn every_disk_of_every_node_has_a_place_and_who_has_none_is_told() {
        let parameter = format!("nbds_max={DISKS}");
        assert!(include_str!("../../../image/image.toml").contains(&parameter), "{parameter}");
        raise_files().unwrap();
        let places = Places::new(CONNECTIONS);
        let mut members = Vec::new();
        let mut take = |count: usize| {
            for number in 0..count {
                let mut place = places.take(at(u8::try_from(number % limits::NODES).unwrap()), false).unwrap();
                proven(&mut place);
                members.push(place);
            }
        };
        take(limits::NODES * DISKS * 2);
        take(CONNECTIONS - limits::NODES * DISKS * 2);
        assert!(members.iter().all(|place| place.refusal().is_none()));
        let mut over: Vec<Place> = (0..TOLD).map(|_| places.take(at(1), false).unwrap()).collect();
        assert!(over.iter().all(|place| place.refusal().is_some()));
        assert!(places.take(at(2), false).is_none());
        over.clear();
        members.pop();
        assert!(places.take(at(1), false).unwrap().refusal().is_none());
    }
}

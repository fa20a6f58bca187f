//! What is going to happen, soonest first; of what happens at the same instant, in the order in which it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use cluster::words::Instant;

use super::Happening;

/// Happenings are large, and most of the simulator's work is to put them in order: only their places are moved about.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    places: Vec<Option<Happening>>,
    free: Vec<usize>,
}

impl Queue {
    /// Plans something; it is the `nth` thing that was planned.
    pub(super) fn put(&mut self, when: Instant, nth: u64, happening: Happening) {
        let place = self.free.pop().unwrap_or(self.places.len());
        match self.places.get_mut(place) {
            Some(empty) => *empty = Some(happening),
            None => self.places.push(Some(happening)),
        }
        self.order.push(Reverse((when, nth, place)));
    }

    /// Takes out what happens next, if that is not later than `end`.
    pub(super) fn next(&mut self, end: Instant) -> Option<(Instant, Happening)> {
        let Reverse((when, _, place)) = *self.order.peek().filter(|Reverse((when, _, _))| *when <= end)?;
        self.order.pop();
        self.free.push(place);
        Some((when, self.places.get_mut(place)?.take()?))
    }
}

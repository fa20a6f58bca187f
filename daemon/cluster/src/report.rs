//! The list of a node's domains, told in parts that fit a heartbeat each.
//!
//! A list has a number, and its parts say of how many they are; a heartbeat carries one part. What counts of a peer is its
//! last list of which every part has come. A list that fits one part, as most do, is told anew with every heartbeat.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::words::VmName;

/// A VM of which a node's Xen has a domain, and whether that runs.
pub(crate) type Told = (VmName, bool);

/// One part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The list's number; each list of an identity has a higher one.
    number: u64,
    /// Which part this is, from 0.
    part: u8,
    /// Of how many.
    parts: u8,
    domains: Vec<Told>,
}

/// Tells this node's list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Telling {
    number: u64,
    rest: VecDeque<Part>,
}

impl Telling {
    /// The next part; when a list was told to its end, the first part of a new one.
    pub(crate) fn next(&mut self, list: impl FnOnce() -> Vec<Told>) -> Part {
        if self.rest.is_empty() {
            self.number = self.number.saturating_add(1);
            self.rest = divide(self.number, list());
        }
        self.rest.pop_front().unwrap_or_default()
    }
}

/// Fills part after part. A list that would need more parts than there may be is cut: no Xen runs that many domains.
fn divide(number: u64, list: Vec<Told>) -> VecDeque<Part> {
    let mut divided = vec![Vec::new()];
    let mut room = limits::LIST_BYTES;
    for told in list {
        // As postcard writes it: a byte for the name's length, the name, a byte for whether it runs.
        let bytes = told.0.as_str().len() + 2;
        if bytes > room {
            divided.push(Vec::new());
            room = limits::LIST_BYTES;
        }
        room -= bytes;
        divided.last_mut().into_iter().for_each(|part| part.push(told.clone()));
    }
    divided.truncate(usize::from(limits::LIST_PARTS));
    let parts = u8::try_from(divided.len()).unwrap_or(limits::LIST_PARTS);
    (0..).zip(divided).map(|(part, domains)| Part { number, part, parts, domains }).collect()
}

/// Gathers a peer's list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gathering {
    number: u64,
    parts: u8,
    came: BTreeMap<u8, Vec<Told>>,
    complete: Option<Vec<Told>>,
}

impl Gathering {
    /// A part has come. One of an older list, or one that cannot be, changes nothing.
    pub(crate) fn take(&mut self, part: &Part) {
        if part.number > self.number && part.parts <= limits::LIST_PARTS {
            self.number = part.number;
            self.parts = part.parts;
            self.came.clear();
        }
        if part.number != self.number || part.parts != self.parts || part.part >= self.parts {
            return;
        }
        self.came.insert(part.part, part.domains.clone());
        if self.came.len() == usize::from(self.parts) {
            self.complete = Some(self.came.values().flatten().cloned().collect());
        }
    }

    /// The last list that is complete.
    pub(crate) fn list(&self) -> Option<&[Told]> {
        self.complete.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(count: usize) -> Vec<Told> {
        let name = |n: usize| VmName::new(&format!("{n:0width$}", width = limits::VM_NAME_BYTES)).unwrap();
        (0..count).map(|n| (name(n), n % 2 == 0)).collect()
    }

    #[test]
    fn the_longest_list_comes_whole_in_any_order() {
        let all = list(limits::VMS);
        let parts = divide(1, all.clone());
        assert_eq!(parts.len(), 9);
        let mut gathering = Gathering::default();
        for part in parts.iter().rev() {
            assert_eq!(gathering.list(), None, "the first list is not complete");
            gathering.take(part);
            gathering.take(part);
        }
        assert_eq!(gathering.list(), Some(&all[..]));
    }

    #[test]
    fn a_list_that_is_not_complete_leaves_the_last_one() {
        let (old, new) = (divide(1, list(2)), divide(2, list(100)));
        let mut gathering = Gathering::default();
        gathering.take(&old[0]);
        gathering.take(&new[0]);
        gathering.take(&old[0]);
        assert_eq!(gathering.list(), Some(&list(2)[..]));
        for part in divide(3, list(100)).range(1..).chain(&new) {
            gathering.take(part);
        }
        assert_eq!(gathering.list(), Some(&list(2)[..]), "parts of two lists make none");
        gathering.take(&divide(3, list(100))[0]);
        assert_eq!(gathering.list(), Some(&list(100)[..]));
    }

    #[test]
    fn a_part_that_cannot_be_changes_nothing() {
        let mut gathering = Gathering::default();
        gathering.take(&divide(5, list(1))[0]);
        let strange = [(9, 0, 0), (9, 0, u8::MAX), (9, 3, 3), (5, 0, 2)];
        for (number, part, parts) in strange {
            gathering.take(&Part { number, part, parts, domains: list(7) });
            assert_eq!(gathering.list(), Some(&list(1)[..]));
        }
    }

    #[test]
    fn every_list_is_told_to_its_end_and_then_anew() {
        let mut telling = Telling::default();
        let told: Vec<(u64, u8)> =
            [40, 1, 40, 1, 1].map(|count| telling.next(|| list(count))).map(|part| (part.number, part.part)).into();
        assert_eq!(told, [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0)]);
    }
}

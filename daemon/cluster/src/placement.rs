//! Placement: which node gets a VM. A function: the present state in, a choice out.

use crate::words::{Identity, Mebibytes, Slot};

/// What Xen and libxl need beside a guest's own memory.
const OVERHEAD: Mebibytes = Mebibytes(16);

/// A node that could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Who.
    pub(crate) identity: Identity,
    /// What its Xen could still give, less what is promised already.
    pub(crate) free: Mebibytes,
}

/// What a VM takes of a node's free memory.
pub(crate) fn need(memory: Mebibytes) -> Mebibytes {
    Mebibytes(memory.0.saturating_add(OVERHEAD.0))
}

/// The node with most free memory that can hold the VM, the first slot where several have as much; `avoid` only if there
/// is no other.
pub(crate) fn choose(candidates: &[Candidate], memory: Mebibytes, avoid: Option<Slot>) -> Option<Candidate> {
    let fits = |candidate: &&Candidate| candidate.free >= need(memory);
    let rank = |candidate: &&Candidate| {
        let elsewhere = Some(candidate.identity.slot) != avoid;
        (elsewhere, candidate.free, core::cmp::Reverse(candidate.identity.slot))
    };
    candidates.iter().filter(fits).max_by_key(rank).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(slot: u8, free: u32) -> Candidate {
        Candidate { identity: Identity::absent(Slot(slot)), free: Mebibytes(free) }
    }

    #[test]
    fn the_freest_node_that_can_hold_it() {
        let chosen = |list: &[Candidate], memory, avoid| {
            choose(list, Mebibytes(memory), avoid).map(|candidate| candidate.identity.slot)
        };
        let two = [candidate(1, 300), candidate(2, 400)];
        assert_eq!(chosen(&two, 128, None), Some(Slot(2)));
        assert_eq!(chosen(&two, 128, Some(Slot(2))), Some(Slot(1)));
        assert_eq!(chosen(&two, 350, Some(Slot(2))), Some(Slot(2)), "there is no other");
        assert_eq!(chosen(&two, 400, None), None, "the overhead counts");
        assert_eq!(chosen(&[candidate(1, 400), candidate(2, 400)], 128, None), Some(Slot(1)));
        assert_eq!(chosen(&[], 1, None), None);
    }
}

//! What never changes while a plan is made: who is kept apart, who is kept together, which CPUs are of one kind.

use std::collections::BTreeMap;

use super::inventory::{Inventory, NodeId, Table, VmId};

/// Names turned into numbers.
#[derive(Debug)]
pub(super) struct Groups<'a> {
    /// The keep-apart groups of each VM.
    pub(super) apart: Table<VmId, Vec<usize>>,
    /// The set of each VM: those that some chain of keep-together groups ties to it; none if it is alone.
    pub(super) set: Table<VmId, Option<usize>>,
    /// The members of each set.
    pub(super) sets: Vec<Vec<VmId>>,
    /// The kind of each node's CPU.
    pub(super) kind: Table<NodeId, usize>,
    /// The features of each kind.
    pub(super) kinds: Vec<&'a [u32]>,
}

impl<'a> Groups<'a> {
    pub(super) fn of(inventory: &'a Inventory) -> Self {
        let mut names = BTreeMap::new();
        let apart = inventory.vms.iter().map(|vm| {
            let mut groups: Vec<usize> = vm.keep_apart.iter().map(|name| number(&mut names, name.as_str())).collect();
            groups.sort_unstable();
            groups.dedup();
            groups
        });
        let apart = Table::of(apart);
        let mut features = BTreeMap::new();
        let kinds: Vec<usize> =
            inventory.nodes.iter().map(|node| number(&mut features, node.features.as_slice())).collect();
        let mut by_number: Vec<_> = features.into_iter().map(|(words, kind)| (kind, words)).collect();
        by_number.sort_unstable();
        let (set, sets) = sets(inventory);
        Self {
            apart,
            set,
            sets,
            kind: Table::of(kinds.into_iter()),
            kinds: by_number.into_iter().map(|(_, words)| words).collect(),
        }
    }

    /// The members of a VM's set, itself among them; none if it is alone.
    pub(super) fn set_of(&self, vm: VmId) -> &[VmId] {
        self.set[vm].and_then(|set| self.sets.get(set)).map_or(&[], Vec::as_slice)
    }

    /// Whether both name one keep-apart group.
    pub(super) fn are_apart(&self, one: VmId, other: VmId) -> bool {
        one != other && self.apart[one].iter().any(|group| self.apart[other].binary_search(group).is_ok())
    }
}

fn number<K: Ord>(numbers: &mut BTreeMap<K, usize>, key: K) -> usize {
    let next = numbers.len();
    *numbers.entry(key).or_insert(next)
}

/// Joins VMs that share a keep-together group, directly or through others.
fn sets(inventory: &Inventory) -> (Table<VmId, Option<usize>>, Vec<Vec<VmId>>) {
    let mut leader: Table<VmId, VmId> = Table::of(inventory.vm_ids());
    let find = |leader: &mut Table<VmId, VmId>, mut vm: VmId| {
        while leader[vm] != vm {
            let next = leader[leader[vm]];
            leader[vm] = next;
            vm = next;
        }
        vm
    };
    let mut first: BTreeMap<&str, VmId> = BTreeMap::new();
    for id in inventory.vm_ids() {
        for name in &inventory.vm(id).keep_together {
            let other = *first.entry(name).or_insert(id);
            let (one, other) = (find(&mut leader, id), find(&mut leader, other));
            leader[one.max(other)] = one.min(other);
        }
    }
    let mut members: BTreeMap<VmId, Vec<VmId>> = BTreeMap::new();
    for id in inventory.vm_ids().filter(|id| !inventory.vm(*id).keep_together.is_empty()) {
        members.entry(find(&mut leader, id)).or_default().push(id);
    }
    let sets: Vec<Vec<VmId>> = members.into_values().filter(|set| set.len() > 1).collect();
    let mut set = Table::of(inventory.vms.iter().map(|_| None));
    for (number, members) in sets.iter().enumerate() {
        for vm in members {
            set[*vm] = Some(number);
        }
    }
    (set, sets)
}

/// Whether a VM that was started with `wanted` runs on a CPU with `offered`. What is not known is not compared.
pub(super) fn live(wanted: &[u32], offered: &[u32]) -> bool {
    let words = wanted.iter().zip(offered.iter().chain(core::iter::repeat(&0)));
    wanted.is_empty() || offered.is_empty() || words.into_iter().all(|(wanted, offered)| wanted & !offered == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_must_all_be_there() {
        assert!(live(&[0b101], &[0b111]));
        assert!(!live(&[0b101], &[0b110]));
        assert!(!live(&[1, 1], &[1]), "a word that the node has not has no bits");
        assert!(live(&[1, 0], &[1]) && live(&[], &[1]) && live(&[1], &[]));
    }
}

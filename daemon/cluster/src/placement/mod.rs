//! Placement: which node gets a VM, who moves, and who must make room. A function: the present state in, a plan out.
//!
//! The DC recomputes the plan at every change, so it never says what was, only what should be done now; and a state that is
//! as the plan wants it gives an empty plan.
//!
//! # The rules
//!
//! Hard, never broken by any step: a node is given no more than Xen says is free there, with [`OVERHEAD`] for each VM; VMs
//! of one keep-apart group are not put on one node; VMs of one keep-together group are put on one node or wait; a live
//! migration goes only to a CPU that has the features that the VM was started with.
//!
//! Soft, in this order: not the node where the VM failed last; live rather than cold; the whole keep-together group in one
//! place; preferred nodes; the node with most free memory.
//!
//! **Room is given by priority; steps are taken evacuations first, then by start order.** If start order decided who gets
//! room, a preempted VM that starts early would take its room back, and the plan would never come to rest.
//!
//! # The algorithm
//!
//! ```text
//!  round:  fill       spread over the nodes; if that leaves somebody out: packed; if few wait: any arrangement
//!          rearrange  for who is left out, others make way: chains of moves, three links deep at most
//!          preempt    for who is still left out, the least important ones that will do are stopped, and wait again
//!          mend       what is together though kept apart, and apart though kept together
//!          fail back  to preferred nodes
//!          balance    if it is asked for, and nothing else was done
//!  plan:   rounds until one decides nothing
//! ```
//!
//! *Why greedy.* Packing is hard in theory, and easy while there is room: spreading by free memory finds a node for
//! everybody as long as the cluster is not nearly full, at the cost of one lookup in a sorted list a VM. Only a cluster that
//! is nearly full pays for a search, and the search is bounded: a small cluster is searched through, a large one where it
//! is nearest to having room. The tests hold plans against the exact optimum of small clusters.
//!
//! *Why it comes to rest.* The plan ends with a round that decides nothing from the state that the plan brings about. Fed with
//! that state, the function begins with that very round. Rounds come to an end because none takes back what another did:
//! making room only ever raises who runs, by priority; failing back never stops anybody; balancing makes the fullest nodes
//! less full, and leaves VMs that would fail back alone.
//!
//! *What it costs.* Sorted lists of nodes, one for each kind of CPU: (N + V) log N for a plan that needs no search. A VM kept
//! apart from k others may step over k nodes, and one of k kept together looks at the k. The search is bounded by a number
//! of tries for the whole round. `tests/benches/placement.rs` has the figures.
//!
//! # Who carries a plan out
//!
//! Takes the steps of [`Plan::at_once`], reports what is under way as [`Where::InFlight`], and plans again when something
//! changed. Steps that wait become possible in some later plan. A node with VMs that must leave gets no others.

mod fill;
mod groups;
mod inventory;
mod ledger;
mod plan;
mod repair;
mod round;
mod schedule;
mod spare;
mod voluntary;

use groups::Groups;
pub use inventory::{Inventory, Node, NodeId, OVERHEAD, Vm, VmId, Where, need};
use ledger::{Ledger, Way};
pub use plan::{Act, NoRoom, Plan, Reason, Step};
use round::Round;
pub use spare::Shortfall;
pub use voluntary::SPREAD;

use crate::words::Mebibytes;

/// Rounds of one plan. Two or three are usual; the last one decides nothing.
const ROUNDS: usize = 16;

/// What should be done now.
#[must_use]
pub fn plan(inventory: &Inventory) -> Plan {
    let groups = Groups::of(inventory);
    let mut state = inventory.landed();
    let mut decisions = Vec::new();
    for _ in 0..ROUNDS {
        let decided = Round::new(&state, &groups).run();
        if decided.is_empty() {
            break;
        }
        for (vm, to) in &decided {
            state.change(*vm, *to);
        }
        decisions.extend(decided);
    }
    Plan { steps: schedule::steps(inventory, &groups, &decisions), no_room: no_room(&state, &groups) }
}

/// The state after a plan, every step taken and everything in flight arrived.
#[must_use]
pub fn after(inventory: &Inventory, plan: &Plan) -> Inventory {
    let mut state = inventory.landed();
    for step in &plan.steps {
        match step.act {
            Act::Start(to) | Act::Migrate(to) | Act::ColdMove(to) => state.change(step.vm, Some(to)),
            Act::StopForRoom => state.change(step.vm, None),
        }
    }
    state
}

/// N+1: the nodes whose loss the others could not absorb, as things are.
#[must_use]
pub fn shortfalls(inventory: &Inventory) -> Vec<Shortfall> {
    let landed = inventory.landed();
    let groups = Groups::of(&landed);
    let mut ledger = Ledger::new(&landed, &groups);
    let short = landed.node_ids().filter_map(|node| {
        let vms = spare::refuge(&mut ledger, node).err()?;
        Some(Shortfall { node, vms })
    });
    short.collect()
}

fn no_room(state: &Inventory, groups: &Groups<'_>) -> Vec<NoRoom> {
    let ledger = Ledger::new(state, groups);
    let waiting = state.vm_ids().filter(|vm| match state.vm(*vm).whereabouts {
        Where::Stopped | Where::Leaving(_) => true,
        Where::Running(_) | Where::InFlight { .. } => false,
    });
    waiting.map(|vm| NoRoom { vm, reason: reason(&ledger, vm) }).collect()
}

/// Why a VM has no room.
fn reason(ledger: &Ledger<'_>, vm: VmId) -> Reason {
    let state = ledger.inventory;
    let Some(most) = ledger.most_free() else {
        return Reason::NoNode;
    };
    let others = ledger.groups.set_of(vm).iter().filter(|other| **other != vm && ledger.is_settled(**other));
    if let Some((other, at)) = others.filter_map(|other| Some((*other, ledger.place(*other)?))).next() {
        return Reason::Together { other: state.vm(other).name.clone(), node: state.node(at).name.clone() };
    }
    let need = state.need(vm);
    if !ledger.has_room(need, |_| true) {
        let mebibytes = |amount: u64| Mebibytes(u32::try_from(amount).unwrap_or(u32::MAX));
        return Reason::Memory { need: mebibytes(need), most: mebibytes(most) };
    }
    let cold = state.vm(vm).cold_move || state.vm(vm).whereabouts == Where::Stopped;
    let way = if cold { Way::Cold } else { Way::Live };
    if ledger.has_room(need, |kind| ledger.suits(vm, kind, way)) { Reason::Apart } else { Reason::Features }
}

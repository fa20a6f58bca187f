//! A rolling restart: each node's boot is replaced by another, one after the other, as after a new image on the gateway.
//!
//! ```text
//!  to do --Turn--> is emptied, takes no VMs --Leave--> leaves --Left--> off, boots anew --fill, Returned--> back
//! ```
//! Whose turn it is takes no VMs, as in standby: nothing presses, so that no VM is shut down for it. It leaves when it has none
//! any more, and knows by the same record that it is to boot again. The DC takes each step when all is well;
//! what is agreed is enough for the next DC to go on, and ends with its generation. It stops by itself
//! as soon as anybody is held for dead or loses its power: by what is committed, so that no DC can overlook it. A node that
//! is off by then keeps its turn until it is back, or it would not know any more that it is to boot.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Phase, Standing, State, name};
use crate::config::Config;
use crate::trace::Trace;
use crate::words::{Identity, Incarnation, Role, Slot, Supply};

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Turn {
    /// The node.
    pub(crate) slot: Slot,
    /// Its boot that is to be replaced.
    pub(crate) boot: Incarnation,
    /// The version of the wire format that it speaks at best: the next boot is to speak no older one.
    pub(crate) speaks: u8,
}

/// The last rolling restart of this generation, or the one that goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rolling {
    /// Which it is, from 1: a command that is committed late must not begin or stop another.
    pub(crate) number: u32,
    /// The boots that are still to be replaced.
    pub(crate) todo: BTreeMap<Slot, Incarnation>,
    /// Whose turn it is.
    pub(crate) turn: Option<Turn>,
    /// Whose boots were replaced.
    pub(crate) done: BTreeSet<Slot>,
    /// Who is left out.
    pub(crate) left_out: BTreeSet<Slot>,
    /// Why it was stopped.
    pub(crate) stopped: Option<String>,
}

impl Rolling {
    /// Whether somebody's boot is still to be replaced.
    pub(crate) fn is_active(&self) -> bool {
        self.turn.is_some() || !self.todo.is_empty()
    }

    /// Whether it goes on.
    pub(crate) fn goes_on(&self) -> bool {
        self.is_active() && self.stopped.is_none()
    }

    /// Whether it is the turn of that boot of a node.
    pub(crate) fn is_turn_of(&self, at: Identity) -> bool {
        self.turn.is_some_and(|turn| turn.slot == at.slot && turn.boot == at.incarnation)
    }

    pub(super) fn fits(&self, config: &Config) -> bool {
        let slots =
            self.todo.keys().chain(&self.done).chain(&self.left_out).chain(self.turn.iter().map(|turn| &turn.slot));
        slots.into_iter().all(|slot| usize::from(slot.0) < config.nodes.len())
    }
}

impl State {
    /// Whether there is nobody to be restarted.
    pub(crate) fn restarts_nobody(&self, config: &Config) -> bool {
        self.members.keys().all(|slot| self.is_set_aside(config, *slot))
    }

    /// Why no node may be restarted now, as far as the agreed state knows; nothing if all is well.
    pub(crate) fn unrest(&self, config: &Config) -> Option<String> {
        for (slot, member) in &self.members {
            let node = || name(config, *slot);
            let aside = config.node(*slot).role == Role::Node && self.is_set_aside(config, *slot);
            match member.standing {
                Standing::Member if aside => {}
                Standing::Member if !self.lockspace.serves(*slot) => {
                    return Some(format!("{} has not mounted the shared file system", node()));
                }
                Standing::Member => {}
                Standing::Off | Standing::Booting if aside => {}
                Standing::Off | Standing::Booting | Standing::Waking => {
                    return Some(format!("{} is off: switch it on, or put it into standby to leave it out", node()));
                }
                Standing::Leaving => return Some(format!("{} is leaving", node())),
                Standing::Unclean | Standing::Fenced => return Some(format!("{} is held for dead", node())),
            }
        }
        let present = |but: Slot| {
            let present = self.members.values().filter(|member| member.is_present()).map(|member| member.identity.slot);
            config.votes(present.filter(move |slot| *slot != but))
        };
        let needed = |slot: &&Slot| config.node(**slot).role == Role::Node && present(**slot) < config.majority();
        if let Some(slot) = self.members.keys().find(needed) {
            return Some(format!("without {} the cluster would be inquorate", name(config, *slot)));
        }
        if self.lockspace.holding {
            return Some("the shared file system changes its members".to_owned());
        }
        if self.supplies.values().any(|supply| *supply != Supply::Mains) {
            return Some("a UPS has no mains".to_owned());
        }
        self.vms.iter().find_map(|(vm, record)| match record.phase {
            Phase::Running(_) => None,
            Phase::Stopped | Phase::Failed if !record.wanted => None,
            Phase::Stopped | Phase::Failed => Some(format!("VM {vm} does not run: start it, or stop it for good")),
            Phase::Starting(_) | Phase::Moving { .. } | Phase::Landing(_) | Phase::Stopping(..) => {
                Some(format!("VM {vm} is starting, moving or stopping"))
            }
        })
    }

    /// Every node's boot is to be replaced, but for those that are set aside.
    pub(super) fn begin_rolling(&mut self, config: &Config, number: u32) -> Vec<Trace> {
        let last = &self.rolling;
        let is_next = last.number.checked_add(1) == Some(number) && !last.goes_on();
        if !is_next || self.restarts_nobody(config) || self.unrest(config).is_some() {
            return Vec::new();
        }
        let (left_out, todo) = self
            .members
            .values()
            .map(|member| member.identity)
            .partition(|identity: &Identity| self.is_set_aside(config, identity.slot));
        let (left_out, todo): (Vec<Identity>, Vec<Identity>) = (left_out, todo);
        let slots = |identities: &[Identity]| identities.iter().map(|identity| identity.slot).collect::<BTreeSet<_>>();
        let said =
            Trace::RollingBegins { nodes: names(config, &slots(&todo)), left_out: names(config, &slots(&left_out)) };
        self.rolling = Rolling {
            number,
            todo: todo.iter().map(|identity| (identity.slot, identity.incarnation)).collect(),
            left_out: slots(&left_out),
            ..Rolling::default()
        };
        vec![said]
    }

    /// It is that boot's turn.
    pub(super) fn take_turn(&mut self, config: &Config, (number, at, speaks): (u32, Identity, u8)) -> Option<Trace> {
        let rolling = &self.rolling;
        let next = rolling.number == number && rolling.turn.is_none();
        if !next || rolling.todo.get(&at.slot) != Some(&at.incarnation) || self.unrest(config).is_some() {
            return None;
        }
        self.rolling.todo.remove(&at.slot);
        self.rolling.turn = Some(Turn { slot: at.slot, boot: at.incarnation, speaks });
        Some(Trace::RollingTurn { node: name(config, at.slot), left: self.rolling.todo.len() })
    }

    /// Whose turn it was is back, and well.
    pub(super) fn returned(&mut self, config: &Config, at: Identity) -> Option<Trace> {
        let turn = self.rolling.turn.filter(|turn| turn.slot == at.slot && turn.boot != at.incarnation)?;
        if !self.is_member(at) {
            return None;
        }
        self.rolling.turn = None;
        self.rolling.done.insert(at.slot);
        Some(Trace::RollingReturned { node: name(config, at.slot), old: turn.boot, new: at.incarnation })
    }

    /// Nobody else's boot is replaced. Whose turn it is stays, unless it is off already; if it does not come back it is waited
    /// for no longer the second time.
    pub(super) fn stop_rolling(&mut self, number: u32, reason: String) -> Vec<Trace> {
        if self.rolling.number != number || !self.rolling.is_active() {
            return Vec::new();
        }
        let first = self.rolling.stopped.is_none();
        self.rolling.todo.clear();
        self.rolling.turn = self.rolling.turn.take().filter(|turn| {
            let Some(member) = self.members.get_mut(&turn.slot) else { return false };
            if member.standing == Standing::Leaving && !member.withdrawn && member.identity.incarnation == turn.boot {
                member.standing = Standing::Member;
            }
            first && member.standing == Standing::Off
        });
        if !first {
            return Vec::new();
        }
        self.rolling.stopped = Some(reason.clone());
        vec![Trace::RollingStopped { reason }]
    }

    /// After each step: whether it has ended, or must stop. `went_on` says whether it went on before.
    pub(super) fn roll(&mut self, config: &Config, went_on: bool) -> Vec<Trace> {
        if !went_on && !self.rolling.is_active() {
            return Vec::new();
        }
        let mut rolling = core::mem::take(&mut self.rolling);
        // What was restarted without us, or is set aside meanwhile, is not waited for.
        rolling.todo.retain(|slot, boot| {
            let boots = self.members.get(slot).is_some_and(|member| member.identity.incarnation == *boot);
            let aside = config.has(*slot) && self.is_set_aside(config, *slot);
            if aside {
                rolling.left_out.insert(*slot);
            } else if !boots {
                rolling.done.insert(*slot);
            }
            boots && !aside
        });
        rolling.turn = rolling.turn.filter(|turn| {
            let Some(member) = self.members.get(&turn.slot) else { return false };
            let begun = member.identity.incarnation != turn.boot || member.standing != Standing::Member;
            let stays = begun || !self.is_set_aside(config, turn.slot);
            if !stays {
                rolling.left_out.insert(turn.slot);
            }
            stays
        });
        self.rolling = rolling;
        if self.rolling.stopped.is_some() {
            return Vec::new();
        }
        let fault = self.members.values().find_map(|member| {
            let node = || name(config, member.identity.slot);
            match member.standing {
                Standing::Unclean | Standing::Fenced => Some(format!("{} is held for dead", node())),
                Standing::Leaving if member.withdrawn => Some(format!("{} loses its power", node())),
                Standing::Leaving | Standing::Member | Standing::Off | Standing::Waking | Standing::Booting => None,
            }
        });
        if let Some(reason) = fault {
            let again = "begin again when all is well";
            return self.stop_rolling(self.rolling.number, format!("{reason}; {again}"));
        }
        if self.rolling.is_active() {
            return Vec::new();
        }
        vec![Trace::RollingEnded { left_out: names(config, &self.rolling.left_out) }]
    }
}

/// The names of these slots.
pub(crate) fn names(config: &Config, slots: &BTreeSet<Slot>) -> Vec<String> {
    slots.iter().map(|slot| name(config, *slot)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Duty;
    use crate::fencing::Cause;
    use crate::state::Command;
    use crate::words::{ClusterGeneration, Life};

    fn identity(slot: u8, boot: u64) -> Identity {
        Identity { slot: Slot(slot), incarnation: Incarnation::new(boot).unwrap(), life: Life::default() }
    }

    /// A gateway and two nodes, all of them members, and a rolling restart that has just begun.
    fn begun() -> (Config, State) {
        let config = Config::parse(include_str!("../config/good.toml")).unwrap();
        let present: Vec<Identity> = (0..3).map(|slot| identity(slot, 7)).collect();
        let mut state = State::formed(&config, ClusterGeneration(1), &present);
        state.apply(&config, Command::Roll(1));
        assert_eq!(state.rolling.todo.len(), 2);
        (config, state)
    }

    fn texts(said: &[Trace]) -> Vec<String> {
        said.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_committed_late_begins_and_stops_nothing() {
        let (config, mut state) = begun();
        assert_eq!(state.apply(&config, Command::Roll(1)), []);
        assert_eq!(state.apply(&config, Command::Roll(2)), [], "one goes on");
        assert_eq!(state.apply(&config, Command::StopRolling(2, String::new())), []);
        assert_eq!(state.apply(&config, Command::StopRolling(1, "so".to_owned())).len(), 1);
        assert_eq!(state.apply(&config, Command::Roll(1)), []);
        assert_eq!(state.apply(&config, Command::Turn(1, identity(1, 7), 4)), []);
        assert_eq!(state.apply(&config, Command::Roll(2)).len(), 1);
        assert_eq!(state.apply(&config, Command::StopRolling(1, "so".to_owned())), []);
        assert_eq!(state.apply(&config, Command::Turn(2, identity(1, 6), 4)), [], "another boot");
        assert_eq!(state.apply(&config, Command::Turn(2, identity(1, 7), 4)).len(), 1);
        assert_eq!(state.apply(&config, Command::Turn(2, identity(2, 7), 4)), [], "one at a time");
    }

    #[test]
    fn who_leaves_for_its_turn_remains_when_it_is_stopped_and_keeps_it_when_it_is_off() {
        for (stands, then, keeps) in [
            (Standing::Member, Standing::Member, false),
            (Standing::Leaving, Standing::Member, false),
            (Standing::Off, Standing::Off, true),
        ] {
            let (config, mut state) = begun();
            let at = identity(2, 7);
            state.apply(&config, Command::Turn(1, at, 4));
            assert!(state.is_to_be_emptied(&config, at));
            state.members.get_mut(&at.slot).unwrap().standing = stands;
            assert_eq!(state.apply(&config, Command::StopRolling(1, "so".to_owned())).len(), 1);
            assert_eq!((state.members[&at.slot].standing, state.rolling.is_turn_of(at)), (then, keeps));
            assert!(!state.rolling.goes_on());
            let bytes = state.to_bytes();
            assert_eq!(State::from_bytes(&bytes, &config), Some(state.clone()));
            assert_eq!(state.apply(&config, Command::StopRolling(1, "again".to_owned())), []);
            assert!(!state.rolling.is_active() && state.rolling.stopped.as_deref() == Some("so"));
        }
    }

    #[test]
    fn it_ends_when_all_are_back_and_stops_when_one_is_held_for_dead() {
        let (config, mut state) = begun();
        state.apply(&config, Command::Turn(1, identity(1, 7), 4));
        state.members.get_mut(&Slot(1)).unwrap().standing = Standing::Off;
        assert_eq!(state.apply(&config, Command::Returned(identity(1, 7))), [], "it is not back");
        state.fill(&config, identity(1, 8));
        assert_eq!(state.apply(&config, Command::Returned(identity(1, 8))).len(), 1);
        let mut other = state.clone();
        let said = other.apply(&config, Command::Duty(Slot(2), Duty { standby: true, ..Duty::default() }));
        let end = "the rolling restart has ended; left out: gateway, node2";
        assert_eq!(texts(&said).last().map(String::as_str), Some(end), "nobody waits for one that is set aside");
        let said = state.apply(&config, Command::Suspect(identity(1, 8), Cause::Unasked));
        assert!(texts(&said).concat().contains("is stopped: node1 is held for dead"), "{said:?}");
        assert!(!state.rolling.is_active());
    }

    #[test]
    fn nothing_begins_unless_all_is_well() {
        for (stands, expected) in [
            (Standing::Leaving, "node2 is leaving"),
            (Standing::Off, "node2 is off"),
            (Standing::Unclean, "node2 is held for dead"),
        ] {
            let (config, mut state) = begun();
            state.apply(&config, Command::StopRolling(1, "so".to_owned()));
            state.members.get_mut(&Slot(2)).unwrap().standing = stands;
            assert!(state.unrest(&config).unwrap().contains(expected));
            assert_eq!(state.apply(&config, Command::Roll(2)), []);
        }
    }
}

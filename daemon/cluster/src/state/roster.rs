//! Which slots there are: the edition of `cluster.toml` that holds, and how the next one comes to hold.
//!
//! What is agreed is the whole text of the next edition, and it differs from the present one by one node: so whoever
//! applies it, or is sent the state later, goes by the very same file. From then on a majority is one of the votes of
//! that edition. A node that was added counts as absent until it joins, and is not unclean: it never ran anything. Because
//! the members that are present must be a majority of the new votes as well as of the old ones, enough of them keep the new file
//! for no majority to form a generation by the old one.

use serde::{Deserialize, Serialize};

use super::{Member, Standing, State};
use crate::config::Config;
use crate::trace::Trace;
use crate::words::{Edition, Identity, Role, Slot, View};

/// The `cluster.toml` that holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Roster {
    /// Its edition.
    pub(crate) edition: Edition,
    /// The whole of it.
    pub(crate) text: String,
}

impl Roster {
    pub(crate) fn of(config: &Config) -> Self {
        Self { edition: config.edition, text: config.text.clone() }
    }
}

/// How one edition differs from the one before.
enum Change {
    Added(Slot),
    Removed(Slot),
}

impl State {
    /// The state as a snapshot. What version 3 has added stands at its end.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match (postcard::to_allocvec(self), postcard::to_allocvec(&self.roster)) {
            (Ok(state), Ok(roster)) => [state, roster].concat(),
            (Err(error), _) | (_, Err(error)) => panic!("the state is plain data and always encodes: {error}"),
        }
    }

    /// A snapshot's state. One of version 2 says nothing of editions: then everybody has the same file as this node.
    pub(crate) fn from_bytes(bytes: &[u8], config: &Config) -> Option<Self> {
        let (state, rest) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        let roster = if rest.is_empty() { Roster::of(config) } else { postcard::from_bytes(rest).ok()? };
        Some(Self { roster, ..state })
    }

    /// What `next` changes, if it is one node.
    fn change(&self, next: &Config) -> Option<Change> {
        let mut added = next.slots().map(|(slot, _)| slot).filter(|slot| !self.members.contains_key(slot));
        let mut removed = self.members.keys().copied().filter(|slot| !next.has(*slot));
        match (added.next(), removed.next()) {
            (Some(slot), None) if added.next().is_none() && usize::from(slot.0) + 1 == next.nodes.len() => {
                Some(Change::Added(slot))
            }
            (None, Some(slot)) if removed.next().is_none() => Some(Change::Removed(slot)),
            _ => None,
        }
    }

    /// Why `next` cannot come to hold now, if so. It is judged by whoever is asked, and again by everybody when it is
    /// committed: by the state alone, whatever file this node has read; `config` only gives names.
    pub(crate) fn no_change(&self, config: &Config, next: &Config) -> Option<String> {
        if self.roster.edition.number.checked_add(1) != Some(next.edition.number) {
            return Some("cluster.toml has changed meanwhile".to_owned());
        }
        let without = match self.change(next) {
            None => return Some("one node is added or removed at a time".to_owned()),
            Some(Change::Added(_)) => None,
            Some(Change::Removed(slot)) => Some(slot),
        };
        if let Some(reason) = without.and_then(|slot| self.no_removal(config, next, slot)) {
            return Some(reason);
        }
        let present = self.members.values().filter(|member| member.is_present()).map(|member| member.identity.slot);
        let (votes, majority) = (next.votes(present), next.majority());
        (votes < majority).then(|| {
            format!("the members that are there would have {votes} of the {majority} votes that are a quorum then")
        })
    }

    fn no_removal(&self, config: &Config, next: &Config, slot: Slot) -> Option<String> {
        let member = self.members.get(&slot)?;
        let node = config.node_name(slot);
        match member.standing {
            Standing::Member => return Some(format!("{node} is a member: put it in standby and shut it down first")),
            Standing::Leaving => return Some(format!("{node} is leaving: wait until it is off")),
            Standing::Waking => return Some(format!("{node} is being woken: shut it down first")),
            Standing::Unclean => return Some(format!("{node} is not proven off, and may still run VMs")),
            Standing::Off | Standing::Fenced | Standing::Booting => {}
        }
        if let Some((vm, _)) = self.vms.iter().find(|(_, vm)| vm.concerns(member.identity)) {
            return Some(format!("VM {vm} is not settled yet"));
        }
        let is_last = !next.slots().any(|(_, node)| node.role == Role::Node);
        is_last.then(|| format!("{node} is the last node: nobody would run VMs"))
    }

    /// The next edition comes to hold.
    pub(super) fn configure(&mut self, config: &Config, text: String) -> Option<Trace> {
        let next = Config::parse(&text).ok()?;
        if self.no_change(config, &next).is_some() {
            return None;
        }
        let change = self.change(&next)?;
        let (edition, majority, votes) =
            (next.edition, next.majority(), next.votes(next.slots().map(|(slot, _)| slot)));
        self.roster = Roster { edition, text };
        self.view = View(self.view.0.saturating_add(1));
        Some(match change {
            Change::Added(slot) => {
                self.members.insert(slot, Member::new(Identity::absent(slot), Standing::Off));
                Trace::Added { node: next.node_name(slot), edition, majority, votes }
            }
            Change::Removed(slot) => {
                self.members.remove(&slot);
                self.deaths.remove(&slot);
                self.duties.remove(&slot);
                Trace::Removed { node: next.node_name(slot), edition, majority, votes }
            }
        })
    }
}

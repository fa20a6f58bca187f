//! Which slots there are: the edition of `cluster.toml` that holds, and how the next one comes to hold.
//!
//! What is agreed is the whole text of the next edition, and it differs from the present one by one thing ([`Change`]): so whoever
//! applies it, or is sent the state later, goes by the very same file. The votes follow by one joint change, as soon as
//! members that are heard to go by the new file, and so keep it, are a majority of its votes; a new slot is filled by
//! nobody then, and a quorum is one of the votes of that edition. It is not unclean: it never ran anything.
//!
//! Two halves of a cluster must never both be quorate, one by the old file and one by the new. So two editions in a row
//! differ by one vote: a majority of either and a majority of the other have a node in common. And the next one begins only
//! when the present one holds everywhere that counts: its votes are those that vote, and a majority of them keeps it, the
//! gateway among them, from which the nodes boot.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Member, Rolling, Standing, State};
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
    /// It is not on trial any more.
    Proven(Slot),
    /// Nothing but the key.
    Key,
}

impl State {
    /// The state as a snapshot. What versions 3 and 4 have added stands at its end.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let added = postcard::to_allocvec(&(&self.roster, &self.recalled, &self.rolling));
        match (postcard::to_allocvec(self), added) {
            (Ok(state), Ok(added)) => [state, added].concat(),
            (Err(error), _) | (_, Err(error)) => panic!("the state is plain data and always encodes: {error}"),
        }
    }

    /// A snapshot's state. One of version 2 says nothing of editions: then everybody has the same file as this node, and nobody
    /// has asked what was decided before. One of version 3 says nothing of a rolling restart: there is none.
    pub(crate) fn from_bytes(bytes: &[u8], config: &Config) -> Option<Self> {
        let (state, rest) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        if rest.is_empty() {
            return Some(Self { roster: Roster::of(config), ..state });
        }
        let ((roster, recalled), rest) = postcard::take_from_bytes(rest).ok()?;
        let rolling = if rest.is_empty() { Rolling::default() } else { postcard::from_bytes(rest).ok()? };
        Some(Self { roster, recalled, rolling, ..state })
    }

    /// What `next` changes, if it is one thing.
    fn change(&self, next: &Config) -> Option<Change> {
        let mut added = next.slots().map(|(slot, _)| slot).filter(|slot| !self.members.contains_key(slot));
        let mut removed = self.members.keys().copied().filter(|slot| !next.has(*slot));
        match (added.next(), removed.next()) {
            (Some(slot), None) if added.next().is_none() && usize::from(slot.0) + 1 == next.nodes.len() => {
                Some(Change::Added(slot))
            }
            (None, Some(slot)) if removed.next().is_none() && next.has_removed(slot) => Some(Change::Removed(slot)),
            (None, None) => self.inner_change(next),
            _ => None,
        }
    }

    /// What it changes if its slots are the same.
    fn inner_change(&self, next: &Config) -> Option<Change> {
        let now = Config::parse(&self.roster.text).ok()?;
        let on_trial = |config: &Config| {
            let slots = config.slots().filter(|(_, node)| node.on_trial).map(|(slot, _)| slot);
            slots.collect::<BTreeSet<Slot>>()
        };
        let (before, after) = (on_trial(&now), on_trial(next));
        let ended: Vec<Slot> = before.difference(&after).copied().collect();
        match ended[..] {
            [] if after == before => Some(Change::Key),
            [slot] if after.is_subset(&before) && now.key == next.key => Some(Change::Proven(slot)),
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
            Some(Change::Key) if next.key <= config.key => return Some("nothing changes".to_owned()),
            Some(Change::Added(_) | Change::Proven(_) | Change::Key) => None,
            Some(Change::Removed(slot)) => Some(slot),
        };
        if let Some(reason) = without.and_then(|slot| self.no_removal(config, next, slot)) {
            return Some(reason);
        }
        if config.votes_apart(next) > 1 {
            return Some(match without {
                Some(slot) => format!(
                    "{} has several votes, and only a node of one vote can be removed while the cluster runs; with every \
                     machine off, write removed = true into its table and count edition up",
                    config.node_name(slot)
                ),
                None => "a node that is added while the cluster runs has one vote: leave votes out".to_owned(),
            });
        }
        if next.key < config.key {
            return Some("the cluster's key has changed meanwhile".to_owned());
        }
        match next.gateway().and_then(|(slot, _)| self.members.get(&slot)) {
            None => return Some("there is no gateway, which would keep cluster.toml".to_owned()),
            Some(gateway) if !gateway.is_present() => {
                return Some(format!(
                    "{} is no member, and keeps cluster.toml",
                    config.node_name(gateway.identity.slot)
                ));
            }
            Some(_) => {}
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
        if !self.lockspace.is_out(slot) || self.lockspace.members.contains(&slot) {
            return Some(format!("{node} still counts as one who has the shared file system: wait a moment"));
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
                self.lockspace.add(&next, Identity::absent(slot));
                Trace::Added { node: next.node_name(slot), edition, majority, votes }
            }
            Change::Removed(slot) => {
                self.members.remove(&slot);
                self.lockspace.remove(slot);
                self.deaths.remove(&slot);
                self.duties.remove(&slot);
                Trace::Removed { node: next.node_name(slot), edition, majority, votes }
            }
            Change::Proven(slot) => Trace::TrialEnded { node: next.node_name(slot), edition },
            Change::Key => Trace::Rekeyed { key: next.key, edition },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Duty, NodeConfig, VmSpec};
    use crate::event::VmFile;
    use crate::state::{Command, Phase};
    use crate::words::{ClusterGeneration, Incarnation, Life, Mebibytes, VmName};

    const NODE3: &str = "name = \"node3\"\noutlets = [{ pdu = \"pdu1\", outlet = 4 }]\n\
                         nics = [{ mac = \"52:54:00:77:00:13\", network = \"cluster\", address = \"10.77.0.13\" }]";

    fn identity(slot: u8) -> Identity {
        Identity {
            slot: Slot(slot),
            incarnation: Incarnation::new(u64::from(slot) + 1).unwrap(),
            life: Life::default(),
        }
    }

    /// A gateway and two nodes, all of them members.
    fn formed() -> (Config, State) {
        let config = Config::parse(include_str!("../config/good.toml")).unwrap();
        let present: Vec<Identity> = (0..3).map(identity).collect();
        let state = State::formed(&config, ClusterGeneration(1), &present);
        (config, state)
    }

    /// With node2 standing so.
    fn standing(standing: Standing) -> (Config, State) {
        let (config, mut state) = formed();
        state.members.get_mut(&Slot(2)).unwrap().standing = standing;
        (config, state)
    }

    #[test]
    fn a_node_that_is_added_is_absent_and_off_and_its_votes_count() {
        let (config, mut state) = formed();
        let next = config.with_node(NODE3).unwrap();
        let said = state.apply(&config, Command::Configure(next.text.clone()));
        assert_eq!(said.len(), 1);
        let member = &state.members[&Slot(3)];
        assert_eq!((member.identity, member.standing), (Identity::absent(Slot(3)), Standing::Off));
        assert_eq!((&state.roster, state.view), (&Roster::of(&next), View(2)));
        assert!(state.fits(&next) && !state.fits(&config));
        assert!(state.apply(&next, Command::Configure(next.text.clone())).is_empty(), "the same again");
        let said = state.fill(&next, identity(3));
        assert_eq!(said.len(), 1, "nobody has died: {said:?}");
        assert_eq!(state.members[&Slot(3)].standing, Standing::Member);
    }

    #[test]
    fn a_node_is_removed_only_when_it_is_off_for_good() {
        let rows = [
            (Standing::Member, Some("put it in standby")),
            (Standing::Leaving, Some("wait until it is off")),
            (Standing::Waking, Some("is being woken")),
            (Standing::Unclean, Some("not proven off")),
            (Standing::Off, None),
            (Standing::Fenced, None),
            (Standing::Booting, None),
        ];
        for (stands, refused) in rows {
            let (config, mut state) = standing(stands);
            state.duties.insert(Slot(2), Duty { standby: true, ..Duty::default() });
            let next = config.without_node(Slot(2), 2).unwrap();
            let reason = state.no_change(&config, &next);
            assert_eq!(reason.is_some(), refused.is_some(), "{stands:?}: {reason:?}");
            assert!(reason.unwrap_or_default().contains(refused.unwrap_or_default()), "{stands:?}");
            let said = state.apply(&config, Command::Configure(next.text.clone()));
            assert_eq!(said.is_empty(), refused.is_some(), "{stands:?}: {said:?}");
            assert_eq!(state.members.contains_key(&Slot(2)), refused.is_some());
            if refused.is_none() {
                assert!(state.fits(&next) && state.duties.is_empty() && state.deaths.is_empty());
                assert_eq!(state.fill(&next, identity(2)), [], "nobody fills a slot that is gone");
            }
        }
    }

    #[test]
    fn what_must_not_change_now_is_refused() {
        let (config, state) = formed();
        let refuses = |state: &State, next: &Config, expected: &str| {
            let reason = state.no_change(&config, next).unwrap_or_default();
            assert!(reason.contains(expected), "{expected}: {reason}");
            let mut changed = state.clone();
            assert_eq!(changed.apply(&config, Command::Configure(next.text.clone())), []);
            assert_eq!(changed, *state);
        };
        refuses(&state, &config, "meanwhile");
        let two = config.with_node(NODE3).unwrap();
        refuses(
            &state,
            &two.with_node(&NODE3.replace('3', "4").replace("outlet = 4", "outlet = 5")).unwrap(),
            "meanwhile",
        );
        let text = two.text.replacen("name = \"node1\"", "name = \"node1\"\nremoved = true", 1);
        refuses(&state, &Config::parse(&text).unwrap(), "one node is added or removed at a time");
        let heavy = config.with_node(&format!("{NODE3}\nvotes = 2")).unwrap();
        refuses(&state, &heavy, "leave votes out");
        let rekeyed = Config::parse(&config.text.replacen("name = \"rack\"", "name = \"rack\"\nkey = 3", 1)).unwrap();
        let older = state.no_change(&rekeyed, &two).unwrap_or_default();
        assert!(older.contains("key has changed"), "{older}");
        let same = config.with_key(2).unwrap().text.replacen("key = 2", "key = 1", 1);
        refuses(&state, &Config::parse(&same).unwrap(), "nothing changes");
        let (_, mut away) = formed();
        away.members.get_mut(&Slot(0)).unwrap().standing = Standing::Off;
        refuses(&away, &two, "gateway is no member, and keeps");
        let (_, mut alone) = formed();
        alone.members.get_mut(&Slot(1)).unwrap().standing = Standing::Fenced;
        refuses(&alone, &two, "2 of the 3 votes");
        alone.members.remove(&Slot(2));
        let text = config.without_node(Slot(2), 2).unwrap().without_node(Slot(1), 2).unwrap().text;
        let text = text.replacen("edition = 3", "edition = 2", 1);
        refuses(&alone, &Config::parse(&text).unwrap(), "the last node");
        let (_, mut busy) = standing(Standing::Off);
        let vm = VmName::new("x0").unwrap();
        busy.define(vec![VmFile { name: vm.clone(), memory: Mebibytes(1), spec: VmSpec::default() }]);
        busy.vms.get_mut(&vm).unwrap().phase = Phase::Landing(identity(2));
        refuses(&busy, &config.without_node(Slot(2), 2).unwrap(), "VM x0 is not settled");
        let mut garbage = state.clone();
        assert_eq!(garbage.apply(&config, Command::Configure("[cluster]".to_owned())), []);
        assert_eq!(garbage, state);
    }

    #[test]
    fn who_is_on_trial_is_given_nothing_until_that_ends_by_an_edition_of_its_own() {
        let (config, mut state) = formed();
        let next = config.with_node(NODE3).unwrap();
        state.apply(&config, Command::Configure(next.text.clone()));
        state.fill(&next, identity(3));
        let vm = VmName::new("x0").unwrap();
        state.define(vec![VmFile { name: vm.clone(), memory: Mebibytes(1), spec: VmSpec::default() }]);
        let assign = || Command::Assign(vm.clone(), crate::words::Generation(1), identity(3));
        assert!(state.is_set_aside(&next, Slot(3)) && state.apply(&next, assign()).is_empty());
        let proven = next.with_proven(Slot(3)).unwrap();
        let text = proven.text.replacen("edition = 3", "edition = 3\nkey = 2", 1);
        let both = Config::parse(&text).unwrap();
        assert!(state.no_change(&next, &both).unwrap().contains("at a time"), "with another key");
        let again = next.text.replacen("name = \"node2\"", "name = \"node2\"\non_trial = true", 1);
        let again = Config::parse(&again.replacen("edition = 2", "edition = 3", 1)).unwrap();
        assert!(state.no_change(&next, &again).is_some(), "nobody comes to be on trial");
        let said = state.apply(&next, Command::Configure(proven.text.clone()));
        assert!(matches!(&said[..], [Trace::TrialEnded { node, .. }] if node == "node3"), "{said:?}");
        assert_eq!(state.apply(&proven, assign()).len(), 1);
    }

    #[test]
    fn the_key_changes_with_a_removal_or_alone() {
        let (config, mut state) = standing(Standing::Off);
        let next = config.with_key(2).unwrap();
        let said = state.apply(&config, Command::Configure(next.text.clone()));
        assert_eq!(said, [Trace::Rekeyed { key: 2, edition: next.edition }]);
        assert!(state.fits(&next) && state.members.len() == 3);
        let third = next.without_node(Slot(2), 3).unwrap();
        assert_eq!((third.key, third.with_node(NODE3).unwrap().key), (3, 3));
        assert_eq!(state.apply(&next, Command::Configure(third.text.clone())).len(), 1);
        assert_eq!(state.roster, Roster::of(&third));
    }

    #[test]
    fn a_node_of_several_votes_is_not_removed() {
        let text = include_str!("../config/good.toml").replacen("name = \"node2\"", "name = \"node2\"\nvotes = 3", 1);
        let config = Config::parse(&text).unwrap();
        let mut state = State::formed(&config, ClusterGeneration(1), &(0..3).map(identity).collect::<Vec<_>>());
        state.members.get_mut(&Slot(2)).unwrap().standing = Standing::Off;
        let reason = state.no_change(&config, &config.without_node(Slot(2), 2).unwrap()).unwrap();
        assert!(reason.contains("node2 has several votes") && reason.contains("removed = true"), "{reason}");
    }

    /// Every way to give four slots up to three votes each, every way to change one vote of them, and every way to part the
    /// slots in two halves: never are both of them majorities, each by its own edition.
    #[test]
    fn majorities_of_two_editions_in_a_row_have_a_node_in_common() {
        let (good, _) = formed();
        let of = |votes: [u8; 4]| {
            let node = |votes| NodeConfig { votes, removed: votes == 0, ..good.nodes[1].clone() };
            Config { nodes: votes.map(node).to_vec(), ..good.clone() }
        };
        let both = |one: &Config, other: &Config| {
            (0..16_u8).any(|half| {
                let slots = |inside| (0..4).filter(move |slot| (half >> slot & 1 == 1) == inside).map(Slot);
                one.votes(slots(true)) >= one.majority() && other.votes(slots(false)) >= other.majority()
            })
        };
        let (mut pairs, mut parted) = (0, 0);
        for n in 0..256_u16 {
            let votes = [n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6 & 3].map(|votes| u8::try_from(votes).unwrap());
            let one = of(votes);
            for slot in 0..4 {
                for more in [1, 2] {
                    let mut changed = votes;
                    changed[slot] += more;
                    let other = of(changed);
                    assert_eq!(one.votes_apart(&other), usize::from(more));
                    let parts = both(&one, &other) || both(&other, &one);
                    assert!(!parts || more > 1, "{votes:?} and {changed:?}");
                    (pairs, parted) = (pairs + 1, parted + u32::from(parts));
                }
            }
        }
        assert_eq!(pairs, 2_048);
        assert!(parted > 0, "two votes more do part some clusters: the rule is needed");
    }

    #[test]
    fn a_snapshot_carries_the_edition_and_one_of_version_2_has_none() {
        let (config, mut state) = formed();
        let next = config.with_node(NODE3).unwrap();
        state.apply(&config, Command::Configure(next.text.clone()));
        let bytes = state.to_bytes();
        assert_eq!(State::from_bytes(&bytes, &config), Some(state.clone()));
        let old = postcard::to_allocvec(&state).unwrap();
        assert_eq!(State::from_bytes(&old, &next), Some(state.clone()), "everybody has the same file then");
        assert_eq!(postcard::from_bytes::<State>(&bytes).unwrap().vms, state.vms, "as version 2 reads it");
        let third = old.len() + postcard::to_allocvec(&(&state.roster, &state.recalled)).unwrap().len();
        for length in 0..bytes.len() {
            let part = State::from_bytes(&bytes[..length], &config);
            assert_eq!(part.is_some(), length == old.len() || length == third, "{length}");
        }
    }
}

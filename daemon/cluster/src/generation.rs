//! Which generation this node belongs to: forming one, joining one, giving one up.
//!
//! A node of no generation *seeks*. When the seekers that hear each other are all configured nodes, or have been a majority
//! for `initdead`, the one in the lowest slot *forms* a new generation of them ([`formation`]). A form is an order to
//! begin the agreement with these identities as voters; each identity begins at most one, because beginning it ends the
//! seeking, and so two forms cannot both find a majority of the configured slots. A node that hears a living generation
//! waits to be brought in by its DC and takes part as soon as the first message of the agreement reaches it.
//!
//! Only seekers of one edition of `cluster.toml` form a generation: the voters must be the same for all of them. Whoever has an
//! older one is told the newer first ([`crate::node`]).
//!
//! A node that has begun never seeks again under the same identity: it would have forgotten what it voted. It gives the
//! generation up ([`Belonging::verdict`]) when so many of its voters were heard in a new life that the rest is no
//! majority, or when it never became quorate in `initdead`, or when it is elected while the state holds it for unclean (a
//! node never fences itself, and who comes back in a new life of the same boot is clean); then it seeks as a new identity, and its VMs keep running.

use std::collections::BTreeSet;

use crate::agreement::{Agreement, mix};
use crate::config::Config;
use crate::hearing::{Hearing, Peer};
use crate::state::{Standing, State};
use crate::trace::Trace;
use crate::wire::Form;
use crate::words::{ClusterGeneration, Identity, Instant};

/// A node that seeks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seeking {
    /// Since when the seekers that it hears are a majority.
    majority_since: Option<Instant>,
}

/// A node that belongs to a generation.
#[derive(Debug)]
pub(crate) struct Belonging {
    pub(crate) generation: ClusterGeneration,
    pub(crate) agreement: Agreement,
    /// `None` until a newcomer was sent a snapshot.
    pub(crate) state: Option<State>,
    /// The form, as long as members may need it.
    pub(crate) form: Option<Form>,
    pub(crate) since: Instant,
    pub(crate) was_quorate: bool,
    /// Since when it is inquorate; `None` while it is quorate.
    pub(crate) inquorate_since: Option<Instant>,
}

/// Decides whether this seeker forms a generation now, of whom.
pub(crate) fn formation(
    seeking: &mut Seeking,
    now: Instant,
    me: Identity,
    seed: u64,
    config: &Config,
    hearing: &Hearing,
) -> Option<Form> {
    let mut present = vec![me];
    let (mut living, mut newer) = (false, false);
    for peer in hearing.alive(now, config.timing.warntime) {
        let other = peer.beat.edition.filter(|edition| *edition != config.edition);
        match peer.beat.generation {
            // Whoever has a newer edition is about to tell it; whoever has an older one, to be told.
            None if other.is_some() => newer |= other > Some(config.edition),
            None if !config.has(peer.identity.slot) => {}
            None => present.push(peer.identity),
            Some(_) => living |= peer.beat.quorate,
        }
    }
    present.sort();
    let slots = || present.iter().map(|identity| identity.slot);
    if living || newer || config.votes(slots()) < config.majority() {
        seeking.majority_since = None;
        return None;
    }
    let since = *seeking.majority_since.get_or_insert(now);
    let complete = present.len() == config.slots().count();
    let waited = now.since(since) >= config.timing.initdead;
    let first = present.first() == Some(&me);
    let number = mix(seed ^ mix(me.voter(0) ^ mix(now.millis())));
    let edition = Some(config.edition);
    (first && (complete || waited)).then_some(Form { generation: ClusterGeneration(number), present, edition })
}

impl Belonging {
    /// Begins a generation that is formed of `form.present`.
    pub(crate) fn form(now: Instant, me: Identity, seed: u64, config: &Config, form: Form) -> Self {
        let members: Vec<Identity> = config
            .slots()
            .map(|(slot, _)| {
                let present = form.present.iter().find(|identity| identity.slot == slot);
                present.copied().unwrap_or(Identity::absent(slot))
            })
            .collect();
        let state = State::formed(config, form.generation, &form.present);
        let agreement = Agreement::form(me, seed, config, &members, &state.to_bytes());
        let generation = form.generation;
        Self { state: Some(state), form: Some(form), ..Self::new(now, generation, agreement) }
    }

    /// Begins to take part in a generation that others are in.
    pub(crate) fn join(now: Instant, me: Identity, seed: u64, config: &Config, generation: ClusterGeneration) -> Self {
        Self::new(now, generation, Agreement::join(me, seed, config))
    }

    fn new(now: Instant, generation: ClusterGeneration, agreement: Agreement) -> Self {
        Self {
            generation,
            agreement,
            state: None,
            form: None,
            since: now,
            was_quorate: false,
            inquorate_since: Some(now),
        }
    }

    /// Whether this node is a member and a leader that is known hears it.
    pub(crate) fn is_quorate(&self) -> bool {
        self.inquorate_since.is_none()
    }

    /// Whether this node may act as DC: it leads, knows everything that was committed, and is not itself to be fenced.
    pub(crate) fn may_act(&self, me: Identity) -> bool {
        self.agreement.leads_with_knowledge() && !self.agreement.has_resigned() && !self.is_unclean(me)
    }

    /// What the operator has begun and will not go on after this generation.
    pub(crate) fn loses(&self) -> Option<Trace> {
        self.state.as_ref().filter(|state| state.rolling.goes_on()).map(|_| Trace::RollingLost)
    }

    /// Whether another voter of this generation is heard.
    pub(crate) fn hears_a_voter(&self, now: Instant, me: Identity, config: &Config, hearing: &Hearing) -> bool {
        let voters: BTreeSet<Identity> = self.agreement.voters().flatten().filter(|voter| *voter != me).collect();
        let ours = |peer: &Peer| peer.beat.generation == Some(self.generation) && voters.contains(&peer.identity);
        hearing.alive(now, config.timing.deadtime).any(ours)
    }

    fn is_unclean(&self, me: Identity) -> bool {
        let member = self.state.as_ref().and_then(|state| state.member(me));
        member.is_some_and(|member| member.standing == Standing::Unclean)
    }

    /// Whether this very boot was proven off, though it lives: another way than its outlets was believed.
    pub(crate) fn was_fenced(&self, me: Identity) -> bool {
        let member = self.state.as_ref().and_then(|state| state.members.get(&me.slot));
        member.is_some_and(|member| {
            member.identity.same_boot(me) && matches!(member.standing, Standing::Fenced | Standing::Booting)
        })
    }

    /// Takes note of whether there is a leader that hears this node; says whether that has changed. To hear a leader is
    /// not enough: a DC that does not hear this node is about to have it fenced, and counts on its lease to run.
    pub(crate) fn note_quorum(&mut self, now: Instant, me: Identity, config: &Config, hearing: &Hearing) -> bool {
        let member = self.state.as_ref().is_some_and(|state| state.member(me).is_some());
        let heard = |leader: Identity| leader == me || hearing.is_led_by(leader, now, config.timing.deadtime);
        let quorate = member && self.agreement.leader().is_some_and(heard);
        let changed = quorate != self.is_quorate();
        self.inquorate_since = (!quorate).then(|| self.inquorate_since.unwrap_or(now));
        self.was_quorate |= quorate;
        changed
    }

    /// Why this generation is to be given up, if it is.
    pub(crate) fn verdict(
        &self,
        now: Instant,
        me: Identity,
        config: &Config,
        hearing: &Hearing,
    ) -> Option<&'static str> {
        if self.agreement.is_leader() && self.is_unclean(me) {
            return Some("it leads, but an earlier DC has suspected it");
        }
        if self.is_quorate() {
            return None;
        }
        if !self.was_quorate && now.since(self.since) >= config.timing.initdead {
            return Some("it never became quorate");
        }
        // Whom this node has not heard since it began may only be known to it under an older life.
        let replaces = |peer: &Peer, voter: Identity| {
            let older = peer.identity.same_boot(voter) && peer.identity.life < voter.life;
            peer.identity != voter && !older && peer.last >= self.since
        };
        let left = |voter: &&Identity| {
            let replaced = hearing.peer(voter.slot).is_some_and(|peer| replaces(peer, **voter));
            // Whoever was removed is off for good.
            **voter == me || !(voter.is_absent() || replaced || config.has_removed(voter.slot))
        };
        let lost = |set: Vec<Identity>| set.iter().filter(left).count() <= set.len() / 2;
        self.agreement.voters().any(lost).then_some("it can never again be quorate")
    }
}

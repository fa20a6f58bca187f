//! What the DC decides: whom to suspect and fence, and who comes in; what becomes of VMs is [`crate::mover`]'s.
//!
//! It only proposes; what counts is what is committed. Everything here is recomputed from the committed state and from
//! who is heard, at every turn; what it remembers between turns are open operations and when to try again. A DC that
//! loses its office forgets all of it, and the next one begins from the state.

use std::collections::BTreeMap;

use crate::agreement::Agreement;
use crate::drill::Drill;
use crate::fencing::Cause;
use crate::hearing::{Hearing, Peer};
use crate::host::{Desk, Host};
use crate::limits;
use crate::mover::Mover;
use crate::operator;
use crate::rolling::Roller;
use crate::scene::Sight;
use crate::shared::Remounts;
use crate::state::{Command, Member, Standing};
use crate::trace::Trace;
use crate::words::{Failing, Identity, Instant, Role};

/// The office.
#[derive(Clone, Debug)]
pub(crate) struct Dc {
    since: Instant,
    /// Who was suspected, and why at first.
    suspected: BTreeMap<Identity, Cause>,
    /// The attempts at fencing, and when each was seen to be under way or to have failed first.
    attempts: BTreeMap<Identity, (u32, bool, Instant)>,
    drill: Drill,
    mover: Mover,
    roller: Roller,
    remounts: Remounts,
    /// When to hand the office over next, if it has to.
    hands_over: Instant,
}

impl Dc {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            suspected: BTreeMap::new(),
            attempts: BTreeMap::new(),
            drill: Drill::default(),
            mover: Mover::default(),
            roller: Roller::default(),
            remounts: Remounts::default(),
            hands_over: now,
        }
    }

    /// Looks at everything once.
    pub(crate) fn review(&mut self, desk: &mut Desk<'_>, hearing: &Hearing, agreement: &mut Agreement, host: &Host) {
        self.bring_in(desk, hearing, agreement);
        self.hand_over(desk, hearing, agreement);
        self.suspect(desk, hearing);
        self.fence(desk, hearing);
        operator::catch_up(desk, hearing, agreement);
        self.drill.review(desk, hearing, agreement);
        self.remounts.review(desk);
        let (now, me, config, state) = (desk.now, desk.me, desk.config, desk.state);
        let sight = Sight { now, me, config, state, hearing, host };
        self.mover.review(desk, &sight, agreement.applied());
        self.roller.review(desk, &sight);
    }

    /// Nobody has the power cut of who is DC: one on trial lets another be it.
    fn hand_over(&mut self, desk: &Desk<'_>, hearing: &Hearing, agreement: &mut Agreement) {
        if !desk.config.node(desk.me.slot).on_trial || desk.now < self.hands_over {
            return;
        }
        let fit = |peer: &&Peer| {
            let well = peer.beat.failing.is_none() && desk.state.is_member(peer.identity);
            well && !desk.config.node(peer.identity.slot).on_trial
        };
        if let Some(peer) = hearing.alive(desk.now, desk.config.timing.warntime).find(fit) {
            self.hands_over = desk.now + limits::HAND_OVER;
            agreement.hand_over(peer.identity);
        }
    }

    fn bring_in(&self, desk: &Desk<'_>, hearing: &Hearing, agreement: &mut Agreement) {
        let kept = is_kept(desk, hearing);
        if kept {
            agreement.reseat(desk.config);
        }
        for peer in hearing.alive(desk.now, desk.config.timing.deadtime) {
            let slot = peer.identity.slot;
            let ours = peer.beat.generation.is_none_or(|generation| generation == desk.state.generation);
            // A boot that was proven off, though it lives, must not come back as if nothing had happened.
            let dead = |member: &Member| {
                member.identity.same_boot(peer.identity)
                    && matches!(member.standing, Standing::Fenced | Standing::Booting)
            };
            if let Some(member) = desk.state.members.get(&slot)
                && ours
                && goes_by(desk, peer)
                && can_be_heard(desk, peer)
                && (kept || agreement.has_seat(slot))
                && member.identity != peer.identity
                && !dead(member)
            {
                agreement.bring_in(peer.identity);
            }
        }
    }

    fn suspect(&mut self, desk: &mut Desk<'_>, hearing: &Hearing) {
        for (slot, member) in &desk.state.members {
            if !member.is_present() || *slot == desk.me.slot || desk.config.node(*slot).role != Role::Node {
                continue;
            }
            // Whoever is heard from that slot counts: a new life of it is about to be brought in.
            let silence = desk.now.since(hearing.peer(*slot).map_or(self.since, |peer| peer.last));
            let failing = self.is_failing(desk, hearing, member.identity);
            let cause = match failing {
                Some(reason) => Cause::Failing(reason),
                None if silence >= desk.config.timing.deadtime => Cause::Silent(silence),
                None => {
                    self.suspected.remove(&member.identity);
                    continue;
                }
            };
            let (node, identity) = (desk.name(*slot), member.identity);
            let cause = self.suspected.entry(identity).or_insert_with(|| {
                desk.say(match failing {
                    Some(_) => Trace::SuspectedFailing { node },
                    None => Trace::Suspected { node, silence },
                });
                cause
            });
            if !desk.state.is_disarmed(*slot) {
                desk.proposals.push(Command::Suspect(identity, cause.clone()));
            }
        }
    }

    /// The death that it has announced, which needs no deadtime. But as long as its vote is needed it is not fenced: it
    /// resets itself.
    fn is_failing(&self, desk: &Desk<'_>, hearing: &Hearing, identity: Identity) -> Option<Failing> {
        let peer = hearing.peer(identity.slot).filter(|peer| peer.identity == identity);
        let reason = peer.and_then(|peer| peer.beat.failing)?;
        let others = hearing.alive(desk.now, desk.config.timing.warntime).map(|peer| peer.identity.slot);
        let others = others.filter(|slot| *slot != identity.slot).chain([desk.me.slot]);
        if desk.config.votes(others) < desk.config.majority() {
            return None;
        }
        let certain = match reason {
            Failing::Storage | Failing::Hypervisor | Failing::Shared => true,
            // The majority may have just come back, and this node with it: then it is about to say otherwise.
            Failing::Watchdog => desk.now.since(self.since) >= desk.config.timing.warntime,
        };
        certain.then_some(reason)
    }

    /// Has the next attempt made where one has failed: the next level at once, and after the last a new round.
    fn fence(&mut self, desk: &mut Desk<'_>, hearing: &Hearing) {
        let state = desk.state;
        let unclean = |member: &Member| member.standing == Standing::Unclean;
        self.attempts.retain(|identity, _| state.member(*identity).is_some_and(unclean));
        for member in state.members.values().filter(|member| unclean(member)) {
            let (identity, attempt) = (member.identity, member.attempt);
            if state.is_disarmed(identity.slot) {
                let mut heard = hearing.alive(desk.now, desk.config.timing.warntime);
                if heard.any(|peer| peer.identity == identity && peer.beat.failing.is_none()) {
                    desk.proposals.push(Command::Spare(identity));
                }
                continue;
            }
            let failed = member.failed >= attempt;
            let seen = self.attempts.entry(identity).or_insert((attempt, failed, desk.now));
            if (seen.0, seen.1) != (attempt, failed) {
                *seen = (attempt, failed, desk.now);
            }
            let waited = desk.now.since(seen.2);
            let levels = u32::try_from(desk.config.node(identity.slot).fencing.len()).unwrap_or(1);
            let round = attempt.checked_rem(levels) == Some(0);
            if failed && (!round || waited >= limits::RETRY) {
                desk.proposals.push(Command::Attempt(identity, attempt.saturating_add(1)));
            } else if !failed && waited >= limits::FENCE + limits::RETRY {
                // Whoever was to make it is gone, or says nothing.
                desk.proposals.push(Command::NotProven(identity, attempt));
            }
        }
    }
}

/// Whether a node goes by the edition of `cluster.toml` that holds. Who tells none is of a version that knows the first only.
fn goes_by(desk: &Desk<'_>, peer: &Peer) -> bool {
    let edition = desk.state.roster.edition;
    peer.beat.edition.map_or(edition.number <= 1, |told| told == edition)
}

/// Whether a newcomer holds what all seal with: it waits until a change of the cluster's key is over.
fn can_be_heard(desk: &Desk<'_>, peer: &Peer) -> bool {
    let key = desk.config.key;
    peer.beat.keys.is_none_or(|told| told.holds >= key && desk.keys.told.seals >= key)
}

/// Whether the present members that keep it for their next boot are a majority of the votes, and the gateway is one of them:
/// from there the nodes boot. Before that a slot is not filled, and nothing else is changed: or a majority could boot that
/// has never heard of it.
pub(crate) fn is_kept(desk: &Desk<'_>, hearing: &Hearing) -> bool {
    // With whoever has died meanwhile, or boots anew and does not vote yet, the change could begin and never end.
    let votes = |peer: &&Peer| desk.state.member(peer.identity).is_some_and(Member::is_present);
    let slots = || {
        let peers = hearing.alive(desk.now, desk.config.timing.warntime).filter(|peer| goes_by(desk, peer));
        peers.filter(votes).map(|peer| peer.identity.slot).chain(desk.kept.then_some(desk.me.slot))
    };
    let gateway = desk.config.gateway();
    gateway.is_none_or(|(gateway, _)| slots().any(|slot| slot == gateway))
        && desk.config.votes(slots()) >= desk.config.majority()
}

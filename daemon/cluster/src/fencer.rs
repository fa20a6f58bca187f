//! What this node does to prove that another is off: the attempts that the committed state asks for.
//!
//! The DC decides that an attempt is due ([`crate::dc`]); its number says its level, and the level says who carries it out:
//! the DC itself, the node that holds the serial cables, or the gateway. Whoever it is works on the committed state alone,
//! proposes the proof that it has got, or that the attempt has failed. So an office that changes hands in the middle
//! loses nothing, and a proof of an attempt that was overtaken is a proof all the same.

use std::collections::BTreeMap;

use crate::config::{By, Level};
use crate::event::{Outcome, Path, Work};
use crate::fencing::{Proven, Reading, watchdog_wait};
use crate::hearing::Hearing;
use crate::host::Desk;
use crate::limits;
use crate::state::{Command, Member, Standing};
use crate::trace::Trace;
use crate::words::{Identity, Instant, OpId, Slot};

/// One member, as far as this node is busy with it.
#[derive(Clone, Debug, Default)]
struct Case {
    op: Option<OpId>,
    /// The last attempt that this node began.
    begun: u32,
    /// The last attempt that failed here, until the state says so.
    failed: Option<u32>,
    /// When to try again to give it power.
    not_before: Instant,
    proven: Option<Proven>,
    restored: bool,
    /// Since when this node, as DC, knows that the member is unclean.
    since: Option<Instant>,
    /// When it was last said that time alone can prove it, or that it cannot.
    said: Option<Instant>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fencer(BTreeMap<Identity, Case>);

impl Fencer {
    /// Looks at every member once. `acting` says whether this node acts as DC.
    pub(crate) fn review(&mut self, desk: &mut Desk<'_>, hearing: &Hearing, acting: bool) {
        let state = desk.state;
        let busy = |member: &Member| matches!(member.standing, Standing::Unclean | Standing::Fenced | Standing::Waking);
        self.0.retain(|identity, _| state.member(*identity).is_some_and(busy));
        for member in state.members.values() {
            if member.standing == Standing::Waking {
                if acting && !state.is_disarmed(member.identity.slot) {
                    self.0.entry(member.identity).or_default().wake(desk, member);
                }
                continue;
            }
            let Some(level) = member.level(desk.config).filter(|_| busy(member)) else { continue };
            let by_me = match desk.config.fenced_by(member.identity.slot, level) {
                Some(By::Dc) => acting,
                Some(By::Node(slot)) => slot == desk.me.slot,
                None => false,
            };
            let case = self.0.entry(member.identity).or_default();
            case.since = if acting { case.since.or(Some(desk.now)) } else { None };
            if case.op.is_some() || desk.state.is_disarmed(member.identity.slot) {
                continue;
            }
            match member.standing {
                Standing::Unclean => case.prove(desk, hearing, member, by_me.then_some(level)),
                Standing::Fenced => {
                    if let Some(path) = gives_power(desk, hearing, member.identity.slot, level, acting) {
                        case.restore(desk, member, path);
                    }
                }
                Standing::Member | Standing::Leaving | Standing::Off | Standing::Waking | Standing::Booting => {}
            }
        }
    }

    /// An operation on outlets or on the storage has ended.
    pub(crate) fn done(&mut self, desk: &mut Desk<'_>, op: OpId, work: &Work, outcome: Outcome) {
        let Some((identity, case)) = self.0.iter_mut().find(|(_, case)| case.op == Some(op)) else {
            return;
        };
        case.op = None;
        let node = desk.name(identity.slot);
        let feeds = &desk.config.node(identity.slot).outlets;
        let on = matches!(work, Work::OutletsOn { .. });
        let wakes = desk.state.member(*identity).is_some_and(|member| member.standing == Standing::Waking);
        let result = match outcome {
            Outcome::Read(readings) if on => {
                let all = feeds.iter().all(|feed| readings.get(feed) == Some(&Reading::On));
                if all { Ok(None) } else { Err("an outlet is not on".to_owned()) }
            }
            Outcome::Read(readings) => Proven::by_outlets(*identity, feeds, &readings).map(Some),
            Outcome::Barred(boot) => Proven::by_cut_off(*identity, boot)
                .map(Some)
                .ok_or_else(|| "the storage has barred another boot".to_owned()),
            Outcome::Failed(reason) => Err(reason),
            Outcome::Succeeded | Outcome::Reserved(_) => Err("it was not read back".to_owned()),
        };
        match result {
            Ok(Some(proven)) => {
                // A power supply is to run empty before it is fed again.
                case.not_before = desk.now + limits::RETRY;
                case.proven = Some(proven);
            }
            Ok(None) => case.restored = true,
            Err(reason) if on || wakes => {
                case.not_before = desk.now + limits::RETRY;
                desk.say(Trace::NotPoweredOn { node, reason });
            }
            Err(reason) => {
                case.failed = Some(case.begun);
                desk.say(Trace::NotFenced { node, reason });
            }
        }
    }
}

/// The way by which this node is to give power back to one that was cut from it at that level, if it is the one: the DC, or
/// who holds the cable where SNMP was no way. Where that one is gone it is the DC again.
fn gives_power(desk: &Desk<'_>, hearing: &Hearing, slot: Slot, level: Level, acting: bool) -> Option<Path> {
    let without_snmp = level == Level::Serial || !desk.config.node(slot).fencing.contains(&Level::Snmp);
    match desk.config.fenced_by(slot, Level::Serial).filter(|_| without_snmp) {
        Some(By::Node(holder)) if holder == desk.me.slot => Some(Path::Serial),
        Some(By::Node(holder))
            if hearing.alive(desk.now, desk.config.timing.deadtime).any(|peer| peer.identity.slot == holder) =>
        {
            None
        }
        Some(By::Node(_) | By::Dc) | None => acting.then_some(Path::Snmp),
    }
}

impl Case {
    /// Works on the attempt that is under way, if its level is this node's.
    fn prove(&mut self, desk: &mut Desk<'_>, hearing: &Hearing, member: &Member, level: Option<Level>) {
        if let Some(proven) = &self.proven {
            return desk.proposals.push(Command::Proven(proven.clone()));
        }
        if member.failed >= member.attempt {
            return;
        }
        if self.failed == Some(member.attempt) {
            return desk.proposals.push(Command::NotProven(member.identity, member.attempt));
        }
        if self.begun == member.attempt {
            return;
        }
        let Some(level) = level else { return };
        self.begun = member.attempt;
        let (identity, node) = (member.identity, desk.name(member.identity.slot));
        let work = match level {
            Level::Snmp | Level::Serial => {
                let path = if level == Level::Snmp { Path::Snmp } else { Path::Serial };
                let outlets = desk.config.node(identity.slot).outlets.clone();
                desk.say(Trace::Fencing { node, outlets: outlets.clone(), path });
                Work::OutletsOff { slot: identity.slot, outlets, path }
            }
            Level::Storage => {
                desk.say(Trace::Barring { node });
                Work::Bar { slot: identity.slot, incarnation: identity.incarnation }
            }
            Level::Watchdog => return self.ask_the_clock(desk, hearing, identity),
        };
        self.op = Some(desk.begin(limits::FENCE, work));
    }

    /// The watchdog level needs nothing but time: it proves, or has failed for now.
    fn ask_the_clock(&mut self, desk: &mut Desk<'_>, hearing: &Hearing, identity: Identity) {
        let node = desk.name(identity.slot);
        let heard = hearing.peer(identity.slot).filter(|peer| peer.identity == identity);
        let armed = heard.is_some_and(|peer| peer.beat.armed == Some(desk.state.armament));
        let waited = desk.now.since(self.since.unwrap_or(desk.now));
        self.proven = Proven::by_watchdog(identity, armed, waited, &desk.config.timing);
        if self.proven.is_none() {
            self.failed = Some(self.begun);
            if self.said.is_some_and(|said| desk.now.since(said) < limits::SAY_AGAIN) {
                return;
            }
            self.said = Some(desk.now);
            let wait = watchdog_wait(&desk.config.timing).saturating_sub(waited);
            desk.say(if armed { Trace::AwaitingWatchdog { node, wait } } else { Trace::NotArmed { node } });
        }
    }

    /// Switches the outlets of a member off and on that has switched itself off.
    fn wake(&mut self, desk: &mut Desk<'_>, member: &Member) {
        if self.op.is_some() {
            return;
        }
        if self.proven.is_some() {
            return self.restore(desk, member, Path::Snmp);
        }
        if desk.now < self.not_before {
            return;
        }
        let slot = member.identity.slot;
        let outlets = desk.config.node(slot).outlets.clone();
        desk.say(Trace::Waking { node: desk.name(slot), outlets: outlets.clone() });
        self.op = Some(desk.begin(limits::FENCE, Work::OutletsOff { slot, outlets, path: Path::Snmp }));
    }

    /// Gives power back to a member that was cut from it.
    fn restore(&mut self, desk: &mut Desk<'_>, member: &Member, path: Path) {
        if self.restored {
            return desk.proposals.push(Command::Restored(member.identity));
        }
        if desk.now < self.not_before {
            return;
        }
        let slot = member.identity.slot;
        let outlets = desk.config.node(slot).outlets.clone();
        desk.say(Trace::PoweringOn { node: desk.name(slot), outlets: outlets.clone() });
        self.op = Some(desk.begin(limits::FENCE, Work::OutletsOn { slot, outlets, path }));
    }
}

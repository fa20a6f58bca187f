//! A rolling restart, as the DC leads it: whose turn is next, each step when all is well, and when to give up.
//!
//! `state/rolling.rs` has what is agreed. Here is what the agreed state cannot know: who is heard, whether the VMs of the next
//! node would find a place elsewhere, in which version a node comes back, and for how long nothing has gone on.

use crate::hearing::Heartbeat;
use crate::host::Desk;
use crate::placement;
use crate::scene::{Sight, Wishes};
use crate::state::{Command, Member, Rolling, Standing, Turn};
use crate::wire;
use crate::words::{Identity, Instant, Slot};

/// How far it is: whenever that changes, the next step has its time.
type Stage = (Rolling, Option<(Identity, Standing)>, usize);

/// What the DC remembers of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roller {
    /// When to look again.
    next: Instant,
    /// How far it was, and since when.
    stage: Option<(Stage, Instant)>,
}

impl Roller {
    /// Takes the next step, if one is due; stops it where nothing goes on for too long.
    pub(crate) fn review(&mut self, desk: &mut Desk<'_>, sight: &Sight<'_>) {
        let rolling = &desk.state.rolling;
        if !rolling.is_active() {
            return self.stage = None;
        }
        if desk.now < self.next {
            return;
        }
        self.next = desk.now + desk.config.timing.keepalive;
        let there = rolling.turn.and_then(|turn| desk.state.members.get(&turn.slot));
        let vms = there.map_or(0, |member| desk.state.vms.values().filter(|vm| vm.concerns(member.identity)).count());
        let stage = (rolling.clone(), there.map(|member| (member.identity, member.standing)), vms);
        let since = match &self.stage {
            Some((was, since)) if *was == stage => *since,
            Some(_) | None => desk.now,
        };
        self.stage = Some((stage, since));
        match rolling.turn.map_or_else(|| begin(sight, desk.version), |turn| go_on(sight, turn)) {
            Ok(command) => desk.proposals.push(command),
            Err(reason) if desk.now.since(since) >= desk.config.timing.step() => {
                desk.proposals.push(Command::StopRolling(rolling.number, reason));
            }
            Err(_) => {}
        }
    }
}

/// Whose turn is next; or what it waits for. Whoever has no VMs comes first, and the DC last. This node speaks `version`.
fn begin(sight: &Sight<'_>, version: u8) -> Result<Command, String> {
    let state = sight.state;
    let cost = |slot: &Slot| {
        let vms = state.vms.values().filter(|vm| vm.owner().is_some_and(|at| at.slot == *slot)).count();
        (*slot == sight.me.slot, vms)
    };
    let next = state.rolling.todo.keys().copied().min_by_key(cost);
    let member = next.and_then(|slot| state.members.get(&slot)).ok_or_else(String::new)?;
    let at = member.identity;
    let old = || (version < wire::ROLLING).then(|| "a node runs an older program".to_owned());
    match no_turn(sight, |slot| slot == at.slot).or_else(old) {
        Some(reason) => Err(reason),
        None => Ok(Command::Turn(state.rolling.number, at, last_beat(sight, at).map_or(version, |beat| beat.speaks))),
    }
}

/// The next step of whose turn it is; or what it waits for.
fn go_on(sight: &Sight<'_>, turn: Turn) -> Result<Command, String> {
    let (state, node) = (sight.state, sight.config.node_name(turn.slot));
    let gone = || format!("{node} is not back: look at its screen, or switch it off and on");
    let member = state.members.get(&turn.slot).ok_or_else(gone)?;
    let at = member.identity;
    let back = at.incarnation != turn.boot;
    match member.standing {
        Standing::Member if back => {
            let Some(beat) = last_beat(sight, at) else { return Err(is_silent(&node)) };
            let speaks = beat.speaks;
            if speaks < turn.speaks {
                let reason = format!("{node} came back with an older program, version {speaks} after {}", turn.speaks);
                return Ok(Command::StopRolling(state.rolling.number, format!("{reason}: look at what it boots from")));
            }
            if !beat.quorate {
                Err(format!("{node} is back, but does not hear the DC"))
            } else if !state.lockspace.serves(turn.slot) {
                Err(format!("{node} is back, but has not mounted the shared file system"))
            } else {
                Ok(Command::Returned(at))
            }
        }
        Standing::Member => match state.vms.iter().find(|(_, vm)| vm.concerns(at)) {
            Some((vm, _)) => Err(format!("VM {vm} does not leave {node}: make room for it, or stop it")),
            // One may have fallen since the turn began: two would be missing.
            None => silent_member(sight).map_or(Ok(Command::Leave(at)), Err),
        },
        Standing::Leaving => Err(format!("{node} does not let go of the shared file system")),
        Standing::Off | Standing::Waking | Standing::Unclean | Standing::Fenced | Standing::Booting => Err(gone()),
    }
}

/// What a member said last, if that was lately.
fn last_beat<'a>(sight: &Sight<'a>, at: Identity) -> Option<&'a Heartbeat> {
    let peer = sight.hearing.peer(at.slot).filter(|peer| peer.identity == at);
    let recent = peer.filter(|peer| sight.now.since(peer.last) < sight.config.timing.warntime);
    recent.map(|peer| &peer.beat)
}

/// Which member is not heard, if one is not.
fn silent_member(sight: &Sight<'_>) -> Option<String> {
    let silent = |member: &&Member| {
        let (at, mut alive) = (member.identity, sight.hearing.alive(sight.now, sight.config.timing.warntime));
        member.standing == Standing::Member && at != sight.me && !alive.any(|peer| peer.identity == at)
    };
    let member = sight.state.members.values().find(silent)?;
    Some(is_silent(&sight.config.node_name(member.identity.slot)))
}

fn is_silent(node: &str) -> String {
    format!("{node} is silent")
}

/// Why none of these nodes may be restarted now; nothing if all is well.
pub(crate) fn no_turn(sight: &Sight<'_>, concerns: impl Fn(Slot) -> bool) -> Option<String> {
    let (state, config) = (sight.state, sight.config);
    if let Some(reason) = state.unrest(config) {
        return Some(reason);
    }
    if state.restarts_nobody(config) {
        return Some("there is no node that is neither in standby nor in maintenance".to_owned());
    }
    if let Some(reason) = silent_member(sight) {
        return Some(reason);
    }
    let scene = sight.scene(&Wishes::default());
    let short = placement::shortfalls(&scene.inventory).into_iter().find_map(|short| {
        let at = scene.node(short.node).filter(|at| concerns(at.slot))?;
        Some((at.slot, short.vms.first().and_then(|vm| scene.vm(*vm))?.clone()))
    });
    short.map(|(slot, vm)| {
        let node = config.node_name(slot);
        format!("VM {vm} would find no place while {node} restarts: make room, or stop it")
    })
}

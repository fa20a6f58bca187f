//! What operators ask for: each question is judged against the committed state until it is agreed or refused.
//!
//! Every request says how things are to be, not what to change; so it may be asked twice, of two nodes, or again after an
//! answer that was lost, and has the same effect and the same answer.

use std::collections::VecDeque;

use crate::agreement::Agreement;
use crate::config::{self, Config, Duty};
use crate::dc;
use crate::event::{Action, Actions, Answer, Request, RequestId, Transfer};
use crate::fencing::{Cause, Proven};
use crate::hearing::Hearing;
use crate::host::{Desk, Host};
use crate::limits;
use crate::placement;
use crate::rolling::no_turn;
use crate::scene::Sight;
use crate::state::{Command, Phase, Standing};
use crate::trace::Trace;
use crate::wire;
use crate::words::{Identity, Instant, Mebibytes, Role, Slot, VmName};

/// A question that is not answered yet.
#[derive(Clone, Debug)]
struct Open {
    id: RequestId,
    request: Request,
    since: Instant,
    /// Whether a command for it was proposed.
    proposed: bool,
}

/// All questions of this node's operators.
#[derive(Clone, Debug, Default)]
pub(crate) struct Operator {
    open: Vec<Open>,
    answered: VecDeque<(RequestId, Answer)>,
}

/// What is to be done about a question.
enum Judgement {
    Agreed,
    Propose(Command),
    /// It is judged again when more is known.
    Wait,
    Refuse(String),
}

use Judgement::{Agreed, Propose, Refuse, Wait};

impl Operator {
    /// A question has come.
    pub(crate) fn asked(
        &mut self,
        now: Instant,
        id: RequestId,
        request: Request,
        config: &Config,
        actions: &mut Actions,
    ) {
        if let Some((_, answer)) = self.answered.iter().find(|(other, _)| *other == id) {
            return actions.push(Action::Answer { id, answer: answer.clone() });
        }
        if self.open.iter().any(|open| open.id == id) {
            return;
        }
        actions.push(Action::Trace(Trace::Asked { request: in_words(config, &request) }));
        self.open.push(Open { id, request, since: now, proposed: false });
        if self.open.len() > limits::ANSWERS {
            let oldest = self.open.remove(0);
            self.answer(oldest, Answer::Refused("too many questions are waiting".to_owned()), config, actions);
        }
    }

    /// Whether this node was asked to leave; that question is answered hereby.
    pub(crate) fn wants_to_leave(&mut self, config: &Config, actions: &mut Actions) -> bool {
        let Some(at) = self.open.iter().position(|open| open.request == Request::ShutDown) else { return false };
        let open = self.open.remove(at);
        self.answer(open, Answer::Agreed, config, actions);
        true
    }

    /// Refuses what was not agreed in time.
    pub(crate) fn expire(&mut self, now: Instant, config: &Config, actions: &mut Actions) {
        // A key may be waited for: members ask the gateway for it, one after the other.
        let rekeys = |open: &Open| matches!(open.request, Request::RemoveNode { .. } | Request::ChangeKey { .. });
        let late = |open: &Open| now.since(open.since) >= config.timing.agree() * if rekeys(open) { 3 } else { 1 };
        while let Some(at) = self.open.iter().position(late) {
            let open = self.open.remove(at);
            let reason = match &open.request {
                Request::AddNode { .. } | Request::RemoveNode { .. } | Request::ChangeKey { .. } => {
                    "the cluster did not agree in time; is this node quorate, and has the gateway kept the last change, and given \
                     every member the key?"
                }
                Request::ShutDown
                | Request::Standby { .. }
                | Request::Maintenance { .. }
                | Request::Disarm { .. }
                | Request::Start { .. }
                | Request::Stop { .. }
                | Request::Migrate { .. }
                | Request::ConfirmOff { .. }
                | Request::Drill { .. }
                | Request::Rolling { .. } => "the cluster did not agree in time; is this node quorate?",
            };
            self.answer(open, Answer::Refused(reason.to_owned()), config, actions);
        }
    }

    /// Judges every open question. Called when quorate only.
    pub(crate) fn review(&mut self, desk: &mut Desk<'_>, hearing: &Hearing, host: &Host, agreement: &Agreement) {
        for mut open in core::mem::take(&mut self.open) {
            match judge(desk, hearing, host, agreement, &open) {
                Agreed => self.answer(open, Answer::Agreed, desk.config, desk.actions),
                Refuse(reason) => self.answer(open, Answer::Refused(reason), desk.config, desk.actions),
                Propose(command) => {
                    desk.proposals.push(command);
                    open.proposed = true;
                    self.open.push(open);
                }
                Wait => self.open.push(open),
            }
        }
    }

    fn answer(&mut self, open: Open, answer: Answer, config: &Config, actions: &mut Actions) {
        if let Answer::Refused(reason) = &answer {
            let trace = Trace::Refused { request: in_words(config, &open.request), reason: reason.clone() };
            actions.push(Action::Trace(trace));
        }
        actions.push(Action::Answer { id: open.id, answer: answer.clone() });
        self.answered.truncate(limits::ANSWERS - 1);
        self.answered.push_front((open.id, answer));
    }
}

fn judge(desk: &Desk<'_>, hearing: &Hearing, host: &Host, agreement: &Agreement, open: &Open) -> Judgement {
    let state = desk.state;
    match &open.request {
        Request::ShutDown => Agreed,
        Request::Standby { node, on } => duty(desk, *node, |duty| Duty { standby: *on, ..duty }),
        Request::Maintenance { node, on } => duty(desk, *node, |duty| Duty { maintenance: *on, ..duty }),
        Request::Disarm { node: Some(node), on } => duty(desk, *node, |duty| Duty { disarmed: *on, ..duty }),
        Request::Disarm { node: None, on } if state.disarmed == *on => Agreed,
        Request::Disarm { node: None, on } => Propose(Command::Disarm(*on)),
        Request::Start { vm } => match state.vms.get(vm) {
            None => unknown(vm),
            Some(record) if record.wanted && record.phase != Phase::Failed => Agreed,
            Some(_) => Propose(Command::Want(vm.clone(), true)),
        },
        Request::Stop { vm } => match state.vms.get(vm) {
            None => unknown(vm),
            Some(record) if !record.wanted => Agreed,
            Some(_) => Propose(Command::Want(vm.clone(), false)),
        },
        Request::Migrate { vm, to } => migrate(desk, hearing, host, vm, *to),
        Request::ConfirmOff { node, typed } => confirm(desk, *node, typed, open.proposed),
        Request::Drill { node } => drill(desk, hearing, agreement.leader(), *node),
        Request::AddNode { table } => add(desk, hearing, agreement, table),
        Request::RemoveNode { node, typed } => remove(desk, hearing, agreement, *node, typed),
        Request::ChangeKey { key } => change_key(desk, hearing, agreement, *key),
        Request::Rolling { on } => rolling(desk, hearing, host, *on),
    }
}

fn unknown(vm: &VmName) -> Judgement {
    Refuse(format!("there is no VM {vm}"))
}

fn duty(desk: &Desk<'_>, node: Slot, change: impl Fn(Duty) -> Duty) -> Judgement {
    if !desk.config.has(node) {
        return Refuse("there is no such node".to_owned());
    }
    if desk.config.node(node).role == Role::Gateway {
        return Refuse("the gateway runs no VMs".to_owned());
    }
    let now = desk.state.duty(node);
    let wanted = change(now);
    if wanted == now { Agreed } else { Propose(Command::Duty(node, wanted)) }
}

fn migrate(desk: &Desk<'_>, hearing: &Hearing, host: &Host, vm: &VmName, to: Slot) -> Judgement {
    let Some(record) = desk.state.vms.get(vm) else { return unknown(vm) };
    let Some(target) = desk.state.members.get(&to) else { return Refuse("there is no such node".to_owned()) };
    match record.phase {
        Phase::Running(at) if at.slot == to => return Agreed,
        Phase::Moving { to: other, .. } if other.slot == to => return Agreed,
        Phase::Running(_) => {}
        Phase::Stopped
        | Phase::Starting(_)
        | Phase::Moving { .. }
        | Phase::Landing(_)
        | Phase::Stopping(..)
        | Phase::Failed => return Refuse(format!("VM {vm} does not run, or is moving already")),
    }
    let name = desk.name(to);
    if target.standing != Standing::Member
        || desk.state.is_set_aside(desk.config, to)
        || desk.state.rolling.is_turn_of(target.identity)
        || desk.state.is_short_of_power(desk.config, to)
    {
        return Refuse(format!("{name} takes no VMs now"));
    }
    let free = if target.identity == desk.me {
        host.free()
    } else {
        hearing.peer(to).filter(|peer| peer.identity == target.identity).and_then(|peer| peer.beat.free)
    };
    let (free, need) = (free.unwrap_or(Mebibytes(0)), placement::need(record.memory));
    if free < need {
        return Refuse(format!("{name} has {free} free, VM {vm} needs {need}"));
    }
    Propose(Command::Migrate(vm.clone(), record.generation.next(), target.identity, Transfer::Live))
}

fn confirm(desk: &Desk<'_>, node: Slot, typed: &str, proposed: bool) -> Judgement {
    let Some(member) = desk.state.members.get(&node) else { return Refuse("there is no such node".to_owned()) };
    let name = desk.name(node);
    if member.standing != Standing::Unclean {
        return if proposed { Agreed } else { Refuse(format!("{name} is not unclean: nothing waits for its death")) };
    }
    match Proven::by_operator(member.identity, typed, &name) {
        Some(proven) => Propose(Command::Proven(proven)),
        None => Refuse(format!("\"{typed}\" is not its name")),
    }
}

fn add(desk: &Desk<'_>, hearing: &Hearing, agreement: &Agreement, table: &str) -> Judgement {
    let config = desk.config;
    if config.has_table(table) && config::name_of(table).is_some_and(|name| config.named(&name).is_some()) {
        return Agreed;
    }
    match config.with_node(table) {
        Ok(next) if desk.version < wire::TRIALS && next.nodes.last().is_some_and(|node| node.on_trial) => older(),
        Ok(next) => change(desk, hearing, agreement, &next),
        Err(error) => Refuse(error.text),
    }
}

fn remove(desk: &Desk<'_>, hearing: &Hearing, agreement: &Agreement, node: Slot, typed: &str) -> Judgement {
    let (config, name) = (desk.config, desk.name(node));
    if config.has_removed(node) {
        return Agreed;
    }
    let Some(member) = desk.state.members.get(&node) else { return Refuse("there is no such node".to_owned()) };
    if typed != name {
        return Refuse(format!("\"{typed}\" is not its name"));
    }
    if config.node(node).role == Role::Gateway {
        return Refuse("the gateway cannot be removed: all storage is there".to_owned());
    }
    let next = match config.without_node(node, next_key(desk, hearing)) {
        Ok(next) => next,
        Err(error) => return Refuse(format!("the others cannot do without it: {}", error.text)),
    };
    let heard = hearing.alive(desk.now, desk.config.timing.warntime).any(|peer| peer.identity.slot == node);
    if heard && !member.is_present() && member.standing != Standing::Unclean {
        return Refuse(format!("{name} is still heard: wait until it is off"));
    }
    change(desk, hearing, agreement, &next)
}

fn change_key(desk: &Desk<'_>, hearing: &Hearing, agreement: &Agreement, key: u32) -> Judgement {
    if desk.config.key >= key {
        return Agreed;
    }
    let next = desk.config.with_key(next_key(desk, hearing));
    next.map_or_else(|error| Refuse(error.text), |next| change(desk, hearing, agreement, &next))
}

/// Has `cluster.toml` name the newest key that anybody holds: the edition that brought it may have been lost with its generation,
/// and the gateway gives none that its file does not name.
pub(crate) fn catch_up(desk: &mut Desk<'_>, hearing: &Hearing, agreement: &Agreement) {
    let newest = desk.keys.newest(desk.now, desk.config, hearing);
    if newest > desk.config.key
        && let Ok(next) = desk.config.with_key(newest)
        && let Propose(command) = change(desk, hearing, agreement, &next)
    {
        desk.proposals.push(command);
    }
}

/// A key that nobody has yet.
fn next_key(desk: &Desk<'_>, hearing: &Hearing) -> u32 {
    desk.keys.newest(desk.now, desk.config, hearing).saturating_add(1)
}

/// The next edition of `cluster.toml`.
fn change(desk: &Desk<'_>, hearing: &Hearing, agreement: &Agreement, next: &Config) -> Judgement {
    let rekeys = next.key != desk.config.key;
    if desk.version < if rekeys { wire::KEYS } else { wire::EDITIONS } {
        return older();
    }
    if let Some(reason) = desk.state.no_change(desk.config, next) {
        return Refuse(reason);
    }
    let gateway = desk.config.gateway().map(|(slot, _)| slot).filter(|slot| *slot != desk.me.slot);
    let heard =
        |slot: Slot| hearing.alive(desk.now, desk.config.timing.warntime).any(|peer| peer.identity.slot == slot);
    if let Some(gateway) = gateway.filter(|slot| !heard(*slot)) {
        return Refuse(format!("{} is silent, and keeps cluster.toml: wait until it is heard", desk.name(gateway)));
    }
    // Only then does the next edition begin: so two that are agreed in a row are all that a majority can boot by.
    // And of keys no member ever holds more than two.
    let settled = !rekeys || desk.keys.are_settled(desk.config);
    if settled && agreement.is_seated(desk.config) && dc::is_kept(desk, hearing) {
        Propose(Command::Configure(next.text.clone()))
    } else {
        Wait
    }
}

/// A newcomer's fencing is tested once without anybody's asking, as soon as all is quiet and the gateway knows it: from there
/// it boots again. It may be cabled as no file says; so if that test has shown nothing, the next one is the operator's.
pub(crate) fn begin_trial(desk: &mut Desk<'_>, hearing: &Hearing, agreement: &Agreement, slot: Slot) {
    let state = desk.state;
    let tested = state.deaths.get(&slot).is_some_and(|death| death.cause == Cause::Tested);
    let quiet = !state.lockspace.holding && !state.rolling.is_active();
    if !tested
        && quiet
        && dc::is_kept(desk, hearing)
        && let Propose(command) = drill(desk, hearing, agreement.leader(), slot)
    {
        desk.proposals.push(command);
    }
}

/// It has passed: it is a node like the others.
pub(crate) fn end_trial(desk: &mut Desk<'_>, hearing: &Hearing, agreement: &Agreement, slot: Slot) {
    if dc::is_kept(desk, hearing)
        && let Ok(next) = desk.config.with_proven(slot)
        && let Propose(command) = change(desk, hearing, agreement, &next)
    {
        desk.proposals.push(command);
    }
}

/// A node is only fenced as a test while nothing but the node itself depends on it.
fn drill(desk: &Desk<'_>, hearing: &Hearing, dc: Option<Identity>, node: Slot) -> Judgement {
    let Some(member) = desk.state.members.get(&node) else { return Refuse("there is no such node".to_owned()) };
    let (identity, name) = (member.identity, desk.name(node));
    if desk.state.is_tested(identity) {
        return Agreed;
    }
    if desk.config.node(node).role != Role::Node {
        return Refuse("only a node's fencing can be tested".to_owned());
    }
    if node == desk.me.slot {
        return Refuse(format!("this is {name}: ask at another node"));
    }
    if dc.is_none_or(|dc| dc.slot == node) {
        return Refuse(format!("{name} is DC: ask again when another is"));
    }
    if let Some(reason) = desk.state.no_drill(desk.config, node) {
        return Refuse(reason);
    }
    let alive: Vec<_> = hearing.alive(desk.now, desk.config.timing.warntime).collect();
    match alive.iter().find(|peer| peer.identity == identity) {
        None => return Refuse(format!("{name} is silent")),
        Some(peer) if peer.domains().is_some_and(|domains| !domains.is_empty()) => {
            return Refuse(format!("{name} still has domains"));
        }
        Some(_) => {}
    }
    let others = alive.iter().map(|peer| peer.identity.slot).filter(|slot| *slot != node);
    if desk.config.votes(others.chain([desk.me.slot])) < desk.config.majority() {
        return Refuse(format!("without {name} the cluster would be inquorate"));
    }
    Propose(Command::Suspect(identity, Cause::Tested))
}

fn rolling(desk: &Desk<'_>, hearing: &Hearing, host: &Host, on: bool) -> Judgement {
    let rolling = &desk.state.rolling;
    if rolling.goes_on() == on {
        return Agreed;
    }
    if !on {
        return Propose(Command::StopRolling(rolling.number, "the operator wants so".to_owned()));
    }
    if desk.version < wire::ROLLING {
        return older();
    }
    let (now, me, config, state) = (desk.now, desk.me, desk.config, desk.state);
    match no_turn(&Sight { now, me, config, state, hearing, host }, |_| true) {
        Some(reason) => Refuse(reason),
        None => Propose(Command::Roll(rolling.number.saturating_add(1))),
    }
}

fn older() -> Judgement {
    Refuse("a node runs an older program, which knows nothing of that: upgrade it first".to_owned())
}

/// A request as the log says it.
fn in_words(config: &Config, request: &Request) -> String {
    let name =
        |slot: &Slot| if config.has(*slot) { config.node(*slot).name.clone() } else { format!("slot {}", slot.0) };
    let way = |on: &bool, to: &str, back: &str| if *on { to.to_owned() } else { back.to_owned() };
    match request {
        Request::ShutDown => "shut this node down".to_owned(),
        Request::Standby { node, on: true } => format!("put {} into standby", name(node)),
        Request::Standby { node, on: false } => format!("take {} out of standby", name(node)),
        Request::Maintenance { node, on: true } => format!("put {} into maintenance", name(node)),
        Request::Maintenance { node, on: false } => format!("take {} out of maintenance", name(node)),
        Request::Disarm { node: Some(node), on } => format!("{} {}", way(on, "disarm", "arm"), name(node)),
        Request::Disarm { node: None, on } => format!("{} the cluster", way(on, "disarm", "arm")),
        Request::Start { vm } => format!("start VM {vm}"),
        Request::Stop { vm } => format!("stop VM {vm}"),
        Request::Migrate { vm, to } => format!("migrate VM {vm} to {}", name(to)),
        Request::ConfirmOff { node, .. } => format!("take {} for off", name(node)),
        Request::Drill { node } => format!("test the fencing of {}", name(node)),
        Request::AddNode { table } => format!("add {}", config::name_of(table).unwrap_or_else(|| "a node".to_owned())),
        Request::RemoveNode { node, .. } => format!("remove {}", config.node_name(*node)),
        Request::ChangeKey { key } => format!("change the cluster's key to key {key}"),
        Request::Rolling { on } => way(on, "restart all nodes, one after another", "stop the rolling restart"),
    }
}

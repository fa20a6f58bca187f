//! The gateway's desk: decides who is let in.
//!
//! A machine is let in if it was approved before and still has its card; if the operator has typed its code; or if a window
//! is open and nothing about it is strange. Every approval is kept before it counts.
//!
//! A machine that `cluster.toml` does not name is offered a node's place ([`Offer`]). Its code grants it that: it is let in when the
//! cluster has agreed to the node. An approved machine whose node was removed loses its approval when it asks again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use cluster::config::{Config, Mac};
use cluster::words::Role;
use console::{Asking, JoinRequest, Joining, Window};

use super::offer::Offer;
use super::table::{Machine, Table};
use super::{Hello, code};
use crate::calendar;
use crate::roster::{self, Current};
use crate::stream::joiner::{Binding, Identity};
use crate::streams::store::Store;

/// Machines that may ask at a time.
pub(crate) const ASKING: usize = 32;
/// Wrong codes after which a machine is sent away.
const WRONG: u8 = 3;
/// Machines that a window may let in.
const MACHINES: u8 = 16;
/// How long a window stays open.
const OPEN: Duration = Duration::from_mins(15);

/// The desk.
#[derive(Debug)]
pub(crate) struct Desk {
    config: Arc<Current>,
    books: Mutex<Books>,
}

#[derive(Debug)]
struct Books {
    table: Table,
    store: Store<Table>,
    asking: BTreeMap<u64, Waiter>,
    next: u64,
    window: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    machines: u8,
    until: Instant,
}

/// A machine that waits to be let in.
#[derive(Debug)]
struct Waiter {
    identity: Identity,
    hello: Hello,
    code: String,
    since: Instant,
    wrong: u8,
    /// Whether its code was typed, and it waits for the cluster to agree to its node.
    granted: bool,
    /// Its node, and the card by which it is known; of what `cluster.toml` does not name, its first card.
    place: (Option<Place>, [u8; 6]),
    /// The node that it might become, where it is none; or why not.
    offer: Option<Result<Offer, String>>,
    decided: Sender<Decision>,
}

#[derive(Clone, Debug)]
struct Place {
    node: String,
    role: Role,
}

/// What was decided about a machine that waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is let in.
    In,
    /// It is sent away, and why.
    Out(String),
}

/// What a machine is told at first.
#[derive(Debug)]
pub(crate) enum Admission<'a> {
    /// It was approved before.
    In,
    /// It is sent away, and why.
    Out(String),
    /// It waits.
    Waits(Waiting<'a>),
}

/// A machine's place among those that wait, until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    desk: &'a Desk,
    ask: u64,
    /// What whoever stands at that machine should know; may be empty.
    pub(crate) note: String,
    /// What is decided arrives here; it ends without where the machine has asked once more.
    pub(crate) decided: Receiver<Decision>,
}

impl Waiting<'_> {
    /// Looks whether the cluster has another configuration.
    pub(crate) fn look(&self) {
        self.desk.look(&mut self.desk.books());
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.desk.books().asking.remove(&self.ask);
    }
}

impl Desk {
    /// With what was kept.
    pub(crate) fn new(config: Arc<Current>, (store, table): (Store<Table>, Table)) -> Self {
        let books = Books { table, store, asking: BTreeMap::new(), next: 1, window: None };
        Self { config, books: Mutex::new(books) }
    }

    /// Whether that address is a node's.
    pub(crate) fn is_a_nodes(&self, address: IpAddr) -> bool {
        roster::is_a_nodes(&self.config.get(), address)
    }

    /// A machine asks, over a connection with this binding, with these random bytes in its code.
    pub(crate) fn ask(
        &self,
        identity: Identity,
        hello: Hello,
        salt: &[u8; 32],
        binding: &Binding,
        now: Instant,
    ) -> Admission<'_> {
        let config = self.config.get();
        let place = place(&config, &hello);
        let mut books = self.books();
        if let Some(machine) = books.table.of(identity) {
            // Which cards it has it says itself: what counts is whether the one that it was approved with is still a node's.
            let is_node = config.find(&[Mac(machine.card)]).is_some();
            let has_card = hello.cards.contains(&machine.card);
            if !is_node && !machine.revoked && has_card {
                let node = machine.node.clone();
                // Where that cannot be kept it is found again the next time.
                let _ = books.change(|table| table.revoke(identity).then_some(()).ok_or_else(String::new));
                return Admission::Out(format!(
                    "{node} was removed from the cluster; before it can ask anew, its approval is to be forgotten at Joining"
                ));
            }
            if machine.revoked {
                return Admission::Out(
                    "its approval was taken back, or given to another machine with its card".to_owned(),
                );
            }
            if is_node && has_card {
                return Admission::In;
            }
        }
        // Its connection from before is gone, or it would not ask again.
        books.asking.retain(|_, other| other.identity != identity);
        if books.asking.len() >= ASKING {
            return Admission::Out(format!("{ASKING} machines ask to join already"));
        }
        let ask = books.next;
        books.next += 1;
        let (decided, decision) = channel();
        let code = code(salt, binding);
        let offer = offer(&config, &hello, &place);
        let waiter = Waiter { identity, hello, code, since: now, wrong: 0, granted: false, place, offer, decided };
        books.asking.insert(ask, waiter);
        books.let_in(now);
        let note = books.asking.get(&ask).and_then(|waiter| books.warning(ask, waiter)).unwrap_or_default();
        Admission::Waits(Waiting { desk: self, ask, note, decided: decision })
    }

    /// Does what the operator asks for, and says how things are then.
    ///
    /// # Errors
    /// Why not, in words for the operator.
    pub(crate) fn order(&self, request: &JoinRequest, now: Instant) -> Result<Joining, String> {
        let mut books = self.books();
        self.look(&mut books);
        let mut add = None;
        let identity = |text: &str| Identity::parse(text).ok_or_else(|| "that is no identity".to_owned());
        match request {
            JoinRequest::List => {}
            JoinRequest::Approve { ask, code } => add = books.approve(*ask, code, &self.config.get())?,
            JoinRequest::Open { machines } => {
                let machines = machines.trim().parse().ok().filter(|machines| (1..=MACHINES).contains(machines));
                let machines = machines.ok_or_else(|| format!("a number from 1 to {MACHINES} is wanted"))?;
                books.window = Some(Open { machines, until: now + OPEN });
                books.let_in(now);
            }
            JoinRequest::Close => books.window = None,
            JoinRequest::Revoke { identity: text } => {
                let identity = identity(text)?;
                books.change(|table| table.revoke(identity).then_some(()).ok_or_else(|| unknown(text)))?;
            }
            JoinRequest::Forget { identity: text } => {
                let identity = identity(text)?;
                books.change(|table| table.forget(identity).then_some(()).ok_or_else(|| unknown(text)))?;
            }
        }
        Ok(Joining { add, ..books.listing(now) })
    }

    /// Looks who is a node by now, and lets those in that were granted it.
    fn look(&self, books: &mut Books) {
        let config = self.config.get();
        for waiter in books.asking.values_mut() {
            waiter.place = place(&config, &waiter.hello);
            waiter.offer = offer(&config, &waiter.hello, &waiter.place);
        }
        let is_node = |waiter: &Waiter| matches!(&waiter.place.0, Some(Place { role: Role::Node, .. }));
        let granted = books.asking.iter().filter(|(_, waiter)| waiter.granted && is_node(waiter));
        for ask in granted.map(|(ask, _)| *ask).collect::<Vec<_>>() {
            // What cannot be kept now is tried again.
            let _ = books.admit(ask);
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node that a machine's cards make it, and the card that does.
fn place(config: &Config, hello: &Hello) -> (Option<Place>, [u8; 6]) {
    let macs = hello.macs();
    let first = hello.cards.first().copied().unwrap_or_default();
    let Some(node) = config.find(&macs).map(|slot| config.node(slot)) else { return (None, first) };
    let card = node.nics.iter().find(|nic| macs.contains(&nic.mac)).map_or(first, |nic| nic.mac.0);
    (Some(Place { node: node.name.clone(), role: node.role }), card)
}

fn offer(config: &Config, hello: &Hello, place: &(Option<Place>, [u8; 6])) -> Option<Result<Offer, String>> {
    place.0.is_none().then(|| Offer::of(config, &hello.macs()))
}

fn unknown(identity: &str) -> String {
    format!("no machine has the identity {}", identity.get(..8).unwrap_or(identity))
}

impl Books {
    /// The operator has typed a code for one of those that ask, and behind it what is to be otherwise about a new node. What
    /// is to be added to `cluster.toml` for it, if anything.
    fn approve(&mut self, ask: u64, typed: &str, config: &Config) -> Result<Option<String>, String> {
        let waiter = self.asking.get_mut(&ask).ok_or("it does not ask any more")?;
        let words: Vec<&str> = typed.split_whitespace().collect();
        let (code, words) = words.split_first().ok_or("the code on its console is wanted")?;
        let table = match (&waiter.place.0, &waiter.offer) {
            (Some(Place { role: Role::Gateway, .. }), _) => {
                return Err("there is one gateway, and this is not it".to_owned());
            }
            (Some(Place { node, role: Role::Node }), _) if !words.is_empty() => {
                return Err(format!("cluster.toml names it {node}: type its code alone"));
            }
            (Some(Place { role: Role::Node, .. }), _) | (None, None) => None,
            (None, Some(offer)) => {
                let table = offer.clone()?.corrected(words)?.table();
                config.with_node(&table).map_err(|error| error.text)?;
                Some(table)
            }
        };
        if *code == waiter.code && table.is_some() {
            waiter.granted = true;
            return Ok(table);
        }
        if *code == waiter.code {
            return self.admit(ask).map(|()| None);
        }
        waiter.wrong += 1;
        let left = WRONG.saturating_sub(waiter.wrong);
        if left > 0 {
            return Err(format!("that is not the code on its console; {left} more may be tried"));
        }
        let decided = Decision::Out("three wrong codes were typed for it; the next time it shows another".to_owned());
        if let Some(waiter) = self.asking.remove(&ask) {
            // It may have hung up.
            let _ = waiter.decided.send(decided);
        }
        Err("that is not the code on its console, for the third time: it was sent away, and asks anew".to_owned())
    }

    /// Lets in whom the window lets in, the first one first.
    fn let_in(&mut self, now: Instant) {
        let asking: Vec<u64> = self.asking.keys().copied().collect();
        for ask in asking {
            let Some(open) = self.window.filter(|open| open.machines > 0 && open.until > now) else {
                self.window = None;
                return;
            };
            let plain = self.asking.get(&ask).is_some_and(|waiter| self.warning(ask, waiter).is_none());
            if plain && self.admit(ask).is_ok() {
                self.window = Some(Open { machines: open.machines - 1, ..open });
            }
        }
    }

    fn admit(&mut self, ask: u64) -> Result<(), String> {
        let waiter = self.asking.get(&ask).ok_or("it does not ask any more")?;
        let (Some(place), card) = &waiter.place else { return Err("it is no node's".to_owned()) };
        let at_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let machine =
            Machine { identity: waiter.identity, card: *card, node: place.node.clone(), at_s, revoked: false };
        self.change(|table| table.approve(machine))?;
        if let Some(waiter) = self.asking.remove(&ask) {
            // It may have hung up; then it asks again, and is known.
            let _ = waiter.decided.send(Decision::In);
        }
        Ok(())
    }

    /// Changes the table, if the change can be kept.
    fn change(&mut self, change: impl FnOnce(&mut Table) -> Result<(), String>) -> Result<(), String> {
        let mut table = self.table.clone();
        change(&mut table)?;
        self.store.keep(&table).map_err(|error| format!("it cannot be kept: {error}"))?;
        self.table = table;
        Ok(())
    }

    /// What is strange about a machine.
    fn warning(&self, ask: u64, waiter: &Waiter) -> Option<String> {
        let (place, card) = &waiter.place;
        let mac = Mac(*card);
        let Some(place) = place else { return Some("it is not in cluster.toml".to_owned()) };
        if place.role == Role::Gateway {
            return Some("it has the gateway's own card".to_owned());
        }
        if let Some(machine) = self.table.of(waiter.identity) {
            return Some(format!("it was approved as {} with another card, {}", machine.node, Mac(machine.card)));
        }
        if self.table.with_card(*card).is_some() {
            return Some(format!("another machine with its card {mac} is approved, or it has lost its identity"));
        }
        let twice = self.asking.iter().any(|(other, waiter)| *other != ask && waiter.place.1 == *card);
        twice.then(|| format!("another machine that asks has the same card {mac}"))
    }

    fn listing(&mut self, now: Instant) -> Joining {
        self.window = self.window.filter(|open| open.machines > 0 && open.until > now);
        let asking = |(ask, waiter): (&u64, &Waiter)| Asking {
            ask: *ask,
            node: waiter.place.0.as_ref().map(|place| place.node.clone()),
            card: Mac(waiter.place.1).to_string(),
            serial: waiter.hello.serial.clone(),
            cpu: waiter.hello.cpu.clone(),
            memory_mib: waiter.hello.memory_mib,
            age_s: now.saturating_duration_since(waiter.since).as_secs(),
            warning: self.warning(*ask, waiter),
            offer: waiter.offer.as_ref().map(|offer| offer.as_ref().map(Offer::to_string).map_err(Clone::clone)),
        };
        let machine = |machine: &Machine| console::Machine {
            identity: machine.identity.to_string(),
            node: machine.node.clone(),
            card: Mac(machine.card).to_string(),
            at: date(machine.at_s),
            revoked: machine.revoked,
        };
        let window = |open: Open| Window {
            machines: open.machines,
            left_s: open.until.saturating_duration_since(now).as_secs(),
        };
        Joining {
            asking: self.asking.iter().map(asking).collect(),
            machines: self.table.machines().iter().map(machine).collect(),
            window: self.window.map(window),
            add: None,
        }
    }
}

/// A time in UTC, to the minute.
fn date(at_s: u64) -> String {
    let to_the_minute = calendar::seconds(at_s).get(..16).unwrap_or_default().replace('T', " ");
    format!("{to_the_minute} UTC")
}

#[cfg(test)]
mod tests;

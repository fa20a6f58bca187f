//! The outlets of power switches: switched, and read back. What the readings prove is the core's to say.
//!
//! There are two ways to each: SNMP, and its console at the end of a serial line whose cable this node holds.

mod turns;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use cluster::config::{Pdu, SerialLine};
use cluster::event::{Outcome, Path};
use cluster::fencing::{Reading, Readings};
use cluster::words::{Instant, Outlet};
use hw::Credentials;
use hw::ap7921::{self, Relay, console};
use hw::port::{tty, udp};
use hw::snmp::usm::Refusal;

use super::clock::until;
use super::run::STACK;
use super::seed;
use super::site::Site;

pub(super) use turns::Turns;

/// The port of an SNMP agent.
const SNMP: u16 = 161;
/// The speed of an AP7921's console (its user's guide); 8N1 is the port's.
const CONSOLE_BITS_PER_SECOND: u32 = 9600;
/// What a dialogue needs at least of the time that there is, once its turn has come.
const DIALOGUE: Duration = Duration::from_secs(8);

/// Switches all of `outlets`, which feed one node, and tells how each was read back: all of one power switch together,
/// and all power switches at once, so that there is a time at which no feed has power.
pub(super) fn switch(
    site: &Site,
    turns: &Turns,
    outlets: &[Outlet],
    relay: Relay,
    path: Path,
    deadline: Instant,
) -> Outcome {
    let mut readings = Readings::new();
    let switches = by_pdu(outlets);
    let order = Order { relay, path, patience: std::time::Instant::now() + until(deadline) };
    thread::scope(|scope| {
        let ask = |(pdu, outlets): (&String, &Vec<Outlet>)| ask(site, turns, pdu, outlets, &order);
        let asked: Vec<_> = switches
            .iter()
            .map(|switch| (switch.1, thread::Builder::new().stack_size(STACK).spawn_scoped(scope, move || ask(switch))))
            .collect();
        for (outlets, servant) in asked {
            let answer = servant.map_err(|error| format!("no thread: {error}"));
            let answer =
                answer.and_then(|servant| servant.join().unwrap_or_else(|_| Err("its servant died".to_owned())));
            let reading = match answer {
                Ok(Relay::Off) => Reading::Off,
                Ok(Relay::On) => Reading::On,
                Err(why) => Reading::Unknown(why),
            };
            readings.extend(outlets.iter().map(|outlet| (outlet.clone(), reading.clone())));
        }
    });
    Outcome::Read(readings)
}

/// The outlets of each power switch.
fn by_pdu(outlets: &[Outlet]) -> BTreeMap<String, Vec<Outlet>> {
    let mut pdus: BTreeMap<String, Vec<Outlet>> = BTreeMap::new();
    for outlet in outlets {
        pdus.entry(outlet.pdu.clone()).or_default().push(outlet.clone());
    }
    pdus
}

/// What is to be done, and how.
#[derive(Debug, Clone, Copy)]
struct Order {
    relay: Relay,
    path: Path,
    patience: std::time::Instant,
}

/// What all of `outlets`, of one power switch, were read back as.
fn ask(site: &Site, turns: &Turns, name: &str, outlets: &[Outlet], order: &Order) -> Result<Relay, String> {
    let config = site.config();
    let pdu = config.pdus.iter().find(|pdu| pdu.name == name);
    let pdu = pdu.ok_or_else(|| format!("there is no power switch `{name}`"))?;
    let outlets: Vec<_> = outlets.iter().map(|outlet| planned(pdu, outlet)).collect();
    let _turn = turns.take(name, order.path, order.patience.checked_sub(DIALOGUE).unwrap_or(order.patience))?;
    match order.path {
        Path::Snmp => {
            let access = site.secrets.snmp(name);
            let access = access.ok_or_else(|| format!("no community or user for `{name}` is known"))?;
            let dialogue = ap7921::switch(order.relay, &outlets, access, seed()?);
            let device = SocketAddr::from((pdu.address, SNMP));
            udp::run(dialogue, device, order.patience, &AtomicBool::new(false)).map_err(|error| words(pdu, &error))
        }
        Path::Serial => {
            let line = pdu.serial.as_ref().filter(|line| line.holder == site.slot);
            let line = line.ok_or_else(|| format!("this node holds no cable to `{name}`"))?;
            let user = site.secrets.console(name);
            let user = user.ok_or_else(|| format!("no user and password for `{name}` are known"))?;
            at_console(line, &user, &outlets, order)
        }
    }
}

/// What went wrong over SNMP, in words for the operator.
fn words(pdu: &Pdu, error: &ap7921::Error) -> String {
    let ap7921::Error::Unwilling(Refusal::Engine { expected, found }) = error else { return error.to_string() };
    let remedy = match &pdu.engine {
        Some(_) => format!("if {} was replaced, write engine = \"{found}\" for it in cluster.toml", pdu.name),
        None => format!("if {} was replaced, start this node again", pdu.name),
    };
    format!("another device answers at {}: its SNMP engine is {found}, not {expected}; {remedy}", pdu.address)
}

/// An outlet, with the name that it must have where the operator has said one.
fn planned(pdu: &Pdu, outlet: &Outlet) -> ap7921::Outlet {
    ap7921::Outlet { number: outlet.number, name: pdu.names.get(&outlet.number).cloned() }
}

/// Switches the outlets at the console. The dialogue logs out, whatever happens, as long as the line is there.
fn at_console(
    line: &SerialLine,
    user: &Credentials,
    outlets: &[ap7921::Outlet],
    order: &Order,
) -> Result<Relay, String> {
    let device = FilePath::new("/dev").join(&line.device);
    let dialogue = console::switch(order.relay, outlets, user);
    let done = tty::run(dialogue, &device, CONSOLE_BITS_PER_SECOND, order.patience, &AtomicBool::new(false));
    // The port's own errors name the device.
    let done = done.map_err(|error| error.to_string())?;
    done.map_err(|error| format!("serial line {}: {error}", line.device))
}

#[cfg(test)]
mod tests;

//! The outlets of power switches: switched, and read back. What the readings prove is the core's to say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::thread;

use cluster::event::Outcome;
use cluster::fencing::{Reading, Readings};
use cluster::words::{Instant, Outlet};
use hw::ap7921::{self, Relay};
use hw::port::udp;

use super::clock::until;
use super::run::STACK;
use super::seed;
use super::site::Site;

/// The port of an SNMP agent.
const SNMP: u16 = 161;

/// Switches all of `outlets`, which feed one node, and tells how each was read back: all of one power switch together,
/// and all power switches at once, so that there is a time at which no feed has power.
pub(super) fn switch(site: &Site, outlets: &[Outlet], relay: Relay, deadline: Instant) -> Outcome {
    let mut readings = Readings::new();
    let switches = by_pdu(outlets);
    thread::scope(|scope| {
        let ask = |(pdu, outlets): (&String, &Vec<Outlet>)| ask(site, pdu, outlets, relay, deadline);
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

/// What all of `outlets`, of one power switch, were read back as.
fn ask(site: &Site, name: &str, outlets: &[Outlet], relay: Relay, deadline: Instant) -> Result<Relay, String> {
    let pdu = site.config.pdus.iter().find(|pdu| pdu.name == name);
    let pdu = pdu.ok_or_else(|| format!("there is no power switch `{name}`"))?;
    let community = site.secrets.community(name).ok_or_else(|| format!("no community for `{name}` is known"))?;
    let outlets: Vec<_> = outlets.iter().map(|outlet| ap7921::Outlet { number: outlet.number, name: None }).collect();
    let dialogue = ap7921::switch(relay, &outlets, community, seed()?);
    let device = SocketAddr::from((pdu.address, SNMP));
    let patience = std::time::Instant::now() + until(deadline);
    udp::run(dialogue, device, patience, &AtomicBool::new(false)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlets_are_asked_for_by_their_switch() {
        let outlet = |pdu: &str, number| Outlet { pdu: pdu.to_owned(), number };
        let both = by_pdu(&[outlet("left", 1), outlet("right", 7), outlet("left", 2)]);
        assert_eq!(both["left"], [outlet("left", 1), outlet("left", 2)]);
        assert_eq!(both["right"], [outlet("right", 7)]);
    }
}

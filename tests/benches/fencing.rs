//! How long it takes to fence a machine by its outlet: our driver against fence-agents' `fence_apc_snmp`, on the same
//! emulated PDU, at several delays of its relay.
//!
//! Both switch the same outlet off over SNMP and read it back; what the device itself takes is taken off, and the rest is
//! the driver's own. They take turns, so that what else the machine does is the same to both; a median is shown.
//! `fence_apc_snmp` starts a Python and four programs of net-snmp's, which is what whoever calls it pays.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark says what it measured, or panics")]

#[path = "../tests/ours/mod.rs"]
mod ours;

use std::time::{Duration, Instant};

use holdfast_tests::pdu::desk::Desk;
use holdfast_tests::pdu::{Firmware, Loads as _};
use holdfast_tests::stranger::run;
use hw::ap7921::Relay;

/// What the device takes, and how often each driver is timed with that.
const DELAYS: [(u64, usize); 4] = [(0, 9), (50, 9), (500, 7), (2000, 5)];
/// Our overhead may be this part of the other's.
const GOAL: f64 = 0.1;
const OUTLET: u8 = 3;

fn ours(desk: &Desk) {
    let done = ours::switch(desk.snmp, Relay::Off, &[OUTLET], ours::PATIENCE);
    assert_eq!(done, Ok(Relay::Off));
}

fn theirs(desk: &Desk) {
    let (ip, port, outlet) = (desk.snmp.ip().to_string(), desk.snmp.port().to_string(), OUTLET.to_string());
    let arguments = ["--ip", &ip, "--ipport", &port, "--community", "private", "--action=off", "-n", &outlet];
    let (code, said) = run("fence-agents", "fence_apc_snmp", &arguments);
    assert!(code == 0 && said.contains("Powered OFF"), "{code}: {said}");
}

/// How long one fencing takes, from an outlet that is on.
fn time(desk: &Desk, fence: fn(&Desk)) -> Duration {
    desk.relays.switch(OUTLET, true);
    let begun = Instant::now();
    fence(desk);
    let taken = begun.elapsed();
    assert!(!desk.is_on(OUTLET));
    taken
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap()
}

fn main() {
    // Test runners start it without: there is nothing quick to check.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let desk = Desk::new(Firmware::Aos3, &["gateway", "node1", "node2", "node3"]).unwrap();
    println!("{:>6}  {:>18}  {:>18}  {:>17}", "device", "ours", "fence_apc_snmp", "overhead: ratio");
    println!("{:>6}  {:>9} {:>8}  {:>9} {:>8}", "ms", "total ms", "overhead", "total ms", "overhead");
    for (delay, rounds) in DELAYS {
        let device = Duration::from_millis(delay);
        desk.pdu.set(|faults| faults.lag = device);
        let pairs = (0..rounds).map(|_| (time(&desk, ours), time(&desk, theirs)));
        let (ours, theirs): (Vec<_>, Vec<_>) = pairs.unzip();
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let (ours, theirs) = (median(ours), median(theirs));
        let (our, their) = (ours.saturating_sub(device), theirs.saturating_sub(device));
        let ratio = ms(our) / ms(their);
        let verdict = if ratio <= GOAL { "goal met" } else { "goal missed" };
        println!(
            "{delay:>6}  {:>9.1} {:>8.1}  {:>9.1} {:>8.1}  {ratio:>6.3} {verdict}",
            ms(ours),
            ms(our),
            ms(theirs),
            ms(their)
        );
    }
}

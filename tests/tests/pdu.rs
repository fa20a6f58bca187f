//! The emulated AP7921 and our driver for the real one, each against strangers: net-snmp's tools and agent, and
//! fence-agents.
//!
//! The driver and the emulated PDU share no code; these tests keep both from agreeing on a mistake.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod agents;
mod ours;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use agents::Agent;
use holdfast_tests::pdu::desk::Desk;
use holdfast_tests::pdu::{Command, Entry, Firmware, What};
use holdfast_tests::stranger::run;
use hw::ap7921::{self, Error, Relay};
use hw::snmp::Access;
use ours::{PATIENCE, drive, seed};

const STATE: &str = "1.3.6.1.4.1.318.1.1.12.3.5.1.1.4";
const CONTROL: &str = "1.3.6.1.4.1.318.1.1.12.3.3.1.1.4";

/// A PDU with four outlets, on at first.
fn desk() -> Desk {
    Desk::new(Firmware::Aos3, &["gateway", "node1", "node2", "node3"]).unwrap()
}

fn switch(address: SocketAddr, relay: Relay, outlets: &[u8]) -> Result<Relay, Error> {
    ours::switch(address, relay, outlets, PATIENCE)
}

/// One of net-snmp's tools, over SNMP v1.
fn snmp(tool: &str, community: &str, address: SocketAddr, arguments: &[&str]) -> (i32, String) {
    let address = address.to_string();
    let first = ["-v1", "-c", community, "-m", "", "-Oenq", "-t1", "-r2", &address];
    run("snmp", tool, &[&first[..], arguments].concat())
}

/// fence-agents' driver for APC switches.
fn fence(address: SocketAddr, arguments: &[&str]) -> (i32, String) {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let first = ["--ip", &ip, "--ipport", &port, "--community", "private", "--power-timeout", "10"];
    run("fence-agents", "fence_apc_snmp", &[&first[..], arguments].concat())
}

#[test]
fn our_driver_switches_and_strangers_see_it() {
    let desk = desk();
    desk.pdu.set(|faults| faults.lag = Duration::from_millis(1500));
    assert_eq!(switch(desk.snmp, Relay::Off, &[2, 3]), Ok(Relay::Off));
    assert!(!desk.is_on(2) && !desk.is_on(3) && desk.is_on(1) && desk.is_on(4));
    for (outlet, state) in [("1", "1"), ("2", "2"), ("3", "2"), ("4", "1")] {
        let name = format!("{STATE}.{outlet}");
        assert_eq!(snmp("snmpget", "public", desk.snmp, &[&name]), (0, format!(".{name} {state}\n")));
    }
    assert_eq!(fence(desk.snmp, &["-o", "status", "-n", "3"]).0, 2, "fence_apc_snmp says 2 for off");

    assert_eq!(switch(desk.snmp, Relay::On, &[3]), Ok(Relay::On));
    assert_eq!(fence(desk.snmp, &["-o", "status", "-n", "3"]).0, 0, "and 0 for on");
    let commands = |entry: &Entry| match entry.what {
        What::Commanded(command) => Some((entry.outlet, command)),
        What::Refused(_) | What::Read(_) => None,
    };
    let commands: Vec<_> = desk.relays.log().iter().filter_map(commands).collect();
    assert_eq!(commands, [(2, Command::Off), (3, Command::Off), (3, Command::On)]);
}

#[test]
fn strangers_switch_and_our_driver_sees_it() {
    let desk = desk();
    let (code, said) = fence(desk.snmp, &["-o", "off", "-n", "2"]);
    assert_eq!(code, 0, "{said}");
    assert!(!desk.is_on(2));
    let (code, said) = snmp("snmpset", "private", desk.snmp, &[&format!("{CONTROL}.4"), "i", "2"]);
    assert_eq!(code, 0, "{said}");
    let outlets = drive(ap7921::status(&Access::community("public"), seed()), desk.snmp, PATIENCE).unwrap();
    let states: Vec<_> = outlets.iter().map(|(seen, name)| (seen.state.clone(), name.as_str())).collect();
    let (on, off) = (Ok(Relay::On), Ok(Relay::Off));
    assert_eq!(states, [(on.clone(), "gateway"), (off.clone(), "node1"), (on, "node2"), (off, "node3")]);
    let (code, said) = fence(desk.snmp, &["-o", "on", "-n", "2"]);
    assert_eq!(code, 0, "{said}");
    assert!(desk.is_on(2));
    let old_branch = "1.3.6.1.4.1.318.1.1.4.4.2.1.3.3";
    assert_eq!(snmp("snmpset", "private", desk.snmp, &[old_branch, "i", "2"]).0, 0);
    let all = ours::read(desk.snmp).unwrap();
    assert_eq!(all, [Some(true), Some(true), Some(false), Some(false)]);
    let (_, said) = fence(desk.snmp, &["-o", "list"]);
    assert!(said.contains("3,node2"), "{said}");
}

#[test]
fn strangers_walk_all_of_it() {
    let desk = desk();
    let (code, said) = snmp("snmpwalk", "public", desk.snmp, &["1.3"]);
    assert_eq!(code, 0, "{said}");
    for line in [
        ".1.3.6.1.2.1.1.2.0 .1.3.6.1.4.1.318.1.3.4.5",
        ".1.3.6.1.4.1.318.1.1.4.4.2.1.3.4 1",
        ".1.3.6.1.4.1.318.1.1.12.1.5.0 \"AP7921\"",
        ".1.3.6.1.4.1.318.1.1.12.1.8.0 4",
        ".1.3.6.1.4.1.318.1.1.12.3.5.1.1.2.3 \"node2\"",
    ] {
        assert!(said.lines().any(|said| said == line), "{line} is not in:\n{said}");
    }
}

#[test]
fn strangers_are_refused_as_by_the_real_one() {
    let desk = desk();
    let command = format!("{CONTROL}.1");
    let refused = |community: &str, value: &str| snmp("snmpset", community, desk.snmp, &[&command, "i", value]).1;
    assert!(refused("private", "99").contains("badValue"));
    assert!(refused("public", "2").contains("noSuchName"));
    assert!(refused("guessed", "2").contains("Timeout"));
    desk.pdu.set(|faults| faults.logged_on = true);
    assert!(refused("private2", "2").contains("noSuchName"), "Write, while somebody is logged on");
    desk.pdu.set(|faults| _ = faults.refuse.insert(1));
    assert!(refused("private", "2").contains("genError"));
    assert!(desk.is_on(1));
}

#[test]
fn what_is_wrong_with_the_pdu_is_never_off() {
    let desk = desk();
    let soon = |outlets: &[u8]| ours::switch(desk.snmp, Relay::Off, outlets, Duration::from_secs(3));
    desk.pdu.set(|faults| _ = faults.stuck.insert(2));
    let stuck = soon(&[1, 2]).unwrap_err().to_string();
    assert_eq!(stuck, "not done in time; last seen: outlet 1 is off; outlet 2 is on");
    desk.pdu.set(|faults| _ = faults.unknown.insert(1));
    let unknown = soon(&[1]).unwrap_err().to_string();
    assert_eq!(unknown, "not done in time; last seen: outlet 1 is in unknown state 4");
    desk.pdu.set(|faults| _ = faults.refuse.insert(3));
    assert_eq!(soon(&[3]).unwrap_err().to_string(), "refused to switch outlet 3 off: genErr");
    assert!(desk.is_on(3));
    // Later than a try waits: each reply comes to a socket that is no more.
    desk.pdu.set(|faults| faults.late = Duration::from_millis(1200));
    assert_eq!(soon(&[4]), Err(Error::NoReply));
    desk.pdu.set(|faults| (faults.late, faults.silent) = (Duration::ZERO, true));
    assert_eq!(soon(&[4]), Err(Error::NoReply));
}

#[test]
fn lost_datagrams_are_made_good() {
    let desk = desk();
    desk.pdu.set(|faults| (faults.lose_requests, faults.lose_replies) = (2, 1));
    assert_eq!(switch(desk.snmp, Relay::Off, &[4]), Ok(Relay::Off));
    assert!(!desk.is_on(4));
}

/// Our driver against an agent that is neither ours nor `rasn`'s: net-snmp's `snmpd`, in which the objects of one outlet
/// can be written. Its state does not follow the command until a stranger makes it.
#[test]
fn our_driver_speaks_with_net_snmps_agent() {
    let rpdu = "1.3.6.1.4.1.318.1.1.12";
    let objects = [
        "1.3.6.1.2.1.1.2.0 object_id 1.3.6.1.4.1.318.1.3.4.5".to_owned(),
        format!("{rpdu}.1.5.0 octet_str AP7921"),
        format!("{rpdu}.1.8.0 integer 8"),
        format!("{rpdu}.3.5.1.1.2.1 octet_str node1"),
        format!("-rw {rpdu}.3.3.1.1.4.1 integer 1"),
        format!("-rw {rpdu}.3.5.1.1.4.1 integer 1"),
        format!("{rpdu}.3.5.1.1.5.1 integer 2"),
    ];
    let agent = Agent::start(&objects.map(|object| format!("override {object}\n")).concat());
    let address = agent.address;
    let off = thread::spawn(move || switch(address, Relay::Off, &[1]));
    let deadline = Instant::now() + Duration::from_secs(20);
    let commanded = || snmp("snmpget", "private", address, &[&format!("{CONTROL}.1")]).1.ends_with(" 2\n");
    while !commanded() {
        assert!(Instant::now() < deadline, "the command did not reach it");
    }
    assert_eq!(snmp("snmpset", "private", address, &[&format!("{STATE}.1"), "i", "2"]).0, 0);
    assert_eq!(off.join().unwrap(), Ok(Relay::Off));
    assert!(matches!(switch(address, Relay::Off, &[2]), Err(Error::Refused { .. })), "there is no outlet 2");
}

/// The same agent with the emulated outlets behind it: `snmpd` carries, and they do what they are told.
#[test]
fn our_driver_switches_outlets_behind_net_snmps_agent() {
    let lines = format!(
        "override 1.3.6.1.2.1.1.2.0 object_id 1.3.6.1.4.1.318.1.3.4.5\n\
         pass_persist .1.3.6.1.4.1.318.1.1.12 {} pass-persist\n",
        env!("CARGO_BIN_EXE_pdu")
    );
    let agent = Agent::start(&lines);
    let address = agent.address;
    assert_eq!(switch(address, Relay::Off, &[2, 3]), Ok(Relay::Off));
    assert_eq!(fence(address, &["-o", "status", "-n", "3"]).0, 2);
    assert_eq!(fence(address, &["-o", "on", "-n", "3"]).0, 0);
    assert_eq!(snmp("snmpset", "private", address, &[&format!("{CONTROL}.5"), "i", "2"]).0, 0);
    let outlets = drive(ap7921::status(&Access::community("private"), seed()), address, PATIENCE).unwrap();
    let states: Vec<_> = outlets.iter().map(|(seen, _)| seen.state == Ok(Relay::On)).collect();
    assert_eq!(states, [true, false, true, true, false, true, true, true]);
    assert_eq!(switch(address, Relay::Off, &[9]), Err(Error::OutOfRange { outlet: 9, outlets: 8 }));
    let (code, said) = snmp("snmpset", "private", address, &[&format!("{CONTROL}.1"), "i", "99"]);
    assert!(code != 0 && said.contains("badValue"), "{said}");
}

//! The emulated AP7921 and our driver for the real one, each against strangers: net-snmp's tools and agent, and
//! fence-agents.
//!
//! The driver and the emulated PDU share no code; these tests keep both from agreeing on a mistake.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use holdfast_tests::pdu::{self, Command, Entry, Loads, Pdu, What};
use hw::Dialogue;
use hw::ap7921::{self, Error, Outlet, Relay};

const STATE: &str = "1.3.6.1.4.1.318.1.1.12.3.5.1.1.4";
const CONTROL: &str = "1.3.6.1.4.1.318.1.1.12.3.3.1.1.4";

/// Four outlets, on at first, and what was said to the PDU.
#[derive(Clone, Default)]
struct Bench {
    off: Arc<Mutex<BTreeMap<u8, bool>>>,
    log: Arc<Mutex<Vec<Entry>>>,
}

impl Loads for Bench {
    fn is_on(&self, outlet: u8) -> bool {
        !self.off.lock().unwrap().get(&outlet).copied().unwrap_or(false)
    }

    fn switch(&self, outlet: u8, on: bool) {
        self.off.lock().unwrap().insert(outlet, !on);
    }

    fn noted(&self, entry: &Entry) {
        self.log.lock().unwrap().push(entry.clone());
    }
}

/// A PDU that serves on a port of this machine until the test ends.
struct Served {
    pdu: Arc<Pdu>,
    bench: Bench,
    address: SocketAddr,
}

fn serve() -> Served {
    let bench = Bench::default();
    let pdu = Arc::new(Pdu::new(&["gateway", "node1", "node2", "node3"], Box::new(bench.clone())));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let served = Arc::clone(&pdu);
    thread::spawn(move || pdu::serve(&socket, &served));
    Served { pdu, bench, address }
}

fn switch(address: SocketAddr, relay: Relay, outlets: &[u8], community: &str) -> Result<Relay, Error> {
    let outlets: Vec<Outlet> = outlets.iter().map(|number| Outlet { number: *number, name: None }).collect();
    drive(ap7921::switch(relay, &outlets, community, seed()), address)
}

fn drive<D: Dialogue>(dialogue: D, address: SocketAddr) -> D::Outcome {
    hw::port::udp::run(dialogue, address, Instant::now() + Duration::from_secs(15), &AtomicBool::new(false))
}

fn seed() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// Runs a stranger's program: its exit code, and what it said.
fn run(package: &str, program: &str, arguments: &[&str]) -> (i32, String) {
    let output = Process::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; install Debian's package {package}"));
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
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
    let Served { address, bench, pdu } = serve();
    pdu.set(|faults| faults.lag = Duration::from_millis(1500));
    assert_eq!(switch(address, Relay::Off, &[2, 3], "private"), Ok(Relay::Off));
    assert!(!bench.is_on(2) && !bench.is_on(3) && bench.is_on(1) && bench.is_on(4));
    for (outlet, state) in [("1", "1"), ("2", "2"), ("3", "2"), ("4", "1")] {
        let name = format!("{STATE}.{outlet}");
        assert_eq!(snmp("snmpget", "public", address, &[&name]), (0, format!(".{name} {state}\n")));
    }
    assert_eq!(fence(address, &["-o", "status", "-n", "3"]).0, 2, "fence_apc_snmp says 2 for off");

    assert_eq!(switch(address, Relay::On, &[3], "private"), Ok(Relay::On));
    assert_eq!(fence(address, &["-o", "status", "-n", "3"]).0, 0, "and 0 for on");
    let commands = |entry: &Entry| match entry.what {
        What::Commanded(command) => Some((entry.outlet, command)),
        What::Refused(_) | What::Read(_) => None,
    };
    let commands: Vec<_> = bench.log.lock().unwrap().iter().filter_map(commands).collect();
    assert_eq!(commands, [(2, Command::Off), (3, Command::Off), (3, Command::On)]);
}

#[test]
fn strangers_switch_and_our_driver_sees_it() {
    let Served { address, bench, .. } = serve();
    let (code, said) = fence(address, &["-o", "off", "-n", "2"]);
    assert_eq!(code, 0, "{said}");
    assert!(!bench.is_on(2));
    let (code, said) = snmp("snmpset", "private", address, &[&format!("{CONTROL}.4"), "i", "2"]);
    assert_eq!(code, 0, "{said}");
    let outlets = drive(ap7921::status("public", seed()), address).unwrap();
    let states: Vec<_> = outlets.iter().map(|(seen, name)| (seen.state.clone(), name.as_str())).collect();
    let (on, off) = (Ok(Relay::On), Ok(Relay::Off));
    assert_eq!(states, [(on.clone(), "gateway"), (off.clone(), "node1"), (on, "node2"), (off, "node3")]);
    let (code, said) = fence(address, &["-o", "on", "-n", "2"]);
    assert_eq!(code, 0, "{said}");
    assert!(bench.is_on(2));
    let (_, said) = fence(address, &["-o", "list"]);
    assert!(said.contains("3,node2"), "{said}");
}

#[test]
fn strangers_walk_all_of_it() {
    let Served { address, .. } = serve();
    let (code, said) = snmp("snmpwalk", "public", address, &["1.3"]);
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
    let Served { address, pdu, bench } = serve();
    let command = format!("{CONTROL}.1");
    let refused = |community: &str, value: &str| snmp("snmpset", community, address, &[&command, "i", value]).1;
    assert!(refused("private", "99").contains("badValue"));
    assert!(refused("public", "2").contains("noSuchName"));
    assert!(refused("guessed", "2").contains("Timeout"));
    pdu.set(|faults| faults.logged_on = true);
    assert!(refused("private2", "2").contains("noSuchName"), "Write, while somebody is logged on");
    pdu.set(|faults| _ = faults.refuse.insert(1));
    assert!(refused("private", "2").contains("genError"));
    assert!(bench.is_on(1));
}

#[test]
fn what_is_wrong_with_the_pdu_is_never_off() {
    let Served { address, pdu, bench } = serve();
    let soon = |outlets: &[u8]| {
        let outlets: Vec<Outlet> = outlets.iter().map(|number| Outlet { number: *number, name: None }).collect();
        let dialogue = ap7921::switch(Relay::Off, &outlets, "private", seed());
        hw::port::udp::run(dialogue, address, Instant::now() + Duration::from_secs(3), &AtomicBool::new(false))
    };
    pdu.set(|faults| _ = faults.stuck.insert(2));
    let stuck = soon(&[1, 2]).unwrap_err().to_string();
    assert_eq!(stuck, "not done in time; last seen: outlet 1 is off; outlet 2 is on");
    pdu.set(|faults| _ = faults.unknown.insert(1));
    let unknown = soon(&[1]).unwrap_err().to_string();
    assert_eq!(unknown, "not done in time; last seen: outlet 1 is in unknown state 4");
    pdu.set(|faults| _ = faults.refuse.insert(3));
    assert_eq!(soon(&[3]).unwrap_err().to_string(), "refused to switch outlet 3 off: genErr");
    assert!(bench.is_on(3));
    // Later than a try waits: each reply comes to a socket that is no more.
    pdu.set(|faults| faults.late = Duration::from_millis(1200));
    assert_eq!(soon(&[4]), Err(Error::NoReply));
    pdu.set(|faults| (faults.late, faults.silent) = (Duration::ZERO, true));
    assert_eq!(soon(&[4]), Err(Error::NoReply));
}

#[test]
fn lost_datagrams_are_made_good() {
    let Served { address, pdu, bench } = serve();
    pdu.set(|faults| (faults.lose_requests, faults.lose_replies) = (2, 1));
    assert_eq!(switch(address, Relay::Off, &[4], "private"), Ok(Relay::Off));
    assert!(!bench.is_on(4));
}

/// net-snmp's own agent, which keeps what it is told in `override` objects.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Our driver against an agent that is neither ours nor `rasn`'s: net-snmp's `snmpd`, in which the objects of one outlet
/// can be written. Its state does not follow the command until a stranger makes it.
#[test]
fn our_driver_speaks_with_net_snmps_agent() {
    let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let folder = std::env::temp_dir().join(format!("holdfast-snmpd-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("snmpd.conf");
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
    let objects = objects.map(|object| format!("override {object}\n")).concat();
    let text = format!("agentaddress udp:{port}\nrwcommunity private 127.0.0.1\n{objects}");
    std::fs::write(&file, text).unwrap();
    let mut agent = Process::new("snmpd");
    agent.args(["-f", "-Le", "-C", "-r", "-c"]).arg(&file).env("SNMP_PERSISTENT_DIR", &folder).env("MIBS", "");
    agent.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let agent = agent.spawn().unwrap_or_else(|error| panic!("snmpd: {error}; install Debian's package snmpd"));
    let _agent = Agent(agent);

    // Until it listens, it does not reply.
    let deadline = Instant::now() + Duration::from_secs(20);
    while switch(port, Relay::On, &[1], "private") != Ok(Relay::On) {
        assert!(Instant::now() < deadline, "snmpd does not start");
    }
    let state = format!("{STATE}.1");
    let off = thread::spawn(move || switch(port, Relay::Off, &[1], "private"));
    let commanded = || snmp("snmpget", "private", port, &[&format!("{CONTROL}.1")]).1.ends_with(" 2\n");
    while !commanded() {
        assert!(Instant::now() < deadline, "the command did not reach it");
    }
    assert_eq!(snmp("snmpset", "private", port, &[&state, "i", "2"]).0, 0);
    assert_eq!(off.join().unwrap(), Ok(Relay::Off));
    assert!(matches!(switch(port, Relay::Off, &[2], "private"), Err(Error::Refused { .. })), "there is no outlet 2");
    std::fs::remove_dir_all(&folder).unwrap();
}

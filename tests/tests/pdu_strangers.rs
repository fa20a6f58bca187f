//! The console of the emulated PDU, driven by strangers over telnet and the serial line: fence-agents' `fence_apc` and
//! powerman; and NUT's `snmp-ups`, which reads its outlets. What one of them switches our driver sees, and the reverse.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod ours;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use holdfast_tests::pdu::desk::Desk;
use holdfast_tests::pdu::{Command, Firmware, Way, What};
use holdfast_tests::stranger::run;
use hw::ap7921::Relay;
use ours::PATIENCE;

const NAMES: [&str; 8] = ["gateway", "node1", "node2", "node3", "node4", "disks", "switch", "spare"];

/// Which outlets our driver reads as on, and which have power in truth.
fn on(desk: &Desk) -> (Vec<u8>, Vec<u8>) {
    let read = ours::read(desk.snmp).unwrap();
    let read = (1..).zip(read).filter(|(_, on)| on.unwrap()).map(|(outlet, _)| outlet).collect();
    (read, (1..=8).filter(|outlet| desk.is_on(*outlet)).collect())
}

/// fence-agents' driver for APC consoles.
fn fence(address: SocketAddr, user: &str, arguments: &[&str]) -> (i32, String) {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let first = ["--ip", &ip, "--ipport", &port, "-l", user, "-p", "apc"];
    // Its own limits are for a machine that has nothing else to do.
    let patience = ["--login-timeout", "30", "--shell-timeout", "30", "--power-timeout", "30"];
    run("fence-agents", "fence_apc", &[&first[..], &patience, arguments].concat())
}

fn fence_apc_switches(firmware: Firmware, user: &str) {
    let desk = Desk::new(firmware, &NAMES).unwrap();
    let off = fence(desk.telnet, user, &["-o", "off", "-n", "3"]);
    assert_eq!(off, (0, "Success: Powered OFF\n".into()), "{firmware:?} {user}");
    let without: Vec<u8> = vec![1, 2, 4, 5, 6, 7, 8];
    assert_eq!(on(&desk), (without.clone(), without));
    assert_eq!(ours::switch(desk.snmp, Relay::Off, &[5], PATIENCE), Ok(Relay::Off));
    assert_eq!(fence(desk.telnet, user, &["-o", "status", "-n", "5"]).0, 2, "fence_apc says 2 for off");
    assert_eq!(fence(desk.telnet, user, &["-o", "on", "-n", "3"]).0, 0);
    assert!(desk.is_on(3));
    let (code, list) = fence(desk.telnet, user, &["-o", "list-status"]);
    assert_eq!(code, 0, "{list}");
    assert!(list.contains("3,node2,ON") && list.contains("5,node4,OFF"), "{list}");
}

#[test]
fn fence_apc_switches_by_the_menus_of_aos_2() {
    fence_apc_switches(Firmware::Aos2, "apc");
}

#[test]
fn fence_apc_switches_by_the_menus_of_aos_2_as_a_mere_user() {
    fence_apc_switches(Firmware::Aos2, "device");
}

#[test]
fn fence_apc_switches_by_the_menus_of_aos_3() {
    fence_apc_switches(Firmware::Aos3, "apc");
}

#[test]
fn fence_apc_switches_by_the_menus_of_aos_3_as_a_mere_user() {
    fence_apc_switches(Firmware::Aos3, "device");
}

/// The AP7921B at its console, where its command line has other words, and over SNMP, where its states count the other way
/// round: each side reads what the other has switched. `fence_apc_snmp` does not know the card, and takes the branch
/// that all cards keep.
#[test]
fn fence_apc_switches_by_the_command_line_of_aos_6() {
    let desk = Desk::new(Firmware::Aos6, &NAMES).unwrap();
    assert_eq!(fence(desk.telnet, "apc", &["-o", "off", "-n", "3"]), (0, "Success: Powered OFF\n".into()));
    assert!(!desk.is_on(3));
    assert_eq!(fence(desk.telnet, "apc", &["-o", "status", "-n", "3"]).0, 2);
    let without: Vec<u8> = vec![1, 2, 4, 5, 6, 7, 8];
    assert_eq!(on(&desk), (without.clone(), without));
    assert_eq!(ours::switch(desk.snmp, Relay::Off, &[4, 5], PATIENCE), Ok(Relay::Off));
    assert!(!desk.is_on(4) && !desk.is_on(5));
    let snmp = |arguments: &[&str]| {
        let (ip, port) = (desk.snmp.ip().to_string(), desk.snmp.port().to_string());
        let first = ["--ip", &ip, "--ipport", &port, "--community", "private", "--power-timeout", "10"];
        run("fence-agents", "fence_apc_snmp", &[&first[..], arguments].concat()).0
    };
    for outlet in ["4", "5"] {
        assert_eq!(fence(desk.telnet, "apc", &["-o", "status", "-n", outlet]).0, 2, "fence_apc says 2 for off");
        assert_eq!(snmp(&["-o", "status", "-n", outlet]), 2, "and so does fence_apc_snmp");
    }
    assert_eq!(fence(desk.telnet, "apc", &["-o", "on", "-n", "4"]).0, 0);
    assert_eq!(snmp(&["-o", "on", "-n", "5"]), 0);
    assert_eq!(snmp(&["-o", "off", "-n", "6"]), 0);
    assert_eq!(on(&desk), (vec![1, 2, 4, 5, 7, 8], vec![1, 2, 4, 5, 7, 8]));
    assert_eq!(ours::switch(desk.snmp, Relay::On, &[3, 6], PATIENCE), Ok(Relay::On));
    assert_eq!(snmp(&["-o", "status", "-n", "3"]), 0);
}

#[test]
fn fence_apc_is_refused_while_somebody_is_logged_on_and_when_the_password_is_wrong() {
    let desk = Desk::new(Firmware::Aos3, &NAMES).unwrap();
    desk.pdu.set(|faults| faults.logged_on = true);
    let (code, said) = fence(desk.telnet, "apc", &["-o", "off", "-n", "3"]);
    assert!(code == 1 && said.contains("Unable to connect/login"), "{code}: {said}");
    desk.pdu.set(|faults| faults.logged_on = false);
    let (code, _) = fence(desk.telnet, "readonly", &["-o", "off", "-n", "3"]);
    assert_eq!(code, 1);
    assert!(desk.is_on(3));
}

/// A stuck relay, behind a card that says "Command successfully issued".
#[test]
fn fence_apc_waits_for_a_relay_that_is_late_and_not_for_one_that_is_stuck() {
    let desk = Desk::new(Firmware::Aos3, &NAMES).unwrap();
    desk.pdu.set(|faults| faults.lag = Duration::from_secs(3));
    assert_eq!(fence(desk.telnet, "apc", &["-o", "off", "-n", "3"]).0, 0);
    assert!(!desk.is_on(3));
    desk.pdu.set(|faults| _ = faults.stuck.insert(4));
    let (code, said) = fence(desk.telnet, "apc", &["-o", "off", "-n", "4", "--power-timeout", "3"]);
    assert!(code == 1 && said.contains("Timed out waiting to power OFF"), "{code}: {said}");
}

#[test]
fn fence_apc_bears_a_card_that_is_late_on_a_slow_line() {
    let desk = Desk::new(Firmware::Aos3, &NAMES).unwrap();
    desk.pdu.set(|faults| (faults.late, faults.pace) = (Duration::from_millis(200), Duration::from_millis(1)));
    assert_eq!(fence(desk.telnet, "apc", &["-o", "off", "-n", "3"]).0, 0);
    assert!(!desk.is_on(3));
}

/// powerman's daemon, with one device.
struct Powerman {
    daemon: Child,
    folder: PathBuf,
    address: String,
}

impl Drop for Powerman {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Powerman {
    /// With a device script of powerman's own, and what leads to the device.
    fn start(script: &str, device: &str) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let folder = std::env::temp_dir().join(format!("holdfast-powerman-{port}"));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("powerman.conf");
        let (names, numbers) = (NAMES.join(","), (1..=NAMES.len()).map(|n| n.to_string()).collect::<Vec<_>>());
        let text = format!(
            "include \"/etc/powerman/{script}.dev\"\nlisten \"127.0.0.1:{port}\"\n\
             device \"pdu\" \"{script}\" {device}\nnode \"{names}\" \"pdu\" \"{}\"\n",
            numbers.join(",")
        );
        fs::write(&file, text).unwrap();
        let mut daemon = Process::new("/usr/sbin/powermand");
        daemon.args(["-f", "-c"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = daemon.spawn().unwrap_or_else(|error| panic!("{error}; install Debian's package powerman"));
        let powerman = Self { daemon, folder, address: format!("127.0.0.1:{port}") };
        // Until it listens, and has logged in, it knows nothing.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !powerman.ask(&["-q"]).contains("unknown: \n") {
            assert!(Instant::now() < deadline, "powerman does not come to know the outlets");
            std::thread::sleep(Duration::from_millis(50));
        }
        powerman
    }

    fn ask(&self, arguments: &[&str]) -> String {
        run("powerman", "powerman", &[&["-h", &self.address], arguments].concat()).1
    }

    /// Which it says are off. Its scripts leave a screen unread behind each command, so that the first answer is as old as
    /// that command: the second counts.
    fn off(&self) -> String {
        self.ask(&["-q"]);
        let said = self.ask(&["-q"]);
        let off = said.lines().find_map(|line| line.strip_prefix("off:")).unwrap_or_else(|| panic!("{said}"));
        off.trim().to_owned()
    }
}

fn powerman_switches(desk: &Desk, powerman: &Powerman, way: Way) {
    assert_eq!(powerman.off(), "");
    assert!(powerman.ask(&["-0", "node2"]).contains("completed successfully"));
    let without: Vec<u8> = vec![1, 2, 4, 5, 6, 7, 8];
    assert_eq!(on(desk), (without.clone(), without));
    assert_eq!(powerman.off(), "node2");
    assert_eq!(ours::switch(desk.snmp, Relay::Off, &[5], PATIENCE), Ok(Relay::Off));
    assert_eq!(powerman.off(), "node[2,4]");
    assert!(powerman.ask(&["-1", "node2"]).contains("completed successfully"));
    assert!(desk.is_on(3));
    let by = |entry: &holdfast_tests::pdu::Entry| (entry.what == What::Commanded(Command::Off)).then_some(entry.from);
    let first = desk.relays.log().iter().find_map(by).unwrap();
    assert_eq!(std::mem::discriminant(&first), std::mem::discriminant(&way), "{first:?}");
}

#[test]
fn powerman_switches_over_telnet() {
    for (firmware, script) in [(Firmware::Aos2, "apc7900"), (Firmware::Aos3, "apc7900v3")] {
        let desk = Desk::new(firmware, &NAMES).unwrap();
        let powerman = Powerman::start(script, &format!("\"{}\"", desk.telnet));
        powerman_switches(&desk, &powerman, Way::Telnet(desk.telnet));
        // powerman stays logged in for good.
        let (code, said) = fence(desk.telnet, "apc", &["-o", "status", "-n", "1"]);
        assert_eq!(code, 1, "one user at a time: {said}");
        let address = desk.snmp.to_string();
        let set = ["-v1", "-c", "private2", "-m", "", &address, "1.3.6.1.4.1.318.1.1.12.3.3.1.1.4.1", "i", "2"];
        assert!(run("snmp", "snmpset", &set).1.contains("noSuchName"), "Write, while somebody is logged on");
    }
}

#[test]
fn powerman_switches_over_the_serial_line() {
    for (firmware, script) in [(Firmware::Aos2, "apc7900"), (Firmware::Aos3, "apc7900v3")] {
        let desk = Desk::new(firmware, &NAMES).unwrap();
        // powerman waits for a prompt, which nobody on a serial line gets without ENTER.
        fs::write(&desk.serial, "\r").unwrap();
        let powerman = Powerman::start(script, &format!("\"{}\" \"9600,8n1\"", desk.serial.display()));
        powerman_switches(&desk, &powerman, Way::Serial);
    }
}

/// All outlets in two pages, as on a PDU with 24.
#[test]
fn fence_apc_turns_the_pages_of_a_long_list() {
    let names: Vec<String> = (1..=24).map(|n| format!("Outlet {n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let desk = Desk::new(Firmware::Aos3, &names).unwrap();
    let (code, list) = fence(desk.telnet, "apc", &["-o", "list-status"]);
    assert_eq!((code, list.lines().count()), (0, 24), "{list}");
    assert_eq!(fence(desk.telnet, "apc", &["-o", "off", "-n", "24"]).0, 0);
    assert!(!desk.is_on(24));
}

/// What NUT's driver reads of the outlets, in the branch that we do not use.
fn nut(desk: &Desk) -> Vec<String> {
    let port = format!("port={}", desk.snmp);
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap().name;
    let arguments = ["-s", "pdu", "-u", &user, "-d", "1", "-x", "mibs=apc_pdu", "-x", "snmp_version=v1"];
    let program = "/lib/nut/snmp-ups";
    let (code, said) = run("nut-snmp", program, &[&arguments[..], &["-x", &port, "-x", "community=public"]].concat());
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("device.model: AP7921") && said.contains("outlet.count: 8"), "{said}");
    let status = |n: usize| said.lines().find_map(|line| line.strip_prefix(&format!("outlet.{n}.status: ")));
    (1..=NAMES.len()).map(|n| status(n).unwrap_or("missing").to_owned()).collect()
}

#[test]
fn nut_reads_what_we_switched() {
    let desk = Desk::new(Firmware::Aos3, &NAMES).unwrap();
    assert_eq!(nut(&desk), ["on"; 8]);
    assert_eq!(ours::switch(desk.snmp, Relay::Off, &[2, 8], PATIENCE), Ok(Relay::Off));
    assert_eq!(nut(&desk), ["on", "off", "on", "on", "on", "on", "on", "off"]);
    assert_eq!(ours::switch(desk.snmp, Relay::On, &[2], PATIENCE), Ok(Relay::On));
    assert_eq!(nut(&desk), ["on", "on", "on", "on", "on", "on", "on", "off"]);
}

/// What the card's reboot is to a stranger: no answer, and then its outlets as they were.
#[test]
fn a_card_that_reboots_comes_back_with_its_outlets_as_they_were() {
    let desk = Desk::new(Firmware::Aos3, &NAMES).unwrap();
    assert_eq!(fence(desk.telnet, "apc", &["-o", "off", "-n", "3"]).0, 0);
    desk.pdu.reboot(Instant::now(), Duration::from_secs(3600));
    let (code, said) = fence(desk.telnet, "apc", &["-o", "status", "-n", "3"]);
    assert!(code == 1 && said.contains("Unable to connect/login"), "{code}: {said}");
    desk.pdu.reboot(Instant::now(), Duration::ZERO);
    assert_eq!(fence(desk.telnet, "apc", &["-o", "status", "-n", "3"]).0, 2);
    assert_eq!(on(&desk).0, [1, 2, 4, 5, 6, 7, 8]);
}

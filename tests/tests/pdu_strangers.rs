//! The console of the emulated PDU, driven by strangers over telnet and the serial line: fence-agents' `fence_apc` and
//! powerman; and NUT's `snmp-ups`, which reads its outlets. What one of them switches our driver sees, and the reverse.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::SocketAddr;

use holdfast_tests::pdu::desk::Desk;
use holdfast_tests::pdu::{Firmware, Way, What};
use holdfast_tests::stranger::run;

const NAMES: [&str; 8] = ["gateway", "node1", "node2", "node3", "node4", "disks", "switch", "spare"];

/// fence-agents' driver for APC consoles.
fn fence(address: SocketAddr, user: &str, arguments: &[&str]) -> (i32, String) {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let first = ["--ip", &ip, "--ipport", &port, "-l", user, "-p", "apc", "--power-timeout", "10"];
    run("fence-agents", "fence_apc", &[&first[..], arguments].concat())
}

#[test]
fn fence_apc_switches_by_all_menus_and_the_command_line() {
    for firmware in [Firmware::Aos2, Firmware::Aos3, Firmware::Aos6] {
        for user in ["apc", "device"] {
            let desk = Desk::new(firmware, &NAMES).unwrap();
            let off = fence(desk.telnet, user, &["-o", "off", "-n", "3"]);
            assert_eq!(off, (0, "Success: Powered OFF\n".into()), "{firmware:?} {user}");
            let on: Vec<u8> = (1..=8).filter(|outlet| desk.is_on(*outlet)).collect();
            assert_eq!(on, [1, 2, 4, 5, 6, 7, 8]);
            assert_eq!(fence(desk.telnet, user, &["-o", "status", "-n", "3"]).0, 2);
            assert_eq!(fence(desk.telnet, user, &["-o", "on", "-n", "3"]).0, 0);
            assert!(desk.is_on(3));
            let (code, list) = fence(desk.telnet, user, &["-o", "list"]);
            assert_eq!((code, list.contains("3,node2")), (0, true), "{list}");
        }
    }
}

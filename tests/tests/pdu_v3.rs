//! Version 3 of SNMP, authenticated and encrypted: the emulated PDU against net-snmp's tools, fence-agents and NUT, and our
//! driver against it, net-snmp's agent and snmpsim; all of them by both pairs of protocols.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod agents;
mod ours;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use agents::Agent;
use holdfast_tests::pdu::desk::Desk;
use holdfast_tests::pdu::{Command, Firmware, Loads as _, What};
use holdfast_tests::stranger::run;
use hw::ap7921::{self, Error, Relay};
use hw::snmp::Access;
use hw::snmp::usm::{EngineId, Expected, Protocols, Refusal, User};
use ours::{PATIENCE, drive, seed, switch_as};

const STATE: &str = "1.3.6.1.4.1.318.1.1.12.3.5.1.1.4";
const CONTROL: &str = "1.3.6.1.4.1.318.1.1.12.3.3.1.1.4";
const NAMES: [&str; 8] = ["gateway", "node1", "node2", "node3", "node4", "node5", "node6", "node7"];
const AUTHENTICATION: &str = "apc auth passphrase";
const PRIVACY: &str = "apc crypt passphrase";

/// A user that encrypts: the name, and the protocols' names with strangers.
#[derive(Debug, Clone, Copy)]
struct Profile {
    name: &'static str,
    hash: &'static str,
    cipher: &'static str,
    protocols: Protocols,
}

const PROFILES: [Profile; 2] = [
    Profile { name: "apc snmp profile1", hash: "SHA", cipher: "AES", protocols: Protocols::ShaAes },
    Profile { name: "apc snmp profile2", hash: "MD5", cipher: "DES", protocols: Protocols::Md5Des },
];

impl Profile {
    fn access(self) -> Access {
        self.with(self.name, AUTHENTICATION, PRIVACY)
    }

    fn with(self, name: &str, authentication: &str, privacy: &str) -> Access {
        Access::V3(User::new(name, authentication, privacy, self.protocols).unwrap(), Expected::first())
    }
}

fn desk(firmware: Firmware) -> Desk {
    Desk::new(firmware, &NAMES).unwrap()
}

/// One of net-snmp's tools.
fn snmp(profile: Profile, tool: &str, address: SocketAddr, arguments: &[&str]) -> (i32, String) {
    let (address, Profile { name, hash, cipher, .. }) = (address.to_string(), profile);
    let user = ["-v3", "-l", "authPriv", "-u", name, "-a", hash, "-A", AUTHENTICATION, "-x", cipher, "-X", PRIVACY];
    let rest = ["-m", "", "-Oenq", "-t1", "-r2", &address];
    // What a tool has learned of a user is kept; not where others look.
    run("snmp", tool, &[&user[..], &rest, arguments].concat())
}

/// fence-agents' driver for APC switches.
fn fence(profile: Profile, address: SocketAddr, arguments: &[&str]) -> (i32, String) {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let Profile { name, hash, cipher, .. } = profile;
    let first = ["--ip", &ip, "--ipport", &port, "--snmp-version", "3", "--snmp-sec-level", "authPriv"];
    let user = ["-l", name, "-p", AUTHENTICATION, "--snmp-auth-prot", hash];
    let privacy = ["--snmp-priv-prot", cipher, "--snmp-priv-passwd", PRIVACY, "--power-timeout", "10"];
    run("fence-agents", "fence_apc_snmp", &[&first[..], &user, &privacy, arguments].concat())
}

/// Which outlets our driver reads as on.
fn read(access: &Access, address: SocketAddr) -> Vec<u8> {
    let outlets = drive(ap7921::status(access, seed()), address, PATIENCE).unwrap();
    let on = |(seen, _): &&(ap7921::Seen, String)| seen.state == Ok(Relay::On);
    outlets.iter().filter(on).map(|(seen, _)| seen.outlet).collect()
}

#[test]
fn strangers_read_and_write_and_walk() {
    for profile in PROFILES {
        let desk = desk(Firmware::Aos3);
        let state = format!("{STATE}.3");
        assert_eq!(snmp(profile, "snmpget", desk.snmp, &[&state]), (0, format!(".{state} 1\n")));
        assert!(desk.is_on(3));
        let command = format!("{CONTROL}.3");
        assert_eq!(snmp(profile, "snmpset", desk.snmp, &[&command, "i", "2"]), (0, format!(".{command} 2\n")));
        assert_eq!(snmp(profile, "snmpget", desk.snmp, &[&state]), (0, format!(".{state} 2\n")));
        assert!(!desk.is_on(3) && desk.is_on(2) && desk.is_on(4));
        for tool in ["snmpwalk", "snmpbulkwalk"] {
            let (code, said) = snmp(profile, tool, desk.snmp, &["1.3"]);
            assert_eq!(code, 0, "{said}");
            for line in [
                ".1.3.6.1.2.1.1.2.0 .1.3.6.1.4.1.318.1.3.4.5",
                ".1.3.6.1.4.1.318.1.1.12.1.5.0 \"AP7921\"",
                ".1.3.6.1.4.1.318.1.1.12.3.5.1.1.2.3 \"node2\"",
                ".1.3.6.1.4.1.318.1.1.12.3.5.1.1.4.3 2",
            ] {
                assert!(said.lines().any(|said| said == line), "{tool}: {line} is not in:\n{said}");
            }
        }
    }
}

#[test]
fn fence_apc_snmp_switches_and_our_driver_sees_it() {
    for profile in PROFILES {
        let desk = desk(Firmware::Aos3);
        assert_eq!(fence(profile, desk.snmp, &["-o", "status", "-n", "2"]).0, 0, "fence_apc_snmp says 0 for on");
        let (code, said) = fence(profile, desk.snmp, &["-o", "off", "-n", "2"]);
        assert_eq!(code, 0, "{said}");
        assert!(!desk.is_on(2));
        assert_eq!(fence(profile, desk.snmp, &["-o", "status", "-n", "2"]).0, 2, "and 2 for off");
        assert_eq!(read(&profile.access(), desk.snmp), [1, 3, 4, 5, 6, 7, 8]);
        assert_eq!(switch_as(&profile.access(), desk.snmp, Relay::On, &[2], PATIENCE), Ok(Relay::On));
        assert_eq!(fence(profile, desk.snmp, &["-o", "status", "-n", "2"]).0, 0);
        assert!(desk.is_on(2));
        let (_, said) = fence(profile, desk.snmp, &["-o", "list"]);
        assert!(said.contains("3,node2"), "{said}");
    }
}

/// On both cards.
#[test]
fn our_driver_switches_reads_and_measures() {
    for firmware in [Firmware::Aos3, Firmware::Aos6] {
        for profile in PROFILES {
            let (desk, access) = (desk(firmware), profile.access());
            desk.pdu.set(|faults| faults.lag = Duration::from_millis(300));
            assert_eq!(read(&access, desk.snmp), [1, 2, 3, 4, 5, 6, 7, 8]);
            assert_eq!(switch_as(&access, desk.snmp, Relay::Off, &[2, 8], PATIENCE), Ok(Relay::Off));
            assert!(!desk.is_on(2) && !desk.is_on(8) && desk.is_on(1));
            assert_eq!(read(&access, desk.snmp), [1, 3, 4, 5, 6, 7]);
            assert_eq!(switch_as(&access, desk.snmp, Relay::On, &[8], PATIENCE), Ok(Relay::On));
            assert!(!desk.is_on(2) && desk.is_on(8));
            let absent = switch_as(&access, desk.snmp, Relay::Off, &[9], PATIENCE);
            assert_eq!(absent, Err(Error::OutOfRange { outlet: 9, outlets: 8 }));
            desk.pdu.set(|faults| _ = faults.refuse.insert(3));
            let refused = switch_as(&access, desk.snmp, Relay::Off, &[3], PATIENCE).unwrap_err();
            assert_eq!(refused.to_string(), "refused to switch outlet 3 off: genErr");
        }
    }
    let access = PROFILES[0].access();
    assert_eq!(drive(ap7921::load(&access, seed()), desk(Firmware::Aos3).snmp, PATIENCE), Ok(0));
}

#[test]
fn strangers_are_refused_in_the_words_of_the_standard() {
    let desk = desk(Firmware::Aos3);
    let [sha, _] = PROFILES;
    let state = format!("{STATE}.1");
    let said = |profile: Profile| snmp(profile, "snmpget", desk.snmp, &[&state]).1;
    assert!(said(Profile { name: "nobody", ..sha }).contains("Unknown user name"));
    assert!(said(Profile { name: "apc snmp profile3", ..sha }).contains("Unsupported security level"));
    assert!(said(Profile { hash: "MD5", ..sha }).contains("Authentication failure"));
    let (code, words) = snmp(sha, "snmpset", desk.snmp, &[&format!("{CONTROL}.1"), "i", "99"]);
    assert!(code != 0 && words.contains("wrongValue"), "{words}");
    let (code, words) = snmp(sha, "snmpset", desk.snmp, &[&state, "i", "2"]);
    assert!(code != 0 && words.contains("notWritable"), "{words}");
    let address = desk.snmp.to_string();
    let weak = ["-v3", "-l", "noAuthNoPriv", "-u", sha.name, "-m", "", "-t1", "-r1", &address, &state];
    assert!(run("snmp", "snmpget", &weak).1.contains("Unsupported security level"));
    assert!(desk.is_on(1));
}

/// What our driver says of everything that can be wrong with a user: the emulated PDU and net-snmp's agent agree.
fn wrong_users(address: SocketAddr) {
    let [sha, _] = PROFILES;
    let off = |access: &Access| switch_as(access, address, Relay::Off, &[1], PATIENCE).unwrap_err();
    let wrong = [
        (sha.with("nobody", AUTHENTICATION, PRIVACY), Refusal::User, "knows no such user"),
        (sha.with(sha.name, "wrong passphrase", PRIVACY), Refusal::Password, "refuses the user or password"),
        (
            sha.with(sha.name, AUTHENTICATION, "wrong passphrase"),
            Refusal::Encryption,
            "does not answer what is encrypted",
        ),
        (
            sha.with("apc snmp profile3", AUTHENTICATION, PRIVACY),
            Refusal::Level,
            "does not let this user authenticate and encrypt",
        ),
    ];
    std::thread::scope(|scope| {
        let asked = wrong.map(|(access, refusal, words)| (scope.spawn(move || off(&access)), refusal, words));
        for (asked, refusal, words) in asked {
            let error = asked.join().unwrap();
            assert_eq!(error, Error::Unwilling(refusal));
            let said = error.to_string();
            assert!(said.starts_with(&format!("the power switch {words}")) && said.ends_with("(SNMP v3)"), "{said}");
        }
    });
}

#[test]
fn every_wrong_user_has_words_of_his_own() {
    let desk = desk(Firmware::Aos3);
    wrong_users(desk.snmp);
    assert!(desk.is_on(1));
}

#[test]
fn lost_and_late_datagrams_are_made_good() {
    let desk = desk(Firmware::Aos3);
    let access = PROFILES[0].access();
    desk.pdu.set(|faults| (faults.lose_requests, faults.lose_replies) = (2, 2));
    assert_eq!(switch_as(&access, desk.snmp, Relay::Off, &[4], PATIENCE), Ok(Relay::Off));
    assert!(!desk.is_on(4));
    // Each reply comes to a socket that is no more.
    desk.pdu.set(|faults| faults.late = Duration::from_millis(1200));
    let soon = switch_as(&access, desk.snmp, Relay::Off, &[5], Duration::from_secs(3));
    assert_eq!(soon, Err(Error::NoReply));
    assert!(desk.is_on(5));
}

/// Two devices with the same users, one in the other's place: net-snmp's agent, and the emulated power switch.
#[test]
fn another_device_at_the_address_is_not_switched() {
    let (agent, desk) = (agent(), desk(Firmware::Aos3));
    for profile in PROFILES {
        let access = profile.access();
        assert_eq!(switch_as(&access, agent.address, Relay::On, &[1], PATIENCE), Ok(Relay::On));
        let Access::V3(user, expected) = &access else { unreachable!() };
        let first = expected.known().unwrap();
        let (code, said) = snmp(profile, "snmpget", agent.address, &["-Ox", "1.3.6.1.6.3.10.2.1.1.0"]);
        let digits: String = said.split('"').nth(1).unwrap_or_default().split_whitespace().collect();
        assert_eq!((code, digits.to_lowercase()), (0, first.to_string()), "net-snmp's own word of its engine: {said}");

        let refused = switch_as(&access, desk.snmp, Relay::Off, &[1], PATIENCE).unwrap_err();
        let Error::Unwilling(Refusal::Engine { expected, found }) = refused else { panic!("{refused}") };
        assert!(expected == first && found != first);
        assert!(refused.to_string().starts_with("another device answers: its SNMP engine is 8000013e03"), "{refused}");
        assert!(desk.is_on(1) && !desk.relays.log().iter().any(|entry| entry.what == What::Commanded(Command::Off)));
        assert_eq!(switch_as(&access, agent.address, Relay::On, &[1], PATIENCE), Ok(Relay::On), "and back");

        // As cluster.toml may say.
        let named = |engine| Access::V3(user.clone(), Expected::only(engine));
        assert_eq!(switch_as(&named(found), desk.snmp, Relay::On, &[1], PATIENCE), Ok(Relay::On));
        let wrong = EngineId::new(b"another one").unwrap();
        let refused = switch_as(&named(wrong), desk.snmp, Relay::Off, &[1], PATIENCE);
        assert_eq!(refused, Err(Error::Unwilling(Refusal::Engine { expected: wrong, found })));
        assert!(desk.is_on(1));
    }
}

/// While an outlet's relay takes its time, the card's clock leaves the window; and then it reboots.
#[test]
fn a_clock_that_jumps_is_followed() {
    let (desk, access) = (desk(Firmware::Aos3), PROFILES[0].access());
    desk.pdu.set(|faults| _ = faults.stuck.insert(6));
    std::thread::scope(|scope| {
        let off = scope.spawn(|| switch_as(&access, desk.snmp, Relay::Off, &[6], PATIENCE));
        let deadline = Instant::now() + PATIENCE;
        let readings = || desk.relays.log().len();
        let go_on = || {
            let before = readings();
            while readings() < before + 3 {
                assert!(Instant::now() < deadline, "it does not go on");
            }
        };
        go_on();
        desk.pdu.set(|faults| faults.clock_ahead = Duration::from_secs(1000));
        go_on();
        desk.pdu.reboot(Instant::now(), Duration::ZERO);
        go_on();
        desk.relays.switch(6, false);
        assert_eq!(off.join().unwrap(), Ok(Relay::Off));
    });
}

/// net-snmp's agent with the emulated outlets behind it, and the same users.
fn agent() -> Agent {
    let users = |Profile { name, hash, cipher, .. }: Profile| {
        format!("createUser \"{name}\" {hash} \"{AUTHENTICATION}\" {cipher} \"{PRIVACY}\"\nrwuser \"{name}\" priv\n")
    };
    let weak =
        format!("createUser \"apc snmp profile3\" SHA \"{AUTHENTICATION}\"\nrwuser \"apc snmp profile3\" auth\n");
    Agent::start(&format!(
        "override 1.3.6.1.2.1.1.2.0 object_id 1.3.6.1.4.1.318.1.3.4.5\n\
         pass_persist .1.3.6.1.4.1.318.1.1.12 {} pass-persist\n{}{weak}",
        env!("CARGO_BIN_EXE_pdu"),
        PROFILES.map(users).concat()
    ))
}

#[test]
fn our_driver_switches_outlets_behind_net_snmps_agent() {
    let agent = agent();
    let address = agent.address;
    for (profile, [first, second, third]) in PROFILES.into_iter().zip([[2, 3, 4], [5, 6, 7]]) {
        let access = profile.access();
        let on = read(&access, address);
        assert!([1, first, second, third, 8].iter().all(|outlet| on.contains(outlet)), "{on:?}");
        assert_eq!(switch_as(&access, address, Relay::Off, &[first, second], PATIENCE), Ok(Relay::Off));
        assert_eq!(fence(profile, address, &["-o", "status", "-n", &second.to_string()]).0, 2);
        assert_eq!(fence(profile, address, &["-o", "on", "-n", &second.to_string()]).0, 0);
        assert_eq!(snmp(profile, "snmpset", address, &[&format!("{CONTROL}.{third}"), "i", "2"]).0, 0);
        let left: Vec<u8> = on.into_iter().filter(|outlet| ![first, third].contains(outlet)).collect();
        assert_eq!(read(&access, address), left);
        assert_eq!(drive(ap7921::load(&access, seed()), address, PATIENCE), Ok(0));
    }
    wrong_users(address);
    let [sha, _] = PROFILES;
    assert!(read(&sha.access(), address).contains(&1));
}

/// An AP7921 of two outlets, in snmpsim's form: both columns of an outlet's relay can be written.
fn recording() -> String {
    let rpdu = "1.3.6.1.4.1.318.1.1.12";
    let columns = [
        ("3.3.1.1.4", "2:writecache", ["value=1", "value=1"]),
        ("3.5.1.1.2", "4", ["node1", "node2"]),
        ("3.5.1.1.4", "2:writecache", ["value=1", "value=1"]),
        ("3.5.1.1.5", "2", ["2", "2"]),
    ];
    let mut lines = vec!["1.3.6.1.2.1.1.2.0|6|1.3.6.1.4.1.318.1.3.4.5".to_owned()];
    let objects = [("1.5.0", "4", "AP7921"), ("1.8.0", "2", "2"), ("2.3.1.1.2.1", "66", "17")];
    lines.extend(objects.map(|(object, kind, value)| format!("{rpdu}.{object}|{kind}|{value}")));
    for (column, kind, values) in columns {
        lines.extend((1..).zip(values).map(|(n, value)| format!("{rpdu}.{column}.{n}|{kind}|{value}")));
    }
    lines.join("\n") + "\n"
}

/// Its states do not follow the commands until a stranger makes them.
#[test]
fn our_driver_speaks_with_snmpsim() {
    for profile in PROFILES {
        let Profile { name, hash, cipher, .. } = profile;
        let user = [
            format!("--v3-user={name}"),
            format!("--v3-auth-proto={hash}"),
            format!("--v3-auth-key={AUTHENTICATION}"),
            format!("--v3-priv-proto={cipher}"),
            format!("--v3-priv-key={PRIVACY}"),
        ];
        let agent = Agent::recorded(&recording(), &user.each_ref().map(String::as_str));
        let (address, access) = (agent.address, profile.access());
        // It takes seconds to start.
        let deadline = Instant::now() + Duration::from_secs(60);
        while drive(ap7921::load(&access, seed()), address, PATIENCE) != Ok(17) {
            assert!(Instant::now() < deadline, "snmpsimd does not start");
        }
        assert_eq!(read(&access, address), [1, 2]);
        let off = std::thread::spawn(move || switch_as(&profile.access(), address, Relay::Off, &[2], 2 * PATIENCE));
        let command = format!("{CONTROL}.2");
        while !snmp(profile, "snmpget", address, &[&command]).1.ends_with(" 2\n") {
            assert!(Instant::now() < deadline, "the command did not reach it");
        }
        assert_eq!(snmp(profile, "snmpset", address, &[&format!("{STATE}.2"), "i", "2"]).0, 0);
        assert_eq!(off.join().unwrap(), Ok(Relay::Off));
        assert_eq!(read(&access, address), [1]);
        let absent = switch_as(&access, address, Relay::Off, &[3], PATIENCE);
        assert_eq!(absent, Err(Error::OutOfRange { outlet: 3, outlets: 2 }));
    }
}

/// What NUT's driver reads of the outlets, in the branch that we do not use. It (2.8.0) takes version 3's word that there is no
/// outlet 0 for a value, begins to count there, and so does not come to the last one.
#[test]
fn nut_reads_what_we_switched() {
    for profile in PROFILES {
        let desk = desk(Firmware::Aos3);
        assert_eq!(switch_as(&profile.access(), desk.snmp, Relay::Off, &[2, 7], PATIENCE), Ok(Relay::Off));
        let Profile { name, hash, cipher, .. } = profile;
        let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap().name;
        let settings = [
            format!("port={}", desk.snmp),
            "mibs=apc_pdu".into(),
            "snmp_version=v3".into(),
            "secLevel=authPriv".into(),
            format!("secName={name}"),
            format!("authPassword={AUTHENTICATION}"),
            format!("privPassword={PRIVACY}"),
            format!("authProtocol={hash}"),
            format!("privProtocol={cipher}"),
        ];
        let settings = settings.iter().flat_map(|setting| ["-x", setting]);
        let arguments: Vec<&str> = ["-s", "pdu", "-u", &user, "-d", "1"].into_iter().chain(settings).collect();
        let (code, said) = run("nut-snmp", "/lib/nut/snmp-ups", &arguments);
        assert_eq!(code, 0, "{said}");
        let status = |n: usize| said.lines().find_map(|line| line.strip_prefix(&format!("outlet.{n}.status: ")));
        let states: Vec<_> = (1..=NAMES.len()).filter_map(status).collect();
        assert_eq!(states.get(..7).unwrap(), ["on", "off", "on", "on", "on", "on", "off"], "{said}");
    }
}

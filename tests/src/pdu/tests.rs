//! The agent by itself, in a time that is told: frames as they were on the wire between net-snmp's tools and another
//! agent (facts/hardware.md, 1.7), and everything that is no frame.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rasn_snmp::v1::{GetRequest, Message, Pdu as Body, Pdus, VarBind};

use super::desk::Relays;
use super::{Console, Loads as _, Pdu, Way};

const FROM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 40000);
const GET_STATE_1: &str = "3032020100040770726976617465a024020421b1e0d50201000201003016301406102b06010401823e01010c\
                           0305010104010500";
const STATE_1_IS_ON: &str = "3033020100040770726976617465a225020421b1e0d50201000201003017301506102b06010401823e0101\
                             0c030501010401020101";
const SET_1_OFF: &str = "3033020100040770726976617465a32502047f8fcf010201000201003017301506102b06010401823e01010c03\
                         0301010401020102";
const SET_1_99: &str = "3033020100040770726976617465a325020403cecc980201000201003017301506102b06010401823e01010c030\
                        301010401020163";
const BAD_VALUE: &str = "3033020100040770726976617465a225020403cecc980201030201013017301506102b06010401823e01010c03\
                         0301010401020163";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).filter_map(|d| u8::try_from(d).ok()).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}

fn pdu() -> (Pdu, Relays, Instant) {
    let relays = Relays::default();
    (Pdu::new(&["gateway", "node1"], Box::new(relays.clone())), relays, Instant::now())
}

#[test]
fn the_frames_are_those_of_the_wire() {
    let (pdu, relays, now) = pdu();
    let reply = |frame: &str| pdu.handle(now, FROM, &bytes(frame)).map(|(reply, _)| reply);
    assert_eq!(reply(GET_STATE_1), Some(bytes(STATE_1_IS_ON)));
    assert_eq!(reply(SET_1_99), Some(bytes(BAD_VALUE)));
    assert_eq!(reply(SET_1_OFF), Some(bytes(&SET_1_OFF.replace("a325", "a225"))));
    assert!(relays.is_on(1), "the reply proves nothing");
    pdu.tick(now);
    assert!(!relays.is_on(1));
}

#[test]
fn what_is_no_request_brings_no_reply_and_switches_nothing() {
    let (pdu, relays, now) = pdu();
    let frame = bytes(SET_1_OFF);
    for length in 0..frame.len() {
        let cut = frame.get(..length).unwrap_or_default();
        assert_eq!(pdu.handle(now, FROM, cut), None, "cut to {length}");
    }
    let mut seed = 7_u64;
    for at in 0..frame.len() * 8 {
        let mut flipped = frame.clone();
        if let Some(byte) = flipped.get_mut(at / 8) {
            *byte ^= 1 << (at % 8);
        }
        // Some flips make another request, which is answered; none may make it fall over.
        let _ = pdu.handle(now, FROM, &flipped);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let noise: Vec<u8> = frame.iter().zip(seed.to_le_bytes().into_iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(pdu.handle(now, FROM, &noise), None);
    }
    let written = pdu.handle(now, FROM, &bytes(&SET_1_OFF.replace("70726976617465", "67756573736564")));
    assert_eq!(written, None, "a community that is guessed");
    assert!(relays.is_on(2));
}

/// sysUpTime, in hundredths of a second.
fn uptime(pdu: &Pdu, now: Instant) -> Option<Vec<VarBind>> {
    let name = rasn::types::ObjectIdentifier::new_unchecked(vec![1, 3, 6, 1, 2, 1, 1, 3, 0].into());
    let value = rasn_smi::v1::ObjectSyntax::Simple(rasn_smi::v1::SimpleSyntax::Empty);
    let body = Body {
        request_id: 1.into(),
        error_status: 0.into(),
        error_index: 0.into(),
        variable_bindings: vec![VarBind { name, value }],
    };
    let community = rasn::types::OctetString::from_static(b"public");
    let message = Message { version: 0.into(), community, data: Pdus::GetRequest(GetRequest(body)) };
    let (reply, _) = pdu.handle(now, FROM, &rasn::ber::encode(&message).ok()?)?;
    match rasn::ber::decode::<Message<Pdus>>(&reply).ok()?.data {
        Pdus::GetResponse(response) => Some(response.0.variable_bindings),
        Pdus::GetRequest(_) | Pdus::GetNextRequest(_) | Pdus::SetRequest(_) | Pdus::Trap(_) => None,
    }
}

#[test]
fn a_reboot_is_silence_and_then_a_cold_start() {
    use rasn_smi::v1::{ApplicationSyntax, ObjectSyntax, TimeTicks};
    let (pdu, relays, _) = pdu();
    let after = |seconds: u64| pdu.made + Duration::from_secs(seconds);
    let ticks = |now: Instant| {
        let ticks = |bind: &VarBind| match bind.value {
            ObjectSyntax::ApplicationWide(ApplicationSyntax::Ticks(TimeTicks(ticks))) => Some(ticks),
            ObjectSyntax::ApplicationWide(_) | ObjectSyntax::Simple(_) => None,
        };
        uptime(&pdu, now).and_then(|binds| binds.first().and_then(ticks))
    };
    assert!(pdu.handle(after(0), FROM, &bytes(SET_1_OFF)).is_some());
    pdu.tick(after(0));
    assert_eq!(ticks(after(100)), Some(10_000));
    pdu.reboot(after(100), Duration::from_secs(20));
    assert_eq!(ticks(after(119)), None);
    assert_eq!(ticks(after(121)), Some(100));
    assert!(!relays.is_on(1) && relays.is_on(2));
}

#[test]
fn a_pdu_whose_network_cable_is_pulled_is_reached_at_its_serial_line() {
    let (pdu, relays, now) = pdu();
    pdu.set(|faults| faults.unplugged = true);
    assert_eq!(pdu.handle(now, FROM, &bytes(GET_STATE_1)), None);
    assert!(!pdu.takes_telnet(now));
    let mut console = Console::new(&pdu, Way::Serial, now);
    let mut typed = |text: &str| String::from_utf8(console.receive(&pdu, now, text.as_bytes())).unwrap_or_default();
    assert!(typed("\r").contains("User Name"));
    assert!(typed("apc\rapc -c\roff 2\r").contains("Outlet Turned Off"));
    pdu.tick(now);
    assert!(relays.is_on(1) && !relays.is_on(2));
}

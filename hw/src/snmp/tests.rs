use super::*;

/// From the wire between net-snmp's tools and a simulated AP7921.
const GET: &str =
    "3032020100040770726976617465a024020421b1e0d50201000201003016301406102b06010401823e01010c0305010104010500";
const GET_REPLY: &str =
    "3033020100040770726976617465a225020421b1e0d50201000201003017301506102b06010401823e01010c030501010401020101";
const SET: &str =
    "3033020100040770726976617465a32502047f8fcf010201000201003017301506102b06010401823e01010c030301010401020102";
const BAD_VALUE: &str =
    "3033020100040770726976617465a225020403cecc980201030201013017301506102b06010401823e01010c030301010401020163";
const GEN_ERR: &str =
    "3033020100040770726976617465a22502044ae5725e0201050201013017301506102b06010401823e01010c030301010406020102";

const RPDU: &[u32] = &[1, 3, 6, 1, 4, 1, 318, 1, 1, 12];

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

fn golden() -> Vec<(&'static str, Message)> {
    let message = |kind, id, error, rest: &[u32], value| Message {
        community: b"private".to_vec(),
        pdu: Pdu { kind, id, error, bindings: vec![(Oid::new(RPDU, rest), value)] },
    };
    let state = [3, 5, 1, 1, 4, 1];
    let control = [3, 3, 1, 1, 4, 1];
    let control_6 = [3, 3, 1, 1, 4, 6];
    vec![
        (GET, message(Kind::Get, 0x21b1_e0d5, None, &state, Value::Null)),
        (GET_REPLY, message(Kind::Response, 0x21b1_e0d5, None, &state, Value::Integer(1))),
        (SET, message(Kind::Set, 0x7f8f_cf01, None, &control, Value::Integer(2))),
        (
            BAD_VALUE,
            message(Kind::Response, 0x03ce_cc98, Some((ErrorStatus::BadValue, 1)), &control, Value::Integer(99)),
        ),
        (GEN_ERR, message(Kind::Response, 0x4ae5_725e, Some((ErrorStatus::GenErr, 1)), &control_6, Value::Integer(2))),
    ]
}

#[test]
fn golden_frames_are_read_and_written_to_the_byte() {
    for (hex, message) in golden() {
        assert_eq!(Message::decode(&bytes(hex)), Ok(message.clone()));
        assert_eq!(message.encode(), bytes(hex), "{message:?}");
    }
}

#[test]
fn numbers_names_and_long_lengths_survive() {
    for number in [0, 1, -1, 127, 128, -128, -129, 255, 256, 32767, 32768, i32::MAX, i32::MIN] {
        let pdu = Pdu {
            kind: Kind::Response,
            id: number,
            error: None,
            bindings: vec![
                (Oid::new(&[1, 3], &[0, 127, 128, 16383, 16384, u32::MAX]), Value::Integer(number)),
                (Oid::new(&[2, 5], &[]), Value::Text(vec![7; 300])),
                (Oid::new(&[2, 5], &[]), Value::Gauge(number.unsigned_abs())),
                (Oid::new(&[2, 5], &[]), Value::Gauge(u32::MAX)),
                (Oid::new(RPDU, &[]), Value::Oid(Oid::new(RPDU, &[1]))),
            ],
        };
        let message = Message { community: vec![b'x'; 200], pdu };
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
}

#[test]
fn a_longer_form_of_the_same_length_is_read() {
    let short = bytes(GET_REPLY);
    let mut long = vec![0x30, 0x82, 0x00, 0x33];
    long.extend_from_slice(&short[2..]);
    assert_eq!(Message::decode(&long), Message::decode(&short));
}

/// Every cut of a golden frame is malformed; every change of one octet, and noise, is read or refused without a panic.
#[test]
fn reading_is_total() {
    let mut ids = Ids::new(1);
    for (hex, _) in golden() {
        let frame = bytes(hex);
        for length in 0..frame.len() {
            assert_eq!(Message::decode(&frame[..length]), Err(Malformed), "cut to {length}");
        }
        for place in 0..frame.len() {
            for octet in 0..=255 {
                let mut changed = frame.clone();
                changed[place] = octet;
                let _ = Message::decode(&changed);
            }
        }
        for _ in 0..20_000 {
            let mut noise = frame.clone();
            for _ in 0..4 {
                let [place, octet, ..] = ids.draw().to_le_bytes();
                let place = usize::from(place) % noise.len();
                noise[place] = octet;
            }
            let _ = Message::decode(&noise);
        }
    }
    assert_eq!(Message::decode(&[&bytes(GET)[..], &[0]].concat()), Err(Malformed), "something behind it");
}

#[test]
fn ids_differ_and_are_never_negative() {
    let mut ids = Ids::new(0);
    let drawn: std::collections::BTreeSet<i32> = (0..10_000).map(|_| ids.draw()).collect();
    assert!(drawn.len() > 9_990);
    assert!(drawn.first().is_some_and(|least| *least >= 0));
}

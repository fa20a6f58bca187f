//! A hostile member: it holds the cluster's key, so its datagrams are sealed well, and it says anything. It may break the
//! cluster, but no datagram ends a supervisor or fills its memory; nor does any text for a configuration.
//!
//! These are bounded, seeded runs of what `tests/fuzz` does without end.
#![cfg(feature = "world")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster::config::Config;
use holdfast_tests::world::{Chance, World};
use hw::snmp::v3::{self, Level, Scoped};
use hw::snmp::{Kind, Message, Oid, Pdu, Value};

/// Datagrams that are changed.
const DATAGRAMS: u64 = 200_000;
/// Texts that are changed.
const TEXTS: u64 = 20_000;
/// Bytes by which this process may grow meanwhile.
const GROWTH: u64 = 64 << 20;

static CHANGED: AtomicU64 = AtomicU64::new(0);

#[test]
fn no_datagram_of_a_hostile_member_ends_a_supervisor() {
    let before = memory();
    let mut panics: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0.. {
        if CHANGED.load(Ordering::Relaxed) >= DATAGRAMS {
            break;
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| live(seed))) {
            let text =
                panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            // What differs between two of a kind are numbers.
            let kind = text.unwrap_or_default().replace(|c: char| c.is_ascii_digit(), "");
            panics.entry(kind).or_insert(seed);
        }
    }
    assert!(panics.is_empty(), "{panics:#?}");
    let growth = memory().saturating_sub(before);
    assert!(growth < GROWTH, "{growth} bytes more");
}

fn live(seed: u64) {
    let mut world = World::new(seed, 3, 2);
    (0..world.size()).for_each(|at| world.power_on(at));
    world.run(Duration::from_secs(20));
    world.meddler = Some(meddle);
    // A breach of an invariant ends the world: that a member with the key can do.
    world.run(Duration::from_secs(120));
}

fn meddle(dice: &mut Chance, datagram: &[u8]) -> Option<Vec<u8>> {
    if !dice.happens(60) {
        return None;
    }
    CHANGED.fetch_add(1, Ordering::Relaxed);
    if dice.happens(40) { Some(change_bytes(dice, datagram)) } else { change_agreement(dice, datagram) }
}

/// What nobody who knows the format would do.
fn change_bytes(dice: &mut Chance, datagram: &[u8]) -> Vec<u8> {
    let mut bytes = datagram.to_vec();
    for _ in 0..=dice.below(3) {
        let at = usize::try_from(dice.below(u64::try_from(bytes.len().max(1)).unwrap())).unwrap();
        match dice.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), u8::try_from(dice.below(256)).unwrap()),
            2 => bytes.extend(datagram.iter().skip(at)),
            _ => {
                for byte in bytes.iter_mut().skip(at).take(1) {
                    *byte ^= 1 << dice.below(8);
                }
            }
        }
    }
    bytes
}

/// What somebody would do who knows it: the agreement's message says something else, and all around it is well formed.
fn change_agreement(dice: &mut Chance, datagram: &[u8]) -> Option<Vec<u8>> {
    // Version, slot, incarnation, life, sequence; what the body is; the generation; slot, incarnation and life of the addressee.
    let mut rest = Reader(datagram);
    rest.skip(2)?;
    rest.varint()?;
    rest.skip(2)?;
    rest.varint()?;
    if rest.varint()? != 2 {
        return None;
    }
    rest.varint()?;
    rest.skip(1)?;
    rest.varint()?;
    rest.skip(2)?;
    let head = datagram.len() - rest.0.len();
    let length = usize::try_from(rest.varint()?).ok()?;
    let message = change_message(dice, rest.0.get(..length)?)?;
    let mut bytes = datagram.get(..head)?.to_vec();
    put_varint(&mut bytes, u64::try_from(message.len()).ok()?);
    bytes.extend(message);
    Some(bytes)
}

/// One field of a message of protocol buffers.
#[derive(Clone)]
enum Field {
    Number(u64, u64),
    Bytes(u64, Vec<u8>),
}

/// Changes one field of a message, or of a message in it.
fn change_message(dice: &mut Chance, message: &[u8]) -> Option<Vec<u8>> {
    let mut fields = fields(message)?;
    let at = usize::try_from(dice.below(u64::try_from(fields.len() + 1).ok()?)).ok()?;
    let strange = [0, 1, 2, 5, 64, u64::from(u32::MAX), u64::MAX - 1, u64::MAX];
    let number = *strange.get(usize::try_from(dice.below(8)).ok()?)?;
    match fields.get_mut(at) {
        // A field that was absent, which is the same as zero.
        None => fields.push(Field::Number(1 + dice.below(15), number)),
        Some(_) if dice.happens(10) => drop(fields.remove(at)),
        Some(field) if dice.happens(5) => {
            let again = field.clone();
            fields.push(again);
        }
        Some(Field::Number(_, value)) => {
            *value = match dice.below(4) {
                0 => value.wrapping_add(1),
                1 => value.wrapping_sub(1),
                2 => dice.below(20),
                _ => number,
            }
        }
        Some(Field::Bytes(_, bytes)) => {
            *bytes = change_message(dice, bytes).unwrap_or_else(|| change_bytes(dice, bytes));
        }
    }
    let mut changed = Vec::new();
    for field in fields {
        match field {
            Field::Number(tag, value) => {
                put_varint(&mut changed, tag << 3);
                put_varint(&mut changed, value);
            }
            Field::Bytes(tag, bytes) => {
                put_varint(&mut changed, tag << 3 | 2);
                put_varint(&mut changed, u64::try_from(bytes.len()).ok()?);
                changed.extend(bytes);
            }
        }
    }
    Some(changed)
}

fn fields(message: &[u8]) -> Option<Vec<Field>> {
    let mut rest = Reader(message);
    let mut fields = Vec::new();
    while !rest.0.is_empty() {
        let key = rest.varint()?;
        fields.push(match key & 7 {
            0 => Field::Number(key >> 3, rest.varint()?),
            2 => {
                let length = usize::try_from(rest.varint()?).ok()?;
                Field::Bytes(key >> 3, rest.skip(length)?.to_vec())
            }
            _ => return None,
        });
    }
    Some(fields)
}

/// What is left of some bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn skip(&mut self, count: usize) -> Option<&'a [u8]> {
        let (skipped, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(skipped)
    }

    /// A number of 7 bits a byte, the lowest first, as both formats have it.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.skip(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
}

/// What this process holds, in bytes.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn no_text_for_a_configuration_is_a_panic() {
    const GOOD: &str = include_str!("../../daemon/cluster/src/config/good.toml");
    let mut dice = Chance::new(1);
    let lines: Vec<&str> = GOOD.lines().collect();
    let mut taken = 0;
    for _ in 0..TEXTS {
        let text = if dice.happens(50) {
            String::from_utf8_lossy(&change_bytes(&mut dice, GOOD.as_bytes())).into_owned()
        } else {
            // Lines that are missing, doubled, or elsewhere.
            let mut lines = lines.clone();
            for _ in 0..=dice.below(3) {
                let mut place = || usize::try_from(dice.below(u64::try_from(lines.len()).unwrap())).unwrap();
                let (from, to) = (place(), place());
                let line = lines.remove(from);
                match dice.below(3) {
                    0 => {}
                    1 => lines.insert(to.min(lines.len()), line),
                    _ => [from, to].into_iter().for_each(|at| lines.insert(at.min(lines.len()), line)),
                }
            }
            lines.join("\n")
        };
        match Config::parse(&text) {
            Ok(config) => {
                taken += 1;
                // Whoever holds a configuration may rely on all of it.
                assert!(config.slots().all(|(slot, node)| config.has(slot) && config.node(slot) == node), "{text}");
                assert!(config.cluster_network().1 >= 8, "{text}");
            }
            Err(error) => assert!(error.line <= text.lines().count() + 1, "{error}\n{text}"),
        }
    }
    assert!(taken > 0, "no text that was changed is still good");
}

/// A power switch's answer.
fn pdu() -> Pdu {
    let oid = Oid::new(&[1, 3, 6, 1, 4, 1, 318], &[300, 70_000]);
    let bindings = vec![(oid.clone(), Value::Integer(-129)), (oid, Value::Null)];
    Pdu { kind: Kind::Response, id: 70_000, error: None, bindings }
}

#[test]
fn no_datagram_of_a_power_switch_is_a_panic() {
    let mut dice = Chance::new(1);
    let good = Message { community: b"private".to_vec(), pdu: pdu() }.encode();
    let mut taken = 0;
    for _ in 0..TEXTS {
        if let Ok(message) = Message::decode(&change_bytes(&mut dice, &good)) {
            taken += 1;
            assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message), "what was read is written the same");
        }
    }
    assert!(taken > 0, "no datagram that was changed can still be read");
}

/// A message of version 3, in clear and as if it were encrypted, and what is found inside when it has been decrypted.
#[test]
fn no_datagram_of_version_3_is_a_panic() {
    let mut dice = Chance::new(2);
    let scoped = Scoped { engine: vec![0x80; 11], context: Vec::new(), pdu: pdu() }.encode();
    for level in [Level::NoAuthNoPriv, Level::AuthNoPriv, Level::AuthPriv] {
        let good = v3::Message {
            id: 70_000,
            longest: v3::LONGEST,
            level,
            reportable: true,
            engine: vec![0x80; 11],
            boots: 300,
            time: 70_000,
            user: b"us".to_vec(),
            tag: vec![1; v3::TAG_BYTES],
            salt: vec![2; 8],
            data: scoped.clone(),
        };
        let (datagram, at) = good.encode();
        assert_eq!(v3::Message::decode(&datagram), Ok((good, at)));
        let (mut taken, mut inside) = (0, 0);
        for _ in 0..TEXTS {
            let changed = change_bytes(&mut dice, &datagram);
            if let Ok((message, at)) = v3::Message::decode(&changed) {
                taken += 1;
                assert_eq!(changed.get(at), Some(message.tag.as_slice()), "the tag is where it is said to be");
                let written = v3::Message::decode(&message.encode().0).map(|(message, _)| message);
                assert_eq!(written.as_ref(), Ok(&message), "what was read is written the same");
            }
            if let Ok(scoped) = Scoped::decode(&change_bytes(&mut dice, &scoped)) {
                inside += 1;
                assert_eq!(Scoped::decode(&scoped.encode()).as_ref(), Ok(&scoped));
            }
        }
        assert!(taken > 0 && inside > 0, "no datagram that was changed can still be read");
    }
}

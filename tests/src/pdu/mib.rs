//! What the card shows, as one table made anew for every request, and what writing to it means.
//!
//! Sources: PowerNet-MIB 3.6.9 (branches sPDU, .4, and rPDU, .12), RFC 1213 (system). The second card keeps the tables of its
//! outlets in sPDU and in a branch of its own ([`super::rpdu2`]); of rPDU it is known to keep who it is (a recording of an
//! AP7900B), so the emulated one keeps no more.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Command, Firmware, Pdu, rpdu2};

/// An object's name.
pub(super) type Oid = Vec<u32>;

/// An object's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(i32),
    Text(String),
    Oid(Oid),
    /// Hundredths of a second.
    Ticks(u32),
    Gauge(u32),
}

/// What the value of an object is written for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Write {
    Command(u8, Command),
    Name(u8, String),
    OnDelay(u8, i32),
    OffDelay(u8, i32),
    RebootDuration(u8, i32),
}

/// Why an object cannot be written so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    NoSuchName,
    BadValue,
}

const SYSTEM: &[u32] = &[1, 3, 6, 1, 2, 1, 1];
/// masterSwitchrPDU: the AP79xx with the first management card.
const OBJECT_ID: &[u32] = &[1, 3, 6, 1, 4, 1, 318, 1, 3, 4, 5];
/// That of the AP79xxB, with the second.
const OBJECT_ID_B: &[u32] = &[1, 3, 6, 1, 4, 1, 318, 1, 3, 4, 8];
const SPDU: &[u32] = &[1, 3, 6, 1, 4, 1, 318, 1, 1, 4];
const RPDU: &[u32] = &[1, 3, 6, 1, 4, 1, 318, 1, 1, 12];

/// rPDUOutletStatusOutletState, without the outlet.
const STATE: &[u32] = &[3, 5, 1, 1, 4];
const UNKNOWN: i32 = 4;
/// Below it rPDU keeps its outlets.
const OUTLETS: u32 = 3;

/// Everything there is to read.
pub(super) fn table(pdu: &Pdu, now: Instant) -> BTreeMap<Oid, Value> {
    let mut table = BTreeMap::new();
    let uptime = now.saturating_duration_since(pdu.lock().up).as_millis() / 10;
    let text = |text: &str| Value::Text(text.into());
    let (model, object_id, version, card) = match pdu.firmware() {
        Firmware::Aos2 => ("AP7921", OBJECT_ID, "v2.7.0", "hw02"),
        Firmware::Aos3 => ("AP7921", OBJECT_ID, "v3.9.2", "hw02"),
        Firmware::Aos6 => ("AP7921B", OBJECT_ID_B, "v6.8.2", "hw05"),
    };
    let file: String = version.chars().filter(char::is_ascii_digit).collect();
    let description = format!(
        "APC Web/SNMP Management Card (MB:v4.1.1 PF:{version} PN:apc_{card}_aos_{file}.bin AF1:{version} \
         AN1:apc_{card}_rpdu_{file}.bin MN:{model} HR:B2 SN: ZA0000000000 MD:02/24/2006) "
    );
    let second = pdu.firmware() == Firmware::Aos6;
    let mut put = |base: &[u32], rest: &[u32], value: Value| {
        if !(second && base == RPDU && rest.first() == Some(&OUTLETS)) {
            table.insert([base, rest].concat(), value);
        }
    };
    put(SYSTEM, &[1, 0], text(&description));
    put(SYSTEM, &[2, 0], Value::Oid(object_id.into()));
    put(SYSTEM, &[3, 0], Value::Ticks(u32::try_from(uptime % (1 << 32)).unwrap_or(0)));
    put(SYSTEM, &[4, 0], text("Unknown"));
    put(SYSTEM, &[5, 0], text("apc-pdu"));
    put(SYSTEM, &[6, 0], text("Unknown"));
    put(SYSTEM, &[7, 0], Value::Number(72));

    let outlets = pdu.lock().outlets.clone();
    let count = i32::try_from(outlets.len()).unwrap_or(i32::MAX);
    for (base, first) in [(SPDU, 1), (RPDU, 2)] {
        for (n, value) in (first..).zip(["B2", version, "02/24/2006", model, "ZA0000000000"]) {
            put(base, &[1, n, 0], text(value));
        }
    }
    put(SPDU, &[4, 1, 0], Value::Number(count));
    put(RPDU, &[1, 1, 0], text("RackPDU"));
    for (n, value) in (7..).zip([16, count, 1, 0, 0]) {
        put(RPDU, &[1, n, 0], Value::Number(value));
    }
    put(RPDU, &[2, 3, 1, 1, 2, 1], Value::Gauge(0));
    for (n, value) in (1..).zip([1, 0, count, count]) {
        put(RPDU, &[3, 1, n, 0], Value::Number(value));
    }
    for (number, outlet) in (1_u8..).zip(&outlets) {
        let n = u32::from(number);
        let state = pdu.seen(number).map_or(UNKNOWN, |on| if on { 1 } else { 2 });
        let pending = if pdu.lock().is_pending(number) { 1 } else { 2 };
        let index = Value::Number(number.into());
        for (column, value) in
            (1..).zip([index.clone(), Value::Number(pending), Value::Number(state), text(&outlet.name)])
        {
            put(SPDU, &[4, 2, 1, column, n], value);
        }
        let places = [(3, Value::Number(1)), (5, Value::Number(1))];
        let control = [(1, index.clone()), (2, text(&outlet.name)), (4, Value::Number(state))];
        for (column, value) in control.into_iter().chain(places) {
            put(RPDU, &[3, 3, 1, 1, column, n], value);
        }
        let delays = [(4, outlet.on_delay), (5, outlet.off_delay), (6, outlet.reboot_duration)];
        let config = [(1, index.clone()), (2, text(&outlet.name))];
        for (column, value) in config.into_iter().chain(delays.map(|(c, v)| (c, Value::Number(v)))) {
            put(RPDU, &[3, 4, 1, 1, column, n], value);
        }
        let status = [Value::Number(1), Value::Number(state), Value::Number(pending), Value::Number(1)];
        for (column, value) in (1..).zip([index, text(&outlet.name)].into_iter().chain(status)) {
            put(RPDU, &[3, 5, 1, 1, column, n], value);
        }
    }
    if second {
        table.extend(rpdu2::identity(model, count));
        for (number, outlet) in (1_u8..).zip(&outlets) {
            let (on, pending) = (pdu.seen(number), pdu.lock().is_pending(number));
            table.extend(rpdu2::outlet(&rpdu2::Seen { number, outlet, on, pending }));
        }
    }
    table
}

/// Is this the state of an outlet, in any branch? Which outlet's, and is it on?
pub(super) fn state_of(oid: &[u32], value: &Value) -> Option<(u8, Option<bool>)> {
    let (&outlet, column) = oid.split_last()?;
    let is_state = [[RPDU, STATE].concat(), [SPDU, &[4, 2, 1, 3]].concat()].iter().any(|known| known == column);
    if !is_state {
        return rpdu2::state_of(oid, value);
    }
    let on = match value {
        Value::Number(1) => Some(true),
        Value::Number(2) => Some(false),
        Value::Number(_) | Value::Text(_) | Value::Oid(_) | Value::Ticks(_) | Value::Gauge(_) => None,
    };
    Some((u8::try_from(outlet).ok()?, on))
}

/// What it means to write this to that object.
pub(super) fn write(pdu: &Pdu, oid: &[u32], value: &Value) -> Result<Vec<Write>, Refusal> {
    let outlets = u8::try_from(pdu.lock().outlets.len()).unwrap_or(u8::MAX);
    let all = 1..=outlets;
    if pdu.firmware() == Firmware::Aos6 {
        if let Some(write) = rpdu2::write(oid, value, outlets) {
            return write.map(|write| vec![write]);
        }
        if oid.starts_with(&[RPDU, &[OUTLETS]].concat()) {
            return Err(Refusal::NoSuchName);
        }
    }
    if oid == [RPDU, &[3, 1, 1, 0]].concat() {
        return match *value {
            Value::Number(1) => Ok(vec![]),
            Value::Number(n) => {
                let command = command(n - 1).ok_or(Refusal::BadValue)?;
                Ok(all.map(|outlet| Write::Command(outlet, command)).collect())
            }
            Value::Text(_) | Value::Oid(_) | Value::Ticks(_) | Value::Gauge(_) => Err(Refusal::BadValue),
        };
    }
    let (&outlet, column) = oid.split_last().ok_or(Refusal::NoSuchName)?;
    let outlet = u8::try_from(outlet).ok().filter(|outlet| all.contains(outlet)).ok_or(Refusal::NoSuchName)?;
    let (branch, column) = column
        .strip_prefix(RPDU)
        .map(|column| (RPDU, column))
        .or_else(|| column.strip_prefix(SPDU).map(|column| (SPDU, column)))
        .ok_or(Refusal::NoSuchName)?;
    let number = |least: i32, most: i32| match *value {
        Value::Number(n) if (least..=most).contains(&n) => Ok(n),
        Value::Number(_) | Value::Text(_) | Value::Oid(_) | Value::Ticks(_) | Value::Gauge(_) => Err(Refusal::BadValue),
    };
    let rpdu = branch == RPDU;
    let write = match column {
        [3, 3, 1, 1, 4] if rpdu => Write::Command(outlet, command(number(1, 7)?).ok_or(Refusal::BadValue)?),
        [4, 2, 1, 3] if !rpdu => Write::Command(outlet, old_command(number(1, 7)?).ok_or(Refusal::BadValue)?),
        [3, 4, 1, 1, 2] if rpdu => match value {
            Value::Text(name) if name.len() <= 20 => Write::Name(outlet, name.clone()),
            Value::Text(_) | Value::Number(_) | Value::Oid(_) | Value::Ticks(_) | Value::Gauge(_) => {
                return Err(Refusal::BadValue);
            }
        },
        [3, 4, 1, 1, 4] if rpdu => Write::OnDelay(outlet, number(-1, 300)?),
        [3, 4, 1, 1, 5] if rpdu => Write::OffDelay(outlet, number(-1, 300)?),
        [3, 4, 1, 1, 6] if rpdu => Write::RebootDuration(outlet, number(5, 60)?),
        _ => return Err(Refusal::NoSuchName),
    };
    Ok(vec![write])
}

/// rPDUOutletControlOutletCommand.
fn command(number: i32) -> Option<Command> {
    use Command::{Cancel, DelayedOff, DelayedOn, DelayedReboot, Off, On, Reboot};
    let commands = [On, Off, Reboot, DelayedOn, DelayedOff, DelayedReboot, Cancel];
    commands.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

/// sPDUOutletCtl, in which 4 says "unknown" and commands nothing.
fn old_command(number: i32) -> Option<Command> {
    match number {
        1..=3 => command(number),
        5..=7 => command(number - 1),
        _ => None,
    }
}

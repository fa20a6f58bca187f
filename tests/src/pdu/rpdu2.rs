//! What only the second card shows: the branch rPDU2, .26, of PowerNet-MIB (4.x). Its states count the other way round
//! than its commands, and than those of the first card.
//!
//! ```text
//! 2.1   rPDU2Ident              who it is
//! 4.2   rPDU2DeviceProperties   how many outlets it has
//! 6.3   rPDU2PhaseStatus        its load
//! 9.2   rPDU2OutletSwitched     .1 configuration, .3 status, .4 control
//! ```

use super::Command;
use super::bank::Outlet;
use super::mib::{Oid, Refusal, Value, Write};

const RPDU2: &[u32] = &[1, 3, 6, 1, 4, 1, 318, 1, 1, 26];

/// rPDU2OutletSwitchedConfig, -Status and -Control: their columns stand behind.
const CONFIG: [u32; 4] = [9, 2, 1, 1];
const STATUS: [u32; 4] = [9, 2, 3, 1];
const CONTROL: [u32; 4] = [9, 2, 4, 1];
/// rPDU2OutletSwitchedStatusState: off(1), on(2).
const STATE: u32 = 5;
/// rPDU2OutletSwitchedControlCommand.
const COMMAND: u32 = 5;
/// rPDU2OutletSwitchedControlCommand read as outletUnknown(4); the status has no word for it, so the same is taken.
const UNKNOWN: i32 = 4;

/// An outlet as the card sees it.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) number: u8,
    pub(super) outlet: &'a Outlet,
    /// On? `None`: the contact to it is lost.
    pub(super) on: Option<bool>,
    pub(super) pending: bool,
}

/// What the card says of itself.
pub(super) fn identity(model: &str, outlets: i32) -> Vec<(Oid, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    let ident = [
        Value::Number(1),
        Value::Number(1),
        text("RackPDU"),
        text("Unknown"),
        text("1"),
        text("v6.8.2"),
        text("01/01/2019"),
    ];
    let ident = ident.into_iter().chain([text(model), text("ZA0000000000")]);
    let properties = [Value::Number(1), Value::Number(1), text("RackPDU")].into_iter();
    // Outlets, of which switched, of which metered; phases, banks, amperes.
    let properties = properties.chain([outlets, outlets, 0, 1, 0, 16].map(Value::Number));
    let row = |table: &'static [u32], values: Vec<Value>| {
        (1..).zip(values).map(move |(column, value)| (at(&[table, &[column]].concat(), 1), value))
    };
    let load = (at(&[6, 3, 1, 5], 1), Value::Gauge(0));
    row(&[2, 1], ident.collect()).chain(row(&[4, 2, 1], properties.collect())).chain([load]).collect()
}

/// What it says of an outlet.
pub(super) fn outlet(seen: &Seen<'_>) -> Vec<(Oid, Value)> {
    let number = || Value::Number(seen.number.into());
    let name = || Value::Text(seen.outlet.name.clone());
    let state = seen.on.map_or(UNKNOWN, |on| if on { 2 } else { 1 });
    let command = seen.on.map_or(UNKNOWN, |on| if on { 1 } else { 2 });
    let pending = if seen.pending { 1 } else { 2 };
    let head = || [number(), Value::Number(1), name(), number()];
    let delays = [seen.outlet.on_delay, seen.outlet.off_delay, seen.outlet.reboot_duration].map(Value::Number);
    let status = [Value::Number(state), Value::Number(pending)];
    let tables = [
        (CONFIG, head().into_iter().chain(delays).collect::<Vec<_>>()),
        (STATUS, head().into_iter().chain(status).collect()),
        (CONTROL, head().into_iter().chain([Value::Number(command)]).collect()),
    ];
    let row = |(table, values): ([u32; 4], Vec<Value>)| {
        let cell = move |(column, value)| (at(&[&table[..], &[column]].concat(), seen.number), value);
        (1..).zip(values).map(cell).collect::<Vec<_>>()
    };
    tables.into_iter().flat_map(row).collect()
}

fn at(column: &[u32], row: u8) -> Oid {
    [RPDU2, column, &[row.into()]].concat()
}

/// Is this the state of an outlet? Which outlet's, and what it says.
pub(super) fn state_of(oid: &[u32], value: &Value) -> Option<(u8, Option<bool>)> {
    let (&outlet, column) = oid.split_last()?;
    let status = column == [RPDU2, &STATUS, &[STATE]].concat();
    let control = column == [RPDU2, &CONTROL, &[COMMAND]].concat();
    let on = match value {
        Value::Number(2) => Some(status),
        Value::Number(1) => Some(!status),
        Value::Number(_) | Value::Text(_) | Value::Oid(_) | Value::Ticks(_) | Value::Gauge(_) => None,
    };
    (status || control).then(|| Some((u8::try_from(outlet).ok()?, on)))?
}

/// What it means to write this there; `None` if it is not of this branch.
pub(super) fn write(oid: &[u32], value: &Value, outlets: u8) -> Option<Result<Write, Refusal>> {
    let (&outlet, column) = oid.strip_prefix(RPDU2)?.split_last()?;
    let Some(outlet) = u8::try_from(outlet).ok().filter(|outlet| (1..=outlets).contains(outlet)) else {
        return Some(Err(Refusal::NoSuchName));
    };
    let written = match (column, value) {
        ([9, 2, 4, 1, COMMAND], Value::Number(number)) => {
            command(*number).map(|command| Write::Command(outlet, command))
        }
        ([9, 2, 1, 1, 3], Value::Text(name)) if name.len() <= 31 => Some(Write::Name(outlet, name.clone())),
        ([9, 2, 1, 1, 5], Value::Number(seconds @ -1..=7200)) => Some(Write::OnDelay(outlet, *seconds)),
        ([9, 2, 1, 1, 6], Value::Number(seconds @ -1..=7200)) => Some(Write::OffDelay(outlet, *seconds)),
        ([9, 2, 1, 1, 7], Value::Number(seconds @ 5..=60)) => Some(Write::RebootDuration(outlet, *seconds)),
        ([9, 2, 4, 1, COMMAND] | [9, 2, 1, 1, 3 | 5 | 6 | 7], _) => None,
        _ => return Some(Err(Refusal::NoSuchName)),
    };
    Some(written.ok_or(Refusal::BadValue))
}

/// rPDU2OutletSwitchedControlCommand; outletUnknown(4) is read only.
fn command(number: i32) -> Option<Command> {
    match number {
        1 => Some(Command::On),
        2 => Some(Command::Off),
        3 => Some(Command::Reboot),
        5 => Some(Command::DelayedOn),
        6 => Some(Command::DelayedOff),
        7 => Some(Command::DelayedReboot),
        8 => Some(Command::Cancel),
        _ => None,
    }
}

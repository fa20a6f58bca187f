//! The two kinds of card, and where each keeps what is asked of it.
//!
//! They count their states the other way round: the AP7921 says 1 for on and 2 for off, the AP7921B 1 for off and 2 for on,
//! while its commands are 1 for on and 2 for off as with the other. So which card it is must be known before anything is
//! read.
//!
//! Sources: PowerNet-MIB 3.6.9 (rPDU) and its later versions (rPDU2); a recording of an AP7900B (LibreNMS's) for
//! its sysObjectID, which the AP7921B is assumed to share, and for where it says its model.

use super::Relay;
use crate::snmp::{Oid, Value};

/// A column of the tables of outlets, by the arcs behind its branch.
type Column = [u32; 5];

/// What an outlet's `pending` says.
const PENDING: i32 = 1;
const NOTHING_PENDING: i32 = 2;

/// A branch of the MIB, and the device that keeps it.
#[derive(Debug)]
pub(super) struct Branch {
    /// The sysObjectID of the device.
    pub(super) device: &'static [u32],
    /// The only model that is known to behave so.
    pub(super) model: &'static str,
    base: &'static [u32],
    /// Where it says its model, and how many outlets it has; from the root.
    model_object: &'static [u32],
    outlets_object: &'static [u32],
    pub(super) command: Column,
    pub(super) name: Column,
    pub(super) state: Column,
    pub(super) pending: Column,
    on_state: i32,
    off_state: i32,
    /// The command that forgets what is pending.
    pub(super) cancel: i32,
}

/// The first management card (masterSwitchrPDU).
pub(super) const RPDU: Branch = Branch {
    device: &[1, 3, 6, 1, 4, 1, 318, 1, 3, 4, 5],
    model: "AP7921",
    base: &[1, 3, 6, 1, 4, 1, 318, 1, 1, 12],
    model_object: &[1, 3, 6, 1, 4, 1, 318, 1, 1, 12, 1, 5, 0],
    outlets_object: &[1, 3, 6, 1, 4, 1, 318, 1, 1, 12, 1, 8, 0],
    command: [3, 3, 1, 1, 4],
    name: [3, 5, 1, 1, 2],
    state: [3, 5, 1, 1, 4],
    pending: [3, 5, 1, 1, 5],
    on_state: 1,
    off_state: 2,
    cancel: 7,
};

/// The second management card.
pub(super) const RPDU2: Branch = Branch {
    device: &[1, 3, 6, 1, 4, 1, 318, 1, 3, 4, 8],
    model: "AP7921B",
    base: &[1, 3, 6, 1, 4, 1, 318, 1, 1, 26],
    // The recording has it where the first card has it.
    model_object: &[1, 3, 6, 1, 4, 1, 318, 1, 1, 12, 1, 5, 0],
    outlets_object: &[1, 3, 6, 1, 4, 1, 318, 1, 1, 26, 4, 2, 1, 4, 1],
    command: [9, 2, 4, 1, 5],
    name: [9, 2, 3, 1, 3],
    state: [9, 2, 3, 1, 5],
    pending: [9, 2, 3, 1, 6],
    on_state: 2,
    off_state: 1,
    cancel: 8,
};

const KNOWN: [&Branch; 2] = [&RPDU, &RPDU2];

impl Branch {
    /// The one that a device with this sysObjectID keeps.
    pub(super) fn of(device: &Oid) -> Option<&'static Self> {
        KNOWN.into_iter().find(|branch| branch.device == device.arcs())
    }

    /// Its model and its number of outlets.
    pub(super) fn identity(&self) -> [Oid; 2] {
        [self.model_object, self.outlets_object].map(|object| Oid::new(object, &[]))
    }

    /// The load of the first phase, in tenths of an ampere: of all, since both models have one phase.
    pub(super) fn load(&self) -> Oid {
        Oid::new(self.base, &[2, 3, 1, 1, 2, 1])
    }

    /// An object of one outlet.
    pub(super) fn of_outlet(&self, column: Column, outlet: u8) -> Oid {
        Oid::new(self.base, &[&column[..], &[outlet.into()]].concat())
    }

    /// The command for an outlet; the same number on both cards.
    pub(super) fn command_for(relay: Relay) -> i32 {
        match relay {
            Relay::On => 1,
            Relay::Off => 2,
        }
    }

    /// On or off; or whatever else was answered.
    pub(super) fn state_of(&self, value: &Value) -> Result<Relay, Value> {
        match value.integer() {
            Some(number) if number == self.on_state => Ok(Relay::On),
            Some(number) if number == self.off_state => Ok(Relay::Off),
            _ => Err(value.clone()),
        }
    }
}

/// Is a command pending? Or whatever else was answered.
pub(super) fn pending_of(value: &Value) -> Result<bool, Value> {
    match value.integer() {
        Some(PENDING) => Ok(true),
        Some(NOTHING_PENDING) => Ok(false),
        _ => Err(value.clone()),
    }
}

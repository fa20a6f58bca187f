//! The power bar's outlets as the PDU's agent drives them, and the log of who commanded and asked what.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};

use super::events::{Log, What};
use super::layout::{Layout, PDU_ADDRESS, PDU_NAME};
use super::power::{BY_SNMP, Power};
use crate::pdu::{self, Command, Entry, Loads, Pdu};

/// SNMP's port.
const PORT: u16 = 161;

struct Outlets {
    power: Power,
    log: Arc<Log>,
    /// What was last read of each outlet since it was last commanded: who polls need not fill the log.
    read: Mutex<BTreeMap<u8, bool>>,
}

/// Starts the PDU in the calling thread's network namespace.
///
/// # Errors
/// Its address cannot be bound.
pub fn start(layout: &Layout, power: Power, log: Arc<Log>) -> Result<()> {
    let names: Vec<&str> = layout.machines.iter().map(|machine| machine.name.as_str()).collect();
    let outlets = Outlets { power, log: Arc::clone(&log), read: Mutex::default() };
    let pdu = Pdu::new(&names, Box::new(outlets));
    let socket = UdpSocket::bind((PDU_ADDRESS, PORT)).context("the PDU's address")?;
    std::thread::Builder::new().name(PDU_NAME.into()).spawn(move || {
        let Err(error) = pdu::serve(&socket, &pdu);
        log.push(PDU_NAME, What::Note(format!("answers no more: {error}")));
    })?;
    Ok(())
}

impl Loads for Outlets {
    fn is_on(&self, outlet: u8) -> bool {
        self.power.is_on(outlet) == Some(true)
    }

    fn switch(&self, outlet: u8, on: bool) {
        if let Err(error) = self.power.outlet(outlet, on, BY_SNMP) {
            self.log.push(PDU_NAME, What::Note(format!("outlet {outlet}: {error:#}")));
        }
    }

    fn noted(&self, entry: &Entry) {
        let outlet = entry.outlet;
        let mut read = self.read.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let what = match entry.what {
            pdu::What::Read(Some(on)) if read.insert(outlet, on) == Some(on) => return,
            pdu::What::Read(Some(on)) => What::ReadBack { outlet, on },
            pdu::What::Commanded(Command::Off) => What::Commanded { outlet, on: false },
            pdu::What::Commanded(Command::On) => What::Commanded { outlet, on: true },
            pdu::What::Commanded(_) | pdu::What::Refused(_) | pdu::What::Read(None) => {
                What::Note(format!("outlet {outlet}: {:?}", entry.what))
            }
        };
        if matches!(entry.what, pdu::What::Commanded(_)) {
            read.remove(&outlet);
        }
        drop(read);
        self.log.push(PDU_NAME, what);
    }
}

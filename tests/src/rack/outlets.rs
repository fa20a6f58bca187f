//! The power bar's outlets as the PDU's agent and console drive them, and the log of who commanded and asked what.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};

use super::events::{By, Log, What};
use super::layout::{Layout, PDU_ADDRESS, PDU_NAME};
use super::power::Power;
use crate::pdu::{self, Command, Entry, Loads, Pdu, SerialLine, Way};

/// SNMP's port.
const PORT: u16 = 161;

struct Outlets {
    power: Power,
    log: Arc<Log>,
    /// What was last read of each outlet since it was last commanded: who polls need not fill the log.
    read: Mutex<BTreeMap<u8, bool>>,
    /// Who commanded each outlet last.
    by: Mutex<BTreeMap<u8, By>>,
}

/// Starts the PDU in the calling thread's network namespace, with its console on `line`.
///
/// # Errors
/// Its address cannot be bound.
pub fn start(layout: &Layout, power: Power, log: Arc<Log>, line: SerialLine) -> Result<Arc<Pdu>> {
    let names: Vec<&str> = layout.all().map(|machine| machine.name.as_str()).collect();
    let outlets = Outlets { power, log: Arc::clone(&log), read: Mutex::default(), by: Mutex::default() };
    let pdu = Arc::new(Pdu::new(&names, Box::new(outlets)));
    let socket = UdpSocket::bind((PDU_ADDRESS, PORT)).context("the PDU's address")?;
    let (served, said) = (Arc::clone(&pdu), Arc::clone(&log));
    std::thread::Builder::new().name(PDU_NAME.into()).spawn(move || {
        let Err(error) = pdu::serve(&socket, &served);
        said.push(PDU_NAME, What::Note(format!("answers no more: {error}")));
    })?;
    let served = Arc::clone(&pdu);
    std::thread::Builder::new().name(format!("{PDU_NAME} console")).spawn(move || {
        let Err(error) = line.serve(&served);
        log.push(PDU_NAME, What::Note(format!("its console answers no more: {error}")));
    })?;
    Ok(pdu)
}

impl Loads for Outlets {
    fn is_on(&self, outlet: u8) -> bool {
        self.power.is_on(outlet) == Some(true)
    }

    fn switch(&self, outlet: u8, on: bool) {
        let by = lock(&self.by).get(&outlet).copied().unwrap_or(By::Snmp);
        if let Err(error) = self.power.outlet(outlet, on, by.name()) {
            self.log.push(PDU_NAME, What::Note(format!("outlet {outlet}: {error:#}")));
        }
    }

    fn noted(&self, entry: &Entry) {
        let outlet = entry.outlet;
        let by = match entry.from {
            Way::Snmp(_) => By::Snmp,
            Way::Telnet(_) | Way::Serial => By::Console,
        };
        let mut read = lock(&self.read);
        let what = match entry.what {
            pdu::What::Read(Some(on)) if read.insert(outlet, on) == Some(on) => return,
            pdu::What::Read(Some(on)) => What::ReadBack { outlet, on, by },
            pdu::What::Commanded(Command::Off) => What::Commanded { outlet, on: false, by },
            pdu::What::Commanded(Command::On) => What::Commanded { outlet, on: true, by },
            pdu::What::Commanded(_) | pdu::What::Refused(_) | pdu::What::Read(None) => {
                What::Note(format!("outlet {outlet}: {:?}", entry.what))
            }
        };
        if matches!(entry.what, pdu::What::Commanded(_)) {
            read.remove(&outlet);
            lock(&self.by).insert(outlet, by);
        }
        drop(read);
        self.log.push(PDU_NAME, what);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

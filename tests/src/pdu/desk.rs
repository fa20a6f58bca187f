//! The PDU on a desk: all its sockets on this machine, and behind the outlets nothing but relays that remember.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::{Entry, Firmware, Loads, Pdu, SerialLine, serve, serve_telnet};

/// Relays, all on at first, and what was said to the PDU.
#[derive(Debug, Clone, Default)]
pub struct Relays {
    off: Arc<Mutex<BTreeSet<u8>>>,
    log: Arc<Mutex<Vec<Entry>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relays {
    /// All that was commanded and asked so far.
    #[must_use]
    pub fn log(&self) -> Vec<Entry> {
        lock(&self.log).clone()
    }
}

impl Loads for Relays {
    fn is_on(&self, outlet: u8) -> bool {
        !lock(&self.off).contains(&outlet)
    }

    fn switch(&self, outlet: u8, on: bool) {
        let mut off = lock(&self.off);
        let _ = if on { off.remove(&outlet) } else { off.insert(outlet) };
    }

    fn noted(&self, entry: &Entry) {
        lock(&self.log).push(entry.clone());
    }
}

/// A PDU that answers on ports of this machine until the program ends.
#[derive(Debug)]
pub struct Desk {
    /// Itself.
    pub pdu: Arc<Pdu>,
    /// What it switches.
    pub relays: Relays,
    /// Where it speaks SNMP.
    pub snmp: SocketAddr,
    /// Where it speaks telnet.
    pub telnet: SocketAddr,
    /// The device at the other end of its serial line.
    pub serial: PathBuf,
}

impl Desk {
    /// With one outlet for each name.
    ///
    /// # Errors
    /// This machine has no port or pty left.
    pub fn new(firmware: Firmware, names: &[&str]) -> io::Result<Self> {
        let relays = Relays::default();
        let pdu = Arc::new(Pdu::new(names, Box::new(relays.clone())).with(firmware));
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let line = SerialLine::open()?;
        let (snmp, telnet, serial) = (udp.local_addr()?, tcp.local_addr()?, line.path().to_owned());
        let served = Arc::clone(&pdu);
        thread::spawn(move || serve(&udp, &served));
        let served = Arc::clone(&pdu);
        thread::spawn(move || serve_telnet(&tcp, &served));
        let served = Arc::clone(&pdu);
        thread::spawn(move || line.serve(&served));
        Ok(Self { pdu, relays, snmp, telnet, serial })
    }

    /// Does the outlet give power?
    #[must_use]
    pub fn is_on(&self, outlet: u8) -> bool {
        self.relays.is_on(outlet)
    }
}

//! UPSes: read by a servant thread each, for as long as the supervisor lives; and ordered to cut their load.
//!
//! A UPS behind NUT's `upsd` is read by every node, so that whoever becomes DC knows how it stands. With a user it is
//! *attended*: `upsd` counts the node among those who hang on the UPS, and whoever is in charge of it waits for them before
//! the power is cut. A UPS on a serial line is read by the node that holds the cable.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant as Clock};

use cluster::config::{SerialLine, Ups, UpsWay};
use cluster::event::{Event, UpsReading};
use cluster::words::{Instant, UpsId};
use hw::port::tls::{self, Fingerprint};
use hw::port::{tcp, tty};
use hw::ups::{Flag, UpsReading as Read};
use hw::{Credentials, Dialogue, nut, smart_ups};

use super::clock::until;
use super::mailbox::{Post, Told};
use super::run::servant;
use super::site::Site;

/// Between two readings. NUT's own client reads as often.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long one dialogue lasts at most; then the next begins.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long one reading without a login may take.
const ONCE: Duration = Duration::from_secs(10);

/// The serial lines to UPSes that this node holds, each with whose turn it is.
#[derive(Debug, Default)]
pub(super) struct UpsLines(BTreeMap<UpsId, Line>);

/// One line: whoever reads it makes way for whoever gives an order.
#[derive(Debug, Default)]
struct Line {
    make_way: AtomicBool,
    turn: Mutex<()>,
}

/// Starts a servant for every UPS that this node reads.
///
/// # Errors
/// There is no room for one, in words for the operator.
pub(super) fn read_all(site: &Site, post: &Post) -> Result<Arc<UpsLines>, String> {
    let held = |ups: &Ups| matches!(&ups.way, UpsWay::Smart(line) if line.holder == site.slot);
    let config = site.config();
    let lines = config.ups_ids().filter(|(_, ups)| held(ups)).map(|(id, _)| (id, Line::default()));
    let lines = Arc::new(UpsLines(lines.collect()));
    for (id, ups) in config.ups_ids() {
        let teller = Teller { id, post: post.clone(), said: Mutex::new(None) };
        let name = format!("UPS {}", ups.name);
        match &ups.way {
            UpsWay::Nut { address, port, ups: there, user, tls } => {
                let (upsd, there) = (Upsd::new(*address, *port, *tls), there.clone());
                let credentials = user.as_deref().and_then(|user| site.secrets.ups(&ups.name, user));
                servant(&name, move || read_nut(&teller, &upsd, &there, credentials.as_ref()))?;
            }
            UpsWay::Smart(line) if line.holder == site.slot => {
                let (line, lines) = (line.clone(), Arc::clone(&lines));
                servant(&name, move || read_smart(&teller, &line, &lines))?;
            }
            UpsWay::Smart(_) => {}
        }
    }
    Ok(lines)
}

/// Orders a UPS to switch its load off, and on again when it has mains.
///
/// # Errors
/// Why it does not, in words for the operator.
pub(super) fn cut_load(site: &Site, lines: &UpsLines, id: UpsId, deadline: Instant) -> Result<String, String> {
    let config = site.config();
    let ups = config.ups(id).ok_or("there is no such UPS")?;
    let deadline = Clock::now() + until(deadline);
    match &ups.way {
        UpsWay::Nut { address, port, ups: there, user, tls } => {
            let user = user.as_deref().ok_or("cluster.toml names no user who may order it anything")?;
            let user = site.secrets.ups(&ups.name, user).ok_or("no password for it is known")?;
            let dialogue = nut::force_shutdown(there, &user);
            let done = Upsd::new(*address, *port, *tls).carry(dialogue, deadline, &AtomicBool::new(false));
            done?.map_err(|error| error.to_string())?;
        }
        UpsWay::Smart(serial) => {
            let line = lines.0.get(&id).ok_or("this node holds no cable to it")?;
            line.make_way.store(true, Ordering::Relaxed);
            let _turn = line.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let path = Path::new("/dev").join(&serial.device);
            let never = AtomicBool::new(false);
            let done = tty::run(smart_ups::cut_load(), &path, smart_ups::BITS_PER_SECOND, deadline, &never);
            line.make_way.store(false, Ordering::Relaxed);
            done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        }
    }
    Ok(String::new())
}

/// Where an upsd is, and which one it must be.
struct Upsd {
    device: SocketAddr,
    certificate: Option<Fingerprint>,
}

impl Upsd {
    fn new(address: Ipv4Addr, port: u16, certificate: Option<[u8; 32]>) -> Self {
        Self { device: SocketAddr::from((address, port)), certificate: certificate.map(Fingerprint) }
    }

    /// Carries a dialogue: by TLS if the operator has named a certificate, and then never without.
    fn carry<D: Dialogue>(&self, dialogue: D, deadline: Clock, cancel: &AtomicBool) -> Result<D::Outcome, String> {
        match self.certificate {
            None => tcp::run(dialogue, self.device, deadline, cancel).map_err(|error| error.to_string()),
            Some(certificate) => tls::run(dialogue, self.device, nut::STARTTLS, certificate, deadline, cancel)
                .map_err(|error| format!("upsd: {error}")),
        }
    }
}

/// Tells the node what differs from what it was told last.
struct Teller {
    id: UpsId,
    post: Post,
    said: Mutex<Option<Result<UpsReading, String>>>,
}

impl Teller {
    fn tell(&self, reading: Result<UpsReading, String>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.as_ref() != Some(&reading) {
            *said = Some(reading.clone());
            self.post.tell(Told::Event(Event::Ups { ups: self.id, reading }));
        }
    }

    fn read(&self, read: &Read) {
        self.tell(understood(read));
    }

    /// A dialogue has ended: with a last reading because its time was over, or with an error.
    fn ended<T, E: Display, F: Display>(&self, outcome: Result<Result<T, E>, F>) {
        match outcome {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => self.tell(Err(error.to_string())),
            Err(error) => self.tell(Err(error.to_string())),
        }
    }
}

/// What the core is told of a reading. A UPS that does not say whether it has mains has not been read.
fn understood(read: &Read) -> Result<UpsReading, String> {
    // While it measures its battery it has mains, and empties the battery on purpose.
    let on_battery = read.is(Flag::OnBattery) && !read.is(Flag::Calibrating);
    if !on_battery && !read.is(Flag::OnLine) && !read.is(Flag::Calibrating) && !read.is(Flag::Bypass) {
        return Err(format!("it does not say whether it has mains: {read}"));
    }
    Ok(UpsReading {
        on_battery,
        low: on_battery && read.is(Flag::LowBattery),
        ordered: read.is(Flag::ForcedShutdown),
        charge_percent: read.charge_percent,
        runtime_s: read.runtime_s,
    })
}

fn read_nut(teller: &Teller, upsd: &Upsd, ups: &str, credentials: Option<&Credentials>) {
    let never = AtomicBool::new(false);
    let interval_ms = u64::try_from(INTERVAL.as_millis()).unwrap_or(u64::MAX);
    loop {
        match credentials {
            Some(credentials) => {
                let dialogue = nut::attend(ups, credentials, interval_ms, |read| teller.read(read));
                teller.ended(upsd.carry(dialogue, Clock::now() + DAY, &never));
            }
            None => {
                let outcome = upsd.carry(nut::read(ups), Clock::now() + ONCE, &never);
                if let Ok(Ok(read)) = &outcome {
                    teller.read(read);
                }
                teller.ended(outcome);
            }
        }
        sleep(INTERVAL);
    }
}

fn read_smart(teller: &Teller, serial: &SerialLine, lines: &UpsLines) {
    let Some(line) = lines.0.get(&teller.id) else { return };
    let path = Path::new("/dev").join(&serial.device);
    let interval_ms = u64::try_from(INTERVAL.as_millis()).unwrap_or(u64::MAX);
    loop {
        if !line.make_way.load(Ordering::Relaxed) {
            let _turn = line.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let dialogue = smart_ups::attend(interval_ms, |read: &Read| teller.read(read));
            teller.ended(tty::run(dialogue, &path, smart_ups::BITS_PER_SECOND, Clock::now() + DAY, &line.make_way));
        }
        sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Result<UpsReading, String> {
        let flags = words.split_whitespace().filter_map(Flag::from_word).collect();
        understood(&Read { flags, charge_percent: Some(40), runtime_s: Some(600) })
    }

    #[test]
    fn what_a_ups_says_is_understood() {
        let said = |on_battery, low, ordered| {
            Ok(UpsReading { on_battery, low, ordered, charge_percent: Some(40), runtime_s: Some(600) })
        };
        assert_eq!(read("OL CHRG"), said(false, false, false));
        assert_eq!(read("OB DISCHRG"), said(true, false, false));
        assert_eq!(read("OB LB"), said(true, true, false));
        assert_eq!(read("FSD OL"), said(false, false, true));
        assert_eq!(read("CAL OB LB"), said(false, false, false), "it empties its battery on purpose");
        assert_eq!(read("OL LB"), said(false, false, false), "a battery that is being charged again");
        for unknown in ["", "WAIT", "ALARM", "OFF"] {
            assert!(read(unknown).unwrap_err().contains("whether it has mains"), "{unknown}");
        }
    }
}

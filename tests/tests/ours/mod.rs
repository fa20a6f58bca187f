//! Our driver of the AP7921, as the tests and the benchmark use it: the only place that names its interface.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use hw::Dialogue;
use hw::ap7921::{self, Error, Outlet, Relay};
use hw::snmp::Access;

/// As long as our daemon waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Switches outlets, and reads them back.
///
/// # Errors
/// What the driver fails with.
pub(crate) fn switch(address: SocketAddr, relay: Relay, outlets: &[u8], patience: Duration) -> Result<Relay, Error> {
    switch_as(&Access::community("private"), address, relay, outlets, patience)
}

/// The same, as whom one likes.
///
/// # Errors
/// What the driver fails with.
pub(crate) fn switch_as(
    access: &Access,
    address: SocketAddr,
    relay: Relay,
    outlets: &[u8],
    patience: Duration,
) -> Result<Relay, Error> {
    let outlets: Vec<Outlet> = outlets.iter().map(|number| Outlet { number: *number, name: None }).collect();
    drive(ap7921::switch(relay, &outlets, access, seed()), address, patience)
}

/// Is each outlet on? `None`: the driver does not know.
///
/// # Errors
/// What the driver fails with.
#[allow(dead_code, reason = "the benchmark only switches")]
pub(crate) fn read(address: SocketAddr) -> Result<Vec<Option<bool>>, Error> {
    let outlets = drive(ap7921::status(&Access::community("public"), seed()), address, PATIENCE)?;
    Ok(outlets.iter().map(|(seen, _)| seen.state.as_ref().ok().map(|relay| *relay == Relay::On)).collect())
}

/// Carries any of the driver's dialogues.
pub(crate) fn drive<D: Dialogue>(dialogue: D, address: SocketAddr, patience: Duration) -> D::Outcome {
    hw::port::udp::run(dialogue, address, Instant::now() + patience, &AtomicBool::new(false))
}

/// A seed for the requests' numbers.
#[must_use]
pub(crate) fn seed() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs())
}

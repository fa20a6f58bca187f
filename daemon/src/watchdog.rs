//! The watchdog that resets this machine when nobody pets it: in the image that is Xen's own (`xen_wdt`), so it works
//! without dom0's kernel.
//!
//! It is armed by being opened and is never disarmed: a supervisor that ends leaves it armed, and one that starts again
//! opens it again and goes on, if it comes in time. (A watchdog of Linux is only disarmed by a `V` written before it is
//! closed; see `Documentation/watchdog/watchdog-api.rst` of the kernel.)

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::time::Duration;

use crate::sys;

/// How long it waits for a pet. Long enough for a supervisor that is started again and for a stall of the machine;
/// together with the lease it is the longest that a node which is cut off goes on.
pub(crate) const TIMEOUT: Duration = cluster::limits::WATCHDOG;

const DEVICE: &str = "/dev/watchdog";

/// An armed watchdog.
#[derive(Debug)]
pub(crate) struct Watchdog(File);

impl Watchdog {
    /// Arms it.
    ///
    /// # Errors
    /// Where there is none, or another process has it, or it cannot wait for [`TIMEOUT`].
    pub(crate) fn open() -> io::Result<Self> {
        let device = OpenOptions::new().write(true).open(DEVICE)?;
        sys::set_watchdog_timeout(&device, TIMEOUT)?;
        Ok(Self(device))
    }

    /// Has it wait anew. A pet that fails is a pet that was not given, and the watchdog does what it is for.
    pub(crate) fn pet(&mut self) {
        let _ = self.0.write(&[0]);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Watchdog;

    #[test]
    fn a_pet_never_disarms() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut watchdog = Watchdog(file.reopen().unwrap());
        for _ in 0..300 {
            watchdog.pet();
        }
        let written = fs::read(file.path()).unwrap();
        assert_eq!(written.len(), 300);
        assert!(!written.contains(&b'V'));
    }
}

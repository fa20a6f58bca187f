//! The watchdog that resets this machine when nobody pets it: Xen's own (`xen_wdt`), which works without dom0's kernel, or
//! where there is none, Linux' own (`softdog`).
//!
//! Only Xen's counts as a proof that a node is off: Linux' ends with the kernel that it is to guard. It is armed and petted
//! all the same, because a machine whose kernel lives is reset by it.
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
/// What Xen's calls itself: `DRV_NAME` of `drivers/watchdog/xen_wdt.c`.
const XEN: &str = "xen_wdt";

/// An armed watchdog.
#[derive(Debug)]
pub(crate) struct Watchdog {
    device: File,
    identity: String,
}

impl Watchdog {
    /// Arms it.
    ///
    /// # Errors
    /// Where there is none, or another process has it, or it cannot wait for [`TIMEOUT`].
    pub(crate) fn open() -> io::Result<Self> {
        let device = OpenOptions::new().write(true).open(DEVICE)?;
        sys::set_watchdog_timeout(&device, TIMEOUT)?;
        let identity = sys::watchdog_identity(&device)?;
        Ok(Self { device, identity })
    }

    /// What its driver calls itself.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// Whether it resets the machine whatever becomes of dom0.
    pub(crate) fn is_xens(&self) -> bool {
        self.identity == XEN
    }

    /// Has it wait anew. A pet that fails is a pet that was not given, and the watchdog does what it is for.
    pub(crate) fn pet(&mut self) {
        let _ = self.device.write(&[0]);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Watchdog, XEN};

    #[test]
    fn a_pet_never_disarms() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut watchdog = Watchdog { device: file.reopen().unwrap(), identity: XEN.to_owned() };
        for _ in 0..300 {
            watchdog.pet();
        }
        let written = fs::read(file.path()).unwrap();
        assert_eq!(written.len(), 300);
        assert!(!written.contains(&b'V'));
    }
}

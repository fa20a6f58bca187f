//! Each machine's own clock: milliseconds since its boot, as its own crystal counts them.

use cluster::words::Instant;

/// A million parts.
const MILLION: u64 = 1_000_000;

/// A clock that began at a boot and runs too fast or too slow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    boot: Instant,
    /// Machine milliseconds in a million of the world's.
    rate: u64,
}

impl Clock {
    /// A clock that begins at `boot` and is off by so many parts in a million.
    pub(super) fn new(boot: Instant, ppm: i32) -> Self {
        Self { boot, rate: MILLION.saturating_add_signed(ppm.into()).max(1) }
    }

    /// What the clock shows at an instant of the world.
    pub(super) fn shows(self, now: Instant) -> Instant {
        Instant::from_millis((now.millis().saturating_sub(self.boot.millis())).saturating_mul(self.rate) / MILLION)
    }

    /// The first instant of the world at which the clock shows `shown`, or later.
    pub(super) fn when(self, shown: Instant) -> Instant {
        let since = shown.millis().saturating_mul(MILLION).div_ceil(self.rate);
        Instant::from_millis(self.boot.millis().saturating_add(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for ppm in [-20_000, -1, 0, 1, 20_000] {
            let clock = Clock::new(Instant::from_millis(77), ppm);
            for shown in [0, 1, 999, 1_000_000, 123_456_789] {
                let when = clock.when(Instant::from_millis(shown));
                assert!(clock.shows(when).millis() >= shown);
                let before = Instant::from_millis(when.millis().saturating_sub(1));
                assert!(shown == 0 || clock.shows(before).millis() < shown, "{ppm} {shown}");
            }
        }
    }
}

//! The clock of the shell: milliseconds since the machine booted, time asleep included.

use std::time::Duration;

use cluster::words::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Now.
pub(crate) fn now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Instant::ZERO + Duration::new(seconds, nanoseconds)
}

/// How long it is until `then`; zero if that is past.
pub(super) fn until(then: Instant) -> Duration {
    then.since(now())
}

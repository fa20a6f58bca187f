//! A dialogue on a stream of bytes, whatever carries the stream.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::GLANCE;
use crate::dialogue::{Dialogue, Step};

/// How long before the deadline the dialogue is told to wind up; and how much time it gets for that when it is cancelled.
const WIND_UP: Duration = Duration::from_secs(4);
/// How much is read at once, in bytes.
const PIECE: usize = 512;

/// What carries bytes both ways.
pub(super) trait Wire {
    /// Sends all of it, or fails once it has taken until then.
    fn send(&mut self, bytes: &[u8], until: Instant) -> io::Result<()>;

    /// Receives what there is; nothing after so long.
    fn receive<'a>(&mut self, wait: Duration, buffer: &'a mut [u8]) -> io::Result<&'a [u8]>;
}

/// Carries the dialogue until it ends. Shortly before `deadline`, or once `cancel` is set, it is told to wind up; at `deadline`
/// it is given up.
///
/// # Errors
/// The wire breaks.
pub(super) fn run<D: Dialogue>(
    mut dialogue: D,
    wire: &mut impl Wire,
    mut deadline: Instant,
    cancel: &AtomicBool,
) -> io::Result<D::Outcome> {
    let begin = Instant::now();
    let millis = || u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut winding_up = false;
    while Instant::now() < deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        if !winding_up && (left <= WIND_UP || cancel.load(Ordering::Relaxed)) {
            winding_up = true;
            deadline = deadline.min(Instant::now() + WIND_UP);
            dialogue.wind_up(millis());
        }
        match dialogue.poll(millis()) {
            Step::Send(bytes) => wire.send(&bytes, deadline)?,
            Step::Wait(until) => {
                let wait = Duration::from_millis(until.saturating_sub(millis()));
                let mut buffer = [0; PIECE];
                let bytes = wire.receive(wait.min(left).min(GLANCE), &mut buffer)?;
                if !bytes.is_empty() {
                    dialogue.handle(millis(), bytes);
                }
            }
            Step::Done(outcome) => return Ok(outcome),
        }
    }
    Ok(dialogue.give_up())
}

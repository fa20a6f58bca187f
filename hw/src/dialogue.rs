//! What all dialogues have in common.

/// A dialogue with a device. Times are milliseconds of one monotonic clock, whichever the caller has.
pub trait Dialogue {
    /// What it ends with.
    type Outcome;

    /// What it wants now. To be asked again after every [`Dialogue::handle`] and when the time to wait is over.
    fn poll(&mut self, now_ms: u64) -> Step<Self::Outcome>;

    /// A datagram has come to the newest socket. What is not the reply to the last datagram sent changes nothing.
    fn handle(&mut self, now_ms: u64, datagram: &[u8]);

    /// The outcome of a dialogue that the caller ends before its time.
    fn give_up(&self) -> Self::Outcome;
}

/// What a dialogue wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<Outcome> {
    /// Send this from a new socket: what is still on its way to the old one must never be seen.
    Send(Vec<u8>),
    /// Wait for a datagram until then.
    Wait(u64),
    /// It has ended.
    Done(Outcome),
}

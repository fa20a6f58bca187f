//! What all dialogues have in common.

/// A dialogue with a device, in datagrams or in a stream of bytes. Times are milliseconds of one monotonic clock,
/// whichever the caller has.
pub trait Dialogue {
    /// What it ends with.
    type Outcome;

    /// What it wants now. To be asked again after every [`Dialogue::handle`] and when the time to wait is over.
    fn poll(&mut self, now_ms: u64) -> Step<Self::Outcome>;

    /// A datagram has come to the newest socket; or some more bytes of the stream, cut anywhere. What is not the reply to
    /// what was sent last changes nothing.
    fn handle(&mut self, now_ms: u64, bytes: &[u8]);

    /// The caller's time is nearly over: from now on it only leaves the device as the next one wants to find it (logged
    /// out, say), and ends. Where there is nothing to be left behind, this does nothing.
    fn wind_up(&mut self, _now_ms: u64) {}

    /// The outcome of a dialogue that the caller ends before its time.
    fn give_up(&self) -> Self::Outcome;
}

/// What a dialogue wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<Outcome> {
    /// Send this. A datagram goes from a new socket: what is still on its way to the old one must never be seen.
    Send(Vec<u8>),
    /// Wait for a datagram, or for more of the stream, until then.
    Wait(u64),
    /// It has ended.
    Done(Outcome),
}

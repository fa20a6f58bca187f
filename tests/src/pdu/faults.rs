//! What can be wrong with the PDU or its network, as one value that a test sets at any time.

use std::collections::BTreeSet;
use std::time::Duration;

/// What is wrong with the PDU, or its network. All zero: nothing.
///
/// On the console a request is a line that was typed, and a reply is what is shown for it; the echo of what is typed
/// belongs to neither.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// From a command's acceptance to the relay's moving: the device's own delay.
    pub lag: Duration,
    /// These relays do not move any more, whatever is commanded and accepted.
    pub stuck: BTreeSet<u8>,
    /// Commands for these outlets are refused (genErr; the console says so).
    pub refuse: BTreeSet<u8>,
    /// The card has lost contact with these outlets: their state reads as 4, unknown; the console shows no state.
    pub unknown: BTreeSet<u8>,
    /// That many requests to come are lost on their way here.
    pub lose_requests: u32,
    /// That many replies to come are lost on their way back.
    pub lose_replies: u32,
    /// The PDU answers nobody.
    pub silent: bool,
    /// Its network cable is pulled: nobody reaches it but at its serial line.
    pub unplugged: bool,
    /// Replies are that late.
    pub late: Duration,
    /// By so much its clock (that of version 3) goes ahead.
    pub clock_ahead: Duration,
    /// From one byte of the console to the next; at 9600 bauds it is a millisecond.
    pub pace: Duration,
    /// Somebody else is logged on and does not yield: `Write` communities cannot write, telnet is closed at once, and
    /// who logs in at the serial line is told.
    pub logged_on: bool,
    /// Whoever does nothing for so long is logged out; `None`: the card's own three minutes.
    pub idle: Option<Duration>,
    /// The card knows no command line: a password with ` -c` behind it is a wrong one.
    pub no_command_line: bool,
    /// The card has booted, but its application has not: the command line says so and does nothing.
    pub initializing: bool,
}

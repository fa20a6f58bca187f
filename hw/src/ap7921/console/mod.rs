//! An APC AP7921 or AP7921B at its serial console (9600 8N1): the same questions as over SNMP, and the same strictness.
//!
//! What it decides: whether outlets are off. They are when one list of the console shows every one of them as OFF without
//! the star of a pending command, and the next list does so again, after every one was commanded off. A list that came
//! only in part, an answer that is mixed with another, any other state: not off.
//!
//! ```text
//! page      what the console has written, and what it waits for
//! goal      which lists and commands are wanted, in which order
//! tongue    how to ask for them: the command line, or the menus
//! session   finding the console in whatever state it is; logging in; logging out, always
//! ```
//!
//! A serial line has no hang-up. The console may be found anywhere: logged in by somebody else, in any menu, with half a
//! command typed. So the dialogue first wipes what is typed, goes out, and logs in as itself; and whenever an answer is
//! not the one that belongs to the question, it does all of that again and begins its goal anew.
//!
//! Limits, all from the manuals' silence. The first card's command line shows the star where the menus do, if it shows it at
//! all: a delayed "on" that it hides can give the power back later, but only to a machine that has to boot anew. The model is
//! not asked for: what answers like an AP7921's management card, the first or the second, is taken for one. Which of them it
//! is shows when somebody has logged in; so the second card is first asked for the first one's command line, and counts that
//! as one wrong password each time, which the right one behind it makes good: a card that lets nobody in after a single wrong
//! one cannot be used so.
//!
//! Sources: APC, "Command Line Interface for Switched Rack PDUs"; the user's guides of the AP79xx, and of the AP89xx and AP79xxB
//! (990-5569), whose command line is the second card's; what other drivers wait for, the star of the second card too.

mod goal;
#[cfg(test)]
pub(crate) mod model;
mod page;
mod session;
#[cfg(test)]
mod tests;
mod tongue;

use core::fmt;

use super::{Outlet, Relay, Seen, write_last};
use crate::Credentials;
use crate::dialogue::Dialogue;

use session::Talk;

/// Switches all of `outlets`, which belong to one machine, and reads them back. `Ok(Relay::Off)` is the one answer that
/// says that the machine has no power from this PDU.
#[must_use]
pub fn switch(
    relay: Relay,
    outlets: &[Outlet],
    credentials: &Credentials,
) -> impl Dialogue<Outcome = Result<Relay, Error>> + use<> {
    Talk::new(goal::Switch::new(relay, outlets), credentials)
}

/// Reads every outlet of the PDU, in the order of their numbers, with its name.
#[must_use]
pub fn status(credentials: &Credentials) -> impl Dialogue<Outcome = Result<Vec<(Seen, String)>, Error>> + use<> {
    Talk::new(goal::ReadAll::default(), credentials)
}

/// Why a dialogue did not come to its goal, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Nothing was ever heard.
    Silent,
    /// It spoke at first, and then no more; what was read last.
    FellSilent(Vec<Seen>),
    /// What was heard is not understood; the last of it.
    Garbage(String),
    /// Name or password are not taken.
    WrongPassword,
    /// Somebody else is logged in, and the console does not let another in.
    LoggedIn,
    /// The console logs us out again and again; what was read last.
    LoggedOff(Vec<Seen>),
    /// Its firmware is still starting.
    Starting,
    /// The card has lost its outlets, or its application does not run: what it says about outlets is not to be trusted.
    NotTrusted(String),
    /// Another device answers.
    WrongDevice(String),
    /// It refused what was asked.
    Refused {
        /// Asked for what.
        asked: String,
        /// The console's words.
        said: String,
    },
    /// No outlet was given to switch.
    NoOutlet,
    /// There is no such outlet.
    OutOfRange {
        /// The number that was given.
        outlet: u8,
        /// How many there are.
        outlets: u8,
    },
    /// The PDU calls an outlet something else.
    Name {
        /// Which.
        outlet: u8,
        /// What it should be called.
        expected: String,
        /// What it is called.
        found: String,
    },
    /// The caller gave up, with the outlets not all as commanded; what was read last.
    GaveUp(Vec<Seen>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("silent: nothing is connected to the serial line, or it has no power"),
            Self::FellSilent(last) => write_last(f, "no answer any more", last),
            Self::Garbage(excerpt) => write!(f, "garbage on the serial line: \"{excerpt}\""),
            Self::WrongPassword => f.write_str("wrong user name or password"),
            Self::LoggedIn => f.write_str("another user is logged in"),
            Self::LoggedOff(last) => write_last(f, "logged off again and again", last),
            Self::Starting => f.write_str("the PDU is still starting"),
            Self::NotTrusted(said) => write!(f, "the PDU does not know its outlets: \"{said}\""),
            Self::WrongDevice(found) => write!(f, "neither an AP7921 nor an AP7921B: {found}"),
            Self::Refused { asked, said } => write!(f, "refused to {asked}: \"{said}\""),
            Self::NoOutlet => f.write_str("no outlet was given"),
            Self::OutOfRange { outlet, outlets } => write!(f, "there is no outlet {outlet}: the PDU has {outlets}"),
            Self::Name { outlet, expected, found } => {
                write!(f, "outlet {outlet} is called \"{found}\", not \"{expected}\"")
            }
            Self::GaveUp(last) => write_last(f, "not done in time", last),
        }
    }
}

impl core::error::Error for Error {}

//! A client of NUT's `upsd` (RFC 9271: text lines over TCP, port 3493).
//!
//! What it decides: what a UPS was read as, by what upsd said of it in one list. What is stale, or of a UPS whose driver does
//! not run, is an error and not a reading.
//!
//! ```text
//! list              who is there?               VER, LIST UPS
//! read              one reading                 LIST VAR
//! attend            readings, as long as wanted USERNAME, PASSWORD, LOGIN, LIST VAR .. : upsd counts us, so whoever is in
//!                                               charge of the UPS waits for us before it cuts the power
//! force_shutdown    the order to all            .. LOGIN, PRIMARY (MASTER before 2.8), FSD; upsd keeps it until it restarts
//! ```
//!
//! A wrong password shows at LOGIN only: upsd says OK to every PASSWORD. Every dialogue ends with LOGOUT.

mod reply;
mod talk;
mod tasks;
#[cfg(test)]
mod tests;

use core::fmt;

use crate::Credentials;
use crate::dialogue::Dialogue;
use crate::port::tls::Upgrade;
use crate::ups::UpsReading;

pub use reply::ErrorCode;
use talk::Talk;

/// The port of upsd.
pub const PORT: u16 = 3493;
/// How upsd is asked for TLS (RFC 9271, section 4.2.13), before anything else is said.
pub const STARTTLS: Upgrade = Upgrade { ask: "STARTTLS\n", grant: "OK STARTTLS" };

/// What upsd says of itself and its UPSes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Its version, in its own words.
    pub version: String,
    /// The name and the description of every UPS.
    pub upses: Vec<(String, String)>,
}

/// Asks which UPSes there are.
#[must_use]
pub fn list() -> impl Dialogue<Outcome = Result<Directory, Error>> {
    Talk::new(tasks::List::default())
}

/// Reads a UPS once. This takes no login.
#[must_use]
pub fn read(ups: &str) -> impl Dialogue<Outcome = Result<UpsReading, Error>> + use<> {
    Talk::new(tasks::Read::new(ups))
}

/// Stays logged in, and reads a UPS every `interval_ms` milliseconds: `tell` is told the first reading, and every one that
/// differs from the one before. It ends when the caller winds it up (with the last reading) or with an error; while it
/// lasts, upsd's NUMLOGINS counts it.
pub fn attend<F: FnMut(&UpsReading)>(
    ups: &str,
    credentials: &Credentials,
    interval_ms: u64,
    tell: F,
) -> impl Dialogue<Outcome = Result<UpsReading, Error>> + use<F> {
    Talk::new(tasks::Attend::new(ups, credentials, interval_ms, tell))
}

/// Orders all that a UPS feeds to shut down. The user needs `upsmon primary` (or `upsmon master`) at upsd.
#[must_use]
pub fn force_shutdown(ups: &str, credentials: &Credentials) -> impl Dialogue<Outcome = Result<(), Error>> + use<> {
    Talk::new(tasks::ForceShutdown::new(ups, credentials))
}

/// Why a dialogue did not come to its goal, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// It did not reply.
    Silent,
    /// What came is no reply of upsd; some of it.
    Garbage(String),
    /// It refused what was asked.
    Refused {
        /// Asked for what.
        asked: &'static str,
        /// The refusal.
        code: ErrorCode,
    },
    /// A name or a password has characters that cannot be sent.
    NotSendable,
    /// upsd knows the UPS, but not its state.
    NoStatus,
    /// The caller gave up.
    GaveUp,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("upsd does not reply"),
            Self::Garbage(some) => write!(f, "not a reply of upsd: {some:?}"),
            Self::Refused { asked, code } => match code {
                ErrorCode::AccessDenied => write!(f, "upsd refused to {asked}: wrong user or password, or not allowed"),
                ErrorCode::UnknownUps => write!(f, "upsd refused to {asked}: it has no UPS of this name"),
                ErrorCode::DriverNotConnected => write!(f, "upsd refused to {asked}: the UPS's driver does not run"),
                ErrorCode::DataStale => write!(f, "upsd refused to {asked}: the UPS does not answer its driver"),
                ErrorCode::AlreadyLoggedIn => write!(f, "upsd refused to {asked}: logged in already"),
                ErrorCode::VarNotSupported
                | ErrorCode::CmdNotSupported
                | ErrorCode::InvalidArgument
                | ErrorCode::InvalidValue
                | ErrorCode::InstcmdFailed
                | ErrorCode::SetFailed
                | ErrorCode::ReadOnly
                | ErrorCode::TooLong
                | ErrorCode::FeatureNotSupported
                | ErrorCode::FeatureNotConfigured
                | ErrorCode::AlreadySslMode
                | ErrorCode::InvalidPassword
                | ErrorCode::AlreadySetPassword
                | ErrorCode::InvalidUsername
                | ErrorCode::AlreadySetUsername
                | ErrorCode::UsernameRequired
                | ErrorCode::PasswordRequired
                | ErrorCode::UnknownCommand
                | ErrorCode::Other(_) => write!(f, "upsd refused to {asked}: {code}"),
            },
            Self::NotSendable => f.write_str("a name or password for upsd has characters that cannot be sent"),
            Self::NoStatus => f.write_str("upsd does not know the UPS's state"),
            Self::GaveUp => f.write_str("not done in time"),
        }
    }
}

impl core::error::Error for Error {}

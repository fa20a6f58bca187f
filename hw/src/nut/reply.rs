//! Lines of the protocol: arguments with their quotes, and what a reply means.
//!
//! The reader is total: any bytes give a reply, a reply that is not whole yet, or [`Garbage`].

use core::fmt;

/// The longest line that is read, in bytes (upsd itself takes 512 for a value).
const LONGEST_LINE: usize = 2048;
/// The most lines that a list may have. Drivers with many outlets come to a few hundred.
const LONGEST_LIST: usize = 4096;

/// These bytes are no reply of this protocol; a line of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Garbage(pub(super) String);

/// What upsd says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// `ERR`: it will not.
    Refused(ErrorCode),
    /// One line, in words.
    Line(Vec<String>),
    /// Every line between `BEGIN` and `END`, in words.
    List(Vec<Vec<String>>),
}

/// Why upsd refused (RFC 9271, section 4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorCode {
    /// This user, or this address, may not.
    AccessDenied,
    /// There is no UPS of this name.
    UnknownUps,
    /// The UPS has no such variable.
    VarNotSupported,
    /// The UPS has no such command.
    CmdNotSupported,
    /// An argument is missing or wrong.
    InvalidArgument,
    /// The variable cannot have this value.
    InvalidValue,
    /// The command could not be given to the driver.
    InstcmdFailed,
    /// The variable could not be given to the driver.
    SetFailed,
    /// The variable cannot be written.
    ReadOnly,
    /// The value is too long.
    TooLong,
    /// This upsd was built without that.
    FeatureNotSupported,
    /// This upsd was not configured for that.
    FeatureNotConfigured,
    /// TLS is on already.
    AlreadySslMode,
    /// The UPS's driver does not run.
    DriverNotConnected,
    /// The UPS's driver has not been able to read it for a while.
    DataStale,
    /// This connection is logged in already.
    AlreadyLoggedIn,
    /// The password is not this user's.
    InvalidPassword,
    /// The password was given already.
    AlreadySetPassword,
    /// There is no such user.
    InvalidUsername,
    /// The user was given already.
    AlreadySetUsername,
    /// The user must be given first.
    UsernameRequired,
    /// The password must be given first.
    PasswordRequired,
    /// It does not know this request.
    UnknownCommand,
    /// A code that the RFC does not know.
    Other(String),
}

impl ErrorCode {
    const CODES: [(&'static str, Self); 23] = [
        ("ACCESS-DENIED", Self::AccessDenied),
        ("UNKNOWN-UPS", Self::UnknownUps),
        ("VAR-NOT-SUPPORTED", Self::VarNotSupported),
        ("CMD-NOT-SUPPORTED", Self::CmdNotSupported),
        ("INVALID-ARGUMENT", Self::InvalidArgument),
        ("INVALID-VALUE", Self::InvalidValue),
        ("INSTCMD-FAILED", Self::InstcmdFailed),
        ("SET-FAILED", Self::SetFailed),
        ("READONLY", Self::ReadOnly),
        ("TOO-LONG", Self::TooLong),
        ("FEATURE-NOT-SUPPORTED", Self::FeatureNotSupported),
        ("FEATURE-NOT-CONFIGURED", Self::FeatureNotConfigured),
        ("ALREADY-SSL-MODE", Self::AlreadySslMode),
        ("DRIVER-NOT-CONNECTED", Self::DriverNotConnected),
        ("DATA-STALE", Self::DataStale),
        ("ALREADY-LOGGED-IN", Self::AlreadyLoggedIn),
        ("INVALID-PASSWORD", Self::InvalidPassword),
        ("ALREADY-SET-PASSWORD", Self::AlreadySetPassword),
        ("INVALID-USERNAME", Self::InvalidUsername),
        ("ALREADY-SET-USERNAME", Self::AlreadySetUsername),
        ("USERNAME-REQUIRED", Self::UsernameRequired),
        ("PASSWORD-REQUIRED", Self::PasswordRequired),
        ("UNKNOWN-COMMAND", Self::UnknownCommand),
    ];

    fn from_word(word: &str) -> Self {
        let known = Self::CODES.into_iter().find(|(code, _)| *code == word);
        known.map_or_else(|| Self::Other(word.to_owned()), |(_, code)| code)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Self::CODES.into_iter().find(|(_, code)| code == self);
        match (self, known) {
            (Self::Other(word), _) => f.write_str(word),
            (_, Some((word, _))) => f.write_str(word),
            (_, None) => Ok(()),
        }
    }
}

/// An argument as it is sent: between quotes. `None` if it has something that no quotes can carry.
pub(super) fn quoted(argument: &str) -> Option<String> {
    let is_fit = !argument.chars().any(|char| char.is_control());
    is_fit.then(|| format!("\"{}\"", argument.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// The words of a line. What is between quotes is one word; behind a backslash every character is itself.
pub(super) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => word.get_or_insert_default().extend(chars.next()),
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            _ if char.is_whitespace() && !is_quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    words
}

/// Takes a whole reply from the front of what has come; `None` if there is more to come.
pub(super) fn take(inbox: &mut Vec<u8>) -> Result<Option<Reply>, Garbage> {
    let Some((first, mut rest)) = line(inbox)? else { return Ok(None) };
    let first = words(&first);
    let head: Vec<&str> = first.iter().map(String::as_str).collect();
    let reply = match head[..] {
        ["ERR", code, ..] => Reply::Refused(ErrorCode::from_word(code)),
        ["BEGIN", "LIST", ..] => {
            let mut list = Vec::new();
            loop {
                let Some((next, after)) = line(rest)? else { return Ok(None) };
                rest = after;
                let next = words(&next);
                match next.first().map(String::as_str) {
                    Some("END") if next.get(1..) == first.get(1..) => break,
                    Some("BEGIN" | "END" | "ERR") => return Err(Garbage(next.join(" "))),
                    _ if list.len() == LONGEST_LIST => return Err(Garbage("a list without an end".to_owned())),
                    _ => list.push(next),
                }
            }
            Reply::List(list)
        }
        _ => Reply::Line(first),
    };
    let taken = inbox.len() - rest.len();
    inbox.drain(..taken);
    Ok(Some(reply))
}

/// The first line and what is behind it; `None` if it is not whole.
fn line(bytes: &[u8]) -> Result<Option<(String, &[u8])>, Garbage> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\r').to_owned();
    match end {
        Some(end) if end <= LONGEST_LINE => {
            let (line, rest) = bytes.split_at(end);
            Ok(Some((text(line), rest.get(1..).unwrap_or_default())))
        }
        None if bytes.len() <= LONGEST_LINE => Ok(None),
        Some(_) | None => Err(Garbage(text(bytes.get(..60).unwrap_or_default()))),
    }
}

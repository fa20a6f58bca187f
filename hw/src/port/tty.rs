//! A dialogue on a serial line: raw, 8N1, no flow control, used by nobody else.

use core::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::termios::{
    ControlModes, OptionalActions, QueueSelector, ioctl_tiocexcl, ioctl_tiocnxcl, tcflush, tcgetattr, tcsetattr,
};

use super::stream::{self, Wire};
use crate::dialogue::Dialogue;

/// How often a line that is busy is tried again: a process that was just forked holds the files of its parent, and their
/// locks, until it becomes another program.
const AGAIN: u32 = 50;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Carries the dialogue until it ends, at so many bits per second. Shortly before `deadline`, or once `cancel` is set, it is
/// told to wind up; at `deadline` it is given up.
///
/// # Errors
/// The line cannot be had, or it is lost on the way. The outcome of the dialogue is none of these.
pub fn run<D: Dialogue>(
    dialogue: D,
    path: &Path,
    bits_per_second: u32,
    deadline: Instant,
    cancel: &AtomicBool,
) -> Result<D::Outcome, Error> {
    let fail = |trouble| Error { path: path.to_owned(), trouble };
    let mut line = Line(open(path, bits_per_second)?);
    stream::run(dialogue, &mut line, deadline, cancel).map_err(|error| fail(Trouble::on_the_way(&error)))
}

/// Opens a line for whoever carries something else than a dialogue on it: raw, never blocking, ours alone as long as the
/// file is open.
///
/// # Errors
/// The line cannot be had.
pub fn open(path: &Path, bits_per_second: u32) -> Result<File, Error> {
    let mut again = AGAIN;
    loop {
        match prepared(path, bits_per_second) {
            Err(Trouble::Busy) if again > 0 => {
                again -= 1;
                std::thread::sleep(PAUSE);
            }
            result => return result.map_err(|trouble| Error { path: path.to_owned(), trouble }),
        }
    }
}

/// Why a serial line cannot be used, with its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The device's file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub trouble: Trouble,
}

/// What is wrong with a serial line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// There is no such device, or no hardware behind its file.
    Absent,
    /// Another program uses it.
    Busy,
    /// The file is something else.
    NoSerialLine,
    /// It was there, and is no more.
    Lost,
    /// Anything else; the system's words.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "serial device {} ", self.path.display())?;
        match &self.trouble {
            Trouble::Absent => f.write_str("is absent"),
            Trouble::Busy => f.write_str("is busy: another program uses it"),
            Trouble::NoSerialLine => f.write_str("is no serial line"),
            Trouble::Lost => f.write_str("was lost in the middle of the dialogue"),
            Trouble::Other(error) => write!(f, "cannot be used: {error}"),
        }
    }
}

impl core::error::Error for Error {}

impl Trouble {
    fn at_opening(errno: Errno) -> Self {
        match errno {
            // A UART's file without a UART opens, and then answers EIO.
            Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::IO => Self::Absent,
            Errno::BUSY | Errno::WOULDBLOCK => Self::Busy,
            Errno::NOTTY | Errno::ISDIR => Self::NoSerialLine,
            other => Self::Other(other.to_string()),
        }
    }

    fn on_the_way(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::IO | Errno::NODEV | Errno::NXIO) => Self::Lost,
            _ if error.kind() == io::ErrorKind::UnexpectedEof => Self::Lost,
            _ => Self::Other(error.to_string()),
        }
    }
}

fn prepared(path: &Path, bits_per_second: u32) -> Result<File, Trouble> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(Trouble::at_opening)?);
    let prepare = || -> Result<(), Errno> {
        let mut modes = tcgetattr(&file)?;
        // The lock keeps out programs that ask for one; TIOCEXCL all others, unless they are root.
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        ioctl_tiocexcl(&file)?;
        modes.make_raw();
        modes.control_modes.remove(ControlModes::CSTOPB | ControlModes::CRTSCTS | ControlModes::HUPCL);
        modes.control_modes.insert(ControlModes::CLOCAL | ControlModes::CREAD);
        modes.set_speed(bits_per_second)?;
        tcsetattr(&file, OptionalActions::Now, &modes)?;
        tcflush(&file, QueueSelector::IOFlush)
    };
    prepare().map_err(Trouble::at_opening)?;
    Ok(file)
}

/// An open line; ours alone until it is dropped.
#[derive(Debug)]
struct Line(File);

impl Line {
    /// Is it ready? Not, after so long.
    fn is_ready(&self, wanted: PollFlags, wait: Duration) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.0, wanted)];
        let wait = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(&mut fds, Some(&wait)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Others who have it open may use it again. Should this fail, the last of them to close it frees it.
        let _ = ioctl_tiocnxcl(&self.0);
    }
}

impl Wire for Line {
    fn send(&mut self, mut bytes: &[u8], until: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.0, bytes) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => {
                    let wait = until.saturating_duration_since(Instant::now());
                    if wait.is_zero() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    self.is_ready(PollFlags::OUT, wait)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn receive<'a>(&mut self, wait: Duration, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        if !self.is_ready(PollFlags::IN, wait)? {
            return Ok(&[]);
        }
        match rustix::io::read(&self.0, &mut *buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => Ok(buffer.get(..length).unwrap_or_default()),
            Err(Errno::INTR | Errno::WOULDBLOCK) => Ok(&[]),
            Err(error) => Err(error.into()),
        }
    }
}

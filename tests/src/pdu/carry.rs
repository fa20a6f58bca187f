//! The console on lines: a pty in the place of the serial line, and telnet.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use super::{Console, Pdu, Telnet, Way};

/// As much as is read at once.
const CHUNK: usize = 256;
/// How long a line listens before it looks again what is due (another thread may have planned it).
const GLANCE: Duration = Duration::from_millis(200);

/// What leaves later, in order.
#[derive(Debug, Default)]
struct Leaving(VecDeque<(Instant, Vec<u8>)>);

impl Leaving {
    fn push(&mut self, pdu: &Pdu, now: Instant, bytes: Vec<u8>) {
        let faults = pdu.faults();
        if faults.pace.is_zero() && !bytes.is_empty() {
            self.0.push_back((now + faults.late, bytes));
            return;
        }
        for byte in bytes {
            let after = self.0.back().map_or(now, |(at, _)| *at).max(now + faults.late);
            self.0.push_back((after + faults.pace, vec![byte]));
        }
    }

    fn send(&mut self, now: Instant, line: &mut impl Write) -> io::Result<()> {
        while let Some((_, bytes)) = self.0.pop_front_if(|(at, _)| *at <= now) {
            line.write_all(&bytes)?;
        }
        line.flush()
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.front().map(|(at, _)| *at)
    }
}

/// The serial line of a PDU: whoever opens [`SerialLine::path`] is at its other end. As on a real one nobody is seen to
/// open or close it: a session that nobody logged out of is found as it was left.
#[derive(Debug)]
pub struct SerialLine {
    master: PtyMaster,
    /// Open, so that the line stands whoever comes and goes.
    _held: File,
    path: PathBuf,
}

impl SerialLine {
    /// A new one.
    ///
    /// # Errors
    /// The machine has no pty left.
    pub fn open() -> io::Result<Self> {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = PathBuf::from(ptsname_r(&master)?);
        let held = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(&path)?;
        let mut settings = tcgetattr(&held)?;
        cfmakeraw(&mut settings);
        tcsetattr(&held, SetArg::TCSANOW, &settings)?;
        Ok(Self { master, _held: held, path })
    }

    /// The device that a driver opens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers on this line, and moves the relays.
    ///
    /// # Errors
    /// What the line fails with; it ends with nothing else.
    pub fn serve(mut self, pdu: &Pdu) -> io::Result<Infallible> {
        let mut console = Console::new(pdu, Way::Serial, Instant::now());
        let mut leaving = Leaving::default();
        let mut buffer = [0; CHUNK];
        loop {
            let now = Instant::now();
            let words = console.tick(pdu, now);
            leaving.push(pdu, now, words);
            leaving.send(now, &mut self.master)?;
            pdu.tick(now);
            let next = [leaving.deadline(), console.deadline(pdu), pdu.deadline()];
            if wait(&[self.master.as_fd()], now, next)? != [true] {
                continue;
            }
            let length = self.master.read(&mut buffer)?;
            let now = Instant::now();
            let shown = console.receive(pdu, now, buffer.get(..length).unwrap_or_default());
            leaving.push(pdu, now, shown);
        }
    }
}

/// One telnet connection.
struct Connection {
    stream: TcpStream,
    telnet: Telnet,
    console: Console,
    leaving: Leaving,
}

impl Connection {
    fn new(pdu: &Pdu, stream: TcpStream, now: Instant) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let console = Console::new(pdu, Way::Telnet(stream.peer_addr()?), now);
        let mut leaving = Leaving::default();
        leaving.push(pdu, now, [&Telnet::offer()[..], &Console::greeting()].concat());
        Ok(Self { stream, telnet: Telnet::default(), console, leaving })
    }

    /// Is it still open?
    fn turn(&mut self, pdu: &Pdu, readable: bool) -> io::Result<bool> {
        let now = Instant::now();
        if readable {
            let mut buffer = [0; CHUNK];
            let length = self.stream.read(&mut buffer)?;
            if length == 0 {
                return Ok(false);
            }
            let (typed, mut reply) = self.telnet.receive(buffer.get(..length).unwrap_or_default());
            reply.extend(self.console.receive(pdu, now, &typed));
            self.leaving.push(pdu, now, reply);
        }
        let words = self.console.tick(pdu, now);
        self.leaving.push(pdu, now, words);
        self.leaving.send(now, &mut self.stream)?;
        Ok(!self.console.is_closed() || !self.leaving.0.is_empty())
    }
}

/// Answers on telnet, and moves the relays: one connection at a time, as the card does; others are closed at once.
///
/// # Errors
/// What the listener fails with; it ends with nothing else.
pub fn serve_telnet(listener: &TcpListener, pdu: &Pdu) -> io::Result<Infallible> {
    let mut open: Option<Connection> = None;
    loop {
        let now = Instant::now();
        pdu.tick(now);
        let mut lines = vec![listener.as_fd()];
        lines.extend(open.as_ref().map(|connection| connection.stream.as_fd()));
        let own = open.as_ref().map(|connection| [connection.leaving.deadline(), connection.console.deadline(pdu)]);
        let [words, slept] = own.unwrap_or_default();
        let readable = wait(&lines, now, [words, slept, pdu.deadline()])?;
        // The connection before the listener: whoever hung up does not stand in the way of the next.
        if let Some(connection) = &mut open {
            // An error is the end of this connection only.
            if !connection.turn(pdu, readable.get(1) == Some(&true)).unwrap_or(false) {
                connection.console.hang_up(pdu);
                open = None;
            }
        }
        if readable.first() == Some(&true) {
            let (stream, _) = listener.accept()?;
            let now = Instant::now();
            if open.is_none() && pdu.takes_telnet(now) {
                // Who connected may have gone at once.
                open = Connection::new(pdu, stream, now).ok();
            }
        }
    }
}

/// Waits until one of the lines can be read or the first of the deadlines has come, and at most a glance: which lines
/// can be read?
fn wait(lines: &[BorrowedFd<'_>], now: Instant, deadlines: [Option<Instant>; 3]) -> io::Result<Vec<bool>> {
    let next = deadlines.into_iter().flatten().min();
    let wait = next.map_or(GLANCE, |at| at.saturating_duration_since(now).min(GLANCE));
    // Rounded up: a deadline that is nearly there is not waited for in a busy loop.
    let wait = PollTimeout::try_from(wait + Duration::from_micros(999)).unwrap_or(PollTimeout::ZERO);
    let mut polled: Vec<PollFd<'_>> = lines.iter().map(|line| PollFd::new(*line, PollFlags::POLLIN)).collect();
    match poll(&mut polled, wait) {
        Ok(_) => Ok(polled.iter().map(|polled| polled.any().unwrap_or(false)).collect()),
        Err(error) if io::Error::from(error).kind() == ErrorKind::Interrupted => Ok(vec![false; lines.len()]),
        Err(error) => Err(error.into()),
    }
}

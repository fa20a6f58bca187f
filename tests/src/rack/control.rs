//! The rack's control socket: what `cargo rack status`, `power`, `console` and the others say to the running rack.
//!
//! A request is one line of JSON. The answer is text until the end of the stream, its first byte `+` or `-`: done, or
//! refused. A console goes on as the bare bytes of the serial line in both directions.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::events::Mark;
use super::ups::Supply;
use super::{Push, Rack};

/// The socket's file name.
const SOCKET: &str = "control.sock";

/// What can be asked of a running rack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// How does it stand? Answered as JSON.
    Status,
    /// Its outlet, or its power button.
    Power {
        /// Whose.
        node: String,
        /// Which way.
        push: Push,
    },
    /// Stop a machine dead.
    Crash {
        /// Which.
        node: String,
    },
    /// A cluster cable.
    Cable {
        /// Whose.
        node: String,
        /// Only the way to this other node?
        other: Option<String>,
        /// Plugged?
        joined: bool,
    },
    /// A UPS is on battery, nearly empty, or on mains.
    Ups {
        /// Which.
        ups: String,
        /// What it says from now on.
        supply: Supply,
    },
    /// Choose "shut down" in a node's menu.
    Shutdown {
        /// Which.
        node: String,
    },
    /// Attach to a node's console.
    Console {
        /// Which.
        node: String,
    },
    /// The event log.
    Log {
        /// Go on as it grows?
        follow: bool,
    },
    /// End the rack.
    Down,
}

/// Serves the socket in `dir` from a thread; `down` is called when somebody wants the rack to end.
///
/// # Errors
/// The socket cannot be made.
pub fn serve(rack: &Arc<Rack>, dir: &Path, down: impl Fn() + Send + Sync + 'static) -> Result<()> {
    let listener = with_short_path(dir, |path| {
        let _ = fs::remove_file(path);
        UnixListener::bind(path)
    })?;
    let (rack, down) = (Arc::clone(rack), Arc::new(down));
    std::thread::Builder::new().name("control".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let (rack, down) = (Arc::clone(&rack), Arc::clone(&down));
            // Who asked and left in the middle is nobody's trouble.
            std::thread::spawn(move || answer(&rack, stream, &*down));
        }
    })?;
    Ok(())
}

/// Asks the rack of `dir`; the stream stands after the `+`, at the answer.
///
/// # Errors
/// No rack runs there, or it refused; the text says which and why.
pub fn ask(dir: &Path, request: &Request) -> Result<UnixStream> {
    let mut stream = with_short_path(dir, |path| UnixStream::connect(path))
        .map_err(|_| anyhow!("no rack is running here: start one with `cargo rack`"))?;
    writeln!(stream, "{}", serde_json::to_string(request)?)?;
    let mut verdict = [0; 1];
    stream.read_exact(&mut verdict).context("the rack has ended")?;
    if verdict == *b"+" {
        return Ok(stream);
    }
    let mut why = String::new();
    stream.read_to_string(&mut why)?;
    bail!("{}", why.trim())
}

/// A socket's path may have 107 bytes, and a checkout may lie deeper: the folder is named through an open descriptor.
fn with_short_path<T>(dir: &Path, run: impl FnOnce(&Path) -> std::io::Result<T>) -> Result<T> {
    let folder = File::open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
    Ok(run(&path)?)
}

fn answer(rack: &Arc<Rack>, mut stream: UnixStream, down: &dyn Fn()) -> Result<()> {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    match serde_json::from_str(&line).map_err(Into::into).and_then(|request| carry_out(rack, &stream, down, request)) {
        Ok(()) => {}
        Err(error) => writeln!(stream, "-{error:#}")?,
    }
    Ok(())
}

fn carry_out(rack: &Arc<Rack>, mut stream: &UnixStream, down: &dyn Fn(), request: Request) -> Result<()> {
    match request {
        Request::Status => writeln!(stream, "+{}", serde_json::to_string(&rack.status())?)?,
        Request::Power { node, push } => rack.power(&node, push).and_then(|()| Ok(stream.write_all(b"+")?))?,
        Request::Crash { node } => rack.crash(&node).and_then(|()| Ok(stream.write_all(b"+")?))?,
        Request::Cable { node, other, joined } => {
            match other {
                Some(other) => rack.way(&node, &other, joined)?,
                None => rack.cable(&node, joined)?,
            }
            stream.write_all(b"+")?;
        }
        Request::Ups { ups, supply } => rack.ups(&ups, supply).and_then(|()| Ok(stream.write_all(b"+")?))?,
        Request::Shutdown { node } => rack.menu(&node)?.shut_down().and_then(|()| Ok(stream.write_all(b"+")?))?,
        Request::Console { node } => console(rack, stream, &node)?,
        Request::Log { follow } => {
            stream.write_all(b"+")?;
            follow_log(rack, stream, follow)?;
        }
        Request::Down => {
            stream.write_all(b"+")?;
            down();
            // The stream ends with the process: that is how the asker knows.
            loop {
                std::thread::park();
            }
        }
    }
    Ok(())
}

fn console(rack: &Arc<Rack>, mut stream: &UnixStream, node: &str) -> Result<()> {
    let line = rack.console(node)?;
    let said = line.listen();
    stream.write_all(b"+")?;
    stream.write_all(&line.repaint())?;
    let mut keys = stream.try_clone()?;
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = keys.read(&mut buffer) {
            line.write(buffer.get(..count).unwrap_or_default());
        }
        let _ = keys.shutdown(std::net::Shutdown::Both);
    });
    said.iter().try_for_each(|bytes| stream.write_all(&bytes))?;
    Ok(())
}

fn follow_log(rack: &Arc<Rack>, mut stream: &UnixStream, follow: bool) -> Result<()> {
    let mut mark = Mark::default();
    loop {
        let (events, next) = rack.log.since(mark);
        mark = next;
        for event in events {
            writeln!(stream, "{event}")?;
        }
        if !follow {
            return Ok(());
        }
        // Looks up now and then, to find that nobody reads any more.
        if rack.log.wait(mark, Duration::from_secs(2), |_| true).is_none() && gone(stream) {
            return Ok(());
        }
    }
}

/// Has the other side closed?
fn gone(mut stream: &UnixStream) -> bool {
    let _ = stream.set_nonblocking(true);
    let read = stream.read(&mut [0; 1]);
    let _ = stream.set_nonblocking(false);
    !matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

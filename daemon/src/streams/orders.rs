//! What the gateway's supervisor has done by its storage: a line of JSON each way on a unix socket, an order a connection.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::claims::Boot;
use super::storage::Storage;

/// Where the storage takes orders.
const SOCKET: &str = "/run/holdfast/storage.sock";
/// Bytes of an order.
const ORDER_BYTES: u64 = 1024;
/// How long the orderer may take to say it: it is a process of this machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Reserve a new epoch of claims.
    Reserve,
    /// Bar a boot of a node, and wait until no request of it is in flight.
    Bar {
        /// Which.
        boot: Boot,
        /// How long that may take, in milliseconds.
        longest_ms: u64,
    },
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Done {
    /// This epoch is reserved.
    Reserved(u64),
    /// It is barred, and nothing of it is in flight.
    Barred(Boot),
    /// Not, in words for the operator.
    Failed(String),
}

/// Orders something.
///
/// # Errors
/// The storage does not answer within `longest`, in words for the operator.
pub(crate) fn order(order: &Order, longest: Duration) -> Result<Done, String> {
    ask(Path::new(SOCKET), order, longest).map_err(|error| format!("the storage's process does not answer: {error}"))
}

fn ask(path: &Path, order: &Order, longest: Duration) -> io::Result<Done> {
    let mut socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(longest.max(Duration::from_millis(1))))?;
    let text = serde_json::to_string(order).map_err(io::Error::other)?;
    writeln!(socket, "{text}")?;
    let mut answer = String::new();
    BufReader::new(socket).read_line(&mut answer)?;
    serde_json::from_str(&answer).map_err(io::Error::other)
}

/// Listens for orders, in place of a former life.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn listen() -> io::Result<UnixListener> {
    listen_at(Path::new(SOCKET))
}

fn listen_at(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Carries out the order that comes over a connection.
///
/// # Errors
/// It is none, or whoever ordered does not wait any more.
pub(super) fn serve(mut socket: UnixStream, storage: &Storage) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new((&socket).take(ORDER_BYTES)).read_line(&mut line)?;
    let done = match serde_json::from_str(&line).map_err(io::Error::other)? {
        Order::Reserve => storage.reserve().map(Done::Reserved),
        Order::Bar { boot, longest_ms } => {
            storage.bar(&boot, Duration::from_millis(longest_ms)).map(|()| Done::Barred(boot))
        }
    };
    let done = done.unwrap_or_else(|refusal| Done::Failed(refusal.to_string()));
    writeln!(socket, "{}", serde_json::to_string(&done).map_err(io::Error::other)?)
}

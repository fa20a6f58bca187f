//! One serial line of a machine: the rack listens, QEMU connects at every start, nothing is lost in between.
//!
//! The sockets are abstract ones of the rack's network namespace: no file is left behind, and nobody outside reaches them.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Bytes read at once.
const CHUNK: usize = 4096;
/// Chunks that a listener may be behind before it loses some.
const BEHIND: usize = 1024;
/// How long a write to a machine may take.
const WRITE_LIMIT: Duration = Duration::from_millis(200);
/// Lines and columns of the terminal that the operator's eyes are.
const SCREEN: (NonZero<u16>, NonZero<u16>) = (NonZero::new(24).expect("not 0"), NonZero::new(80).expect("not 0"));

/// A serial line.
#[derive(Clone)]
pub struct Line {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    to_machine: Option<UnixStream>,
    listeners: Vec<SyncSender<Vec<u8>>>,
    terminal: vt100::Parser,
    log: Option<File>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl Line {
    /// A line on the abstract socket `name`, logged to `log` if given.
    ///
    /// # Errors
    /// The socket or the file cannot be made.
    pub fn open(name: &str, log: Option<&Path>) -> Result<Self> {
        let address = SocketAddr::from_abstract_name(name)?;
        let listener = UnixListener::bind_addr(&address).with_context(|| format!("serial line {name}"))?;
        let log = log.map(File::create).transpose()?;
        let terminal = vt100::Parser::new(SCREEN.0, SCREEN.1, 0);
        let line =
            Self { shared: Arc::new(Mutex::new(Shared { to_machine: None, listeners: Vec::new(), terminal, log })) };
        let served = line.clone();
        std::thread::Builder::new().name(name.into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                served.serve(stream);
            }
        })?;
        Ok(line)
    }

    /// QEMU's `-chardev` for it.
    pub fn chardev(id: &str, name: &str) -> String {
        format!("socket,id={id},path={name},abstract=on,tight=on,server=off")
    }

    /// Everything that the machine says from now on.
    pub fn listen(&self) -> Receiver<Vec<u8>> {
        let (sender, receiver) = sync_channel(BEHIND);
        self.lock().listeners.push(sender);
        receiver
    }

    /// Types `bytes`; `false` if nobody is at the other end.
    pub fn write(&self, bytes: &[u8]) -> bool {
        let mut shared = self.lock();
        shared.to_machine.as_mut().is_some_and(|stream| stream.write_all(bytes).is_ok())
    }

    /// What a terminal on this line shows, as text.
    pub fn screen(&self) -> String {
        self.lock().terminal.screen().contents()
    }

    /// The bytes that paint that screen anew, for somebody who comes later.
    pub fn repaint(&self) -> Vec<u8> {
        self.lock().terminal.screen().contents_formatted().into_bytes()
    }

    fn serve(&self, mut stream: UnixStream) {
        // A machine that hangs reads no more; who types to it must not hang with it.
        let _ = stream.set_write_timeout(Some(WRITE_LIMIT));
        self.lock().to_machine = stream.try_clone().ok();
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let bytes = buffer.get(..count).unwrap_or_default();
            let mut shared = self.lock();
            shared.terminal.process(bytes);
            if let Some(log) = &mut shared.log {
                let _ = log.write_all(bytes);
            }
            // Who went away is forgotten; who is too slow loses a chunk, for the machine must not wait.
            shared.listeners.retain(|listener| {
                !matches!(listener.try_send(bytes.to_vec()), Err(std::sync::mpsc::TrySendError::Disconnected(_)))
            });
        }
        self.lock().to_machine = None;
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A cable from one machine's serial line to another's: the rack listens at both ends, and passes on what comes. What is said
/// while nobody is at the other end is lost, as on a real one.
#[derive(Debug)]
pub struct NullModem;

impl NullModem {
    /// A cable between two abstract sockets, for as long as the process lives.
    ///
    /// # Errors
    /// A socket cannot be made.
    pub fn lay(names: [&str; 2]) -> Result<()> {
        let ends: [Arc<Mutex<Option<UnixStream>>>; 2] = Default::default();
        let [one, other] = ends;
        for (name, near, far) in [(names[0], &one, &other), (names[1], &other, &one)] {
            let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
            let (near, far) = (Arc::clone(near), Arc::clone(far));
            std::thread::Builder::new().name(name.into()).spawn(move || {
                for stream in listener.incoming().flatten() {
                    pass_on(stream, &near, &far);
                }
            })?;
        }
        Ok(())
    }
}

/// Passes on what one end says, until its machine has no power any more.
fn pass_on(mut stream: UnixStream, near: &Mutex<Option<UnixStream>>, far: &Mutex<Option<UnixStream>>) {
    // A machine that hangs reads no more: what does not fit is lost.
    let _ = stream.set_write_timeout(Some(WRITE_LIMIT));
    *open(near) = stream.try_clone().ok();
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if let Some(far) = &mut *open(far) {
            let _ = far.write_all(buffer.get(..count).unwrap_or_default());
        }
    }
    *open(near) = None;
}

fn open(end: &Mutex<Option<UnixStream>>) -> MutexGuard<'_, Option<UnixStream>> {
    end.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_modem_carries_both_ways_and_outlives_whoever_is_at_its_ends() {
        let names = ["one", "other"].map(|end| format!("holdfast-test/{}/{end}", std::process::id()));
        NullModem::lay([&names[0], &names[1]]).expect("two sockets");
        let connect = |name: &String| {
            let address = SocketAddr::from_abstract_name(name).expect("a name");
            UnixStream::connect_addr(&address).expect("the rack listens")
        };
        let says = |from: &mut UnixStream, to: &mut UnixStream, byte: u8| {
            // Until both ends are there, what is said is lost.
            to.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket has time limits");
            let mut heard = [0; 1];
            loop {
                from.write_all(&[byte]).expect("the rack reads");
                while let Ok(1) = to.read(&mut heard) {
                    if heard == [byte] {
                        return;
                    }
                }
            }
        };
        let mut one = connect(&names[0]);
        for n in 0..2 {
            let mut other = connect(&names[1]);
            says(&mut other, &mut one, b'a' + n);
            says(&mut one, &mut other, b'A' + n);
        }
    }
}

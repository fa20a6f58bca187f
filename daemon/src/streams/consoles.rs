//! The consoles of the VMs that run here: the pseudo-terminals that Xen's `xenconsoled` makes, one a VM (its name is in xenstore, see
//! Xen's `docs/misc/console.txt`). Whoever attaches to one takes it from whoever had it: two readers would each get a part.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster::words::VmName;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::claims::Refusal;
use crate::stream::Stream;
use crate::xenstore::Xenstore;

/// Where pseudo-terminals are.
const TERMINALS: &str = "/dev/pts/";

/// Who is attached to which: a bell that ends it.
#[derive(Debug, Default)]
pub(super) struct Consoles(Mutex<BTreeMap<VmName, Arc<OwnedFd>>>);

impl Consoles {
    /// Serves a member that wants the console of a VM, until one of them ends it or somebody else wants it.
    ///
    /// # Errors
    /// The connection was cut.
    pub(super) fn serve(&self, stream: Stream, vm: &VmName) -> io::Result<()> {
        self.attach(stream, vm, terminal_of(vm).and_then(|path| open(&path).map_err(|error| error.to_string())))
    }

    fn attach(&self, mut stream: Stream, vm: &VmName, terminal: Result<File, String>) -> io::Result<()> {
        let terminal = match terminal {
            Ok(terminal) => terminal,
            Err(reason) => return stream.answer(&Err(Refusal::Other(reason))),
        };
        stream.answer(&Ok(()))?;
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        if let Some(other) = self.lock().insert(vm.clone(), Arc::clone(&bell)) {
            ring(&other);
        }
        let from = Console { terminal: terminal.try_clone()?, bell: Arc::clone(&bell) };
        let close = Arc::clone(&bell);
        let end = stream.pump(from, Keyboard(terminal), move || ring(&close));
        let mut attached = self.lock();
        if attached.get(vm).is_some_and(|other| Arc::ptr_eq(other, &bell)) {
            attached.remove(vm);
        }
        end
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmName, Arc<OwnedFd>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends what waits for it.
fn ring(bell: &OwnedFd) {
    // It cannot be too often.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

/// The pseudo-terminal of a VM that runs here.
fn terminal_of(vm: &VmName) -> Result<PathBuf, String> {
    let none = || format!("{vm} does not run on that node");
    let mut store = Xenstore::open().map_err(|error| format!("xenstore: {error}"))?;
    let domains = store.list("/local/domain").map_err(|error| format!("xenstore: {error}"))?;
    let named = |id: &&String| store.read(&format!("/local/domain/{id}/name")).is_ok_and(|name| name == vm.as_str());
    let id = domains.iter().find(named).ok_or_else(none)?;
    let path =
        store.read(&format!("/local/domain/{id}/console/tty")).map_err(|_| format!("{vm} has no console yet"))?;
    // What is not xenconsoled's word is not opened.
    let number = path.strip_prefix(TERMINALS).filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    number.map(|_| PathBuf::from(&path)).ok_or_else(|| format!("{path} is no console"))
}

/// Opens it, so that nobody waits who writes to it. That every byte is as it is has xenconsoled seen to.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// What the guest writes, until its terminal is gone or the bell rings.
#[derive(Debug)]
struct Console {
    terminal: File,
    bell: Arc<OwnedFd>,
}

impl Read for Console {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut fds = [PollFd::new(&self.terminal, PollFlags::IN), PollFd::new(&self.bell, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if !fds[1].revents().is_empty() {
                return Ok(0);
            }
            match rustix::io::read(&self.terminal, &mut *buffer) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Its domain has gone, and xenconsoled has closed the other end.
                Err(Errno::IO) => return Ok(0),
                other => return Ok(other?),
            }
        }
    }
}

/// What is typed for a guest. One that takes nothing gets nothing: as on a line without flow control, it is lost.
#[derive(Debug)]
struct Keyboard(File);

impl Write for Keyboard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(bytes.len()),
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::os::unix::net::UnixStream;
    use std::thread::{self, JoinHandle};

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

    use super::super::carry;
    use super::*;
    use crate::carried::Counter;
    use crate::keys::tests_ring;
    use crate::stream::{PATIENCE, Service};

    /// A pseudo-terminal as xenconsoled makes it, which keeps both ends: its own, the other, and where that is.
    fn guest() -> (File, File, PathBuf) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let own = openpt(flags).unwrap();
        grantpt(&own).unwrap();
        unlockpt(&own).unwrap();
        let path = PathBuf::from(ptsname(&own, Vec::new()).unwrap().into_string().unwrap());
        let other = open(&path).unwrap();
        let mut raw = tcgetattr(&other).unwrap();
        raw.make_raw();
        tcsetattr(&other, OptionalActions::Now, &raw).unwrap();
        (File::from(own), other, path)
    }

    type Serving = JoinHandle<io::Result<()>>;

    /// Whoever attaches: the supervisor's end, and the node's thread that serves it.
    fn attach(consoles: &Arc<Consoles>, terminal: Result<PathBuf, String>) -> (io::Result<UnixStream>, Serving) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let consoles = Arc::clone(consoles);
        let serving = thread::spawn(move || {
            let (stream, service) = Stream::accept(listener.accept().unwrap().0, &tests_ring(1), "lab")?;
            let Service::Console(vm) = service else { panic!("{service:?}") };
            consoles.attach(stream, &vm, terminal.map(|path| open(&path).unwrap()))
        });
        let service = Service::Console(VmName::new("x0").unwrap());
        let stream = Stream::connect((Ipv4Addr::LOCALHOST, port), &tests_ring(1), "lab", &service);
        let menu = stream.map(|stream| {
            let (menu, end) = UnixStream::pair().unwrap();
            menu.set_read_timeout(Some(PATIENCE)).unwrap();
            thread::spawn(move || carry(stream, end, Counter::unseen()));
            menu
        });
        (menu, serving)
    }

    fn reads(from: &mut impl Read, text: &str) {
        let mut read = vec![0; text.len()];
        from.read_exact(&mut read).unwrap();
        assert_eq!(String::from_utf8(read).unwrap(), text);
    }

    fn has_ended(menu: &mut UnixStream) {
        assert_eq!(menu.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn what_is_typed_and_written_is_carried_as_it_is_until_the_menu_leaves() {
        let (consoles, (mut guest, _other, path)) = (Arc::default(), guest());
        // What was written before anybody looked is seen by whoever looks.
        guest.write_all(b"x0 login: ").unwrap();
        for _ in 0..2 {
            let (menu, serving) = attach(&consoles, Ok(path.clone()));
            let mut menu = menu.unwrap();
            menu.write_all(b"root\r\x03\x04\x1b[A").unwrap();
            reads(&mut guest, "root\r\x03\x04\x1b[A");
            guest.write_all(b"\x1b[1mx0\x00 login: ").unwrap();
            while {
                let mut byte = [0];
                menu.read_exact(&mut byte).unwrap();
                byte != [0]
            } {}
            reads(&mut menu, " login: ");
            drop(menu);
            serving.join().unwrap().unwrap();
            assert!(consoles.lock().is_empty());
        }
    }

    #[test]
    fn who_attaches_takes_it_from_whoever_had_it() {
        let (consoles, (mut guest, other, path)) = (Arc::default(), guest());
        let (first, first_served) = attach(&consoles, Ok(path.clone()));
        let (second, second_served) = attach(&consoles, Ok(path));
        let (mut first, mut second) = (first.unwrap(), second.unwrap());
        has_ended(&mut first);
        drop(first);
        first_served.join().unwrap().unwrap();
        guest.write_all(b"whole").unwrap();
        reads(&mut second, "whole");
        drop((guest, other));
        has_ended(&mut second);
        drop(second);
        second_served.join().unwrap().unwrap();
    }

    #[test]
    fn a_guest_that_takes_nothing_holds_nobody() {
        let (consoles, (_guest, _other, path)) = (Arc::default(), guest());
        let (menu, serving) = attach(&consoles, Ok(path));
        let mut menu = menu.unwrap();
        menu.write_all(&vec![b'x'; 1 << 20]).unwrap();
        drop(menu);
        serving.join().unwrap().unwrap();
    }

    #[test]
    fn where_there_is_no_console_the_reason_is_told() {
        let (menu, serving) = attach(&Arc::default(), Err("x0 does not run on that node".to_owned()));
        assert_eq!(menu.unwrap_err().to_string(), "x0 does not run on that node");
        serving.join().unwrap().unwrap();
    }
}

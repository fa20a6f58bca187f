//! The menus' end of the supervisor: a unix stream socket, [`SOCKET`], on which both sides speak JSON, one object a line.
//!
//! A menu that connects is told everything once: `{"problem": "text"}` for everything that is wrong with this machine
//! or its configuration (a machine that does not take part says only this), then `{"status": {..}}` (cluster's `Status`)
//! and `{"log": [{"at_ms": 1234, "node": "node1", "text": ".."}, ..]}`, oldest first, as far as it is kept. After that it
//! is told `status` when it has changed, and at least once a second, and `log` with the lines that are new. What this node
//! has read of outlets is `{"outlets": [{"at_ms": 1234, "outlet": "pdu1 outlet 3", "reading": "off"}, ..]}`. With each `status` comes
//! `{"progress": {"moves": [{"vm": "x0", "for_ms": 1234, "carried_bytes": 5678}, ..], "leaving": [..]}}` (console's `Progress`). It says
//! `{"request": "shut_down"}` (cluster's `Request`), and it alone is told `{"answer": ..}` (cluster's `Answer`). In the same way it says
//! `{"join": ..}` (console's `JoinRequest`), which goes to the gateway, and is told `{"joining": ..}` (`JoinAnswer`); and `{"volume": ..}`
//! (`VolumeRequest`), and is told `{"volumes": ..}` (`VolumeAnswer`), both in bytes that only the menu and the gateway read. What it says of
//! support bundles, `{"bundle": ..}` (`BundleRequest`), is for this machine alone, which answers in the same word (`BundleAnswer`). With `{"console": "x0"}` it gives
//! a descriptor: one end of a socket pair, on which it is answered in one line, `go` or why not, and then has that VM's console. A machine that
//! joins itself tells its menus `{"joins": "text"}`: how that stands, in place of what it told before. A menu that does not read what it is sent is hung up on; so is one
//! that speaks nonsense. Any number of menus may be connected.
//!
//! Where the cluster has a PIN every connection begins locked: the menu is told `{"lock": ..}` (console's `Lock`) when that changes, says
//! `{"unlock": "PIN"}`, `"lock"`, and `"active"` for a key that asks for nothing; what else it asks is refused until it is unlocked.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use cluster::event::{Answer, Request, RequestId};
use cluster::fencing::{Reading, Readings};
use cluster::status::Status;
use cluster::words::{Instant, Outlet, VmName};
use console::{BundleAnswer, BundleRequest, JoinAnswer, JoinRequest, Lock, Pin, Progress};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::events::Line;
use crate::stream::Opaque;
use crate::sys::MENU;

/// Where the supervisor listens.
pub(crate) const SOCKET: &str = "/run/holdfast/menu.sock";

/// What a menu is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToMenu {
    /// Something is wrong with this machine or its configuration, in words for the operator.
    Problem(String),
    /// What the node knows; replaces what was known.
    Status(Box<Status>),
    /// How far moves and nodes that leave are; replaces what was known.
    Progress(Progress),
    /// Lines of the event log that are new, oldest first.
    Log(Vec<Line>),
    /// What this node read outlets as last: each one that was ever read, or was read anew.
    Outlets(Vec<OutletRead>),
    /// What became of the request that this menu made.
    Answer(Answer),
    /// What the gateway answers to what this menu has asked about machines that join.
    Joining(JoinAnswer),
    /// What the gateway answers to what this menu has asked about its disks.
    Volumes {
        /// To what.
        to: Opaque,
        /// How things are now, or why it was refused.
        outcome: Result<Opaque, String>,
    },
    /// What this machine answers to what this menu has asked about support bundles.
    Bundle(BundleAnswer),
    /// This machine joins: how that stands, in place of what was said before.
    Joins(String),
    /// How this menu's lock stands, in place of what was said before.
    Lock(Lock),
}

/// What an outlet was read as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutletRead {
    /// When, in milliseconds since this machine booted.
    pub(crate) at_ms: u64,
    /// Which, as the status names it.
    pub(crate) outlet: String,
    /// `on`, `off`, or why neither is known, in words for the operator.
    pub(crate) reading: String,
}

/// What a menu says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromMenu {
    /// The operator asks for this.
    Request(Request),
    /// The operator asks the gateway for this.
    Join(JoinRequest),
    /// The operator has typed this.
    Unlock(Pin),
    /// The operator leaves.
    Lock,
    /// The operator is there.
    Active,
    /// The same, about its disks.
    Volume(Opaque),
    /// The operator asks this machine for this, about support bundles.
    Bundle(BundleRequest),
    /// The operator wants the console of this VM, at the end that came with it.
    Console(VmName),
}

/// Bytes that may wait for a menu that is slow to read.
const OUTPUT_BYTES: usize = 1 << 20;
/// Bytes of a line from a menu.
const INPUT_BYTES: usize = 4096;
/// Menus at a time: one a terminal, and a few that are on their way out.
const MENUS: usize = 8;

/// The socket and the menus on it.
#[derive(Debug)]
pub(crate) struct Menus {
    listener: UnixListener,
    menus: Vec<Menu>,
    /// The next menu's number.
    next: u64,
    /// What outlets were read as last, by their names.
    outlets: BTreeMap<String, OutletRead>,
}

/// Which of the menus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MenuId(u64);

#[cfg(test)]
impl MenuId {
    /// Any, for the tests of whoever tells them apart.
    pub(crate) const fn of(number: u64) -> Self {
        Self(number)
    }
}

#[derive(Debug)]
struct Menu {
    id: MenuId,
    /// What it waits for.
    asked: Vec<RequestId>,
    /// How its lock stood when it was told last.
    lock: Option<Lock>,
    stream: UnixStream,
    output: VecDeque<u8>,
    input: Vec<u8>,
    /// The end that it has given, and nobody has taken yet.
    given: Option<UnixStream>,
    /// The VM's console that it has.
    console: Option<UnixStream>,
}

impl Menus {
    /// Listens at [`SOCKET`], and lets the menus in, which are not root's.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(crate) fn open() -> io::Result<Self> {
        let menus = Self::listen(Path::new(SOCKET))?;
        chown(SOCKET, None, Some(MENU))?;
        fs::set_permissions(SOCKET, fs::Permissions::from_mode(0o660))?;
        Ok(menus)
    }

    /// Listens at `path`, in place of a former life.
    ///
    /// # Errors
    /// What the kernel refuses.
    fn listen(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, menus: Vec::new(), next: 0, outlets: BTreeMap::new() })
    }

    /// Whether anybody looks.
    pub(crate) fn any(&self) -> bool {
        !self.menus.is_empty()
    }

    /// What is worth waking up for.
    pub(crate) fn waits<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::new(&self.listener, PollFlags::IN));
        for menu in &self.menus {
            let out = if menu.output.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            fds.push(PollFd::new(&menu.stream, PollFlags::IN | out));
        }
    }

    /// Lets new menus in, each told `greeting`, and takes what they all ask.
    pub(crate) fn serve(&mut self, greeting: impl Fn() -> Vec<ToMenu>) -> Vec<(MenuId, FromMenu)> {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.menus.len() < MENUS && stream.set_nonblocking(true).is_ok() {
                let (id, asked) = (MenuId(self.next), Vec::new());
                self.next += 1;
                let (output, input) = (VecDeque::new(), Vec::new());
                let mut menu = Menu { id, asked, lock: None, stream, output, input, given: None, console: None };
                let outlets = self.outlets.values().cloned().collect();
                let mut greeting = greeting();
                greeting.push(ToMenu::Outlets(outlets));
                if greeting.iter().all(|message| menu.tell(&encoded(message)).is_ok()) {
                    self.menus.push(menu);
                }
            }
        }
        let mut asked = Vec::new();
        self.menus.retain_mut(|menu| menu.listen(&mut asked).is_ok() && menu.flush().is_ok());
        asked
    }

    /// A menu waits for the answer to this.
    pub(crate) fn expect(&mut self, menu: MenuId, request: RequestId) {
        if let Some(menu) = self.menus.iter_mut().find(|other| other.id == menu) {
            menu.asked.push(request);
        }
    }

    /// Tells the menu that waits for it.
    pub(crate) fn answer(&mut self, request: RequestId, answer: &Answer) {
        let bytes = encoded(&ToMenu::Answer(answer.clone()));
        self.menus.retain_mut(|menu| match menu.asked.iter().position(|asked| *asked == request) {
            Some(at) => {
                menu.asked.remove(at);
                menu.tell(&bytes).is_ok()
            }
            None => true,
        });
    }

    /// Tells one menu, if it is still there.
    pub(crate) fn tell_one(&mut self, menu: MenuId, message: &ToMenu) {
        let bytes = encoded(message);
        self.menus.retain_mut(|other| other.id != menu || other.tell(&bytes).is_ok());
    }

    /// The end that a menu has given for the console of a VM. What it had before is hung up on.
    pub(crate) fn console(&mut self, menu: MenuId) -> Option<UnixStream> {
        let menu = self.menus.iter_mut().find(|other| other.id == menu)?;
        menu.hang_up();
        let end = menu.given.take()?;
        menu.console = end.try_clone().ok();
        Some(end)
    }

    /// Tells every menu how its lock stands, where that has changed. A locked one has no VM's console any more.
    pub(crate) fn tell_locks(&mut self, lock: impl Fn(MenuId) -> Option<Lock>) {
        self.menus.retain_mut(|menu| match lock(menu.id) {
            Some(lock) if menu.lock != Some(lock) => {
                menu.lock = Some(lock);
                if !lock.open {
                    menu.hang_up();
                }
                menu.tell(&encoded(&ToMenu::Lock(lock))).is_ok()
            }
            Some(_) | None => true,
        });
    }

    /// Outlets were read: every menu is told, and so is whoever comes later.
    pub(crate) fn read(&mut self, at: Instant, readings: &Readings) {
        let read = |(outlet, reading): (&Outlet, &Reading)| OutletRead {
            at_ms: at.millis(),
            outlet: outlet.to_string(),
            reading: match reading {
                Reading::On => "on".to_owned(),
                Reading::Off => "off".to_owned(),
                Reading::Unknown(reason) => reason.clone(),
            },
        };
        let read: Vec<_> = readings.iter().map(read).collect();
        self.outlets.extend(read.iter().map(|read| (read.outlet.clone(), read.clone())));
        self.tell(&ToMenu::Outlets(read));
    }

    /// Tells every menu.
    pub(crate) fn tell(&mut self, message: &ToMenu) {
        if self.any() {
            let bytes = encoded(message);
            self.menus.retain_mut(|menu| menu.tell(&bytes).is_ok());
        }
    }
}

impl Menu {
    /// Queues a line and writes what can be written.
    fn tell(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.output.len().saturating_add(bytes.len()) > OUTPUT_BYTES {
            return Err(io::Error::other("it does not read"));
        }
        self.output.extend(bytes);
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            let (front, _) = self.output.as_slices();
            match self.stream.write(front) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the VM's console that it has.
    fn hang_up(&mut self) {
        if let Some(console) = self.console.take() {
            // It may have ended.
            let _ = console.shutdown(Shutdown::Both);
        }
    }

    /// Reads what has come, and the descriptor that has come with it.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = RecvAncillaryBuffer::new(&mut space);
        let read = recvmsg(&self.stream, &mut [IoSliceMut::new(buffer)], &mut with, RecvFlags::CMSG_CLOEXEC)?;
        for message in with.drain() {
            if let RecvAncillaryMessage::ScmRights(given) = message {
                self.given = given.last().map(UnixStream::from);
            }
        }
        Ok(read.bytes)
    }

    /// Takes the whole lines that have come.
    fn listen(&mut self, asked: &mut Vec<(MenuId, FromMenu)>) -> io::Result<()> {
        let mut buffer = Zeroizing::new([0; 512]);
        loop {
            match self.read(&mut *buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.input.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            while let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
                // There may be a PIN in it: no copy stays.
                let rest = self.input.split_off(end + 1);
                let line = Zeroizing::new(std::mem::replace(&mut self.input, rest));
                asked.push((self.id, serde_json::from_slice(&line)?));
            }
            if self.input.len() > INPUT_BYTES {
                return Err(io::Error::other("a line without end"));
            }
        }
    }
}

fn encoded(message: &ToMenu) -> Vec<u8> {
    // Our own types, with text for keys: there is nothing in them that JSON could not say.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, IoSlice, Read};
    use std::os::fd::AsFd;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    #[test]
    fn a_menu_is_greeted_told_and_heard() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("menu.sock");
        drop(UnixListener::bind(&path).unwrap());
        let mut menus = Menus::listen(&path).unwrap();
        let mut menu = BufReader::new(UnixStream::connect(&path).unwrap());
        menu.get_mut().write_all(b"{\"request\":\"shut_down\"}\n{\"requ").unwrap();
        let asked = menus.serve(|| vec![ToMenu::Problem("no such MAC".to_owned())]);
        let [(id, FromMenu::Request(Request::ShutDown))] = asked.as_slice() else { panic!("{asked:?}") };
        menus.expect(*id, RequestId(7));
        menus.answer(RequestId(8), &Answer::Agreed);
        menus.answer(RequestId(7), &Answer::Refused("no".to_owned()));
        menus.tell(&ToMenu::Log(Vec::new()));
        let mut line = String::new();
        for _ in 0..4 {
            menu.read_line(&mut line).unwrap();
        }
        assert_eq!(
            line,
            "{\"problem\":\"no such MAC\"}\n{\"outlets\":[]}\n{\"answer\":{\"refused\":\"no\"}}\n{\"log\":[]}\n"
        );
        menu.get_mut().write_all(b"est\": \"Fly\"}\n").unwrap();
        assert_eq!(menus.serve(Vec::new), []);
        assert!(!menus.any(), "whoever speaks nonsense is hung up on");
    }

    #[test]
    fn a_lock_is_told_to_its_menu_when_it_changes_and_a_pin_is_heard() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("menu.sock");
        let mut menus = Menus::listen(&path).unwrap();
        let mut menu = BufReader::new(UnixStream::connect(&path).unwrap());
        menu.get_mut().write_all(b"{\"unlock\":\"4711\"}\n\"active\"\n\"lock\"\n").unwrap();
        let asked = menus.serve(Vec::new);
        let [(_, unlock @ FromMenu::Unlock(pin)), (_, FromMenu::Active), (_, FromMenu::Lock)] = asked.as_slice() else {
            panic!("{asked:?}")
        };
        assert_eq!(pin.text(), "4711");
        assert!(!format!("{unlock:?}").contains("4711"), "nothing prints a PIN");
        menus.tell_locks(|_| None);
        for wait_s in [0, 0, 1] {
            menus.tell_locks(|_| Some(Lock { open: false, wrong: 0, wait_s }));
        }
        menus.tell(&ToMenu::Problem("the end".to_owned()));
        let mut lines = String::new();
        for _ in 0..4 {
            menu.read_line(&mut lines).unwrap();
        }
        let lock = |wait_s| format!("{{\"lock\":{{\"open\":false,\"wrong\":0,\"wait_s\":{wait_s}}}}}\n");
        assert_eq!(lines, format!("{{\"outlets\":[]}}\n{}{}{{\"problem\":\"the end\"}}\n", lock(0), lock(1)));
    }

    #[test]
    fn what_outlets_were_read_as_is_told_at_once_and_to_whoever_comes_later() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("menu.sock");
        let mut menus = Menus::listen(&path).unwrap();
        let outlet = |number| Outlet { pdu: "pdu1".to_owned(), number };
        let first = [(outlet(3), Reading::On), (outlet(4), Reading::Unknown("no answer".to_owned()))];
        menus.read(Instant::from_millis(5), &first.into());
        let mut early = BufReader::new(UnixStream::connect(&path).unwrap());
        menus.serve(Vec::new);
        menus.read(Instant::from_millis(9), &[(outlet(3), Reading::Off)].into());
        let mut late = BufReader::new(UnixStream::connect(&path).unwrap());
        menus.serve(Vec::new);
        let told = |menu: &mut BufReader<UnixStream>| {
            let mut line = String::new();
            menu.read_line(&mut line).unwrap();
            let ToMenu::Outlets(read) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
            let read = read.into_iter().map(|read| format!("{} {}: {}", read.at_ms, read.outlet, read.reading));
            read.collect::<Vec<_>>()
        };
        assert_eq!(told(&mut early), ["5 pdu1 outlet 3: on", "5 pdu1 outlet 4: no answer"]);
        assert_eq!(told(&mut early), ["9 pdu1 outlet 3: off"]);
        assert_eq!(told(&mut late), ["9 pdu1 outlet 3: off", "5 pdu1 outlet 4: no answer"]);
    }

    #[test]
    fn the_end_that_a_menu_gives_is_hung_up_on_when_it_is_locked_or_gives_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("menu.sock");
        let mut menus = Menus::listen(&path).unwrap();
        let menu = UnixStream::connect(&path).unwrap();
        // A menu's end, and what the supervisor was given.
        let ask = |menus: &mut Menus| {
            let (own, other) = UnixStream::pair().unwrap();
            let given = [other.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut with = SendAncillaryBuffer::new(&mut space);
            with.push(SendAncillaryMessage::ScmRights(&given));
            let line = [IoSlice::new(b"{\"console\":\"x0\"}\n")];
            sendmsg(&menu, &line, &mut with, SendFlags::empty()).unwrap();
            let asked = menus.serve(Vec::new);
            let [(id, FromMenu::Console(vm))] = asked.as_slice() else { panic!("{asked:?}") };
            assert_eq!(vm.as_str(), "x0");
            (own, menus.console(*id).unwrap())
        };
        let has_ended = |mut end: &UnixStream| end.read(&mut [0; 1]).unwrap() == 0;
        let (first, given) = ask(&mut menus);
        (&given).write_all(b"x").unwrap();
        (&first).read_exact(&mut [0; 1]).unwrap();
        let (second, _given) = ask(&mut menus);
        assert!(has_ended(&first));
        menus.tell_locks(|_| Some(Lock { open: true, wrong: 0, wait_s: 0 }));
        (&second).write_all(b"x").unwrap();
        menus.tell_locks(|_| Some(Lock { open: false, wrong: 0, wait_s: 0 }));
        assert!(has_ended(&second));
    }

    #[test]
    fn a_menu_that_does_not_read_is_let_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("menu.sock");
        let mut menus = Menus::listen(&path).unwrap();
        let _menu = UnixStream::connect(&path).unwrap();
        menus.serve(Vec::new);
        assert!(menus.any());
        for _ in 0..64 {
            menus.tell(&ToMenu::Problem("x".repeat(64 * 1024)));
        }
        assert!(!menus.any());
    }
}

//! The menu's end of the supervisor's socket; what is said on it is [`menu_link`](crate::supervise::menu_link)'s.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use cluster::words::{Instant, VmName};
use console::{Ask, Input, Line, OutletRead, VolumeAnswer};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::supervise::menu_link::{FromMenu, ToMenu};

/// The longest line from the supervisor, in bytes: its whole log at once is far less.
const LINE_BYTES: usize = 4 << 20;

/// The connection, while there is one.
#[derive(Debug)]
pub(super) struct Link {
    socket: PathBuf,
    stream: Option<UnixStream>,
    /// What has come of a line that has not ended.
    begun: Vec<u8>,
}

impl Link {
    /// To the supervisor behind `socket`, not connected yet.
    pub(super) fn new(socket: &str) -> Self {
        Self { socket: PathBuf::from(socket), stream: None, begun: Vec::new() }
    }

    /// The stream, to be waited on.
    pub(super) fn stream(&self) -> Option<&UnixStream> {
        self.stream.as_ref()
    }

    /// Connects where there is no connection; whether there is a new one.
    pub(super) fn connect(&mut self) -> bool {
        if self.stream.is_some() {
            return false;
        }
        let stream = UnixStream::connect(&self.socket);
        self.stream = stream.and_then(|stream| stream.set_nonblocking(true).map(|()| stream)).ok();
        self.stream.is_some()
    }

    /// Asks the supervisor for something.
    ///
    /// # Errors
    /// There is no supervisor any more; the connection is closed.
    pub(super) fn ask(&mut self, ask: Ask) -> io::Result<()> {
        // A PIN may stand in it.
        let mut line = Zeroizing::new(serde_json::to_vec(&match ask {
            Ask::Cluster(request) => FromMenu::Request(request),
            Ask::Join(request) => FromMenu::Join(request),
            // Our own types: there is nothing in them that it could not say.
            Ask::Volume(request) => FromMenu::Volume(postcard::to_allocvec(&request).unwrap_or_default()),
            Ask::Bundle(request) => FromMenu::Bundle(request),
            Ask::Unlock(pin) => FromMenu::Unlock(pin),
            Ask::Lock => FromMenu::Lock,
            Ask::Active => FromMenu::Active,
            Ask::Console(vm) => FromMenu::Console(vm),
        })?);
        line.push(b'\n');
        let end = match &mut self.stream {
            Some(stream) => stream.write_all(&line),
            None => Err(ErrorKind::NotConnected.into()),
        };
        self.closed_if(end)
    }

    /// Asks for the console of a VM, at the other end of `end`.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(super) fn attach(&mut self, vm: VmName, end: &OwnedFd) -> io::Result<()> {
        // The descriptor goes with the first byte, before which nothing of this line was said.
        let given = match &self.stream {
            Some(stream) => pass(stream, b" ", end),
            None => Err(ErrorKind::NotConnected.into()),
        };
        self.closed_if(given)?;
        self.ask(Ask::Console(vm))
    }

    /// Takes all that the supervisor has said.
    ///
    /// # Errors
    /// The supervisor has closed the connection or speaks nonsense; the connection is closed.
    pub(super) fn read(&mut self, news: &mut Vec<Input>) -> io::Result<()> {
        let end = self.read_lines(news);
        self.closed_if(end)
    }

    fn read_lines(&mut self, news: &mut Vec<Input>) -> io::Result<()> {
        let Some(stream) = &mut self.stream else {
            return Err(ErrorKind::NotConnected.into());
        };
        let mut buffer = [0; 4096];
        loop {
            let read = match stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for piece in read.split_inclusive(|byte| *byte == b'\n') {
                self.begun.extend_from_slice(piece);
                if piece.ends_with(b"\n") {
                    news.push(input(serde_json::from_slice(&self.begun)?)?);
                    self.begun.clear();
                }
            }
            if self.begun.len() > LINE_BYTES {
                return Err(ErrorKind::InvalidData.into());
            }
        }
    }

    fn closed_if(&mut self, end: io::Result<()>) -> io::Result<()> {
        if end.is_err() {
            self.stream = None;
            self.begun.clear();
        }
        end
    }
}

/// Writes a few bytes, and gives a descriptor with them.
fn pass(stream: &UnixStream, bytes: &[u8], given: &OwnedFd) -> io::Result<()> {
    let given = [given.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    with.push(SendAncillaryMessage::ScmRights(&given));
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut with, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
}

/// The same in the menu's words.
fn input(message: ToMenu) -> io::Result<Input> {
    Ok(match message {
        ToMenu::Problem(text) => Input::Problem(text),
        ToMenu::Answer(answer) => Input::Answer(answer),
        ToMenu::Joining(answer) => Input::Joining(answer),
        ToMenu::Volumes { to, outcome } => Input::Volumes(VolumeAnswer {
            to: opened(&to)?,
            outcome: match outcome {
                Ok(volumes) => Ok(opened(&volumes)?),
                Err(reason) => Err(reason),
            },
        }),
        ToMenu::Bundle(answer) => Input::Bundle(answer),
        ToMenu::Joins(text) => Input::Joins(text),
        ToMenu::Lock(lock) => Input::Lock(lock),
        ToMenu::Status(status) => Input::Status(status),
        ToMenu::Progress(progress) => Input::Progress(progress),
        ToMenu::Outlets(read) => Input::Outlets(
            read.into_iter()
                .map(|read| OutletRead {
                    at: Instant::from_millis(read.at_ms),
                    outlet: read.outlet,
                    reading: read.reading,
                })
                .collect(),
        ),
        ToMenu::Log(lines) => Input::Log(
            lines
                .into_iter()
                .map(|line| Line { at: Instant::from_millis(line.at_ms), node: line.node, text: line.text })
                .collect(),
        ),
    })
}

/// What the supervisor has carried without looking at it.
fn opened<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(io::Error::other)
}

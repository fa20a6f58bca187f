//! Those who wait for a VM that runs here: other nodes, each behind the `streams` applet, on a unix socket.
//!
//! One asks in one line (a [`Service`] in JSON) and is answered in one, `go` or the reason why not. What a socket says
//! after `go` is the VM.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use cluster::event::{Event, StreamId};
use cluster::limits;
use cluster::words::{Generation, Slot, VmName};
use rustix::event::{PollFd, PollFlags};

use crate::stream::Service;
use crate::streams::GO;

/// Bytes of a request.
const REQUEST_BYTES: usize = 1024;

/// The socket and who waits on it.
#[derive(Debug)]
pub(super) struct Pulls {
    listener: UnixListener,
    /// Those whose request has not come whole.
    asking: Vec<(UnixStream, Vec<u8>)>,
    /// Those whose request the node considers.
    waiting: BTreeMap<StreamId, UnixStream>,
    next: u64,
}

impl Pulls {
    /// Listens at `path`, in place of a former life.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, asking: Vec::new(), waiting: BTreeMap::new(), next: 0 })
    }

    /// What is worth waking up for.
    pub(super) fn waits<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::new(&self.listener, PollFlags::IN));
        fds.extend(self.asking.iter().map(|(stream, _)| PollFd::new(stream, PollFlags::IN)));
    }

    /// Takes the requests that have come.
    pub(super) fn serve(&mut self) -> Vec<Event> {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.asking.len() < limits::WAITING_PULLS && stream.set_nonblocking(true).is_ok() {
                self.asking.push((stream, Vec::new()));
            }
        }
        let mut events = Vec::new();
        for (mut stream, mut request) in std::mem::take(&mut self.asking) {
            match listen(&mut stream, &mut request) {
                Ok(None) => self.asking.push((stream, request)),
                Ok(Some((vm, generation, by))) => {
                    let id = StreamId(self.next);
                    self.next = self.next.saturating_add(1);
                    self.waiting.insert(id, stream);
                    events.push(Event::Pulled { stream: id, vm, generation, by });
                }
                // It hung up, or speaks nonsense: it is hung up on.
                Err(_) => {}
            }
        }
        events
    }

    /// Gives a waiting stream away, to be answered by [`go`].
    pub(super) fn give(&mut self, stream: StreamId) -> Option<UnixStream> {
        self.waiting.remove(&stream)
    }

    /// Answers that it does not get its VM.
    pub(super) fn refuse(&mut self, stream: StreamId, reason: &str) {
        if let Some(mut stream) = self.waiting.remove(&stream) {
            // Whoever does not wait any more need not be told.
            let _ = writeln!(stream, "{}", reason.replace('\n', " "));
        }
    }
}

/// Answers that the VM comes.
///
/// # Errors
/// Whoever asked does not wait any more.
pub(super) fn go(stream: &mut UnixStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    writeln!(stream, "{GO}")
}

/// Reads on; the request, once it is whole.
fn listen(stream: &mut UnixStream, request: &mut Vec<u8>) -> io::Result<Option<(VmName, Generation, Slot)>> {
    let mut buffer = [0; REQUEST_BYTES];
    while request.len() < REQUEST_BYTES {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => request.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        if request.ends_with(b"\n") {
            return parse(request).map(Some);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn parse(request: &[u8]) -> io::Result<(VmName, Generation, Slot)> {
    match serde_json::from_slice(request)? {
        Service::Pull { vm, generation, by } => {
            let vm = VmName::new(&vm).ok_or(io::ErrorKind::InvalidData)?;
            Ok((vm, Generation(generation), Slot(by)))
        }
        Service::Disk(_)
        | Service::Claim(_)
        | Service::Join(_)
        | Service::Volume(_)
        | Service::Journals(_)
        | Service::Console(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn one_asks_and_is_answered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pull.sock");
        let mut pulls = Pulls::listen(&path).unwrap();
        let mut streams = Vec::new();
        for request in ["{\"Pull\":{\"vm\":\"x0\",\"generation\":7,\"by\":2}}\n", "\"Storage\"\n", "{\"Pull\":"] {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            streams.push(BufReader::new(stream));
        }
        let events = pulls.serve();
        let stream = StreamId(0);
        let vm = VmName::new("x0").unwrap();
        assert_eq!(events, [Event::Pulled { stream, vm, generation: Generation(7), by: Slot(2) }]);
        assert_eq!(pulls.asking.len(), 1, "the third has not finished");
        let mut given = pulls.give(stream).unwrap();
        assert!(pulls.give(stream).is_none());
        go(&mut given).unwrap();
        let mut answer = String::new();
        streams[0].read_line(&mut answer).unwrap();
        assert_eq!(answer, "go\n");
        assert_eq!(streams[1].read_line(&mut answer).unwrap(), 0, "nonsense is hung up on");
    }

    #[test]
    fn a_refusal_says_why_in_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pull.sock");
        let mut pulls = Pulls::listen(&path).unwrap();
        let mut stream = BufReader::new(UnixStream::connect(&path).unwrap());
        stream.get_mut().write_all(b"{\"Pull\":{\"vm\":\"x0\",\"generation\":7,\"by\":2}}\n").unwrap();
        pulls.serve();
        pulls.refuse(StreamId(0), "it is\nnot here");
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        assert_eq!(answer, "it is not here\n");
    }
}

//! The gate between an heir and its disk: requests that change nothing pass, the first other one takes the disk over.
//!
//! Until then there are reads only, and a read is nothing but its header (NetworkBlockDevice/nbd, doc/proto.md, "Request
//! message"): so it is enough to look at every 28 bytes. Afterwards nothing is looked at.

use std::io::{self, Write};

/// Bytes of a request's header.
const HEADER: usize = 28;
const MAGIC: [u8; 4] = 0x2560_9513_u32.to_be_bytes();
const READ: [u8; 2] = 0_u16.to_be_bytes();
const DISCONNECT: [u8; 2] = 2_u16.to_be_bytes();

/// What goes to the NBD server.
pub(super) struct Gate<W, F> {
    to: W,
    state: State<F>,
    /// The beginning of a header whose rest has not come yet.
    header: Vec<u8>,
}

enum State<F> {
    /// For what changes the disk, until this has taken it over.
    Closed(F),
    Open,
    /// For good: it could not be taken over.
    Shut,
}

impl<W: Write, F: FnOnce() -> io::Result<()>> Gate<W, F> {
    /// One that is closed to whatever changes the disk, until `take_over` succeeds; open from the start without it.
    pub(super) fn new(to: W, take_over: Option<F>) -> Self {
        Self { to, state: take_over.map_or(State::Open, State::Closed), header: Vec::new() }
    }

    /// Passes on whole headers, as long as they change nothing; what was not looked at.
    fn look<'a>(&mut self, mut bytes: &'a [u8]) -> io::Result<&'a [u8]> {
        while !matches!(self.state, State::Open) && !bytes.is_empty() {
            let missing = HEADER - self.header.len();
            let (begin, rest) = bytes.split_at(missing.min(bytes.len()));
            self.header.extend(begin);
            bytes = rest;
            if self.header.len() < HEADER {
                break;
            }
            self.open_for_this()?;
            self.to.write_all(&self.header)?;
            self.header.clear();
        }
        Ok(bytes)
    }

    /// Takes the disk over if the request at hand wants that.
    fn open_for_this(&mut self) -> io::Result<()> {
        if !self.header.starts_with(&MAGIC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an NBD request that is none"));
        }
        if self.header.get(6..8).is_some_and(|kind| kind == READ || kind == DISCONNECT) {
            return Ok(());
        }
        match std::mem::replace(&mut self.state, State::Shut) {
            State::Closed(take_over) => take_over()?,
            State::Open => {}
            State::Shut => return Err(io::ErrorKind::PermissionDenied.into()),
        }
        self.state = State::Open;
        Ok(())
    }
}

impl<W: Write, F: FnOnce() -> io::Result<()>> Write for Gate<W, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let rest = self.look(bytes)?;
        self.to.write_all(rest)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const WRITE: u16 = 1;

    fn request(kind: u16, length: u32) -> Vec<u8> {
        [&MAGIC[..], &[0, 1], &kind.to_be_bytes(), &[9; 8], &[0; 8], &length.to_be_bytes()].concat()
    }

    /// What passes of `said`, told in pieces of `piece` bytes, and how much of it before the disk was taken over.
    fn passes(said: &[u8], piece: usize) -> (Vec<u8>, Option<usize>) {
        let (passed, taken) = (std::cell::RefCell::new(Vec::new()), Cell::new(None));
        struct To<'a>(&'a std::cell::RefCell<Vec<u8>>);
        impl Write for To<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.borrow_mut().extend(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let take_over = || {
            taken.set(Some(passed.borrow().len()));
            Ok(())
        };
        let mut gate = Gate::new(To(&passed), Some(take_over));
        for piece in said.chunks(piece) {
            gate.write_all(piece).unwrap();
        }
        drop(gate);
        (passed.into_inner(), taken.get())
    }

    #[test]
    fn reads_pass_and_the_first_write_takes_over_before_any_of_it_passes() {
        let reads = [request(0, 4096), request(0, 512)].concat();
        let said = [&reads[..], &request(WRITE, 512), &[0xab; 512], &request(0, 512), &request(3, 0)].concat();
        for piece in [1, 5, 27, 28, 29, 56, 57, 100, said.len()] {
            let (passed, taken) = passes(&said, piece);
            assert_eq!(passed, said, "pieces of {piece} bytes");
            assert_eq!(taken, Some(reads.len()), "pieces of {piece} bytes");
        }
    }

    #[test]
    fn whatever_is_no_read_takes_over() {
        for kind in 1..=u16::MAX {
            let taken = passes(&request(kind, 0), HEADER).1;
            assert_eq!(taken.is_some(), kind != 2, "request {kind}");
        }
    }

    #[test]
    fn nothing_of_a_request_passes_that_may_not_take_over() {
        let said = [request(0, 512), request(WRITE, 4), vec![1; 4]].concat();
        let mut passed = Vec::new();
        let mut gate = Gate::new(&mut passed, Some(|| Err(io::ErrorKind::PermissionDenied.into())));
        assert!(gate.write_all(&said).is_err());
        gate.header.clear();
        assert!(gate.write_all(&request(WRITE, 0)).is_err(), "nor later");
        assert_eq!(passed, request(0, 512));
    }

    #[test]
    fn what_is_no_request_does_not_pass() {
        let mut passed = Vec::new();
        let mut gate = Gate::new(&mut passed, Some(|| Ok(())));
        assert!(gate.write_all(&[0x25; 64]).is_err());
        assert!(passed.is_empty());
    }
}

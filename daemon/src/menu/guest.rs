//! The console of a VM, as bytes: one end of a socket pair whose other end was given to the supervisor with the question. It answers
//! in one line, [`GO`] or why not; what follows is the guest's, both ways, until one of them hangs up.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use console::FromGuest;

use crate::streams::GO;

/// Bytes of the answer.
const ANSWER_BYTES: usize = 1024;
/// Bytes that were typed and may wait for a guest that does not take them; what is typed beyond them is lost.
const TYPED_BYTES: usize = 4096;

/// The connection.
#[derive(Debug)]
pub(super) struct Guest {
    stream: UnixStream,
    /// What has come of the answer, until it is whole.
    answer: Option<Vec<u8>>,
    typed: Vec<u8>,
}

impl Guest {
    /// A new one, and the end that the supervisor is to have.
    ///
    /// # Errors
    /// The kernel has no descriptor left.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let (stream, other) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        Ok((Self { stream, answer: Some(Vec::new()), typed: Vec::new() }, other.into()))
    }

    /// The stream, to be waited on.
    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether something that was typed waits.
    pub(super) fn waits(&self) -> bool {
        !self.typed.is_empty()
    }

    /// Sends what was typed, as far as it is taken.
    pub(super) fn send(&mut self, typed: &[u8]) {
        let room = TYPED_BYTES.saturating_sub(self.typed.len());
        self.typed.extend(typed.iter().take(room));
        // A guest that is gone is met when it is read.
        if let Ok(length) = self.stream.write(&self.typed) {
            self.typed.drain(..length);
        }
    }

    /// What has come, in order. After an end there is nothing more.
    pub(super) fn read(&mut self) -> Vec<FromGuest> {
        let mut buffer = [0; 4096];
        let bytes = match self.stream.read(&mut buffer) {
            Ok(0) => return vec![FromGuest::Ended(self.end())],
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Vec::new(),
            Err(error) => return vec![FromGuest::Ended(error.to_string())],
        };
        let Some(answer) = &mut self.answer else { return vec![FromGuest::Wrote(bytes.to_vec())] };
        answer.extend_from_slice(bytes);
        let Some(end) = answer.iter().position(|byte| *byte == b'\n') else {
            let endless = answer.len() > ANSWER_BYTES;
            return endless
                .then(|| FromGuest::Ended("the supervisor speaks nonsense".to_owned()))
                .into_iter()
                .collect();
        };
        let wrote = answer.split_off(end + 1);
        if answer.trim_ascii_end() != GO.as_bytes() {
            return vec![FromGuest::Ended(self.end())];
        }
        self.answer = None;
        let wrote = (!wrote.is_empty()).then_some(FromGuest::Wrote(wrote));
        [FromGuest::Attached].into_iter().chain(wrote).collect()
    }

    /// Why there is nothing more.
    fn end(&self) -> String {
        match &self.answer {
            None => "it has ended, or is looked at elsewhere".to_owned(),
            Some(answer) if answer.is_empty() => "the supervisor did not answer".to_owned(),
            Some(answer) => String::from_utf8_lossy(answer).trim_end().to_owned(),
        }
    }
}

//! The terminal on standard input and output: every byte as it is, until it is given back.

use std::io::{self, ErrorKind, Stdin, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// The terminal; given back as it was when dropped.
#[derive(Debug)]
pub(super) struct Terminal {
    input: Stdin,
    before: Termios,
}

impl Terminal {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Standard input is no terminal.
    pub(super) fn take() -> io::Result<Self> {
        let input = io::stdin();
        let before = tcgetattr(&input)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&input, OptionalActions::Now, &raw)?;
        Ok(Self { input, before })
    }

    /// What was typed; at least one byte.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn read<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        match rustix::io::read(&self.input, &mut *buffer)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            length => Ok(buffer.get(..length).unwrap_or_default()),
        }
    }

    /// Sends bytes to the terminal.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut output = io::stdout().lock();
        output.write_all(bytes)?;
        output.flush()
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone does not need it.
        let _ = self.write(console::RESTORE.as_bytes());
        let _ = tcsetattr(&self.input, OptionalActions::Now, &self.before);
    }
}

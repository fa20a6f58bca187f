//! What is known of the console's lock. The supervisor decides: it knows the PIN, counts what was typed, and refuses whatever a
//! locked menu asks for.

use core::fmt;
use core::hint::black_box;
use core::mem::take;

use serde::{Deserialize, Serialize};

/// Characters of a PIN, at most.
pub const PIN_CHARACTERS: usize = 40;

/// How the lock of one menu stands, on a machine that has a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Whether the menu may ask for things.
    pub open: bool,
    /// How many wrong PINs were typed on this machine since the last right one.
    pub wrong: u32,
    /// How long no PIN is looked at, in seconds.
    pub wait_s: u64,
}

/// A PIN as it was typed: nothing prints it, and the memory that held it is overwritten.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin(String);

impl Pin {
    /// Nothing typed yet.
    pub(crate) fn new() -> Self {
        // So much that it never moves.
        Self(String::with_capacity(PIN_CHARACTERS))
    }

    /// What was typed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    pub(crate) fn text_mut(&mut self) -> &mut String {
        &mut self.0
    }
}

impl Clone for Pin {
    fn clone(&self) -> Self {
        let mut clone = Self::new();
        clone.0.push_str(&self.0);
        clone
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin")
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut bytes = take(&mut self.0).into_bytes();
        bytes.clear();
        bytes.resize(bytes.capacity(), 0);
        // The compiler may not take it for useless.
        black_box(&bytes);
    }
}

//! Which engine is expected: so that nobody but the device that is meant answers for it.
//!
//! The user's password alone does not say which device answers. Two power switches that know the same user are the same to
//! it, and one that has the other's address would be switched, and read back, in its place.

use core::fmt;
use std::sync::{Arc, OnceLock};

/// Octets of the longest.
const LONGEST: usize = 32;

/// The number of an engine (RFC 3411, section 5, SnmpEngineID): 5 to 32 octets, of which no two devices have the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EngineId {
    octets: [u8; LONGEST],
    length: usize,
}

impl EngineId {
    /// Of these octets; `None` if they are too few or too many.
    #[must_use]
    pub fn new(octets: &[u8]) -> Option<Self> {
        let mut id = Self { octets: [0; LONGEST], length: octets.len() };
        let place = id.octets.get_mut(..octets.len()).filter(|place| place.len() >= 5)?;
        place.copy_from_slice(octets);
        Some(id)
    }

    /// Its octets.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.octets().iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The engine that is expected of one device. All clones know the same, for as long as one of them is kept: whoever keeps
/// one from dialogue to dialogue is told if another device has come.
#[derive(Clone, Debug, Default)]
pub struct Expected(Arc<OnceLock<EngineId>>);

impl Expected {
    /// Whichever authenticates itself first, and from then on no other.
    #[must_use]
    pub fn first() -> Self {
        Self::default()
    }

    /// This one and no other.
    #[must_use]
    pub fn only(engine: EngineId) -> Self {
        Self(Arc::new(engine.into()))
    }

    /// The one that is expected, as far as it is known.
    #[must_use]
    pub fn known(&self) -> Option<EngineId> {
        self.0.get().copied()
    }

    /// This one has authenticated itself; the one that is expected since.
    pub(super) fn met(&self, engine: EngineId) -> EngineId {
        *self.0.get_or_init(|| engine)
    }
}

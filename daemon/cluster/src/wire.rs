//! Datagrams in plain text. They were authenticated before they come here; parsing is total all the same.
//!
//! A cluster is upgraded node by node, one version at a time. A node of version n takes what versions n and n + 1 say: a new
//! version adds fields only after the last one of a body, and n ignores what it does not know there. A node says in every
//! heartbeat which version it speaks at best, and speaks the lowest that those it has heard lately speak ([`common`]): what
//! only n + 1 knows (another body, another command in the log) is said when all have come to n + 1.

use serde::{Deserialize, Serialize};

use crate::hearing::{Heartbeat, KeysTold};
use crate::limits;
use crate::words::{ClusterGeneration, Edition, Identity};

/// The version of the wire format that this program speaks at best.
pub const VERSION: u8 = 4;
/// The oldest that it still speaks. Version 1 was never released.
const OLDEST: u8 = 2;
/// The first that knows editions of `cluster.toml`: nodes are added and removed by it.
pub(crate) const EDITIONS: u8 = 3;
/// The first that knows of decisions that outlive a generation.
pub(crate) const DECISIONS: u8 = 3;
/// The first that knows of rolling restarts.
pub(crate) const ROLLING: u8 = 4;
/// The first that knows of several keys of a cluster, by which a removal changes the key.
pub(crate) const KEYS: u8 = 4;
/// The first that knows nodes that are on trial.
pub(crate) const TRIALS: u8 = 4;

/// The version to speak, at `best`, with peers that speak these at best.
pub(crate) fn common(best: u8, peers: impl Iterator<Item = u8>) -> u8 {
    peers.fold(best, u8::min).max(OLDEST)
}

/// One datagram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Frame {
    /// Who speaks.
    pub(crate) from: Identity,
    /// Grows with every datagram of that identity.
    pub(crate) sequence: u64,
    /// What it says.
    pub(crate) body: Body,
}

/// What a datagram says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body {
    /// The sender lives.
    Heartbeat(Heartbeat),
    /// Form this generation.
    Form(Form),
    /// A message of the agreement.
    Agreement {
        /// Of which generation.
        generation: ClusterGeneration,
        /// For whom.
        to: Identity,
        /// The message, as the `raft` crate encodes it.
        message: Vec<u8>,
    },
    /// The text of the `cluster.toml` that the sender goes by, for a node that has another edition.
    Configuration(String),
}

impl Body {
    /// Where it tells an edition: what version 3 has added at its end.
    fn edition(&mut self) -> Option<&mut Option<Edition>> {
        match self {
            Self::Heartbeat(beat) => Some(&mut beat.edition),
            Self::Form(form) => Some(&mut form.edition),
            Self::Agreement { .. } | Self::Configuration(_) => None,
        }
    }

    /// Where it tells of keys: what version 4 has added behind that.
    fn keys(&mut self) -> Option<&mut Option<KeysTold>> {
        if let Self::Heartbeat(beat) = self { Some(&mut beat.keys) } else { None }
    }
}

/// A generation that is to be formed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Form {
    /// Its number.
    pub(crate) generation: ClusterGeneration,
    /// Who is present.
    pub(crate) present: Vec<Identity>,
    /// The edition of `cluster.toml` that they all have; `None` if it was said in a version that tells none.
    #[serde(skip)]
    pub(crate) edition: Option<Edition>,
}

/// Encodes a datagram in that version, which is one that [`common`] gave.
///
/// # Panics
/// If a heartbeat is longer than one Ethernet frame: the limits exclude it.
pub(crate) fn encode(mut frame: Frame, version: u8) -> Vec<u8> {
    let mut bytes = vec![version];
    let edition = frame.body.edition().and_then(|edition| *edition).filter(|_| version >= EDITIONS);
    let keys = frame.body.keys().and_then(|keys| *keys).filter(|_| version >= KEYS);
    let encoded = [postcard::to_allocvec(&frame), added(edition), added(keys)];
    for part in encoded {
        match part {
            Ok(part) => bytes.extend(part),
            Err(error) => panic!("a frame is plain data and always encodes: {error}"),
        }
    }
    assert!(fits(&frame, bytes.len()), "a heartbeat of {} bytes", bytes.len());
    bytes
}

/// What a newer version says behind the frame.
fn added<T: Serialize>(what: Option<T>) -> postcard::Result<Vec<u8>> {
    what.map_or(Ok(Vec::new()), |what| postcard::to_allocvec(&what))
}

/// A heartbeat is one Ethernet frame.
fn fits(frame: &Frame, bytes: usize) -> bool {
    match frame.body {
        Body::Heartbeat(_) => bytes <= limits::HEARTBEAT_BYTES,
        Body::Form(_) | Body::Agreement { .. } | Body::Configuration(_) => true,
    }
}

/// Decodes a datagram, for a program that speaks `best`.
///
/// # Errors
/// Why it is none.
pub(crate) fn decode(bytes: &[u8], best: u8) -> Result<Frame, &'static str> {
    if bytes.len() > limits::DATAGRAM_BYTES {
        return Err("too long");
    }
    let (version, rest) = match bytes.split_first() {
        Some((version, rest)) if (OLDEST..=best.saturating_add(1)).contains(version) => (*version, rest),
        Some(_) => return Err("another version of the protocol"),
        None => return Err("empty"),
    };
    let (mut frame, mut after) = postcard::take_from_bytes::<Frame>(rest).map_err(|_| "not a frame")?;
    if !fits(&frame, bytes.len()) {
        return Err("too long");
    }
    if let Some(edition) = frame.body.edition().filter(|_| version >= EDITIONS && best >= EDITIONS) {
        let (told, rest) = postcard::take_from_bytes(after).map_err(|_| "not a frame")?;
        (*edition, after) = (Some(told), rest);
    }
    if let Some(keys) = frame.body.keys().filter(|_| version >= KEYS && best >= KEYS) {
        let (told, rest) = postcard::take_from_bytes(after).map_err(|_| "not a frame")?;
        (*keys, after) = (Some(told), rest);
    }
    if after.is_empty() || version > best { Ok(frame) } else { Err("bytes after its end") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Telling;
    use crate::words::{Failing, Incarnation, Life, Mebibytes, Slot, VmName};

    /// The largest heartbeat that there can be, or one with as many more identities.
    fn heartbeat(more: usize) -> Frame {
        let slot = Slot(u8::MAX);
        let life = Life { start: u8::MAX, abandoned: u8::MAX };
        let from = Identity { slot, incarnation: Incarnation::new(u64::MAX).unwrap(), life };
        let name = |n: usize| VmName::new(&format!("{n:0width$}", width = limits::VM_NAME_BYTES)).unwrap();
        let mut telling = Telling::default();
        let beat = Heartbeat {
            speaks: u8::MAX,
            beat: u64::MAX,
            hears: vec![from; 2 * (limits::NODES - 1) + more],
            armed: Some(u32::MAX),
            generation: Some(ClusterGeneration(u64::MAX)),
            quorate: true,
            free: Some(Mebibytes(u32::MAX)),
            failing: Some(Failing::Watchdog),
            edition: Some(Edition { number: u32::MAX, sum: u32::MAX }),
            keys: Some(KeysTold { holds: u32::MAX, seals: u32::MAX }),
            part: telling.next(|| (0..limits::VMS).map(|n| (name(n), true)).collect()),
        };
        Frame { from, sequence: u64::MAX, body: Body::Heartbeat(beat) }
    }

    #[test]
    fn the_largest_heartbeat_is_one_ethernet_frame() {
        let bytes = encode(heartbeat(0), VERSION);
        assert!((1_250..=limits::HEARTBEAT_BYTES).contains(&bytes.len()), "{}", bytes.len());
        assert_eq!(decode(&bytes, VERSION), Ok(heartbeat(0)));
    }

    #[test]
    #[should_panic(expected = "a heartbeat of")]
    fn a_larger_heartbeat_is_never_sent() {
        encode(heartbeat(40), VERSION);
    }

    #[test]
    fn a_larger_heartbeat_is_not_taken() {
        let mut bytes = vec![VERSION];
        bytes.extend(postcard::to_allocvec(&heartbeat(40)).unwrap());
        assert_eq!(decode(&bytes, VERSION), Err("too long"));
    }

    #[test]
    fn the_next_version_is_understood_and_what_it_adds_is_ignored() {
        let mut next = encode(heartbeat(0), VERSION);
        next[0] = VERSION + 1;
        next.extend(*b"a field of the next version");
        assert_eq!(decode(&next, VERSION), Ok(heartbeat(0)));
        next[0] = VERSION + 2;
        assert_eq!(decode(&next, VERSION), Err("another version of the protocol"));
        next[0] = VERSION;
        assert_eq!(decode(&next, VERSION), Err("bytes after its end"));
    }

    #[test]
    fn version_2_tells_no_edition_and_understands_what_version_3_says() {
        let mut untold = heartbeat(0);
        *untold.body.keys().unwrap() = None;
        let third = untold.clone();
        *untold.body.edition().unwrap() = None;
        let old = encode(heartbeat(0), 2);
        assert_eq!(decode(&old, 2), Ok(untold.clone()));
        assert_eq!(decode(&old, 3), Ok(untold.clone()));
        assert_eq!(decode(&encode(heartbeat(0), 3), 2), Ok(untold));
        assert_eq!(decode(&encode(heartbeat(0), 3), 4), Ok(third.clone()), "version 3 tells no keys");
        assert_eq!(decode(&encode(heartbeat(0), 4), 3), Ok(third));
        let text = Frame { body: Body::Configuration("[cluster]".to_owned()), ..heartbeat(0) };
        assert_eq!(decode(&encode(text.clone(), 3), 3), Ok(text));
    }

    #[test]
    fn all_speak_the_lowest_version_that_is_heard() {
        let rows = [(vec![], VERSION), (vec![VERSION + 1; 3], VERSION), (vec![VERSION, VERSION + 1], VERSION)];
        for (peers, spoken) in rows {
            assert_eq!(common(VERSION, peers.clone().into_iter()), spoken, "{peers:?}");
        }
        assert_eq!(common(VERSION, [0].into_iter()), OLDEST, "what this program cannot speak it does not try to");
    }

    #[test]
    fn a_frame_survives_and_anything_else_is_an_error() {
        let edition = Some(Edition { number: 7, sum: 1 });
        let form = Form { generation: ClusterGeneration(7), present: vec![Identity::absent(Slot(3))], edition };
        let frame = Frame { from: Identity::absent(Slot(1)), sequence: 9, body: Body::Form(form) };
        let bytes = encode(frame.clone(), VERSION);
        assert_eq!(decode(&bytes, VERSION), Ok(frame));
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], VERSION).is_err());
        }
        assert_eq!(decode(&[bytes.clone(), vec![0]].concat(), VERSION), Err("bytes after its end"));
        assert_eq!(decode(&[1, 0, 0], VERSION), Err("another version of the protocol"));
        assert_eq!(decode(&vec![VERSION; limits::DATAGRAM_BYTES + 1], VERSION), Err("too long"));
    }
}

//! Datagrams in plain text. They were authenticated before they come here; parsing is total all the same.

use serde::{Deserialize, Serialize};

use crate::hearing::Heartbeat;
use crate::limits;
use crate::words::{ClusterGeneration, Identity};

/// The version of the wire format. Another version is refused.
const VERSION: u8 = 2;

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
}

/// A generation that is to be formed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Form {
    /// Its number.
    pub(crate) generation: ClusterGeneration,
    /// Who is present.
    pub(crate) present: Vec<Identity>,
}

/// Encodes a datagram.
///
/// # Panics
/// If a heartbeat is longer than one Ethernet frame: the limits exclude it.
pub(crate) fn encode(frame: &Frame) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    match postcard::to_allocvec(frame) {
        Ok(rest) => bytes.extend(rest),
        Err(error) => panic!("a frame is plain data and always encodes: {error}"),
    }
    assert!(fits(frame, bytes.len()), "a heartbeat of {} bytes", bytes.len());
    bytes
}

/// A heartbeat is one Ethernet frame.
fn fits(frame: &Frame, bytes: usize) -> bool {
    match frame.body {
        Body::Heartbeat(_) => bytes <= limits::HEARTBEAT_BYTES,
        Body::Form(_) | Body::Agreement { .. } => true,
    }
}

/// Decodes a datagram.
///
/// # Errors
/// Why it is none.
pub(crate) fn decode(bytes: &[u8]) -> Result<Frame, &'static str> {
    if bytes.len() > limits::DATAGRAM_BYTES {
        return Err("too long");
    }
    match bytes.split_first() {
        Some((&VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((frame, [])) if fits(&frame, bytes.len()) => Ok(frame),
            Ok((_, [])) => Err("too long"),
            Ok(_) => Err("bytes after its end"),
            Err(_) => Err("not a frame"),
        },
        Some(_) => Err("another version of the protocol"),
        None => Err("empty"),
    }
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
            beat: u64::MAX,
            hears: vec![from; 2 * (limits::NODES - 1) + more],
            armed: Some(u32::MAX),
            generation: Some(ClusterGeneration(u64::MAX)),
            quorate: true,
            free: Some(Mebibytes(u32::MAX)),
            failing: Some(Failing::Watchdog),
            part: telling.next(|| (0..limits::VMS).map(|n| (name(n), true)).collect()),
        };
        Frame { from, sequence: u64::MAX, body: Body::Heartbeat(beat) }
    }

    #[test]
    fn the_largest_heartbeat_is_one_ethernet_frame() {
        let bytes = encode(&heartbeat(0));
        assert!((1_250..=limits::HEARTBEAT_BYTES).contains(&bytes.len()), "{}", bytes.len());
        assert_eq!(decode(&bytes), Ok(heartbeat(0)));
    }

    #[test]
    #[should_panic(expected = "a heartbeat of")]
    fn a_larger_heartbeat_is_never_sent() {
        encode(&heartbeat(40));
    }

    #[test]
    fn a_larger_heartbeat_is_not_taken() {
        let mut bytes = vec![VERSION];
        bytes.extend(postcard::to_allocvec(&heartbeat(40)).unwrap());
        assert_eq!(decode(&bytes), Err("too long"));
    }

    #[test]
    fn a_frame_survives_and_anything_else_is_an_error() {
        let form = Form { generation: ClusterGeneration(7), present: vec![Identity::absent(Slot(3))] };
        let frame = Frame { from: Identity::absent(Slot(1)), sequence: 9, body: Body::Form(form) };
        let bytes = encode(&frame);
        assert_eq!(decode(&bytes), Ok(frame));
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err());
        }
        assert_eq!(decode(&[bytes.clone(), vec![0]].concat()), Err("bytes after its end"));
        assert_eq!(decode(&[1, 0, 0]), Err("another version of the protocol"));
        assert_eq!(decode(&vec![VERSION; limits::DATAGRAM_BYTES + 1]), Err("too long"));
    }
}

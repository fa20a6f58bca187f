//! Datagrams in plain text. They were authenticated before they come here; parsing is total all the same.

use serde::{Deserialize, Serialize};

use crate::hearing::Heartbeat;
use crate::limits;
use crate::words::{ClusterGeneration, Identity};

/// The version of the wire format. Another version is refused with its number.
const VERSION: u8 = 1;

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
pub(crate) fn encode(frame: &Frame) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    match postcard::to_allocvec(frame) {
        Ok(rest) => bytes.extend(rest),
        Err(error) => panic!("a frame is plain data and always encodes: {error}"),
    }
    bytes
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
            Ok((frame, [])) => Ok(frame),
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
    use crate::words::Slot;

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
        assert_eq!(decode(&[2, 0, 0]), Err("another version of the protocol"));
        assert_eq!(decode(&vec![VERSION; limits::DATAGRAM_BYTES + 1]), Err("too long"));
    }
}

//! The seal of a datagram: XChaCha20-Poly1305 under a key that only members hold (RFC 8439;
//! draft-irtf-cfrg-xchacha-03), with a random nonce of 192 bits, so that no two lives of a node need to agree on one.
//!
//! The seal proves that a member made the datagram, not when: freshness is the core's business.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::keys::Ring;
use crate::secrets::Key;

/// What every datagram begins with: whose it is, and the version of the seal.
const MAGIC: [u8; 4] = *b"HFD\x01";
const NONCE_BYTES: usize = 24;

/// Seals by one key, and opens by all that are held; the gateway opens by those too that it is about to hold.
#[derive(Clone)]
pub(crate) struct Seal {
    close: XChaCha20Poly1305,
    open: Vec<(u32, XChaCha20Poly1305)>,
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.derive("holdfast datagram 1").bytes().into())
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// The seal of whoever holds these keys, and seals by the one of that number.
    pub(crate) fn new(keys: &Ring, number: u32) -> Self {
        let open = keys.all().cloned().chain(keys.ahead()).map(|(number, key)| (number, cipher(&key))).collect();
        Self { close: cipher(keys.key(number)), open }
    }

    /// A sealed datagram.
    ///
    /// # Panics
    /// If the kernel gives no random numbers: then nothing may be sent.
    pub(crate) fn close(&self, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        let drawn = getrandom(&mut nonce, GetRandomFlags::empty());
        assert_eq!(drawn, Ok(NONCE_BYTES), "no random numbers");
        let Ok(sealed) = self.close.encrypt(XNonce::from_slice(&nonce), Payload { msg: plain, aad: &MAGIC }) else {
            panic!("a datagram is far shorter than the cipher's limit");
        };
        [&MAGIC[..], &nonce, &sealed].concat()
    }

    /// The plain text, and the number of the key; `None` if no member sealed it.
    pub(crate) fn open(&self, datagram: &[u8]) -> Option<(u32, Vec<u8>)> {
        let rest = datagram.strip_prefix(&MAGIC)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES)?;
        let open = |cipher: &XChaCha20Poly1305| {
            cipher.decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: &MAGIC }).ok()
        };
        self.open.iter().find_map(|(number, cipher)| Some((*number, open(cipher)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::tests_ring;
    use crate::secrets;

    #[test]
    fn only_the_whole_datagram_of_a_member_opens() {
        let seal = Seal::new(&tests_ring(1), 1);
        let sealed = seal.close(b"alive");
        assert_eq!(seal.open(&sealed), Some((1, b"alive".to_vec())));
        assert_ne!(seal.close(b"alive"), sealed, "no nonce twice");
        assert_eq!(Seal::new(&tests_ring(2), 1).open(&sealed), None, "another cluster's key");
        for length in 0..sealed.len() {
            assert_eq!(seal.open(&sealed[..length]), None);
        }
        for at in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[at] ^= 1;
            assert_eq!(seal.open(&forged), None, "byte {at}");
        }
    }

    #[test]
    fn what_a_node_seals_the_gateway_opens_by_whichever_key_and_other_nodes_by_theirs() {
        let gateway = Seal::new(&tests_ring(1), 1);
        let node = |number: u32| {
            let root = secrets::tests_key(1);
            let (_, key) = Ring::new(root, None, number).newest().clone();
            Seal::new(&Ring::new(key, Some(number), 1), number)
        };
        for number in [1, 2, 17] {
            assert_eq!(gateway.open(&node(number).close(b"alive")), Some((number, b"alive".to_vec())));
        }
        assert_eq!(gateway.open(&node(18).close(b"alive")), None);
        assert_eq!(node(2).open(&node(1).close(b"alive")), None, "an old key opens nothing");
        assert_eq!(node(1).open(&node(2).close(b"alive")), None, "and who has it hears nothing");
        assert_eq!(node(2).open(&gateway.close(b"alive")), None);
    }
}

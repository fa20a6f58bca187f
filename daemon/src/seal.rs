//! The seal of a datagram: XChaCha20-Poly1305 under a key that only members hold (RFC 8439;
//! draft-irtf-cfrg-xchacha-03), with a random nonce of 192 bits, so that no two lives of a node need to agree on one.
//!
//! The seal proves that a member made the datagram, not when: freshness is the core's business.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::secrets::Key;

/// What every datagram begins with: whose it is, and the version of the seal.
const MAGIC: [u8; 4] = *b"HFD\x01";
const NONCE_BYTES: usize = 24;

/// Seals and opens.
pub(crate) struct Seal(XChaCha20Poly1305);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// The seal of the cluster that holds this key.
    pub(crate) fn new(cluster_key: &Key) -> Self {
        Self(XChaCha20Poly1305::new(cluster_key.derive("holdfast datagram 1").bytes().into()))
    }

    /// A sealed datagram.
    ///
    /// # Panics
    /// If the kernel gives no random numbers: then nothing may be sent.
    pub(crate) fn close(&self, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        let drawn = getrandom(&mut nonce, GetRandomFlags::empty());
        assert_eq!(drawn, Ok(NONCE_BYTES), "no random numbers");
        let Ok(sealed) = self.0.encrypt(XNonce::from_slice(&nonce), Payload { msg: plain, aad: &MAGIC }) else {
            panic!("a datagram is far shorter than the cipher's limit");
        };
        [&MAGIC[..], &nonce, &sealed].concat()
    }

    /// The plain text; `None` if no member sealed it.
    pub(crate) fn open(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let rest = datagram.strip_prefix(&MAGIC)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES)?;
        self.0.decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: &MAGIC }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::tests_key;

    #[test]
    fn only_the_whole_datagram_of_a_member_opens() {
        let seal = Seal::new(&tests_key(1));
        let sealed = seal.close(b"alive");
        assert_eq!(seal.open(&sealed).as_deref(), Some(&b"alive"[..]));
        assert_ne!(seal.close(b"alive"), sealed, "no nonce twice");
        assert_eq!(Seal::new(&tests_key(2)).open(&sealed), None, "another cluster's key");
        for length in 0..sealed.len() {
            assert_eq!(seal.open(&sealed[..length]), None);
        }
        for at in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[at] ^= 1;
            assert_eq!(seal.open(&forged), None, "byte {at}");
        }
    }
}

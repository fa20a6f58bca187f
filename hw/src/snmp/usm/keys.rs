//! What is done with a user's passwords: keys, tags, and encryption (RFC 3414, sections 6 to 8 and A.2; RFC 3826).
//!
//! The primitives are RustCrypto's; here is how the RFCs put them together.

use aes::Aes128;
use aes::cipher::{BlockDecrypt, BlockEncrypt, KeyInit};
use des::Des;
use hmac::digest::Digest;
use hmac::{Hmac, Mac};
use md5::Md5;
use sha1::Sha1;
use zeroize::Zeroizing;

use crate::snmp::v3::TAG_BYTES;

/// With what a user's messages are authenticated and encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// HMAC-SHA-96 and CFB128-AES-128: the AP7921B's, and what a device of today has.
    ShaAes,
    /// HMAC-MD5-96 and CBC-DES: all that the AP7921's card offers. DES is broken by whoever spends a day on it; it is
    /// better than a community in clear, and that is all that can be said for it.
    Md5Des,
}

/// What is hashed to make a key of a password, in octets.
const STRETCHED: usize = 1 << 20;
/// Octets of a salt, and of a block of DES.
const SALT_BYTES: usize = 8;
const AES_BLOCK: usize = 16;

/// Which way a cipher is used.
#[derive(Clone, Copy)]
enum Way {
    Encrypt,
    Decrypt,
}

/// The keys of a user, bound to no engine yet: as good as his passwords.
#[derive(Clone)]
pub(super) struct Master {
    protocols: Protocols,
    authentication: Zeroizing<Vec<u8>>,
    privacy: Zeroizing<Vec<u8>>,
}

/// The keys of a user at one engine. What they open is no use at another.
pub(super) struct Keys {
    protocols: Protocols,
    authentication: Zeroizing<Vec<u8>>,
    /// 16 octets at least.
    privacy: Zeroizing<Vec<u8>>,
}

impl Master {
    pub(super) fn new(protocols: Protocols, authentication: &str, privacy: &str) -> Self {
        let key = |password: &str| match protocols {
            Protocols::ShaAes => stretched::<Sha1>(password.as_bytes()),
            Protocols::Md5Des => stretched::<Md5>(password.as_bytes()),
        };
        Self { protocols, authentication: key(authentication), privacy: key(privacy) }
    }

    pub(super) fn at(&self, engine: &[u8]) -> Keys {
        let key = |master: &[u8]| match self.protocols {
            Protocols::ShaAes => localised::<Sha1>(master, engine),
            Protocols::Md5Des => localised::<Md5>(master, engine),
        };
        Keys { protocols: self.protocols, authentication: key(&self.authentication), privacy: key(&self.privacy) }
    }
}

/// A mebibyte of the password, again and again, hashed.
pub(super) fn stretched<D: Digest>(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut octets = password.iter().copied().cycle();
    let mut hash = D::new();
    let mut part = Zeroizing::new([0; 64]);
    for _ in 0..STRETCHED / part.len() {
        part.fill_with(|| octets.next().unwrap_or(0));
        hash.update(&part[..]);
    }
    Zeroizing::new(hash.finalize().to_vec())
}

/// The key for one engine.
pub(super) fn localised<D: Digest>(master: &[u8], engine: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(D::new().chain_update(master).chain_update(engine).chain_update(master).finalize().to_vec())
}

impl Keys {
    /// The tag of a message that has zeros in its place.
    pub(super) fn tag(&self, message: &[u8]) -> Option<[u8; TAG_BYTES]> {
        let tag = match self.protocols {
            Protocols::ShaAes => mac::<Hmac<Sha1>>(&self.authentication, message)?.finalize().into_bytes().to_vec(),
            Protocols::Md5Des => mac::<Hmac<Md5>>(&self.authentication, message)?.finalize().into_bytes().to_vec(),
        };
        tag.first_chunk().copied()
    }

    /// Is that the tag of this message, which has zeros in its place? Takes as long whatever the tag is.
    pub(super) fn is_tag(&self, message: &[u8], tag: &[u8; TAG_BYTES]) -> bool {
        let verified = match self.protocols {
            Protocols::ShaAes => {
                mac::<Hmac<Sha1>>(&self.authentication, message).map(|mac| mac.verify_truncated_left(tag))
            }
            Protocols::Md5Des => {
                mac::<Hmac<Md5>>(&self.authentication, message).map(|mac| mac.verify_truncated_left(tag))
            }
        };
        verified.is_some_and(|verified| verified.is_ok())
    }

    /// Encrypted, and the salt to be told with it. `counter` must never be the same twice for one key.
    pub(super) fn encrypt(&self, boots: i32, time: i32, counter: u64, plain: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let counter = counter.to_be_bytes();
        match self.protocols {
            Protocols::ShaAes => {
                let mut bytes = plain.to_vec();
                self.cfb(boots, time, &counter, Way::Encrypt, &mut bytes)?;
                Some((bytes, counter.to_vec()))
            }
            Protocols::Md5Des => {
                let [_, _, _, _, low @ ..] = counter;
                let salt = [boots.to_be_bytes(), low].concat();
                let (des, mut previous) = self.des(salt.first_chunk()?)?;
                let mut bytes = plain.to_vec();
                bytes.resize(plain.len().next_multiple_of(SALT_BYTES), 0);
                for block in bytes.as_chunks_mut().0 {
                    xor(block, &previous);
                    des.encrypt_block(block.into());
                    previous = *block;
                }
                Some((bytes, salt))
            }
        }
    }

    /// Decrypted; `None` if it cannot have been encrypted so.
    pub(super) fn decrypt(&self, boots: i32, time: i32, salt: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let salt: &[u8; SALT_BYTES] = salt.try_into().ok()?;
        let mut bytes = sealed.to_vec();
        match self.protocols {
            Protocols::ShaAes => self.cfb(boots, time, salt, Way::Decrypt, &mut bytes)?,
            Protocols::Md5Des => {
                let (des, mut previous) = self.des(salt)?;
                let (blocks, []) = bytes.as_chunks_mut() else { return None };
                for block in blocks {
                    let sealed = *block;
                    des.decrypt_block(block.into());
                    xor(block, &previous);
                    previous = sealed;
                }
            }
        }
        Some(bytes)
    }

    /// AES-128 with a feedback of whole blocks (RFC 3826, section 3.1): what is encrypted of one block is the pad's source
    /// for the next.
    fn cfb(&self, boots: i32, time: i32, salt: &[u8; SALT_BYTES], way: Way, bytes: &mut [u8]) -> Option<()> {
        let aes = Aes128::new_from_slice(self.privacy.get(..AES_BLOCK)?).ok()?;
        let start = [&boots.to_be_bytes()[..], &time.to_be_bytes(), salt].concat();
        let mut feedback = filled(&start);
        for part in bytes.chunks_mut(AES_BLOCK) {
            let mut pad = feedback;
            aes.encrypt_block((&mut pad).into());
            let before = filled(part);
            part.iter_mut().zip(&pad).for_each(|(byte, pad)| *byte ^= pad);
            feedback = match way {
                Way::Encrypt => filled(part),
                Way::Decrypt => before,
            };
        }
        Some(())
    }

    /// DES, and the block to begin its chain with.
    fn des(&self, salt: &[u8; SALT_BYTES]) -> Option<(Des, [u8; SALT_BYTES])> {
        let (key, rest) = self.privacy.split_first_chunk::<SALT_BYTES>()?;
        let mut first: [u8; SALT_BYTES] = *rest.first_chunk()?;
        xor(&mut first, salt);
        Some((Des::new(key.into()), first))
    }
}

/// A block that begins so; the last part of a message may be short, and then nothing follows that the rest matters to.
fn filled(part: &[u8]) -> [u8; AES_BLOCK] {
    let mut block = [0; AES_BLOCK];
    block.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
    block
}

fn xor(block: &mut [u8; SALT_BYTES], with: &[u8; SALT_BYTES]) {
    block.iter_mut().zip(with).for_each(|(byte, with)| *byte ^= with);
}

/// `None` is never the case: these take keys of every length.
fn mac<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Option<M> {
    Some(<M as KeyInit>::new_from_slice(key).ok()?.chain_update(message))
}

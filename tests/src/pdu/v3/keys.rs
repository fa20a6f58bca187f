//! The users of the emulated card and what is done with their passwords (RFC 3414, sections 6 to 8 and A.2; RFC 3826), with
//! the modes of RustCrypto's `cfb-mode` and `cbc`, which our driver does not use.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use aes::Aes128;
use aes::cipher::block_padding::{NoPadding, ZeroPadding};
use aes::cipher::{AsyncStreamCipher as _, BlockDecryptMut as _, BlockEncryptMut as _, KeyIvInit as _};
use des::Des;
use hmac::digest::Digest;
use hmac::{Mac as _, SimpleHmac};
use md5::Md5;
use sha1::Sha1;

/// Octets of a tag.
pub(super) const TAG_BYTES: usize = 12;

const AUTHENTICATION: &[u8] = b"apc auth passphrase";
const PRIVACY: &[u8] = b"apc crypt passphrase";

/// The hash of a user's tags and keys.
#[derive(Clone, Copy)]
enum Hash {
    Md5,
    Sha1,
}

/// How a user's messages are encrypted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cipher {
    None,
    Des,
    Aes,
}

/// A user's keys at our engine.
pub(super) struct Keys {
    hash: Hash,
    cipher: Cipher,
    authentication: Vec<u8>,
    privacy: Vec<u8>,
}

/// The user of that name.
pub(super) fn of(name: &[u8], engine: &[u8]) -> Option<&'static Keys> {
    static USERS: OnceLock<[(&[u8], Keys); 3]> = OnceLock::new();
    let users = USERS.get_or_init(|| {
        [
            (&b"apc snmp profile1"[..], Hash::Sha1, Cipher::Aes),
            (b"apc snmp profile2", Hash::Md5, Cipher::Des),
            (b"apc snmp profile3", Hash::Sha1, Cipher::None),
        ]
        .map(|(name, hash, cipher)| {
            let [authentication, privacy] = [AUTHENTICATION, PRIVACY].map(|password| match hash {
                Hash::Md5 => key::<Md5>(password, engine),
                Hash::Sha1 => key::<Sha1>(password, engine),
            });
            (name, Keys { hash, cipher, authentication, privacy })
        })
    });
    users.iter().find(|(known, _)| *known == name).map(|(_, keys)| keys)
}

/// RFC 3414, A.2: a mebibyte of the password hashed, and that with the engine between.
fn key<D: Digest>(password: &[u8], engine: &[u8]) -> Vec<u8> {
    let long: Vec<u8> = password.iter().copied().cycle().take(1 << 20).collect();
    let digest = D::digest(&long);
    D::digest([digest.as_slice(), engine, digest.as_slice()].concat()).to_vec()
}

impl Keys {
    /// Does this user encrypt?
    pub(super) fn encrypts(&self) -> bool {
        self.cipher != Cipher::None
    }

    /// The tag of a message with zeros in its place.
    pub(super) fn tag(&self, message: &[u8]) -> Vec<u8> {
        let mac = match self.hash {
            Hash::Md5 => SimpleHmac::<Md5>::new_from_slice(&self.authentication)
                .map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec()),
            Hash::Sha1 => SimpleHmac::<Sha1>::new_from_slice(&self.authentication)
                .map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec()),
        };
        mac.unwrap_or_default().into_iter().take(TAG_BYTES).collect()
    }

    /// Encrypted, and the salt.
    pub(super) fn encrypt(&self, boots: u32, time: u32, plain: &[u8]) -> Option<(Vec<u8>, [u8; 8])> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        match self.cipher {
            Cipher::None => None,
            Cipher::Aes => {
                let salt = next.to_be_bytes();
                let mut bytes = plain.to_vec();
                cfb_mode::Encryptor::<Aes128>::new_from_slices(self.aes()?, &aes_start(boots, time, &salt))
                    .ok()?
                    .encrypt(&mut bytes);
                Some((bytes, salt))
            }
            Cipher::Des => {
                let low = u32::try_from(next & u64::from(u32::MAX)).ok()?.to_be_bytes();
                let salt: [u8; 8] = [boots.to_be_bytes(), low].concat().try_into().ok()?;
                let (key, start) = self.des(&salt)?;
                let cipher = cbc::Encryptor::<Des>::new_from_slices(key, &start).ok()?;
                Some((cipher.encrypt_padded_vec_mut::<ZeroPadding>(plain), salt))
            }
        }
    }

    /// Decrypted.
    pub(super) fn decrypt(&self, boots: u32, time: u32, salt: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        match self.cipher {
            Cipher::None => None,
            Cipher::Aes => {
                let mut bytes = sealed.to_vec();
                cfb_mode::Decryptor::<Aes128>::new_from_slices(self.aes()?, &aes_start(boots, time, salt))
                    .ok()?
                    .decrypt(&mut bytes);
                Some(bytes)
            }
            Cipher::Des => {
                let (key, start) = self.des(salt)?;
                let cipher = cbc::Decryptor::<Des>::new_from_slices(key, &start).ok()?;
                cipher.decrypt_padded_vec_mut::<NoPadding>(sealed).ok()
            }
        }
    }

    fn aes(&self) -> Option<&[u8]> {
        self.privacy.get(..16)
    }

    /// The key, and the block to begin with.
    fn des(&self, salt: &[u8]) -> Option<(&[u8], Vec<u8>)> {
        let (key, rest) = self.privacy.split_at_checked(8)?;
        let start: Vec<u8> = rest.iter().zip(salt).map(|(a, b)| a ^ b).collect();
        (start.len() == 8).then_some((key, start))
    }
}

fn aes_start(boots: u32, time: u32, salt: &[u8]) -> Vec<u8> {
    [&boots.to_be_bytes()[..], &time.to_be_bytes(), salt].concat()
}

//! What rustls needs of cryptography, for one kind of connection: X25519, ChaCha20-Poly1305 with SHA-256, and certificates of
//! ECDSA on P-256. The primitives are RustCrypto's and dalek's; here is how rustls calls them.

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use curve25519_dalek::MontgomeryPoint;
use hmac::{Hmac, Mac};
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use rustix::rand::{GetRandomFlags, getrandom};
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, Nonce,
    OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm, UnsupportedOperationError,
    make_tls13_aad,
};
use rustls::crypto::hash::{self, HashAlgorithm};
use rustls::crypto::tls13::HkdfUsingHmac;
use rustls::crypto::{
    ActiveKeyExchange, CipherSuiteCommon, CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, SharedSecret,
    SupportedKxGroup, WebPkiSupportedAlgorithms, hmac as keyed,
};
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm, alg_id};
use rustls::{
    CipherSuite, ConnectionTrafficSecrets, ContentType, Error, NamedGroup, PeerMisbehaved, ProtocolVersion,
    SignatureScheme, SupportedCipherSuite, Tls13CipherSuite,
};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Octets of a tag of Poly1305.
const TAG: usize = 16;

/// Everything that is offered, and nothing else.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![SupportedCipherSuite::Tls13(&SUITE)],
        kx_groups: vec![&X25519],
        signature_verification_algorithms: ALGORITHMS,
        secure_random: &Kernel,
        key_provider: &NoKeys,
    }
}

/// How the server may prove that the certificate is its own.
pub(super) const ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[&EcdsaP256],
    mapping: &[(SignatureScheme::ECDSA_NISTP256_SHA256, &[&EcdsaP256])],
};

static SUITE: Tls13CipherSuite = Tls13CipherSuite {
    common: CipherSuiteCommon {
        suite: CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        hash_provider: &Hash,
        // RFC 8446, section 5.5: with this cipher there is no such limit.
        confidentiality_limit: u64::MAX,
    },
    hkdf_provider: &HkdfUsingHmac(&HmacSha256),
    aead_alg: &Aead,
    quic: None,
};

struct Hash;
struct Hashing(Sha256);

impl hash::Hash for Hash {
    fn start(&self) -> Box<dyn hash::Context> {
        Box::new(Hashing(Sha256::new()))
    }

    fn hash(&self, data: &[u8]) -> hash::Output {
        hash::Output::new(&Sha256::digest(data))
    }

    fn output_len(&self) -> usize {
        <Sha256 as Digest>::output_size()
    }

    fn algorithm(&self) -> HashAlgorithm {
        HashAlgorithm::SHA256
    }
}

impl hash::Context for Hashing {
    fn fork_finish(&self) -> hash::Output {
        hash::Output::new(&self.0.clone().finalize())
    }

    fn fork(&self) -> Box<dyn hash::Context> {
        Box::new(Self(self.0.clone()))
    }

    fn finish(self: Box<Self>) -> hash::Output {
        hash::Output::new(&self.0.finalize())
    }

    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
}

struct HmacSha256;
/// `None` is never the case: HMAC takes keys of every length.
struct HmacKey(Option<Hmac<Sha256>>);

impl keyed::Hmac for HmacSha256 {
    fn with_key(&self, key: &[u8]) -> Box<dyn keyed::Key> {
        Box::new(HmacKey(<Hmac<Sha256> as Mac>::new_from_slice(key).ok()))
    }

    fn hash_output_len(&self) -> usize {
        <Sha256 as Digest>::output_size()
    }
}

impl keyed::Key for HmacKey {
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> keyed::Tag {
        let mac = self.0.clone().map(|mac| middle.iter().fold(mac.chain_update(first), Mac::chain_update));
        keyed::Tag::new(&mac.map(|mac| mac.chain_update(last).finalize().into_bytes()).unwrap_or_default())
    }

    fn tag_len(&self) -> usize {
        <Sha256 as Digest>::output_size()
    }
}

struct Aead;
/// One direction of a connection. The cipher's memory is overwritten when it is dropped.
struct Direction {
    cipher: Option<ChaCha20Poly1305>,
    iv: Iv,
}

impl Direction {
    fn new(key: &AeadKey, iv: Iv) -> Box<Self> {
        Box::new(Self { cipher: ChaCha20Poly1305::new_from_slice(key.as_ref()).ok(), iv })
    }
}

impl Tls13AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Direction::new(&key, iv)
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Direction::new(&key, iv)
    }

    fn key_len(&self) -> usize {
        32
    }

    fn extract_keys(&self, _: AeadKey, _: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

impl MessageEncrypter for Direction {
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, seq: u64) -> Result<OutboundOpaqueMessage, Error> {
        let length = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(length);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&[message.typ.into()]);
        let nonce = Nonce::new(&self.iv, seq).0;
        let cipher = self.cipher.as_ref().ok_or(Error::EncryptError)?;
        let tag = cipher
            .encrypt_in_place_detached(&nonce.into(), &make_tls13_aad(length), payload.as_mut())
            .map_err(|_| Error::EncryptError)?;
        payload.extend_from_slice(&tag);
        // RFC 8446, section 5.2: it looks like data of version 1.2.
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload))
    }

    fn encrypted_payload_len(&self, length: usize) -> usize {
        length + 1 + TAG
    }
}

impl MessageDecrypter for Direction {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        seq: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let payload = &mut message.payload;
        let length = payload.len();
        let body = length.checked_sub(TAG).ok_or(Error::DecryptError)?;
        let (text, tag) = payload.split_at_mut_checked(body).ok_or(Error::DecryptError)?;
        let nonce = Nonce::new(&self.iv, seq).0;
        let cipher = self.cipher.as_ref().ok_or(Error::DecryptError)?;
        cipher
            .decrypt_in_place_detached(&nonce.into(), &make_tls13_aad(length), text, (&*tag).into())
            .map_err(|_| Error::DecryptError)?;
        payload.truncate(body);
        message.into_tls13_unpadded_message()
    }
}

#[derive(Debug)]
struct X25519;
struct Exchange {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl SupportedKxGroup for X25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut secret = Zeroizing::new([0; 32]);
        Kernel.fill(&mut secret[..])?;
        let public = MontgomeryPoint::mul_base_clamped(*secret).to_bytes();
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, theirs: &[u8]) -> Result<SharedSecret, Error> {
        let bad = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);
        let Ok(theirs) = <[u8; 32]>::try_from(theirs) else { return Err(bad) };
        let shared = Zeroizing::new(MontgomeryPoint(theirs).mul_clamped(*self.secret).to_bytes());
        // RFC 8446, section 7.4.2: a point of small order.
        if *shared == [0; 32] { Err(bad) } else { Ok(SharedSecret::from(&shared[..])) }
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

#[derive(Debug)]
struct Kernel;

impl SecureRandom for Kernel {
    fn fill(&self, octets: &mut [u8]) -> Result<(), GetRandomFailed> {
        let length = octets.len();
        // The kernel gives up to 256 octets whole.
        let drawn = getrandom(octets, GetRandomFlags::empty()).map_err(|_| GetRandomFailed)?;
        if drawn == length { Ok(()) } else { Err(GetRandomFailed) }
    }
}

#[derive(Debug)]
struct EcdsaP256;

impl SignatureVerificationAlgorithm for EcdsaP256 {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify(message, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }
}

/// We have no certificate of our own.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn rustls::sign::SigningKey>, Error> {
        Err(Error::General("this client has no key".to_owned()))
    }
}

//! `secrets.toml`: the cluster's key, and what the power switches want to hear.
//!
//! No error names a secret, nothing prints one, and the memory that held one is overwritten.

use std::collections::BTreeMap;

use blake2::digest::consts::U32;
use blake2::digest::{KeyInit, Mac};
use cluster::config::Config;
use serde::Deserialize;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A key of 256 bits for one purpose.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key for one purpose, from which nothing can be learned of this one or of the key for another (keyed BLAKE2s,
    /// RFC 7693).
    pub(crate) fn derive(&self, purpose: &str) -> Self {
        let mut mac = <blake2::Blake2sMac<U32> as KeyInit>::new(&self.0.into());
        mac.update(purpose.as_bytes());
        Self(mac.finalize().into_bytes().into())
    }
}

/// Everything secret.
#[derive(Debug)]
pub(crate) struct Secrets {
    /// What every member of the cluster holds, and nobody else.
    pub(crate) cluster_key: Key,
    communities: BTreeMap<String, Zeroizing<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster_key: Zeroizing<String>,
    #[serde(default)]
    pdu: BTreeMap<String, Pdu>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pdu {
    community: Zeroizing<String>,
}

impl Secrets {
    /// Parses the file; it must go with `config`.
    ///
    /// # Errors
    /// What is wrong and what to write instead; never a secret.
    pub(crate) fn parse(text: &str, config: &Config) -> Result<Self, String> {
        // The parser's own messages could quote the line that they speak of.
        let file: File = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            format!("secrets.toml, line {line}: write cluster_key = \"64 hexadecimal digits\" and, for each [pdu.NAME], community = \"...\"")
        })?;
        let cluster_key = parse_key(&file.cluster_key)
            .ok_or("secrets.toml: cluster_key must be 64 hexadecimal digits that are not all the same")?;
        let communities: BTreeMap<_, _> = file.pdu.into_iter().map(|(name, pdu)| (name, pdu.community)).collect();
        if let Some(pdu) = config.pdus.iter().find(|pdu| !communities.contains_key(&pdu.name)) {
            return Err(format!("secrets.toml: add [pdu.{}] with community = \"...\"", pdu.name));
        }
        Ok(Self { cluster_key, communities })
    }

    /// The SNMP community that a power switch lets write.
    pub(crate) fn community(&self, pdu: &str) -> Option<&str> {
        self.communities.get(pdu).map(|community| community.as_str())
    }
}

fn parse_key(text: &str) -> Option<Key> {
    let mut key = Key([0; 32]);
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in key.0.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    let first = text.get(..1)?;
    (!text.replace(first, "").is_empty()).then_some(key)
}

/// Any key, for the tests of whoever uses one.
#[cfg(test)]
pub(crate) fn tests_key(byte: u8) -> Key {
    Key([byte; 32])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::parse(include_str!("../cluster/src/config/good.toml")).unwrap()
    }

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn a_good_file_is_read_and_keys_of_two_purposes_differ() {
        let text = format!("cluster_key = \"{KEY}\"\n[pdu.pdu1]\ncommunity = \"private\"\n");
        let secrets = Secrets::parse(&text, &config()).unwrap();
        assert_eq!(secrets.community("pdu1"), Some("private"));
        assert_ne!(secrets.cluster_key.derive("a").bytes(), secrets.cluster_key.derive("b").bytes());
        assert!(!format!("{secrets:?}").contains("private"), "nothing prints a secret");
    }

    #[test]
    fn a_bad_file_is_refused_without_a_word_of_what_is_in_it() {
        for text in [
            String::new(),
            format!("cluster_key = \"{}\"", &KEY[1..]),
            format!("cluster_key = \"{}\"", "0".repeat(64)),
            format!("cluster_key = \"{KEY}\""),
            format!("cluster_key = \"{KEY}\"\nhunter2 = \"hunter2\""),
            "cluster_key = \"hunter2".to_owned(),
        ] {
            let error = Secrets::parse(&text, &config()).unwrap_err();
            assert!(error.starts_with("secrets.toml"), "{error}");
            assert!(!error.contains("hunter2") && !error.contains("2233"), "{error}");
        }
    }
}

//! `secrets.toml`: the cluster's key, and what the power switches want to hear.
//!
//! ```toml
//! cluster_key = "64 hexadecimal digits"   # the root of all keys; in what a node is given, a key of that number:
//! key = 1                    # never in the operator's file
//! [pdu.pdu1]                 # one for each power switch of cluster.toml
//! community = "private"      # SNMP v1: one that may write
//! v3_user = "holdfast"       # instead, where cluster.toml says snmp = "v3": a user that authenticates and encrypts
//! auth_password = "..."      # of 8 characters or more, as this
//! priv_password = "..."
//! user = "apc"               # its console: where cluster.toml names a serial line to it
//! password = "apc"
//! [ups.u1]                   # one for each UPS for which cluster.toml names a user at NUT's upsd
//! password = "..."
//! [console]                  # only if whoever stands at a machine is to type a PIN before its menu does anything
//! pin = "..."                # of 4 to 40 characters
//! ```
//!
//! Which device answers for a power switch of version 3 is no secret: `engine` in `cluster.toml`, or whichever has answered first.
//!
//! The file lies beside `cluster.toml` in `/etc/holdfast` of the gateway, where `cargo image gateway-disk --secrets FILE` puts it.
//! A node is given it when it joins (`join.rs`), with a key that was derived of the gateway's (`keys.rs`), and keeps it in `/run`
//! only: in memory.
//! No error names a secret, nothing prints one, and the memory that held one is overwritten.

use std::collections::BTreeMap;
use std::path::Path;

use blake2::digest::consts::U32;
use blake2::digest::{KeyInit, Mac};
use cluster::config::{Config, Snmp, UpsWay};
use console::PIN_CHARACTERS;
use hw::Credentials;
use hw::snmp::Access;
use hw::snmp::usm::{EngineId, Expected, NAME, PASSWORD, Protocols, Unfit, User};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::Deserialize;
use toml::Spanned;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::keys::Ring;

/// Where the file is, and where a machine that has joined has it.
pub(crate) const PLACES: [&str; 2] = ["/etc/holdfast/secrets.toml", "/run/holdfast/secrets.toml"];

/// The file's text.
///
/// # Errors
/// It cannot be read, or is not there.
pub(crate) fn text() -> Result<Zeroizing<String>, String> {
    let [medium, memory] = PLACES;
    let place = if Path::new(memory).exists() { memory } else { medium };
    std::fs::read_to_string(place).map(Zeroizing::new).map_err(|error| format!("{place}: {error}"))
}

/// Whether this machine has the file.
pub(crate) fn are_here() -> bool {
    PLACES.iter().any(|place| Path::new(place).exists())
}

/// A key of 256 bits for one purpose.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// A fresh one.
    ///
    /// # Errors
    /// The kernel gives no random numbers.
    pub(crate) fn random() -> std::io::Result<Self> {
        let mut key = Self([0; 32]);
        let drawn = getrandom(&mut key.0, GetRandomFlags::empty())?;
        if drawn == key.0.len() { Ok(key) } else { Err(std::io::Error::other("too few random numbers")) }
    }

    /// Of these bytes.
    pub(crate) fn of(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

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

/// The console's PIN, as something that what was typed can be compared with.
#[derive(Debug)]
pub(crate) struct Pin {
    key: Key,
    tag: Key,
}

impl Pin {
    /// The PIN of the cluster that holds this key.
    pub(crate) fn new(cluster_key: &Key, pin: &str) -> Self {
        let key = cluster_key.derive("holdfast console pin 1");
        Self { tag: key.derive(pin), key }
    }

    /// Whether that is the PIN; how long it takes to say so does not depend on what is typed.
    pub(crate) fn is(&self, typed: &str) -> bool {
        let mut mac = <blake2::Blake2sMac<U32> as KeyInit>::new(&self.key.0.into());
        mac.update(typed.as_bytes());
        mac.verify_slice(self.tag.bytes()).is_ok()
    }
}

/// Everything secret.
#[derive(Debug)]
pub(crate) struct Secrets {
    /// What every member of the cluster holds, and nobody else; without the key that is about to be forgotten.
    pub(crate) keys: Ring,
    /// What is to be typed at a machine before its menu does anything, if anything.
    pub(crate) pin: Option<Pin>,
    snmp: BTreeMap<String, Access>,
    pdus: BTreeMap<String, Spanned<Pdu>>,
    upses: BTreeMap<String, Ups>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    key: Option<u32>,
    cluster_key: Spanned<Zeroizing<String>>,
    #[serde(default)]
    pdu: BTreeMap<String, Spanned<Pdu>>,
    #[serde(default)]
    ups: BTreeMap<String, Ups>,
    console: Option<Console>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Console {
    pin: Zeroizing<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pdu {
    community: Option<Zeroizing<String>>,
    v3_user: Option<Zeroizing<String>>,
    auth_password: Option<Zeroizing<String>>,
    priv_password: Option<Zeroizing<String>>,
    user: Option<Zeroizing<String>>,
    password: Option<Zeroizing<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ups {
    password: Zeroizing<String>,
}

impl std::fmt::Debug for Ups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ups")
    }
}

impl std::fmt::Debug for Pdu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pdu")
    }
}

impl Secrets {
    /// Those of this machine; they must go with `config`.
    ///
    /// # Errors
    /// They are not here, or as [`Secrets::parse`].
    pub(crate) fn read(config: &Config) -> Result<Self, String> {
        Self::parse(&text()?, config)
    }

    /// Parses the file; it must go with `config`.
    ///
    /// # Errors
    /// What is wrong and what to write instead; never a secret.
    pub(crate) fn parse(text: &str, config: &Config) -> Result<Self, String> {
        let file = File::parse(text)?;
        let keys = file.ring(config.key)?;
        let pin = file.console.map(|Console { pin }| {
            let fits = (4..=PIN_CHARACTERS).contains(&pin.len()) && pin.bytes().all(|byte| byte.is_ascii_graphic());
            fits.then(|| Pin::new(&keys.newest().1, &pin)).ok_or_else(|| {
                format!(
                    "secrets.toml: the pin of [console] must be 4 to {PIN_CHARACTERS} letters, digits and signs that every \
                     keyboard has, without blanks"
                )
            })
        });
        let pin = pin.transpose()?;
        let mut snmp = BTreeMap::new();
        for pdu in &config.pdus {
            let name = &pdu.name;
            let table = file.pdu.get(name);
            let table = table.ok_or_else(|| format!("secrets.toml: add [pdu.{name}] with {}", wanted(pdu.snmp)))?;
            let secrets = table.get_ref();
            let access = secrets
                .access(pdu.snmp, pdu.engine.as_deref())
                .map_err(|why| format!("secrets.toml, line {}: [pdu.{name}] {why}", line(text, table.span().start)))?;
            snmp.insert(name.clone(), access);
            if pdu.serial.is_some() && (secrets.user.is_none() || secrets.password.is_none()) {
                return Err(format!(
                    "secrets.toml: add user = \"...\" and password = \"...\" to [pdu.{name}]: cluster.toml names its serial line"
                ));
            }
        }
        for ups in &config.upses {
            let name = &ups.name;
            let logs_in = matches!(&ups.way, UpsWay::Nut { user: Some(_), .. });
            if logs_in && !file.ups.contains_key(name) {
                return Err(format!(
                    "secrets.toml: add [ups.{name}] with password = \"...\": cluster.toml names its user"
                ));
            }
        }
        Ok(Self { keys, pin, snmp, pdus: file.pdu, upses: file.ups })
    }

    /// As whom a power switch of `cluster.toml` lets us write over SNMP.
    pub(crate) fn snmp(&self, pdu: &str) -> Option<&Access> {
        self.snmp.get(pdu)
    }

    /// Who logs in at a power switch's console.
    pub(crate) fn console(&self, pdu: &str) -> Option<Credentials> {
        let Pdu { user: Some(user), password: Some(password), .. } = self.pdus.get(pdu)?.get_ref() else { return None };
        Some(Credentials { user: user.to_string(), password: password.to_string() })
    }

    /// As whom to log in for a UPS at NUT's upsd.
    pub(crate) fn ups(&self, ups: &str, user: &str) -> Option<Credentials> {
        let password = self.upses.get(ups)?.password.to_string();
        Some(Credentials { user: user.to_owned(), password })
    }
}

impl File {
    fn parse(text: &str) -> Result<Self, String> {
        // The parser's own messages could quote the line that they speak of.
        toml::from_str(text).map_err(|error| {
            let line = line(text, error.span().map_or(0, |span| span.start));
            format!(
                "secrets.toml, line {line}: write cluster_key = \"64 hexadecimal digits\" and, for each [pdu.NAME], \
                 community = \"...\", or v3_user, auth_password and priv_password; a [console] has pin = \"...\""
            )
        })
    }

    fn ring(&self, agreed: u32) -> Result<Ring, String> {
        let key = parse_key(self.cluster_key.get_ref())
            .ok_or("secrets.toml: cluster_key must be 64 hexadecimal digits that are not all the same")?;
        Ok(Ring::new(key, self.key, agreed))
    }
}

/// The keys alone of a text, where members are to hold key `agreed`.
///
/// # Errors
/// As [`Secrets::parse`].
pub(crate) fn ring(text: &str, agreed: u32) -> Result<Ring, String> {
    File::parse(text)?.ring(agreed)
}

/// What a member is given of the gateway's text: all of it, but for the root, in whose place is the key of that number.
///
/// # Errors
/// As [`Secrets::parse`]; or it has no root.
pub(crate) fn for_member(text: &str, number: u32) -> Result<Zeroizing<String>, String> {
    let file = File::parse(text)?;
    let ring = file.ring(number)?;
    if ring.root().is_none() {
        return Err(
            "secrets.toml: take key = ... out, and write the cluster_key that the gateway has had from the first"
                .to_owned(),
        );
    }
    let (above, below) = text.split_at(file.cluster_key.span().start);
    let below = below.get(file.cluster_key.span().len()..).unwrap_or_default();
    let (line, key) = (format!("key = {number}\n"), quoted(&ring.newest().1));
    Ok(Zeroizing::new([&line, above, &key, below].concat()))
}

/// A key as it stands in the file.
pub(crate) fn quoted(key: &Key) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(68));
    text.push('"');
    for byte in key.bytes() {
        *text += &format!("{byte:02x}");
    }
    text.push('"');
    text
}

impl Pdu {
    /// As whom to write over SNMP, and to which engine if the operator has named it; or what is missing, and what to write.
    fn access(&self, snmp: Snmp, engine: Option<&[u8]>) -> Result<Access, String> {
        let protocols = match snmp {
            Snmp::V1 => {
                let community = self.community.as_ref().ok_or_else(|| format!("lacks {}", wanted(snmp)))?;
                return Ok(Access::V1(community.clone()));
            }
            Snmp::V3 => Protocols::ShaAes,
            Snmp::V3Md5Des => Protocols::Md5Des,
        };
        let (Some(user), Some(authentication), Some(privacy)) =
            (&self.v3_user, &self.auth_password, &self.priv_password)
        else {
            return Err(format!("lacks {}: cluster.toml says that it is spoken with by version 3", wanted(snmp)));
        };
        let expected = engine.and_then(EngineId::new).map_or_else(Expected::first, Expected::only);
        let user = User::new(user, authentication, privacy, protocols);
        user.map(|user| Access::V3(user, expected)).map_err(|unfit| match unfit {
            Unfit::Name => format!("has a v3_user that can be none; write one of 1 to {NAME} characters"),
            Unfit::Password => format!(
                "has an auth_password or priv_password that is too short for SNMP v3; give the power switch and this \
                 file one of {PASSWORD} characters or more (an APC takes 15 to 32)"
            ),
        })
    }
}

/// What a power switch's table must say for SNMP.
fn wanted(snmp: Snmp) -> &'static str {
    match snmp {
        Snmp::V1 => "community = \"...\"",
        Snmp::V3 | Snmp::V3Md5Des => "v3_user = \"...\", auth_password = \"...\" and priv_password = \"...\"",
    }
}

/// The line, from 1, of a place in the text.
fn line(text: &str, place: usize) -> usize {
    text.bytes().take(place).filter(|byte| *byte == b'\n').count() + 1
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
        assert!(matches!(secrets.snmp("pdu1"), Some(Access::V1(community)) if community.as_str() == "private"));
        let root = secrets.keys.root().unwrap();
        assert_ne!(root.derive("a").bytes(), root.derive("b").bytes());
        assert!(!format!("{secrets:?}").contains("private"), "nothing prints a secret");
        assert!(secrets.console("pdu1").is_none());
    }

    #[test]
    fn a_member_is_given_everything_but_the_root() {
        let text = format!("# ours\ncluster_key   = \"{KEY}\" # the root\n[pdu.pdu1]\ncommunity = \"private\"\n");
        let given = for_member(&text, 7).unwrap();
        assert!(!given.contains(KEY) && given.starts_with("key = 7\n# ours\ncluster_key   = \""), "{}", *given);
        assert!(given.ends_with("\" # the root\n[pdu.pdu1]\ncommunity = \"private\"\n"), "{}", *given);
        let (root, node) = (ring(&text, 7).unwrap(), Secrets::parse(&given, &config()).unwrap().keys);
        assert_eq!((node.newest().0, node.newest().1.bytes()), (7, root.newest().1.bytes()));
        assert_ne!(ring(&text, 8).unwrap().newest().1.bytes(), node.newest().1.bytes());
        assert!(node.root().is_none(), "it can derive no other");
        assert!(for_member(&given, 8).unwrap_err().contains("take key"));
    }

    #[test]
    fn whoever_holds_a_power_switchs_cable_must_know_how_to_log_in() {
        let text = include_str!("../cluster/src/config/good.toml");
        let serial = "address = \"10.77.0.250\"\nserial = { node = \"gateway\", device = \"ttyS2\" }";
        let config = Config::parse(&text.replace("address = \"10.77.0.250\"", serial)).unwrap();
        let text = format!("cluster_key = \"{KEY}\"\n[pdu.pdu1]\ncommunity = \"private\"\nuser = \"apc\"\n");
        let error = Secrets::parse(&text, &config).unwrap_err();
        assert!(error.contains("add user") && error.contains("[pdu.pdu1]"), "{error}");
        let secrets = Secrets::parse(&(text + "password = \"hunter2\"\n"), &config).unwrap();
        let console = secrets.console("pdu1").unwrap();
        assert_eq!((console.user.as_str(), console.password.as_str()), ("apc", "hunter2"));
        assert!(!format!("{secrets:?} {console:?}").contains("hunter2"));
    }

    #[test]
    fn version_3_wants_a_user_and_two_passwords_that_are_long_enough_and_no_community() {
        let config = |version: &str| {
            let text = include_str!("../cluster/src/config/good.toml");
            let snmp = format!("address = \"10.77.0.250\"\nsnmp = \"{version}\"");
            Config::parse(&text.replace("address = \"10.77.0.250\"", &snmp)).unwrap()
        };
        let text = |rest: &str| format!("cluster_key = \"{KEY}\"\n\n[pdu.pdu1]\n{rest}");
        let good = text("v3_user = \"us\"\nauth_password = \"hunter22\"\npriv_password = \"hunter23\"\n");
        for version in ["v3", "v3-md5-des"] {
            let secrets = Secrets::parse(&good, &config(version)).unwrap();
            let access = secrets.snmp("pdu1").unwrap();
            assert!(matches!(access, Access::V3(_, expected) if expected.known().is_none()));
            assert!(!format!("{secrets:?} {access:?}").contains("hunter"), "nothing prints a secret");
        }
        let engine = config("v3\"\nengine = \"80001f8880aa");
        let secrets = Secrets::parse(&good, &engine).unwrap();
        assert!(matches!(secrets.snmp("pdu1"), Some(Access::V3(_, expected)) if expected.known().is_some()));
        let error = Secrets::parse(&good, &config("v1")).unwrap_err();
        assert_eq!(error, "secrets.toml, line 3: [pdu.pdu1] lacks community = \"...\"");
        for (bad, remedy) in [
            (text("community = \"hunter2\"\n"), "lacks v3_user = \"...\", auth_password = \"...\" and priv_password"),
            (good.replace("auth_password", "user"), "lacks v3_user"),
            (
                good.replace("hunter22", "hunter2"),
                "too short for SNMP v3; give the power switch and this file one of 8",
            ),
            (good.replace("hunter23", "hunter2"), "too short for SNMP v3"),
            (good.replace("\"us\"", "\"\""), "write one of 1 to 32 characters"),
        ] {
            let error = Secrets::parse(&bad, &config("v3")).unwrap_err();
            assert!(error.starts_with("secrets.toml, line 3: [pdu.pdu1]") && error.contains(remedy), "{error}");
            assert!(!error.contains("hunter"), "{error}");
        }
        let error = Secrets::parse(&format!("cluster_key = \"{KEY}\""), &config("v3")).unwrap_err();
        assert!(error.contains("add [pdu.pdu1] with v3_user"), "{error}");
    }

    #[test]
    fn a_ups_with_a_user_wants_its_password() {
        let config = include_str!("../cluster/src/config/good.toml").to_owned()
            + "[[ups]]\nname = \"u1\"\nfeeds = [\"node1\"]\nnut = { address = \"10.77.0.9\", ups = \"left\", user = \"us\" }\n";
        let config = Config::parse(&config).unwrap();
        let text = format!("cluster_key = \"{KEY}\"\n[pdu.pdu1]\ncommunity = \"private\"\n");
        assert!(Secrets::parse(&text, &config).unwrap_err().contains("[ups.u1]"));
        let secrets = Secrets::parse(&format!("{text}[ups.u1]\npassword = \"hunter2\"\n"), &config).unwrap();
        assert_eq!(secrets.ups("u1", "us").unwrap().password, "hunter2");
        assert!(secrets.ups("u2", "us").is_none() && !format!("{secrets:?}").contains("hunter2"));
    }

    #[test]
    fn a_pin_is_itself_only_and_nothing_prints_it() {
        let text = |pin: &str| {
            format!("cluster_key = \"{KEY}\"\n[pdu.pdu1]\ncommunity = \"private\"\n[console]\npin = \"{pin}\"\n")
        };
        let secrets = Secrets::parse(&text("hunter2"), &config()).unwrap();
        let pin = secrets.pin.as_ref().unwrap();
        assert!(pin.is("hunter2"));
        for typed in ["", "hunter", "hunter22", "Hunter2", "hunter2\0"] {
            assert!(!pin.is(typed), "{typed}");
        }
        assert!(!Pin::new(&tests_key(1), "hunter2").tag.bytes().eq(pin.tag.bytes()), "another cluster's");
        assert!(!format!("{secrets:?}").contains("hunter"), "nothing prints a secret");
        for bad in ["123", "12 34", "12345\u{e9}", &"1".repeat(41)] {
            let error = Secrets::parse(&text(bad), &config()).unwrap_err();
            assert!(error.contains("must be 4 to 40") && !error.contains(bad), "{error}");
        }
        assert!(Secrets::parse(&text("1234").replace("pin", "ping"), &config()).unwrap_err().contains("[console] has"));
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

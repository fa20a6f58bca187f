//! Joining: how a machine that has booted from the network comes by the cluster's secrets.
//!
//! ```text
//!  the machine                                     the gateway
//!  identity.rs  who it is                          desk.rs   who is let in: who was approved, a code, a window
//!  ask.rs       asks until it is let in  --Noise-- streams   answers on the stream's port
//!  machine.rs   what it says of itself             table.rs  whom it has approved, kept on its medium
//! ```
//!
//! What a node boots carries `cluster.toml` and the gateway's public key, nothing secret. The node connects
//! (`stream/joiner.rs`), says what it is ([`Hello`]), and is told to wait until the operator lets it in, or is given
//! `secrets.toml` at once if he has done so before. It keeps them in `/run`, in memory.
//!
//! What the operator compares is a *code* of six digits: the machine shows it, the gateway does not, and he types it at a
//! menu. It is made of the handshake's hash, which binds it to this one connection, and of random bytes that the gateway
//! draws for it and says inside the encrypted channel: nobody who listens can know it, and nobody who asks can choose it.
//! After three wrong ones the machine is sent away, and comes back with another.
//!
//! A machine that is no node of its `cluster.toml` takes one of the addresses that are nobody's (`pool.rs`) and asks all the same. The
//! gateway offers it a node's place (`offer.rs`); the code then has the cluster agree to that node, and lets the machine in
//! as it. Whoever is let in is given the present `cluster.toml` too, so that nothing on any boot medium has to be written anew.
//!
//! What this does not do: firmware that boots by PXE asks nobody for a proof. Whoever can answer it before the gateway
//! does, on the cluster network, gives the machine an image of his own, which may show any code. So the code proves that the
//! machine in front of the operator is the one that asks, if it has booted this cluster's image; it cannot prove the image.
//! An identity on a disk can be copied by whoever has the disk in his hands.

use std::fmt;
use std::io;

use blake2::{Blake2s256, Digest};
use cluster::config::{Config, Mac};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secrets::{Key, Secrets};
use crate::stream::joiner::{Binding, Identity, join_key};

pub(crate) mod ask;
pub(crate) mod desk;
mod identity;
mod machine;
mod offer;
pub(crate) mod pool;
pub(crate) mod table;

/// The gateway's public key, in hexadecimal: where it is, this machine has to join unless it has the secrets.
pub(crate) const KEY: &str = "/etc/holdfast/join.key";
/// The version of what is said.
const VERSION: u8 = 2;
/// Cards that a machine may name.
const CARDS: usize = 32;
/// Characters of each of its texts.
const TEXT: usize = 48;

/// What a machine says of itself. Nothing of it is believed but what its cards are, and those only to find its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Its network cards; that of the cluster network first, as far as it knows.
    pub(crate) cards: Vec<[u8; 6]>,
    /// The node that its own `cluster.toml` takes it for; empty if for none.
    pub(crate) node: String,
    /// Its maker's serial number (SMBIOS, type 1).
    pub(crate) serial: String,
    /// Its maker's number that no other machine has (SMBIOS, type 1).
    pub(crate) uuid: String,
    /// Its processor.
    pub(crate) cpu: String,
    /// Its memory, in MiB.
    pub(crate) memory_mib: u32,
}

impl Hello {
    /// Its bytes, behind the version.
    ///
    /// # Errors
    /// Never: there is nothing in it that could not be said.
    pub(crate) fn bytes(&self) -> io::Result<Vec<u8>> {
        postcard::to_extend(self, vec![VERSION]).map_err(io::Error::other)
    }

    /// Parses them; what is too long is cut, and what could move a terminal's cursor is replaced.
    ///
    /// # Errors
    /// In words for whoever stands at that machine.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (version, rest) = bytes.split_first().ok_or("nothing was said")?;
        if *version != VERSION {
            return Err(format!("it joins by version {version}, the gateway by version {VERSION}: boot it from there"));
        }
        let mut hello: Self = postcard::from_bytes(rest).map_err(|_| "what it says of itself is not understood")?;
        hello.cards.truncate(CARDS);
        for text in [&mut hello.node, &mut hello.serial, &mut hello.uuid, &mut hello.cpu] {
            let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
            *text = text.chars().take(TEXT).map(plain).collect();
        }
        Ok(hello)
    }

    /// Its cards.
    fn macs(&self) -> Vec<Mac> {
        self.cards.iter().copied().map(Mac).collect()
    }
}

/// What the gateway tells it, one after another.
#[derive(Serialize, Deserialize)]
pub(crate) enum Told {
    /// To wait for the operator, with what its code is made of.
    Wait {
        /// Random bytes.
        salt: [u8; 32],
        /// What the operator should know, in words for whoever stands at that machine; may be empty.
        note: String,
    },
    /// It is let in: the text of `secrets.toml`.
    Secrets(Zeroizing<String>),
    /// It is sent away, and why.
    Refused(String),
    /// It is about to be let in, and this is the cluster's present `cluster.toml`: its own may be older.
    Configuration(String),
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait { note, .. } => write!(f, "Wait({note:?})"),
            Self::Secrets(_) => f.write_str("Secrets"),
            Self::Refused(reason) => write!(f, "Refused({reason:?})"),
            Self::Configuration(_) => f.write_str("Configuration"),
        }
    }
}

/// The code of a connection.
pub(crate) fn code(salt: &[u8; 32], binding: &Binding) -> String {
    let hash =
        Blake2s256::new().chain_update("holdfast join code 1").chain_update(salt).chain_update(binding).finalize();
    let number = hash.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{:06}", number % 1_000_000)
}

/// The applet `join-key CLUSTER SECRETS`: the line for [`KEY`], which `cargo image gateway-disk` puts into what nodes boot.
///
/// # Errors
/// A file that cannot be read or is refused, as the supervisor would refuse it.
pub(crate) fn public_key(arguments: &[String]) -> Result<String, String> {
    let [cluster, secrets] = arguments else { return Err("join-key CLUSTER SECRETS".to_owned()) };
    let read = |path: &String| std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let config = Config::parse(&read(cluster)?).map_err(|error| error.to_string())?;
    let secrets = Secrets::parse(&Zeroizing::new(read(secrets)?), &config)?;
    let root = secrets.keys.root().ok_or("this is what a node was given: the gateway's own secrets.toml is wanted")?;
    let identity = Identity::of(&join_key(root)).map_err(|error| error.to_string())?;
    Ok(format!("{identity}\n"))
}

/// Random bytes for a code.
///
/// # Errors
/// The kernel gives none.
pub(crate) fn salt() -> io::Result<[u8; 32]> {
    Key::random().map(|key| *key.bytes())
}

#[cfg(test)]
mod tests;

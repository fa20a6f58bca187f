//! What must not get into a bundle: every value of `secrets.toml`.
//!
//! The file itself is no piece, and nothing prints a value of it; this is the second wall. Values of eight characters and more are
//! replaced wherever they occur. Shorter ones (a PIN of four digits, `private`) are words or numbers that also occur by chance:
//! to replace those would tell them. They can stand only where an operator has put them, in the comments of `cluster.toml`, and
//! these are left out ([`without_comments`]).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use zeroize::Zeroizing;

use crate::secrets::PLACES;

/// The shortest value that is replaced, in bytes.
const SHORTEST: usize = 8;
/// What stands in its place.
const HIDDEN: &[u8] = b"[secret]";

/// What is to be replaced.
pub(super) struct Secrets(Vec<Zeroizing<Vec<u8>>>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// Those of the machine whose files are below `root`; none where it has none.
    ///
    /// # Errors
    /// They cannot be read, so that nothing could be kept out.
    pub(super) fn read(root: &Path) -> Result<Self, String> {
        let mut secrets = Vec::new();
        for place in PLACES {
            match fs::read_to_string(root.join(place.trim_start_matches('/'))).map(Zeroizing::new) {
                Ok(text) => values(&text, &mut secrets),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(format!("{place} cannot be read, so nothing could be kept out: {error}")),
            }
        }
        Ok(Self(secrets))
    }

    /// The same without any of them, whatever their letters' case.
    pub(super) fn hide(&self, bytes: Vec<u8>) -> Vec<u8> {
        self.0.iter().fold(bytes, |bytes, secret| replace(bytes, secret))
    }
}

fn replace(bytes: Vec<u8>, secret: &[u8]) -> Vec<u8> {
    let is = |window: &[u8]| window.eq_ignore_ascii_case(secret);
    if !bytes.windows(secret.len()).any(is) {
        return bytes;
    }
    let (mut without, mut rest) = (Vec::with_capacity(bytes.len()), &*bytes);
    while let Some(at) = rest.windows(secret.len()).position(is) {
        let (before, from) = rest.split_at(at);
        without.extend_from_slice(before);
        without.extend_from_slice(HIDDEN);
        rest = from.get(secret.len()..).unwrap_or_default();
    }
    without.extend_from_slice(rest);
    without
}

/// The values of a `secrets.toml`: its strings. Of one that is not understood, all that stands between quotes, and between those.
fn values(text: &str, secrets: &mut Vec<Zeroizing<Vec<u8>>>) {
    match toml::from_str(text) {
        Ok(table) => strings(toml::Value::Table(table), secrets),
        Err(_) => text.split(['"', '\'', '\n']).for_each(|part| keep(part.trim(), secrets)),
    }
}

fn strings(value: toml::Value, secrets: &mut Vec<Zeroizing<Vec<u8>>>) {
    match value {
        toml::Value::String(text) => keep(&Zeroizing::new(text), secrets),
        toml::Value::Array(values) => values.into_iter().for_each(|value| strings(value, secrets)),
        toml::Value::Table(table) => table.into_iter().for_each(|(_, value)| strings(value, secrets)),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) | toml::Value::Datetime(_) => {}
    }
}

/// A value as it is, and as JSON and TOML write it; a key in hexadecimal is also kept as its bytes.
fn keep(value: &str, secrets: &mut Vec<Zeroizing<Vec<u8>>>) {
    if value.len() < SHORTEST {
        return;
    }
    let mut keep = |bytes: Vec<u8>| secrets.push(Zeroizing::new(bytes));
    keep(value.as_bytes().to_vec());
    keep(value.replace('\\', "\\\\").replace('"', "\\\"").into_bytes());
    let pairs: Vec<_> = (0..value.len()).step_by(2).filter_map(|at| value.get(at..at + 2)).collect();
    let bytes: Result<Vec<u8>, _> = pairs.iter().map(|pair| u8::from_str_radix(pair, 16)).collect();
    if let Ok(bytes) = bytes
        && bytes.len() >= SHORTEST
    {
        keep(bytes);
    }
}

/// `cluster.toml` without its comments; the lines keep their numbers, which the refusals name.
///
/// # Errors
/// It has texts of several lines, in which it is not looked for comments.
pub(super) fn without_comments(text: &str) -> Result<String, String> {
    if text.contains("\"\"\"") || text.contains("'''") {
        return Err("left out: it has texts of several lines, so its comments cannot be told".to_owned());
    }
    let lines = text.lines().map(|line| line.get(..comment(line)).unwrap_or_default().trim_end().to_owned() + "\n");
    Ok(lines.collect())
}

/// Where in a line the comment begins: its length if there is none.
fn comment(line: &str) -> usize {
    let (mut quote, mut escaped) = (None, false);
    for (at, byte) in line.bytes().enumerate() {
        match (quote, byte) {
            (None, b'#') => return at,
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(b'"'), b'\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(open), _) if open == byte && !escaped => quote = None,
            (None | Some(_), _) => {}
        }
        escaped = false;
    }
    line.len()
}

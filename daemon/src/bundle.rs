//! The applet `bundle`: collects what is known of this machine, and writes it to a USB stick as one file.
//!
//! ```text
//! supervisor --Wanted (stdin)--> pieces --> secret --> tar --> stick --> one file
//!            <--BundleAnswer (stdout)--------------------------'
//! ```
//!
//! It is a process of its own, so that the supervisor waits for nothing and a stick that hangs hangs nobody else; the mount is
//! its own too and ends with it, whatever ends it ([`stick`]). Which pieces there are says [`pieces`]; one that cannot be read is
//! named in `index.txt` and to the operator, and the others are written nevertheless. Nothing of `secrets.toml` gets in
//! ([`secret`]). A bundle is collected whole, in memory, before anything is written.

mod disks;
mod pieces;
mod secret;
mod stick;
mod tar;
#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use console::{BundleAnswer, Written};
use serde::{Deserialize, Serialize};

use crate::calendar;
pub(crate) use disks::look;
use pieces::Piece;
use secret::Secrets;

/// The applet's name.
pub(crate) const APPLET: &str = "bundle";
/// Who holds it writes a bundle. It survives the supervisor, as this process does.
const LOCK: &str = "/run/holdfast/bundle.lock";
/// The most bytes of all pieces together.
const BUNDLE_BYTES: usize = 16 << 20;
/// What says what is in the bundle.
const INDEX: &str = "index.txt";

/// What the supervisor wants, and what only it knows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// The stick's name.
    pub(crate) stick: String,
    /// The status that the menus are told, as JSON; or why there is none.
    pub(crate) status: Result<String, String>,
    /// What the operator has decided, as it is kept; or why it is not known.
    pub(crate) decisions: Result<String, String>,
}

/// The applet.
pub(crate) fn run() -> ExitCode {
    let answer = order().map_or_else(BundleAnswer::Failed, BundleAnswer::Written);
    // Our own type: there is nothing in it that JSON could not say. Without a reader nobody waits for it.
    let said = serde_json::to_string(&answer).unwrap_or_default();
    match io::stdout().lock().write_all(said.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn order() -> Result<Written, String> {
    let text = io::read_to_string(io::stdin().lock()).map_err(|error| format!("what is wanted: {error}"))?;
    let wanted: Wanted = serde_json::from_str(&text).map_err(|error| format!("what is wanted: {error}"))?;
    let _alone = alone(Path::new(LOCK))?;
    let device = disks::usable(&wanted.stick)?;
    let root = Path::new("/");
    let secrets = Secrets::read(root)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?.as_secs();
    let bundle = pack(&name(now), pieces::collect(root, wanted), &secrets);
    let file = bundle.name + ".tar";
    stick::write(&device, c"vfat", &file, &bundle.tar)?;
    let kib = bundle.tar.len().div_ceil(1024);
    Ok(Written { file, kib: u64::try_from(kib).unwrap_or(u64::MAX), missing: bundle.missing })
}

/// A bundle that is not written yet.
#[derive(Debug)]
struct Bundle {
    /// What it is called, without an ending.
    name: String,
    tar: Vec<u8>,
    /// What is not in it or not whole, each with its reason.
    missing: Vec<String>,
}

/// What this machine's bundle of that second of UTC is called.
fn name(since_1970: u64) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let node: String = rustix::system::uname().nodename().to_string_lossy().chars().map(fit).take(63).collect();
    let at = calendar::seconds(since_1970).replace(['-', ':'], "").replace('T', "-");
    format!("holdfast-{node}-{at}")
}

/// Makes one of these pieces, and of an index of them.
fn pack(name: &str, pieces: Vec<Piece>, secrets: &Secrets) -> Bundle {
    let (mut room, mut missing, mut files) = (BUNDLE_BYTES, Vec::new(), Vec::new());
    let mut index = format!("{name}, made by Holdfast {}\n\n", env!("CARGO_PKG_VERSION"));
    for Piece { name, content, keep } in pieces {
        let mut line = match content {
            Ok(None) => {
                index = index + name + ": there is none\n";
                continue;
            }
            Ok(Some(bytes)) => {
                let mut bytes = secrets.hide(bytes);
                let cut = keep.cut(&mut bytes);
                match room.checked_sub(bytes.len()) {
                    Some(left) => {
                        index = index + &format!("{name}: {} bytes\n", bytes.len());
                        room = left;
                        files.push((name, bytes));
                        let Some(cut) = cut else { continue };
                        format!("{name}: {cut}")
                    }
                    None => format!("{name}: left out: the bundle is full"),
                }
            }
            Err(reason) => format!("{name}: not read: {reason}"),
        };
        line = String::from_utf8_lossy(&secrets.hide(line.into_bytes())).into_owned();
        index = index + &line + "\n";
        missing.push(line);
    }
    let mut tar = tar::Tar::new(name);
    tar.add(INDEX, &secrets.hide(index.into_bytes()));
    files.iter().for_each(|(name, bytes)| tar.add(name, bytes));
    Bundle { name: name.to_owned(), tar: tar.end(), missing }
}

/// Makes sure that nobody else writes a bundle now, until what is given is dropped.
fn alone(place: &Path) -> Result<File, String> {
    let file = File::create(place).map_err(|error| format!("{}: {error}", place.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err("another bundle is being written".to_owned()),
        Err(TryLockError::Error(error)) => Err(format!("{}: {error}", place.display())),
    }
}

//! What the menus ask about support bundles: sticks are looked for in a thread, and a bundle is written by a process of its own
//! ([`crate::bundle`]), which is given what only the supervisor knows, and so long.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use cluster::status::Status;
use console::{BundleAnswer, BundleRequest};
use rustix::fs::MemfdFlags;

use super::child;
use super::clock::now;
use super::decisions::PLACE;
use super::mailbox::{Post, Told};
use super::menu_link::MenuId;
use super::run::servant;
use crate::bundle::{self, Wanted};
use crate::init::HOLDFAST;

/// How long a bundle may take: a slow stick of USB 1 writes 16 MiB in half of it.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the shared file system may take to give what the operator has decided.
const READ: Duration = Duration::from_secs(5);

/// Does what a menu asks; the answer comes by `post`. `status` is what this node knows, on a machine that takes part in a cluster.
pub(super) fn ask(menu: MenuId, request: BundleRequest, status: Option<Status>, post: Post) {
    let later = post.clone();
    let asked = servant("bundle", move || {
        let answer = match request {
            BundleRequest::Look => BundleAnswer::Sticks(bundle::look()),
            BundleRequest::Write { stick } => write(stick, status).unwrap_or_else(BundleAnswer::Failed),
        };
        later.tell(Told::Bundle { menu, answer });
    });
    if let Err(error) = asked {
        post.tell(Told::Bundle { menu, answer: BundleAnswer::Failed(error) });
    }
}

fn write(stick: String, status: Option<Status>) -> Result<BundleAnswer, String> {
    let none = || "this machine takes no part in a cluster".to_owned();
    let decisions = if status.is_some() { decisions(Path::new(PLACE)) } else { Err(none()) };
    let status = status.ok_or_else(none).and_then(|status| as_json(&status));
    let mut command = Command::new(HOLDFAST);
    command.arg(bundle::APPLET).stdin(input(&as_json(&Wanted { stick, status, decisions })?)?);
    // By now it has ended, and its mount with it.
    let said = child::run(command, now() + PATIENCE).map_err(|reason| reason + ". The stick may be pulled out")?;
    serde_json::from_str(&said).map_err(|error| format!("the bundle's program: {error}"))
}

fn as_json(value: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}

/// What the operator has decided, as the shared file system keeps it. That may be held: whoever waits for it is a thread of its own.
fn decisions(place: &'static Path) -> Result<String, String> {
    let (ended, end) = mpsc::channel();
    servant("what the operator has decided", move || {
        // Nobody may be waiting any more.
        let _ = ended.send(fs::read_to_string(place));
    })?;
    let read = end.recv_timeout(READ).map_err(|_| "the shared file system does not answer".to_owned())?;
    read.map_err(|error| format!("{}: {error}", place.display()))
}

/// A text to be read from its beginning.
fn input(text: &str) -> Result<Stdio, String> {
    let made = || -> std::io::Result<File> {
        let mut file = File::from(rustix::fs::memfd_create("wanted", MemfdFlags::CLOEXEC)?);
        file.write_all(text.as_bytes())?;
        file.rewind()?;
        Ok(file)
    };
    made().map(Stdio::from).map_err(|error| error.to_string())
}

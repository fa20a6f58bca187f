//! The servant that looks at Xen: twice a second, and at once when an operation has ended. There is one, so two looks
//! never overlap. A network disk that no domain uses any more is let go by the way.

use std::collections::BTreeSet;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use cluster::event::Event;

use super::clock;
use super::mailbox::{Post, Told};
use super::storage::Disks;
use super::xen::Xen;

/// Looks for as long as somebody holds the other end of `nudges`, `pause` apart unless nudged.
pub(super) fn run(post: &Post, disks: &Disks, nudges: &Receiver<()>, pause: Duration) {
    let mut xen = None;
    let mut said = None;
    loop {
        let began = clock::now();
        match look(&mut xen) {
            Ok((seen, used)) => {
                disks.keep(began, &used);
                post.tell(Told::Seen { began, seen });
                said = None;
            }
            Err(error) => {
                xen = None;
                let text = format!("Xen cannot be asked what runs: {error}");
                if said.as_ref() != Some(&text) {
                    post.tell(Told::Said(text.clone()));
                    said = Some(text);
                }
            }
        }
        match nudges.recv_timeout(pause) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn look(xen: &mut Option<Xen>) -> io::Result<(Event, BTreeSet<String>)> {
    let xen = match xen {
        Some(xen) => xen,
        None => xen.insert(Xen::open()?),
    };
    Ok((xen.read()?, xen.disks()?))
}

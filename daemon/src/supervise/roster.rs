//! Another edition of `cluster.toml`: kept, and told to whoever goes by one.
//!
//! Every process of this boot finds it in memory; the gateway keeps it on its medium too, for everybody's next boot. That takes
//! as long as the medium takes, so a servant does it; one that fails is tried again and again. The node hears when it is
//! done, and the cluster changes nothing more before.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cluster::event::Event;
use cluster::words::{Edition, Role};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::mailbox::{Post, Told};
use super::run::servant;
use crate::roster::{self, Current};
use crate::streams::STATE;

/// Between two attempts to write to a medium.
const AGAIN: Duration = Duration::from_secs(10);

/// Has this boot's processes go by a text, and a node with that role keep it.
///
/// # Errors
/// It could not be kept in memory, or nobody can be told; in words for the operator.
pub(super) fn keep(
    edition: Edition,
    text: String,
    role: Role,
    current: &Arc<Current>,
    post: Post,
) -> Result<(), String> {
    roster::hold(&text)?;
    kill(Pid::from_raw(1), Signal::SIGHUP).map_err(|error| format!("init: {error}"))?;
    if role == Role::Node {
        post.tell(Told::Event(Event::Kept { edition }));
        return Ok(());
    }
    let current = Arc::clone(current);
    servant("keep", move || on_medium(edition, &text, &current, &post))
}

/// As the gateway: has its medium keep what this boot goes by, where a life before this one may not have come to it.
///
/// # Errors
/// No thread can be started, in words for the operator.
pub(super) fn catch_up(current: &Arc<Current>, post: Post) -> Result<(), String> {
    if !Path::new(roster::AGREED).exists() {
        return Ok(());
    }
    let (current, config) = (Arc::clone(current), current.get());
    servant("keep", move || on_medium(config.edition, &config.text, &current, &post))
}

fn on_medium(edition: Edition, text: &str, current: &Current, post: &Post) {
    let mut said = false;
    // A newer one has a servant of its own.
    while current.get().edition == edition {
        match roster::keep(Path::new(STATE), text) {
            Ok(()) => return post.tell(Told::Event(Event::Kept { edition })),
            Err(error) if !said => {
                said = true;
                post.tell(Told::Said(format!(
                    "edition {edition} of cluster.toml is not kept: {error}; it is tried again, and until then nobody comes in by it"
                )));
            }
            Err(_) => {}
        }
        thread::sleep(AGAIN);
    }
}

//! Puts the packet filter's rules into the kernel, by Debian's `nft`, before anything listens.
//!
//! A node whose kernel does not take them goes on without. What members say to each other is sealed, filter or not: the
//! filter is the second wall. A node that stood still would be lost to its VMs, and one mistake in the rules would stop every
//! node of every cluster at once. But no node goes on silently: it is said on every console, kept for the menu, and
//! tried again until it is done.

use std::fs;
use std::process::{Command, Stdio};

use super::failed;
use super::services::{OnEnd, Services, Spec};

const NFT: &str = "/usr/sbin/nft";
/// Where the rules are written for it.
const RULES: &str = "/run/holdfast/nftables.conf";

/// Loads them, now or later.
///
/// # Errors
/// They are not in force yet: with what `nft` says.
pub(super) fn load(services: &mut Services, rules: &str) -> Result<(), String> {
    replace(rules).map_err(|error| {
        let arguments = arguments();
        services.start(Spec {
            name: "packet filter".to_owned(),
            program: NFT,
            arguments,
            terminal: None,
            oom_score_adj: 0,
            on_end: OnEnd::RestartUntilDone,
            forks: None,
            socket: None,
            confined: None,
        });
        format!("NOT IN FORCE, this node answers everybody; it is tried again: {error}")
    })
}

/// Replaces them, in one step; where that fails, those from before stay in force.
///
/// # Errors
/// What `nft` says.
pub(super) fn replace(rules: &str) -> Result<(), String> {
    fs::write(RULES, rules).map_err(failed(RULES))?;
    run(&arguments())
}

fn arguments() -> Vec<String> {
    ["-f", RULES].map(str::to_owned).to_vec()
}

fn run(arguments: &[String]) -> Result<(), String> {
    let mut nft = Command::new(NFT);
    let output = nft.args(arguments).stdin(Stdio::null()).output().map_err(failed(NFT))?;
    if output.status.success() {
        return Ok(());
    }
    // Its first line says what, those behind it point at where.
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!("{NFT}: {} ({})", words.lines().next().unwrap_or_default(), output.status))
}

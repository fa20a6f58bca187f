//! What the storage costs: a disk through our path against the same `nbd-server` met directly, and how soon the shared file
//! system goes on after a crash.
//!
//! The first is measured here and now, by the daemon's own code (`daemon/src/streams/tests/bench.rs` says how). The second is
//! read from the rack's event log, as its last run has left it: from a node's proof of death to the others' running without it.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark says what it measured, or panics")]

use std::process::Command;

use holdfast_tests::rack::artefacts::rack_dir;

const CARGO: [&str; 9] = ["test", "-q", "--release", "-p", "holdfast", "--lib", "--", "--ignored", "--nocapture"];
const BENCHMARK: &str = "streams::tests::bench::io_through_our_path";

/// Which node was left out of the shared file system, and how many seconds after its proof of death.
fn recoveries(log: &str) -> Vec<(String, f64)> {
    // `123.717  gateway  shared file system: node1, node2, epoch 1`
    let parse = |line: &str| {
        let (at, rest) = line.trim().split_once(' ')?;
        let (_who, said) = rest.trim().split_once(' ')?;
        Some((at.parse::<f64>().ok()?, said.trim().to_owned()))
    };
    let lines: Vec<(f64, String)> = log.lines().filter_map(parse).collect();
    let recovery = |(number, (proven, said)): (usize, &(f64, String))| {
        let (node, _) = said.split_once(" is proven off")?;
        let members = |said: &str| said.strip_prefix("shared file system: ").map(str::to_owned);
        let mut later = lines.iter().skip(number + 1).filter_map(|(at, said)| Some((at, members(said)?)));
        let (at, _) = later.find(|(_, members)| !members.contains(node))?;
        Some((node.to_owned(), at - proven))
    };
    lines.iter().enumerate().filter_map(recovery).collect()
}

fn main() {
    // Test runners start it without: there is nothing quick to check but the reading of the log.
    let log = "1.0 node1 node2 is proven off: read\n1.2 node1 shared file system: node1, node2, epoch 1\n1.5 node1 shared file system: node1, epoch 2\n";
    assert_eq!(recoveries(log), [("node2".to_owned(), 0.5)]);
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let status = Command::new(env!("CARGO")).args(CARGO).args(["--exact", BENCHMARK]).status().unwrap();
    assert!(status.success(), "{status}");
    println!("\nFrom a node's proof of death to the shared file system running without it:");
    let log = rack_dir().join("events.log");
    match std::fs::read_to_string(&log).map(|text| recoveries(&text)).unwrap_or_default().as_slice() {
        [] => println!("no crash in {}: run cargo verify --only rack", log.display()),
        found => found.iter().for_each(|(node, seconds)| println!("{node:40} {seconds:8.3} s")),
    }
}

//! House rules that no compiler knows: purity, layers, the direction of dependencies, file sizes, and that everything
//! worth saying is said in some scenario.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test file: what is not as it should be is a failure"
)]
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Lines of a source file.
const LINES: usize = 600;

/// Which of our packages each of them may name. Dependencies point down only.
const BELOW: [(&str, &[&str]); 6] = [
    ("cluster", &[]),
    ("console", &["cluster"]),
    ("holdfast", &["cluster", "console", "hw"]),
    ("holdfast-tests", &["cluster", "console", "hw", "image"]),
    ("hw", &[]),
    ("image", &["cluster"]),
];

/// Everything that the pure crates bring with them into a program, with the reason why it may.
const PURE: [(&str, &[&str]); 7] = [
    ("ours", &["cluster", "console"]),
    (
        "wire and configuration: bytes and text to values",
        &[
            "serde",
            "serde_core",
            "serde_spanned",
            "postcard",
            "cobs",
            "thiserror",
            "toml",
            "toml_datetime",
            "toml_parser",
            "toml_writer",
            "winnow",
        ],
    ),
    ("the terminal in memory that a guest writes to", &["vt100", "vte", "arrayvec", "memchr", "itoa", "unicode-width"]),
    ("agreement, driven without IO", &["raft", "raft-proto", "fxhash", "byteorder"]),
    (
        "raft's messages; both, because the crate names the old one whatever its features",
        &["prost", "bytes", "protobuf"],
    ),
    ("raft wants a logger and gets one that discards", &["slog", "erased-serde"]),
    (
        "raft draws election timeouts, which agreement.rs overwrites after every call",
        &["rand", "rand_chacha", "rand_core", "ppv-lite86", "zerocopy", "getrandom", "libc", "cfg-if", "lazy_static"],
    ),
];

/// What may be named by no module of a pure crate.
const IMPURE: [&str; 10] = [
    "fs",
    "io",
    "os",
    "env",
    "process",
    "thread",
    "time::Instant",
    "time::SystemTime",
    "collections::Hash",
    "sync::Mutex",
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Rust source below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{} has no sources", folder.display());
    found
}

/// What cargo says.
fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).arg("--locked").current_dir(workspace()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What each package of the workspace links of the workspace, by their names.
fn ours() -> BTreeMap<String, BTreeSet<String>> {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let links = |package: &Value| {
        let local = |dependency: &&Value| dependency["path"].is_string();
        package["dependencies"].as_array().unwrap().iter().filter(local).map(name).collect()
    };
    packages.iter().map(|package| (name(package), links(package))).collect()
}

#[test]
fn dependencies_point_down() {
    let ours = ours();
    for (name, links) in &ours {
        let place = BELOW.iter().find(|(package, _)| package == name);
        let Some((_, below)) = place else { panic!("{name} has no place among the packages") };
        for link in links {
            assert!(below.contains(&link.as_str()), "{name} may not depend on {link}");
        }
    }
    assert_eq!(ours.len(), BELOW.len(), "a package is gone");
}

#[test]
fn the_pure_crates_link_nothing_impure() {
    let tree = ["tree", "--package", "console", "--edges", "normal,no-proc-macro", "--prefix", "none"];
    let tree = cargo(&[&tree[..], &["--target", "x86_64-unknown-linux-musl", "--format", "{p}"]].concat());
    let linked: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    let allowed: BTreeSet<&str> = PURE.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    let strange: Vec<_> = linked.difference(&allowed).collect();
    assert!(strange.is_empty(), "the pure crates link {strange:?}; cargo tree -p console -i NAME shows the way");
    let idle: Vec<_> = allowed.difference(&linked).collect();
    assert!(idle.is_empty(), "the list names what they link no longer: {idle:?}");
}

#[test]
fn the_pure_crates_name_nothing_impure() {
    for folder in ["daemon/cluster/src", "daemon/console/src"] {
        for file in sources(&workspace().join(folder)) {
            let text = read(&file);
            for name in IMPURE {
                assert!(!text.contains(&format!("std::{name}")), "{} names std::{name}", file.display());
            }
            assert!(!text.contains("unsafe {"), "{} is unsafe", file.display());
        }
    }
}

/// The table in the core's own documentation: a layer's name, and its modules.
fn layers() -> Vec<(String, Vec<String>)> {
    let text = read(&workspace().join("daemon/cluster/src/lib.rs"));
    let (_, table) = text.split_once("//! ```text\n").unwrap();
    let (table, _) = table.split_once("//! ```\n").unwrap();
    let layer = |line: &str| {
        let (name, modules) = line.trim_start_matches("//! ").split_once(':').unwrap();
        (name.to_owned(), modules.split(',').map(|module| module.trim().to_owned()).collect())
    };
    table.lines().map(layer).collect()
}

/// The modules of the core that a source names after `crate::`.
fn named(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for after in text.split("crate::").skip(1) {
        let group = after.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(group, _)| group);
        for path in group.map_or_else(|| vec![after], |group| group.split(',').collect()) {
            let name = path.trim().split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap_or_default();
            if !name.is_empty() {
                found.insert(name.to_owned());
            }
        }
    }
    found
}

#[test]
fn the_core_is_layered() {
    let root = workspace().join("daemon/cluster/src");
    let mut height = BTreeMap::new();
    for (at, (_, modules)) in layers().into_iter().enumerate() {
        height.extend(modules.into_iter().map(|module| (module, at)));
    }
    let mut modules = BTreeSet::new();
    for file in sources(&root) {
        let inside = file.strip_prefix(&root).unwrap().with_extension("");
        let module = inside.components().next().unwrap().as_os_str().to_str().unwrap().to_owned();
        if module == "lib" {
            continue;
        }
        let Some(own) = height.get(&module) else { panic!("{module} is in no layer of lib.rs") };
        for name in named(&read(&file)) {
            let below = height.get(&name).is_some_and(|other| other <= own);
            assert!(below, "{} names crate::{name}, which is of no layer below it", file.display());
        }
        modules.insert(module);
    }
    assert_eq!(modules, height.into_keys().collect(), "the table in lib.rs names each module once");
}

#[test]
fn no_file_is_long() {
    for folder in ["daemon", "hw", "image", "tests"] {
        for file in sources(&workspace().join(folder)) {
            let lines = read(&file).lines().count();
            assert!(lines <= LINES, "{} has {lines} lines; {LINES} is the limit", file.display());
        }
    }
}

/// The variants of `Trace` in the order of the source.
fn variants(text: &str) -> Vec<&str> {
    let (_, body) = text.split_once("pub enum Trace {\n").unwrap();
    let (body, _) = body.split_once("\n}\n").unwrap();
    body.lines().map(|line| line.trim().split(|c: char| !c.is_alphanumeric()).next().unwrap()).collect()
}

/// The texts that a variant is said with, each as what stands between its variables.
fn sayings(text: &str, variant: &str) -> Vec<Vec<String>> {
    let (_, body) = text.split_once("impl fmt::Display for Trace").unwrap();
    let arm = format!("Self::{variant}");
    let arms = body.split(&arm).skip(1).filter(|rest| rest.starts_with([' ', ',']));
    arms.map(|arm| {
        let (_, rest) = arm.split_once("write!(f, \"").unwrap();
        let (format, _) = rest.split_once('"').unwrap();
        format.split(['{', '}']).step_by(2).map(str::to_owned).collect()
    })
    .collect()
}

/// Whether a line of an event log is said with these pieces.
fn is_said(line: &str, pieces: &[String]) -> bool {
    let mut rest = line.get(20..).unwrap_or_default();
    for (at, piece) in pieces.iter().enumerate() {
        match rest.find(piece.as_str()) {
            Some(found) if at > 0 || found == 0 => rest = rest.get(found + piece.len()..).unwrap_or_default(),
            _ => return false,
        }
    }
    pieces.last().is_some_and(|last| last.is_empty() || rest.is_empty())
}

#[test]
fn everything_worth_saying_is_said_in_a_scenario() {
    let source = read(&workspace().join("daemon/cluster/src/trace.rs"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files = folder.read_dir().unwrap().map(|entry| read(&entry.unwrap().path()));
    let logs: String = files.filter_map(|file| Some(file.split_once("----\n")?.1.to_owned())).collect();
    let mut count = 0;
    let mut unsaid = Vec::new();
    for variant in variants(&source) {
        let sayings = sayings(&source, variant);
        assert!(!sayings.is_empty(), "{variant} has no text");
        count += sayings.len();
        for pieces in sayings {
            let said = logs.lines().any(|line| is_said(line, &pieces));
            if !said {
                unsaid.push(format!("{variant}: {}", pieces.join("...")));
            }
        }
    }
    assert!(count > 40, "only {count} texts were found");
    assert!(unsaid.is_empty(), "no scenario says:\n{}", unsaid.join("\n"));
}

#[test]
fn the_rules_can_be_broken() {
    assert_eq!(named("use crate::{event, node::Node}; crate::words::Slot").len(), 3);
    let text = "pub enum Trace {\n    A { x: u8 },\n    B,\n}\n\nimpl fmt::Display for Trace { Self::A { x } => \
                write!(f, \"a {x} b\"), Self::B => write!(f, \"b\") }";
    assert_eq!(variants(text), ["A", "B"]);
    let pieces = &sayings(text, "A")[0];
    assert_eq!(pieces, &["a ", " b"]);
    let line = |said: &str| format!("{:20}{said}", "");
    assert!(is_said(&line("a 7 b"), pieces));
    assert!(!is_said(&line("a 7"), pieces) && !is_said(&line("so a 7 b"), pieces));
}

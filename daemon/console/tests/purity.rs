//! The menu is pure: it depends on the core's words, the means to write its own down and a terminal in memory only, and names nothing that it would have to ask a system for.
#![expect(clippy::disallowed_methods, reason = "the test reads the sources")]

use std::fs;
use std::path::Path;

/// Modules of the standard library that do something, or that differ from run to run.
const IMPURE: [&str; 9] = ["fs", "io", "net", "os", "env", "process", "thread", "time", "sync"];

#[test]
fn it_depends_on_the_core_only() {
    let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let (_, after) = manifest.split_once("\n[dependencies]\n").unwrap();
    let dependencies: Vec<_> = after.lines().take_while(|line| !line.starts_with('[')).collect();
    // What machines that join are told of is the menu's to name, and travels as it is.
    let terminal = r#"vt100 = { version = "0.18", default-features = false }"#;
    let own = ["cluster.workspace = true", "serde.workspace = true"];
    assert_eq!(dependencies, [&own[..], &["# The terminal that guests write to.", terminal, ""]].concat());
}

#[test]
fn it_names_nothing_impure() {
    let mut files = 0;
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = fs::read_to_string(&path).unwrap();
            for module in IMPURE {
                assert!(!text.contains(&format!("std::{module}")), "{} names std::{module}", path.display());
            }
        }
    }
    assert!(files > 10, "only {files} files were looked at");
}

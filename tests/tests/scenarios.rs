//! Every scripted scenario has the event log that its file says.
#![cfg(feature = "world")]

use std::path::Path;

use holdfast_tests::{cases, world::script};

#[test]
fn scenarios() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    if let Err(wrong) = cases::check(&directory, script::run) {
        panic!("{wrong:#}");
    }
}

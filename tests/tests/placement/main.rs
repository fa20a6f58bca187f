//! Placement: every rule has a case (`tests/placement/*.txt`), and random clusters are held against an exact optimum.
#![cfg(feature = "world")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: what is not as it should be is a failure")]

use std::path::Path;

use holdfast_tests::cases;

mod language;
mod optimum;
mod random;
mod referee;

#[test]
fn every_rule_has_its_case() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("placement");
    if let Err(wrong) = cases::check(&directory, language::run) {
        panic!("{wrong:#}");
    }
}

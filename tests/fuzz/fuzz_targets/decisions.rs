//! Texts for the operator's decisions: refused, or the same when they are written and read again.
#![no_main]

use cluster::config::Decisions;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(decisions) = Decisions::parse(text) {
        assert_eq!(Decisions::parse(&decisions.to_text()).as_ref(), Ok(&decisions));
    }
});

//! Texts for a configuration: refused with a line, or one that may be relied on.
#![no_main]

use cluster::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Config::parse(text) {
        Ok(config) => {
            assert!(config.cluster_network().1 >= 8);
            assert!(config.slots().all(|(slot, node)| config.has(slot) && config.node(slot) == node));
        }
        Err(error) => assert!(error.line <= text.lines().count() + 1, "{error}"),
    }
});

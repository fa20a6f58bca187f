//! Datagrams, each behind its length in two bytes, to one node.
#![no_main]

use std::sync::{Arc, LazyLock};

use cluster::config::Config;
use cluster::event::{Actions, Event};
use cluster::node::{Boot, Node, VERSION};
use cluster::words::{Incarnation, Instant, LinkId, Slot};
use libfuzzer_sys::fuzz_target;

static CONFIG: LazyLock<Arc<Config>> = LazyLock::new(|| {
    let text = include_str!("../../../daemon/cluster/src/config/good.toml");
    Arc::new(Config::parse(text).expect("the good file is good"))
});

fuzz_target!(|data: &[u8]| {
    let boot = Boot {
        config: Arc::clone(&CONFIG),
        slot: Slot(0),
        // A byte that the fuzzer soon guesses: who does not name it is not believed.
        incarnation: Incarnation::new(1).expect("one is not zero"),
        start: 0,
        seed: 7,
        watchdog: true,
        lease: None,
        keys: (1, 1),
        version: VERSION,
    };
    let mut actions = Actions::new();
    let mut now = 0;
    let mut node = Node::new(boot, Instant::from_millis(now), &mut actions);
    let mut rest = data;
    while let Some(([high, low], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (datagram, after) = after.split_at(length);
        rest = after;
        now += 100;
        let event = Event::Heard { link: LinkId(0), datagram: datagram.to_vec() };
        node.handle(Instant::from_millis(now), event, &mut actions);
        actions.clear();
    }
    let _ = node.status(Instant::from_millis(now));
});

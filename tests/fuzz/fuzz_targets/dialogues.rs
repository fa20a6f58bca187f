//! What devices say on a stream, in pieces of which each stands behind its length: every dialogue waits or ends, whatever comes,
//! and when its time is over it leaves. A piece of no length is a silence.
#![no_main]

use hw::ap7921::{Outlet, Relay, console};
use hw::{Credentials, Dialogue, Step, nut, smart_ups};
use libfuzzer_sys::fuzz_target;

/// Nothing that a dialogue does at one moment takes as many steps.
const STEPS: usize = 1_000;

fuzz_target!(|data: &[u8]| {
    let Some((which, data)) = data.split_first() else { return };
    let credentials = Credentials { user: "apc".to_owned(), password: "apc".to_owned() };
    match which % 7 {
        0 => converse(nut::list(), data),
        1 => converse(nut::read("u1"), data),
        2 => converse(nut::force_shutdown("u1", &credentials), data),
        3 => converse(smart_ups::read(), data),
        4 => converse(smart_ups::cut_load(), data),
        5 => converse(console::status(&credentials), data),
        _ => converse(console::switch(Relay::Off, &[Outlet { number: 3, name: None }], &credentials), data),
    }
});

fn converse<D: Dialogue>(mut dialogue: D, mut data: &[u8]) {
    let mut now = 0;
    while let Some(until) = waits(&mut dialogue, now) {
        let Some((length, after)) = data.split_first() else {
            dialogue.wind_up(now);
            let _until = waits(&mut dialogue, now);
            let _outcome = dialogue.give_up();
            return;
        };
        let (piece, after) = after.split_at(usize::from(*length).min(after.len()));
        data = after;
        if piece.is_empty() {
            now = until.max(now + 1);
        } else {
            dialogue.handle(now, piece);
        }
    }
}

/// Until when it waits, if it has not ended.
fn waits<D: Dialogue>(dialogue: &mut D, now: u64) -> Option<u64> {
    for _ in 0..STEPS {
        match dialogue.poll(now) {
            Step::Send(_) => {}
            Step::Wait(until) => return Some(until),
            Step::Done(_) => return None,
        }
    }
    panic!("it sends without end");
}

//! Noise on a serial line: what it makes of a frame is cut anywhere and never longer than a frame may be, and the next frame on a
//! line that is quiet again is received.
#![no_main]

use hw::serial_frame::{LONGEST, Reader, frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|noise: Vec<Vec<u8>>| {
    let mut reader = Reader::new();
    for piece in &noise {
        assert!(reader.take(piece).iter().all(|datagram| datagram.len() <= LONGEST));
    }
    // The first one may be taken for the end of the noise.
    let good = frame(b"beat").expect("it is short");
    let heard = [reader.take(&good), reader.take(&good)].concat();
    assert_eq!(heard.last().map(Vec::as_slice), Some(b"beat".as_slice()));
});

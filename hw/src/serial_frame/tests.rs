use super::*;
use crate::snmp::Ids;

fn draw(ids: &mut Ids, below: usize) -> usize {
    usize::try_from(ids.draw()).unwrap() % below
}

/// A datagram with many zeros, or none.
fn datagram(ids: &mut Ids, length: usize) -> Vec<u8> {
    let zeros = draw(ids, 3);
    let byte = |ids: &mut Ids| match zeros {
        0 => 1 + u8::try_from(draw(ids, 255)).unwrap(),
        1 => u8::try_from(draw(ids, 256)).unwrap(),
        _ => u8::try_from(draw(ids, 2)).unwrap(),
    };
    (0..length).map(|_| byte(ids)).collect()
}

#[test]
fn the_bytes_are_those_of_the_papers() {
    assert_eq!(crc(b"123456789"), 0xcbf4_3926, "the CRC's check value");
    assert_eq!(crc(b""), 0);
    let long: Vec<u8> = (1..=254).collect();
    let cases: [(&[u8], &[u8]); 6] = [
        (&[], &[1]),
        (&[0], &[1, 1]),
        (&[0, 0], &[1, 1, 1]),
        (&[0x11, 0x22, 0, 0x33], &[3, 0x11, 0x22, 2, 0x33]),
        (&[0x11, 0, 0, 0], &[2, 0x11, 1, 1, 1]),
        (&long, &[&[0xff][..], &long, &[1]].concat()),
    ];
    for (content, stuffed) in cases {
        let mut frame = Vec::new();
        stuff(content, &mut frame);
        assert_eq!(frame, stuffed);
        assert_eq!(unstuff(stuffed).as_deref(), Some(content));
    }
    // Some leave out the empty block behind a full one.
    assert_eq!(unstuff(&[&[0xff][..], &long].concat()), Some(long));
    assert_eq!(frame(b""), None);
    assert!(Reader::new().take(&[0, 1, 1, 1, 1, 1, 0]).is_empty(), "nothing, with its CRC");
}

#[test]
fn every_length_survives_in_pieces_of_any_size() {
    let mut ids = Ids::new(1);
    let mut reader = Reader::new();
    for length in (1..600).chain([LONGEST - 1, LONGEST]) {
        let sent = datagram(&mut ids, length);
        let frame = frame(&sent).unwrap();
        assert!(!frame[1..frame.len() - 1].contains(&0));
        assert!(frame.len() <= LONGEST_FRAME + 2);
        let came: Vec<_> = frame.chunks(1 + draw(&mut ids, 40)).flat_map(|piece| reader.take(piece)).collect();
        assert_eq!(came, [sent], "length {length}");
    }
    assert_eq!(reader.broken(), 0);
    assert_eq!(frame(&[7; LONGEST + 1]), None);
}

#[test]
fn a_changed_bit_costs_its_frame_and_at_most_the_next() {
    let mut ids = Ids::new(2);
    let [first, second, third] = [20, 300, 40].map(|length| datagram(&mut ids, length));
    let frames = [&first, &second, &third].map(|datagram| frame(datagram).unwrap());
    let line = frames.concat();
    let end_of_first = frames[0].len();
    for at in 0..end_of_first * 8 {
        let mut line = line.clone();
        line[at / 8] ^= 1 << (at % 8);
        let mut reader = Reader::new();
        let came = reader.take(&line);
        assert!(came.last() == Some(&third), "bit {at}");
        assert!(came.iter().all(|datagram| [&first, &second, &third].contains(&datagram)), "bit {at}");
        // A change of the zero in front of it does not always hurt it.
        assert!(came.len() == 3 || reader.broken() > 0, "bit {at}");
        let inside = (8..(end_of_first - 1) * 8).contains(&at);
        assert!(!inside || !came.contains(&first), "bit {at}");
    }
}

#[test]
fn a_frame_that_is_cut_anywhere_does_not_harm_the_next() {
    let mut ids = Ids::new(3);
    let [first, second] = [200, 30].map(|length| datagram(&mut ids, length));
    let [cut, whole] = [&first, &second].map(|datagram| frame(datagram).unwrap());
    for at in 0..cut.len() - 1 {
        for line in [[&cut[..at], &whole].concat(), [&cut[cut.len() - at..], &whole].concat()] {
            assert_eq!(Reader::new().take(&line).concat(), second, "cut at {at}");
        }
    }
}

#[test]
fn noise_is_nothing_and_the_next_frame_is_found() {
    let mut ids = Ids::new(4);
    let mut reader = Reader::new();
    for round in 0..300 {
        let length = draw(&mut ids, 3000);
        let noise = datagram(&mut ids, length);
        assert!(reader.take(&noise).is_empty(), "round {round}");
        let sent = datagram(&mut ids, 100);
        assert_eq!(reader.take(&frame(&sent).unwrap()), [sent], "round {round}");
    }
    assert!(reader.broken() > 100);
}

#[test]
fn what_has_no_end_is_not_kept() {
    let mut reader = Reader::new();
    for _ in 0..100 {
        assert!(reader.take(&[0x55; 1000]).is_empty());
        assert!(reader.frame.capacity() <= 4 * LONGEST_FRAME);
    }
    let sent = vec![1, 0, 2];
    assert_eq!(reader.take(&frame(&sent).unwrap()), [sent]);
    assert_eq!(reader.broken(), 1);
}

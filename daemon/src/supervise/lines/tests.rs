//! Two ends of a line: a pair of pseudo-terminals, and between them a cable that can be noisy.

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::*;
use crate::keys::tests_ring;

/// The far end of a line, which never blocks, and the near end's path.
fn pair() -> (File, PathBuf) {
    let far = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&far).unwrap();
    unlockpt(&far).unwrap();
    fcntl_setfl(&far, OFlags::NONBLOCK).unwrap();
    let near = ptsname(&far, Vec::new()).unwrap().into_string().unwrap().into();
    (far.into(), near)
}

/// A line, and the far end of it.
fn line() -> (File, Lines) {
    let (far, path) = pair();
    let line = Line::new(LinkId(1), Slot(1), path);
    let mut lines = Lines { lines: vec![line], seal: Seal::new(&tests_ring(1), 1), forged: 0 };
    assert_eq!(lines.serve(Instant::from_millis(1)), Vec::<String>::new());
    (far, lines)
}

/// Carries some of what one end has written to the other; how much.
fn carry(from: &mut File, to: &mut File) -> usize {
    let mut buffer = [0; 1024];
    let length = from.read(&mut buffer).unwrap_or(0);
    to.write_all(&buffer[..length]).unwrap();
    length
}

/// Everything that comes to `lines` while the cable is at work.
fn all(cable: [&mut File; 2], from: &mut Lines, to: &mut Lines) -> Vec<Vec<u8>> {
    let mut came = Vec::new();
    let [near, far] = cable;
    loop {
        from.serve(Instant::from_millis(2));
        let carried = carry(near, far);
        came.extend(to.take().into_iter().map(|(link, plain)| {
            assert_eq!(link, LinkId(1));
            plain
        }));
        if carried == 0 && from.lines[0].is_idle() {
            return came;
        }
    }
}

#[test]
fn datagrams_go_both_ways_and_noise_is_none() {
    let ((mut here, mut one), (mut there, mut other)) = (line(), line());
    one.send(To::All, b"alive");
    one.send(To::Node(Slot(1)), b"agreed");
    one.send(To::Node(Slot(2)), b"not for whoever is at the other end");
    assert_eq!(all([&mut here, &mut there], &mut one, &mut other), [b"alive".to_vec(), b"agreed".to_vec()]);
    other.send(To::All, b"so am I");
    here.write_all(b"\xff\x00noise\x00~~").unwrap();
    assert_eq!(all([&mut there, &mut here], &mut other, &mut one), [b"so am I".to_vec()]);
    here.write_all(&frame(b"of another cluster").unwrap()).unwrap();
    assert_eq!((one.take(), one.forged()), (vec![], 1));
}

#[test]
fn a_heartbeat_gets_its_place_and_what_is_too_long_does_not_go() {
    let ((mut here, mut one), (mut there, mut other)) = (line(), line());
    // More than the kernel takes at once, and the line's backlog.
    let long = vec![7; 4_000];
    for _ in 0..20 {
        one.send(To::Node(Slot(1)), &long);
    }
    let waits = |lines: &Lines| lines.lines[0].waiting.iter().map(|frame| frame.bytes.len()).sum::<usize>();
    let (before, room) = (waits(&one), BACKLOG - waits(&one) - one.lines[0].writing.len());
    assert!(before > 0 && room < long.len(), "it is full: {before}, {room}");
    one.send(To::Node(Slot(1)), &long);
    assert_eq!(waits(&one), before, "lost");
    one.send(To::All, &vec![8; 1_400]);
    one.send(To::All, &vec![9; 5_000]);
    let came = all([&mut here, &mut there], &mut one, &mut other);
    assert_eq!(came.iter().filter(|datagram| datagram[0] == 8).count(), 1);
    assert!(came.len() > 1 && came.iter().all(|datagram| datagram[0] != 9));
}

#[test]
fn a_line_that_is_not_there_is_told_once_and_used_when_it_comes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ttyS9");
    let mut lines = Lines {
        lines: vec![Line::new(LinkId(1), Slot(1), path.clone())],
        seal: Seal::new(&tests_ring(1), 1),
        forged: 0,
    };
    let mut at = Instant::from_millis(1);
    let told = lines.serve(at);
    assert_eq!(told, [format!("serial device {} is absent", path.display())]);
    lines.send(To::All, b"lost");
    at = at + REOPEN;
    assert_eq!(lines.serve(at), Vec::<String>::new(), "it was told");
    let (far, near) = pair();
    std::os::unix::fs::symlink(near, &path).unwrap();
    assert_eq!(lines.serve(at), Vec::<String>::new(), "it is not time yet");
    assert_eq!(lines.serve(at + REOPEN), [format!("serial device {} is used again", path.display())]);
    // It is pulled out.
    drop(far);
    lines.send(To::All, b"lost");
    let told = lines.serve(at + REOPEN * 2);
    assert!(told.len() == 1 && told[0].contains("is lost"), "{told:?}");
    assert!(lines.waits().next().is_none());
}

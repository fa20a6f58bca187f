use std::net::TcpListener;
use std::os::unix::net::UnixStream;

use super::*;
use crate::carried::Counter;
use crate::keys::{Ring, tests_ring};
use crate::secrets;
use crate::streams;

fn listen() -> (TcpListener, (Ipv4Addr, u16)) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, (Ipv4Addr::LOCALHOST, port))
}

/// Any service will do.
fn pull() -> Service {
    Service::Pull { vm: "x0".to_owned(), generation: 7, by: 2 }
}

fn pair() -> (Stream, Stream) {
    let (listener, address) = listen();
    let client = thread::spawn(move || Stream::connect(address, &tests_ring(1), "lab", &pull()).unwrap());
    let (mut server, service) = Stream::accept(listener.accept().unwrap().0, &tests_ring(1), "lab").unwrap();
    assert_eq!(service, pull());
    server.answer(&Ok(())).unwrap();
    (client.join().unwrap(), server)
}

/// While the key changes a listener takes either, and whoever connects takes what the listener takes; then the old one opens nothing.
#[test]
fn during_a_change_both_keys_are_taken_and_afterwards_only_the_new_one() {
    let old = Ring::new(tests_ring(1).newest().1.clone(), Some(1), 1);
    let new = Ring::new(secrets::tests_key(1), None, 2);
    let mut changing = new.clone();
    changing.recall(tests_ring(1).newest().clone());
    let rows = [
        (&old, &changing, true),
        (&changing, &old, true),
        (&new, &changing, true),
        (&changing, &new, true),
        (&old, &new, false),
    ];
    for (at, (client, server, taken)) in rows.into_iter().enumerate() {
        let (listener, address) = listen();
        let (client, server) = (client.clone(), server.clone());
        let client = thread::spawn(move || Stream::connect(address, &client, "lab", &pull()));
        // One that is refused tries its other key.
        let accepted = listener
            .incoming()
            .flatten()
            .take(if at == 1 { 2 } else { 1 })
            .map(|tcp| Stream::accept(tcp, &server, "lab"));
        let mut accepted: Vec<_> = accepted.filter_map(Result::ok).collect();
        assert_eq!(accepted.len(), usize::from(taken), "{at}");
        accepted.iter_mut().for_each(|(stream, _)| stream.answer(&Ok(())).unwrap());
        let connected = client.join().unwrap();
        assert_eq!(
            connected.map(drop).map_err(|error| error.to_string()),
            if taken { Ok(()) } else { Err(REFUSED.to_owned()) }
        );
    }
}

#[test]
fn members_are_served_and_nobody_else() {
    for (key, cluster) in [(2, "lab"), (1, "other")] {
        let (listener, address) = listen();
        let client = thread::spawn(move || Stream::connect(address, &tests_ring(key), cluster, &pull()));
        let refused = Stream::accept(listener.accept().unwrap().0, &tests_ring(1), "lab");
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidData);
        assert!(client.join().unwrap().is_err());
    }
}

#[test]
fn a_refusal_arrives_with_its_reason() {
    let (listener, address) = listen();
    let service = pull();
    let asked = service.clone();
    let client = thread::spawn(move || Stream::connect(address, &tests_ring(1), "lab", &asked));
    let (mut server, heard) = Stream::accept(listener.accept().unwrap().0, &tests_ring(1), "lab").unwrap();
    assert_eq!(heard, service);
    server.answer(&Err(Refusal::Other("no such migration".to_owned()))).unwrap();
    assert_eq!(client.join().unwrap().unwrap_err().to_string(), "no such migration");
}

#[test]
fn garbage_and_silence_are_no_handshake() {
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 400], &[0, 0], &[]] {
        let (listener, address) = listen();
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(garbage).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(Stream::accept(listener.accept().unwrap().0, &tests_ring(1), "lab").is_err());
    }
}

/// Bytes go both ways, one direction ends before the other, and both ends know that nothing is missing.
#[test]
fn each_direction_ends_by_itself() {
    let (client, server) = pair();
    let (mut near, near_end) = UnixStream::pair().unwrap();
    let (mut far, far_end) = UnixStream::pair().unwrap();
    let pump = |stream: Stream, end: UnixStream| {
        let (from, to, close) = (end.try_clone().unwrap(), end.try_clone().unwrap(), end);
        thread::spawn(move || stream.pump(from, to, move || close.shutdown(Shutdown::Write).unwrap()))
    };
    let (one, other) = (pump(client, near_end), pump(server, far_end));
    let data: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    let sent = data.clone();
    let writer = thread::spawn(move || {
        near.write_all(&sent).unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        near.read_to_end(&mut back).unwrap();
        back
    });
    let mut received = Vec::new();
    far.read_to_end(&mut received).unwrap();
    assert!(received == data);
    far.write_all(b"thanks").unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(writer.join().unwrap(), b"thanks");
    assert!(one.join().unwrap().is_ok());
    assert!(other.join().unwrap().is_ok());
}

/// A local end that knows what was written to it at a time.
#[derive(Default)]
struct Writes(Vec<Vec<u8>>);

impl Write for Writes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_has_come_is_delivered_in_one_go_as_far_as_there_is_room() {
    let delivered = |records: &[&[u8]]| {
        let (mut client, server) = pair();
        records.iter().chain([&&b""[..]]).for_each(|record| client.send(record).unwrap());
        let all: usize = records.iter().map(|record| record.len() + TAG + 2).sum::<usize>() + TAG + 2;
        // What is more than fits into the kernel's buffer comes while it is read.
        while all < 1000 && server.tcp.peek(&mut vec![0; all]).unwrap() < all {}
        let mut writes = Writes::default();
        server.pump(io::empty(), &mut writes, || {}).unwrap();
        writes.0
    };
    assert_eq!(delivered(&[b"one, ", b"two, ", b"three"]), [b"one, two, three"]);
    let (large, half) = (vec![1; CARGO], vec![2; CARGO / 2]);
    assert_eq!(delivered(&[&large, &large]).concat(), [&large[..], &large].concat());
    assert_eq!(delivered(&[&half, &half, &half]).concat(), vec![2; CARGO / 2 * 3]);
    assert!(delivered(&[]).is_empty());
}

#[test]
fn a_cut_is_not_an_end() {
    let (client, server) = pair();
    let (mut near, end) = UnixStream::pair().unwrap();
    let (from, to) = (end.try_clone().unwrap(), end.try_clone().unwrap());
    let pump = thread::spawn(move || client.pump(from, to, move || end.shutdown(Shutdown::Both).unwrap()));
    drop(server);
    assert_eq!(near.read(&mut [0; 1]).unwrap(), 0, "the local end is closed");
    assert!(pump.join().unwrap().is_err(), "and whoever pumped is told");
}

#[test]
fn what_is_tampered_with_is_not_delivered() {
    let (mut client, mut server) = pair();
    client.send(b"one").unwrap();
    assert_eq!(*server.receive().unwrap(), b"one");
    // The same record once more: its number has passed.
    client.sent -= 1;
    client.send(b"one").unwrap();
    assert_eq!(server.receive().unwrap_err().kind(), ErrorKind::InvalidData);
}

#[test]
fn what_is_carried_to_a_local_end_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let count = directory.path().join("x0@1");
    std::fs::File::create(&count).unwrap();
    let (near, far) = pair();
    let ((ours, mut xl), (theirs, mut source)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let counter = Counter::at(&count);
    let carriers = [
        thread::spawn(move || streams::carry(near, ours, counter)),
        thread::spawn(move || streams::carry(far, theirs, Counter::unseen())),
    ];
    let sender = thread::spawn(move || {
        source.write_all(&vec![7; 1_000_003]).unwrap();
        source.shutdown(Shutdown::Write).unwrap();
        source.read_to_end(&mut Vec::new()).unwrap()
    });
    let mut received = Vec::new();
    xl.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), 1_000_003);
    // What goes the other way is not of the VM.
    xl.write_all(b"thanks").unwrap();
    xl.shutdown(Shutdown::Write).unwrap();
    assert_eq!(sender.join().unwrap(), 6);
    for carrier in carriers {
        carrier.join().unwrap().unwrap();
    }
    assert_eq!(std::fs::metadata(&count).unwrap().len(), 1_000_003);
}

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread;

use super::*;
use crate::keys::tests_ring;
use crate::secrets::tests_key;

/// The gateway's port, and what comes of the next connection to it.
fn gateway() -> (TcpListener, (Ipv4Addr, u16)) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, (Ipv4Addr::LOCALHOST, port))
}

fn accept(listener: &TcpListener) -> io::Result<Accepted> {
    Stream::accept_any(listener.accept().unwrap().0, &tests_ring(1), "lab")
}

fn public(cluster_key: u8) -> Identity {
    Identity::of(&join_key(&tests_key(cluster_key))).unwrap()
}

#[test]
fn a_machine_and_the_gateway_know_each_other() {
    let (listener, address) = gateway();
    let own = Key::random().unwrap();
    let identity = Identity::of(&own).unwrap();
    let client = thread::spawn(move || Stream::join(address, &own, &public(1), "lab").unwrap());
    let Accepted::Joiner(mut stream, who, binding) = accept(&listener).unwrap() else { panic!("no joiner") };
    let (mut client, its_binding) = client.join().unwrap();
    assert_eq!((who, binding), (identity, its_binding));
    client.tell(&"hello").unwrap();
    assert_eq!(stream.hear::<String>().unwrap(), "hello");
    assert!(stream.is_there().unwrap());
    drop(client);
    while stream.is_there().unwrap() {}
}

#[test]
fn no_two_connections_are_bound_alike() {
    let (listener, address) = gateway();
    let mut bindings = [[0; 32]; 2];
    for binding in &mut bindings {
        let own = tests_key(9);
        let client = thread::spawn(move || Stream::join(address, &own, &public(1), "lab").unwrap());
        drop(accept(&listener).unwrap());
        *binding = client.join().unwrap().1;
    }
    assert_ne!(bindings[0], bindings[1]);
}

#[test]
fn a_member_is_still_a_member_on_that_port() {
    let (listener, address) = gateway();
    let service = Service::Pull { vm: "x0".to_owned(), generation: 7, by: 2 };
    let asked = service.clone();
    let client = thread::spawn(move || Stream::connect(address, &tests_ring(1), "lab", &asked));
    let Accepted::Member(mut stream, heard, true) = accept(&listener).unwrap() else { panic!("no member") };
    assert_eq!(heard, service);
    stream.answer(&Ok(())).unwrap();
    assert!(client.join().unwrap().is_ok());
}

/// The image of another cluster, or one from before the key was changed; and the right key under another cluster's name.
#[test]
fn a_machine_of_another_cluster_is_told_nothing_and_knows_why() {
    for (gateway_key, cluster) in [(2, "lab"), (1, "other")] {
        let (listener, address) = gateway();
        let client = thread::spawn(move || Stream::join(address, &tests_key(9), &public(gateway_key), cluster));
        assert!(accept(&listener).is_err());
        let error = client.join().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "it does not hold the key that this image names");
    }
}

/// A gateway that answers with another key than the image's: somebody in its place.
#[test]
fn whoever_stands_in_for_the_gateway_is_found_out() {
    let (listener, address) = gateway();
    let client = thread::spawn(move || Stream::join(address, &tests_key(9), &public(1), "lab"));
    let impostor = Stream::accept_any(listener.accept().unwrap().0, &tests_ring(2), "lab");
    assert!(impostor.is_err() && client.join().unwrap().is_err());
}

/// What a machine has said to the gateway, taken down on the way.
fn recording() -> Vec<u8> {
    let (listener, address) = gateway();
    let (wire, tap) = gateway();
    let client = thread::spawn(move || {
        let (mut stream, _) = Stream::join(tap, &tests_key(9), &public(1), "lab").unwrap();
        stream.tell(&"hello").unwrap();
    });
    let carried = thread::spawn(move || {
        let (mut near, mut far) = (wire.accept().unwrap().0, TcpStream::connect(address).unwrap());
        let (mut back, mut to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        thread::spawn(move || io::copy(&mut back, &mut to));
        let mut said = Vec::new();
        let mut buffer = [0; 512];
        while let Ok(length @ 1..) = near.read(&mut buffer) {
            said.extend(&buffer[..length]);
            far.write_all(&buffer[..length]).unwrap();
        }
        far.shutdown(Shutdown::Both).unwrap();
        said
    });
    let Accepted::Joiner(mut stream, ..) = accept(&listener).unwrap() else { panic!("no joiner") };
    assert_eq!(stream.hear::<String>().unwrap(), "hello");
    client.join().unwrap();
    carried.join().unwrap()
}

/// What comes of a connection on which these bytes are said, whatever is answered, and what was answered.
fn said(bytes: &[u8]) -> (io::Result<Accepted>, Vec<u8>) {
    let (listener, address) = gateway();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(bytes).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let accepted = accept(&listener);
    let mut answered = Vec::new();
    // A reset is an answer too.
    let _ = client.read_to_end(&mut answered);
    (accepted, answered)
}

#[test]
fn what_was_said_once_is_worth_nothing_the_second_time() {
    let recording = recording();
    assert_eq!(recording[..2], [0, 48], "the first message is as long as a member's");
    // The first message alone is good again: anybody may send one. The answer's key is fresh, and so the third is not.
    let (accepted, answered) = said(&recording);
    assert!(accepted.is_err() && answered.len() == 50);
}

#[test]
fn of_what_is_cut_or_changed_nothing_is_taken() {
    let recording = recording();
    for length in 0..recording.len().min(120) {
        assert!(said(&recording[..length]).0.is_err(), "{length} bytes");
    }
    for at in 0..50 {
        let mut forged = recording.clone();
        forged[at] ^= 1 << (at % 8);
        let (accepted, answered) = said(&forged);
        assert!(accepted.is_err() && answered.is_empty(), "byte {at}: a scanner learns nothing");
    }
}

#[test]
fn an_identity_is_64_hexadecimal_digits() {
    let identity = public(1);
    assert_eq!(Identity::parse(&format!("{identity}\n")), Some(identity));
    for text in ["", "00", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65), &"é".repeat(32)] {
        assert_eq!(Identity::parse(text), None, "{text}");
    }
}

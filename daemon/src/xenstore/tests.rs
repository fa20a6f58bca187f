use std::io::{self, Cursor, ErrorKind, Read, Write};

use super::{PAYLOAD_MAX, Xenstore};

/// An xenstored whose answers were written down before; what it is asked is kept.
struct Script {
    answers: Cursor<Vec<u8>>,
    asked: Vec<u8>,
}

impl Read for Script {
    /// A byte at a time, as slow as a stream may be.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = buffer.len().min(1);
        self.answers.read(&mut buffer[..end])
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.asked.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn message(kind: u32, request: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let mut bytes: Vec<u8> = [kind, request, 0, length].iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(payload);
    bytes
}

fn store(answers: &[Vec<u8>]) -> Xenstore<Script> {
    Xenstore::over(Script { answers: Cursor::new(answers.concat()), asked: Vec::new() })
}

#[test]
fn a_conversation_goes_over_the_wire_as_xen_defines_it() {
    let mut store = store(&[message(2, 1, b"Domain-0"), message(11, 2, b"OK\0"), message(1, 3, b"1\x0012\0")]);
    assert_eq!(store.read("/local/domain/0/name").unwrap(), "Domain-0");
    store.write("/a", "b").unwrap();
    assert_eq!(store.list("/local/domain").unwrap(), ["1", "12"]);
    let asked = [message(2, 1, b"/local/domain/0/name\0"), message(11, 2, b"/a\0b"), message(1, 3, b"/local/domain\0")];
    assert_eq!(store.stream.asked, asked.concat());
}

#[test]
fn an_empty_directory_has_no_names() {
    assert!(store(&[message(1, 1, b"")]).list("/local/domain").unwrap().is_empty());
}

#[test]
fn a_refusal_names_its_error_and_the_connection_goes_on() {
    let refusals =
        [("ENOENT", ErrorKind::NotFound), ("EACCES", ErrorKind::PermissionDenied), ("EIO", ErrorKind::Other)];
    for (name, kind) in refusals {
        let mut store = store(&[message(16, 1, format!("{name}\0").as_bytes()), message(2, 2, b"x")]);
        let error = store.read("/a").unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(error.to_string(), format!("xenstored says {name}"));
        assert_eq!(store.read("/a").unwrap(), "x");
    }
}

#[test]
fn what_is_not_an_answer_is_an_error() {
    let long = message(2, 1, &[0; PAYLOAD_MAX + 1]);
    let wrong = [
        (message(2, 2, b"x"), ErrorKind::InvalidData),
        (message(3, 1, b"x"), ErrorKind::InvalidData),
        (message(15, 1, b"/a\0token\0"), ErrorKind::InvalidData),
        (message(u32::MAX, 1, b""), ErrorKind::InvalidData),
        (message(2, 1, b"\xff"), ErrorKind::InvalidData),
        (message(16, 1, b"\xff"), ErrorKind::InvalidData),
        (long, ErrorKind::InvalidData),
        (message(2, 1, b"cut off")[..19].to_vec(), ErrorKind::UnexpectedEof),
        (message(2, 1, b"")[..15].to_vec(), ErrorKind::UnexpectedEof),
        (Vec::new(), ErrorKind::UnexpectedEof),
    ];
    for (answer, kind) in wrong {
        assert_eq!(store(&[answer]).read("/a").unwrap_err().kind(), kind);
    }
}

#[test]
fn what_xenstored_would_not_take_is_not_sent() {
    let mut store = store(&[]);
    let error = store.write("/a", &"x".repeat(PAYLOAD_MAX)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(store.stream.asked.is_empty());
}

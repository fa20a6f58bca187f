//! NBD's fixed newstyle negotiation, the client's side (the protocol's text: NetworkBlockDevice/nbd, doc/proto.md).

use std::io::{self, ErrorKind, Read, Write};

use serde::{Deserialize, Serialize};

const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

const FLAG_FIXED_NEWSTYLE: u16 = 1;
const FLAG_C_FIXED_NEWSTYLE: u32 = 1;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERROR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;
/// Transmission flag: the other flags mean something.
const FLAG_HAS_FLAGS: u16 = 1;
/// The longest reply that a server has reason to send.
const REPLY_BYTES: u32 = 4096;
/// Replies to one option.
const REPLIES: usize = 16;

/// What the server exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Export {
    /// In bytes.
    pub(crate) size: u64,
    /// The transmission flags, as the kernel takes them.
    pub(crate) flags: u16,
}

/// Asks for an export and goes over to transmission.
///
/// # Errors
/// The server does not have it, or does not speak the protocol.
pub(crate) fn negotiate(server: &mut (impl Read + Write), name: &str) -> io::Result<Export> {
    if u64::from_be_bytes(read(server)?) != NBDMAGIC || u64::from_be_bytes(read(server)?) != IHAVEOPT {
        return Err(invalid("not an NBD server"));
    }
    if u16::from_be_bytes(read(server)?) & FLAG_FIXED_NEWSTYLE == 0 {
        return Err(invalid("an NBD server without fixed newstyle negotiation"));
    }
    let name_bytes = u32::try_from(name.len()).map_err(io::Error::other)?;
    let mut request = FLAG_C_FIXED_NEWSTYLE.to_be_bytes().to_vec();
    request.extend(IHAVEOPT.to_be_bytes());
    request.extend(OPT_GO.to_be_bytes());
    request.extend((4 + name_bytes + 2).to_be_bytes());
    request.extend(name_bytes.to_be_bytes());
    request.extend(name.as_bytes());
    request.extend(0_u16.to_be_bytes());
    server.write_all(&request)?;
    let mut export = None;
    for _ in 0..REPLIES {
        match reply(server)? {
            (REP_ACK, _) => return export.ok_or_else(|| invalid("an NBD server that says no size")),
            (REP_INFO, data) => export = export_info(&data).or(export),
            (kind, text) if kind & REP_ERROR != 0 => {
                let text = String::from_utf8_lossy(&text).into_owned();
                return Err(io::Error::other(format!("nbd-server does not export {name} ({kind:#x}) {text}")));
            }
            _ => return Err(invalid("an NBD reply of an unknown kind")),
        }
    }
    Err(invalid("an NBD server that never comes to an end"))
}

fn reply(server: &mut impl Read) -> io::Result<(u32, Vec<u8>)> {
    let magic = u64::from_be_bytes(read(server)?);
    let option = u32::from_be_bytes(read(server)?);
    let kind = u32::from_be_bytes(read(server)?);
    let length = u32::from_be_bytes(read(server)?);
    if magic != REPLY_MAGIC || option != OPT_GO || length > REPLY_BYTES {
        return Err(invalid("an NBD reply that is none"));
    }
    let mut data = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    server.read_exact(&mut data)?;
    Ok((kind, data))
}

fn export_info(data: &[u8]) -> Option<Export> {
    let kind = u16::from_be_bytes(data.get(..2)?.try_into().ok()?);
    let size = u64::from_be_bytes(data.get(2..10)?.try_into().ok()?);
    let flags = u16::from_be_bytes(data.get(10..12)?.try_into().ok()?);
    (kind == INFO_EXPORT && flags & FLAG_HAS_FLAGS != 0).then_some(Export { size, flags })
}

fn read<const N: usize>(server: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    server.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::nbd::tests_server::{BYTE, SIZE, Server, until};

    #[test]
    fn nbd_server_exports_its_disk() {
        let server = Server::start(&["x0"]);
        exports_a_disk(server.connect(), 0b1101);
    }

    /// What a gateway may run instead one day; and a second and third opinion on the protocol.
    #[test]
    fn nbdkit_and_qemu_nbd_export_theirs() {
        for (program, before) in
            [("nbdkit", &["-f", "file", "-U"][..]), ("qemu-nbd", &["-f", "raw", "-x", "x0", "-t", "-k"])]
        {
            let directory = tempfile::tempdir().unwrap();
            let (socket, disk) = (directory.path().join("nbd.sock"), directory.path().join("disk"));
            std::fs::write(&disk, vec![BYTE; SIZE]).unwrap();
            let mut server = Command::new(program);
            server.args(before).arg(&socket).arg(&disk).stdout(Stdio::null()).stderr(Stdio::null());
            let package = if program == "nbdkit" { "nbdkit" } else { "qemu-utils" };
            let server = server.spawn().unwrap_or_else(|_| panic!("{program} is missing: apt-get install {package}"));
            let _server = Ended(server);
            exports_a_disk(until(|| UnixStream::connect(&socket).ok()), 0b1101);
            if program == "qemu-nbd" {
                let error = negotiate(&mut UnixStream::connect(&socket).unwrap(), "x9").unwrap_err();
                assert!(error.to_string().contains("does not export x9"), "{error}");
            }
        }
    }

    struct Ended(Child);

    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    fn exports_a_disk(mut stream: UnixStream, flags: u16) {
        let export = negotiate(&mut stream, "x0").unwrap();
        assert_eq!(export.size, u64::try_from(SIZE).unwrap());
        assert_eq!(export.flags & flags, flags, "flush and FUA");
        // One read, to see that transmission has begun: magic, flags and type, handle, offset, length.
        let request = [&0x2560_9513_u32.to_be_bytes()[..], &[0; 4], &[9; 8], &[0; 8], &512_u32.to_be_bytes()].concat();
        stream.write_all(&request).unwrap();
        let mut answer = [0; 16 + 512];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer[..4], &0x6744_6698_u32.to_be_bytes());
        assert!(answer[16..].iter().all(|byte| *byte == BYTE));
    }

    #[test]
    fn an_export_that_is_not_there_is_named() {
        let server = Server::start(&["x0"]);
        let mut stream = server.connect();
        let error = negotiate(&mut stream, "x9").unwrap_err().to_string();
        assert!(error.contains("does not export x9"), "{error}");
    }

    #[test]
    fn whatever_a_server_says_is_an_error_not_a_panic() {
        let greeting = [&NBDMAGIC.to_be_bytes()[..], &IHAVEOPT.to_be_bytes(), &[0, 1]].concat();
        let reply = |kind: u32, length: u32| {
            [&REPLY_MAGIC.to_be_bytes()[..], &OPT_GO.to_be_bytes(), &kind.to_be_bytes(), &length.to_be_bytes()].concat()
        };
        let mut seed = 1_u64;
        let mut noise = Vec::new();
        for _ in 0..400 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            noise.push(seed.to_be_bytes()[0]);
        }
        for said in [
            Vec::new(),
            b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
            [greeting.clone(), noise].concat(),
            [greeting.clone(), reply(REP_ACK, 0)].concat(),
            [greeting.clone(), reply(REP_INFO, u32::MAX)].concat(),
            [greeting.clone(), reply(REP_INFO, 4), vec![0; 4], reply(REP_ACK, 0)].concat(),
            [greeting, [reply(REP_INFO, 0)].concat().repeat(20)].concat(),
        ] {
            let mut server = Said(io::Cursor::new(said));
            assert!(negotiate(&mut server, "x0").is_err());
        }
    }

    struct Said(io::Cursor<Vec<u8>>);

    impl Read for Said {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

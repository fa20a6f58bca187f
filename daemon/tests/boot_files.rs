//! The applet `boot-files`, as init starts it: as root, on HTTP's port, on an address of this machine's own that nobody else uses.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What serves, and is ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program under test: the one in the image, where the environment names it.
fn holdfast() -> String {
    std::env::var("HOLDFAST").unwrap_or_else(|_| env!("CARGO_BIN_EXE_holdfast").to_owned())
}

fn connect(address: Ipv4Addr) -> TcpStream {
    let began = Instant::now();
    loop {
        match TcpStream::connect((address, 80)) {
            Ok(stream) => return stream,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::yield_now();
    }
}

fn get(address: Ipv4Addr, path: &str) -> Vec<u8> {
    let mut stream = connect(address);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn machines_get_their_files_from_a_process_without_rights() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let big: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(directory.path().join("kernel"), &big).unwrap();
    fs::create_dir(directory.path().join("boot")).unwrap();
    fs::write(directory.path().join("boot/grub.cfg"), "boot").unwrap();
    symlink("/etc/passwd", directory.path().join("link")).unwrap();
    let address = Ipv4Addr::from_bits(0x7f00_0000 | (std::process::id() & 0x00ff_ffff));
    let arguments = ["boot-files".to_owned(), address.to_string(), directory.path().display().to_string()];
    let server = Server(Command::new(holdfast()).args(arguments).spawn().unwrap());

    // Several at a time, as nodes come.
    let all: Vec<_> = (0..4).map(|_| std::thread::spawn(move || get(address, "/kernel"))).collect();
    for answer in all {
        assert!(answer.join().unwrap().ends_with(&big));
    }
    assert!(get(address, "/boot/grub.cfg").ends_with(b"\r\n\r\nboot"));
    for refused in ["/other", "/boot", "/link", "/../etc/passwd", "/"] {
        let answer = get(address, refused);
        assert!(answer.starts_with(b"HTTP/1.1 404 "), "{refused}: {}", String::from_utf8_lossy(&answer));
    }

    let status = fs::read_to_string(format!("/proc/{}/status", server.0.id())).unwrap();
    let has = |line: &str| status.lines().any(|found| found.trim_end() == line);
    let user =
        ["Uid:\t2\t2\t2\t2", "Gid:\t2\t2\t2\t2", "Groups:", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"];
    for line in user.into_iter().chain(["NoNewPrivs:\t1", "Seccomp:\t2", "Seccomp_filters:\t2"]) {
        assert!(has(line), "{line}: {status}");
    }
}

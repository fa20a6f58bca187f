//! The applet `sh`, which `xl migrate` starts to carry a VM: how much it has carried is seen in the file that it was given.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// More than any pipe or socket holds.
const BYTES: usize = 3_000_017;

/// The applet at work, the pipe into it, and the far end of its socket.
struct Carrier {
    applet: Child,
    xl: io::PipeWriter,
    far: UnixStream,
}

impl Carrier {
    /// Begins, with that file to count in.
    fn start(count: &Path) -> Self {
        let (input, xl) = io::pipe().unwrap();
        let (socket, far) = UnixStream::pair().unwrap();
        // The shell puts the descriptors where `xl` has them: the socket comes as 0 and is 3, the pipe comes as 2 and is 0.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$HOLDFAST\" sh 3<&0 <&2 2>/dev/null"]);
        command.env("HOLDFAST", env!("CARGO_BIN_EXE_holdfast")).env("HOLDFAST_CARRIED", count);
        command.stdin(OwnedFd::from(socket)).stdout(Stdio::null()).stderr(input);
        Self { applet: command.spawn().unwrap(), xl, far }
    }

    /// Carries it all, and ends.
    fn carry(mut self) {
        let sent: Vec<u8> = (0..=250_u8).cycle().take(BYTES).collect();
        let expected = sent.clone();
        let mut xl = self.xl;
        let sender = std::thread::spawn(move || xl.write_all(&sent).unwrap());
        let mut received = Vec::new();
        self.far.read_to_end(&mut received).unwrap();
        sender.join().unwrap();
        assert!(received == expected);
        drop(self.far);
        assert!(self.applet.wait().unwrap().success());
    }
}

#[test]
fn what_the_carrier_has_carried_is_seen_in_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let count = directory.path().join("x0@1");
    File::create(&count).unwrap();
    let carrier = Carrier::start(&count);
    assert_eq!(fs::metadata(&count).unwrap().len(), 0);
    carrier.carry();
    assert_eq!(fs::metadata(&count).unwrap().len(), u64::try_from(BYTES).unwrap());
}

#[test]
fn a_carrier_that_cannot_count_carries_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let count = directory.path().join("x0@1");
    Carrier::start(&count).carry();
    assert!(!count.exists(), "what others have let go of does not come back");
}

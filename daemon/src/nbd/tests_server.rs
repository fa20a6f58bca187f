//! Debian's nbd-server on a unix socket, as the gateway runs it, for the tests of whoever meets one.

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Bytes of a disk, each of which is [`BYTE`] at first.
pub(crate) const SIZE: usize = 1 << 20;
/// What a disk is full of at first.
pub(crate) const BYTE: u8 = 7;

/// A server that runs for as long as this lives.
#[derive(Debug)]
pub(crate) struct Server {
    pid: Pid,
    directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // The processes of its connections are of its group.
        killpg(self.pid, Signal::SIGKILL).unwrap();
    }
}

impl Server {
    /// Starts one that exports disks of these names.
    pub(crate) fn start(disks: &[&str]) -> Self {
        let server = Self::with(tempfile::tempdir().unwrap(), None, disks, &vec![BYTE; SIZE]);
        // When it has greeted, there is a process of this connection, which is gone before the test begins.
        server.connect().read_exact(&mut [0; 8]).unwrap();
        until(|| server.connections().is_empty().then_some(()));
        server
    }

    /// Starts one that exports a disk in memory as `shared`, over TCP if it is given a port.
    pub(crate) fn in_memory(bytes: u64, port: Option<u16>) -> Self {
        let content = vec![BYTE; usize::try_from(bytes).unwrap()];
        Self::with(tempfile::tempdir_in("/dev/shm").unwrap(), port, &["shared"], &content)
    }

    fn with(directory: tempfile::TempDir, port: Option<u16>, disks: &[&str], content: &[u8]) -> Self {
        let at = |name: &str| directory.path().join(name);
        // One that has a unix socket does not listen on TCP.
        let socket = || format!("unixsock = {}\n", at("nbd.sock").display());
        let listen = port.map_or_else(socket, |port| format!("listenaddr = 127.0.0.1\nport = {port}\n"));
        let mut configuration = format!("[generic]\n{listen}");
        for disk in disks {
            fs::write(at(disk), content).unwrap();
            let section = format!("[{disk}]\nexportname = {}\nflush = true\nfua = true\n", at(disk).display());
            configuration.push_str(&section);
        }
        fs::write(at("conf"), configuration).unwrap();
        // It goes into the background: in the foreground it would serve one connection and end.
        let mut command = Command::new("nbd-server");
        command.arg("-C").arg(at("conf")).arg("-p").arg(at("pid")).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().expect("nbd-server is missing: apt-get install nbd-server");
        assert!(status.success(), "nbd-server: {status}");
        let pid = until(|| fs::read_to_string(at("pid")).ok()?.trim().parse().ok());
        Self { pid: Pid::from_raw(pid), directory }
    }

    /// The processes of its connections.
    pub(crate) fn connections(&self) -> Vec<Pid> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).unwrap();
        let of_pid =
            |pid: &i32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        let pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
        pids.filter(of_pid).map(Pid::from_raw).collect()
    }

    /// Stops every process of a connection where it stands, or lets it go on.
    pub(crate) fn stall(&self, stall: bool) {
        for pid in self.connections() {
            match kill(pid, if stall { Signal::SIGSTOP } else { Signal::SIGCONT }) {
                // It has just ended.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Where it answers.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("nbd.sock")
    }

    /// A file of its own: its configuration `conf`, or `pid`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What a disk holds.
    pub(crate) fn read(&self, disk: &str) -> Vec<u8> {
        fs::read(self.directory.path().join(disk)).unwrap()
    }

    /// A connection, as soon as there is one to be had.
    pub(crate) fn connect(&self) -> UnixStream {
        until(|| UnixStream::connect(self.socket()).ok())
    }
}

/// Looks again and again until there is something to see.
pub(crate) fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "it never comes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

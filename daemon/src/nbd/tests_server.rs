//! Debian's nbd-server on a unix socket, as the gateway runs it, for the tests of whoever meets one.

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
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
    /// All that there were, the present one last.
    pids: Arc<Mutex<Vec<Pid>>>,
    directory: Arc<tempfile::TempDir>,
    /// Whoever starts it again, and whether that is over.
    keeper: Option<(JoinHandle<()>, Arc<AtomicBool>)>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((keeper, over)) = self.keeper.take() {
            over.store(true, Ordering::Relaxed);
            keeper.join().unwrap();
        }
        for pid in self.pids.lock().unwrap().iter() {
            // The processes of its connections are of its group, which may be empty by now.
            match killpg(*pid, Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => panic!("{error}"),
            }
        }
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
        let pid = run(directory.path());
        Self { pids: Arc::new(Mutex::new(vec![pid])), directory: Arc::new(directory), keeper: None }
    }

    /// Has it started again whenever it ends, as init does.
    pub(crate) fn keep(&mut self) {
        let (pids, directory, over) =
            (Arc::clone(&self.pids), Arc::clone(&self.directory), Arc::<AtomicBool>::default());
        let stop = Arc::clone(&over);
        let keeper = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let pid = *pids.lock().unwrap().last().unwrap();
                if !runs(pid) {
                    for leftover in ["pid", "nbd.sock"] {
                        // It may have ended before it had made it.
                        let _ = fs::remove_file(directory.path().join(leftover));
                    }
                    let fresh = run(directory.path());
                    pids.lock().unwrap().push(fresh);
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        self.keeper = Some((keeper, over));
    }

    /// How often it was started.
    pub(crate) fn starts(&self) -> usize {
        self.pids.lock().unwrap().len()
    }

    /// The processes of its connections.
    pub(crate) fn connections(&self) -> Vec<Pid> {
        let pid = *self.pids.lock().unwrap().last().unwrap();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let pids = children.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()));
        pids.filter(|pid| runs(*pid)).collect()
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

/// Runs one by the configuration in `directory`.
fn run(directory: &Path) -> Pid {
    let at = |name: &str| directory.join(name);
    // It goes into the background: in the foreground it would serve one connection and end.
    let mut command = Command::new("nbd-server");
    command.arg("-C").arg(at("conf")).arg("-p").arg(at("pid")).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().expect("nbd-server is missing: apt-get install nbd-server");
    assert!(status.success(), "nbd-server: {status}");
    Pid::from_raw(until(|| fs::read_to_string(at("pid")).ok()?.trim().parse().ok()))
}

fn runs(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Looks again and again until there is something to see.
pub(crate) fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "it never comes");
        thread::sleep(Duration::from_millis(5));
    }
}

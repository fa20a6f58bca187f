//! The applet `streams` as a gateway runs it: the program itself, with nbd-server beside it, in namespaces of its own where
//! `/etc`, `/run` and `/sys` are a gateway's. It needs root, as the rack does.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What init does of it: the network card, nbd-server, and `streams` again whenever it ends.
const BOOT: &str = "set -e
for folder in etc run sys; do mount --bind \"$MACHINE/$folder\" /$folder; done
ip link set lo up
ip address add 10.77.0.1/24 dev lo
nbd-server -C /run/nbd.conf -p /run/holdfast/nbd-server.pid
while :; do \"$HOLDFAST\" streams || true; done";

/// A machine that boots, with a disk that outlives it.
struct Machine {
    directory: tempfile::TempDir,
    running: Option<Child>,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        for folder in ["etc/holdfast", "sys/class/net/eth0/device"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::write(at("sys/class/net/eth0/address"), "52:54:00:77:00:01\n").unwrap();
        fs::write(at("etc/holdfast/cluster.toml"), include_str!("../cluster/src/config/good.toml")).unwrap();
        let key = "00112233445566778899aabbccddeeff".repeat(2);
        let secrets = format!("cluster_key = \"{key}\"\n[pdu.pdu1]\ncommunity = \"private\"\n");
        fs::write(at("etc/holdfast/secrets.toml"), secrets).unwrap();
        fs::write(at("x0"), vec![0; 1 << 20]).unwrap();
        let mut state = vec![0; 1 << 20];
        state.splice(..16, *b"HOLDFAST STATE 1");
        fs::write(at("state"), state).unwrap();
        Self { directory, running: None }
    }

    fn boot(&mut self) {
        self.power_off();
        let run = self.directory.path().join("run");
        // What a reboot forgets.
        drop(fs::remove_dir_all(&run));
        fs::create_dir_all(run.join("holdfast")).unwrap();
        fs::write(run.join("holdfast/incarnation"), "00000000000000ab\n").unwrap();
        symlink(self.directory.path().join("state"), run.join("holdfast/state")).unwrap();
        let disk = self.directory.path().join("x0");
        let exports = format!("[generic]\nunixsock = /run/holdfast/nbd.sock\n[x0]\nexportname = {}\n", disk.display());
        fs::write(run.join("nbd.conf"), exports).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", BOOT]);
        command.env("MACHINE", self.directory.path()).env("HOLDFAST", env!("CARGO_BIN_EXE_holdfast"));
        self.running = Some(command.stdin(Stdio::null()).spawn().unwrap());
    }

    fn power_off(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill().unwrap();
            running.wait().unwrap();
        }
    }

    /// What the storage answers to an order, as soon as it answers, and which process it was.
    fn order(&self, line: &str) -> (String, Pid) {
        let socket = self.directory.path().join("run/holdfast/storage.sock");
        let deadline = Instant::now() + PATIENCE;
        loop {
            match ask(&socket, line) {
                Ok((answer, pid)) if !answer.is_empty() => return (answer, pid),
                other => assert!(Instant::now() < deadline, "{other:?}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_off();
    }
}

fn ask(socket: &Path, line: &str) -> std::io::Result<(String, Pid)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let pid = rustix::net::sockopt::socket_peercred(&stream)?.pid;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok((answer.trim_end().to_owned(), Pid::from_raw(pid.as_raw_nonzero().get())))
}

#[test]
fn a_gateway_forgets_no_epoch_and_no_bar_when_its_program_or_the_machine_starts_again() {
    let mut gateway = Machine::new();
    gateway.boot();
    let (answer, program) = gateway.order("\"Reserve\"");
    assert_eq!(answer, "{\"Reserved\":1}");
    let bar = "{\"Bar\":{\"boot\":{\"node\":\"node1\",\"incarnation\":7},\"longest_ms\":1000}}";
    assert_eq!(gateway.order(bar).0, "{\"Barred\":{\"node\":\"node1\",\"incarnation\":7}}");

    kill(program, Signal::SIGKILL).unwrap();
    let (answer, next) = gateway.order("\"Reserve\"");
    assert_eq!(answer, "{\"Reserved\":2}");
    assert_ne!(program, next);

    gateway.boot();
    assert_eq!(gateway.order("\"Reserve\"").0, "{\"Reserved\":3}");
    let kept = fs::read(gateway.directory.path().join("state")).unwrap();
    assert!(kept.starts_with(b"HOLDFAST STATE 1"), "the mark stays");
    assert!(kept.windows(5).any(|bytes| bytes == b"node1"), "and so does the bar");
}

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

use console::{VolumeRequest, Volumes};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What init does of it: the network card, nbd-server, the supervisor, and `streams` again whenever it ends.
const BOOT: &str = "set -e
mount --bind /dev/null \"$MACHINE/dev/null\"
for folder in dev etc run sys; do mount --rbind \"$MACHINE/$folder\" /$folder; done
ip link set lo up
ip address add 10.77.0.1/24 dev lo
nbd-server -C /run/nbd.conf -p /run/holdfast/nbd-server.pid
\"$HOLDFAST\" supervise &
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
        for folder in ["dev/disk", "etc/holdfast", "sys/class/net/eth0/device", "sys/block"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::write(at("sys/class/net/eth0/address"), "52:54:00:77:00:01\n").unwrap();
        fs::write(at("dev/null"), "").unwrap();
        let cluster = include_str!("../cluster/src/config/good.toml").replace("read_only = true\n", "");
        fs::write(at("etc/holdfast/cluster.toml"), cluster + "\n[shared]\nfilesystem = \"gfs2\"\n").unwrap();
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

    /// The disk that all nodes write to, with an empty file system on it: large, so that a check of it takes a while.
    fn with_shared_disk(self) -> Self {
        let disk = self.directory.path().join("dev/disk/shared");
        fs::File::create(&disk).unwrap().set_len(1 << 30).unwrap();
        let table = ["-q", "-O", "-K", "-p", "lock_dlm", "-t", "rack:shared", "-j", "1", "-J", "8"];
        let made = Command::new("/usr/sbin/mkfs.gfs2").args(table).arg(&disk).stdout(Stdio::null()).status();
        assert!(made.expect("mkfs.gfs2 is missing: apt-get install gfs2-utils").success());
        self
    }

    /// What is said, or why it is refused, when an operator at the menu asks for a check of the shared file system.
    fn check(&self) -> Result<String, String> {
        let name = || "shared".to_owned();
        let request = VolumeRequest::Check { export: name(), repair: false, typed: name() };
        let request = json!({ "volume": postcard::to_allocvec(&request).unwrap() });
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask_supervisor(&request.to_string()).unwrap_or_default();
            match serde_json::from_value::<Result<Vec<u8>, String>>(answer) {
                Ok(Ok(volumes)) => return Ok(postcard::from_bytes::<Volumes>(&volumes).unwrap().said.unwrap()),
                // The process that answers, or the supervisor that it asks, may not be there yet.
                Ok(Err(reason)) if !reason.contains("refused") && !reason.contains("No such file") => {
                    return Err(reason);
                }
                other => assert!(Instant::now() < deadline, "{other:?}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ask_supervisor(&self, request: &str) -> std::io::Result<Value> {
        let mut menu = UnixStream::connect(self.directory.path().join("run/holdfast/menu.sock"))?;
        menu.set_read_timeout(Some(PATIENCE))?;
        writeln!(menu, "{request}")?;
        for line in BufReader::new(menu).lines() {
            let told: Value = serde_json::from_str(&line?)?;
            if let Some(outcome) = told.pointer("/volumes/outcome") {
                return Ok(outcome.clone());
            }
        }
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }

    /// Stops this machine's `fsck.gfs2` where it stands, if it is at work.
    fn stop_check(&self) -> Option<Pid> {
        let own = format!("MACHINE={}", self.directory.path().display());
        let has = |path: &Path, text: &str| {
            fs::read(path).is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|word| word == text.as_bytes()))
        };
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let mut checks = processes
            .filter(|path| has(&path.join("cmdline"), "/usr/sbin/fsck.gfs2") && has(&path.join("environ"), &own));
        let path = checks.next()?;
        let pid = Pid::from_raw(path.file_name()?.to_str()?.parse().ok()?);
        kill(pid, Signal::SIGSTOP).ok()?;
        // It may just have ended.
        let stops = || fs::read_to_string(path.join("stat")).is_ok_and(|stat| stat.contains(") T "));
        (0..100)
            .any(|_| {
                std::thread::sleep(Duration::from_millis(1));
                stops()
            })
            .then_some(pid)
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

/// `streams` dies over a check. The check outlives it, and keeps the disk from everybody in the next life as well.
#[test]
fn a_check_goes_on_when_the_program_that_began_it_starts_again() {
    let mut gateway = Machine::new().with_shared_disk();
    gateway.boot();
    let (_, program) = gateway.order("\"Reserve\"");
    let check = std::thread::scope(|scope| {
        loop {
            // One that was faster than we could look is asked for again.
            let asked = scope.spawn(|| gateway.check());
            let found = std::iter::from_fn(|| (!asked.is_finished()).then(|| gateway.stop_check()));
            if let Some(pid) = found.flatten().next() {
                kill(program, Signal::SIGKILL).unwrap();
                // Whoever has asked learns that it is gone, or asks its next life.
                asked.join().unwrap().unwrap_err();
                return pid;
            }
            asked.join().unwrap().unwrap();
        }
    });
    assert_ne!(gateway.order("\"Reserve\"").1, program);
    assert_eq!(gateway.check().unwrap_err(), "it is being checked already");
    kill(check, Signal::SIGCONT).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while let Err(reason) = gateway.check() {
        assert_eq!(reason, "it is being checked already");
        assert!(Instant::now() < deadline, "the check never ends");
    }
    assert_eq!(gateway.check().unwrap(), "The file system is in order.");
}

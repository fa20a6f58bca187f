use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};

use cluster::config::Transport;
use cluster::trace::Severity;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const LOST: Kind = Kind { name: "Lost", severity: Severity::Error };

fn source() -> Source {
    Source { node: "node1".to_owned(), process: 312, cluster: "rack".to_owned(), incarnation: "5d01c0ffee".to_owned() }
}

/// A remote to `server`, and what is said of it.
fn remote(server: SocketAddrV4, transport: Transport) -> (Remote, Receiver<String>) {
    let (said, sayings) = channel();
    let say = move |text| drop(said.send(text));
    (Remote::to(Syslog { server, transport }, source(), say).unwrap(), sayings)
}

/// A real collector, Debian's rsyslogd, which writes into a pipe what it has understood.
struct Collector {
    process: Child,
    lines: Receiver<String>,
    server: SocketAddrV4,
    _directory: tempfile::TempDir,
}

impl Collector {
    fn start(transport: Transport) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [pipe, file] = ["pipe", "conf"].map(|name| directory.path().join(name));
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
        // An address that is this process's alone: any port of it is free.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let number = if transport == Transport::Udp { 1 } else { 2 };
        let server = SocketAddrV4::new(Ipv4Addr::new(127, number, high, low.max(1)), 5514);
        let module = if transport == Transport::Udp { "imudp" } else { "imtcp" };
        let template =
            "%pri%|%hostname%|%app-name%|%procid%|%msgid%|%timestamp:::date-rfc3339%|%structured-data%|%msg%\\n";
        let text = format!(
            "module(load=\"{module}\")\ninput(type=\"{module}\" address=\"{}\" port=\"{}\")\n\
             template(name=\"all\" type=\"string\" string=\"{template}\")\n\
             action(type=\"ompipe\" pipe=\"{}\" template=\"all\")\n",
            server.ip(),
            server.port(),
            pipe.display()
        );
        fs::write(&file, text).unwrap();
        // Both ends: so it has a reader from the beginning, and never ends.
        let reader = File::options().read(true).write(true).open(&pipe).unwrap();
        let process = Self::run(&file);
        let (sender, lines) = channel();
        thread::spawn(move || {
            let lines = BufReader::new(reader).lines().map_while(Result::ok);
            lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
        });
        Self { process, lines, server, _directory: directory }
    }

    fn run(file: &Path) -> Child {
        let pid = file.with_extension("pid");
        let mut command = Command::new("/usr/sbin/rsyslogd");
        command.arg("-n").arg("-f").arg(file).arg("-i").arg(pid).env("TZ", "UTC");
        command.spawn().expect("rsyslogd; cargo verify installs it")
    }

    /// Sends that again and again until it has come, as a datagram may before the collector listens.
    fn greet(&self, remote: &mut Remote) {
        for _ in 0..PATIENCE.as_secs() * 5 {
            remote.send(Instant::ZERO, LOST, "hello");
            if self.lines.recv_timeout(Duration::from_millis(200)).is_ok() {
                return;
            }
        }
        panic!("the collector hears nothing");
    }

    /// The next line that is no greeting.
    fn next(&self) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap();
            if !line.ends_with("hello") {
                return line;
            }
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_real_collector_understands_every_part_of_a_message() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let collector = Collector::start(transport);
        let (mut remote, _) = remote(collector.server, transport);
        collector.greet(&mut remote);
        let number = remote.number;
        remote.send(Instant::from_millis(754_310), LOST, "VM x0 was lost with node2");
        remote.send(Instant::ZERO, Kind { name: "Up", severity: Severity::Notice }, "Gr\u{fc}\u{df}e\nfrom node1");
        let line = collector.next();
        let fields: Vec<&str> = line.split('|').collect();
        let [pri, host, program, process, kind, time, data, text] = fields.as_slice() else { panic!("{line}") };
        assert_eq!([*pri, *host, *program, *process, *kind], ["27", "node1", "holdfast", "312", "Lost"]);
        assert_eq!(*text, "VM x0 was lost with node2");
        let number = format!("sequenceId=\"{}\" sysUpTime=\"75431\"", number + 1);
        let own = "[holdfast@32473 cluster=\"rack\" incarnation=\"5d01c0ffee\"]";
        assert_eq!(*data, format!("[meta {number}]{own}"));
        let day = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let day = [day - 86_400, day].map(|at| crate::calendar::seconds(at)[..10].to_owned());
        assert!(day.iter().any(|day| time.starts_with(day.as_str())), "{time}");
        let line = collector.next();
        assert!(line.starts_with("29|") && line.ends_with("|\u{feff}Gr\u{fc}\u{df}e from node1"), "{line:?}");
    }
}

#[test]
fn a_stream_that_is_closed_is_opened_again_and_its_messages_are_whole() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port());
    let (mut remote, _) = remote(server, Transport::Tcp);
    for number in 1..=3 {
        remote.send(Instant::ZERO, LOST, &format!("message {number}"));
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = Vec::new();
        while length.last() != Some(&b' ') {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            length.extend(byte);
        }
        let length: usize = String::from_utf8(length).unwrap().trim_end().parse().unwrap();
        let mut message = vec![0; length];
        stream.read_exact(&mut message).unwrap();
        assert!(String::from_utf8(message).unwrap().ends_with(&format!(" message {number}")));
    }
}

/// A collector that accepts and reads nothing: what fits nowhere is lost and counted, and nobody waits for it.
#[test]
fn a_collector_that_reads_nothing_holds_nobody_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port());
    let (mut remote, _) = remote(server, Transport::Tcp);
    let text = "x".repeat(2_000);
    // Some megabytes lie in the two sockets before the first one is lost.
    while remote.lost.load(Ordering::Relaxed) < 3 {
        remote.send(Instant::ZERO, LOST, &text);
    }
    assert!(usize::try_from(remote.number).unwrap() > WAITING);
}

#[test]
fn a_collector_that_is_not_there_is_said_once_and_tried_again() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port());
    drop(listener);
    let (mut remote, sayings) = remote(server, Transport::Tcp);
    remote.send(Instant::ZERO, LOST, "waits");
    let said = sayings.recv_timeout(PATIENCE).unwrap();
    assert!(said.starts_with(&format!("the syslog server {server} does not take the event log: ")), "{said}");
    let listener = TcpListener::bind(server).unwrap();
    let (stream, _) = listener.accept().unwrap();
    drop(remote);
    let mut all = String::new();
    BufReader::new(stream).read_to_string(&mut all).unwrap();
    assert!(all.ends_with(" waits"), "{all}");
    assert!(sayings.try_recv().is_err(), "once");
}

#[test]
fn trouble_is_said_when_it_begins_and_when_it_is_over_however_much_is_lost() {
    let collector = Syslog { server: SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 5), 514), transport: Transport::Udp };
    let mut trouble = Trouble::new(collector);
    let at = |seconds: u64| Instant::from_millis(seconds * 1_000);
    assert_eq!(trouble.carried(at(0), 0), None, "all is well");
    let said = trouble.failed(at(1), "refused").unwrap();
    assert_eq!(said, "the syslog server 10.77.0.5:514 does not take the event log: refused");
    assert_eq!(trouble.failed(at(2), "refused"), None);
    assert_eq!(trouble.carried(at(3), 7), None);
    assert_eq!(trouble.carried(at(50), 9), None, "still losing");
    assert_eq!(trouble.carried(at(109), 9), None, "not calm for long enough");
    let said = trouble.carried(at(110), 9).unwrap();
    assert_eq!(said, "the syslog server 10.77.0.5:514 takes the event log again; it lacks 9 lines");
    assert_eq!(trouble.carried(at(111), 9), None);
    for second in 200..250 {
        assert_eq!(trouble.carried(at(second), second), None, "a flood is not answered by one");
    }
    assert!(trouble.carried(at(400), 249).unwrap().ends_with("it lacks 240 lines"));
}

//! What the world outside sees of the VMs: echoes every 100 ms, one TCP connection kept for ever, and their HTTP page.
//!
//! A gap in the echoes is a blackout. A long one is told when it is over, and the longest one of a live migration when that
//! is over; both with whether the guest is still in the same boot and whether the TCP connection lived through it.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::events::{Log, Mark, What};
use super::layout::Vm;

/// The echo services, UDP and TCP.
const ECHO_PORT: u16 = 7;
/// The guest's page.
const HTTP_PORT: u16 = 80;
/// How often an echo is asked for: what is asked of a guest is carried by its host, and at ten times the pace an emulated one had
/// little time for anything else.
const PING: Duration = Duration::from_millis(100);
/// A gap of echoes that is told by itself; an emulated machine on a busy host often makes shorter ones.
const SILENCE: Duration = Duration::from_secs(4);
/// A gap of echoes that is kept.
const GAP: Duration = Duration::from_millis(250);
/// Gaps that are kept, the oldest forgotten first.
const GAPS: usize = 4096;
/// How often a counter goes over the TCP connection.
const EXCHANGE: Duration = Duration::from_millis(250);
/// How often the page is read.
const POLL: Duration = Duration::from_secs(1);
/// How long connecting and reading the page may take.
const HTTP_LIMIT: Duration = Duration::from_secs(5);
/// How long the TCP connection may be silent: as long as TCP itself would try, or nearly.
const TCP_PATIENCE: Duration = Duration::from_secs(600);

/// What the probes know of a VM.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Did an echo come back within the last second?
    pub answers: bool,
    /// The guest's id of its boot, as last read.
    pub boot_id: Option<String>,
    /// How many TCP connections broke.
    pub tcp_broken: u64,
    /// Counters that went over the TCP connection and back.
    pub tcp_exchanges: u64,
    /// The longest gap of echoes in each live migration, in milliseconds.
    pub blackouts_ms: Vec<u64>,
    /// The guest's page, as last read.
    pub page: Value,
}

/// The probes of one VM.
#[derive(Debug, Clone)]
pub struct Probe {
    known: Arc<Mutex<Known>>,
    vm: Arc<Vm>,
    log: Arc<Log>,
}

#[derive(Debug, Default)]
struct Known {
    seen: Seen,
    last_echo: Option<Instant>,
    /// Where echoes were missing: from, and for how long.
    gaps: VecDeque<(Instant, Duration)>,
    /// When the present boot was first met.
    boot_since: Option<Instant>,
    /// The TCP connection, and since when it stands.
    tcp: Option<TcpStream>,
    tcp_since: Option<Instant>,
}

impl Known {
    /// The TCP connection is of no use any more; whether that was not known yet.
    fn break_off(&mut self) -> bool {
        let Some(tcp) = self.tcp.take() else { return false };
        // Whoever waits for an answer on it need not wait any longer.
        let _ = tcp.shutdown(Shutdown::Both);
        self.tcp_since = None;
        self.seen.tcp_broken += 1;
        true
    }
}

impl Probe {
    /// Begins to probe, from the calling thread's network namespace.
    ///
    /// # Errors
    /// No socket or thread can be made.
    pub fn start(vm: &Vm, log: Arc<Log>) -> Result<Self> {
        let probe = Self { known: Arc::default(), vm: Arc::new(vm.clone()), log };
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        probe.thread("echo", move |p| p.echo(&socket))?;
        probe.thread("tcp", |p| {
            loop {
                p.exchange();
                std::thread::sleep(POLL);
            }
        })?;
        probe.thread("http", |p| {
            loop {
                if let Ok(page) = p.page() {
                    p.read(page);
                }
                std::thread::sleep(POLL);
            }
        })?;
        probe.thread("migrations", Self::watch_migrations)?;
        Ok(probe)
    }

    /// What is known now.
    pub fn seen(&self) -> Seen {
        let known = self.lock();
        let answers = known.last_echo.is_some_and(|at| at.elapsed() < Duration::from_secs(1));
        Seen { answers, ..known.seen.clone() }
    }

    fn thread(&self, what: &str, run: impl FnOnce(&Self) + Send + 'static) -> Result<()> {
        let probe = self.clone();
        std::thread::Builder::new().name(format!("{} {what}", self.vm.name)).spawn(move || run(&probe))?;
        Ok(())
    }

    fn echo(&self, socket: &UdpSocket) {
        let to = SocketAddr::from((self.vm.address, ECHO_PORT));
        let mut number: u64 = 0;
        let mut buffer = [0; 64];
        loop {
            number += 1;
            // With the VM away there is no route or no neighbour: that is a missing echo, no more.
            let _ = socket.send_to(&number.to_be_bytes(), to);
            let next = Instant::now() + PING;
            while let Some(left) = next.checked_duration_since(Instant::now()).filter(|l| !l.is_zero()) {
                let _ = socket.set_read_timeout(Some(left));
                if socket.recv_from(&mut buffer).is_ok_and(|(_, from)| from == to) {
                    self.echo_came();
                }
            }
        }
    }

    fn echo_came(&self) {
        let now = Instant::now();
        let Some(silent_since) = self.lock().last_echo.replace(now) else {
            return;
        };
        let gap = now.duration_since(silent_since);
        if gap > GAP {
            let mut known = self.lock();
            let gaps = &mut known.gaps;
            while gaps.len() >= GAPS {
                gaps.pop_front();
            }
            gaps.push_back((silent_since, gap));
        }
        if gap > SILENCE {
            // By a thread of its own: to know the boot and the connection takes a moment, and echoes go on.
            let _ = self.thread("silence", move |p| p.tell_blackout(false, silent_since, gap));
        }
    }

    /// Tells the longest gap of every live migration, from the DC's word that it begins to its word that it is over.
    fn watch_migrations(&self) {
        let (begins, ends) = (format!("moves VM {} from ", self.vm.name), format!("VM {} moved to ", self.vm.name));
        let (mut mark, mut began) = (Mark::default(), None);
        loop {
            let _ = self.log.wait(mark, HTTP_LIMIT, |_| true);
            let (events, next) = self.log.since(mark);
            mark = next;
            for event in events {
                match (&event.what, began) {
                    (What::Said(text), _) if text.starts_with(&begins) => began = Some(Instant::now()),
                    (What::Said(text), Some(since)) if text.starts_with(&ends) => {
                        began = None;
                        let _ = self.thread("migrated", move |p| p.migrated(since));
                    }
                    _ => {}
                }
            }
        }
    }

    fn migrated(&self, began: Instant) {
        // The gap is known when the next echo has come.
        let ended = Instant::now();
        while self.lock().last_echo.is_none_or(|at| at < ended) && ended.elapsed() < HTTP_LIMIT * 2 {
            std::thread::sleep(PING);
        }
        let longest = self.lock().gaps.iter().filter(|(at, _)| *at >= began).map(|(_, gap)| *gap).max();
        let blackout = longest.unwrap_or_default();
        self.lock().seen.blackouts_ms.push(milliseconds(blackout));
        self.tell_blackout(true, began, blackout);
    }

    fn tell_blackout(&self, migrated: bool, silent_since: Instant, blackout: Duration) {
        let exchanged = self.lock().seen.tcp_exchanges;
        let deadline = Instant::now() + HTTP_LIMIT * 2;
        while let Err(true) = self.page().map(|page| self.read(page)).map_err(|_| Instant::now() < deadline) {
            std::thread::sleep(PING);
        }
        let unbroken = |known: &Known| known.tcp_since.is_some_and(|since| since < silent_since);
        while Instant::now() < deadline && self.lock().seen.tcp_exchanges == exchanged && unbroken(&self.lock()) {
            std::thread::sleep(PING);
        }
        let known = self.lock();
        let same_boot = known.boot_since.is_some_and(|since| since < silent_since);
        let tcp_unbroken = unbroken(&known) && known.seen.tcp_exchanges > exchanged;
        drop(known);
        let silent_ms = milliseconds(blackout);
        self.log.push(&self.vm.name, What::Blackout { migrated, silent_ms, same_boot, tcp_unbroken });
    }

    /// Keeps one connection until it breaks.
    fn exchange(&self) {
        let Ok(mut stream) = TcpStream::connect_timeout(&(self.vm.address, ECHO_PORT).into(), HTTP_LIMIT) else {
            return;
        };
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(TCP_PATIENCE));
        let Ok(held) = stream.try_clone() else { return };
        let mut known = self.lock();
        (known.tcp, known.tcp_since) = (Some(held), Some(Instant::now()));
        drop(known);
        let mut exchanges: u64 = 0;
        let mut back = [0; 8];
        while stream.write_all(&exchanges.to_be_bytes()).is_ok()
            && stream.read_exact(&mut back).is_ok()
            && u64::from_be_bytes(back) == exchanges
        {
            exchanges += 1;
            self.lock().seen.tcp_exchanges += 1;
            std::thread::sleep(EXCHANGE);
        }
        if self.lock().break_off() {
            self.log.push(&self.vm.name, What::TcpBroke { exchanges });
        }
    }

    fn page(&self) -> Result<Value> {
        let mut stream = TcpStream::connect_timeout(&(self.vm.address, HTTP_PORT).into(), HTTP_LIMIT)?;
        stream.set_read_timeout(Some(HTTP_LIMIT))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        if !head.contains(" 200 ") {
            bail!("{head}");
        }
        Ok(serde_json::from_str(body)?)
    }

    fn read(&self, page: Value) {
        let boot_id = boot_id_of(&page);
        let mut known = self.lock();
        let is_new = boot_id.is_some() && known.seen.boot_id != boot_id;
        known.seen.page = page;
        if let (true, Some(id)) = (is_new, boot_id) {
            // What an earlier boot had is gone. Left to itself, TCP would find that out minutes later, in the middle of something else.
            if known.seen.boot_id.replace(id.clone()).is_some() {
                known.break_off();
            }
            known.boot_since = Some(Instant::now());
            drop(known);
            self.log.push(&self.vm.name, What::Answers { boot_id: id });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn boot_id_of(page: &Value) -> Option<String> {
    page.get("boot_id").and_then(Value::as_str).map(String::from)
}

//! The only program of the rack's guests: their init, their services, and the writer of their journal.
//!
//! It answers pings (the kernel does), UDP and TCP echo on port 7, HTTP on port 80 with its boot id and how far its
//! journal is, and every line at its console; it appends a record to the journal on /dev/xvda every 250 ms. Called as `poweroff`, it powers off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use holdfast_tests::journal::{RECORD, Record};
use holdfast_tests::sys;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

/// Between two records.
const PERIOD: Duration = Duration::from_millis(250);
/// Between two looks for a device that the kernel is still finding.
const LOOK: Duration = Duration::from_millis(20);

fn main() {
    if std::env::args().next().is_some_and(|name| name.ends_with("poweroff")) {
        nix::unistd::sync();
        // On success it does not return.
        let _ = reboot(RebootMode::RB_POWER_OFF);
        return;
    }
    if let Err(error) = run() {
        // On the guest's console; and PID 1 must not end.
        let _ = writeln!(io::stderr(), "guest: {error}");
    }
    loop {
        thread::park();
    }
}

fn run() -> io::Result<()> {
    let none = None::<&str>;
    for (kind, place) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), none)?;
    }
    for line in fs::read_to_string("/etc/modules")?.lines() {
        let module = File::open(line.trim())?;
        nix::kmod::finit_module(&module, c"", nix::kmod::ModuleInitFlags::empty())?;
    }
    let command_line = fs::read_to_string("/proc/cmdline")?;
    let told = command_line.split_whitespace().find_map(|word| word.strip_prefix("ip="));
    let (address, prefix) = told
        .and_then(|told| told.split_once('/'))
        .and_then(|(address, prefix)| Some((address.parse::<Ipv4Addr>().ok()?, prefix.parse::<u8>().ok()?)))
        .ok_or_else(|| io::Error::other("no ip=ADDRESS/PREFIX on the command line"))?;
    wait_for(|| fs::metadata("/sys/class/net/eth0"));
    sys::set_up_interface("lo", Ipv4Addr::LOCALHOST, 8)?;
    sys::set_up_interface("eth0", address, prefix)?;
    let mut boot = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut boot)?;
    let guest = Arc::new(Guest { boot: u64::from_le_bytes(boot), began: Instant::now(), records: AtomicU64::new(0) });
    let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7))?;
    let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7))?;
    let http = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80))?;
    let (boot, pages, journal) = (guest.boot, Arc::clone(&guest), guest);
    thread::spawn(move || answer(boot));
    thread::spawn(move || echo_udp(&udp));
    thread::spawn(move || accept(&tcp, echo_tcp));
    thread::spawn(move || accept(&http, move |stream| pages.page(stream)));
    journal.write()
}

/// Tries until it is there.
fn wait_for<T>(mut look: impl FnMut() -> io::Result<T>) -> T {
    loop {
        match look() {
            Ok(found) => return found,
            Err(_) => thread::sleep(LOOK),
        }
    }
}

/// Says at the console who has heard what was typed there.
fn answer(boot: u64) {
    for line in io::stdin().lines().map_while(Result::ok) {
        // A console that nobody looks at is none.
        let _ = writeln!(io::stdout(), "boot {boot:016x} hears: {line}");
    }
}

fn echo_udp(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        // A packet that cannot be sent back is one that was lost.
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), from);
        }
    }
}

fn accept(listener: &TcpListener, serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) {
    for stream in listener.incoming().flatten() {
        let serve = serve.clone();
        thread::spawn(move || serve(stream));
    }
}

fn echo_tcp(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 2048];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(buffer.get(..length).unwrap_or_default())?;
    }
}

struct Guest {
    boot: u64,
    began: Instant,
    records: AtomicU64,
}

impl Guest {
    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn page(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut request = [0; 1024];
        let _length = stream.read(&mut request)?;
        let records = self.records.load(Ordering::SeqCst);
        let page = serde_json::json!({
            "boot_id": format!("{:016x}", self.boot),
            "records": records,
            "uptime_ms": self.uptime_ms(),
        })
        .to_string();
        let length = page.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
        )
    }

    /// Appends to the journal for as long as there is room; an error ends it, and shows in what the page says.
    fn write(&self) -> io::Result<()> {
        let disk = wait_for(|| OpenOptions::new().read(true).write(true).open("/dev/xvda"));
        let mut number = end_of(&disk)?;
        self.records.store(number, Ordering::SeqCst);
        loop {
            let record = Record { boot: self.boot, number, uptime_ms: self.uptime_ms() };
            disk.write_all_at(&record.encode(), offset(number)?)?;
            disk.sync_data()?;
            number += 1;
            self.records.store(number, Ordering::SeqCst);
            thread::sleep(PERIOD);
        }
    }
}

/// The number of the first record that is not there.
fn end_of(disk: &File) -> io::Result<u64> {
    let mut number = 0;
    let mut buffer = [0; RECORD];
    loop {
        disk.read_exact_at(&mut buffer, offset(number)?)?;
        if Record::decode(&buffer).is_none() {
            return Ok(number);
        }
        number += 1;
    }
}

fn offset(number: u64) -> io::Result<u64> {
    let record = u64::try_from(RECORD).map_err(io::Error::other)?;
    Ok(number * record)
}

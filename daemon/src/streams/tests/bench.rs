//! How fast a disk is through our path, against the same `nbd-server` met directly: `cargo bench -p holdfast-tests --bench
//! storage`.
//!
//! Our path is a node's and a gateway's: a socket pair as the kernel has it, what carries it, the encrypted stream over TCP,
//! the gate, nbd-server's unix socket. The other is what `nbd-client` would have: TCP to nbd-server. The client is the same
//! in both, and sends what the kernel sends; the kernel's own driver takes no part. Both take turns, on a disk in memory, over a
//! loopback that knows no limit, and over one of a gigabit a second.
//!
//! A loopback has no latency, so where few requests are in flight the ratio is that of how many processes are woken for one: two
//! directly, six through our path, which is all that it adds. The processor time that our path takes is shown as well: it
//! hardly depends on what else the machine does.

use std::io::IoSlice;
use std::net::TcpStream;
use std::process::Command;

use super::*;
use crate::nbd::negotiate::negotiate;

/// Where a process of the benchmark finds which link it is to measure.
const LINK: &str = "HOLDFAST_BENCH_LINK";
/// Ours is to have this part of the other's throughput.
const GOAL: f64 = 0.95;
/// Bytes of the disk.
const DISK: u64 = 128 << 20;
/// Where nbd-server answers over TCP, in the benchmark's own network.
const BARE: u16 = 10_809;
/// How often each is measured.
const ROUNDS: usize = 7;

/// What is asked of the disk.
struct Load {
    name: &'static str,
    write: bool,
    bytes: u32,
    random: bool,
    /// Requests in flight.
    depth: usize,
    requests: u64,
}

const LOADS: [Load; 6] = [
    Load {
        name: "read, 128 KiB in sequence, 8 at once",
        write: false,
        bytes: 128 << 10,
        random: false,
        depth: 8,
        requests: 800,
    },
    Load {
        name: "write, 128 KiB in sequence, 8 at once",
        write: true,
        bytes: 128 << 10,
        random: false,
        depth: 8,
        requests: 800,
    },
    Load {
        name: "read, 4 KiB at random, 16 at once",
        write: false,
        bytes: 4096,
        random: true,
        depth: 16,
        requests: 6000,
    },
    Load {
        name: "write, 4 KiB at random, 16 at once",
        write: true,
        bytes: 4096,
        random: true,
        depth: 16,
        requests: 6000,
    },
    Load {
        name: "read, 4 KiB at random, one by one",
        write: false,
        bytes: 4096,
        random: true,
        depth: 1,
        requests: 1500,
    },
    Load {
        name: "write, 4 KiB at random, one by one",
        write: true,
        bytes: 4096,
        random: true,
        depth: 1,
        requests: 1500,
    },
];

impl Load {
    /// Does it all; bytes a second, and this process' time on processors, in seconds.
    fn run(&self, disk: &mut (impl Read + Write)) -> (f64, f64) {
        let data = vec![0x5a; usize::try_from(self.bytes).unwrap()];
        let mut reply = vec![0; 16 + if self.write { 0 } else { data.len() }];
        let (begun, before) = (Instant::now(), worked());
        let (mut sent, mut answered) = (0, 0);
        while answered < self.requests {
            if sent < self.requests && sent - answered < u64::try_from(self.depth).unwrap() {
                self.send(disk, sent, &data);
                sent += 1;
                continue;
            }
            disk.read_exact(&mut reply).unwrap();
            assert_eq!(reply[..8], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0], "an answer without an error");
            answered += 1;
        }
        let bytes = self.requests * u64::from(self.bytes);
        let rate = f64::from(u32::try_from(bytes).unwrap()) / begun.elapsed().as_secs_f64();
        (rate, worked() - before)
    }

    fn send(&self, disk: &mut impl Write, number: u64, data: &[u8]) {
        let blocks = DISK / u64::from(self.bytes);
        // Knuth's multiplier: every block comes, in no order that a disk would like.
        let block = if self.random { number.wrapping_mul(2_654_435_761) % blocks } else { number % blocks };
        let header = [
            &0x2560_9513_u32.to_be_bytes()[..],
            &[0; 2],
            &u16::from(self.write).to_be_bytes(),
            &number.to_be_bytes(),
            &(block * u64::from(self.bytes)).to_be_bytes(),
            &self.bytes.to_be_bytes(),
        ]
        .concat();
        let data = if self.write { data } else { &[] };
        let first = disk.write_vectored(&[IoSlice::new(&header), IoSlice::new(data)]).unwrap();
        disk.write_all(header.get(first..).unwrap_or_default()).unwrap();
        disk.write_all(data.get(first.saturating_sub(header.len())..).unwrap_or_default()).unwrap();
    }
}

/// A benchmark and no test.
#[test]
#[ignore = "a benchmark: cargo bench -p holdfast-tests --bench storage"]
fn io_through_our_path() {
    if let Ok(link) = std::env::var(LINK) {
        return measure(&link);
    }
    let this = std::env::current_exe().unwrap();
    for (link, limit) in [
        ("a loopback without limit", "true"),
        ("a link of 1 Gbit/s", "tc qdisc add dev lo root tbf rate 1gbit burst 256k latency 50ms"),
    ] {
        let script = format!("ip link set lo up && {limit} && exec \"$0\" \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", &script]).arg(&this);
        command.args(["--ignored", "--exact", "--nocapture", "streams::tests::bench::io_through_our_path"]);
        assert!(command.env(LINK, link).status().unwrap().success());
    }
}

fn measure(link: &str) {
    let server = tests_server::Server::in_memory(DISK, None);
    let _bare_server = tests_server::Server::in_memory(DISK, Some(BARE));
    let config = GOOD.replace("read_only = true\n", "") + "\n[shared]\nfilesystem = \"gfs2\"\n";
    let config = Config::parse(&config).unwrap();
    let state = tempfile::tempdir().unwrap();
    let (drain, kept) = (Duration::from_secs(60), Store::open(&state.path().join("state")).unwrap());
    let mut storage = Storage::new(&config, server.socket(), drain, kept);
    storage.shelf.group = Mutex::new((tests_bench::without_disks(), None));
    let (_gateway, port) = serve(storage);
    let wanted = Wanted { disk: "shared".to_owned(), boot: boot("node1", 1), claimant: None };
    let service = Service::Disk(wanted);
    let mut stream = Stream::connect((Ipv4Addr::LOCALHOST, port), &tests_ring(1), "lab", &service).unwrap();
    let _: Export = stream.hear().unwrap();
    let (mut ours, other_end) = UnixStream::pair().unwrap();
    thread::spawn(move || carry(stream, other_end, Counter::unseen()));
    let mut bare = until(|| TcpStream::connect((Ipv4Addr::LOCALHOST, BARE)).ok());
    bare.set_nodelay(true).unwrap();
    negotiate(&mut bare, "shared").unwrap();
    println!("\nOver {link}, in MB/s, and our path's processor time a request, in us:");
    println!("{:40} {:>8} {:>8} {:>6} {:>6}", "", "directly", "ours", "ratio", "us");
    for load in &LOADS {
        let (mut through_ours, mut directly, mut more) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let ((ours, worked), (bare, client)) = (load.run(&mut ours), load.run(&mut bare));
            through_ours.push(ours);
            directly.push(bare);
            more.push((worked - client) / f64::from(u32::try_from(load.requests).unwrap()) * 1e6);
        }
        let (ours, bare, more) = (median(&mut through_ours), median(&mut directly), median(&mut more));
        let verdict = if ours / bare >= GOAL { "goal met" } else { "goal missed" };
        let (name, ratio) = (load.name, ours / bare);
        println!("{name:40} {:8.1} {:8.1} {ratio:6.2} {more:6.1} {verdict}", bare / 1e6, ours / 1e6);
    }
}

/// For how long this process was on a processor, in seconds (proc(5), fields 14 and 15 of `stat`, in hundredths).
fn worked() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

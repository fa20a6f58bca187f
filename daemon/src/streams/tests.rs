//! The gateway's storage at work: Debian's nbd-server behind it, and nodes that come over encrypted streams.

use std::io::Read;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::thread::JoinHandle;

use cluster::config::Config;
use cluster::status::Status;
use cluster::words::{Claim, Generation, VmName};

use super::claims::Claimant;
use super::left_over::{LeftOver, serving};
use super::storage::{Claiming, Wanted};
use super::*;
use crate::keys::tests_ring;
use crate::nbd::negotiate::Export;
use crate::nbd::tests_server::{self, BYTE, SIZE, until};
use crate::supervise::menu_link::ToMenu;
use crate::volumes::tests_bench;

mod bench;
mod shared;
mod volumes;

const GOOD: &str = include_str!("../../cluster/src/config/good.toml");
/// What is written at a time, in bytes.
const BLOCK: usize = 4096;

/// A gateway, whose storage may be started again.
struct Gateway {
    config: Config,
    disks: tests_server::Server,
    drain: Duration,
    state: tempfile::TempDir,
    server: Arc<Server>,
    port: u16,
}

impl Gateway {
    fn start() -> Self {
        Self::with_patience(Duration::from_secs(60), GOOD)
    }

    /// One that soon gives up waiting for requests that are stalled.
    fn impatient() -> Self {
        Self::with_patience(Duration::from_millis(100), GOOD)
    }

    /// One whose shared disk all nodes write to.
    fn with_gfs2() -> Self {
        let writable = GOOD.replace("read_only = true\n", "");
        Self::with_patience(Duration::from_secs(60), &format!("{writable}\n[shared]\nfilesystem = \"gfs2\"\n"))
    }

    fn with_patience(drain: Duration, config: &str) -> Self {
        let config = Config::parse(config).unwrap();
        let state = tempfile::tempdir().unwrap();
        let disks = tests_server::Server::start(&["x0", "shared"]);
        let (server, port) = open(&config, &disks, drain, state.path());
        Self { config, disks, drain, state, server, port }
    }

    /// Its storage forgets all that it has not kept.
    fn restart(&mut self) {
        (self.server, self.port) = open(&self.config, &self.disks, self.drain, self.state.path());
    }

    fn storage(&self) -> &Storage {
        self.server.storage.as_ref().unwrap()
    }

    fn ask(&self, service: &Service) -> io::Result<Stream> {
        Stream::connect((Ipv4Addr::LOCALHOST, self.port), &tests_ring(1), "lab", service)
    }

    fn claim(&self, who: &Claimant, from: Option<&str>) -> Result<(), Refusal> {
        let disks = vec!["x0".to_owned()];
        let claiming = Claiming { disks, claimant: who.clone(), from: from.map(str::to_owned) };
        self.ask(&Service::Claim(claiming)).map(drop).map_err(refusal)
    }

    fn connect(&self, who: &Claimant) -> Result<Disk, Refusal> {
        self.open("x0", &who.boot, Some(who)).map_err(refusal)
    }

    fn open(&self, disk: &str, boot: &Boot, who: Option<&Claimant>) -> io::Result<Disk> {
        let wanted = Wanted { disk: disk.to_owned(), boot: boot.clone(), claimant: who.cloned() };
        let mut stream = self.ask(&Service::Disk(wanted))?;
        let export: Export = stream.hear()?;
        assert_eq!(export.size, u64::try_from(SIZE).unwrap());
        let (kernel, ours) = UnixStream::pair()?;
        // A test that fails is to end.
        kernel.set_read_timeout(Some(Duration::from_secs(120)))?;
        let carrier = thread::spawn(move || carry(stream, ours, Counter::unseen()));
        Ok(Disk { kernel, carrier })
    }
}

fn open(config: &Config, disks: &tests_server::Server, drain: Duration, state: &Path) -> (Arc<Server>, u16) {
    let kept = Store::open(&state.join("state")).unwrap();
    let mut storage = Storage::new(config, disks.socket(), drain, kept);
    // This machine's own disks are not looked at.
    storage.shelf.group = Mutex::new((tests_bench::without_disks(), None));
    serve(storage)
}

fn serve(storage: Storage) -> (Arc<Server>, u16) {
    serve_at_most(storage, places::CONNECTIONS)
}

fn serve_at_most(storage: Storage, places: usize) -> (Arc<Server>, u16) {
    places::raise_files().unwrap();
    let (keys, cluster) = (Keys::These(tests_ring(1)), "lab".to_owned());
    let server = Arc::new(Server {
        keys,
        cluster,
        places: Places::new(places),
        storage: Some(storage),
        desk: None,
        consoles: Consoles::default(),
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = Arc::clone(&server);
    thread::spawn(move || serving.listen(&listener));
    (server, port)
}

/// A supervisor that tells what it is told to.
fn supervisor(socket: &Path) -> Arc<Mutex<Status>> {
    let status = Arc::new(Mutex::new(Status::default()));
    let told = Arc::clone(&status);
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for mut menu in listener.incoming().flatten() {
            let status = ToMenu::Status(Box::new(told.lock().unwrap().clone()));
            for message in [ToMenu::Problem("no UPS".to_owned()), status] {
                writeln!(menu, "{}", serde_json::to_string(&message).unwrap()).unwrap();
            }
        }
    });
    status
}

fn refusal(error: io::Error) -> Refusal {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Refusal>()).cloned().unwrap_or_else(|| panic!("{error}"))
}

fn boot(node: &str, number: u64) -> Boot {
    Boot { node: node.to_owned(), incarnation: Incarnation::new(number).unwrap() }
}

fn who(node: &str, generation: u64) -> Claimant {
    let claim = Claim { epoch: 1, generation: Generation(generation) };
    Claimant { vm: VmName::new("x0").unwrap(), claim, boot: boot(node, 1) }
}

/// A disk as a node has it: its kernel's end of the socket pair.
struct Disk {
    kernel: UnixStream,
    carrier: JoinHandle<io::Result<()>>,
}

impl Disk {
    fn send(&mut self, kind: u16, offset: usize, data: &[u8]) -> io::Result<()> {
        let header = [
            &0x2560_9513_u32.to_be_bytes()[..],
            &[0; 2],
            &kind.to_be_bytes(),
            &[9; 8],
            &u64::try_from(offset).unwrap().to_be_bytes(),
            &u32::try_from(BLOCK).unwrap().to_be_bytes(),
        ];
        self.kernel.write_all(&[&header.concat(), data].concat())
    }

    fn answered(&mut self) -> io::Result<()> {
        let mut answer = [0; 16];
        self.kernel.read_exact(&mut answer)?;
        assert_eq!(answer[..8], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0], "an answer without an error");
        Ok(())
    }

    fn write(&mut self, block: usize, byte: u8) -> io::Result<()> {
        self.send(1, block * BLOCK, &[byte; BLOCK])?;
        self.answered()
    }

    fn read(&mut self, block: usize) -> io::Result<u8> {
        self.send(0, block * BLOCK, &[])?;
        self.answered()?;
        let mut data = [0; BLOCK];
        self.kernel.read_exact(&mut data)?;
        assert!(data.iter().all(|byte| *byte == data[0]), "a write is done whole");
        Ok(data[0])
    }

    fn ends_cut(mut self) -> bool {
        let cut = self.kernel.read(&mut [0; 1]).is_ok_and(|length| length == 0);
        // The kernel gives a socket up that has ended.
        drop(self.kernel);
        cut && self.carrier.join().unwrap().is_err()
    }
}

#[test]
fn a_newer_claim_takes_the_disk_and_cuts_the_older() {
    let gateway = Gateway::start();
    let (old, new) = (who("node1", 1), who("node2", 2));
    gateway.claim(&old, None).unwrap();
    let mut first = gateway.connect(&old).unwrap();
    first.write(0, 1).unwrap();
    assert!(matches!(gateway.connect(&new), Err(Refusal::Claimed(_))), "what was not claimed is not had");
    gateway.claim(&new, None).unwrap();
    assert!(first.ends_cut());
    assert!(matches!(gateway.connect(&old), Err(Refusal::Claimed(_))));
    assert!(matches!(gateway.claim(&old, None), Err(Refusal::Claimed(_))));
    let mut second = gateway.connect(&new).unwrap();
    assert_eq!(second.read(0).unwrap(), 1, "what was acknowledged is there");
    second.write(0, 2).unwrap();
    assert_eq!(gateway.disks.read("x0")[0], 2);
}

/// The source runs until the target's first write, the target may read before; and then there is no way back.
#[test]
fn a_migration_hands_over_with_the_targets_first_write() {
    let gateway = Gateway::start();
    let (source, target) = (who("node1", 1), who("node2", 2));
    gateway.claim(&source, None).unwrap();
    let mut there = gateway.connect(&source).unwrap();
    gateway.claim(&target, Some("node1")).unwrap();
    let mut here = gateway.connect(&target).unwrap();
    for round in 1..=5 {
        there.write(3, round).unwrap();
        assert_eq!(here.read(3).unwrap(), round, "both go on");
    }
    // Its carrier may be cut and connect again meanwhile.
    there = gateway.connect(&source).unwrap();
    there.write(3, 6).unwrap();
    here.write(4, 7).unwrap();
    assert!(there.ends_cut());
    assert!(matches!(gateway.connect(&source), Err(Refusal::Claimed(_))));
    assert_eq!((here.read(3).unwrap(), here.read(4).unwrap()), (6, 7));
}

/// What the source sent before it was stopped is done before the target's first write, however long it takes.
#[test]
fn a_target_does_not_write_while_a_request_of_the_source_is_in_flight() {
    let gateway = Gateway::impatient();
    let (source, target) = (who("node1", 1), who("node2", 2));
    gateway.claim(&source, None).unwrap();
    let mut there = gateway.connect(&source).unwrap();
    there.write(0, 1).unwrap();
    gateway.disks.stall(true);
    there.send(1, 0, &[2; BLOCK]).unwrap();
    gateway.claim(&target, Some("node1")).unwrap();
    let mut here = gateway.connect(&target).unwrap();
    assert!(here.write(0, 3).is_err(), "it gives up: the request is still in flight");
    assert_eq!(gateway.disks.read("x0")[0], 1, "and nothing was written");
    assert!(matches!(gateway.connect(&target), Err(Refusal::Busy(_))));
    gateway.disks.stall(false);
    let mut here = until(|| gateway.connect(&target).ok());
    here.write(0, 3).unwrap();
    assert_eq!(gateway.disks.read("x0")[0], 3);
    assert!(there.ends_cut());
    assert!(matches!(gateway.connect(&source), Err(Refusal::Claimed(_))));
}

#[test]
fn a_claim_is_not_granted_while_a_request_of_another_is_in_flight() {
    let gateway = Gateway::impatient();
    let (old, new) = (who("node1", 1), who("node2", 2));
    gateway.claim(&old, None).unwrap();
    let mut first = gateway.connect(&old).unwrap();
    first.write(0, 1).unwrap();
    gateway.disks.stall(true);
    first.send(1, 0, &[2; BLOCK]).unwrap();
    let busy = gateway.claim(&new, None).unwrap_err();
    assert_eq!(busy.to_string(), "requests of node1 to disk x0 are still in flight");
    assert!(matches!(gateway.connect(&old), Err(Refusal::Busy(_) | Refusal::Claimed(_))));
    gateway.disks.stall(false);
    until(|| gateway.claim(&new, None).ok());
    gateway.connect(&new).unwrap().write(0, 3).unwrap();
    assert_eq!(gateway.disks.read("x0")[0], 3);
}

/// Whoever connects again sends again what was not answered: of the first connection nothing may come later.
#[test]
fn a_new_connection_waits_for_the_requests_of_the_one_before() {
    let gateway = Gateway::impatient();
    let holder = who("node1", 1);
    gateway.claim(&holder, None).unwrap();
    let mut first = gateway.connect(&holder).unwrap();
    first.write(0, 1).unwrap();
    gateway.disks.stall(true);
    first.send(1, 0, &[2; BLOCK]).unwrap();
    assert!(matches!(gateway.connect(&holder), Err(Refusal::Busy(_))));
    gateway.disks.stall(false);
    let mut second = until(|| gateway.connect(&holder).ok());
    second.write(0, 3).unwrap();
    assert_eq!(gateway.disks.read("x0")[0], 3);
    assert!(first.ends_cut());
}

#[test]
fn claims_and_bars_outlive_the_storage() {
    let mut gateway = Gateway::start();
    let (old, new) = (who("node1", 1), who("node2", 2));
    gateway.claim(&old, None).unwrap();
    gateway.claim(&new, None).unwrap();
    assert_eq!(gateway.storage().reserve(), Ok(2));
    gateway.storage().bar(&boot("node3", 1), Duration::ZERO).unwrap();
    gateway.restart();
    assert!(matches!(gateway.claim(&old, None), Err(Refusal::Claimed(_))));
    assert!(matches!(gateway.connect(&old), Err(Refusal::Claimed(_))));
    assert!(matches!(gateway.claim(&who("node3", 9), None), Err(Refusal::Barred(_))));
    assert_eq!(gateway.storage().reserve(), Ok(3));
    gateway.connect(&new).unwrap().write(0, 4).unwrap();
}

/// A node that is alive and writes as fast as it can is barred: nothing of it is written afterwards.
#[test]
fn a_barred_node_writes_nothing_more() {
    let gateway = Gateway::start();
    let victim = who("node1", 1);
    gateway.claim(&victim, None).unwrap();
    let mut disk = gateway.connect(&victim).unwrap();
    let shared = gateway.open("shared", &victim.boot, None).unwrap();
    disk.write(0, 100).unwrap();
    let writer = thread::spawn(move || {
        let mut acknowledged = 100;
        // The last that was sent may have been done without an answer.
        while disk.write(0, if acknowledged == 200 { 100 } else { acknowledged + 1 }).is_ok() {
            acknowledged = if acknowledged == 200 { 100 } else { acknowledged + 1 };
        }
        acknowledged
    });
    let first = gateway.disks.read("x0")[0];
    until(|| (gateway.disks.read("x0")[0] != first).then_some(()));
    gateway.storage().bar(&victim.boot, Duration::from_secs(60)).unwrap();
    let after = gateway.disks.read("x0");
    let acknowledged = writer.join().unwrap();
    assert!(gateway.disks.read("x0") == after, "nothing was written after it was barred");
    let next = if acknowledged == 200 { 100 } else { acknowledged + 1 };
    assert!([acknowledged, next].contains(&after[0]), "and what was acknowledged was written");
    assert!(matches!(gateway.connect(&victim), Err(Refusal::Barred(_))));
    assert!(shared.ends_cut(), "it does not read on either");
    assert!(gateway.open("shared", &victim.boot, None).is_err());
    assert!(gateway.open("shared", &boot("node1", 2), None).is_ok(), "its next boot is free");
    assert!(gateway.disks.read("x0") == after);
}

/// What GFS2 is on needs no claim: its members write side by side; and one that is barred writes nothing more.
#[test]
fn all_nodes_write_to_the_shared_disk_until_they_are_barred() {
    let gateway = Gateway::with_gfs2();
    let boots = [boot("node1", 1), boot("node2", 1)];
    let [mut first, mut second] = boots.each_ref().map(|boot| gateway.open("shared", boot, None).unwrap());
    first.write(0, 1).unwrap();
    second.write(1, 2).unwrap();
    assert_eq!((first.read(1).unwrap(), second.read(0).unwrap()), (2, 1));
    gateway.storage().bar(&boots[0], Duration::from_secs(60)).unwrap();
    assert!(first.ends_cut());
    assert!(gateway.open("shared", &boots[0], None).is_err());
    second.write(0, 3).unwrap();
    assert_eq!((gateway.disks.read("shared")[0], gateway.disks.read("shared")[BLOCK]), (3, 2));
    let strict = Gateway::start();
    assert!(strict.open("x0", &boots[1], None).is_err(), "a VM's disk wants a claim");
}

#[test]
fn a_bar_is_not_confirmed_while_a_request_is_in_flight() {
    let gateway = Gateway::start();
    let victim = who("node1", 1);
    gateway.claim(&victim, None).unwrap();
    let mut disk = gateway.connect(&victim).unwrap();
    disk.write(0, 1).unwrap();
    gateway.disks.stall(true);
    disk.send(1, 0, &[2; BLOCK]).unwrap();
    assert!(matches!(gateway.storage().bar(&victim.boot, Duration::from_millis(100)), Err(Refusal::Busy(_))));
    gateway.disks.stall(false);
    gateway.storage().bar(&victim.boot, Duration::from_secs(60)).unwrap();
    // It has closed the connection, and ends.
    until(|| gateway.disks.connections().is_empty().then_some(()));
}

#[test]
fn what_is_wrong_is_said_plainly() {
    let gateway = Gateway::start();
    let holder = who("node1", 1);
    let error = |disk: &str, who: Option<&Claimant>| gateway.open(disk, &holder.boot, who).err().unwrap().to_string();
    assert_eq!(
        error("x9", Some(&holder)),
        "the gateway exports no disk x9: neither cluster.toml nor its volume group has one"
    );
    assert_eq!(error("x0", None), "disk x0 wants a claim");
    assert_eq!(error("x0", Some(&who("node2", 1))), "disk x0 wants a claim", "one claims for oneself");
    let stranger = Stream::connect(
        (Ipv4Addr::LOCALHOST, gateway.port),
        &tests_ring(2),
        "lab",
        &Service::Disk(Wanted { disk: "x0".to_owned(), boot: boot("node1", 1), claimant: None }),
    );
    assert_eq!(stranger.unwrap_err().to_string(), "it refuses this cluster's key");
    let other = Claimant { vm: VmName::new("y0").unwrap(), ..who("node2", 9) };
    gateway.claim(&holder, None).unwrap();
    let _disk = gateway.connect(&holder).unwrap();
    assert_eq!(
        gateway.claim(&other, None).unwrap_err().to_string(),
        "disk x0 is already claimed by VM x0 on node1 (claim 1.1); refused to VM y0 on node2 (claim 1.9)"
    );
    assert_eq!(gateway.disks.read("x0")[0], BYTE);
}

#[test]
fn an_order_is_carried_out_and_answered() {
    let gateway = Gateway::start();
    let ordered = |line: &str| {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(line.as_bytes()).unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        let served = orders::serve(theirs, gateway.storage());
        let mut answer = String::new();
        ours.read_to_string(&mut answer).unwrap();
        served.map(|()| answer)
    };
    assert_eq!(ordered("\"Reserve\"\n").unwrap(), "{\"Reserved\":1}\n");
    let bar = orders::Order::Bar { boot: boot("node1", 1), longest_ms: 1000 };
    let line = serde_json::to_string(&bar).unwrap() + "\n";
    let done = orders::Done::Barred(boot("node1", 1));
    assert_eq!(ordered(&line).unwrap(), serde_json::to_string(&done).unwrap() + "\n");
    for cut in 0..line.len() - 1 {
        assert!(ordered(&line[..cut]).is_err());
    }
    assert!(ordered("\"Reserved\"\n").is_err());
}

#[test]
fn processes_of_the_nbd_server_are_known_by_their_names() {
    let directory = tempfile::tempdir().unwrap();
    let process = |pid: &str, line: &[u8]| {
        fs::create_dir_all(directory.path().join(pid)).unwrap();
        fs::write(directory.path().join(pid).join("cmdline"), line).unwrap();
    };
    process("12", b"/bin/nbd-server\0-C\0/run/holdfast/nbd-server.conf\0");
    process("13", b"/bin/holdfast\0streams\0");
    process("14", b"");
    assert!(!serving(directory.path(), "12\n"));
    assert!(serving(directory.path(), "11\n") && serving(directory.path(), ""));

    process("15", b"/bin/nbd-server\0-C\0/run/holdfast/nbd-server.conf\0");
    assert!(serving(directory.path(), "12\n"));
}

#[test]
fn who_works_on_a_disk_is_known_by_its_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let exports = Config::parse(GOOD).unwrap().exports;
    let process = |pid: &str, words: &[&str]| {
        fs::create_dir_all(directory.path().join(pid)).unwrap();
        fs::write(directory.path().join(pid).join("cmdline"), words.join("\0") + "\0").unwrap();
    };
    process("7", &["/usr/sbin/fsck.gfs2", "-q", "-y", "/dev/disk/shared"]);
    process("8", &["/usr/sbin/fsck.gfs2", "-q", "-y", "/dev/disk/another"]);
    process("9", &["/sbin/lvm", "lvremove", "--config", "log { }", "--yes", "holdfast/web"]);
    process("10", &["/sbin/lvm", "lvextend", "--config", "log { }", "--yes", "holdfast/mail"]);
    process("11", &[]);
    let mut all = LeftOver::all(directory.path(), &exports);
    all.sort_by_key(|(name, ..)| name.clone());
    let [(shared, checked, check), (web, deleted, _)] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((shared.as_str(), *checked, web.as_str(), *deleted), ("shared", "checked", "web", "deleted"));
    assert!(check.goes_on());
    // Another process has its number by now.
    process("7", &["/bin/holdfast", "menu"]);
    assert!(!check.goes_on());
}

#[test]
fn who_is_no_node_any_more_loses_what_it_has_open() {
    let gateway = Gateway::with_gfs2();
    let mut disk = gateway.open("shared", &boot("node1", 1), None).unwrap();
    gateway.server.places.keep(|from| from == Ipv4Addr::LOCALHOST);
    assert_eq!(disk.read(0).unwrap(), BYTE);
    gateway.server.places.keep(|from| from != Ipv4Addr::LOCALHOST);
    assert!(disk.ends_cut());
}

#[test]
fn more_disks_are_served_than_there_once_were_connections() {
    let gateway = Gateway::with_gfs2();
    let open = |boots: u64| gateway.open("shared", &boot("node1", boots), None).unwrap();
    let mut disks: Vec<Disk> = (1..=160).map(open).collect();
    for disk in &mut disks {
        assert_eq!(disk.read(0).unwrap(), BYTE);
    }
}

#[test]
fn who_finds_no_place_is_told_so_and_gets_one_later() {
    let mut gateway = Gateway::with_gfs2();
    let kept = Store::open(&gateway.state.path().join("state")).unwrap();
    let storage = Storage::new(&gateway.config, gateway.disks.socket(), gateway.drain, kept);
    (gateway.server, gateway.port) = serve_at_most(storage, 2);
    let open = |boots: u64| gateway.open("shared", &boot("node1", boots), None);
    let (first, _second) = (open(1).unwrap(), open(2).unwrap());
    let Refusal::Busy(reason) = refusal(open(3).map(drop).unwrap_err()) else { panic!("it is not busy") };
    assert!(reason.contains("serves 2 connections already"), "{reason}");
    drop(first.kernel);
    until(|| open(3).ok());
}

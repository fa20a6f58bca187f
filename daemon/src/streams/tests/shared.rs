//! The file system on the shared disk, checked and given journals: Debian's `fsck.gfs2` on a real one, in a file.

use std::process::{Command, Stdio};

use cluster::status::NodeStatus;
use cluster::words::{Mebibytes, Role};
use console::{VolumeRequest, Volumes};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::gfs2;

/// A gateway whose shared disk is a file, and a supervisor that tells what it is told to.
struct Lab {
    gateway: Gateway,
    disk: PathBuf,
    status: Arc<Mutex<Status>>,
}

impl Lab {
    fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let disk = state.path().join("shared.img");
        let text = GOOD.replace("read_only = true\n", "");
        let config = Config::parse(&format!("{text}\n[shared]\nfilesystem = \"gfs2\"\n")).unwrap();
        gfs2::tests::made(&disk, &config.name);
        let (drain, disks) = (Duration::from_secs(60), tests_server::Server::start(&["x0", "shared"]));
        let status = supervisor(&state.path().join("menu.sock"));
        let (server, port) = serve(storage(&config, disks.socket(), drain, &disk));
        Self { gateway: Gateway { config, disks, drain, state, server, port }, disk, status }
    }

    /// Its storage forgets all that it has not kept, as its process does when it is started again.
    fn restart(&mut self) {
        let Gateway { config, disks, drain, .. } = &self.gateway;
        let storage = storage(config, disks.socket(), *drain, &self.disk);
        storage.withhold_left_over(Path::new("/proc"));
        (self.gateway.server, self.gateway.port) = serve(storage);
    }

    fn ask(&self, request: &VolumeRequest) -> Result<Volumes, String> {
        let service = Service::Volume(postcard::to_allocvec(request).unwrap());
        let told: Result<Vec<u8>, String> = self.gateway.ask(&service).unwrap().hear().unwrap();
        told.map(|volumes| postcard::from_bytes(&volumes).unwrap())
    }

    /// What a check says, or why it is refused.
    fn check(&self, repair: bool) -> Result<String, String> {
        let name = || "shared".to_owned();
        self.ask(&VolumeRequest::Check { export: name(), repair, typed: name() }).map(|told| told.said.unwrap())
    }

    /// The cluster as the gateway knows it: each node's name, its state, and how long ago it was heard.
    fn nodes(&self, quorate: bool, nodes: &[(&str, &str, Option<u64>)]) {
        let node = |(name, state, heard_ms): &(&str, &str, Option<u64>)| node(name, state, *heard_ms);
        let nodes = [node(&("gateway", "member", Some(0)))].into_iter().chain(nodes.iter().map(node)).collect();
        *self.status.lock().unwrap() = Status { quorate, nodes, ..Status::default() };
    }
}

/// The storage of a gateway whose shared disk is a file, beside which it keeps its tables.
fn storage(config: &Config, server: PathBuf, drain: Duration, disk: &Path) -> Storage {
    let mut storage = Storage::new(config, server, drain, Store::open(&disk.with_file_name("state")).unwrap());
    storage.shelf.group = Mutex::new((tests_bench::without_disks(), None));
    let shared = storage.exports.iter_mut().find(|export| export.name == "shared").unwrap();
    shared.device = disk.display().to_string();
    storage.shelf.supervisor = disk.with_file_name("menu.sock");
    storage
}

fn node(name: &str, state: &str, heard_ms: Option<u64>) -> NodeStatus {
    NodeStatus {
        name: name.to_owned(),
        role: if name == "gateway" { Role::Gateway } else { Role::Node },
        state: state.to_owned(),
        incarnation: "0000000001".to_owned(),
        heard_ms,
        links: Vec::new(),
        free: Mebibytes(0),
        on_trial: false,
        standby: false,
        maintenance: false,
        disarmed: false,
        death: None,
        outlets: Vec::new(),
    }
}

#[test]
fn it_is_checked_and_repaired_when_every_node_is_off() {
    let lab = Lab::start();
    lab.nodes(false, &[("node1", "off", Some(90_000)), ("node2", "fenced", None), ("node3", "removed", Some(1))]);
    assert_eq!(lab.check(false).unwrap(), "The file system is in order.");
    gfs2::tests::damage(&lab.disk);
    assert!(lab.check(false).unwrap().contains("There are errors; nothing was changed"));
    assert!(lab.check(true).unwrap().contains("they were repaired"));
    assert_eq!(lab.check(false).unwrap(), "The file system is in order.");
    // Nobody was barred: all were known to be off.
    lab.gateway.open("shared", &boot("node1", 1), None).unwrap();
}

#[test]
fn it_is_not_checked_while_a_node_may_have_it_mounted() {
    let lab = Lab::start();
    let before = fs::read(&lab.disk).unwrap();
    let refused = |says: &str| {
        let reason = lab.check(true).unwrap_err();
        assert!(reason.contains(says), "{reason}");
    };
    lab.nodes(true, &[("node1", "off", None), ("node2", "member", Some(400))]);
    refused("node2 is on: shut down every node first");
    lab.nodes(false, &[("node1", "unknown", Some(59_000))]);
    refused("node1 is on");
    lab.nodes(true, &[("node1", "unclean", Some(90_000))]);
    refused("node1 is unclean, and may have it mounted");
    lab.nodes(false, &[("node1", "off", Some(90_000))]);
    let disk = lab.gateway.open("shared", &boot("node1", 1), None).unwrap();
    refused("node1 is connected to it");
    drop(disk);
    let wrong = VolumeRequest::Check { export: "shared".to_owned(), repair: true, typed: "share".to_owned() };
    assert_eq!(lab.ask(&wrong).unwrap_err(), "\"share\" is not its name");
    let other = VolumeRequest::Check { export: "x0".to_owned(), repair: true, typed: "x0".to_owned() };
    assert!(lab.ask(&other).unwrap_err().contains("carries no file system of all nodes"));
    assert!(fs::read(&lab.disk).unwrap() == before);
}

/// What the operator says is believed, and nothing depends on it: a node that has power all the same writes nothing more.
#[test]
fn a_node_that_is_not_known_to_be_off_is_barred() {
    let lab = Lab::start();
    lab.nodes(false, &[("node1", "leaving", Some(61_000)), ("node2", "unknown", None)]);
    assert_eq!(lab.check(false).unwrap(), "The file system is in order.");
    for name in ["node1", "node2"] {
        let error = lab.gateway.open("shared", &boot(name, 1), None).map(drop).unwrap_err();
        assert!(matches!(refusal(error), Refusal::Barred(_)));
        lab.gateway.open("shared", &boot(name, 2), None).map(drop).unwrap();
    }
}

#[test]
fn nobody_gets_it_while_it_is_checked() {
    let lab = Lab::start();
    let withheld = lab.gateway.storage().withhold("shared", "checked").unwrap();
    let error = lab.gateway.open("shared", &boot("node1", 1), None).map(drop).unwrap_err();
    assert_eq!(refusal(error), Refusal::Busy("disk shared is being checked".to_owned()));
    assert_eq!(lab.check(false).unwrap_err(), "it is being checked already");
    drop(withheld);
    lab.gateway.open("shared", &boot("node1", 1), None).unwrap();
}

/// The storage is started again while a check goes on: the check outlives it, and nobody gets the disk before it has ended.
#[test]
fn a_check_that_is_left_over_keeps_the_disk() {
    let mut lab = Lab::start();
    let check = loop {
        let mut check = Command::new(gfs2::FSCK);
        let mut check = check.args(["-q", "-n"]).arg(&lab.disk).stdout(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_raw(check.id().try_into().unwrap());
        kill(pid, Signal::SIGSTOP).unwrap();
        let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // It may have been faster.
        if until(|| Some(state()).filter(|stat| stat.contains(") T ") || stat.contains(") Z "))).contains(") T ") {
            break (check, pid);
        }
        check.wait().unwrap();
    };
    let (mut check, pid) = check;
    lab.restart();
    let open = || lab.gateway.open("shared", &boot("node1", 1), None).map(drop);
    assert_eq!(refusal(open().unwrap_err()), Refusal::Busy("disk shared is being checked".to_owned()));
    assert_eq!(lab.check(true).unwrap_err(), "it is being checked already");
    let other = lab.gateway.open("x0", &boot("node1", 1), None).map(drop).unwrap_err();
    assert!(matches!(refusal(other), Refusal::Other(_)), "other disks are served: this one wants a claim");
    kill(pid, Signal::SIGCONT).unwrap();
    assert!(check.wait().unwrap().success());
    open().unwrap();
    lab.nodes(false, &[]);
    until(|| lab.check(false).ok());
}

#[test]
fn journals_are_added_by_a_node_that_has_it_mounted() {
    let lab = Lab::start();
    let ask = |typed: &str| {
        let request = VolumeRequest::Journals { export: "shared".to_owned(), typed: typed.to_owned() };
        lab.ask(&request).map(drop).unwrap_err()
    };
    for typed in ["0", "17", "two", "-1", "256"] {
        assert_eq!(ask(typed), format!("\"{typed}\" is no number from 1 to 16"));
    }
    assert!(ask("1").contains("no node has it mounted"));
    // Whoever has it not mounted says so, and adds nothing.
    let error = lab.gateway.ask(&Service::Journals(1)).map(drop).unwrap_err();
    assert!(error.to_string().contains("has not mounted"), "{error}");
}

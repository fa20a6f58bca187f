//! A machine joins as in the rack, without the rack: the program itself as gateway and as node, each in namespaces of its own
//! where `/dev`, `/etc`, `/run` and `/sys` are such a machine's, on one network. It needs root, as the rack does.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The cluster's network.
const NETWORK: &str = "ip link add br0 type bridge && ip link set br0 up && echo up && exec sleep 1d";

/// A machine's card and cable; those of its last boot go when that has ended for good. Then its processes.
const CABLE: &str = "until ip link add eth0 type veth peer name \"$NAME\" netns \"$NETWORK\"; do sleep 0.1; done
nsenter --net=\"$NETWORK\" ip link set \"$NAME\" master br0 up
ip link set lo up
ip address add \"$ADDRESS\" dev eth0
ip link set eth0 up
exec unshare --pid --fork --kill-child --mount-proc sh -c \"$BOOT\"";

/// What init does of it: `streams` and the supervisor, again whenever they end.
const BOOT: &str = "set -e
mount --bind /dev/null \"$MACHINE/dev/null\"
for folder in dev etc run sys; do mount --bind \"$MACHINE/$folder\" /$folder; done
while :; do \"$HOLDFAST\" streams || true; sleep 0.2; done &
while :; do \"$HOLDFAST\" supervise || true; sleep 0.2; done";

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const PASSWORD: &str = "a-community-that-nobody-guesses";
const CLUSTER: &str = include_str!("../cluster/src/config/good.toml");

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A rack's network, and the public key of its gateway.
struct Site {
    directory: tempfile::TempDir,
    network: Running,
    join_key: String,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut network = Command::new("unshare");
        network.args(["--net", "--fork", "--kill-child", "sh", "-c", NETWORK]);
        let mut network = Running(network.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
        let mut up = String::new();
        BufReader::new(network.0.stdout.take().unwrap()).read_line(&mut up).unwrap();
        assert_eq!(up, "up\n");
        let (cluster, secrets) = (directory.path().join("cluster.toml"), directory.path().join("secrets.toml"));
        fs::write(&cluster, CLUSTER).unwrap();
        fs::write(&secrets, secrets_toml(KEY)).unwrap();
        let join_key = Command::new(env!("CARGO_BIN_EXE_holdfast")).arg("join-key").args([cluster, secrets]).output();
        let join_key = String::from_utf8(join_key.unwrap().stdout).unwrap();
        assert_eq!(join_key.len(), 65, "64 digits and a line's end");
        Self { directory, network, join_key }
    }

    /// A machine with that card: it boots with `secrets.toml`, or with the gateway's public key.
    fn machine(&self, name: &str, mac: &str, booted: (&str, &str)) -> Machine {
        let folder = self.directory.path().join(name);
        for below in ["dev", "etc/holdfast", "sys/class/net/eth0/device", "sys/block/vda/device"] {
            fs::create_dir_all(folder.join(below)).unwrap();
        }
        fs::write(folder.join("dev/null"), "").unwrap();
        fs::write(folder.join("sys/class/net/eth0/address"), format!("{mac}\n")).unwrap();
        fs::write(folder.join("etc/holdfast/cluster.toml"), CLUSTER).unwrap();
        fs::write(folder.join("etc/holdfast").join(booted.0), booted.1).unwrap();
        let mut state = vec![0; 1 << 20];
        state.splice(..16, *b"HOLDFAST STATE 1");
        fs::write(folder.join("state"), state).unwrap();
        let address =
            CLUSTER.lines().find_map(|line| line.split_once(mac)?.1.split_once("address = \"")?.1.split_once('"'));
        // One that is no node yet has the next address: here is no init that would give it to it later.
        let address = format!("{}/24", address.map_or("10.77.0.13", |(address, _)| address));
        let network = format!("/proc/{}/ns/net", self.network.0.id());
        Machine { folder, name: name.to_owned(), address, network, running: None }
    }

    fn gateway(&self) -> Machine {
        let mut gateway = self.machine("gateway", "52:54:00:77:00:01", ("secrets.toml", &secrets_toml(KEY)));
        gateway.boot();
        gateway
    }

    fn node(&self, number: u8) -> Machine {
        let (name, mac) = (format!("node{number}"), format!("52:54:00:77:00:1{number}"));
        self.machine(&name, &mac, ("join.key", &self.join_key))
    }
}

fn secrets_toml(key: &str) -> String {
    format!("cluster_key = \"{key}\"\n[pdu.pdu1]\ncommunity = \"{PASSWORD}\"\n")
}

struct Machine {
    folder: PathBuf,
    name: String,
    address: String,
    network: String,
    running: Option<Running>,
}

impl Machine {
    /// With a blank disk of its own, on which an identity lasts.
    fn with_disk(self) -> Self {
        fs::write(self.folder.join("dev/vda"), vec![0; 4 << 20]).unwrap();
        self
    }

    fn boot(&mut self) {
        self.running = None;
        let run = self.folder.join("run");
        // What a reboot forgets.
        drop(fs::remove_dir_all(&run));
        fs::create_dir_all(run.join("holdfast")).unwrap();
        fs::write(run.join("holdfast/incarnation"), "00000000000000ab\n").unwrap();
        symlink(self.folder.join("state"), run.join("holdfast/state")).unwrap();
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-c", CABLE]).env("BOOT", BOOT);
        command.env("NAME", &self.name).env("ADDRESS", &self.address).env("NETWORK", &self.network);
        command.env("MACHINE", &self.folder).env("HOLDFAST", env!("CARGO_BIN_EXE_holdfast"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.running = Some(Running(command.spawn().unwrap()));
    }

    /// Looks until there is something to see.
    fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            let log = || fs::read_to_string(self.folder.join("log")).unwrap();
            assert!(Instant::now() < deadline, "{what}: not within {} s\n{}", PATIENCE.as_secs(), log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What its menu is told: the first thing that is as wanted, once it was asked for `request`.
    fn told<T>(&self, what: &str, request: &str, mut wanted: impl FnMut(&Value) -> Option<T>) -> T {
        let socket = self.folder.join("run/holdfast/menu.sock");
        self.until(what, || {
            let mut stream = UnixStream::connect(&socket).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.write_all(request.as_bytes()).ok()?;
            let lines = BufReader::new(stream).lines().map_while(Result::ok);
            let limit = Instant::now() + PATIENCE;
            let lines = lines.take_while(|_| Instant::now() < limit);
            lines.map(|line| serde_json::from_str(&line).unwrap()).find_map(|told| wanted(&told))
        })
    }

    /// How its joining stands, as soon as `words` are said of it.
    fn joins(&self, words: &str) -> String {
        self.told(words, "", |told| Some(told["joins"].as_str()?.to_owned()).filter(|text| text.contains(words)))
    }

    /// The code that it shows.
    fn code(&self) -> String {
        let text = self.joins("Its code is ");
        text.split_once("Its code is ").unwrap().1.chars().take(6).collect()
    }

    /// What the gateway answers to a menu's request.
    fn order(&self, request: &str) -> Result<Value, String> {
        let request = format!("{{\"join\":{request}}}\n");
        self.until("the gateway answers", || {
            let outcome = self.told(&request, &request, |told| told.get("joining")?.get("outcome").cloned());
            let outcome = outcome.get("Ok").cloned().ok_or_else(|| outcome["Err"].as_str().unwrap().to_owned());
            // The process that answers may not be there yet.
            Some(outcome).filter(|outcome| !matches!(outcome, Err(reason) if reason.contains("Connection refused")))
        })
    }

    /// The one that asks to join, as soon as it does.
    fn asking(&self) -> Value {
        self.until("it asks", || {
            let listing = self.order("\"list\"").ok()?;
            let asking = listing["asking"].as_array().unwrap();
            (asking.len() == 1).then(|| asking.first().unwrap().clone())
        })
    }

    /// It has the secrets, as they are, for itself alone; and its supervisor goes on as a node's.
    fn has_joined(&self) {
        let secrets = self.folder.join("run/holdfast/secrets.toml");
        self.until("it has the secrets", || secrets.exists().then_some(()));
        let given = fs::read_to_string(&secrets).unwrap();
        assert!(
            given.starts_with("key = ") && given.contains(PASSWORD) && !given.contains(KEY),
            "the root stays: {given}"
        );
        assert_eq!(fs::metadata(&secrets).unwrap().mode() & 0o777, 0o600);
        self.told("it is a node", "", |told| told.get("status").map(drop));
    }

    /// Its status calls a node a member.
    fn sees_member(&self, name: &str) {
        self.told(&format!("{name} is a member"), "", |told| {
            let nodes = told.get("status")?["nodes"].as_array()?;
            nodes.iter().any(|node| node["name"] == name && node["state"] == "member").then_some(())
        });
    }

    fn says_no_secret(&self) {
        let log = fs::read_to_string(self.folder.join("log")).unwrap();
        assert!(!log.contains(KEY) && !log.contains(PASSWORD), "{log}");
    }
}

#[test]
fn a_machine_is_let_in_by_its_code_and_then_at_every_boot_until_that_is_taken_back() {
    let site = Site::new();
    let mut gateway = site.gateway();
    let mut node = site.node(1).with_disk();
    node.boot();
    let code = node.code();
    let asking = gateway.asking();
    assert_eq!((asking["node"].as_str(), asking["card"].as_str()), (Some("node1"), Some("52:54:00:77:00:11")));
    let approve = |code: &str| format!("{{\"approve\":{{\"ask\":{},\"code\":\"{code}\"}}}}", asking["ask"]);
    let wrong = if code == "000000" { "000001" } else { "000000" };
    assert!(gateway.order(&approve(wrong)).unwrap_err().contains("not the code"));
    assert!(!node.folder.join("run/holdfast/secrets.toml").exists());
    gateway.order(&approve(&code)).unwrap();
    node.has_joined();

    // Any node's menu reaches the gateway.
    let listing = node.order("\"list\"").unwrap();
    assert_eq!(listing["machines"].as_array().unwrap().len(), 1);
    let identity = listing["machines"][0]["identity"].as_str().unwrap().to_owned();

    node.boot();
    node.has_joined();
    gateway.boot();
    node.boot();
    node.has_joined();

    gateway.order(&format!("{{\"revoke\":{{\"identity\":\"{identity}\"}}}}")).unwrap();
    node.boot();
    node.joins("The gateway refuses it: its approval was taken back");
    assert!(!node.folder.join("run/holdfast/secrets.toml").exists());
    let disk = fs::read(node.folder.join("dev/vda")).unwrap();
    assert!(!disk.windows(KEY.len()).any(|bytes| bytes == KEY.as_bytes()), "nothing secret of the cluster's is on it");
    [gateway, node].iter().for_each(Machine::says_no_secret);
}

#[test]
fn a_window_lets_machines_in_and_without_a_disk_only_for_one_boot() {
    let site = Site::new();
    let gateway = site.gateway();
    gateway.order("{\"open\":{\"machines\":\"2\"}}").unwrap();
    let mut nodes = [site.node(1), site.node(2).with_disk()];
    nodes.iter_mut().for_each(Machine::boot);
    nodes.iter().for_each(Machine::has_joined);
    assert!(gateway.order("\"list\"").unwrap()["window"].is_null(), "two were to be let in");

    let [first, second] = &mut nodes;
    gateway.order("{\"open\":{\"machines\":\"2\"}}").unwrap();
    first.boot();
    let text = first.joins("Its code is ");
    assert!(text.contains("another machine with its card 52:54:00:77:00:11 is approved"), "{text}");
    assert!(text.contains("It must be let in at every boot"), "{text}");
    second.boot();
    second.has_joined();
}

/// The key is changed at one menu; all members come by it, one of them without a disk to keep its identity on. Who holds the old
/// one then is heard by nobody.
#[test]
fn when_the_key_is_changed_all_come_by_it_and_the_old_one_is_useless() {
    let site = Site::new();
    let gateway = site.gateway();
    gateway.order("{\"open\":{\"machines\":\"2\"}}").unwrap();
    let mut nodes = [site.node(1), site.node(2).with_disk()];
    nodes.iter_mut().for_each(Machine::boot);
    nodes.iter().for_each(|node| gateway.sees_member(&node.name));
    let secrets = |node: &Machine| fs::read_to_string(node.folder.join("run/holdfast/secrets.toml")).unwrap();
    let old = secrets(&nodes[1]);
    assert!(old.starts_with("key = 1\n"));

    let agreed = |told: &Value| (told.get("answer")?.as_str()? == "agreed").then_some(());
    nodes[0].told("the change is agreed", "{\"request\":{\"change_key\":{\"key\":2}}}\n", agreed);
    for machine in nodes.iter().chain([&gateway]) {
        machine.told("it has left the old key behind", "", |told| {
            let status = told.get("status")?;
            (status["key"] == 2 && status["oldest_key"] == 2 && status["quorate"] == true).then_some(())
        });
        machine.until("the old key is forgotten", || {
            (!machine.folder.join("run/holdfast/secrets.before").exists()).then_some(())
        });
    }
    nodes.iter().for_each(|node| assert!(secrets(node).starts_with("key = 2\n")));
    assert_ne!(secrets(&nodes[0]), old.replacen("key = 1", "key = 2", 1), "it is another key");

    nodes[1].running = None;
    let mut stranger = site.machine("node2", "52:54:00:77:00:12", ("secrets.toml", &old));
    stranger.boot();
    gateway.told("what it says opens nowhere", "", |told| {
        told.get("log")?.to_string().contains("datagrams with a bad seal").then_some(())
    });
    let refused = stranger.order("\"list\"").unwrap_err();
    assert!(refused.contains("it refuses this cluster's key"), "{refused}");
    [&gateway, &nodes[0], &stranger].into_iter().for_each(Machine::says_no_secret);
}

#[test]
fn a_machine_that_is_no_node_becomes_one_by_its_code() {
    let site = Site::new();
    let gateway = site.gateway();
    gateway.order("{\"open\":{\"machines\":\"2\"}}").unwrap();
    let mut nodes = [site.node(1), site.node(2)];
    nodes.iter_mut().for_each(Machine::boot);
    nodes.iter().for_each(|node| gateway.sees_member(&node.name));

    let mut new = site.node(3).with_disk();
    new.boot();
    assert!(new.joins("Its code is ").contains("as a new node"));
    // Any node's menu does.
    let asking = nodes[0].asking();
    assert_eq!(asking["offer"]["Ok"], "node3, fed by pdu1 outlet 4, 52:54:00:77:00:13 on cluster as 10.77.0.13");
    let approve = format!("{{\"approve\":{{\"ask\":{},\"code\":\"{}\"}}}}", asking["ask"], new.code());
    nodes[0].order(&approve).unwrap();
    new.has_joined();
    gateway.sees_member("node3");

    // What it boots does not name it; the gateway does, and keeps that.
    new.boot();
    new.has_joined();
    let kept = fs::read(gateway.folder.join("state")).unwrap();
    assert!(kept.windows(14).any(|bytes| bytes == b"name = \"node3\""));
    let [first, _] = &nodes;
    let agreed = fs::read_to_string(first.folder.join("run/holdfast/cluster.toml")).unwrap();
    assert!(agreed.contains("edition = 2") && agreed.contains("52:54:00:77:00:13"), "{agreed}");
}

#[test]
fn a_machine_with_another_clusters_image_is_told_so() {
    let site = Site::new();
    let _gateway = site.gateway();
    let mut node = site.machine("node1", "52:54:00:77:00:11", ("join.key", &"ab".repeat(32)));
    node.boot();
    node.joins("it does not hold the key that this image names");
    assert!(!node.folder.join("run/holdfast/secrets.toml").exists());
}

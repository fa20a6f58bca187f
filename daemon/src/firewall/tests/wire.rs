//! The rules in the kernel: a node in one network namespace, everybody else in another, and every port tried.
//!
//! No test waits for silence. What the kernel let pass and what it refused is written down by rules of the test's own
//! behind those that are tried, in two sets of ports; a port that is in neither was lost on the way and is tried again.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::super::Protocol;
use super::generated;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
const TWO_NETWORKS: &str = include_str!("../cases/two-networks.txt");
const GFS2: &str = include_str!("../cases/node-gfs2.txt");
const GATEWAY: &str = include_str!("../cases/gateway.txt");
const SYSLOG_UDP: &str = include_str!("../cases/syslog-udp.txt");
const SYSLOG_TCP: &str = include_str!("../cases/syslog-tcp.txt");

/// The node, the gateway and node1 as the cases have them; a stranger; the power switch; a UPS's host on each network.
const NODE: [u8; 4] = [10, 77, 0, 12];
const PEER: [u8; 4] = [10, 77, 0, 11];
const STRANGER: [u8; 4] = [10, 77, 0, 66];
const PDU: [u8; 4] = [10, 77, 0, 250];
const UPS: [u8; 4] = [10, 77, 0, 9];
const EVERYBODY: [u8; 4] = [10, 77, 0, 255];
/// A port that Linux would take for who asks for none.
const ASKING: u16 = 40_000;

/// What writes down where packets went; it is put behind the rules that are tried.
const WITNESSES: &str = "
table inet holdfast {
    set passed_in { type inet_proto . inet_service; size 131072; flags dynamic; }
    set refused_in { type inet_proto . inet_service; size 131072; flags dynamic; }
    set passed_out { type inet_proto . inet_service; size 131072; flags dynamic; }
    set refused_out { type inet_proto . inet_service; size 131072; flags dynamic; }
    chain seen_in {
        type filter hook input priority 10
        meta l4proto { tcp, udp } add @passed_in { meta l4proto . th dport }
    }
    chain seen_out {
        type filter hook output priority 10
        meta l4proto { tcp, udp } add @passed_out { meta l4proto . th dport }
    }
}
add rule inet holdfast input meta l4proto { tcp, udp } add @refused_in { meta l4proto . th dport }
add rule inet holdfast output meta l4proto { tcp, udp } add @refused_out { meta l4proto . th dport }
";

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own, which does what it is told there.
struct Place {
    thread: rustix::process::Pid,
    jobs: mpsc::Sender<Job>,
}

impl Place {
    fn new() -> Self {
        let (jobs, told) = mpsc::channel::<Job>();
        let (say, said) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: this test needs root, as the rack does");
            say.send(rustix::thread::gettid()).unwrap();
            told.into_iter().for_each(|job| job());
        });
        let place = Self { thread: said.recv().unwrap(), jobs };
        place.ip("link set lo up");
        place
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (say, said) = mpsc::channel();
        self.jobs.send(Box::new(move || drop(say.send(job())))).unwrap();
        said.recv().expect("the job has panicked")
    }

    fn ip(&self, arguments: &str) -> String {
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        self.run(move || program("ip", &arguments, "").expect("ip"))
    }

    fn nft(&self, rules: &str) {
        let rules = rules.to_owned();
        self.run(move || program("nft", &["-f", "-"].map(str::to_owned), &rules).expect("nft -f -"));
    }

    fn list(&self, what: &str) -> String {
        let arguments: Vec<String> = ["-s", "list"].into_iter().chain(what.split(' ')).map(str::to_owned).collect();
        self.run(move || program("nft", &arguments, "").expect("nft list"))
    }

    /// A cable from here to another place.
    fn cable(&self, here: &str, other: &Self, there: &str) {
        self.ip(&format!("link add {here} type veth peer name {there} netns {}", other.thread.as_raw_nonzero()));
        self.ip(&format!("link set {here} up"));
        other.ip(&format!("link set {there} up"));
    }
}

fn program(name: &str, arguments: &[String], input: &str) -> Result<String, String> {
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{name} {arguments:?}: {}\n{input}", text(&output.stderr)))
    }
}

/// Whether this kernel has a packet filter at all; where it has none there is nothing to try, which is said, and which CI
/// does not accept.
fn kernel_has_nftables() -> bool {
    let arguments = ["list", "ruleset"].map(str::to_owned);
    let Err(error) = Place::new().run(move || program("nft", &arguments, "")) else { return true };
    assert!(std::env::var_os("CI").is_none(), "{error}");
    eprintln!("NOT TRIED: the rules in this kernel: {error}");
    false
}

/// The node of a case, with its rules, and everybody else.
struct Site {
    node: Place,
    outside: Place,
}

impl Site {
    fn new(case: &str) -> Self {
        let (head, _) = case.split_once("----\n").unwrap();
        let (_, input) = head.split_once("\n\n").unwrap();
        let site = Self { node: Place::new(), outside: Place::new() };
        let gateway = input.starts_with("gateway ");
        site.node.cable("eth0", &site.outside, "out0");
        site.node.cable("eth1", &site.outside, "out1");
        site.node.ip(&format!("address add {}/24 dev eth0", Ipv4Addr::from(site.own(gateway))));
        let own: Ipv4Addr = if gateway { [192, 168, 9, 1] } else { [192, 168, 9, 12] }.into();
        site.node.ip(&format!("address add {own}/22 dev eth1"));
        for address in [PEER, STRANGER, PDU, UPS] {
            site.outside.ip(&format!("address add {}/24 dev out0", Ipv4Addr::from(address)));
        }
        site.outside.ip("address add 192.168.9.11/22 dev out1");
        let rules = generated(input);
        site.node.nft(&rules);
        // Once more, as where a first try was thought to have failed.
        site.node.nft(&rules);
        let listed = site.node.list("table inet holdfast");
        let (_, wanted) = rules.split_once("delete table inet holdfast\n").unwrap();
        assert_eq!(words(&listed), words(wanted), "{listed}");
        site.node.nft(WITNESSES);
        site
    }

    fn own(&self, gateway: bool) -> [u8; 4] {
        if gateway { [10, 77, 0, 1] } else { NODE }
    }

    /// The ports of the node, of the telling ones, to which a packet passes.
    fn inward(&self, protocol: Protocol, from: ([u8; 4], u16), to: [u8; 4]) -> BTreeSet<u16> {
        self.scan((&self.outside, "in"), protocol, from, to, &telling())
    }

    /// The same of all the ports that there are.
    fn inward_of_all(&self, protocol: Protocol, from: ([u8; 4], u16), to: [u8; 4]) -> BTreeSet<u16> {
        self.scan((&self.outside, "in"), protocol, from, to, &(1..=u16::MAX).collect())
    }

    /// The ports of others, of the telling ones, to which the node may send.
    fn outward(&self, protocol: Protocol, from: ([u8; 4], u16), to: [u8; 4]) -> BTreeSet<u16> {
        self.scan((&self.node, "out"), protocol, from, to, &telling())
    }

    fn scan(
        &self,
        (sender, way): (&Place, &str),
        protocol: Protocol,
        (from, port): ([u8; 4], u16),
        to: [u8; 4],
        tried: &BTreeSet<u16>,
    ) -> BTreeSet<u16> {
        let (from, to) = (SocketAddrV4::new(from.into(), port), Ipv4Addr::from(to));
        self.node.nft(&format!("flush set inet holdfast passed_{way}\nflush set inet holdfast refused_{way}\n"));
        let name = if protocol == Protocol::Tcp { "tcp" } else { "udp" };
        let seen = |what: &str| ports(&self.node.list(&format!("set inet holdfast {what}_{way}")), name);
        let mut missing = tried.clone();
        let deadline = Instant::now() + PATIENCE;
        loop {
            sender.run(move || match protocol {
                Protocol::Udp => send_datagrams(from, to, &missing),
                Protocol::Tcp => begin_connections(from, to, &missing),
            });
            let (passed, refused) = (seen("passed"), seen("refused"));
            assert!(passed.is_disjoint(&refused), "{from} to {to}");
            missing = tried.iter().filter(|port| !passed.contains(port) && !refused.contains(port)).copied().collect();
            if missing.is_empty() {
                return passed;
            }
            assert!(Instant::now() < deadline, "{from} to {to}: {} ports saw nothing", missing.len());
        }
    }
}

/// The ports below 1024, those beside every number in the rules, and some of the others.
fn telling() -> BTreeSet<u16> {
    let named = [2_070, 3_493, 3_999, 6_514, 21_064, 32_768, ASKING, 60_999, 61_000, 61_255, 65_534];
    let beside = named.into_iter().flat_map(|port: u16| port - 1..=port + 1);
    (1..=1_025).chain(beside).chain((1_025..=u16::MAX).step_by(251)).collect()
}

fn within(ports: impl Iterator<Item = u16>) -> BTreeSet<u16> {
    ports.filter(|port| telling().contains(port)).collect()
}

/// A text without its layout: nft breaks long lines.
fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// The ports of one protocol in a set as nft lists it.
fn ports(listed: &str, protocol: &str) -> BTreeSet<u16> {
    let Some((_, elements)) = listed.split_once("elements = {") else { return BTreeSet::new() };
    let elements = elements.split('}').next().unwrap().split(',').map(str::trim);
    let port = |element: &str| element.strip_prefix(protocol)?.strip_prefix(" . ")?.parse().ok();
    elements.filter_map(port).collect()
}

fn send_datagrams(from: SocketAddrV4, to: Ipv4Addr, ports: &BTreeSet<u16>) {
    let socket = UdpSocket::bind(from).unwrap();
    socket.set_broadcast(true).unwrap();
    for port in ports {
        // The node's own rules say no here; what others said of an earlier datagram comes here as well.
        let _ = socket.send_to(b"?", (to, *port));
    }
}

fn begin_connections(from: SocketAddrV4, to: Ipv4Addr, ports: &BTreeSet<u16>) {
    for port in ports {
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None);
        let socket = socket.unwrap();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        // Closed at once: the same port asks the next one.
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
        rustix::net::bind(&socket, &from).unwrap();
        let _ = rustix::net::connect(&socket, &SocketAddrV4::new(to, *port));
    }
}

fn one(port: u16) -> BTreeSet<u16> {
    BTreeSet::from([port])
}

#[test]
fn only_members_reach_a_node_and_only_at_one_port() {
    if !kernel_has_nftables() {
        return;
    }
    let site = Site::new(TWO_NETWORKS);
    let none = BTreeSet::new();
    assert_eq!(site.inward_of_all(Protocol::Tcp, (PEER, ASKING), NODE), one(694));
    assert_eq!(site.inward(Protocol::Udp, (PEER, 694), NODE), one(694));
    assert_eq!(site.inward(Protocol::Udp, (PEER, 694), EVERYBODY), one(694));
    assert_eq!(site.inward(Protocol::Udp, (PEER, ASKING), NODE), none);
    // Whoever asks from the port of an answer.
    assert_eq!(site.inward(Protocol::Tcp, (PEER, 694), NODE), none);
    assert_eq!(site.inward(Protocol::Tcp, (UPS, 3999), NODE), none);
    assert_eq!(site.inward(Protocol::Udp, (PDU, 161), NODE), within(32_768..=60_999));
    assert_eq!(site.inward(Protocol::Udp, (PDU, 694), NODE), none);
    assert_eq!(site.inward_of_all(Protocol::Udp, (STRANGER, 694), NODE), none);
    assert_eq!(site.inward_of_all(Protocol::Tcp, (STRANGER, ASKING), NODE), none);
    assert_eq!(site.inward(Protocol::Tcp, (STRANGER, 694), NODE), none);
    // A member's address on the other network's card.
    site.outside.ip("route add 10.77.0.12/32 dev out1 src 10.77.0.11");
    assert_eq!(site.inward(Protocol::Udp, (PEER, 694), NODE), none);
}

#[test]
fn a_node_reaches_only_members_and_devices() {
    if !kernel_has_nftables() {
        return;
    }
    let site = Site::new(TWO_NETWORKS);
    let none = BTreeSet::new();
    assert_eq!(site.outward(Protocol::Tcp, (NODE, ASKING), PEER), one(694));
    assert_eq!(site.outward(Protocol::Udp, (NODE, 694), PEER), one(694));
    assert_eq!(site.outward(Protocol::Udp, (NODE, 694), EVERYBODY), one(694));
    assert_eq!(site.outward(Protocol::Udp, (NODE, ASKING), PDU), one(161));
    assert_eq!(site.outward(Protocol::Tcp, (NODE, ASKING), PDU), none);
    assert_eq!(site.outward(Protocol::Tcp, (NODE, ASKING), UPS), one(3999));
    assert_eq!(site.outward(Protocol::Tcp, (NODE, ASKING), STRANGER), none);
    assert_eq!(site.outward(Protocol::Udp, (NODE, 694), STRANGER), none);
}

/// The collector is where else the UPS's host is.
#[test]
fn the_event_log_goes_out_to_its_collector_and_nothing_comes_from_there() {
    if !kernel_has_nftables() {
        return;
    }
    let none = BTreeSet::new();
    for (case, protocol, port) in [(SYSLOG_UDP, Protocol::Udp, 514), (SYSLOG_TCP, Protocol::Tcp, 6_514)] {
        let site = Site::new(case);
        assert_eq!(site.outward(protocol, (NODE, ASKING), UPS), one(port));
        assert_eq!(site.outward(protocol, (NODE, ASKING), STRANGER), none);
        assert_eq!(site.inward(protocol, (UPS, port), NODE), none);
        assert_eq!(site.inward(protocol, (UPS, ASKING), NODE), none);
        if protocol == Protocol::Tcp {
            converse((&site.outside, UPS, port), (&site.node, NODE));
        }
    }
}

#[test]
fn the_gateway_serves_who_boots() {
    if !kernel_has_nftables() {
        return;
    }
    let site = Site::new(GATEWAY);
    let gateway = site.own(true);
    assert_eq!(site.inward(Protocol::Tcp, (PEER, 2_070), gateway), one(80));
    assert_eq!(site.inward(Protocol::Tcp, (PEER, ASKING), gateway), BTreeSet::from([80, 694]));
    let tftp = within((69..=69).chain(61_000..=61_255));
    assert_eq!(site.inward(Protocol::Udp, (PEER, 2_070), gateway), tftp);
    assert_eq!(site.inward(Protocol::Udp, (STRANGER, 68), gateway), one(67));
    assert_eq!(site.inward(Protocol::Udp, (STRANGER, 2_070), gateway), BTreeSet::new());
    assert_eq!(site.inward(Protocol::Tcp, (STRANGER, ASKING), gateway), one(694));
    assert_eq!(site.outward(Protocol::Udp, (gateway, 67), STRANGER), one(68));
}

/// A question and its answer over TCP: `asked` listens in its place, the other end asks from its address.
fn converse(asked: (&Place, [u8; 4], u16), asker: (&Place, [u8; 4])) {
    let (place, address, port) = asked;
    let listener = place.run(move || TcpListener::bind((Ipv4Addr::from(address), port)).unwrap());
    let answering = thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        let mut question = [0; 5];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(&question).unwrap();
        from
    });
    let (place, own) = asker;
    let answer = place.run(move || {
        let to = SocketAddr::from((Ipv4Addr::from(address), port));
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        answer
    });
    assert_eq!(answer, *b"hello");
    assert_eq!(answering.join().unwrap().ip(), IpAddr::from(own));
}

/// A datagram of `bytes` each way between two sockets.
fn exchange(one: (&Place, [u8; 4], u16), other: (&Place, [u8; 4], u16), bytes: usize) {
    let bind = |(place, address, port): (&Place, [u8; 4], u16)| {
        let socket = place.run(move || UdpSocket::bind((Ipv4Addr::from(address), port)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let sockets = [bind(one), bind(other)];
    for (from, to) in [(0, 1), (1, 0)] {
        sockets[from].send_to(&vec![7; bytes], sockets[to].local_addr().unwrap()).unwrap();
        let mut buffer = vec![0; 65_536];
        let (length, sender) = sockets[to].recv_from(&mut buffer).unwrap();
        assert_eq!((length, sender), (bytes, sockets[from].local_addr().unwrap()));
    }
}

#[test]
fn questions_and_answers_pass_both_ways() {
    if !kernel_has_nftables() {
        return;
    }
    let site = Site::new(TWO_NETWORKS);
    let (node, outside) = (&site.node, &site.outside);
    converse((node, NODE, 694), (outside, PEER));
    // Whoever connects without an address of its own gets its first.
    converse((outside, PEER, 694), (node, NODE));
    converse((outside, UPS, 3999), (node, NODE));
    exchange((node, NODE, ASKING), (outside, PDU, 161), 100);
    // The largest heartbeat goes in many pieces, of which only the first has ports.
    exchange((node, NODE, 694), (outside, PEER, 694), cluster::limits::DATAGRAM_BYTES);
    let gateway = Site::new(GATEWAY);
    let own = gateway.own(true);
    exchange((&gateway.outside, PEER, 2_070), (&gateway.node, own, 61_255), 1_400);
    converse((&gateway.node, own, 80), (&gateway.outside, PEER));
}

/// Whoever does not listen yet refuses, and is reached as soon as it does, by the same call.
#[test]
fn the_lock_manager_hears_no_refusal() {
    if !kernel_has_nftables() {
        return;
    }
    let site = Site::new(GFS2);
    let (node, outside) = (&site.node, &site.outside);
    node.cable("wg-holdfast", outside, "wg");
    node.ip("address add 100.127.94.2/24 dev wg-holdfast");
    outside.ip("address add 100.127.94.3/24 dev wg");
    let there = SocketAddr::from(([100, 127, 94, 3], 21_064));
    let call = node.run(move || {
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None);
        let socket = socket.unwrap();
        assert_eq!(rustix::net::connect(&socket, &there), Err(rustix::io::Errno::INPROGRESS));
        TcpStream::from(socket)
    });
    let (own, deadline) = (call.local_addr().unwrap(), Instant::now() + PATIENCE);
    while !ports(&node.list("set inet holdfast refused_in"), "tcp").contains(&own.port()) {
        assert!(call.take_error().unwrap().is_none(), "the refusal was heard");
        assert!(Instant::now() < deadline, "nobody has refused");
    }
    let caller = outside.run(move || TcpListener::bind(there).unwrap().accept().unwrap().1);
    assert_eq!(caller, own);
}

/// The VMs' bridge carries what is not for the node, and nothing that is.
#[test]
fn what_comes_over_the_bridge_does_not_reach_the_node() {
    if !kernel_has_nftables() {
        return;
    }
    let site = Site::new(TWO_NETWORKS);
    let guest = Place::new();
    site.node.cable("eth2", &site.outside, "pub0");
    site.node.cable("vif1.0", &guest, "eth0");
    site.node.ip("link add xenbr0 address 52:54:00:78:00:fe type bridge");
    for port in ["eth2", "vif1.0"] {
        site.node.ip(&format!("link set {port} master xenbr0"));
    }
    site.node.ip("link set xenbr0 up");
    // This kernel may have what makes bridges ask the filter; a node's has it not.
    let asks = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    site.node.run(move || {
        if fs::exists(asks).unwrap() {
            fs::write(asks, "0").unwrap()
        }
    });
    site.outside.ip("address add 172.16.0.3/24 dev pub0");
    guest.ip("address add 172.16.0.2/24 dev eth0");
    exchange((&guest, [172, 16, 0, 2], 5_000), (&site.outside, [172, 16, 0, 3], 5_001), 1_000);
    converse((&guest, [172, 16, 0, 2], 22), (&site.outside, [172, 16, 0, 3]));
    // A VM that says it is a member, and knows where the node is.
    guest.ip("address add 10.77.0.11/24 dev eth0");
    guest.ip("neighbor add 10.77.0.12 lladdr 52:54:00:78:00:fe dev eth0");
    let none = BTreeSet::new();
    assert_eq!(site.scan((&guest, "in"), Protocol::Udp, (PEER, 694), NODE, &telling()), none);
    assert_eq!(site.scan((&guest, "in"), Protocol::Tcp, (PEER, ASKING), NODE, &telling()), none);
}

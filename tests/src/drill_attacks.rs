//! Attacks on a running rack, by somebody who has plugged a machine into the cluster network, takes any address that he likes,
//! and knows everything but the cluster's key.
//!
//! Real heartbeats are caught and played again by strangers' programs, tcpdump and tcpreplay; the gateway is flooded with machines
//! that ask to join; and dnsmasq stands beside it as another DHCP server. What must hold afterwards is that
//! nothing has happened: no node is suspected, none joins or boots anew, the VMs' connections go on, and the log has not drowned.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};

use crate::rack::Rack;
use crate::rack::events::What;
use crate::rack::layout::{CLUSTER_BRIDGE, GATEWAY};
use crate::rack::network;
use crate::rack::status::Status;

mod dhcp;
mod joiners;

use dhcp::Rogue;

/// The members' port, for datagrams and for streams.
const PORT: u16 = 694;
/// How many heartbeats are caught.
const CAUGHT: usize = 200;
/// How often those are played again, and how many a second: some twenty times what the cluster says itself. Each is opened, and
/// true ones must not be late for it.
const REPLAYS: (usize, usize) = (5, 200);
/// Spoiled ones a second.
const PACE: usize = 1000;
/// How many streams are begun and left alone.
const IDLE: usize = 40;
/// How many lines the log may have gained for all of it.
const LINES: usize = 60;
/// How long a machine may take to hang up on a stranger, and VMs to be heard again.
const PATIENCE: Duration = Duration::from_mins(5);

/// Attacks the cluster while the node `absent` is off, and so its address is free to be taken.
///
/// # Errors
/// What the attacks have done.
pub fn are_held_off(rack: &Rack, absent: &str) -> Result<()> {
    let address = |name: &str| rack.layout.machine(name).and_then(|machine| machine.cluster.address);
    let taken = address(absent).with_context(|| format!("{absent} has no address"))?;
    let before = rack.status();
    let running: Vec<Ipv4Addr> =
        before.nodes.iter().filter(|node| node.name != absent).filter_map(|node| address(&node.name)).collect();
    let (mark, caught) = (rack.log.mark(), rack.dir().join("attack.pcap"));
    let leases = rack.dir().join("attack.leases");
    let others = before.nodes.iter().filter(|node| node.name != absent && node.name != GATEWAY);
    let members: Vec<&str> = others.map(|node| node.name.as_str()).collect();
    let cards: Vec<_> = rack.layout.machines.iter().map(|machine| &machine.cluster).collect();
    let cards: Vec<_> = cards.iter().filter_map(|card| Some((card.mac.clone(), card.address?))).collect();
    rack.inside(|| {
        let mut rogue = Rogue::start(&leases)?;
        let heartbeats = replays(&caught)?;
        network::address(taken, true)?;
        let judged = spoiled(&heartbeats, taken, &running).and_then(|()| streams(taken, &running));
        network::address(taken, false)?;
        judged?;
        joiners::flood(rack, &members)?;
        dhcp::unasked(&cards)?;
        rogue.is_at_work()
    })?;
    let after = rack.until(PATIENCE, "the VMs' connections go on after an attack", |now| {
        before.vms.iter().zip(&now.vms).all(|(then, now)| now.seen.tcp_exchanges > then.seen.tcp_exchanges + 100)
    })?;
    let given = fs::read_to_string(&leases)?;
    ensure!(given.is_empty(), "a machine that runs has taken an address: {given}");
    unmoved(&before, &after, absent)?;
    let events = rack.log.since(mark).0;
    let said: Vec<String> =
        events.iter().filter(|e| matches!(e.what, What::Said(_))).map(ToString::to_string).collect();
    let harm =
        said.iter().find(|line| line.contains("suspects ") || line.contains(" up, ") || line.contains("inquorate"));
    ensure!(harm.is_none(), "an attack has done something: {harm:?}");
    ensure!(said.len() < LINES, "the log has drowned in an attack, in {} lines: {said:#?}", said.len());
    Ok(())
}

/// Nobody but who was away has booted or changed the cluster, and no VM's connection broke.
fn unmoved(before: &Status, after: &Status, absent: &str) -> Result<()> {
    for (was, is) in before.nodes.iter().zip(&after.nodes).filter(|(was, _)| was.name != absent) {
        let same = (&was.incarnation, &was.generation, &was.view) == (&is.incarnation, &is.generation, &is.view);
        ensure!(same && was.state == is.state, "{} is not what it was:\n{after}", is.name);
    }
    for (was, is) in before.vms.iter().zip(&after.vms) {
        let same = (was.seen.tcp_broken, &was.seen.boot_id) == (is.seen.tcp_broken, &is.seen.boot_id);
        ensure!(same && was.generation == is.generation, "{} is not what it was:\n{after}", is.name);
    }
    Ok(())
}

/// Heartbeats that the nodes really sent, again and again. Returns what was in them.
fn replays(caught: &Path) -> Result<Vec<Vec<u8>>> {
    let payloads = catch(caught)?;
    play(caught)?;
    Ok(payloads)
}

/// Catches heartbeats into a file. Returns what was in them.
///
/// # Errors
/// They were not caught.
pub fn catch(caught: &Path) -> Result<Vec<Vec<u8>>> {
    let file = caught.display().to_string();
    let count = CAUGHT.to_string();
    run("tcpdump", &["-q", "-U", "-i", CLUSTER_BRIDGE, "-c", &count, "-w", &file, "udp", "port", &PORT.to_string()])?;
    let capture = fs::read(caught)?;
    let payloads = payloads(&capture).context("tcpdump wrote something that is no capture")?;
    ensure!(payloads.len() == CAUGHT, "{} heartbeats were caught", payloads.len());
    Ok(payloads)
}

/// Plays again what [`catch`] has caught; with checksums, which a virtual card leaves to the next real one: without them no kernel
/// would take it.
///
/// # Errors
/// It cannot be sent.
pub fn play(caught: &Path) -> Result<()> {
    let file = caught.display().to_string();
    let (times, pace) = (format!("--loop={}", REPLAYS.0), format!("--pps={}", REPLAYS.1));
    run("tcpreplay-edit", &["-q", "--fixcsum", &format!("--intf1={CLUSTER_BRIDGE}"), &times, &pace, &file])
}

/// The UDP payloads of a capture: the format of libpcap, in this machine's byte order, of Ethernet frames.
fn payloads(capture: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut rest, mut payloads) = (capture.get(24..)?, Vec::new());
    while !rest.is_empty() {
        let length = usize::try_from(u32::from_ne_bytes(rest.get(8..12)?.try_into().ok()?)).ok()?;
        let packet = rest.get(16..16 + length)?.get(14..)?;
        let header = usize::from(packet.first()? & 15) * 4;
        payloads.push(packet.get(header + 8..)?.to_vec());
        rest = rest.get(16 + length..)?;
    }
    Some(payloads)
}

/// The same with a bit turned, cut short, or with something behind it, from a node's own address and port, at about [`PACE`].
fn spoiled(payloads: &[Vec<u8>], taken: Ipv4Addr, running: &[Ipv4Addr]) -> Result<()> {
    let socket = UdpSocket::bind((taken, PORT))?;
    for (at, payload) in payloads.iter().enumerate() {
        let mut turned = payload.clone();
        let bit = at.wrapping_mul(7919) % (payload.len() * 8).max(1);
        if let Some(byte) = turned.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        let short = payload.get(..at.wrapping_mul(31) % payload.len().max(1)).unwrap_or_default().to_vec();
        for bytes in [turned, short, [payload.as_slice(), b"more"].concat(), vec![0xa5; at * 7]] {
            for machine in running {
                socket.send_to(&bytes, (*machine, PORT))?;
            }
        }
        std::thread::sleep(Duration::from_secs(1) * 12 / u32::try_from(PACE)?);
    }
    Ok(())
}

/// Streams to every machine that runs, from an address that it takes for a node's: some that say nothing, and one of each of a
/// few that say something wrong. Each machine hangs up on those, and has said nothing.
fn streams(taken: Ipv4Addr, running: &[Ipv4Addr]) -> Result<()> {
    let random: Vec<u8> = (0..=255).map(|n: u8| n.wrapping_mul(167).wrapping_add(43)).collect();
    let long: Vec<u8> = [&[0xff, 0xff][..], &random.repeat(300)].concat();
    let wrong: [&[u8]; 5] =
        [&random, &long, &[0, 32, 1, 2, 3], b"NBDMAGICIHAVEOPT\0\0\0\x03", b"GET / HTTP/1.1\r\n\r\n"];
    for machine in running {
        let idle: Vec<TcpStream> = (0..IDLE).map(|_| connect(taken, (*machine, PORT))).collect::<Result<_>>()?;
        for bytes in wrong {
            let mut stream = connect(taken, (*machine, PORT))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            // It may hang up before it has read everything.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            match stream.read_to_end(&mut answer) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                Err(error) => bail!("{machine} does not hang up on a stranger: {error}"),
            }
            ensure!(answer.is_empty(), "{machine} says something to a stranger: {answer:?}");
        }
        drop(idle);
    }
    Ok(())
}

fn connect(from: Ipv4Addr, (to, port): (Ipv4Addr, u16)) -> Result<TcpStream> {
    let stream = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let place = |address, port| SockaddrIn::from(SocketAddrV4::new(address, port));
    socket::bind(stream.as_raw_fd(), &place(from, 0))?;
    socket::connect(stream.as_raw_fd(), &place(to, port))
        .with_context(|| format!("{to} does not take a stream from {from}"))?;
    Ok(TcpStream::from(stream))
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    let output =
        command.args(arguments).stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

//! The machine's side: asks the gateway until it is let in, and keeps what it is given.
//!
//! A machine that is no node borrows an address that is nobody's, on one of its cards, for as long as it asks; the next time it
//! is another address, on the next card. When it is let in, init makes it the node that it has become.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use cluster::config::Config;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zeroize::Zeroizing;

use super::identity::{self, Own};
use super::{KEY, Told, code, machine, pool};
use crate::init::Site;
use crate::keys::{self, Ring};
use crate::rtnetlink::{Change, Rtnetlink};
use crate::secrets::{self, Secrets};
use crate::stream::joiner::Identity;
use crate::stream::{PORT, Stream};
use crate::{netsetup, roster};

/// The pause after a first failure; it doubles with every further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a machine that was sent away keeps away.
const AWAY: Duration = Duration::from_secs(60);
/// How long init may take to give this machine the address of the node that it has become.
const SETTLING: Duration = Duration::from_secs(20);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// Whether this machine has to join: it knows a gateway, and has no secrets.
pub(crate) fn is_wanted() -> bool {
    !secrets::are_here() && Path::new(KEY).exists()
}

/// What a machine was given that was let in.
enum Given {
    Secrets,
    /// And another `cluster.toml` than its own.
    Both,
}

/// What ends a connection without secrets.
enum End {
    /// It could not be had, or was cut.
    Cut(io::Error),
    /// The gateway has said why.
    Refused(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Cut(error)
    }
}

/// Somebody who wants to join.
struct Joiner<'a> {
    config: Config,
    /// The node that it is, if it is one.
    node: Option<String>,
    own: Own,
    address: Ipv4Addr,
    gateway: Identity,
    /// Takes what whoever stands at this machine is to know; nobody does when a member asks for another key.
    say: Option<&'a dyn Fn(String)>,
}

/// Asks until the secrets are here. What `say` is given is for whoever stands at this machine, and replaces what it was given before.
///
/// # Errors
/// This machine cannot ask at all, in words for the operator.
pub(crate) fn run(say: &dyn Fn(String)) -> Result<(), String> {
    let joiner = Joiner::new(Some(say))?;
    let address = joiner.address;
    let (mut pause, mut turn) = (PAUSE_MIN, 0_usize);
    loop {
        turn = turn.wrapping_add(1);
        match joiner.ask(turn) {
            Ok(Given::Secrets) => return Ok(()),
            Ok(Given::Both) => return settle(),
            Err(End::Refused(reason)) => {
                joiner.tell(&format!("The gateway refuses it: {reason}.\nIt asks again every minute."));
                thread::sleep(AWAY);
                pause = PAUSE_MIN;
            }
            Err(End::Cut(error)) => {
                joiner.tell(&format!("The gateway, {address}: {error}.\nIt is asked again and again."));
                thread::sleep(pause);
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// As a member: asks the gateway once for the key that members are to hold now.
///
/// # Errors
/// Why it was not given, in words for the operator.
pub(crate) fn again() -> Result<(), String> {
    match Joiner::new(None)?.ask(0) {
        Ok(Given::Secrets | Given::Both) => Ok(()),
        Err(End::Refused(reason)) => Err(reason),
        Err(End::Cut(error)) => Err(error.to_string()),
    }
}

/// Has init go by what was given, and waits until this machine has its node's address.
fn settle() -> Result<(), String> {
    kill(Pid::from_raw(1), Signal::SIGHUP).map_err(|error| format!("init: {error}"))?;
    let site = Site::find()?;
    let address = site.config.node(site.slot).address;
    let end = Instant::now() + SETTLING;
    while UdpSocket::bind((address, 0)).is_err() {
        if Instant::now() > end {
            return Err(format!("this machine does not get its address {address}"));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Keeps what has another key than before, and the key from before beside it.
fn keep_key(text: &str, number: u32, agreed: u32) -> io::Result<()> {
    let held = Ring::read(agreed).map_err(io::Error::other)?;
    if number > held.newest().0 {
        keys::keep(held.newest())?;
        let [_, place] = secrets::PLACES;
        keys::write(Path::new(place), text)?;
    }
    Ok(())
}

/// An address on a card, until this is dropped.
struct Borrowed {
    interface: String,
    address: Ipv4Addr,
    prefix: u8,
}

impl Borrowed {
    fn new(config: &Config, interface: &str) -> io::Result<Self> {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let address = pool::of_who_asks(config, u64::from_ne_bytes(random));
        let none = || io::Error::other("the cluster network has no address that is nobody's");
        let (address, (_, prefix)) = (address.ok_or_else(none)?, config.cluster_network());
        let kernel = Rtnetlink::open()?;
        kernel.change(interface, Change::Up(true))?;
        kernel.add_address(interface, address, prefix)?;
        Ok(Self { interface: interface.to_owned(), address, prefix })
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let gone =
            Rtnetlink::open().and_then(|kernel| kernel.remove_address(&self.interface, self.address, self.prefix));
        // An address too many does no harm: the next one is asked with.
        let _ = gone;
    }
}

impl<'a> Joiner<'a> {
    fn new(say: Option<&'a dyn Fn(String)>) -> Result<Self, String> {
        let config = Site::configuration()?;
        let node = Site::find().ok().map(|site| site.config.node(site.slot).name.clone());
        let address =
            config.gateway().map(|(_, node)| node.address).ok_or("cluster.toml names no gateway to join at")?;
        let key = fs::read_to_string(KEY).map_err(|error| format!("{KEY}: {error}"))?;
        let gateway = Identity::parse(&key).ok_or_else(|| format!("{KEY} is not a key of 64 hexadecimal digits"))?;
        let own = identity::of_this_boot(Path::new("/sys/block"), Path::new("/dev"), Path::new(identity::IN_MEMORY));
        Ok(Self { config, node, own: own.map_err(|error| format!("identity: {error}"))?, address, gateway, say })
    }

    fn ask(&self, turn: usize) -> Result<Given, End> {
        let cards = netsetup::cards();
        let card = cards.get(turn.checked_rem(cards.len()).unwrap_or(0)).filter(|_| self.node.is_none());
        let _borrowed = card.map(|(_, interface)| Borrowed::new(&self.config, interface)).transpose()?;
        let (mut stream, binding) =
            Stream::join((self.address, PORT), &self.own.key, &self.gateway, &self.config.name)?;
        let hello = machine::hello(self.node.as_deref().unwrap_or_default(), card.map(|(mac, _)| *mac));
        stream.send(&hello.bytes()?)?;
        if self.say.is_some() {
            // The operator may take his time.
            stream.wait_for_ever()?;
        }
        let mut configuration = None;
        loop {
            match stream.hear()? {
                Told::Configuration(text) => configuration = Some(text),
                Told::Wait { .. } if self.say.is_none() => {
                    return Err(End::Refused("this machine is not approved any more: let it in at Joining".to_owned()));
                }
                Told::Wait { salt, note } => {
                    let note = if note.is_empty() { note } else { format!("\nThe gateway remarks: {note}.") };
                    self.tell(&format!(
                        "Its code is {}.\n\nChoose Joining at any member's menu and type it there.{note}",
                        code(&salt, &binding)
                    ));
                }
                Told::Refused(reason) => return Err(End::Refused(reason)),
                Told::Secrets(text) => return self.keep(&text, configuration.as_deref()),
            }
        }
    }

    /// Keeps the secrets, and the configuration that they go with.
    fn keep(&self, text: &Zeroizing<String>, configuration: Option<&str>) -> Result<Given, End> {
        let told = configuration.map(Config::parse).transpose().map_err(|error| {
            End::Refused(format!("this machine does not understand the gateway's cluster.toml ({error})"))
        })?;
        let secrets = Secrets::parse(text, told.as_ref().unwrap_or(&self.config)).map_err(|error| {
            End::Refused(format!("its secrets do not go with the configuration that this machine has booted ({error})"))
        })?;
        if self.say.is_none() {
            // The edition is the cluster's to tell, which this machine is a part of.
            keep_key(text, secrets.keys.newest().0, self.config.key)?;
            return Ok(Given::Secrets);
        }
        let mut given = Given::Secrets;
        if let Some(told) = told.filter(|told| *told != self.config) {
            roster::hold(&told.text).map_err(io::Error::other)?;
            given = Given::Both;
        }
        let [_, place] = secrets::PLACES;
        keys::write(Path::new(place), text)?;
        Ok(given)
    }

    fn tell(&self, text: &str) {
        let who = self.node.as_ref().map_or_else(|| "a new node".to_owned(), Clone::clone);
        let lasts = match &self.own.kept {
            Ok(_) => String::new(),
            Err(reason) => format!("\nIt must be let in at every boot, for its identity is kept on no disk: {reason}."),
        };
        let say = self.say.unwrap_or(&|_| ());
        say(format!("This machine asks to join the cluster {} as {who}. {text}{lasts}", self.config.name));
    }
}

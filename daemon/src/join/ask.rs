//! The machine's side: asks the gateway until it is let in, and keeps what it is given.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

use super::identity::{self, Own};
use super::{KEY, Told, code, machine};
use crate::init::Site;
use crate::secrets::{self, Secrets};
use crate::stream::joiner::Identity;
use crate::stream::{PORT, Stream};

/// The pause after a first failure; it doubles with every further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a machine that was sent away keeps away.
const AWAY: Duration = Duration::from_secs(60);

/// Whether this machine has to join: it knows a gateway, and has no secrets.
pub(crate) fn is_wanted() -> bool {
    !secrets::are_here() && Path::new(KEY).exists()
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
    site: Site,
    own: Own,
    address: Ipv4Addr,
    gateway: Identity,
    /// Takes what whoever stands at this machine is to know.
    say: &'a dyn Fn(String),
}

/// Asks until the secrets are here. What `say` is given is for whoever stands at this machine, and replaces what it was given before.
///
/// # Errors
/// This machine cannot ask at all, in words for the operator.
pub(crate) fn run(say: &dyn Fn(String)) -> Result<(), String> {
    let site = Site::find()?;
    let address =
        site.config.gateway().map(|(_, node)| node.address).ok_or("cluster.toml names no gateway to join at")?;
    let key = fs::read_to_string(KEY).map_err(|error| format!("{KEY}: {error}"))?;
    let gateway = Identity::parse(&key).ok_or_else(|| format!("{KEY} is not a key of 64 hexadecimal digits"))?;
    let own =
        identity::own(Path::new("/sys/block"), Path::new("/dev")).map_err(|error| format!("identity: {error}"))?;
    let joiner = Joiner { site, own, address, gateway, say };
    let mut pause = PAUSE_MIN;
    loop {
        match joiner.ask() {
            Ok(()) => return Ok(()),
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

impl Joiner<'_> {
    fn ask(&self) -> Result<(), End> {
        let (config, slot) = (&self.site.config, self.site.slot);
        let (mut stream, binding) = Stream::join((self.address, PORT), &self.own.key, &self.gateway, &config.name)?;
        stream.send(&machine::hello(&config.node(slot).name).bytes()?)?;
        // The operator may take his time.
        stream.wait_for_ever()?;
        loop {
            match stream.hear()? {
                Told::Wait { salt, note } => {
                    let note = if note.is_empty() { note } else { format!("\nThe gateway remarks: {note}.") };
                    self.tell(&format!(
                        "Its code is {}.\n\nChoose Joining at any member's menu and type it there.{note}",
                        code(&salt, &binding)
                    ));
                }
                Told::Refused(reason) => return Err(End::Refused(reason)),
                Told::Secrets(text) => return self.keep(&text),
            }
        }
    }

    /// Keeps the secrets, if they are this machine's.
    fn keep(&self, text: &Zeroizing<String>) -> Result<(), End> {
        Secrets::parse(text, &self.site.config).map_err(|error| {
            End::Refused(format!("its secrets do not go with the configuration that this machine has booted ({error})"))
        })?;
        let [_, place] = secrets::PLACES;
        let fresh = Path::new(place).with_extension("new");
        // What a life before this one has left.
        let _ = fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        Ok(fs::rename(&fresh, place)?)
    }

    fn tell(&self, text: &str) {
        let config = &self.site.config;
        let node = &config.node(self.site.slot).name;
        let lasts = match &self.own.kept {
            Ok(_) => String::new(),
            Err(reason) => format!("\nIt must be let in at every boot, for its identity is kept on no disk: {reason}."),
        };
        (self.say)(format!("This machine asks to join the cluster {} as {node}. {text}{lasts}", config.name));
    }
}

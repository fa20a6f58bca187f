//! The `streams` applet: answers on the stream's port, and carries what is asked for.
//!
//! It is a process of its own, so that storage goes on being served while the supervisor restarts. It decides two things,
//! by what it is told: who gets a disk of the gateway's ([`claims`]), and that nobody gets one before what was granted
//! earlier has come to an end ([`storage`]). A VM is given by the supervisor only, which is asked over its socket
//! ([`PULL_SOCKET`]) in one line and answers in one, `go` or the reason why not. After `go` that same socket carries the VM.
//! On the gateway, machines that want to join ask here too ([`crate::join`]).

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use cluster::config::Config;
use cluster::words::{Incarnation, Role};

use crate::carried::{Counted, Counter};
use crate::gfs2;
use crate::init::{self, Site};
use crate::join::desk::{ASKING, Admission, Decision, Desk, Waiting};
use crate::join::{self, Hello, Told};
use crate::keys::Ring;
use crate::roster::{self, Current};
use crate::secrets;
use crate::stream::joiner::{Accepted, Binding, Identity};
use crate::stream::{PORT, STACK, Service, Stream};
use claims::{Boot, Refusal};
use consoles::Consoles;
use places::{Place, Places};
use storage::Storage;
use store::Store;

pub(crate) mod claims;
mod consoles;
mod gate;
mod left_over;
pub(crate) mod orders;
mod places;
mod shared;
pub(crate) mod storage;
pub(crate) mod store;
mod volumes;

/// Where the gateway's claims are kept where it has a medium for them, which init has found.
pub(crate) const STATE: &str = "/run/holdfast/state";
/// Where they are kept where it has none: they survive this process, but not the machine.
const STATE_IN_MEMORY: &str = "/run/holdfast/claims";
/// Where the supervisor is asked for a VM.
pub(crate) const PULL_SOCKET: &str = "/run/holdfast/pull.sock";
/// What the supervisor says when it gives a VM.
pub(crate) const GO: &str = "go";
/// How long what an earlier life of this process has begun may take to end.
const LEFT_OVER: Duration = Duration::from_secs(30);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(20);
/// Between two looks whether this machine has joined, whether a machine that waits to join is still there, and who is a node.
const PRESENCE: Duration = Duration::from_millis(500);

/// The cluster's keys, for whoever needs them again and again.
enum Keys {
    /// Those of this boot, as they are now; the number that holds is that of the configuration.
    Held(Arc<Current>),
    #[cfg(test)]
    These(Ring),
}

impl Keys {
    fn get(&self) -> io::Result<Ring> {
        match self {
            Self::Held(current) => Ring::read(current.get().key).map_err(io::Error::other),
            #[cfg(test)]
            Self::These(keys) => Ok(keys.clone()),
        }
    }
}

/// What every connection needs.
struct Server {
    keys: Keys,
    cluster: String,
    places: Arc<Places>,
    /// Of the gateway only.
    storage: Option<Storage>,
    /// Of the gateway only.
    desk: Option<Desk>,
    consoles: Consoles,
}

/// Serves for as long as the machine runs.
pub(crate) fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // Init restarts it, and writes this to the kernel's log.
            let _ = writeln!(io::stderr().lock(), "streams: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Who this machine is among the members.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its place in the configuration.
    pub(crate) site: Site,
    /// Which boot this is.
    pub(crate) incarnation: Incarnation,
}

impl Member {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong, in words for the operator.
    pub(crate) fn read() -> Result<Self, String> {
        Ok(Self { site: Site::find()?, incarnation: init::incarnation()? })
    }

    /// Connects to another member, by the keys that are held now, and asks for a service.
    ///
    /// # Errors
    /// As [`Stream::connect`].
    pub(crate) fn connect(&self, address: Ipv4Addr, service: &Service) -> io::Result<Stream> {
        let config = &self.site.config;
        let keys = Ring::read(config.key).map_err(io::Error::other)?;
        Stream::connect((address, PORT), &keys, &config.name, service)
    }

    /// This boot of this node.
    pub(crate) fn boot(&self) -> Boot {
        Boot { node: self.site.config.node(self.site.slot).name.clone(), incarnation: self.incarnation }
    }
}

fn serve() -> Result<(), String> {
    while join::ask::is_wanted() {
        // The supervisor asks; without the secrets nobody can be served.
        thread::sleep(PRESENCE);
    }
    places::raise_files().map_err(|error| format!("so many open files: {error}"))?;
    let Member { site, .. } = Member::read()?;
    let own = site.config.node(site.slot);
    let address = own.address;
    let is_gateway = own.role == Role::Gateway;
    let storage = if is_gateway { Some(open_storage(&site)?) } else { None };
    let desk = if is_gateway { Some(open_desk(&site)?) } else { None };
    let (places, current) = (Places::new(places::CONNECTIONS), Current::new(site.config.clone()));
    Ring::read(site.config.key)?;
    hang_up_on_the_removed(&places, &current).map_err(|error| format!("no thread that hangs up: {error}"))?;
    let server = Arc::new(Server {
        keys: Keys::Held(current),
        cluster: site.config.name.clone(),
        places,
        storage,
        desk,
        consoles: Consoles::default(),
    });
    if is_gateway {
        let orders = orders::listen().map_err(|error| format!("the socket for orders: {error}"))?;
        take_orders(&server, orders).map_err(|error| format!("no thread for orders: {error}"))?;
    }
    let listener = TcpListener::bind((address, PORT)).map_err(|error| format!("port {PORT} of {address}: {error}"))?;
    server.listen(&listener);
    Ok(())
}

/// Whoever is removed loses what it has open, whatever it says: it may have switched itself off in words only.
fn hang_up_on_the_removed(places: &Arc<Places>, current: &Arc<Current>) -> io::Result<()> {
    let (places, current) = (Arc::clone(places), Arc::clone(current));
    let watch = move || loop {
        let config = current.get();
        places.keep(|from| roster::is_a_nodes(&config, from));
        thread::sleep(PRESENCE);
    };
    thread::Builder::new().stack_size(STACK).spawn(watch).map(drop)
}

/// Where the gateway keeps its tables.
fn state() -> &'static Path {
    let place = [STATE, STATE_IN_MEMORY].into_iter().find(|path| Path::new(path).exists());
    Path::new(place.unwrap_or(STATE_IN_MEMORY))
}

/// The gateway's desk for machines that join.
fn open_desk(site: &Site) -> Result<Desk, String> {
    let kept = Store::open(state()).map_err(|error| format!("{}: {error}", state().display()))?;
    Ok(Desk::new(Current::new(site.config.clone()), kept))
}

/// The gateway's storage, once nothing is at work any more that an earlier life of this process has admitted; what is being
/// checked is withheld.
fn open_storage(site: &Site) -> Result<Storage, String> {
    let kept = Store::open(state()).map_err(|error| format!("{}: {error}", state().display()))?;
    let end = Instant::now() + LEFT_OVER;
    let proc = Path::new("/proc");
    while left_over::serving(proc, &fs::read_to_string(init::NBD_PID).unwrap_or_default()) {
        if Instant::now() >= end {
            return Err("requests from before are still in flight".to_owned());
        }
        thread::sleep(LOOK);
    }
    let storage = Storage::new(&site.config, PathBuf::from(init::NBD_SOCKET), storage::DRAIN, kept);
    storage.withhold_left_over(proc);
    Ok(storage)
}

fn take_orders(server: &Arc<Server>, orders: UnixListener) -> io::Result<()> {
    let server = Arc::clone(server);
    let take = move || {
        for socket in orders.incoming().flatten() {
            let ordered = Arc::clone(&server);
            // Each may wait for long; whoever ordered learns of a failure.
            let _ = thread::Builder::new().stack_size(STACK).spawn(move || {
                let storage = ordered.storage.as_ref();
                storage.map(|storage| orders::serve(socket, storage))
            });
        }
    };
    thread::Builder::new().stack_size(STACK).spawn(take).map(drop)
}

impl Server {
    /// Serves whoever connects, for ever.
    fn listen(self: &Arc<Self>, listener: &TcpListener) {
        for tcp in listener.incoming().flatten() {
            let Some(mut place) = self.place(&tcp) else { continue };
            let serving = Arc::clone(self);
            // Whoever asked learns of a failure; there is nobody else to tell. Where there is no room for one more thread it is
            // hung up on, and those that are served stay.
            let _ = thread::Builder::new().stack_size(STACK).spawn(move || serving.connection(tcp, &mut place));
        }
    }

    /// A place for whoever has connected, if there is one.
    fn place(&self, tcp: &TcpStream) -> Option<Place> {
        let from = tcp.peer_addr().ok()?.ip();
        let stranger = self.desk.as_ref().is_some_and(|desk| !desk.is_a_nodes(from));
        self.places.take(from, stranger)
    }

    fn connection(&self, tcp: TcpStream, place: &mut Place) -> io::Result<()> {
        let line = tcp.try_clone()?;
        match &self.desk {
            None => {
                let (stream, service) = Stream::accept(tcp, &self.keys.get()?, &self.cluster)?;
                self.proven(stream, &service, place, line)
            }
            Some(desk) => match Stream::accept_any(tcp, &self.keys.get()?, &self.cluster)? {
                // While the key changes, one who was removed may still hold the old one: it lets nobody in.
                Accepted::Member(mut stream, Service::Join(_), false) => stream.answer(&Err(Refusal::Other(
                    "the cluster's key is being changed: ask again in a moment".to_owned(),
                ))),
                Accepted::Member(stream, service, _) => self.proven(stream, &service, place, line),
                Accepted::Joiner(stream, identity, binding) => joiner(desk, stream, identity, &binding),
            },
        }
    }

    /// Serves whoever has proven to be a member, if there is a place.
    fn proven(&self, mut stream: Stream, service: &Service, place: &mut Place, line: TcpStream) -> io::Result<()> {
        place.proven(line);
        match place.refusal() {
            Some(reason) => stream.answer(&Err(Refusal::Busy(reason))),
            None => self.member(stream, service),
        }
    }

    /// Serves a member.
    fn member(&self, mut stream: Stream, service: &Service) -> io::Result<()> {
        match (service, &self.storage) {
            (Service::Disk(wanted), Some(storage)) => storage.serve(stream, wanted),
            (Service::Claim(claiming), Some(storage)) => stream.answer(&storage.claim(claiming)),
            (Service::Volume(request), Some(storage)) => {
                let request = postcard::from_bytes(request).map_err(io::Error::other)?;
                stream.answer(&Ok(()))?;
                let volumes = storage.volumes(&request);
                stream.tell(&volumes.map(|volumes| postcard::to_allocvec(&volumes).unwrap_or_default()))
            }
            (Service::Disk(_) | Service::Claim(_) | Service::Volume(_), None) => {
                stream.answer(&Err(Refusal::Other("this node serves no storage".to_owned())))
            }
            (Service::Journals(_), _) if !gfs2::is_mounted() => {
                stream.answer(&Err(Refusal::Other("it has not mounted the shared file system".to_owned())))
            }
            (Service::Journals(count), _) => {
                stream.answer(&Ok(()))?;
                stream.tell(&gfs2::add_journals(*count))
            }
            (Service::Join(request), _) => {
                let none = || "this node lets nobody join".to_owned();
                match self.desk.as_ref().ok_or_else(none).and_then(|desk| desk.order(request, Instant::now())) {
                    Err(reason) => stream.answer(&Err(Refusal::Other(reason))),
                    Ok(joining) => {
                        stream.answer(&Ok(()))?;
                        stream.tell(&joining)
                    }
                }
            }
            (Service::Console(vm), _) => self.consoles.serve(stream, vm),
            (Service::Pull { .. }, _) => match ask_supervisor(service) {
                Err(reason) => stream.answer(&Err(Refusal::Other(reason))),
                Ok(local) => {
                    stream.answer(&Ok(()))?;
                    carry(stream, local, Counter::unseen())
                }
            },
        }
    }
}

/// Lets a machine in, has it wait, or sends it away.
fn joiner(desk: &Desk, mut stream: Stream, identity: Identity, binding: &Binding) -> io::Result<()> {
    let hello = match Hello::parse(&stream.receive()?) {
        Ok(hello) => hello,
        Err(reason) => return stream.tell(&Told::Refused(reason)),
    };
    let salt = join::salt()?;
    let decision = match desk.ask(identity, hello, &salt, binding, Instant::now()) {
        Admission::In => Decision::In,
        Admission::Out(reason) => Decision::Out(reason),
        Admission::Waits(waiting) => match wait(&waiting, &mut stream, salt)? {
            Some(decision) => decision,
            None => return Ok(()),
        },
    };
    let told = match decision {
        Decision::In => {
            let text = roster::text().map_err(io::Error::other)?;
            let key = Config::parse(&text).map_err(|error| io::Error::other(error.to_string()))?.key;
            stream.tell(&Told::Configuration(text))?;
            let secrets = secrets::text().and_then(|text| secrets::for_member(&text, key));
            Told::Secrets(secrets.map_err(io::Error::other)?)
        }
        Decision::Out(reason) => Told::Refused(reason),
    };
    stream.tell(&told)
}

/// What is decided about a machine that waits; nothing if it goes away, or asks once more.
fn wait(waiting: &Waiting<'_>, stream: &mut Stream, salt: [u8; 32]) -> io::Result<Option<Decision>> {
    // A window may have let it in already.
    if let Ok(decision) = waiting.decided.try_recv() {
        return Ok(Some(decision));
    }
    stream.tell(&Told::Wait { salt, note: waiting.note.clone() })?;
    loop {
        match waiting.decided.recv_timeout(PRESENCE) {
            Ok(decision) => return Ok(Some(decision)),
            Err(RecvTimeoutError::Timeout) if stream.is_there()? => waiting.look(),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// Carries bytes between a stream and a local socket until both directions have ended; those that come by the stream are counted.
///
/// # Errors
/// As [`Stream::pump`].
pub(crate) fn carry(stream: Stream, local: UnixStream, counter: Counter) -> io::Result<()> {
    let (from, to) = (local.try_clone()?, Counted::new(local.try_clone()?, counter));
    stream.pump(from, to, move || {
        // It may be closed already.
        let _ = local.shutdown(Shutdown::Write);
    })
}

fn ask_supervisor(service: &Service) -> Result<UnixStream, String> {
    let ask = || -> io::Result<(UnixStream, String)> {
        let mut local = UnixStream::connect(PULL_SOCKET)?;
        let request = serde_json::to_string(service).map_err(io::Error::other)?;
        writeln!(local, "{request}")?;
        // One byte at a time: what follows the line is the VM's.
        let mut answer = String::new();
        BufReader::with_capacity(1, &local).read_line(&mut answer)?;
        Ok((local, answer))
    };
    match ask() {
        Ok((local, answer)) if answer.trim_end() == GO => Ok(local),
        Ok((_, answer)) if answer.is_empty() => Err("the supervisor did not answer".to_owned()),
        Ok((_, answer)) => Err(answer.trim_end().to_owned()),
        Err(error) => Err(format!("the supervisor cannot be asked: {error}")),
    }
}

#[cfg(test)]
mod tests;

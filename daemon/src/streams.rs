//! The `streams` applet: answers on the stream's port, and carries what is asked for.
//!
//! It is a process of its own, so that storage goes on being served while the supervisor restarts. It decides two things,
//! by what it is told: who gets a disk of the gateway's ([`claims`]), and that nobody gets one before what was granted
//! earlier has come to an end ([`storage`]). A VM is given by the supervisor only, which is asked over its socket
//! ([`PULL_SOCKET`]) in one line and answers in one, `go` or the reason why not. After `go` that same socket carries the VM.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cluster::words::{Incarnation, Role};

use crate::init::{self, Site};
use crate::secrets::{Key, Secrets};
use crate::stream::{PORT, STACK, Service, Stream};
use claims::{Boot, Refusal};
use storage::Storage;
use store::Store;

pub(crate) mod claims;
mod gate;
pub(crate) mod orders;
pub(crate) mod storage;
pub(crate) mod store;

/// Where the gateway's NBD server answers.
const NBD_SOCKET: &str = "/run/holdfast/nbd.sock";
/// Where the gateway's claims are kept where it has a medium for them, which init has found.
pub(crate) const STATE: &str = "/run/holdfast/state";
/// Where they are kept where it has none: they survive this process, but not the machine.
const STATE_IN_MEMORY: &str = "/run/holdfast/claims";
/// Where the supervisor is asked for a VM.
pub(crate) const PULL_SOCKET: &str = "/run/holdfast/pull.sock";
/// The file of secrets.
pub(crate) const SECRETS: &str = "/etc/holdfast/secrets.toml";
/// Connections at a time; more are closed at once.
const CONNECTIONS: usize = 128;
/// What the supervisor says when it gives a VM.
pub(crate) const GO: &str = "go";
/// How long what an earlier life of this process has begun may take to end.
const LEFT_OVER: Duration = Duration::from_secs(30);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// What every connection needs.
struct Server {
    key: Key,
    cluster: String,
    open: AtomicUsize,
    /// Of the gateway only.
    storage: Option<Storage>,
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
    /// The cluster's key.
    pub(crate) secrets: Secrets,
    /// Which boot this is.
    pub(crate) incarnation: Incarnation,
}

impl Member {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong, in words for the operator.
    pub(crate) fn read() -> Result<Self, String> {
        let site = Site::find()?;
        let text = fs::read_to_string(SECRETS).map_err(|error| format!("{SECRETS}: {error}"))?;
        let secrets = Secrets::parse(&text, &site.config)?;
        Ok(Self { site, secrets, incarnation: init::incarnation()? })
    }

    /// This boot of this node.
    pub(crate) fn boot(&self) -> Boot {
        Boot { node: self.site.config.node(self.site.slot).name.clone(), incarnation: self.incarnation }
    }
}

fn serve() -> Result<(), String> {
    let Member { site, secrets, .. } = Member::read()?;
    let own = site.config.node(site.slot);
    let address = own.address;
    let storage = if own.role == Role::Gateway { Some(open_storage(&site)?) } else { None };
    let serves_disks = storage.is_some();
    let server = Arc::new(Server {
        key: secrets.cluster_key,
        cluster: site.config.name.clone(),
        open: AtomicUsize::new(0),
        storage,
    });
    if serves_disks {
        let orders = orders::listen().map_err(|error| format!("the socket for orders: {error}"))?;
        take_orders(&server, orders).map_err(|error| format!("no thread for orders: {error}"))?;
    }
    let listener = TcpListener::bind((address, PORT)).map_err(|error| format!("port {PORT} of {address}: {error}"))?;
    server.listen(&listener);
    Ok(())
}

/// The gateway's storage, once nothing is at work any more that an earlier life of this process has admitted.
fn open_storage(site: &Site) -> Result<Storage, String> {
    let path = [STATE, STATE_IN_MEMORY].into_iter().find(|path| Path::new(path).exists()).unwrap_or(STATE_IN_MEMORY);
    let kept = Store::open(Path::new(path)).map_err(|error| format!("{path}: {error}"))?;
    let end = Instant::now() + LEFT_OVER;
    while serving(Path::new("/proc"), &fs::read_to_string(init::NBD_PID).unwrap_or_default()) {
        if Instant::now() >= end {
            return Err("requests from before are still in flight".to_owned());
        }
        thread::sleep(LOOK);
    }
    Ok(Storage::new(&site.config, PathBuf::from(NBD_SOCKET), storage::DRAIN, kept))
}

/// Whether any process serves a connection of the NBD server's, whose own process has the id `main`: each has a process.
fn serving(proc: &Path, main: &str) -> bool {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter(|entry| entry.file_name().to_str().is_some_and(|pid| pid != main.trim()));
    // A process that has ended has no command line.
    let lines = pids.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| line.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()).any(|program| {
        Path::new(&String::from_utf8_lossy(&program).into_owned()).file_name().is_some_and(|name| name == "nbd-server")
    })
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
            if self.open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS {
                self.open.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let serving = Arc::clone(self);
            let begun = thread::Builder::new().stack_size(STACK).spawn(move || {
                // Whoever asked learns of a failure; there is nobody else to tell.
                let _ = serving.connection(tcp);
                serving.open.fetch_sub(1, Ordering::SeqCst);
            });
            if begun.is_err() {
                // No room for one more: it is hung up on, and those that are served stay.
                self.open.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    fn connection(&self, tcp: TcpStream) -> io::Result<()> {
        let (mut stream, service) = Stream::accept(tcp, &self.key, &self.cluster)?;
        match (&service, &self.storage) {
            (Service::Disk(wanted), Some(storage)) => storage.serve(stream, wanted),
            (Service::Claim(claiming), Some(storage)) => stream.answer(&storage.claim(claiming)),
            (Service::Disk(_) | Service::Claim(_), None) => {
                stream.answer(&Err(Refusal::Other("this node serves no storage".to_owned())))
            }
            (Service::Pull { .. }, _) => match ask_supervisor(&service) {
                Err(reason) => stream.answer(&Err(Refusal::Other(reason))),
                Ok(local) => {
                    stream.answer(&Ok(()))?;
                    carry(stream, local)
                }
            },
        }
    }
}

/// Carries bytes between a stream and a local socket until both directions have ended.
///
/// # Errors
/// As [`Stream::pump`].
pub(crate) fn carry(stream: Stream, local: UnixStream) -> io::Result<()> {
    let (from, to) = (local.try_clone()?, local.try_clone()?);
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

//! The `streams` applet: answers on the stream's port, and carries what is asked for.
//!
//! It is a process of its own, so that storage goes on being served while the supervisor restarts. It decides nothing:
//! storage is the gateway's NBD server, which is there or not; a VM is given by the supervisor only, which is asked over
//! its socket ([`PULL_SOCKET`]) in one line and answers in one, `go` or the reason why not. After `go` that same socket
//! carries the VM.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::init::Site;
use crate::secrets::{Key, Secrets};
use crate::stream::{PORT, STACK, Service, Stream};

/// Where the gateway's NBD server answers.
const NBD_SOCKET: &str = "/run/holdfast/nbd.sock";
/// Where the supervisor is asked for a VM.
pub(crate) const PULL_SOCKET: &str = "/run/holdfast/pull.sock";
/// The file of secrets.
pub(crate) const SECRETS: &str = "/etc/holdfast/secrets.toml";
/// Connections at a time; more are closed at once.
const CONNECTIONS: usize = 128;
/// What the supervisor says when it gives a VM.
pub(crate) const GO: &str = "go";

/// What every connection needs.
struct Server {
    key: Key,
    cluster: String,
    open: AtomicUsize,
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

/// Who this machine is, and the cluster's key.
///
/// # Errors
/// What is wrong, in words for the operator.
pub(crate) fn identity() -> Result<(Site, Secrets), String> {
    let site = Site::find()?;
    let text = std::fs::read_to_string(SECRETS).map_err(|error| format!("{SECRETS}: {error}"))?;
    let secrets = Secrets::parse(&text, &site.config)?;
    Ok((site, secrets))
}

fn serve() -> Result<(), String> {
    let (site, secrets) = identity()?;
    let own = site.config.node(site.slot).address;
    let server =
        Arc::new(Server { key: secrets.cluster_key, cluster: site.config.name.clone(), open: AtomicUsize::new(0) });
    let listener = TcpListener::bind((own, PORT)).map_err(|error| format!("port {PORT} of {own}: {error}"))?;
    for tcp in listener.incoming().flatten() {
        if server.open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS {
            server.open.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let serving = Arc::clone(&server);
        let begun = thread::Builder::new().stack_size(STACK).spawn(move || {
            // Whoever asked learns of a failure; there is nobody else to tell.
            let _ = serving.connection(tcp);
            serving.open.fetch_sub(1, Ordering::SeqCst);
        });
        if begun.is_err() {
            // No room for one more: it is hung up on, and those that are served stay.
            server.open.fetch_sub(1, Ordering::SeqCst);
        }
    }
    Ok(())
}

impl Server {
    fn connection(&self, tcp: TcpStream) -> io::Result<()> {
        let (mut stream, service) = Stream::accept(tcp, &self.key, &self.cluster)?;
        let local = match &service {
            Service::Storage => UnixStream::connect(NBD_SOCKET).map_err(|_| "this node serves no storage".to_owned()),
            Service::Pull { .. } => ask_supervisor(&service),
        };
        match local {
            Err(reason) => stream.answer(&Err(reason)),
            Ok(local) => {
                stream.answer(&Ok(()))?;
                carry(stream, local)
            }
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

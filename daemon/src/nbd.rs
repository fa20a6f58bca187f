//! The `nbd` applet: one network disk. It makes `/dev/gnbd/NAME` and carries its requests for as long as it lives.
//!
//! The kernel's NBD client does the block device; this program negotiates with the server, through the encrypted stream
//! to the gateway, and gives the kernel one end of a socket pair, the other end of which it carries. When the stream is
//! cut it connects again and gives the kernel a new socket: requests without an answer wait there ([`PATIENCE`]), and
//! are sent once more. The device bears the export's name in the kernel, so that one whose carrier was ended by force is
//! found, and carried on, by the next.

use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use rustix::mm::{MlockAllFlags, mlockall};

use crate::secrets::Secrets;
use crate::stream::{PORT, Service, Stream};
use crate::streams;
use kernel::{Kernel, find_device};
use negotiate::Export;

mod kernel;
mod negotiate;

/// Where network disks appear.
const DIRECTORY: &str = "/dev/gnbd";
/// How long requests wait for a connection before they fail: as long as an operator may need to restart a gateway.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Between two attempts to connect again.
const AGAIN: Duration = Duration::from_millis(500);

/// `nbd NAME ADDRESS`: runs until it is told to end.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let parsed = match arguments {
        [name, address] if fit(name) => address.parse().ok().map(|address| (name.clone(), address)),
        _ => None,
    };
    let result = parsed.ok_or_else(|| io::Error::other("nbd NAME ADDRESS")).and_then(|(name, address)| {
        // A page that this program waits for could be on the way out through this very program.
        mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)?;
        Disk::open(name, address)?.serve()
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever started it reads that, or the kernel's log does.
            let _ = writeln!(io::stderr().lock(), "nbd {}: {error}", arguments.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn fit(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// One network disk.
struct Disk {
    name: String,
    gateway: Ipv4Addr,
    cluster: String,
    secrets: Secrets,
    export: Export,
    kernel: Kernel,
    index: u32,
    carried: Option<Carried>,
}

/// A connection, and our end of the kernel's socket.
struct Carried {
    stream: Stream,
    ours: UnixStream,
}

impl Disk {
    /// Connects, negotiates, and makes the device.
    fn open(name: String, gateway: Ipv4Addr) -> io::Result<Self> {
        let (site, secrets) = streams::identity().map_err(io::Error::other)?;
        let (stream, export) = connect(gateway, &secrets, &site.config.name, &name)?;
        let mut kernel = Kernel::open()?;
        let (ours, theirs) = UnixStream::pair()?;
        let index = match find_device(Path::new("/sys/block"), &name) {
            // A carrier before this one was ended by force, and its device is waiting, perhaps with requests.
            Some((index, size)) if size == export.size => {
                kernel.reconfigure(index, &name, theirs.as_fd())?;
                index
            }
            Some(_) => return Err(io::Error::other("the export has changed, and its old device is in use")),
            None => kernel.connect(&name, &export, PATIENCE, theirs.as_fd())?,
        };
        let disk = Self {
            name,
            gateway,
            cluster: site.config.name,
            secrets,
            export,
            kernel,
            index,
            carried: Some(Carried { stream, ours }),
        };
        fs::create_dir_all(DIRECTORY)?;
        disk.unlink()?;
        symlink(Path::new("/dev").join(format!("nbd{index}")), disk.link())?;
        Ok(disk)
    }

    fn link(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    fn unlink(&self) -> io::Result<()> {
        match fs::remove_file(self.link()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Carries requests, over one connection after another, until SIGTERM.
    fn serve(mut self) -> io::Result<()> {
        let ending = self.end_on_signal()?;
        while !ending.load(Ordering::SeqCst) {
            match self.carried.take() {
                Some(Carried { stream, ours }) => {
                    if let Err(error) = streams::carry(stream, ours) {
                        // Said in the kernel's log; the requests wait.
                        let _ = writeln!(io::stderr().lock(), "nbd {}: connection lost: {error}", self.name);
                    }
                }
                None => match self.reconnect() {
                    Ok(carried) => self.carried = Some(carried),
                    Err(_) => thread::sleep(AGAIN),
                },
            }
        }
        Ok(())
    }

    fn reconnect(&mut self) -> io::Result<Carried> {
        let (stream, export) = connect(self.gateway, &self.secrets, &self.cluster, &self.name)?;
        if export != self.export {
            return Err(io::Error::other("the export has changed"));
        }
        let (ours, theirs) = UnixStream::pair()?;
        self.kernel.reconfigure(self.index, &self.name, theirs.as_fd())?;
        Ok(Carried { stream, ours })
    }

    /// On SIGTERM the device goes first, so that nobody finds it without a carrier; then the kernel lets the socket go,
    /// which ends the carrying.
    fn end_on_signal(&self) -> io::Result<Arc<AtomicBool>> {
        let signals: SigSet = [Signal::SIGTERM].into_iter().collect();
        signals.thread_block()?;
        let ending = Arc::new(AtomicBool::new(false));
        let (told, link, index) = (Arc::clone(&ending), self.link(), self.index);
        let mut kernel = Kernel::open()?;
        thread::spawn(move || {
            if signals.wait().is_ok() {
                told.store(true, Ordering::SeqCst);
                // What is gone already is as it should be.
                let _ = fs::remove_file(link);
                let _ = kernel.disconnect(index);
            }
        });
        Ok(ending)
    }
}

fn connect(gateway: Ipv4Addr, secrets: &Secrets, cluster: &str, name: &str) -> io::Result<(Stream, Export)> {
    let mut stream = Stream::connect((gateway, PORT), &secrets.cluster_key, cluster, &Service::Storage)?;
    let export = negotiate::negotiate(&mut stream, name)?;
    Ok((stream, export))
}

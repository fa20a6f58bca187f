//! The `nbd` applet: one network disk. It makes `/dev/gnbd/NAME` and carries its requests for as long as it lives.
//!
//! The kernel's NBD client does the block device; this program has the gateway connect it to the disk, through the
//! encrypted stream, and gives the kernel one end of a socket pair, the other end of which it carries. When the stream is
//! cut it connects again and gives the kernel a new socket: requests without an answer wait there, for as long as the
//! configuration's `patience`, and are sent once more. After that they fail, and the disk is lost. A disk that is written to is claimed before, by the supervisor; this program says by which claim it
//! comes, and ends with its device when the gateway says that the disk is another's by now.
//!
//! The device bears the export's name and the claim in the kernel. So one whose carrier was ended by force is found, and
//! carried on, by the next; but never under another claim: what waits in it was written by a VM that is gone.

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
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use rustix::mm::{MlockAllFlags, mlockall};

use cluster::words::{Claim, Generation, VmName};

use crate::carried::Counter;
use crate::stream::{Service, Stream};
use crate::streams::claims::{Boot, Claimant, Refusal};
use crate::streams::storage::Wanted;
use crate::streams::{self, Member};
use condition::{Bulletin, Condition};
use kernel::{Device, Kernel, devices};
use negotiate::Export;

pub(crate) mod condition;
mod kernel;
pub(crate) mod negotiate;
#[cfg(test)]
pub(crate) mod tests_server;

/// Where network disks appear.
const DIRECTORY: &str = "/dev/gnbd";
/// Where the kernel lists block devices.
const BLOCKS: &str = "/sys/block";
/// Between two attempts to connect again.
const AGAIN: Duration = Duration::from_millis(500);

/// By what a disk is used: the VM that it is for, and its claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Title {
    /// The VM.
    pub(crate) vm: VmName,
    /// The claim.
    pub(crate) claim: Claim,
}

impl Title {
    /// As words of this program's command line.
    pub(crate) fn words(&self) -> [String; 3] {
        [self.vm.to_string(), self.claim.epoch.to_string(), self.claim.generation.0.to_string()]
    }

    /// From such words.
    pub(crate) fn parse(words: &[impl AsRef<str>]) -> Option<Self> {
        let [vm, epoch, generation] = words else { return None };
        let claim =
            Claim { epoch: epoch.as_ref().parse().ok()?, generation: Generation(generation.as_ref().parse().ok()?) };
        Some(Self { vm: VmName::new(vm.as_ref())?, claim })
    }

    /// For a boot of a node.
    pub(crate) fn claimant(&self, boot: Boot) -> Claimant {
        Claimant { vm: self.vm.clone(), claim: self.claim, boot }
    }
}

/// `nbd NAME ADDRESS [VM EPOCH GENERATION]`: runs until it is told to end.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let parsed = match arguments {
        [name, address] if fit(name) => address.parse().ok().map(|address| (name.clone(), address, None)),
        [name, address, title @ ..] if fit(name) => address.parse().ok().and_then(|address| {
            let title = Title::parse(title)?;
            Some((name.clone(), address, Some(title)))
        }),
        _ => None,
    };
    let usage = || io::Error::other("nbd NAME ADDRESS [VM EPOCH GENERATION]");
    let result = parsed.ok_or_else(usage).and_then(|(name, address, title)| {
        // A page that this program waits for could be on the way out through this very program.
        mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)?;
        let bulletin = Bulletin::of(&name);
        let opened = Disk::open(name, address, title).inspect_err(|error| {
            // The supervisor learns from it why there is no disk; it looks until then, and is told of a failure elsewhere.
            let _ = bulletin.tell(&given_up(error).unwrap_or_else(|| Condition::Failed(error.to_string())));
        });
        opened?.serve()
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

/// The way to a disk on the gateway.
struct Way {
    gateway: Ipv4Addr,
    member: Member,
    wanted: Wanted,
}

impl Way {
    fn connect(&self) -> io::Result<(Stream, Export)> {
        let mut stream = self.member.connect(self.gateway, &Service::Disk(self.wanted.clone()))?;
        let export = stream.hear()?;
        Ok((stream, export))
    }
}

/// One network disk.
struct Disk {
    name: String,
    way: Way,
    export: Export,
    kernel: Kernel,
    index: u32,
    /// What the device bears in the kernel.
    backend: String,
    carried: Option<Carried>,
}

/// A connection, and our end of the kernel's socket.
struct Carried {
    stream: Stream,
    ours: UnixStream,
}

impl Disk {
    /// Connects, and makes the device.
    fn open(name: String, gateway: Ipv4Addr, title: Option<Title>) -> io::Result<Self> {
        let member = Member::read().map_err(io::Error::other)?;
        let claimant = title.as_ref().map(|title| title.claimant(member.boot()));
        let wanted = Wanted { disk: name.clone(), boot: member.boot(), claimant };
        let way = Way { gateway, member, wanted };
        let mut kernel = Kernel::open()?;
        let backend = backend(&name, title.as_ref());
        let connected = way.connect();
        let refused = connected.as_ref().is_err_and(|error| given_up(error).is_some());
        let mut found = None;
        for Device { index, size, backend: other } in devices(Path::new(BLOCKS)) {
            if other == backend && !refused {
                found = Some((index, size));
            } else if other.split(' ').next() == Some(&name) {
                // What waits in it was written under a claim that counts no more.
                kernel.disconnect(index)?;
            }
        }
        let (stream, export) = connected?;
        let (ours, theirs) = UnixStream::pair()?;
        let index = match found {
            // A carrier before this one was ended by force, and its device is waiting, perhaps with requests.
            Some((index, size)) if size <= export.size => {
                kernel.reconfigure(index, &backend, theirs.as_fd())?;
                index
            }
            Some((_, size)) => return Err(resized(&name, size, export.size)),
            None => kernel.connect(&backend, &export, way.member.site.config.patience, theirs.as_fd())?,
        };
        let carried = Some(Carried { stream, ours });
        let disk = Self { name, way, export, kernel, index, backend, carried };
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

    /// Carries requests, over one connection after another, until SIGTERM, or until the disk is given up.
    fn serve(mut self) -> io::Result<()> {
        let (ending, bulletin) = (self.end_on_signal()?, Bulletin::of(&self.name));
        let mut last = Condition::Carried;
        bulletin.tell(&last)?;
        let mut since = Instant::now();
        while !ending.load(Ordering::SeqCst) {
            if let Some(Carried { stream, ours }) = self.carried.take() {
                if let Err(error) = streams::carry(stream, ours, Counter::unseen()) {
                    // Said in the kernel's log; the requests wait.
                    let _ = writeln!(io::stderr().lock(), "nbd {}: connection lost: {error}", self.name);
                }
                since = Instant::now();
                continue;
            }
            let condition = match self.reconnect() {
                Ok(carried) => {
                    self.carried = Some(carried);
                    Condition::Carried
                }
                Err(error) => self.how_it_is_without(&error, since.elapsed()),
            };
            if condition != last {
                bulletin.tell(&condition)?;
                last = condition;
            }
            match &last {
                Condition::Carried => {}
                Condition::Waits(_) => thread::sleep(AGAIN),
                Condition::Taken(reason) | Condition::Lost(reason) | Condition::Failed(reason) => {
                    // What waits here fails now: nobody is to read what others write, and nothing of it may be sent later.
                    self.unlink()?;
                    self.kernel.disconnect(self.index)?;
                    return Err(io::Error::other(reason.clone()));
                }
            }
        }
        bulletin.remove();
        Ok(())
    }

    /// What an attempt to connect that failed means, when there has been no connection for so long.
    fn how_it_is_without(&self, error: &io::Error, waited: Duration) -> Condition {
        given_up(error).unwrap_or_else(|| {
            if waited < self.way.member.site.config.patience {
                Condition::Waits(error.to_string())
            } else {
                Condition::Lost(format!("the gateway has not been there for {} s: {error}", waited.as_secs()))
            }
        })
    }

    fn reconnect(&mut self) -> io::Result<Carried> {
        let (stream, export) = self.way.connect()?;
        if !is_still(&self.export, &export) {
            return Err(resized(&self.name, self.export.size, export.size));
        }
        let (ours, theirs) = UnixStream::pair()?;
        self.kernel.reconfigure(self.index, &self.backend, theirs.as_fd())?;
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

/// What a device bears in the kernel: the export's name, and by what it is used.
fn backend(name: &str, title: Option<&Title>) -> String {
    title.map_or_else(|| name.to_owned(), |title| format!("{name} {}", title.words().join(" ")))
}

/// Whether what the gateway serves now is the disk as it was. It may have grown: the device keeps its size, and the next one
/// has the new size.
fn is_still(before: &Export, now: &Export) -> bool {
    now.flags == before.flags && now.size >= before.size
}

fn resized(name: &str, from: u64, to: u64) -> io::Error {
    io::Error::other(format!("disk {name} had {from} bytes and now has {to}, or other features"))
}

/// How a disk is that the gateway has refused for good, if it has.
fn given_up(error: &io::Error) -> Option<Condition> {
    match error.get_ref()?.downcast_ref::<Refusal>()? {
        Refusal::Claimed(reason) => Some(Condition::Taken(reason.clone())),
        Refusal::Barred(reason) => Some(Condition::Lost(reason.clone())),
        Refusal::Missing(_) | Refusal::Busy(_) | Refusal::Other(_) => None,
    }
}

/// The disks that have a device here, carried or not, and by what.
pub(crate) fn here() -> Vec<(String, Option<Title>)> {
    devices(Path::new(BLOCKS)).into_iter().map(|device| of_backend(&device.backend)).collect()
}

fn of_backend(backend: &str) -> (String, Option<Title>) {
    let mut words = backend.split(' ');
    let name = words.next().unwrap_or_default().to_owned();
    (name, Title::parse(&words.collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_told_in_words_and_a_device_bears_it() {
        let claim = Claim { epoch: 3, generation: Generation(17) };
        let title = Title { vm: VmName::new("web-1").unwrap(), claim };
        assert_eq!(Title::parse(&title.words()), Some(title.clone()));
        assert_eq!(backend("x0", Some(&title)), "x0 web-1 3 17");
        assert_eq!(backend("x0", None), "x0");
        assert_eq!(of_backend("x0 web-1 3 17"), ("x0".to_owned(), Some(title)));
        assert_eq!(of_backend("shared"), ("shared".to_owned(), None));
        for bad in [&[][..], &["x0", "1"], &["x0", "1", "2", "3"], &["x0", "-1", "2"], &["../x0", "1", "2"]] {
            assert_eq!(Title::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_disk_that_is_refused_for_good_is_given_up() {
        let refused = |refusal| given_up(&io::Error::other(refusal));
        assert_eq!(refused(Refusal::Claimed("a".to_owned())), Some(Condition::Taken("a".to_owned())));
        assert_eq!(refused(Refusal::Barred("b".to_owned())), Some(Condition::Lost("b".to_owned())));
        assert_eq!(refused(Refusal::Busy(String::new())), None);
        assert_eq!(refused(Refusal::Missing(String::new())), None);
        assert_eq!(given_up(&io::ErrorKind::ConnectionRefused.into()), None);
    }

    #[test]
    fn a_disk_that_has_grown_is_still_the_same() {
        let before = Export { size: 1 << 20, flags: 5 };
        assert!(is_still(&before, &before) && is_still(&before, &Export { size: 2 << 20, ..before }));
        assert!(!is_still(&before, &Export { size: (1 << 20) - 512, ..before }));
        assert!(!is_still(&before, &Export { flags: 7, ..before }), "it can only be read by now");
    }
}

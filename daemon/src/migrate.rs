//! Live migration, as far as it is not `xl`'s: both ends of `xl`'s stream put on ours. No ssh, and no shell.
//!
//! ```text
//! source: supervisor -> xl migrate -> "sh" (this program) == the socket given as descriptor 3 == streams applet
//!                                                                                                     |  encrypted
//! target: supervisor -> holdfast pull -> xl migrate-receive == a socket pair == this program ---------+
//! ```
//!
//! `xl migrate` insists on running its transport as `sh -c "exec PROGRAM HOST xl migrate-receive"`. There is no shell in
//! the image; the `sh` that it finds on its own PATH ([`SH_DIRECTORY`]) is this program, which does not read that line
//! and carries its standard input and output to and from descriptor 3.

use std::fs::File;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use crate::stream::{PORT, Service, Stream};
use crate::streams;
use crate::sys;

/// Xen's toolstack.
const XL: &str = "/usr/lib/xen-4.17/bin/xl";
/// Where the image has the `sh` that is this program.
const SH_DIRECTORY: &str = "/bin";
/// Bytes that are copied at a time: a small buffer makes a migration several times slower.
const BUFFER: usize = 1 << 20;

/// The command that pushes a VM into `socket`, which the other end has been given.
pub(crate) fn push(vm: &str, target: &str, socket: OwnedFd) -> Command {
    let mut command = Command::new(XL);
    command.args(["migrate", "-s", "holdfast", vm, target]).env("PATH", SH_DIRECTORY).stdin(Stdio::null());
    sys::give_descriptor_3(&mut command, socket);
    command
}

/// The applet `sh`: standard input to descriptor 3, and descriptor 3 to standard output.
pub(crate) fn sh() -> ExitCode {
    let ends = || -> io::Result<(File, File, UnixStream)> {
        let socket = UnixStream::from(sys::take_descriptor_3()?);
        let own = |fd: rustix::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
        Ok((own(io::stdin().as_fd())?, own(io::stdout().as_fd())?, socket))
    };
    report("sh", ends().and_then(|(input, output, socket)| exchange(input, output, &socket)))
}

/// Copies both ways until both directions have ended.
fn exchange(mut input: File, mut output: File, socket: &UnixStream) -> io::Result<()> {
    let mut to_socket = socket.try_clone()?;
    let sender = thread::spawn(move || -> io::Result<()> {
        let result = copy(&mut input, &mut to_socket);
        to_socket.shutdown(std::net::Shutdown::Write)?;
        result
    });
    copy(&mut socket.try_clone()?, &mut output)?;
    drop(output);
    sender.join().unwrap_or_else(|_| Err(io::Error::other("the sender panicked")))
}

fn copy(from: &mut impl io::Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return to.flush(),
            Ok(length) => to.write_all(buffer.get(..length).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The applet `pull VM GENERATION ADDRESS`: asks the node at that address for a VM, and has `xl` receive it.
pub(crate) fn pull(arguments: &[String]) -> ExitCode {
    let parsed = match arguments {
        [vm, generation, address] => generation.parse().ok().zip(address.parse().ok()).map(|rest| (vm.clone(), rest)),
        _ => None,
    };
    let Some((vm, (generation, address))) = parsed else {
        return report("pull", Err(io::Error::other("pull VM GENERATION ADDRESS")));
    };
    report("pull", receive(vm, generation, address))
}

fn receive(vm: String, generation: u64, address: Ipv4Addr) -> io::Result<()> {
    let (site, secrets) = streams::identity().map_err(io::Error::other)?;
    let service = Service::Pull { vm, generation, by: site.slot.0 };
    let stream = Stream::connect((address, PORT), &secrets.cluster_key, &site.config.name, &service)?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut xl = Command::new(XL)
        .arg("migrate-receive")
        .stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?)))
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    let carried = streams::carry(stream, ours);
    let status = xl.wait()?;
    if status.success() {
        return Ok(());
    }
    carried?;
    Err(io::Error::other(format!("xl migrate-receive: {status}")))
}

fn report(applet: &str, result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The supervisor reads it and tells the operator.
            let _ = writeln!(io::stderr().lock(), "{applet}: {error}");
            ExitCode::FAILURE
        }
    }
}

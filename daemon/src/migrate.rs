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
//! and carries its standard input and output to and from descriptor 3. What is carried of the VM is counted at both ends
//! ([`crate::carried`]).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use crate::carried::{Counted, Counter};
use crate::stream::Service;
use crate::streams::{self, Member};
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
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
        let (input, output) = (own(io::stdin().as_fd())?, own(io::stdout().as_fd())?);
        // Nothing else may hold the pipes open: `xl` waits for their ends.
        let nothing = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nothing)?;
        rustix::stdio::dup2_stdout(&nothing)?;
        Ok((input, output, socket))
    };
    report("sh", ends().and_then(|(input, output, socket)| exchange(input, output, &socket, Counter::given())))
}

/// Copies both ways until both directions have ended, and counts what goes to the socket. Each ends by itself; an error ends
/// its own direction.
fn exchange(mut input: File, mut output: File, socket: &UnixStream, counter: Counter) -> io::Result<()> {
    let to_socket = socket.try_clone()?;
    let sender = thread::spawn(move || -> io::Result<()> {
        let result = copy(&mut input, &mut Counted::new(&to_socket, counter));
        drop(input);
        to_socket.shutdown(Shutdown::Write)?;
        result
    });
    let received = copy(&mut socket.try_clone()?, &mut output);
    drop(output);
    let sent = sender.join().unwrap_or_else(|_| Err(io::Error::other("the sender panicked")));
    received.and(sent)
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
    let member = Member::read().map_err(io::Error::other)?;
    let service = Service::Pull { vm, generation, by: member.site.slot.0 };
    let stream = member.connect(address, &service)?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut xl = Command::new(XL)
        .arg("migrate-receive")
        .stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?)))
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    let carried = streams::carry(stream, ours, Counter::given());
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn own(end: impl Into<OwnedFd>) -> File {
        File::from(end.into())
    }

    /// The transport between two pipes and a socket, as `xl migrate` has it, and the other ends of all three.
    fn transport() -> (thread::JoinHandle<io::Result<()>>, File, File, UnixStream) {
        let (input, to_input) = io::pipe().unwrap();
        let (from_output, output) = io::pipe().unwrap();
        let (socket, far) = UnixStream::pair().unwrap();
        let carrier = thread::spawn(move || exchange(own(input), own(output), &socket, Counter::unseen()));
        (carrier, own(to_input), own(from_output), far)
    }

    #[test]
    fn the_transport_ends_each_direction_by_itself() {
        let (carrier, mut xl_out, mut xl_in, mut far) = transport();
        xl_out.write_all(b"domain").unwrap();
        drop(xl_out);
        let mut received = Vec::new();
        far.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"domain");
        far.write_all(b"thanks").unwrap();
        drop(far);
        received.clear();
        xl_in.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"thanks");
        carrier.join().unwrap().unwrap();
    }

    #[test]
    fn xl_hears_the_end_of_a_target_that_is_gone() {
        let (carrier, mut xl_out, mut xl_in, far) = transport();
        drop(far);
        // While `xl` waits for an answer it hears the end, though its own side is still open.
        assert_eq!(xl_in.read(&mut [0; 1]).unwrap(), 0);
        // And while it sends, its pipe breaks, however much it still has.
        while xl_out.write_all(&[0; 4096]).is_ok() {}
        assert!(carrier.join().unwrap().is_err());
    }
}

//! `cargo rack`: the virtual rack, in the foreground, and what can be said to it from other terminals.

use std::io::{Read as _, Write as _, stdin, stdout};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::channel;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};
use holdfast_tests::rack::artefacts::rack_dir;
use holdfast_tests::rack::control::{Request, ask, serve};
use holdfast_tests::rack::status::Status;
use holdfast_tests::rack::ups::Supply;
use holdfast_tests::rack::{Options, Push, Rack, leftovers};
use holdfast_tests::setup;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Ctrl-\: leaves a console. Ctrl-] is the menu's, where it leaves a VM's.
const LEAVE: u8 = 0x1c;

/// A gateway, three nodes and a switched power bar, as QEMU machines in a network of their own.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Start the rack here, in the foreground, and show its events (what `cargo rack` alone does).
    Up {
        /// How many nodes, beside the gateway.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
        nodes: u8,
    },
    /// How the rack stands.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Switch a node's outlet; `on` also presses the power button of a machine that switched itself off.
    Power {
        /// What to do.
        push: Push,
        /// To which node.
        node: String,
    },
    /// Stop a node's processors for good, power on: a machine that hangs.
    Crash {
        /// Which node.
        node: String,
    },
    /// Choose "Shut down this node" in a node's console menu, as an operator would.
    Shutdown {
        /// Which node.
        node: String,
    },
    /// Attach to a node's serial console; leave with Ctrl-\.
    Console {
        /// Which node.
        node: String,
    },
    /// The event log.
    Log {
        /// Go on as it grows.
        #[arg(short, long)]
        follow: bool,
    },
    /// Pull or plug a node's cable to the cluster network, or the power bar's (`pdu1`): its console can still be reached.
    Cable {
        /// Which way.
        way: Way,
        /// Whose.
        node: String,
        /// Only the way to this other node; both keep everybody else.
        other: Option<String>,
    },
    /// What a UPS says: it has mains, is on battery, or is nearly empty.
    Ups {
        /// Which: u1 or u2.
        ups: String,
        /// What it says from now on.
        supply: Supply,
    },
    /// End the rack; also clears away what a rack that was killed has left.
    Down,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    /// Pull it.
    Cut,
    /// Plug it.
    Join,
}

fn main() -> ExitCode {
    let dir = rack_dir();
    match run(Arguments::parse().command.unwrap_or(What::Up { nodes: 3 }), &dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "rack: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What, dir: &Path) -> Result<()> {
    match what {
        What::Up { nodes } => up(nodes, dir),
        What::Status { json } => status(dir, json),
        What::Power { push, node } => show(ask(dir, &Request::Power { node, push })?),
        What::Crash { node } => show(ask(dir, &Request::Crash { node })?),
        What::Shutdown { node } => show(ask(dir, &Request::Shutdown { node })?),
        What::Console { node } => console(ask(dir, &Request::Console { node })?),
        What::Log { follow } => show(ask(dir, &Request::Log { follow })?),
        What::Cable { way, node, other } => show(ask(dir, &Request::Cable { node, other, joined: way == Way::Join })?),
        What::Ups { ups, supply } => show(ask(dir, &Request::Ups { ups, supply })?),
        What::Down => down(dir),
    }
}

/// What ends the waiting of `up`.
enum News {
    /// The rack is up, or not.
    Started(Result<Arc<Rack>>),
    /// Ctrl-C, a signal, or `cargo rack down`.
    Stop,
}

fn up(nodes: u8, dir: &Path) -> Result<()> {
    setup::install_missing()?;
    setup::check_machine()?;
    let (news, inbox) = channel();
    let (signal, asked) = (news.clone(), news.clone());
    ctrlc::set_handler(move || {
        let _ = signal.send(News::Stop);
    })?;
    let options = Options { nodes, vms: 2, suspends: false, dir: dir.into(), print: true };
    // By a thread of its own, so that Ctrl-C need not wait for the image; what it started dies with this process.
    std::thread::spawn(move || {
        let _ = news.send(News::Started(Rack::start(&options).map(Arc::new)));
    });
    let rack = match inbox.recv()? {
        News::Started(rack) => rack?,
        News::Stop => return leftovers::clean(dir).map(drop),
    };
    serve(&rack, dir, move || drop(asked.send(News::Stop)))?;
    inbox.recv()?;
    rack.log.note("going down");
    rack.close();
    Ok(())
}

fn down(dir: &Path) -> Result<()> {
    match ask(dir, &Request::Down) {
        // The stream ends with the rack's process.
        Ok(mut stream) => drop(stream.read_to_end(&mut Vec::new())),
        Err(_) => writeln!(stdout().lock(), "no rack is running here")?,
    }
    for line in leftovers::clean(dir)? {
        writeln!(stdout().lock(), "{line}")?;
    }
    Ok(())
}

fn status(dir: &Path, json: bool) -> Result<()> {
    let mut text = String::new();
    ask(dir, &Request::Status)?.read_to_string(&mut text)?;
    if json {
        write!(stdout().lock(), "{text}")?;
    } else {
        let status: Status = serde_json::from_str(&text)?;
        write!(stdout().lock(), "{status}")?;
    }
    Ok(())
}

/// Copies an answer to standard output as it comes.
fn show(mut answer: UnixStream) -> Result<()> {
    std::io::copy(&mut answer, &mut stdout().lock())?;
    Ok(())
}

fn console(mut line: UnixStream) -> Result<()> {
    let _raw = Raw::enter()?;
    let mut keys = line.try_clone()?;
    // Not joined: it may wait for a key when the line has ended, and ends with the process.
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = stdin().lock().read(&mut buffer) {
            let typed = buffer.get(..count).unwrap_or_default();
            if typed.contains(&LEAVE) || keys.write_all(typed).is_err() {
                break;
            }
        }
        let _ = keys.shutdown(std::net::Shutdown::Both);
    });
    let mut screen = stdout();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = line.read(&mut buffer) {
        screen.write_all(buffer.get(..count).unwrap_or_default())?;
        screen.flush()?;
    }
    Ok(())
}

/// The terminal passes every key on as it is, until this is dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Result<Self> {
        // Without a terminal there is nothing to set: keys come from a pipe.
        let Ok(before) = tcgetattr(stdin()) else {
            return Ok(Self(None));
        };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSANOW, &raw).context("cannot set the terminal")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(stdin(), SetArg::TCSANOW, before);
            let _ = stdout().write_all(b"\r\n");
        }
    }
}

//! The console menu of one terminal: carries bytes between the terminal, the crate `console`, and the supervisor.
//!
//! It decides nothing. Whatever goes wrong with the terminal ends it, and init starts it again; a supervisor that is not
//! there is waited for.

mod guest;
mod link;
mod terminal;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use console::{Ask, Key, Keys, LEAVE, Menu, Screen, render};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::confine;
use crate::supervise::menu_link::SOCKET;
use guest::Guest;
use link::Link;
use terminal::Terminal;

/// How long after an `ESC` the rest of its sequence may come: ten times what a line of 2400 baud needs for a byte.
const ESCAPE_PAUSE: Duration = Duration::from_millis(50);
/// How often a supervisor that is not there is looked for.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Runs until the terminal ends or a signal says so. The argument, if there is one, is the supervisor's socket.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let socket = arguments.first().map_or(SOCKET, String::as_str);
    // Where the kernel cannot do it, init has said so, and the menu is still a program of a user without rights.
    let _ = confine::menu();
    match serve(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The terminal is what failed, most likely.
            let _ = writeln!(io::stderr().lock(), "holdfast menu: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is there to be looked at.
#[derive(Clone, Copy, Debug)]
struct Ready {
    signal: bool,
    keys: bool,
    link: bool,
    guest: bool,
}

fn serve(socket: &str) -> io::Result<()> {
    let signals = take_signals()?;
    let mut session = Session {
        terminal: Terminal::take()?,
        link: Link::new(socket),
        guest: None,
        keys: Keys::default(),
        key_at: Instant::now(),
        menu: Menu::new(),
        shown: None,
    };
    loop {
        session.reconnect();
        session.draw()?;
        let ready = session.wait(&signals)?;
        if ready.signal {
            return Ok(());
        }
        session.take_keys(ready.keys)?;
        if ready.link {
            session.take_news();
        }
        if ready.guest {
            session.serve_guest();
        }
    }
}

/// Blocks the signals that end a program and makes a descriptor of them, so that the terminal is given back.
fn take_signals() -> io::Result<SignalFd> {
    let set: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

#[derive(Debug)]
struct Session {
    terminal: Terminal,
    link: Link,
    /// The console of a VM, if one is looked at.
    guest: Option<Guest>,
    keys: Keys,
    /// When a key, or a part of one, came last.
    key_at: Instant,
    menu: Menu,
    /// What the terminal shows, as far as this program knows.
    shown: Option<Screen>,
}

impl Session {
    fn reconnect(&mut self) {
        if self.link.connect() {
            self.menu.handle(console::Input::Connected);
        }
    }

    fn draw(&mut self) -> io::Result<()> {
        let screen = self.menu.screen();
        self.terminal.write(&render(self.shown.as_ref(), &screen))?;
        self.shown = Some(screen);
        Ok(())
    }

    /// Sleeps until there is something to do.
    fn wait(&self, signals: &SignalFd) -> io::Result<Ready> {
        let escape = self.keys.waits().then(|| ESCAPE_PAUSE.saturating_sub(self.key_at.elapsed()));
        let retry = self.link.stream().is_none().then_some(RETRY_PAUSE);
        let pause = escape.into_iter().chain(retry).min();
        let pause = pause.and_then(|pause| Timespec::try_from(pause).ok());
        let mut fds = vec![PollFd::new(signals, PollFlags::IN), PollFd::new(&self.terminal, PollFlags::IN)];
        fds.extend(self.link.stream().map(|stream| PollFd::new(stream, PollFlags::IN)));
        let linked = fds.len() > 2;
        fds.extend(self.guest.as_ref().map(|guest| {
            let out = if guest.waits() { PollFlags::OUT } else { PollFlags::empty() };
            PollFd::new(guest.stream(), PollFlags::IN | out)
        }));
        match rustix::event::poll(&mut fds, pause.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || ready.next().unwrap_or(false);
        Ok(Ready { signal: next(), keys: next(), link: linked && next(), guest: next() })
    }

    /// Takes the keys that were pressed, and the silence after them.
    fn take_keys(&mut self, ready: bool) -> io::Result<()> {
        let mut keys = Vec::new();
        if ready {
            let mut buffer = [0; 64];
            let bytes = self.terminal.read(&mut buffer)?;
            let to_guest =
                if self.menu.types_to_guest() { bytes.iter().position(|byte| *byte == LEAVE) } else { Some(0) };
            let (typed, bytes) = bytes.split_at(to_guest.unwrap_or(bytes.len()));
            if !typed.is_empty()
                && let Some(guest) = &mut self.guest
            {
                guest.send(typed);
                self.tell(console::Input::Typed);
            }
            for byte in bytes {
                keys.extend(self.keys.push(*byte).into_iter().flatten());
            }
            self.key_at = Instant::now();
        } else if self.keys.waits() && self.key_at.elapsed() >= ESCAPE_PAUSE {
            keys.extend(self.keys.silence());
        }
        for key in keys {
            if key == Key::Redraw {
                self.shown = None;
            }
            self.tell(console::Input::Key(key));
        }
        Ok(())
    }

    /// Tells the menu, and asks for what it wants to have asked.
    fn tell(&mut self, input: console::Input) {
        let asked = self.menu.handle(input);
        if !self.menu.has_guest() {
            self.guest = None;
        }
        let asked = match asked {
            Some(Ask::Console(vm)) => Guest::new().and_then(|(guest, other)| {
                self.guest = Some(guest);
                self.link.attach(vm, &other)
            }),
            Some(ask) => self.link.ask(ask),
            None => return,
        };
        if asked.is_err() {
            self.menu.handle(console::Input::Lost);
        }
    }

    /// Carries what was typed and what the guest has written.
    fn serve_guest(&mut self) {
        let Some(guest) = &mut self.guest else { return };
        guest.send(&[]);
        for told in guest.read() {
            self.tell(console::Input::Guest(told));
        }
    }

    /// Takes what the supervisor says.
    fn take_news(&mut self) {
        let mut news = Vec::new();
        let end = self.link.read(&mut news);
        for input in news {
            self.tell(input);
        }
        if end.is_err() {
            self.menu.handle(console::Input::Lost);
        }
    }
}

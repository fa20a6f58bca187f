//! The console of the emulated PDU by itself: bytes in, bytes out, in a time that is told. The cases in
//! `tests/consoles` show each firmware's screens and the rules of its sessions.
//!
//! ```text
//! aos 3                       which card; 2, 3 or 6
//! serial apc                  a line that is typed there, with ENTER; ^[ is ESC, ^C and ^L as they are, without ENTER
//! telnet                      likewise; the first word of it connects
//! wait 181s                   time passes
//! fault stuck 2               what is wrong from now on: stuck N, refuse N, unknown N, lag 2s, idle 10s, silent,
//!                             unplugged, logged-on, initializing, no-command-line, lose-request, lose-reply, nothing
//! reboot 20s                  the card, and how long it takes
//! relays                      which of them stand on
//! ```
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use holdfast_tests::cases;
use holdfast_tests::pdu::desk::Relays;
use holdfast_tests::pdu::{Console, Faults, Firmware, Loads as _, Pdu, Telnet, Way};

const NAMES: [&str; 4] = ["gateway", "node1", "node2", "node3"];
const FROM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 2323);

/// A card with its two lines, at a time.
struct World {
    pdu: Pdu,
    relays: Relays,
    now: Instant,
    serial: Console,
    telnet: Option<Console>,
    /// What was shown and not yet told, by the line that showed it.
    shown: [String; 2],
    said: String,
    /// Which line showed the end of that.
    last: &'static str,
}

impl World {
    fn new(firmware: Firmware) -> Self {
        let relays = Relays::default();
        let (pdu, now) = (Pdu::new(&NAMES, Box::new(relays.clone())).with(firmware), Instant::now());
        let serial = Console::new(&pdu, Way::Serial, now);
        Self { pdu, relays, now, serial, telnet: None, shown: Default::default(), said: String::new(), last: "" }
    }

    fn type_in(&mut self, line: &str, text: &str) {
        let keys = match text {
            "^[" => "\x1b".into(),
            "^C" => "\x03".into(),
            "^L" => "\x0c".into(),
            text => format!("{text}\r\n"),
        };
        let [serial, telnet] = &mut self.shown;
        if line == "serial" {
            *serial += &plain(&self.serial.receive(&self.pdu, self.now, keys.as_bytes()));
        } else if let Some(console) = &mut self.telnet {
            *telnet += &plain(&console.receive(&self.pdu, self.now, keys.as_bytes()));
        } else if self.pdu.takes_telnet(self.now) {
            self.telnet = Some(Console::new(&self.pdu, Way::Telnet(FROM), self.now));
            *telnet += &plain(&Console::greeting());
        } else {
            *telnet += "\n(refused)";
        }
    }

    /// The relays move, the consoles look around, and what was shown is told.
    fn settle(&mut self) {
        self.pdu.tick(self.now);
        let [serial, telnet] = &mut self.shown;
        *serial += &plain(&self.serial.tick(&self.pdu, self.now));
        if let Some(console) = &mut self.telnet {
            *telnet += &plain(&console.tick(&self.pdu, self.now));
            if console.is_closed() {
                *telnet += "\n(closed)";
                self.telnet = None;
            }
        }
        for (name, shown) in ["serial", "telnet"].into_iter().zip(std::mem::take(&mut self.shown)) {
            if !shown.is_empty() {
                self.say(name, &shown);
            }
        }
    }

    /// Tells it behind what this line showed last, if nothing else was told since.
    fn say(&mut self, name: &'static str, text: &str) {
        if self.last != name {
            let begin = if self.said.is_empty() { "" } else { "\n" };
            write!(self.said, "{begin}{name}| ").unwrap();
        }
        self.last = name;
        self.said += &text.replace('\n', &format!("\n{name}| "));
    }

    fn told(&self) -> String {
        self.said.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    fn command(&mut self, line: &str) -> Result<()> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "serial" | "telnet" => self.type_in(verb, rest),
            "wait" => self.now += duration(rest)?,
            "reboot" => self.pdu.reboot(self.now, duration(rest)?),
            "fault" => fault(&self.pdu, rest)?,
            "relays" => {
                let on: Vec<u8> = (1..=4).filter(|outlet| self.relays.is_on(*outlet)).collect();
                write!(self.said, "\nrelays on: {on:?}")?;
                self.last = "";
            }
            _ => bail!("{line} is no command"),
        }
        self.settle();
        Ok(())
    }
}

/// As a screen shows it.
fn plain(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "")
}

fn duration(text: &str) -> Result<Duration> {
    let seconds = text.strip_suffix('s').context("a time is so many seconds, as in 20s")?;
    Ok(Duration::from_secs(seconds.parse()?))
}

fn fault(pdu: &Pdu, text: &str) -> Result<()> {
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    let number = rest.parse::<u8>();
    let mut faults = pdu.faults();
    match name {
        "nothing" => faults = Faults::default(),
        "stuck" => _ = faults.stuck.insert(number?),
        "refuse" => _ = faults.refuse.insert(number?),
        "unknown" => _ = faults.unknown.insert(number?),
        "lag" => faults.lag = duration(rest)?,
        "idle" => faults.idle = Some(duration(rest)?),
        "silent" => faults.silent = true,
        "unplugged" => faults.unplugged = true,
        "logged-on" => faults.logged_on = true,
        "initializing" => faults.initializing = true,
        "no-command-line" => faults.no_command_line = true,
        "lose-request" => faults.lose_requests = 1,
        "lose-reply" => faults.lose_replies = 1,
        _ => bail!("{text} is no fault"),
    }
    pdu.set(|now| *now = faults);
    Ok(())
}

fn play(input: &str) -> Result<String> {
    let mut lines = input.lines();
    let firmware = match lines.next() {
        Some("aos 2") => Firmware::Aos2,
        Some("aos 3") => Firmware::Aos3,
        Some("aos 6") => Firmware::Aos6,
        first => bail!("{first:?} is no card"),
    };
    let mut world = World::new(firmware);
    for line in lines {
        world.command(line).with_context(|| line.to_owned())?;
    }
    Ok(world.told())
}

#[test]
fn the_console_is_as_its_cases_say() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("consoles");
    if let Err(wrong) = cases::check(&directory, play) {
        panic!("{wrong}");
    }
}

/// A number that is as good as drawn (SplitMix64).
fn draw(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whatever is typed, the console stands, says nothing but text, and switches nothing but what was confirmed.
#[test]
fn no_bytes_break_it() {
    const KEYS: &[u8] = b"\r\r\r\r\n\0\x1b\x03\x0c\x08\x7f123456789apcdevice-YES on off status all olOff\xff\xf4\xfd";
    for seed in 0..300_u64 {
        let mut state = seed;
        let firmware = [Firmware::Aos2, Firmware::Aos3, Firmware::Aos6]
            .into_iter()
            .nth(usize::try_from(seed % 3).unwrap())
            .unwrap();
        let mut world = World::new(firmware);
        let mut telnet = Telnet::default();
        if seed % 2 == 0 {
            world.command("serial apc").unwrap();
            world.command(if seed % 4 == 0 { "serial apc -c" } else { "serial apc" }).unwrap();
        }
        for _ in 0..400 {
            let byte = match draw(&mut state) % 4 {
                0 => draw(&mut state).to_le_bytes().first().copied().unwrap(),
                _ => *KEYS.get(usize::try_from(draw(&mut state)).unwrap() % KEYS.len()).unwrap(),
            };
            let (typed, _) = telnet.receive(&[byte]);
            let shown = world.serial.receive(&world.pdu, world.now, &typed);
            assert!(shown.is_ascii(), "seed {seed}");
            assert!(!world.serial.is_closed(), "seed {seed}");
            world.now += Duration::from_millis(draw(&mut state) % 2000);
            world.settle();
        }
    }
}

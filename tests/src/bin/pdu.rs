//! The emulated AP7921 by itself: on a desk, to be tried by hand, or behind net-snmp's agent.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use holdfast_tests::pdu::desk::{Desk, Relays};
use holdfast_tests::pdu::{Firmware, Pass, Pdu};

#[derive(Parser)]
#[command(about = "The emulated power switch")]
enum Arguments {
    /// Serves SNMP, telnet and a serial line on ports of this machine, which it names.
    Desk {
        /// Which card stands in it.
        #[arg(long, default_value = "aos3")]
        firmware: Card,
        /// From a command's acceptance to the relay's moving, in milliseconds.
        #[arg(long, default_value_t = 0)]
        lag: u64,
    },
    /// Speaks with snmpd, as its `pass_persist` program.
    PassPersist,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Card {
    Aos2,
    Aos3,
    Aos6,
}

const NAMES: [&str; 8] = ["gateway", "node1", "node2", "node3", "node4", "node5", "node6", "node7"];

fn main() -> Result<()> {
    match Arguments::parse() {
        Arguments::Desk { firmware, lag } => desk(firmware, Duration::from_millis(lag)),
        Arguments::PassPersist => pass_persist(),
    }
}

fn desk(card: Card, lag: Duration) -> Result<()> {
    let firmware = match card {
        Card::Aos2 => Firmware::Aos2,
        Card::Aos3 => Firmware::Aos3,
        Card::Aos6 => Firmware::Aos6,
    };
    let desk = Desk::new(firmware, &NAMES)?;
    desk.pdu.set(|faults| faults.lag = lag);
    let mut out = io::stdout().lock();
    writeln!(out, "snmp   {} (read public, write private)", desk.snmp)?;
    writeln!(out, "telnet {} (apc, apc)", desk.telnet)?;
    writeln!(out, "serial {}", desk.serial.display())?;
    writeln!(out, "Ctrl-C ends it; what is commanded:")?;
    let mut told = 0;
    loop {
        let log = desk.relays.log();
        for entry in log.iter().skip(told) {
            writeln!(out, "{:9.3} outlet {} {:?} {:?}", entry.at.as_secs_f64(), entry.outlet, entry.from, entry.what)?;
        }
        told = log.len();
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn pass_persist() -> Result<()> {
    let pdu = Pdu::new(&NAMES, Box::new(Relays::default()));
    let mut pass = Pass::default();
    let mut out = io::stdout().lock();
    for line in io::stdin().lines() {
        let line = line.context("snmpd's request")?;
        let now = Instant::now();
        pdu.tick(now);
        if let Some(answer) = pass.line(&pdu, now, &line) {
            out.write_all(answer.as_bytes())?;
            out.flush()?;
        }
        pdu.tick(now);
    }
    Ok(())
}

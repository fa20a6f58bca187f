//! The rack's UPSes: Debian's own `upsd` with NUT's `dummy-ups` for each, and the power that they give.
//!
//! A UPS is made to be on battery, nearly empty, or on mains by setting its state at `upsd`. One whose load was ordered off
//! (FSD) cuts it when what it feeds has switched itself off, as `upsmon` on its host would; and gives power again with
//! mains. Then `upsd` is started anew, as on a host that had lost its power too: an order is kept until then.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::events::{Log, What};
use super::layout::{Layout, NUT_LOGIN, NUT_PORT, PDU_ADDRESS};
use super::power::{Power, Stand};

/// The program itself: what Debian has in /usr/sbin is a script around it, which asks the machine's own configuration.
const UPSD: &str = "/lib/nut/upsd";
const DRIVER: &str = "/lib/nut/dummy-ups";
/// Between two looks at whether a load was ordered off.
const LOOK: Duration = Duration::from_secs(1);
/// How long an ordered UPS waits at most for what it feeds: an emulated machine may take long to switch itself off.
const GRACE: Duration = Duration::from_mins(5);
/// How long a load is without power at least.
const GAP: Duration = Duration::from_secs(5);
/// How long one word with upsd may take; and upsd to be there.
const WORD: Duration = Duration::from_secs(5);
const READY: Duration = Duration::from_mins(1);
/// What it says of a UPS whose driver it has lost sight of.
const NOT_CONNECTED: &str = "DRIVER-NOT-CONNECTED";

/// What a UPS can be made to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Supply {
    /// It has mains.
    Mains,
    /// It is on battery, which is full.
    Battery,
    /// It is on battery, which is nearly empty.
    Low,
}

impl Supply {
    /// In NUT's words.
    fn words(self) -> &'static str {
        match self {
            Self::Mains => "OL CHRG",
            Self::Battery => "OB DISCHRG",
            Self::Low => "OB LB DISCHRG",
        }
    }
}

/// The handle on the UPSes; they end with it.
#[derive(Debug, Clone)]
pub struct Upses(Sender<Order>);

type Order = (String, Supply, SyncSender<Result<()>>);

impl Upses {
    /// Makes a UPS be so.
    ///
    /// # Errors
    /// There is no such UPS, or upsd refuses.
    pub fn set(&self, ups: &str, supply: Supply) -> Result<()> {
        let (done, answer) = sync_channel(1);
        self.0.send((ups.to_owned(), supply, done)).ok().context("the rack is closed")?;
        answer.recv().context("the rack is closed")?
    }
}

/// One UPS.
#[derive(Debug)]
struct Ups {
    name: String,
    feeds: Vec<String>,
    gives: bool,
    /// Since when its load is ordered off, or is off.
    since: Option<Instant>,
}

/// All of them, with their programs.
struct Host {
    layout: Layout,
    power: Power,
    log: Arc<Log>,
    folder: PathBuf,
    upses: Vec<Ups>,
    drivers: Vec<Child>,
    upsd: Option<Child>,
}

impl Drop for Host {
    fn drop(&mut self) {
        for program in self.drivers.iter_mut().chain(&mut self.upsd) {
            // It may have ended by itself.
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

/// Starts upsd and the UPSes in the calling thread's network namespace, with their files in `folder`.
///
/// # Errors
/// NUT is missing, or does not start.
pub fn start(layout: &Layout, power: Power, log: Arc<Log>, folder: &Path) -> Result<Upses> {
    let (orders, inbox) = channel();
    let (ready, started) = sync_channel(1);
    let (layout, folder) = (layout.clone(), folder.to_owned());
    // The programs die with the thread that has started them: it is the one that serves.
    thread::Builder::new().name("UPSes".into()).spawn(move || match Host::open(layout, power, log, folder) {
        Ok(host) => {
            let _ = ready.send(Ok(()));
            host.serve(&inbox);
        }
        Err(error) => drop(ready.send(Err(error))),
    })?;
    started.recv().context("the UPSes' thread ended")??;
    Ok(Upses(orders))
}

impl Host {
    fn open(layout: Layout, power: Power, log: Arc<Log>, folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).with_context(|| name.to_owned());
        let upses = layout.upses();
        let mut conf = String::new();
        for (name, _) in &upses {
            conf += &format!("[{name}]\ndriver = dummy-ups\nport = {name}.dev\ndesc = \"{name}\"\nmode = dummy-once\n");
            let state = Supply::Mains.words();
            write(
                &format!("{name}.dev"),
                &format!("ups.status: {state}\nbattery.charge: 100\nbattery.runtime: 3600\n"),
            )?;
        }
        write("ups.conf", &conf)?;
        write("upsd.conf", &format!("LISTEN {PDU_ADDRESS} {NUT_PORT}\n"))?;
        let (user, password) = NUT_LOGIN;
        write(
            "upsd.users",
            &format!("[{user}]\npassword = {password}\nupsmon primary\n[rack]\npassword = rack\nactions = SET\n"),
        )?;
        let drivers = upses.iter().map(|(name, _)| run(&folder, DRIVER, &["-a", name, "-u", "root", "-D"]));
        let drivers = drivers.collect::<Result<Vec<_>>>()?;
        let upses = upses.into_iter().map(|(name, feeds)| Ups { name, feeds, gives: true, since: None }).collect();
        let mut host = Self { layout, power, log, folder, upses, drivers, upsd: None };
        host.start_upsd()?;
        Ok(host)
    }

    /// Starts upsd, anew if it runs, and waits until it knows every UPS.
    fn start_upsd(&mut self) -> Result<()> {
        if let Some(mut upsd) = self.upsd.take() {
            upsd.kill()?;
            upsd.wait()?;
        }
        self.upsd = Some(run(&self.folder, UPSD, &["-u", "root", "-D"])?);
        let begin = Instant::now();
        while let Some(unknown) = self.upses.iter().find_map(|ups| status(&ups.name).err()) {
            if begin.elapsed() > READY {
                let log = fs::read_to_string(self.folder.join("nut.log")).unwrap_or_default();
                return Err(unknown.context(format!("upsd does not come up\n{log}")));
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    fn serve(mut self, inbox: &Receiver<Order>) {
        loop {
            match inbox.recv_timeout(LOOK) {
                Ok((ups, supply, done)) => drop(done.send(self.set(&ups, supply))),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.look() {
                        self.log.push("UPSes", What::Note(format!("{error:#}")));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn set(&mut self, name: &str, supply: Supply) -> Result<()> {
        if !self.upses.iter().any(|ups| ups.name == name) {
            bail!("there is no UPS {name}");
        }
        let state = format!("SET VAR {name} ups.status \"{}\"", supply.words());
        let deadline = Instant::now() + READY;
        loop {
            match talk(&["USERNAME rack", "PASSWORD rack", &state]) {
                // On a busy machine upsd gives its driver up, and looks for it again.
                Err(error) if error.to_string().ends_with(NOT_CONNECTED) && Instant::now() < deadline => {
                    thread::sleep(LOOK);
                }
                said => {
                    said?;
                    break;
                }
            }
        }
        self.log.push(name, What::Note(format!("is made to say: {}", supply.words())));
        Ok(())
    }

    /// Cuts and gives power, as ordered.
    fn look(&mut self) -> Result<()> {
        for at in 0..self.upses.len() {
            let Some(ups) = self.upses.get_mut(at) else { continue };
            let words = status(&ups.name)?;
            let says = |word: &str| words.split(' ').any(|said| said == word);
            let since = ups.since.map(|since| since.elapsed());
            match (ups.gives, since) {
                (true, None) if says("FSD") => {
                    ups.since = Some(Instant::now());
                    self.log.push(&ups.name, What::Note("is ordered to cut its load".into()));
                }
                (true, Some(waited)) => {
                    let runs = |name: &String| matches!(self.power.stand(name), Some(Stand::Runs | Stand::Hangs));
                    if waited > GRACE || !ups.feeds.iter().any(runs) {
                        (ups.gives, ups.since) = (false, Some(Instant::now()));
                        self.give(at, false)?;
                    }
                }
                (false, Some(waited)) if waited > GAP && !says("OB") => {
                    (ups.gives, ups.since) = (true, None);
                    self.start_upsd()?;
                    self.give(at, true)?;
                }
                (true | false, _) => {}
            }
        }
        Ok(())
    }

    /// What a UPS feeds loses its power, unless another gives it some; or has it again.
    fn give(&self, at: usize, on: bool) -> Result<()> {
        let Some(ups) = self.upses.get(at) else { return Ok(()) };
        self.log.push(&ups.name, What::Note(if on { "gives power" } else { "gives no power" }.into()));
        for machine in ups.feeds.iter().filter_map(|name| self.layout.machine(name)) {
            let fed = self.upses.iter().any(|ups| ups.gives && ups.feeds.contains(&machine.name));
            if fed == on {
                self.power.outlet(machine.outlet, on, &ups.name)?;
            }
        }
        Ok(())
    }
}

/// Starts one of NUT's programs, which dies with the calling thread.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<Child> {
    let log = File::options().create(true).append(true).open(folder.join("nut.log"))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]).args(arguments);
    command.env("NUT_CONFPATH", folder).env("NUT_STATEPATH", folder).env("NUT_ALTPIDPATH", folder);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("cannot run {program} (Debian's nut-server)"))
}

/// What upsd says that a UPS's state is.
fn status(ups: &str) -> Result<String> {
    let replies = talk(&[&format!("GET VAR {ups} ups.status")])?;
    let said = replies.last().and_then(|reply| reply.split('"').nth(1));
    said.map(str::to_owned).with_context(|| format!("upsd says of {ups}: {replies:?}"))
}

/// Says these lines to upsd; what it replies to each.
fn talk(lines: &[&str]) -> Result<Vec<String>> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((PDU_ADDRESS, NUT_PORT)), WORD)?;
    stream.set_read_timeout(Some(WORD))?;
    let mut replies = BufReader::new(stream.try_clone()?).lines();
    let mut all = Vec::new();
    for line in lines {
        writeln!(stream, "{line}")?;
        let reply = replies.next().context("upsd has hung up")??;
        if reply.starts_with("ERR") {
            bail!("upsd replies to {line}: {reply}");
        }
        all.push(reply);
    }
    Ok(all)
}

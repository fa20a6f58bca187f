//! The loop: everything that happens becomes an event for the node, and what the node wants is carried out in order.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use cluster::config::Config;
use cluster::event::{Action, Actions, Answer, Event, Outcome, Request, RequestId, Work};
use cluster::node::{Boot, Node};
use cluster::status::Status;
use cluster::trace::Kind;
use cluster::words::{Edition, Instant, Role};
use console::{JoinAnswer, Progress};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clock::{self, now};
use super::events::{self, EventLog, NOTED, OWN};
use super::keys::Keys;
use super::lines::Lines;
use super::mailbox::{Mailbox, Told};
use super::menu_link::{FromMenu, MenuId, Menus, ToMenu};
use super::monitor::Monitor;
use super::ops::Ops;
use super::pin::Guard;
use super::progress::Courses;
use super::pulls::Pulls;
use super::shared::Shared;
use super::site::{self, Site};
use super::storage::Disks;
use super::syslog::Remote;
use super::udp::Udp;
use super::{bundle, consoles, files, joins, roster, ups, volumes, watch, xen};
use crate::carried;
use crate::keys::Ring;
use crate::roster::Current;
use crate::streams::PULL_SOCKET;
use crate::watchdog::Watchdog;

/// Between two statuses that a menu is told.
const STATUS: Duration = Duration::from_secs(1);
/// Between two words about datagrams with a bad seal.
const FORGED: Duration = Duration::from_secs(60);
/// How much later a lease must be to be written down: what is written is never later than what holds.
const LEASE_STEP: Duration = Duration::from_secs(1);
/// Stack of a servant thread: they go nowhere deep, and their memory is dom0's.
pub(super) const STACK: usize = 256 * 1024;

/// The loop and all that it serves.
#[derive(Debug)]
pub(super) struct Supervisor {
    node: Node,
    role: Role,
    current: Arc<Current>,
    keys: Keys,
    shared: Option<Arc<Shared>>,
    udp: Udp,
    lines: Lines,
    mailbox: Mailbox,
    menus: Menus,
    /// Which of the menus may ask for things.
    guard: Guard,
    pulls: Pulls,
    monitor: Monitor,
    /// Since when VMs move and nodes leave.
    courses: Courses,
    log: EventLog,
    ops: Ops,
    watchdog: Option<Watchdog>,
    /// Has the servant look at Xen now.
    nudge: SyncSender<()>,
    /// When an operation ended last: a look that began before does not show how things are now.
    settled: Instant,
    next_status: Instant,
    /// Datagrams with a bad seal, when they were said last, and when they may be said again.
    forged_said: u64,
    next_forged: Instant,
    /// Init's problems, as far as the menus were told of them.
    problems: Vec<ToMenu>,
    actions: Actions,
    /// The lease that a later life would find.
    lease: Instant,
    /// Machines that are to become nodes, as soon as the cluster has agreed: what the menu that has asked is told then.
    adding: BTreeMap<RequestId, (MenuId, JoinAnswer)>,
    /// The next question's name.
    next_request: u64,
}

impl Supervisor {
    /// Begins.
    ///
    /// # Errors
    /// What this machine lacks, in words for the operator.
    pub(super) fn new(mut site: Site) -> Result<Self, String> {
        let me = site.me().clone();
        let config = site.config();
        let keys = Keys::new(Ring::read(config.key)?);
        let (udp, problems) = Udp::bind(&config, site.slot, keys.seal())?;
        let lines = Lines::new(&config, site.slot, keys.seal());
        let mailbox = Mailbox::new().map_err(|error| format!("mailbox: {error}"))?;
        let menus = Menus::open().map_err(|error| format!("the menus' socket: {error}"))?;
        let pulls = Pulls::listen(Path::new(PULL_SOCKET)).map_err(|error| format!("{PULL_SOCKET}: {error}"))?;
        let remote = Remote::start(&config, site.slot, site.incarnation, mailbox.post())?;
        let mut log = EventLog::open(Path::new(events::FILE), &me.name, remote);
        problems.into_iter().for_each(|problem| drop(log.say(now(), OWN, problem)));
        let monitor = monitor(me.monitor.as_deref(), &mut log);
        let watchdog = watchdog(config.self_fence, &mut log);
        let disks = Arc::new(Disks::new(&config));
        let nudge = watch(&mailbox, &disks, config.timing.keepalive)?;
        if me.role == Role::Node {
            files(&mailbox, &disks, &site.current)?;
            machine(&mailbox)?;
        }
        if me.role == Role::Gateway {
            roster::catch_up(&site.current, mailbox.post())?;
        }
        let shared = Shared::start(&site, keys.sealing().clone(), mailbox.post(), Arc::clone(&disks))?;
        let ups_lines = ups::read_all(&site, &mailbox.post())?;
        let mut actions = Actions::new();
        let boot = Boot {
            config,
            slot: site.slot,
            incarnation: site.incarnation,
            start: site.start,
            seed: super::seed()?,
            watchdog: watchdog.as_ref().is_some_and(Watchdog::is_xens),
            lease: site::lease(),
            keys: keys.numbers(),
            version: cluster::node::VERSION,
        };
        let node = Node::new(boot, now(), &mut actions);
        Ok(Self {
            node,
            role: me.role,
            current: Arc::clone(&site.current),
            keys,
            udp,
            lines,
            menus,
            guard: Guard::new(site.secrets.pin.take()),
            pulls,
            monitor,
            courses: Courses::default(),
            log,
            shared: shared.clone(),
            ops: Ops::new(site, mailbox.post(), disks, ups_lines, shared),
            mailbox,
            watchdog,
            nudge,
            settled: Instant::ZERO,
            next_status: Instant::ZERO,
            forged_said: 0,
            next_forged: Instant::ZERO,
            problems: super::problems(),
            actions,
            lease: Instant::ZERO,
            adding: BTreeMap::new(),
            next_request: 0,
        })
    }

    /// Never returns: init ends it.
    pub(super) fn run(mut self) -> ExitCode {
        loop {
            self.carry_out();
            self.take_datagrams();
            self.take_messages();
            for pull in self.pulls.serve() {
                self.handle(pull);
            }
            self.serve_menus();
            if self.monitor.serve() {
                let (status, progress) = self.status();
                self.monitor.status(&status, &progress);
            }
            if self.node.deadline() <= now() {
                self.handle(Event::Tick);
            }
            self.wait();
        }
    }

    fn handle(&mut self, event: Event) {
        self.node.handle(now(), event, &mut self.actions);
        self.carry_out();
    }

    fn take_datagrams(&mut self) {
        let told = self.lines.serve(now());
        told.into_iter().for_each(|text| self.say(text));
        for (link, datagram) in self.udp.take().into_iter().chain(self.lines.take()) {
            self.handle(Event::Heard { link, datagram });
        }
        if self.role == Role::Gateway && self.udp.heard_by() > self.keys.numbers().1 {
            // Its own cluster.toml is of long ago.
            let key = self.udp.heard_by();
            self.advance(key);
            self.handle(Event::Keyed { key });
        }
        let forged = self.udp.forged().saturating_add(self.lines.forged());
        if forged > self.forged_said && self.next_forged <= now() {
            self.forged_said = forged;
            self.next_forged = now() + FORGED;
            self.say(format!("{forged} datagrams with a bad seal so far: another cluster's key, or worse"));
        }
    }

    fn take_messages(&mut self) {
        let told: Vec<Told> = self.mailbox.take().collect();
        for told in told {
            match told {
                Told::Event(event) => {
                    if let Event::Done { outcome: Outcome::Read(readings), .. } = &event {
                        self.menus.read(now(), readings);
                    }
                    if matches!(event, Event::Keyed { .. }) {
                        if let Err(error) = self.keys.read() {
                            self.say(error);
                            continue;
                        }
                        self.reseal();
                    }
                    if matches!(event, Event::Done { .. }) {
                        self.settled = now();
                        // A nudge that finds another one waiting is not needed.
                        let _ = self.nudge.try_send(());
                    }
                    self.handle(event);
                }
                Told::Seen { began, .. } if began < self.settled => {}
                Told::Seen { seen, .. } => self.handle(seen),
                Told::Said(text) => self.say(text),
                Told::Noted(text) => self.say_as(NOTED, text),
                Told::Joining { menu, answer } => self.joining(menu, answer),
                Told::Bundle { menu, answer } => self.menus.tell_one(menu, &ToMenu::Bundle(answer)),
                Told::Volumes { menu, to, outcome } => self.menus.tell_one(menu, &ToMenu::Volumes { to, outcome }),
            }
        }
    }

    fn serve_menus(&mut self) {
        let (node, log, problems) = (&self.node, &self.log, &self.problems);
        let asked = self.menus.serve(|| {
            let mut greeting = problems.clone();
            greeting.push(ToMenu::Status(Box::new(node.status(now()))));
            greeting.push(ToMenu::Log(log.kept()));
            greeting
        });
        asked.into_iter().for_each(|(menu, asked)| self.take_asked(menu, asked));
        let guard = &self.guard;
        self.menus.tell_locks(|menu| guard.lock(menu, now()));
        if self.menus.any() && self.next_status <= now() {
            self.next_status = now() + STATUS;
            let (status, progress) = self.status();
            self.menus.tell(&ToMenu::Progress(progress));
            self.menus.tell(&ToMenu::Status(Box::new(status)));
            let problems = super::problems();
            for problem in problems.iter().skip(self.problems.len()) {
                self.menus.tell(problem);
            }
            self.problems = problems;
        }
    }

    /// How things are, and how far what takes its time is.
    fn status(&mut self) -> (Status, Progress) {
        let (now, evacuation) = (now(), self.current.get().timing.evacuation);
        let status = self.node.status(now);
        let progress = self.courses.look(now, &status, evacuation, Path::new(carried::DIRECTORY));
        (status, progress)
    }

    /// A menu asks for something. A locked one is refused here, whatever it thinks of that itself.
    fn take_asked(&mut self, menu: MenuId, asked: FromMenu) {
        let end = if matches!(asked, FromMenu::Console(_)) { self.menus.console(menu) } else { None };
        if let Some(refusal) = self.guard.hear(menu, &asked, now()) {
            return self.menus.tell_one(menu, &refusal);
        }
        match asked {
            FromMenu::Request(request) => {
                let id = self.request_id();
                self.menus.expect(menu, id);
                self.handle(Event::Asked { id, request });
            }
            FromMenu::Join(request) => joins::ask(menu, request, self.mailbox.post()),
            FromMenu::Volume(request) => volumes::ask(menu, request, self.mailbox.post()),
            FromMenu::Bundle(request) => {
                bundle::ask(menu, request, Some(self.node.status(now())), self.mailbox.post());
            }
            FromMenu::Console(vm) => {
                if let Some(end) = end {
                    consoles::attach(vm, end, &self.current.get(), &self.node.status(now()));
                }
            }
            FromMenu::Unlock(pin) => {
                let said = self.guard.unlock(menu, pin.text(), now());
                said.into_iter().for_each(|(kind, text)| self.say_as(kind, text));
                // It waits for an answer, whether anything has changed or not.
                if let Some(lock) = self.guard.lock(menu, now()) {
                    self.menus.tell_one(menu, &ToMenu::Lock(lock));
                }
            }
            FromMenu::Lock => self.guard.close(menu),
            FromMenu::Active => {}
        }
    }

    fn carry_out(&mut self) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Send { to, datagram } => {
                    self.udp.send(to, &datagram);
                    self.lines.send(to, &datagram);
                }
                Action::Trace(trace) => self.say_as(trace.kind(), trace.to_string()),
                Action::Begin { op, deadline, work } => {
                    let asked = if let Work::Push { stream, .. } = &work { Some(*stream) } else { None };
                    let socket = asked.and_then(|stream| self.pulls.give(stream));
                    self.ops.begin(op, deadline, work, socket);
                }
                Action::Refuse { stream, reason } => self.pulls.refuse(stream, &reason),
                Action::Pet { lease } => self.pet(lease),
                Action::Answer { id, answer } => self.answer(id, &answer),
                Action::Configured { edition, text } => self.configured(edition, text),
                Action::AskForKey => self.keys.ask(self.mailbox.post()),
                Action::Keys { seal, least } => {
                    if let Err(error) = self.keys.turn(seal, least) {
                        self.say(format!("the cluster's old key is not forgotten: {error}"));
                    }
                    self.reseal();
                    // All seal by it: their tunnels change now as well.
                    if let Some(shared) = self.shared.as_ref().filter(|_| seal == least) {
                        shared.rekey(self.keys.sealing());
                    }
                }
                // Init is asked, and ends us with the rest. Where it cannot be asked there is nobody left to ask.
                Action::PowerOff => drop(kill(Pid::from_raw(1), Signal::SIGUSR2)),
                Action::Restart => drop(kill(Pid::from_raw(1), Signal::SIGTERM)),
            }
        }
    }

    /// The gateway has answered a menu. If it has approved a machine that is to become a node, the cluster is asked for that
    /// before the menu hears of it.
    fn joining(&mut self, menu: MenuId, answer: JoinAnswer) {
        match answer.outcome.as_ref().map(|joining| joining.add.clone()) {
            Ok(Some(table)) => {
                let id = self.request_id();
                self.adding.insert(id, (menu, answer));
                self.handle(Event::Asked { id, request: Request::AddNode { table } });
            }
            Ok(None) | Err(_) => self.menus.tell_one(menu, &ToMenu::Joining(answer)),
        }
    }

    fn answer(&mut self, id: RequestId, answer: &Answer) {
        let Some((menu, mut joining)) = self.adding.remove(&id) else { return self.menus.answer(id, answer) };
        if let Answer::Refused(reason) = answer {
            joining.outcome = Err(reason.clone());
        }
        self.menus.tell_one(menu, &ToMenu::Joining(joining));
    }

    fn request_id(&mut self) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        id
    }

    /// As the gateway: holds the key of that number too.
    fn advance(&mut self, key: u32) {
        match self.keys.advance(key) {
            Ok(true) => self.reseal(),
            Ok(false) => {}
            Err(error) => self.say(format!("key {key} of the cluster cannot be held: {error}")),
        }
    }

    /// Seals and opens by other keys from now on.
    fn reseal(&mut self) {
        self.udp.reseal(self.keys.seal());
        self.lines.reseal(self.keys.seal());
    }

    fn configured(&mut self, edition: Edition, text: String) {
        if let Ok(config) = Config::parse(&text) {
            // Before any process can find the edition, it finds the key that was before.
            self.advance(config.key);
        }
        let kept = roster::keep(edition, text, self.role, &self.current, self.mailbox.post());
        self.udp.configured(&self.current.get());
        if let Err(error) = kept {
            self.say(format!("edition {edition} of cluster.toml is not kept: {error}"));
        }
    }

    /// Pets the watchdog, once the next life of this supervisor would know how long it may.
    fn pet(&mut self, lease: Option<Instant>) {
        let due = |lease: &Instant| lease.since(self.lease) >= LEASE_STEP;
        if let Some(lease) = lease.filter(due) {
            match site::keep_lease(lease) {
                Ok(()) => self.lease = lease,
                Err(error) => self.say(format!("the lease cannot be kept: {error}")),
            }
        }
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.pet();
        }
    }

    fn say(&mut self, text: String) {
        self.say_as(OWN, text);
    }

    fn say_as(&mut self, kind: Kind, text: String) {
        let line = self.log.say(now(), kind, text);
        self.monitor.event(&line);
        self.menus.tell(&ToMenu::Log(vec![line]));
        // What was said has changed something: it is shown at once.
        self.next_status = Instant::ZERO;
    }

    fn wait(&self) {
        let mut next = self.node.deadline();
        if self.menus.any() {
            next = next.min(self.next_status);
        }
        let mut fds = vec![self.mailbox.waits()];
        fds.extend(self.udp.waits());
        fds.extend(self.lines.waits());
        fds.extend(self.monitor.waits());
        self.menus.waits(&mut fds);
        self.pulls.waits(&mut fds);
        super::wait(&mut fds, Some(clock::until(next)));
    }
}

/// The configured monitor line; a line that cannot be opened is no reason to do without the node.
fn monitor(line: Option<&str>, log: &mut EventLog) -> Monitor {
    let Some(line) = line else {
        return Monitor::none();
    };
    let path = Path::new("/dev").join(line);
    Monitor::open(&path).unwrap_or_else(|error| {
        log.say(now(), OWN, format!("no monitor line, {}: {error}", path.display()));
        Monitor::none()
    })
}

/// Arms the watchdog, if a node that is cut off is to end itself.
fn watchdog(wanted: bool, log: &mut EventLog) -> Option<Watchdog> {
    let armed = wanted.then(Watchdog::open)?;
    match &armed {
        Ok(watchdog) if watchdog.is_xens() => {}
        Ok(watchdog) => {
            let name = watchdog.identity();
            drop(log.say(now(), OWN, format!("the watchdog is {name}, not Xen's: it does not count as a proof")));
        }
        Err(error) => drop(log.say(now(), OWN, format!("no watchdog: {error}; self-fencing does not work"))),
    }
    armed.ok()
}

/// Starts the servant that looks at Xen.
fn watch(mailbox: &Mailbox, disks: &Arc<Disks>, pause: Duration) -> Result<SyncSender<()>, String> {
    let (nudge, nudges) = sync_channel(1);
    let (post, disks) = (mailbox.post(), Arc::clone(disks));
    servant("watch", move || watch::run(&post, &disks, &nudges, pause)).map(|()| nudge)
}

/// Starts the servant that mounts the shared file system and reads the VM files.
fn files(mailbox: &Mailbox, disks: &Arc<Disks>, current: &Arc<Current>) -> Result<(), String> {
    let (post, disks, current) = (mailbox.post(), Arc::clone(disks), Arc::clone(current));
    servant("files", move || files::run(&post, &disks, &current))
}

/// Starts the servant that finds out what this machine is.
fn machine(mailbox: &Mailbox) -> Result<(), String> {
    let post = mailbox.post();
    servant("machine", move || {
        let told = match xen::machine() {
            Ok(machine) => Told::Event(Event::Described { machine }),
            Err(reason) => Told::Said(format!("what this machine is cannot be found out: {reason}")),
        };
        post.tell(told);
    })
}

/// Starts a thread.
///
/// # Errors
/// There is no room for one, in words for the operator.
pub(super) fn servant(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let builder = thread::Builder::new().name(name.to_owned()).stack_size(STACK);
    builder.spawn(work).map(drop).map_err(|error| format!("no thread for `{name}`: {error}"))
}

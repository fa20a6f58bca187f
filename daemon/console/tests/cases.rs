//! Every screen as it is seen: `cases/*.txt`.
//!
//! A case is a sentence of intent, what the menu is told, a line `----`, and what comes of it: every `screen` (its text;
//! behind it, what is bold or reversed) and every request. `UPDATE_EXPECT=1 cargo test -p console` writes what comes.
//!
//! ```text
//! connected | lost                     the supervisor answers, or does not any more
//! status NODE WORD=VALUE ..            the status of this node, until the next `status`
//! node NAME WORD=VALUE .. | vm ..      one more node or VM in it; or the same one, changed
//! moves VM for=S carried=MIB | leaves NODE for=S of=S   how far a move is and a node that leaves, until the next `progress`
//! progress                             nothing of that is known any more
//! short NODE vms=VM,..                 without that node, the others have no room for these VMs
//! rack                                 the status in `RACK`
//! log N                                N lines of the log, the first one long
//! said TEXT                            one more line of it
//! read OUTLET as=READING               this node has read an outlet
//! agreed | refused TEXT                the supervisor's answer
//! joins TEXT                           this machine joins itself; a | is a line break
//! asking ASK .. | let-in IDENTITY .. | window MACHINES left=S    what the gateway tells, one more or the same one changed
//! gateway [forgets | fails TEXT]       it tells the same once more, or that there is nothing, or cannot be asked
//! gateway-agreed | gateway-refused TEXT   its answer to what it was asked last
//! lock [open=yes] wrong=N wait=S       how the lock of a machine with a PIN stands
//! group MIB free=MIB problem=TEXT | export NAME .. | disk NAME ..   the same of the gateway's disks
//! disks | disks-done [TEXT] | disks-refused TEXT   it tells the same once more, has done what it was asked last, or refuses it
//! stick [NAME mib=MIB label=.. refused=..] | sticks     the supervisor tells of one more stick, or of none any more
//! bundle-written FILE kib=KIB missing=.. | bundle-failed TEXT    it has written a support bundle, or has not
//! guest attached | guest wrote TEXT | guest ended TEXT   what is told of a VM's console; ^ is ESC, | begins a line
//! typed                                something was typed to it
//! problem TEXT | press KEY .. | type TEXT | screen
//! ```
#![expect(clippy::disallowed_methods, reason = "the cases are files")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::fmt::Write as _;
use std::path::Path;

use cluster::event::Answer;
use cluster::status::{LinkStatus, NodeStatus, RollingStatus, Shortfall, Status, UpsStatus, VmStatus};
use cluster::words::{Instant, Mebibytes, Role, Supply};
use console::{
    Ask, Asking, BundleAnswer, BundleRequest, Disk, Exported, FromGuest, Group, Input, JoinAnswer, JoinRequest,
    Joining, Key, Leaving, Line, Lock, Machine, Menu, Move, OutletRead, Progress, Screen, Stick, Style, VolumeAnswer,
    VolumeRequest, Volumes, Window, Written,
};

/// A cluster at work: a gateway and three nodes of which the third is dead.
const RACK: &str = "\
status node2 incarnation=5d01c0ffee generation=1f2e3d4c view=7 dc=node1 quorate=yes free=412 domains=x0,x2
node gateway role=gateway state=member incarnation=00aa11bb22 heard=310 links=lan:100,san:98 outlets=pdu1_outlet_1
node node1 state=member incarnation=00aa11bb33 heard=470 free=280 links=lan:100,san:64 outlets=pdu1_outlet_2
node node2 state=member incarnation=5d01c0ffee free=412 outlets=pdu1_outlet_3
node node3 state=unclean incarnation=00aa11bb55 heard=12400 links=lan:0,san:0 outlets=pdu1_outlet_4,pdu2_outlet_4
vm x0 owner=node2 phase=running generation=3 memory=128
vm x1 owner=node1 phase=running generation=2 memory=128
vm x2 owner=node2 phase=moving_to_node1 generation=5 memory=256
vm x3 phase=stopped generation=1 memory=4096 unwanted=yes
vm x4 owner=node3 phase=running generation=9 memory=512";

#[test]
fn every_case_comes_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut cases: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for path in cases {
        let text = std::fs::read_to_string(&path).unwrap();
        let (given, expected) = text.split_once("\n----\n").unwrap_or((text.trim_end(), ""));
        let (_intent, commands) = given.split_once("\n\n").expect("an intent, an empty line, the input");
        let output = run(commands);
        if output == expected {
            continue;
        }
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, format!("{given}\n----\n{output}")).unwrap();
        } else {
            wrong.push(format!("{}:\n{output}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "not as written:\n{}", wrong.join("\n"));
}

/// What comes of the commands of a case.
fn run(commands: &str) -> String {
    let mut menu = Menu::new();
    let mut status = Status::default();
    let mut progress = Progress::default();
    let mut joining = Joining::default();
    let mut join = JoinRequest::List;
    let (mut volumes, mut volume) = (Volumes::default(), VolumeRequest::List);
    let mut sticks = Vec::new();
    let mut output = String::new();
    let commands = commands.lines().flat_map(|command| if command == "rack" { RACK.lines() } else { command.lines() });
    for command in commands {
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        let words = Words::of(rest);
        let inputs = match word {
            "connected" => vec![Input::Connected],
            "lost" => vec![Input::Lost],
            "problem" => vec![Input::Problem(rest.to_owned())],
            "log" => vec![Input::Log(log(rest.parse().unwrap()))],
            "said" => vec![Input::Log(vec![said(rest)])],
            "read" => vec![Input::Outlets(vec![words.read()])],
            "agreed" => vec![Input::Answer(Answer::Agreed)],
            "refused" => vec![Input::Answer(Answer::Refused(rest.to_owned()))],
            "lock" => vec![Input::Lock(Words::of(&format!("lock {rest}")).lock())],
            "joins" => vec![Input::Joins(rest.replace('|', "\n"))],
            "asking" | "let-in" | "window" | "gateway" | "gateway-agreed" => {
                match word {
                    "asking" => joining.asking.push(words.asking()),
                    "let-in" => put(&mut joining.machines, words.machine(), |machine| machine.identity.clone()),
                    "window" => joining.window = words.window(),
                    "gateway" if rest == "forgets" => joining = Joining::default(),
                    _ => {}
                }
                let to = if word == "gateway-agreed" { join.clone() } else { JoinRequest::List };
                let fails = rest.strip_prefix("fails ").filter(|_| word == "gateway");
                let outcome = fails.map_or_else(|| Ok(joining.clone()), |reason| Err(reason.to_owned()));
                vec![Input::Joining(JoinAnswer { to, outcome })]
            }
            "gateway-refused" => vec![Input::Joining(JoinAnswer { to: join.clone(), outcome: Err(rest.to_owned()) })],
            "group" | "export" | "disk" | "disks" | "disks-done" => {
                volumes.said = (word == "disks-done" && !rest.is_empty()).then(|| rest.replace('|', "\n"));
                match word {
                    "group" => (volumes.group, volumes.problem) = (words.group(), words.find("problem")),
                    "export" => put(&mut volumes.exports, words.exported(), |export| export.name.clone()),
                    "disk" => put(&mut volumes.disks, words.disk(), |disk| disk.name.clone()),
                    _ => {}
                }
                let to = if word == "disks-done" { volume.clone() } else { VolumeRequest::List };
                vec![Input::Volumes(VolumeAnswer { to, outcome: Ok(volumes.clone()) })]
            }
            "disks-refused" => vec![Input::Volumes(VolumeAnswer { to: volume.clone(), outcome: Err(rest.to_owned()) })],
            "stick" | "sticks" => {
                if word == "stick" {
                    sticks.push(words.stick())
                } else {
                    sticks.clear()
                }
                vec![Input::Bundle(BundleAnswer::Sticks(sticks.clone()))]
            }
            "typed" => vec![Input::Typed],
            "guest" => vec![Input::Guest(guest(rest))],
            "bundle-written" => vec![Input::Bundle(BundleAnswer::Written(words.written()))],
            "bundle-failed" => vec![Input::Bundle(BundleAnswer::Failed(rest.to_owned()))],
            "type" => rest.chars().map(|character| Input::Key(Key::Char(character))).collect(),
            "press" => rest.split(' ').map(|key| Input::Key(key_named(key))).collect(),
            "status" | "node" | "vm" | "ups" | "rolling" | "short" => {
                match word {
                    "status" => status = words.status(),
                    "node" => put(&mut status.nodes, words.node(), |node| node.name.clone()),
                    "vm" => put(&mut status.vms, words.vm(), |vm| vm.name.clone()),
                    "rolling" => status.rolling = Some(words.rolling()),
                    "ups" => put(&mut status.upses, words.ups(), |ups| ups.name.clone()),
                    _ => status.shortfalls.push(Shortfall { node: words.0.to_owned(), vms: words.list("vms") }),
                }
                vec![Input::Status(Box::new(status.clone()))]
            }
            "moves" | "leaves" | "progress" => {
                match word {
                    "moves" => put(&mut progress.moves, words.moves(), |moves| moves.vm.clone()),
                    "leaves" => put(&mut progress.leaving, words.leaves(), |leaves| leaves.node.clone()),
                    _ => progress = Progress::default(),
                }
                vec![Input::Progress(progress.clone())]
            }
            "screen" => {
                output += &seen(&menu.screen());
                vec![]
            }
            _ => panic!("no such command: {command}"),
        };
        for input in inputs {
            if let Some(request) = menu.handle(input) {
                match request {
                    Ask::Cluster(request) => writeln!(output, "asks: {request:?}").unwrap(),
                    Ask::Join(JoinRequest::List) | Ask::Volume(VolumeRequest::List) | Ask::Active => {}
                    Ask::Bundle(BundleRequest::Look) => writeln!(output, "looks for sticks").unwrap(),
                    Ask::Bundle(request) => writeln!(output, "asks: {request:?}").unwrap(),
                    Ask::Unlock(pin) => writeln!(output, "unlocks with: {}", pin.text()).unwrap(),
                    Ask::Console(vm) => writeln!(output, "asks for the console of {vm}").unwrap(),
                    Ask::Lock => writeln!(output, "locks").unwrap(),
                    Ask::Volume(request) => {
                        writeln!(output, "asks the gateway: {request:?}").unwrap();
                        volume = request;
                    }
                    Ask::Join(request) => {
                        writeln!(output, "asks the gateway: {request:?}").unwrap();
                        join = request;
                    }
                }
            }
        }
    }
    output
}

/// In place of its like by name, or at the end.
fn put<T>(list: &mut Vec<T>, new: T, name: impl Fn(&T) -> String) {
    match list.iter_mut().find(|old| name(old) == name(&new)) {
        Some(old) => *old = new,
        None => list.push(new),
    }
}

/// A name, and `WORD=VALUE`s behind it; `_` in a value is a blank.
struct Words<'a>(&'a str, Vec<(&'a str, String)>);

impl<'a> Words<'a> {
    fn of(rest: &'a str) -> Self {
        let mut words = rest.split(' ');
        let name = words.next().unwrap_or_default();
        let pairs = words.filter_map(|word| word.split_once('='));
        Self(name, pairs.map(|(word, value)| (word, value.replace('_', " "))).collect())
    }

    fn find(&self, word: &str) -> Option<String> {
        self.1.iter().find(|(name, _)| *name == word).map(|(_, value)| value.clone())
    }

    fn text(&self, word: &str) -> String {
        self.find(word).unwrap_or_default()
    }

    fn list(&self, word: &str) -> Vec<String> {
        let list = self.find(word);
        list.iter().flat_map(|list| list.split(',')).map(str::to_owned).collect()
    }

    fn stick(&self) -> Stick {
        Stick {
            name: self.0.to_owned(),
            model: self.text("model"),
            mib: self.number("mib").into(),
            label: self.text("label"),
            refused: self.find("refused"),
        }
    }

    fn written(&self) -> Written {
        Written { file: self.0.to_owned(), kib: self.number("kib").into(), missing: self.list("missing") }
    }

    fn number(&self, word: &str) -> u32 {
        self.find(word).map_or(0, |number| number.parse().unwrap())
    }

    fn status(&self) -> Status {
        Status {
            edition: 1,
            key: 1,
            oldest_key: 1,
            cluster: "rack".to_owned(),
            node: self.0.to_owned(),
            incarnation: self.text("incarnation"),
            generation: self.find("generation"),
            view: self.number("view").into(),
            dc: self.find("dc"),
            quorate: self.find("quorate").is_some(),
            leaving: self.find("leaving").is_some(),
            free_mib: self.number("free"),
            domains: self.list("domains"),
            disarmed: self.find("disarmed").is_some(),
            nodes: vec![],
            vms: vec![],
            shortfalls: vec![],
            upses: vec![],
            rolling: None,
        }
    }

    /// `NODE` whose turn it is, or `nobody`.
    fn rolling(&self) -> RollingStatus {
        let all = |word| if self.find(word).is_some() { self.list(word) } else { vec![] };
        RollingStatus {
            node: (self.0 != "nobody").then(|| self.0.to_owned()),
            done: all("done"),
            todo: all("todo"),
            left_out: vec!["gateway".to_owned()],
            stopped: self.find("stopped"),
        }
    }

    fn node(&self) -> NodeStatus {
        NodeStatus {
            death: self.find("death"),
            links: self.list("links").iter().map(|link| link_of(link)).collect(),
            name: self.0.to_owned(),
            role: if self.text("role") == "gateway" { Role::Gateway } else { Role::Node },
            state: self.text("state"),
            incarnation: self.text("incarnation"),
            heard_ms: self.find("heard").map(|millis| millis.parse().unwrap()),
            free: Mebibytes(self.number("free")),
            on_trial: self.find("on_trial").is_some(),
            standby: self.find("standby").is_some(),
            maintenance: self.find("maintenance").is_some(),
            disarmed: self.find("disarmed").is_some(),
            outlets: self.list("outlets"),
        }
    }

    fn lock(&self) -> Lock {
        Lock { open: self.find("open").is_some(), wrong: self.number("wrong"), wait_s: self.number("wait").into() }
    }

    fn read(&self) -> OutletRead {
        let outlet = self.0.replace('_', " ");
        OutletRead { at: Instant::from_millis(754_310), outlet, reading: self.text("as") }
    }

    fn seconds(&self, word: &str) -> Option<u64> {
        self.find(word).map(|seconds| seconds.parse::<u64>().unwrap() * 1000)
    }

    fn moves(&self) -> Move {
        let carried_bytes = self.find("carried").map(|mib| mib.parse::<u64>().unwrap() << 20);
        Move { vm: self.0.to_owned(), for_ms: self.seconds("for"), carried_bytes }
    }

    fn leaves(&self) -> Leaving {
        Leaving { node: self.0.to_owned(), for_ms: self.seconds("for"), evacuation_ms: self.seconds("of").unwrap() }
    }

    fn ups(&self) -> UpsStatus {
        UpsStatus {
            name: self.0.to_owned(),
            supply: match &*self.text("supply") {
                "battery" => Supply::Battery,
                "failing" => Supply::Failing,
                "low" => Supply::Low,
                _ => Supply::Mains,
            },
            heard: true,
            charge_percent: self.find("charge").map(|percent| percent.parse().unwrap()),
            runtime_s: self.find("runtime").map(|seconds| seconds.parse().unwrap()),
            feeds: self.list("feeds"),
        }
    }

    fn asking(&self) -> Asking {
        Asking {
            ask: self.0.parse().unwrap(),
            node: self.find("node"),
            card: self.text("card"),
            serial: self.text("serial"),
            cpu: self.text("cpu"),
            memory_mib: self.number("memory"),
            age_s: self.number("age").into(),
            warning: self.find("warning"),
            offer: self.find("offer").map(Ok).or_else(|| self.find("no-offer").map(Err)),
        }
    }

    fn machine(&self) -> Machine {
        Machine {
            identity: self.0.to_owned(),
            node: self.text("node"),
            card: self.text("card"),
            at: self.text("at"),
            revoked: self.find("revoked").is_some(),
        }
    }

    fn window(&self) -> Option<Window> {
        let machines = self.0.parse().unwrap();
        (machines > 0).then(|| Window { machines, left_s: self.number("left").into() })
    }

    fn group(&self) -> Option<Group> {
        let mib = self.0.parse().unwrap();
        (mib > 0).then(|| Group { mib, free_mib: self.number("free").into() })
    }

    fn exported(&self) -> Exported {
        Exported {
            name: self.0.to_owned(),
            mib: self.number("size").into(),
            volume: self.find("fixed").is_none(),
            origin: self.find("origin"),
            moved_mib: self.find("read").map(|_| (self.number("read").into(), self.number("written").into())),
            clients: self.list("clients"),
            claims: self.list("claims"),
            problem: self.find("problem"),
            shared: self.find("gfs2").is_some(),
        }
    }

    fn disk(&self) -> Disk {
        Disk {
            name: self.0.to_owned(),
            mib: self.number("size").into(),
            serial: self.find("serial"),
            blank: self.find("blank").is_some(),
        }
    }

    fn vm(&self) -> VmStatus {
        VmStatus {
            name: self.0.to_owned(),
            owner: self.find("owner"),
            phase: self.text("phase"),
            generation: self.number("generation").into(),
            memory: Mebibytes(self.number("memory")),
            wanted: self.find("unwanted").is_none(),
            priority: self.find("priority").map_or(50, |priority| priority.parse().unwrap()),
        }
    }
}

/// `NETWORK:QUALITY`.
fn link_of(text: &str) -> LinkStatus {
    let (network, quality) = text.split_once(':').unwrap();
    LinkStatus { network: network.to_owned(), quality: quality.parse().unwrap() }
}

fn said(text: &str) -> Line {
    Line { at: Instant::from_millis(61_042), node: "node1".to_owned(), text: text.to_owned() }
}

fn log(lines: u64) -> Vec<Line> {
    let text = |number| match number {
        1 => format!("fences node2: commands off {}", ["pdu1 outlet 3"; 6].join(", ")),
        _ => format!("line {number}"),
    };
    let line =
        |number| Line { at: Instant::from_millis(number * 3_600_017), node: "node1".to_owned(), text: text(number) };
    (1..=lines).map(line).collect()
}

fn guest(told: &str) -> FromGuest {
    match told.split_once(' ') {
        Some(("wrote", text)) => FromGuest::Wrote(text.replace('^', "\x1b").replace('|', "\r\n").into()),
        Some(("ended", reason)) => FromGuest::Ended(reason.to_owned()),
        _ => FromGuest::Attached,
    }
}

fn key_named(name: &str) -> Key {
    match name {
        "Enter" => Key::Enter,
        "Esc" => Key::Back,
        "Ctrl-L" => Key::Redraw,
        "Backspace" => Key::Erase,
        "Left" => Key::Left,
        "Right" => Key::Right,
        "Up" => Key::Up,
        "Down" => Key::Down,
        "PageUp" => Key::PageUp,
        "PageDown" => Key::PageDown,
        "Home" => Key::Home,
        "End" => Key::End,
        _ => Key::Char(name.parse().expect("a key's name or one character")),
    }
}

/// The text, then what is not plain in it.
fn seen(screen: &Screen) -> String {
    let mut seen = screen.to_string();
    for (number, row) in screen.rows().iter().enumerate() {
        for run in row.chunk_by(|a, b| a.style == b.style) {
            let text: String = run.iter().map(|cell| char::from(cell.character)).collect();
            match run[0].style {
                Style::Plain => {}
                style @ (Style::Bold | Style::Reverse) => {
                    writeln!(seen, "{style:?}, row {number}: {}", text.trim()).unwrap()
                }
            }
        }
    }
    seen
}

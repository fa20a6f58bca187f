//! The applet `menu`, on a real terminal (a pty, read by a VT100) and with a supervisor of the test's on its socket.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::File;
use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const STATUS: &str = r#"{"status":{"cluster":"rack","node":"node2","incarnation":"5d01c0ffee","generation":"1f2e3d4c",
    "view":7,"dc":"node1","quorate":true,"leaving":false,"free_mib":412,"domains":["x0"],"nodes":[
    {"name":"node2","role":"node","state":"member","incarnation":"5d01c0ffee","heard_ms":0,"free":412,
    "standby":false,"maintenance":false,"disarmed":false,"outlets":[]},
    {"name":"node1","role":"node","state":"member","incarnation":"00aa11bb33","heard_ms":40,"free":280,
    "standby":false,"maintenance":false,"disarmed":false,"outlets":["pdu1 outlet 2"]},
    {"name":"node3","role":"node","state":"unclean","incarnation":"00aa11bb55","heard_ms":9000,"free":0,
    "standby":false,"maintenance":false,"disarmed":false,"outlets":["pdu1 outlet 4"]}],
    "vms":[{"name":"x0","owner":"node2","phase":"running","generation":3,"memory":128,
    "wanted":true,"priority":50}]}}"#;

const AGREED: &str = r#"{"answer":"agreed"}"#;

/// The program under test: the one in the image, where the environment names it.
fn holdfast() -> String {
    std::env::var("HOLDFAST").unwrap_or_else(|_| env!("CARGO_BIN_EXE_holdfast").to_owned())
}

/// What the terminal shows, and a bell for whoever waits for it to show something else.
type Shown = Arc<(Mutex<vt100::Parser>, Condvar)>;

/// A menu at work on a terminal.
struct AtWork {
    menu: Child,
    keyboard: File,
    terminal: File,
    shown: Shown,
}

impl AtWork {
    fn start(socket: &Path) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let keyboard = openpt(flags).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
        let terminal = File::options().read(true).write(true).open(name).unwrap();
        let menu = Command::new(holdfast())
            .arg("menu")
            .arg(socket)
            .stdin(terminal.try_clone().unwrap())
            .stdout(terminal.try_clone().unwrap())
            .spawn()
            .unwrap();
        let keyboard = File::from(keyboard);
        let parser = vt100::Parser::new(24.try_into().unwrap(), 80.try_into().unwrap(), 0);
        let shown: Shown = Arc::new((Mutex::new(parser), Condvar::new()));
        let (mut screen, eyes) = (keyboard.try_clone().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                eyes.0.lock().unwrap().process(buffer.get(..length).unwrap());
                eyes.1.notify_all();
            }
        });
        Self { menu, keyboard, terminal, shown }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen shows `text`.
    fn see(&self, text: &str) {
        let (parser, bell) = &*self.shown;
        let missing = |parser: &mut vt100::Parser| !parser.screen().contents().contains(text);
        let (parser, waited) = bell.wait_timeout_while(parser.lock().unwrap(), PATIENCE, missing).unwrap();
        assert!(!waited.timed_out(), "no {text:?} on the screen:\n{}", parser.screen().contents());
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let _ = self.menu.kill();
        let _ = self.menu.wait();
    }
}

fn accept(listener: &UnixListener) -> BufReader<UnixStream> {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream)
}

fn tell(supervisor: &mut BufReader<UnixStream>, message: &str) {
    let line = message.replace('\n', "") + "\n";
    supervisor.get_mut().write_all(line.as_bytes()).unwrap();
}

/// What the menu asks for.
fn asked(supervisor: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    supervisor.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn an_operator_shuts_the_node_down() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("menu.sock");
    let mut at = AtWork::start(&socket);
    at.see("no supervisor");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut supervisor = accept(&listener);
    tell(&mut supervisor, STATUS);
    at.see("node2 in rack");
    at.see("6) Shut down this node");
    at.see("VMs on this node: x0.");

    // The log, by arrows that arrive in pieces; back with an Esc that nothing follows.
    tell(&mut supervisor, r#"{"log":[{"at_ms":61042,"node":"node2","text":"is quorate"}]}"#);
    at.press("\u{1b}[B\u{1b}[B\u{1b}[B\u{1b}");
    at.press("[B\r");
    at.see("00:01:01.042  node2 is quorate");
    at.press("\u{1b}");
    at.see("9) About");

    at.press("6");
    at.see("Shut down node2? (y/n)");
    at.see("live: x0.");
    at.press("y");
    at.see("Asked.");
    assert_eq!(asked(&mut supervisor), r#"{"request":"shut_down"}"#);
    tell(&mut supervisor, AGREED);
    at.see("This node is leaving.");
    at.see("0 of 1 VMs have left.");

    // The supervisor dies and comes back.
    drop(supervisor);
    let mut supervisor = accept(&listener);
    at.see("The supervisor has not said anything yet.");
    tell(&mut supervisor, STATUS);
    at.see("The supervisor was lost after this was asked.");
    at.see("Shut down node2? (y/n)");
    tell(&mut supervisor, "nonsense");
    drop(accept(&listener));
}

/// A menu at work, and the supervisor's end of its connection, which has told how things are.
fn with_supervisor() -> (AtWork, BufReader<UnixStream>) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("menu.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let at = AtWork::start(&socket);
    let mut supervisor = accept(&listener);
    tell(&mut supervisor, STATUS);
    (at, supervisor)
}

/// Every kind of request, by the keys that lead to it: each asks, is answered, and shows the answer.
#[test]
fn an_operator_asks_for_everything() {
    let (mut at, mut supervisor) = with_supervisor();
    at.see("VMs on this node: x0.");
    let ways = [
        ("211", "Start VM x0? (y/n)", "y", r#"{"start":{"vm":"x0"}}"#),
        ("212", "Stop VM x0? (y/n)", "y", r#"{"stop":{"vm":"x0"}}"#),
        ("2131", "Migrate VM x0 to node1? (y/n)", "y", r#"{"migrate":{"vm":"x0","to":1}}"#),
        ("321", "Put node1 into standby? (y/n)", "y", r#"{"standby":{"node":1,"on":true}}"#),
        ("312", "Put node2 into maintenance? (y/n)", "y", r#"{"maintenance":{"node":0,"on":true}}"#),
        ("323", "Disarm node1? (y/n)", "y", r#"{"disarm":{"node":1,"on":true}}"#),
        ("44", "Disarm the cluster? (y/n)", "y", r#"{"disarm":{"node":null,"on":true}}"#),
        ("43", "Is node3 off?", "node3\r", r#"{"confirm_off":{"node":2,"typed":"node3"}}"#),
    ];
    at.press("4");
    at.see("pdu1 outlet 4: not read by this node");
    tell(&mut supervisor, r#"{"outlets":[{"at_ms":754310,"outlet":"pdu1 outlet 4","reading":"off"}]}"#);
    at.see("pdu1 outlet 4: off, read here at 00:12:34.310");
    at.press("\u{1b}");
    at.see("9) About");
    for (keys, question, yes, request) in ways {
        at.press(keys);
        at.see(question);
        at.press(yes);
        assert_eq!(asked(&mut supervisor), format!("{{\"request\":{request}}}"));
        at.see("Asked. An answer comes within 10 s.");
        tell(&mut supervisor, r#"{"answer":{"refused":"no, says the test"}}"#);
        at.see("Refused: no, says the test");
        at.press(yes);
        asked(&mut supervisor);
        tell(&mut supervisor, AGREED);
        at.see("Agreed.");
        at.press("\u{1b}\u{1b}\u{1b}\u{1b}");
        at.see("9) About");
    }
}

/// A bar is drawn as soon as the supervisor tells of a move, moves with what it tells next, and goes when the VM has moved.
#[test]
fn a_vm_is_seen_moving() {
    let (mut at, mut supervisor) = with_supervisor();
    at.see("VMs on this node: x0.");
    at.press("21");
    at.see("Phase       running");
    let moves = STATUS.replace(r#""phase":"running""#, r#""phase":"moving to node1""#);
    let mut tell_carried = |seconds: u32, mib: u32| {
        let (for_ms, carried_bytes) = (seconds * 1000, mib << 20);
        let told = format!(r#"{{"vm":"x0","for_ms":{for_ms},"carried_bytes":{carried_bytes}}}"#);
        tell(&mut supervisor, &format!(r#"{{"progress":{{"moves":[{told}],"leaving":[]}}}}"#));
        tell(&mut supervisor, &moves);
    };
    tell_carried(9, 32);
    at.see("Moves       from node2 to node1 for 0:09");
    at.see("[#######.......................] 32 of 128 MiB carried");
    tell_carried(21, 96);
    at.see("Moves       from node2 to node1 for 0:21");
    at.see("[######################........] 96 of 128 MiB carried");
    tell_carried(37, 142);
    at.see("[########### again ############] 142 of 128 MiB carried");
    tell(&mut supervisor, &STATUS.replace(r#""owner":"node2""#, r#""owner":"node1""#));
    at.see("Owner       node1");
    assert!(!at.shown.0.lock().unwrap().screen().contents().contains("carried"));
}

/// What the gateway is asked goes its own way, and comes back while the page is open.
#[test]
fn an_operator_lets_machines_in() {
    let (mut at, mut supervisor) = with_supervisor();
    at.see("VMs on this node: x0.");
    at.press("7");
    assert_eq!(asked(&mut supervisor), r#"{"join":"list"}"#);
    tell(&mut supervisor, r#"{"joining":{"to":"list","outcome":{"Ok":{"asking":[],"machines":[],"window":null}}}}"#);
    at.see("No machine asks to join.");
    // With every status it is asked again.
    tell(&mut supervisor, STATUS);
    assert_eq!(asked(&mut supervisor), r#"{"join":"list"}"#);
    at.press("1");
    at.see("How many machines?");
    at.press("3\r");
    assert_eq!(asked(&mut supervisor), r#"{"join":{"open":{"machines":"3"}}}"#);
    let answer = r#"{"joining":{"to":{"open":{"machines":"3"}},"outcome":{"Ok":{"asking":[],"machines":[],
        "window":{"machines":3,"left_s":900}}}}}"#;
    tell(&mut supervisor, answer);
    at.see("Agreed. The window is open.");
}

/// This machine's supervisor alone is asked for a support bundle, and says when the stick may be pulled out.
#[test]
fn an_operator_takes_a_support_bundle_away() {
    let (mut at, mut supervisor) = with_supervisor();
    at.see("9) About, support bundle");
    at.press("9");
    at.see("1) Support bundle: write");
    at.press("1");
    assert_eq!(asked(&mut supervisor), r#"{"bundle":"look"}"#);
    let sticks = r#"{"bundle":{"sticks":[{"name":"sdb1","model":"Make X","mib":14800,"label":"TOOLS","refused":null},
        {"name":"sdc","model":"","mib":7600,"label":"","refused":"a machine of the cluster boots from it"}]}}"#;
    tell(&mut supervisor, sticks);
    at.see("1) sdb1 (14.4 GiB, label TOOLS, Make X)");
    at.see("sdc (7.4 GiB): a machine of the cluster boots from it.");
    at.press("1");
    at.see("Write the support bundle to sdb1? (y/n)");
    at.press("y");
    assert_eq!(asked(&mut supervisor), r#"{"bundle":{"write":{"stick":"sdb1"}}}"#);
    at.see("Do NOT pull sdb1 out yet.");
    tell(&mut supervisor, r#"{"bundle":{"written":{"file":"holdfast-node2-x.tar","kib":412,"missing":[]}}}"#);
    at.see("Done. sdb1 may be pulled out.");
    at.see("holdfast-node2-x.tar, 412 KiB");
}

/// The program that writes it answers in the supervisor's words, whatever it is given.
#[test]
fn the_bundles_program_answers_whatever_it_is_given() {
    for given in ["", "{", "[]", "{\"stick\":7}"] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        program.arg("bundle").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut program = program.spawn().unwrap();
        program.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
        let said = program.wait_with_output().unwrap();
        assert!(said.status.success());
        assert!(
            said.stdout.starts_with(b"{\"failed\":\"what is wanted: "),
            "{}",
            String::from_utf8_lossy(&said.stdout)
        );
    }
}

/// Every page of the first one's entries, long ones looked through, by a menu that the kernel confines all the while.
#[test]
fn an_operator_sees_every_page_of_a_confined_menu() {
    let (mut at, mut supervisor) = with_supervisor();
    at.see("VMs on this node: x0.");
    let status = std::fs::read_to_string(format!("/proc/{}/status", at.menu.id())).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "Seccomp_filters:\t2"] {
        assert!(status.lines().any(|found| found == line), "{line}: {status}");
    }
    let line = |at: u32| format!(r#"{{"at_ms":{at},"node":"node2","text":"says {at}."}}"#);
    let lines: Vec<String> = (0..100).map(line).collect();
    tell(&mut supervisor, &format!(r#"{{"log":[{}]}}"#, lines.join(",")));
    for (keys, shown) in [
        ("1", "generation 1f2e3d4c, view 7"),
        ("2", "Owner"),
        ("21", "1) Start"),
        ("3", "Free"),
        ("31", "Incarnation"),
        ("4", "Choose a node to confirm that it is off."),
        ("41", "not unclean"),
        ("5", "node2 says 99."),
        ("5\u{1b}[H", "node2 says 0."),
        ("5/s 42\r", "node2 says 42."),
        ("6", "Shut down node2? (y/n)"),
        ("7", "The gateway is asked."),
        ("8", "The gateway is asked."),
        ("9", "there is no shell and no remote login"),
    ] {
        at.press(keys);
        at.see(shown);
        at.press("\u{1b}\u{1b}\u{1b}\u{1b}");
        at.see("9) About");
    }
    assert_eq!(asked(&mut supervisor), r#"{"join":"list"}"#);
    assert!(asked(&mut supervisor).starts_with(r#"{"volume":"#));
}

/// The console of a VM comes through the descriptor that the menu gives with its question; all keys are the guest's but Ctrl-], and what
/// the guest writes is shown, not obeyed.
#[test]
fn an_operator_types_to_a_guest() {
    let (mut at, mut supervisor) = with_supervisor();
    tell(&mut supervisor, r#"{"lock":{"open":true,"wrong":0,"wait_s":0}}"#);
    at.see("l: lock");
    at.press("214");
    let (asked_for, mut guest) = given(&mut supervisor);
    assert!(asked_for.ends_with(" {\"console\":\"x0\"}\n"), "{asked_for}");
    at.see("The console of VM x0 is asked for.");
    guest.write_all(b"go\nx0 login: ").unwrap();
    at.see("x0 login:");
    at.see("Ctrl-]: back to the menu   The console of VM x0");
    // Keys of the menu's own are the guest's as well.
    at.press("q\u{1b}[A\u{c}\r");
    let mut typed = [0; 6];
    guest.read_exact(&mut typed).unwrap();
    assert_eq!(&typed, b"q\x1b[A\x0c\r");
    assert_eq!(asked(&mut supervisor), r#""active""#);
    guest.write_all(b"\x1b[24;1Hthe last row\x1b[?1049h\x1b[2J\x1b]0;a title\x07another screen").unwrap();
    at.see("another screen");
    at.see("Ctrl-]: back to the menu   The console of VM x0");
    at.press("\u{1d}");
    at.see("Migrate to another node");
    assert_eq!(guest.read(&mut typed).unwrap(), 0, "the menu has hung up");
    // Once more: refused, and then ended by the other side.
    at.press("4");
    let (_, guest) = given(&mut supervisor);
    (&guest).write_all(b"x0 does not run on that node\n").unwrap();
    at.see("Enter: again   Esc: back   VM x0: x0 does not run on that node");
    at.press("\r");
    let (_, guest) = given(&mut supervisor);
    (&guest).write_all(b"go\n").unwrap();
    at.see("Ctrl-]: back to the menu");
    drop(guest);
    at.see("VM x0: it has ended, or is looked at elsewhere");
    at.press("\u{1b}");
    at.see("Migrate to another node");
}

/// What the menu asks for with a descriptor, and that.
fn given(supervisor: &mut BufReader<UnixStream>) -> (String, UnixStream) {
    let (mut said, mut given) = (String::new(), None);
    while !said.contains("console") || !said.ends_with('\n') {
        let (mut buffer, mut space) = ([0; 256], [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
        let mut with = RecvAncillaryBuffer::new(&mut space);
        let read = recvmsg(supervisor.get_ref(), &mut [IoSliceMut::new(&mut buffer)], &mut with, RecvFlags::empty());
        said += std::str::from_utf8(buffer.get(..read.unwrap().bytes).unwrap()).unwrap();
        for message in with.drain() {
            let RecvAncillaryMessage::ScmRights(ends) = message else { panic!("something else is given") };
            given = ends.map(UnixStream::from).next();
        }
    }
    let given = given.expect("nothing is given");
    given.set_read_timeout(Some(PATIENCE)).unwrap();
    (said, given)
}

/// The PIN goes to the supervisor and nowhere else: not onto the screen.
#[test]
fn an_operator_types_the_pin_first() {
    let (mut at, mut supervisor) = with_supervisor();
    tell(&mut supervisor, r#"{"lock":{"open":false,"wrong":0,"wait_s":0}}"#);
    at.see("Type the PIN and press Enter: _");
    at.press("9341");
    at.see("Type the PIN and press Enter: ****_");
    assert!(!at.shown.0.lock().unwrap().screen().contents().contains("9341"));
    at.press("\r");
    assert_eq!(asked(&mut supervisor), r#"{"unlock":"9341"}"#);
    at.see("One moment.");
    tell(&mut supervisor, r#"{"lock":{"open":false,"wrong":1,"wait_s":1}}"#);
    at.see("1 wrong PIN; next try in 1 s");
    tell(&mut supervisor, r#"{"lock":{"open":false,"wrong":1,"wait_s":0}}"#);
    at.see("1 wrong PIN; type it again");
    at.press("9342\r");
    assert_eq!(asked(&mut supervisor), r#"{"unlock":"9342"}"#);
    tell(&mut supervisor, r#"{"lock":{"open":true,"wrong":0,"wait_s":0}}"#);
    at.see("6) Shut down this node");
    at.press("6");
    assert_eq!(asked(&mut supervisor), r#""active""#);
    at.see("Shut down node2? (y/n)");
    at.press("y");
    assert_eq!(asked(&mut supervisor), r#"{"request":"shut_down"}"#);
    tell(&mut supervisor, r#"{"lock":{"open":false,"wrong":0,"wait_s":0}}"#);
    at.see("This console is locked.");
}

#[test]
fn what_covers_the_screen_goes_with_ctrl_l() {
    let directory = tempfile::tempdir().unwrap();
    let mut at = AtWork::start(&directory.path().join("menu.sock"));
    at.see("1) Status");
    (&at.terminal).write_all(b"\x1b[2J\x1b[Hkernel: a message").unwrap();
    at.see("kernel: a message");
    at.press("\u{c}");
    at.see("1) Status");
    assert!(!at.shown.0.lock().unwrap().screen().contents().contains("kernel"));
}

#[test]
fn the_terminal_is_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut at = AtWork::start(&directory.path().join("menu.sock"));
    at.see("1) Status");
    let cooked = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
    assert!(!tcgetattr(&at.terminal).unwrap().local_modes.intersects(cooked));
    let menu = rustix::process::Pid::from_child(&at.menu);
    rustix::process::kill_process(menu, rustix::process::Signal::TERM).unwrap();
    assert!(at.menu.wait().unwrap().success());
    assert!(tcgetattr(&at.terminal).unwrap().local_modes.contains(cooked));
}

#[test]
fn without_a_terminal_it_says_so() {
    let menu = Command::new(holdfast()).arg("menu").stdin(std::process::Stdio::null()).output().unwrap();
    assert!(!menu.status.success());
    assert!(String::from_utf8_lossy(&menu.stderr).contains("holdfast menu:"));
}

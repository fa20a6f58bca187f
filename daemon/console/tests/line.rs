//! What a slow serial line has to carry, counted in bytes: at 9600 baud, 960 in a second.

use cluster::event::Answer;
use cluster::status::{LinkStatus, NodeStatus, Status, VmStatus};
use cluster::words::{Instant, Mebibytes, Role};
use console::{COLUMNS, Input, Key, Line, Menu, ROWS, Screen, render};

/// Bytes that a line of 9600 baud carries in a second.
const SECOND: usize = 960;

/// A terminal of a given menu, and what it was sent.
struct Terminal {
    menu: Menu,
    shown: Screen,
}

impl Terminal {
    /// With five nodes and thirty VMs, and a log.
    fn new() -> Self {
        let mut menu = Menu::new();
        menu.handle(Input::Connected);
        menu.handle(Input::Status(Box::new(status(0))));
        menu.handle(Input::Log((0..100).map(line).collect()));
        Self { shown: menu.screen(), menu }
    }

    /// Hands on what has happened; how many bytes that sends.
    fn bytes(&mut self, inputs: impl IntoIterator<Item = Input>) -> usize {
        inputs.into_iter().for_each(|input| drop(self.menu.handle(input)));
        let screen = self.menu.screen();
        let bytes = render(Some(&self.shown), &screen).len();
        self.shown = screen;
        bytes
    }

    fn press(&mut self, keys: &str) -> usize {
        self.bytes(keys.chars().map(|key| Input::Key(Key::Char(key))))
    }
}

/// The status in a given second: what a cluster at work changes from one to the next.
fn status(second: u32) -> Status {
    let node = |number: u32| NodeStatus {
        name: format!("node{number}"),
        role: Role::Node,
        state: "member".to_owned(),
        incarnation: "00aa11bb22".to_owned(),
        heard_ms: Some(u64::from(second * 137 % 1_900)),
        links: ["lan", "san"].map(|name| LinkStatus { network: name.to_owned(), quality: quality(second) }).into(),
        free: Mebibytes(4_000 + second * 16),
        on_trial: false,
        standby: false,
        maintenance: false,
        disarmed: false,
        death: None,
        outlets: vec![format!("pdu1 outlet {number}")],
    };
    let vm = |number: u32| VmStatus {
        name: format!("vm{number:02}"),
        owner: Some(format!("node{}", number % 5)),
        phase: "running".to_owned(),
        generation: 1,
        memory: Mebibytes(128),
        wanted: true,
        priority: 50,
    };
    Status {
        cluster: "rack".to_owned(),
        node: "node0".to_owned(),
        dc: Some("node1".to_owned()),
        quorate: true,
        nodes: (0..5).map(node).collect(),
        vms: (0..30).map(vm).collect(),
        ..Status::default()
    }
}

fn quality(second: u32) -> u8 {
    if second.is_multiple_of(2) { 100 } else { 98 }
}

fn line(number: u64) -> Line {
    let text = format!("moves VM vm{number:02} from node1 to node2, generation {number}");
    Line { at: Instant::from_millis(number * 1_000), node: "node1".to_owned(), text }
}

#[test]
fn what_does_not_change_is_not_sent() {
    let mut terminal = Terminal::new();
    for page in ["", "1", "q2", "q3", "q4", "q5", "q7", "q6"] {
        terminal.press(page);
        assert_eq!(terminal.bytes([Input::Status(Box::new(status(0)))]), 0, "page {page}");
    }
    // When a node was heard within the last two seconds is not told finer.
    let mut later = status(0);
    later.nodes.iter_mut().for_each(|node| node.heard_ms = Some(1_999));
    terminal.press("q1");
    assert_eq!(terminal.bytes([Input::Status(Box::new(later))]), 0);
}

#[test]
fn a_new_line_of_the_log_is_all_that_is_sent() {
    let mut terminal = Terminal::new();
    terminal.press("5");
    for number in 100..200 {
        let length = 17 + line(number).node.len() + line(number).text.len();
        let bytes = terminal.bytes([Input::Log(vec![line(number)])]);
        assert!(bytes <= length + 60, "line {number}: {bytes} bytes for {length}");
    }
}

#[test]
fn what_a_second_changes_is_sent_in_half_of_it() {
    let mut terminal = Terminal::new();
    for page in ["", "1", "q2", "q3", "q4", "q5", "q31"] {
        terminal.press(page);
        for second in 1..20 {
            let news = [Input::Status(Box::new(status(second))), Input::Log(vec![line(second.into())])];
            let bytes = terminal.bytes(news);
            assert!(bytes <= SECOND / 2, "page {page}, second {second}: {bytes} bytes");
        }
    }
}

#[test]
fn a_key_is_answered_in_a_fraction_of_a_second() {
    let mut terminal = Terminal::new();
    assert!(terminal.press("2") <= 3 * SECOND / 2, "thirty VMs");
    for key in [Key::Down, Key::Up] {
        for _ in 0..40 {
            let bytes = terminal.bytes([Input::Key(key)]);
            assert!(bytes <= SECOND / 3, "{key:?}: {bytes} bytes");
        }
    }
    terminal.press("7");
    assert!(terminal.press("2") <= SECOND, "a question");
    assert!(terminal.press("y") <= SECOND / 2, "that it is asked");
    assert!(terminal.bytes([Input::Answer(Answer::Agreed)]) <= SECOND / 10, "its answer");
}

#[test]
fn no_screen_takes_longer_than_the_terminal_has_cells() {
    let mut terminal = Terminal::new();
    for page in ["", "1", "q2", "q3", "q4", "q5", "q6", "q7"] {
        terminal.press(page);
        let bytes = render(None, &terminal.shown).len();
        assert!(bytes <= COLUMNS * ROWS * 6 / 5, "page {page}: {bytes} bytes");
    }
    assert!(u32::try_from(COLUMNS * ROWS * 6 / 5 / SECOND).unwrap() <= 2, "seconds for a whole screen");
}

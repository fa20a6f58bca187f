//! Which page is shown, what a key does there, and how a page is laid out.
//!
//! ```text
//!  +-- Holdfast -- rack -- node2 ------------------ quorate, DC node1 --+   row 0
//!  |  page                                                              |   rows 1 to 21
//!  +------------------------------------------------------------------- +   row 22
//!   keys                                                                    row 23
//! ```

use cluster::event::{Answer, Request};
use cluster::status::Status;

use crate::entries::{Entry, WIDTH, may_shut_down, summary};
use crate::facts::{Facts, Line};
use crate::keys::Key;
use crate::screen::{COLUMNS, ROWS, Screen, Style};

/// The first row of a page's lines; above is its title.
const TOP: usize = 3;
/// The row of the lower border.
const BOTTOM: usize = ROWS - 2;
/// Lines of an entry that are seen at once.
const PAGE: usize = BOTTOM - TOP;
/// The column in which text begins.
const MARGIN: usize = 2;

/// What the menu is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// When a key was pressed.
    Key(Key),
    /// When the supervisor answers: it will tell everything from the beginning.
    Connected,
    /// When the supervisor does not answer any more.
    Lost,
    /// When the supervisor tells how things are.
    Status(Box<Status>),
    /// When there are further lines of the event log, oldest first.
    Log(Vec<Line>),
    /// When something is wrong with this machine or its configuration: what it is, and what to do.
    Problem(String),
    /// When the supervisor answers what this menu has asked.
    Answer(Answer),
}

/// The menu of one terminal.
#[derive(Clone, Debug, Default)]
pub struct Menu {
    facts: Facts,
    /// The entry that is open.
    open: Option<Open>,
    /// The entry that is marked, from 0.
    marked: usize,
}

/// An entry that is open.
#[derive(Clone, Copy, Debug)]
struct Open {
    entry: Entry,
    /// The first line that is wanted on the screen; the end, if there are not so many.
    top: usize,
}

impl Menu {
    /// A menu that was told nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what has happened; gives what is to be asked of the supervisor.
    pub fn handle(&mut self, input: Input) -> Option<Request> {
        match input {
            Input::Key(key) => return self.press(key),
            Input::Connected => self.facts.begin(),
            Input::Lost => self.facts.lose(),
            Input::Status(status) => self.facts.status = Some(*status),
            Input::Log(lines) => self.facts.add_log(lines),
            Input::Problem(text) => self.facts.problems.push(text),
            Input::Answer(Answer::Agreed) => {}
            Input::Answer(Answer::Refused(_)) => self.facts.asked = false,
        }
        None
    }

    fn press(&mut self, key: Key) -> Option<Request> {
        let Some(open) = self.open else {
            self.choose(key);
            return None;
        };
        let last = Entry::lines(open.entry, &self.facts).len().saturating_sub(PAGE);
        let shown = open.top.min(last);
        let top = match key {
            Key::Up => shown.saturating_sub(1),
            Key::Down => shown + 1,
            Key::PageUp => shown.saturating_sub(PAGE - 1),
            Key::PageDown => shown + (PAGE - 1),
            Key::Home => 0,
            Key::End => last,
            Key::Back | Key::Left | Key::Char('q') => {
                self.open = None;
                return None;
            }
            Key::Char('y' | 'Y') if open.entry == Entry::ShutDown && may_shut_down(&self.facts) => {
                self.facts.asked = true;
                return Some(Request::ShutDown);
            }
            Key::Char('n' | 'N') if open.entry == Entry::ShutDown => {
                self.open = None;
                return None;
            }
            Key::Char(_) | Key::Enter | Key::Right | Key::Redraw => shown,
        };
        self.open =
            Some(Open { top: if open.entry.follows() && top >= last { usize::MAX } else { top.min(last) }, ..open });
        None
    }

    /// A key on the first page.
    fn choose(&mut self, key: Key) {
        let count = Entry::ALL.len();
        let number = |digit: char| usize::try_from(digit.to_digit(10)?).ok()?.checked_sub(1);
        match key {
            Key::Up => self.marked = (self.marked + count - 1) % count,
            Key::Down => self.marked = (self.marked + 1) % count,
            Key::Home | Key::PageUp => self.marked = 0,
            Key::End | Key::PageDown => self.marked = count - 1,
            Key::Enter | Key::Right => self.enter(self.marked),
            Key::Char(digit) => {
                if let Some(number) = number(digit) {
                    self.enter(number);
                }
            }
            Key::Back | Key::Left | Key::Redraw => {}
        }
    }

    fn enter(&mut self, number: usize) {
        let Some(&entry) = Entry::ALL.get(number) else { return };
        self.marked = number;
        let top = if entry.follows() { usize::MAX } else { 0 };
        self.open = Some(Open { entry, top });
    }

    /// What is to be seen now.
    #[must_use]
    pub fn screen(&self) -> Screen {
        let mut screen = Screen::blank();
        self.frame(&mut screen);
        let keys = match self.open {
            None => {
                self.first_page(&mut screen);
                "1-5, or arrows and Enter: choose   Ctrl-L: draw again"
            }
            Some(open) => {
                self.page(open, &mut screen);
                if open.entry == Entry::ShutDown && may_shut_down(&self.facts) {
                    "y: yes   n, Esc, q: no, back to the menu   Ctrl-L: draw again"
                } else {
                    "Esc, q: back to the menu   arrows, Page Up/Down: scroll   Ctrl-L: draw again"
                }
            }
        };
        screen.write(ROWS - 1, MARGIN, Style::Plain, keys);
        screen
    }

    fn frame(&self, screen: &mut Screen) {
        let border = format!("+{}+", "-".repeat(COLUMNS - 2));
        screen.write(0, 0, Style::Plain, &border);
        screen.write(BOTTOM, 0, Style::Plain, &border);
        for row in 1..BOTTOM {
            screen.write(row, 0, Style::Plain, "|");
            screen.write(row, COLUMNS - 1, Style::Plain, "|");
        }
        let who = match &self.facts.status {
            Some(status) => format!(" Holdfast: {} in {} ", status.node, status.cluster),
            None => " Holdfast ".to_owned(),
        };
        screen.write(0, MARGIN + 1, Style::Bold, &who);
        let how = format!(" {} ", self.facts.in_short());
        screen.write(0, (COLUMNS - 3).saturating_sub(how.chars().count()), Style::Bold, &how);
    }

    fn first_page(&self, screen: &mut Screen) {
        for (number, entry) in Entry::ALL.iter().enumerate() {
            let marked = number == self.marked;
            let style = if marked { Style::Reverse } else { Style::Plain };
            let text = format!(" {}) {:<30}", number + 1, entry.name());
            screen.write(2 + number, MARGIN, style, &text);
        }
        let from = 3 + Entry::ALL.len();
        let lines = summary(&self.facts);
        for (row, line) in (from..BOTTOM).zip(&lines) {
            screen.write(row, MARGIN, Style::Plain, line);
        }
        if let Some(hidden) = lines.len().checked_sub(BOTTOM - from).filter(|hidden| *hidden > 0) {
            screen.write(BOTTOM, MARGIN + 1, Style::Plain, &format!(" {hidden} more lines "));
        }
    }

    fn page(&self, open: Open, screen: &mut Screen) {
        screen.write(1, MARGIN, Style::Bold, open.entry.name());
        let lines = open.entry.lines(&self.facts);
        let top = open.top.min(lines.len().saturating_sub(PAGE));
        for (row, line) in (TOP..BOTTOM).zip(lines.iter().skip(top)) {
            let line: String = line.chars().take(WIDTH).collect();
            screen.write(row, MARGIN, Style::Plain, &line);
        }
        if lines.len() > PAGE {
            let last = lines.len().min(top + PAGE);
            let place = format!(" {} to {last} of {} ", top + 1, lines.len());
            screen.write(BOTTOM, MARGIN + 1, Style::Plain, &place);
        }
    }
}

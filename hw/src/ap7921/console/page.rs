//! What the console has written since it was last asked, and what it waits for now.
//!
//! It waits for something when its last line is a prompt and nothing more. Blanks are not counted: the manuals and other
//! drivers disagree on them.

use super::super::{Relay, Seen};
use crate::snmp::Value;

/// What the console waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prompt {
    /// A user's name: nobody is logged in.
    UserName,
    /// The password.
    Password,
    /// A command of the first management card's command line.
    CommandLine,
    /// A command of the second management card's (AP7921B): it writes it small.
    SecondCommandLine,
    /// A choice from a menu.
    Menu,
    /// ENTER.
    Pager,
    /// YES, or ENTER for no.
    Confirmation,
}

impl Prompt {
    fn read(line: &str) -> Option<Self> {
        let line: String = line.split_whitespace().collect();
        match line.as_str() {
            "UserName:" => Some(Self::UserName),
            "Password:" => Some(Self::Password),
            "APC>" => Some(Self::CommandLine),
            "apc>" => Some(Self::SecondCommandLine),
            ">" => Some(Self::Menu),
            _ if line.starts_with("Press<ENTER>tocontinue") => Some(Self::Pager),
            _ if line.starts_with("Enter'YES'tocontinue") && line.ends_with(':') => Some(Self::Confirmation),
            _ => None,
        }
    }
}

/// What the console has written, in lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// The lines, without blanks at their ends; none is empty. The prompt is not among them.
    pub(super) lines: Vec<String>,
    /// What it waits for; `None` if it has not finished, or is not understood.
    pub(super) prompt: Option<Prompt>,
    /// Prompts that were followed by something: more than one answer is on this page, and which is whose is not known.
    pub(super) mixed: bool,
}

impl Page {
    /// From the bytes as they came. Any bytes give a page.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let text = printable(bytes);
        let mut lines: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
        let ended = text.ends_with('\n');
        lines.retain(|line| !line.is_empty());
        // A prompt is followed by what is typed, not by a new line.
        let prompt = lines.last().filter(|_| !ended).and_then(|line| Prompt::read(line));
        if prompt.is_some() {
            lines.pop();
        }
        let mixed = lines.iter().any(|line| Prompt::read(line).is_some());
        Self { lines, prompt, mixed }
    }

    /// Is this somewhere on it? `words` in small letters.
    pub(super) fn says(&self, words: &str) -> bool {
        self.lines.iter().any(|line| line.to_ascii_lowercase().contains(words))
    }

    /// A menu's title: what stands between dashes.
    pub(super) fn title(&self) -> &str {
        let title = |line: &&String| line.starts_with("---") && line.trim_matches('-').contains(char::is_alphabetic);
        self.lines.iter().rfind(title).map_or("", |line| line.trim_matches('-').trim())
    }

    /// The number of the choice whose text begins so. Choices may stand side by side, two blanks or more between them.
    pub(super) fn choice(&self, text: &str) -> Option<u8> {
        let columns = self.lines.iter().flat_map(|line| line.split("  "));
        let choices = columns.filter_map(|column| column.trim().split_once("- "));
        let mut numbers = choices.filter(|(_, said)| begins(said.trim_start(), text)).map(|(number, _)| number.parse());
        numbers.find_map(Result::ok)
    }

    /// The outlets of a list of the command line: ` 3: OFF   : node2`.
    pub(super) fn command_line_outlets(&self) -> Vec<Row> {
        let row = |line: &String| {
            let (number, rest) = line.trim_start().split_once(':')?;
            let (state, name) = rest.split_once(':')?;
            Some(Row::new(number.trim().parse().ok()?, state.trim(), name.trim()))
        };
        self.lines.iter().filter_map(row).collect()
    }

    /// The outlets of a list of the second card's command line: ` 3: node2: Off*`. A name may have colons, a state has none.
    pub(super) fn second_card_outlets(&self) -> Vec<Row> {
        let row = |line: &String| {
            let (number, rest) = line.trim_start().split_once(':')?;
            let (name, state) = rest.rsplit_once(':')?;
            Some(Row::new(number.trim().parse().ok()?, state.trim(), name.trim()))
        };
        self.lines.iter().filter_map(row).collect()
    }

    /// The second card's verdict on a command, `E000: Success`: the number and the line. `None` if there is not exactly one.
    pub(super) fn verdict(&self) -> Option<(u16, &str)> {
        let mut verdicts = self.lines.iter().filter_map(|line| verdict(line.trim()));
        verdicts.next().filter(|_| verdicts.next().is_none())
    }

    /// The outlets of a list of the menus: `  3- node2                  OFF*`.
    pub(super) fn menu_outlets(&self) -> Vec<Row> {
        let row = |line: &String| {
            let (number, rest) = line.trim_start().split_once("- ")?;
            let number = number.parse().ok()?;
            let rest = rest.trim();
            let bare = rest.trim_end_matches(['*', ' ']);
            let (name, state) = bare.rsplit_once(' ')?;
            let known = matches!(state, "ON" | "OFF");
            // Only what stands in a column of its own can be a state that is not known.
            let state = rest.get(bare.len() - state.len()..).filter(|_| known || name.ends_with(' '))?;
            Some(Row::new(number, state, name.trim()))
        };
        self.lines.iter().filter_map(row).collect()
    }

    /// The outlets that a text names by number: "outlet 3".
    pub(super) fn outlets_named(&self) -> Vec<u8> {
        let mut named = Vec::new();
        for line in &self.lines {
            let words: Vec<&str> = line.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
            for pair in words.windows(2) {
                if let [word, number] = pair
                    && word.eq_ignore_ascii_case("outlet")
                {
                    named.extend(number.parse::<u8>());
                }
            }
        }
        named
    }

    /// Everything on it in one line, shortened: for an operator who must be told what nobody understands.
    pub(super) fn excerpt(&self) -> String {
        const LONGEST: usize = 60;
        let text = self.lines.join(" | ");
        match text.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
            None => text,
        }
    }
}

/// Is this line a verdict of the second card?
fn verdict(line: &str) -> Option<(u16, &str)> {
    let (code, _) = line.split_once(": ")?;
    let digits = code.strip_prefix('E').filter(|digits| digits.len() == 3)?;
    let is_code = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_code).map(|code| (code, line))
}

fn begins(said: &str, text: &str) -> bool {
    said.get(..text.len()).is_some_and(|head| head.eq_ignore_ascii_case(text))
}

/// An outlet of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) seen: Seen,
    pub(super) name: String,
}

impl Row {
    /// A star behind the state says that a command is pending.
    fn new(outlet: u8, state: &str, name: &str) -> Self {
        let word = state.trim_end_matches(['*', ' ']);
        let relay = match word {
            "ON" | "On" => Ok(Relay::On),
            "OFF" | "Off" => Ok(Relay::Off),
            _ => Err(Value::Text(word.as_bytes().to_vec())),
        };
        Self { seen: Seen { outlet, state: relay, pending: Ok(state != word) }, name: name.to_owned() }
    }
}

/// The text of a terminal without what moves its cursor. What is not ASCII becomes a replacement character.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut bytes = bytes.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' | b'\n' => text.push('\n'),
            b' '..=b'~' => text.push(char::from(byte)),
            b'\t' => text.push(' '),
            // ESC [ parameters letter (ECMA-48, 5.4).
            0x1b if bytes.peek() == Some(&b'[') => {
                while bytes.next().is_some_and(|byte| !byte.is_ascii_alphabetic()) {}
            }
            0x00..0x20 | 0x7f => {}
            0x80.. => text.push('\u{fffd}'),
        }
    }
    text
}

//! The bytes that turn one screen into another, on anything that understands a VT100: only what changed is sent, because
//! a serial line at 9600 baud takes two seconds for a whole screen. Rows that have only moved, as a log's do with every new
//! line, are moved by the terminal itself, within margins, where that is shorter.

use crate::screen::{COLUMNS, Cell, ROWS, Screen, Style};

/// Attributes off, ASCII, the last column holds (a VT100 would scroll behind the last cell), no cursor, all blank.
const PREPARE: &str = "\x1b[0m\x1b(B\x0f\x1b[?7l\x1b[?25l\x1b[2J";
/// Gives the terminal back: attributes off, lines wrap, the cursor shows, all blank.
pub const RESTORE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[2J\x1b[H";
/// Cells that have not changed are sent again if there are no more of them than this: to go past them costs as much.
const GAP: usize = 6;

/// The bytes that turn `old` into `new`; without an `old`, whatever is there.
#[must_use]
pub fn render(old: Option<&Screen>, new: &Screen) -> Vec<u8> {
    let Some(old) = old else {
        return (PREPARE.to_owned() + &changes(&Screen::blank(), new)).into_bytes();
    };
    let plain = changes(old, new);
    let scrolled = Scroll::between(old, new).map(|scroll| scroll.bytes() + &changes(&scroll.of(old), new));
    scrolled.filter(|scrolled| scrolled.len() < plain.len()).unwrap_or(plain).into_bytes()
}

/// What of every row changed.
fn changes(old: &Screen, new: &Screen) -> String {
    let mut out = String::new();
    for (number, (old, new)) in old.rows().iter().zip(new.rows()).enumerate() {
        row(number, old, new, &mut out);
    }
    out
}

/// Rows that the terminal moves: blank ones come in at one margin, what is beyond the other is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scroll {
    /// The first row between the margins.
    first: usize,
    /// The last one.
    last: usize,
    /// By how many rows.
    by: usize,
    up: bool,
}

impl Scroll {
    /// The one that brings most rows to where they are wanted, if any.
    fn between(old: &Screen, new: &Screen) -> Option<Self> {
        let all = (1..ROWS).flat_map(|by| [true, false].map(|up| longest(old, new, by, up)));
        let best = all.flatten().max_by_key(|(rows, scroll)| (*rows, usize::MAX - scroll.by));
        best.map(|(_, scroll)| scroll)
    }

    /// What the terminal makes of a screen.
    fn of(self, old: &Screen) -> Screen {
        let mut screen = old.clone();
        let blank = [Cell::BLANK; COLUMNS];
        for (row, cells) in screen.rows_mut().iter_mut().enumerate() {
            if (self.first..=self.last).contains(&row) {
                let from = if self.up { Some(row + self.by) } else { row.checked_sub(self.by) };
                let from = from.filter(|from| (self.first..=self.last).contains(from));
                *cells = from.and_then(|from| old.rows().get(from)).copied().unwrap_or(blank);
            }
        }
        screen
    }

    /// Margins (DECSTBM), line feeds at the lower or reverse indexes at the upper one, no margins.
    fn bytes(self) -> String {
        let (at, move_one) = if self.up { (self.last, "\n") } else { (self.first, "\x1bM") };
        format!("\x1b[{};{}r\x1b[{};1H{}\x1b[r", self.first + 1, self.last + 1, at + 1, move_one.repeat(self.by))
    }
}

/// The longest stretch of rows that such a scrolling would bring to where they are wanted, and how many of these would
/// have to be sent otherwise.
fn longest(old: &Screen, new: &Screen, by: usize, up: bool) -> Option<(usize, Scroll)> {
    let (upper, lower) = if up { (new, old) } else { (old, new) };
    let pairs: Vec<_> =
        upper.rows().iter().zip(lower.rows().iter().skip(by)).map(|(upper, lower)| upper == lower).collect();
    let changed = |row: usize| old.rows().get(row) != new.rows().get(row);
    let mut first = 0;
    let mut best = None;
    for stretch in pairs.chunk_by(|one, other| one == other) {
        let end = first + stretch.len();
        if stretch.first() == Some(&true) {
            let wanted = if up { first..end } else { first + by..end + by };
            let rows = wanted.filter(|row| changed(*row)).count();
            if rows > best.map_or(0, |(rows, _)| rows) {
                best = Some((rows, Scroll { first, last: end - 1 + by, by, up }));
            }
        }
        first = end;
    }
    best
}

/// What of one row changed.
fn row(number: usize, old: &[Cell; COLUMNS], new: &[Cell; COLUMNS], out: &mut String) {
    let changed = |column: &usize| old.get(*column) != new.get(*column);
    let mut column = 0;
    while let Some(start) = (column..COLUMNS).find(changed) {
        // As far as the next stretch that is worth going past.
        let mut end = start + 1;
        while let Some(next) = (end..COLUMNS.min(end + GAP + 1)).find(changed) {
            end = next + 1;
        }
        let blank = new.iter().rposition(|cell| *cell != Cell::BLANK).map_or(0, |last| last + 1);
        let cells = new.iter().take(end.min(blank.max(start))).skip(start);
        out.push_str(&format!("\x1b[{};{}H", number + 1, start + 1));
        styled(cells, out);
        if end > blank {
            out.push_str("\x1b[K");
            return;
        }
        column = end;
    }
}

/// The cells, with the attributes off before and after.
fn styled<'a>(cells: impl Iterator<Item = &'a Cell>, out: &mut String) {
    let mut style = Style::Plain;
    for cell in cells {
        if cell.style != style {
            style = cell.style;
            out.push_str(match style {
                Style::Plain => "\x1b[0m",
                Style::Bold => "\x1b[0;1m",
                Style::Reverse => "\x1b[0;7m",
            });
        }
        out.push(char::from(cell.character));
    }
    if style != Style::Plain {
        out.push_str("\x1b[0m");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::ROWS;

    fn screen(lines: &[(usize, usize, Style, &str)]) -> Screen {
        let mut screen = Screen::blank();
        for (row, column, style, text) in lines {
            screen.write(*row, *column, *style, text);
        }
        screen
    }

    fn terminal() -> vt100::Parser {
        vt100::Parser::new(24.try_into().unwrap(), 80.try_into().unwrap(), 0)
    }

    /// What a terminal shows is the screen, cell by cell.
    fn assert_shows(terminal: &vt100::Parser, screen: &Screen) {
        for (row, cells) in (0..).zip(screen.rows()) {
            for (column, cell) in (0..).zip(cells) {
                let shown = terminal.screen().cell(row, column).unwrap();
                let character = if shown.contents().is_empty() { " " } else { shown.contents() };
                assert_eq!(character, char::from(cell.character).to_string(), "{row} {column}");
                assert_eq!(shown.bold(), cell.style == Style::Bold, "{row} {column}");
                assert_eq!(shown.inverse(), cell.style == Style::Reverse, "{row} {column}");
            }
        }
    }

    #[test]
    fn a_terminal_shows_every_screen_after_every_other() {
        let full: Vec<_> = (0..ROWS).map(|row| (row, 0, Style::Reverse, "x".repeat(COLUMNS))).collect();
        let full: Vec<_> = full.iter().map(|(row, column, style, text)| (*row, *column, *style, &**text)).collect();
        let screens = [
            Screen::blank(),
            screen(&full),
            screen(&[(0, 0, Style::Plain, "a"), (0, 79, Style::Bold, "b"), (23, 70, Style::Reverse, "0123456789")]),
            screen(&[(0, 0, Style::Plain, "a  c"), (5, 3, Style::Reverse, "  "), (5, 20, Style::Plain, "and on")]),
            screen(&[
                (0, 0, Style::Plain, "a  cd        e"),
                (5, 3, Style::Bold, "bold"),
                (23, 0, Style::Plain, "end"),
            ]),
        ];
        for old in &screens {
            for new in &screens {
                let mut terminal = terminal();
                terminal.process(b"\x1b[7mrubbish\r\n");
                terminal.process(&render(None, old));
                assert_shows(&terminal, old);
                terminal.process(&render(Some(old), new));
                assert_shows(&terminal, new);
                terminal.process(&render(None, new));
                assert_shows(&terminal, new);
            }
        }
    }

    /// A page of a log in a frame, from that line on.
    fn log(from: usize) -> Screen {
        let lines: Vec<_> =
            (from..from + 18).map(|line| format!("| line {line} says something {} |", line * line)).collect();
        let rows = lines.iter().enumerate().map(|(row, line)| (row + 3, 0, Style::Plain, &**line));
        let end = format!("+-- {} --+", from + 18);
        let frame = [(0, 0, Style::Bold, "Log"), (22, 0, Style::Plain, &*end), (23, 2, Style::Reverse, "keys")];
        screen(&rows.chain(frame).collect::<Vec<_>>())
    }

    #[test]
    fn what_only_moved_is_moved_by_the_terminal() {
        for (from, to, most) in [(1, 2, 90), (1, 3, 130), (9, 8, 90), (9, 4, 260)] {
            let (old, new) = (log(from), log(to));
            let mut terminal = terminal();
            terminal.process(&render(None, &old));
            let bytes = render(Some(&old), &new);
            assert!(bytes.len() <= most, "{from} to {to}: {} bytes", bytes.len());
            terminal.process(&bytes);
            assert_shows(&terminal, &new);
            terminal.process(&render(Some(&new), &old));
            assert_shows(&terminal, &old);
        }
    }

    #[test]
    fn a_terminal_follows_thousands_of_random_changes() {
        let mut seed: u64 = 1;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(seed >> 33).unwrap() % below
        };
        let mut terminal = terminal();
        let mut old = Screen::blank();
        terminal.process(&render(None, &old));
        for _ in 0..3_000 {
            let (first, rows) = (random(ROWS), 1 + random(ROWS));
            let last = (first + rows).min(ROWS - 1);
            let mut new = Scroll { first, last, by: random(4), up: random(2) == 0 }.of(&old);
            for _ in 0..random(4) {
                let style = [Style::Plain, Style::Bold, Style::Reverse][random(3)];
                new.write(random(ROWS), random(COLUMNS), style, &"words and gaps   ".repeat(5)[..random(80)]);
            }
            terminal.process(&render(Some(&old), &new));
            assert_shows(&terminal, &new);
            old = new;
        }
    }

    #[test]
    fn only_what_changed_is_sent() {
        let old = screen(&[(2, 10, Style::Plain, "heard 1 s ago, free 512 MiB")]);
        let new = screen(&[(2, 10, Style::Plain, "heard 2 s ago, free 512 MiB")]);
        assert_eq!(render(Some(&old), &old), b"");
        assert_eq!(render(Some(&old), &new), b"\x1b[3;17H2");
        assert_eq!(render(Some(&old), &Screen::blank()), b"\x1b[3;11H\x1b[K");
    }
}

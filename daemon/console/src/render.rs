//! The bytes that turn one screen into another, on anything that understands a VT100: only what changed is sent, because
//! a serial line at 9600 baud takes two seconds for a whole screen.

use crate::screen::{COLUMNS, Cell, Screen, Style};

/// Attributes off, ASCII, the last column holds (a VT100 would scroll behind the last cell), no cursor, all blank.
const PREPARE: &str = "\x1b[0m\x1b(B\x0f\x1b[?7l\x1b[?25l\x1b[2J";
/// Gives the terminal back: attributes off, lines wrap, the cursor shows, all blank.
pub const RESTORE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[2J\x1b[H";
/// Cells that have not changed are sent again if there are no more of them than this: to go past them costs as much.
const GAP: usize = 6;

/// The bytes that turn `old` into `new`; without an `old`, whatever is there.
#[must_use]
pub fn render(old: Option<&Screen>, new: &Screen) -> Vec<u8> {
    let blank = Screen::blank();
    let mut out = String::new();
    if old.is_none() {
        out.push_str(PREPARE);
    }
    let old = old.unwrap_or(&blank);
    for (number, (old, new)) in old.rows().iter().zip(new.rows()).enumerate() {
        row(number, old, new, &mut out);
    }
    out.into_bytes()
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

    #[test]
    fn only_what_changed_is_sent() {
        let old = screen(&[(2, 10, Style::Plain, "heard 1 s ago, free 512 MiB")]);
        let new = screen(&[(2, 10, Style::Plain, "heard 2 s ago, free 512 MiB")]);
        assert_eq!(render(Some(&old), &old), b"");
        assert_eq!(render(Some(&old), &new), b"\x1b[3;17H2");
        assert_eq!(render(Some(&old), &Screen::blank()), b"\x1b[3;11H\x1b[K");
    }
}

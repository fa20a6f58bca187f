//! What is to be seen: 80 columns and 24 rows of ASCII, each cell in one of three styles.

use core::fmt;

/// Columns of a screen. A serial line does not tell its size (it reports 0x0), so it is the VT100's.
pub const COLUMNS: usize = 80;
/// Rows of a screen.
pub const ROWS: usize = 24;

/// How a cell looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// As the terminal has it.
    #[default]
    Plain,
    /// Bright.
    Bold,
    /// Dark on bright: the selection.
    Reverse,
}

/// One place on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// A printable ASCII character.
    pub character: u8,
    /// How it looks.
    pub style: Style,
}

impl Cell {
    /// Nothing to be seen.
    pub const BLANK: Self = Self { character: b' ', style: Style::Plain };
}

/// A whole screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Screen {
    rows: [[Cell; COLUMNS]; ROWS],
}

impl Screen {
    /// An empty one.
    #[must_use]
    pub fn blank() -> Self {
        Self { rows: [[Cell::BLANK; COLUMNS]; ROWS] }
    }

    /// Its rows, from the top.
    #[must_use]
    pub fn rows(&self) -> &[[Cell; COLUMNS]; ROWS] {
        &self.rows
    }

    /// Its rows, to be changed.
    pub(crate) fn rows_mut(&mut self) -> &mut [[Cell; COLUMNS]; ROWS] {
        &mut self.rows
    }

    /// Writes `text` from `row` and `column` on (both from 0). What lies outside is cut off; what is not printable ASCII
    /// is a `?`.
    pub(crate) fn write(&mut self, row: usize, column: usize, style: Style, text: &str) {
        let cells = self.rows.iter_mut().skip(row).take(1).flatten().skip(column);
        let printable = |byte: &u8| matches!(byte, b' '..=b'~');
        for (cell, character) in cells.zip(text.chars()) {
            *cell = Cell { character: u8::try_from(character).ok().filter(printable).unwrap_or(b'?'), style };
        }
    }
}

/// The text alone, one line a row, without the blanks at its end.
impl fmt::Display for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            let text: String = row.iter().map(|cell| char::from(cell.character)).collect();
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_is_cut_off() {
        let mut screen = Screen::blank();
        screen.write(ROWS - 1, COLUMNS - 2, Style::Plain, "a\u{e9}c");
        screen.write(ROWS, 0, Style::Plain, "x");
        screen.write(0, COLUMNS, Style::Plain, "x");
        assert_eq!(screen.to_string(), format!("{}{}a?\n", "\n".repeat(ROWS - 1), " ".repeat(COLUMNS - 2)));
    }
}

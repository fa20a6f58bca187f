//! How a page is laid out on the screen.
//!
//! ```text
//!  +-- Holdfast: node2 in rack -------------------- quorate, DC node1 --+   row 0
//!  | title                                                              |   row 1
//!  | rows of the page                                                   |   rows 3 to 21
//!  +-- 1 to 19 of 30 ---------------------------------------------------+   row 22
//!   keys                                                                    row 23
//! ```

use crate::facts::Facts;
use crate::menu::Open;
use crate::page::{Page, Row, WIDTH};
use crate::pages::{bundle_question, join_question, locked, question, volume_question};
use crate::screen::{COLUMNS, ROWS, Screen, Style};

/// The first row of a page; above is its title.
const TOP: usize = 3;
/// The row of the lower border.
const BOTTOM: usize = ROWS - 2;
/// Rows of a page that are seen at once.
pub(crate) const PAGE: usize = BOTTOM - TOP;
/// The column in which text begins.
const MARGIN: usize = 2;

/// The screen of an open page; of a guest, while its console is open.
pub(crate) fn screen(facts: &Facts, open: &Open) -> Screen {
    if let Some(guest) = &facts.guest {
        return guest.screen();
    }
    let mut screen = Screen::blank();
    frame(facts, &mut screen);
    screen.write(1, MARGIN, Style::Bold, &cut(&open.page.title(facts)));
    let rows = open.page.rows(facts);
    let top = open.top.min(rows.len().saturating_sub(PAGE));
    let choices = rows.iter().filter(|row| matches!(row, Row::Choice(..))).count();
    let marked = open.marked.min(choices.saturating_sub(1));
    let mut number = 0;
    for (at, row) in rows.iter().enumerate() {
        let (style, text) = match row {
            Row::Text(text) => (Style::Plain, text.clone()),
            Row::Choice(text, _) => {
                number += 1;
                let style = if number - 1 == marked { Style::Reverse } else { Style::Plain };
                (style, format!("{number:>2}) {text}"))
            }
        };
        if (top..top + PAGE).contains(&at) {
            screen.write(TOP + at - top, MARGIN, style, &cut(&text));
        }
    }
    if rows.len() > PAGE {
        let place = format!(" {} to {} of {} ", top + 1, rows.len().min(top + PAGE), rows.len());
        screen.write(BOTTOM, MARGIN + 1, Style::Plain, &place);
    }
    screen.write(ROWS - 1, MARGIN, Style::Plain, &keys(facts, open, choices));
    screen
}

/// The keys that do something on a page.
fn keys(facts: &Facts, open: &Open, choices: usize) -> String {
    if let Page::Ask(request) = &open.page
        && let Some(keys) = question::keys(facts, request)
    {
        return keys.to_owned();
    }
    if let Page::Join(request) = &open.page
        && let Some(keys) = join_question::keys(facts, request)
    {
        return keys.to_owned();
    }
    if let Page::Volume(request) = &open.page
        && let Some(keys) = volume_question::keys(facts, request)
    {
        return keys.to_owned();
    }
    if let Page::Bundle(stick) = &open.page
        && let Some(keys) = bundle_question::keys(facts, stick)
    {
        return keys.to_owned();
    }
    match &open.page {
        Page::Log(_) if open.typing => "Type what the lines are to have.   Enter: done   Esc: all lines".to_owned(),
        Page::Log(_) => "/: filter   Esc, q: back   arrows, Page Up/Down: scroll   Ctrl-L: draw again".to_owned(),
        Page::First => {
            let lock = if facts.is_unlocked() { "   l: lock" } else { "" };
            format!("1-{choices}, or arrows and Enter: choose{lock}   Ctrl-L: draw again")
        }
        Page::Locked(_) => locked::keys(facts).to_owned(),
        Page::Overview
        | Page::Vms
        | Page::Vm(_)
        | Page::Console(_)
        | Page::Targets(_)
        | Page::Nodes
        | Page::Node(_)
        | Page::Fencing
        | Page::Joining
        | Page::Storage
        | Page::Export(_)
        | Page::About
        | Page::Support
        | Page::Bundle(_)
        | Page::Join(_)
        | Page::Volume(_)
        | Page::Ask(_) => match choices {
            0 => "Esc, q: back   arrows, Page Up/Down: scroll   Ctrl-L: draw again".to_owned(),
            1 => "1, or Enter: choose   Esc, q: back   Ctrl-L: draw again".to_owned(),
            _ => format!("1-{choices}, or arrows and Enter: choose   Esc, q: back   Ctrl-L: draw again"),
        },
    }
}

fn frame(facts: &Facts, screen: &mut Screen) {
    let border = format!("+{}+", "-".repeat(COLUMNS - 2));
    screen.write(0, 0, Style::Plain, &border);
    screen.write(BOTTOM, 0, Style::Plain, &border);
    for row in 1..BOTTOM {
        screen.write(row, 0, Style::Plain, "|");
        screen.write(row, COLUMNS - 1, Style::Plain, "|");
    }
    let who = match &facts.status {
        Some(status) => format!(" Holdfast: {} in {} ", status.node, status.cluster),
        None => " Holdfast ".to_owned(),
    };
    screen.write(0, MARGIN + 1, Style::Bold, &who);
    let how = format!(" {} ", facts.in_short());
    screen.write(0, (COLUMNS - 3).saturating_sub(how.chars().count()), Style::Bold, &how);
}

/// So much of a line as the frame leaves.
fn cut(line: &str) -> String {
    line.chars().take(WIDTH).collect()
}

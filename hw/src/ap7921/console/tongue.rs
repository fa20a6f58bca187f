//! The three ways of asking: the command line of the first card, that of the second, and the menus of AOS 2.x and 3.x.
//!
//! ```text
//! command line   status | off 3 | on 3          it has no word for "cancel"; an off takes the place of what is pending
//! second card's  olStatus all | olOff 3 | olOn 3 | olCancelCmd 3; each answer has one verdict, such as "E000: Success"
//! menus          Device Manager > Outlet Management (3.x) > Outlet Control/Configuration: the list
//!                > outlet > Control Outlet (not for every user) > Immediate Off > YES > ENTER
//! ```
//!
//! A choice is made by its text, never by a number known beforehand: the numbers differ between versions.

use super::goal::{Order, Want};
use super::page::{Page, Prompt, Row};

/// ESC goes up one menu.
pub(super) const UP: &str = "\x1b";
/// ENTER draws a menu again, and means no where YES is asked for.
pub(super) const ENTER: &str = "\r";

/// What follows from a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Type this.
    Type(String),
    /// All outlets, from 1 on without a gap.
    Outlets(Vec<Row>),
    /// What was commanded has been taken; that proves nothing.
    Commanded,
    /// It was refused; the console's words.
    Refused(String),
    /// This device has no outlets; the console's words.
    WrongDevice(String),
    /// This page should not be here.
    Strange,
}

/// A way of asking.
#[derive(Debug)]
pub(super) enum Tongue {
    CommandLine,
    SecondCommandLine,
    Menus(Menus),
}

impl Tongue {
    /// What to do to get `want`. `page` is the answer to what was last typed for it; or with `fresh` false, what was there
    /// before anything was.
    pub(super) fn step(&mut self, want: Want, page: &Page, fresh: bool) -> Move {
        if fresh && page.mixed {
            return Move::Strange;
        }
        match self {
            Self::CommandLine => command_line(want, page, fresh),
            Self::SecondCommandLine => second_command_line(want, page, fresh),
            Self::Menus(menus) => menus.step(want, page, fresh),
        }
    }
}

fn command_line(want: Want, page: &Page, fresh: bool) -> Move {
    if page.prompt != Some(Prompt::CommandLine) {
        return Move::Strange;
    }
    if !fresh {
        return match want {
            Want::List => Move::Type(format!("status{ENTER}")),
            Want::Command(outlet, Order::On) => Move::Type(format!("on {outlet}{ENTER}")),
            Want::Command(outlet, Order::Off) => Move::Type(format!("off {outlet}{ENTER}")),
            Want::Command(_, Order::Cancel) => Move::Commanded,
        };
    }
    if let Some(refusal) = page.lines.iter().find(|line| is_refusal(line)) {
        return Move::Refused(refusal.clone());
    }
    match want {
        Want::List => outlets(page.command_line_outlets()),
        Want::Command(..) => Move::Commanded,
    }
}

/// Where a verdict of the second card begins to be a refusal, and which says that it knows no such command.
const REFUSED: u16 = 100;
const NO_SUCH_COMMAND: u16 = 101;

fn second_command_line(want: Want, page: &Page, fresh: bool) -> Move {
    if page.prompt != Some(Prompt::SecondCommandLine) {
        return Move::Strange;
    }
    if !fresh {
        return Move::Type(match want {
            Want::List => format!("olStatus all{ENTER}"),
            Want::Command(outlet, Order::On) => format!("olOn {outlet}{ENTER}"),
            Want::Command(outlet, Order::Off) => format!("olOff {outlet}{ENTER}"),
            Want::Command(outlet, Order::Cancel) => format!("olCancelCmd {outlet}{ENTER}"),
        });
    }
    match (page.verdict(), want) {
        (None, _) => Move::Strange,
        (Some((NO_SUCH_COMMAND, said)), Want::List) => Move::WrongDevice(format!("it has no outlets: \"{said}\"")),
        (Some((REFUSED.., said)), _) => Move::Refused(said.to_owned()),
        (Some(_), Want::List) => outlets(page.second_card_outlets()),
        (Some(_), Want::Command(..)) => Move::Commanded,
    }
}

/// `E104`, with or without words behind it.
fn is_refusal(line: &str) -> bool {
    matches!(line.trim_start().as_bytes(), [b'E', b'1'..=b'9', b'0'..=b'9', b'0'..=b'9', ..])
}

/// A list with a gap, or an outlet twice, was not understood.
fn outlets(rows: Vec<Row>) -> Move {
    let whole = !rows.is_empty() && rows.iter().zip(1..).all(|(row, number)| row.seen.outlet == number);
    if whole { Move::Outlets(rows) } else { Move::Strange }
}

/// Where in the menus.
#[derive(Debug, Default)]
pub(super) struct Menus {
    /// The outlet that was chosen from the list for the present want. Below any other nothing is commanded.
    chosen: Option<u8>,
    /// The outlets of the pages of the list before this one.
    earlier: Vec<Row>,
}

impl Menus {
    fn step(&mut self, want: Want, page: &Page, fresh: bool) -> Move {
        if !fresh {
            (self.chosen, self.earlier) = (None, Vec::new());
        }
        let is_list = page.title().starts_with("Outlet Control/Configuration") || !self.earlier.is_empty();
        let rows = if is_list { page.menu_outlets() } else { vec![] };
        match (page.prompt, want) {
            (Some(Prompt::Menu), Want::List) if fresh && !rows.is_empty() => {
                self.earlier.extend(rows);
                outlets(core::mem::take(&mut self.earlier))
            }
            (Some(Prompt::Menu), Want::List) if !rows.is_empty() => Move::Type(ENTER.to_owned()),
            (Some(Prompt::Menu), Want::List) => to_list(page),
            (Some(Prompt::Menu), Want::Command(outlet, order)) => self.command(page, &rows, outlet, order),
            (Some(Prompt::Confirmation), Want::Command(outlet, _)) => {
                let named = page.outlets_named();
                let ours = self.chosen == Some(outlet) && named.iter().all(|named| *named == outlet);
                if ours { Move::Type(format!("YES{ENTER}")) } else { Move::Strange }
            }
            (Some(Prompt::Pager), Want::Command(outlet, _)) if self.chosen == Some(outlet) => {
                if page.says("success") {
                    Move::Commanded
                } else {
                    Move::Refused(page.excerpt())
                }
            }
            (Some(Prompt::Pager), _) => {
                if fresh {
                    self.earlier.extend(rows);
                }
                Move::Type(ENTER.to_owned())
            }
            (
                Some(
                    Prompt::UserName
                    | Prompt::Password
                    | Prompt::CommandLine
                    | Prompt::SecondCommandLine
                    | Prompt::Confirmation,
                )
                | None,
                _,
            ) => Move::Strange,
        }
    }

    fn command(&mut self, page: &Page, rows: &[Row], outlet: u8, order: Order) -> Move {
        if self.chosen != Some(outlet) {
            if !rows.iter().any(|row| row.seen.outlet == outlet) {
                return to_list(page);
            }
            self.chosen = Some(outlet);
            return Move::Type(format!("{outlet}{ENTER}"));
        }
        let order = match order {
            Order::On => "Immediate On",
            Order::Off => "Immediate Off",
            Order::Cancel => "Cancel",
        };
        match page.choice(order).or_else(|| page.choice("Control Outlet")) {
            Some(number) => Move::Type(format!("{number}{ENTER}")),
            None => Move::Strange,
        }
    }
}

/// One menu closer to the list.
fn to_list(page: &Page) -> Move {
    let path = ["Outlet Control/Configuration", "Outlet Management", "Device Manager"];
    match path.into_iter().find_map(|text| page.choice(text)) {
        Some(number) => Move::Type(format!("{number}{ENTER}")),
        None => Move::Type(UP.to_owned()),
    }
}

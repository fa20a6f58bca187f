//! The console of a VM: what its guest writes, as a terminal would show it, and what becomes of the keys.
//!
//! No terminal of ours obeys a guest: what it writes goes to an emulated one (the crate `vt100`), of which the menu shows the
//! characters. So the menu's last line always says where the keys go, and Ctrl-] always takes them back.

use core::fmt;

use cluster::words::VmName;

use crate::screen::{COLUMNS, ROWS, Screen, Style};

/// What takes the keys back: Ctrl-], as at `xl console` and telnet.
pub const LEAVE: u8 = 0x1d;
/// Rows of a guest's terminal that are seen at once: the last row is the menu's.
const SEEN: u16 = 23;

/// What is told of the console that this menu has asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromGuest {
    /// It is attached: keys reach the guest from now on.
    Attached,
    /// The guest has written this.
    Wrote(Vec<u8>),
    /// It is not attached, or not any more, for this reason.
    Ended(String),
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stands {
    /// The operator wants it, and nobody was asked yet.
    Wanted,
    Asked,
    Attached,
    Ended(String),
}

/// The console of a VM that somebody looks at.
pub(crate) struct Guest {
    vm: VmName,
    stands: Stands,
    terminal: vt100::Parser,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("vm", &self.vm).field("stands", &self.stands).finish_non_exhaustive()
    }
}

impl Guest {
    /// One that is to be asked for.
    pub(crate) fn new(vm: VmName) -> Self {
        let terminal = vt100::Parser::new(vt100::Parser::DEFAULT_ROWS, vt100::Parser::DEFAULT_COLS, 0);
        Self { vm, stands: Stands::Wanted, terminal }
    }

    /// The VM whose console is to be asked for now, if it is: it counts as asked then.
    pub(crate) fn ask(&mut self) -> Option<VmName> {
        if self.stands != Stands::Wanted {
            return None;
        }
        self.stands = Stands::Asked;
        Some(self.vm.clone())
    }

    /// After it has ended: to be asked for once more.
    pub(crate) fn again(&mut self) {
        if matches!(self.stands, Stands::Ended(_)) {
            self.stands = Stands::Wanted;
        }
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.stands == Stands::Attached
    }

    /// Whether it is asked for or attached.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stands, Stands::Asked | Stands::Attached)
    }

    pub(crate) fn told(&mut self, told: FromGuest) {
        match told {
            FromGuest::Attached => self.stands = Stands::Attached,
            FromGuest::Wrote(bytes) => self.terminal.process(&bytes),
            FromGuest::Ended(reason) => self.stands = Stands::Ended(reason),
        }
    }

    /// The guest's terminal but for one row: the first, if the cursor is in the last one, else the last. Below it, where the
    /// keys go.
    pub(crate) fn screen(&self) -> Screen {
        let mut screen = Screen::blank();
        let terminal = self.terminal.screen();
        let (row, column) = terminal.cursor_position();
        let cursor = (self.is_attached() && !terminal.hide_cursor()).then_some((row, column));
        let first = (row + 1).saturating_sub(SEEN);
        for (at, row) in (0..).zip(first..first + SEEN) {
            for column in 0..u16::try_from(COLUMNS).unwrap_or(u16::MAX) {
                let Some(cell) = terminal.cell(row, column) else { continue };
                let style = match (cell.inverse() != (cursor == Some((row, column))), cell.bold()) {
                    (true, _) => Style::Reverse,
                    (false, true) => Style::Bold,
                    (false, false) => Style::Plain,
                };
                let character = cell.contents().chars().next().unwrap_or(' ');
                screen.write(at, usize::from(column), style, character.encode_utf8(&mut [0; 4]));
            }
        }
        screen.write(ROWS - 1, 0, Style::Reverse, &format!("{:COLUMNS$}", self.keys()));
        screen
    }

    /// Whose console it is, and what the keys do.
    fn keys(&self) -> String {
        let Self { vm, stands, .. } = self;
        match stands {
            Stands::Wanted | Stands::Asked => format!("  Esc: back   The console of VM {vm} is asked for."),
            Stands::Attached => format!("  Ctrl-]: back to the menu   The console of VM {vm}"),
            Stands::Ended(reason) => format!("  Enter: again   Esc: back   VM {vm}: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a guest writes, whole or torn, is some screen: pieces of control sequences with every kind of number between them.
    #[test]
    fn whatever_a_guest_writes_is_some_screen() {
        let pieces: [&[u8]; 20] = [
            b"\x1b",
            b"[",
            b"]",
            b"?",
            b";",
            b"0",
            b"1",
            b"65535",
            b"4294967296",
            b"\x9b",
            b"\r\n",
            b"\x08",
            b"\t",
            b"\xe2\x94\x80",
            b"\xff",
            b"e\xcc\x81",
            b"\xef\xbc\xa1",
            b"text",
            b"1049",
            b"\x0e",
        ];
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below).unwrap()
        };
        for _ in 0..300 {
            let mut guest = Guest::new(VmName::new("x0").unwrap());
            guest.told(FromGuest::Attached);
            for _ in 0..400 {
                let mut bytes = pieces.get(next(20)).copied().unwrap_or_default().to_vec();
                bytes.push(u8::try_from(next(256)).unwrap());
                guest.told(FromGuest::Wrote(bytes));
            }
            let last = guest.screen().to_string();
            assert!(last.ends_with("\n  Ctrl-]: back to the menu   The console of VM x0\n"), "{last}");
        }
    }
}

//! Which keys were pressed: the bytes of a VT100, VT220, xterm or Linux console, in whatever pieces they arrive.
//!
//! Total: every sequence of bytes is some sequence of keys. What no menu needs is nothing at all, never a wrong key.
//! An `ESC` alone is only known from the beginning of a sequence by the silence behind it: see [`Keys::silence`].
//! The sequences are those of ECMA-48 (5.4, control sequences) and of xterm's `ctlseqs`.

/// A key that a menu understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A printable ASCII character.
    Char(char),
    /// Enter, of the main block or of the keypad.
    Enter,
    /// Escape.
    Back,
    /// What erases backwards.
    Erase,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Arrow left.
    Left,
    /// Arrow right.
    Right,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// To the beginning.
    Home,
    /// To the end.
    End,
    /// Ctrl-L: draw the screen again.
    Redraw,
}

/// Where in a sequence the bytes so far have led.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// After `ESC`.
    Escape,
    /// After `ESC [`, with the first parameter, if that is a number.
    Control { first: u8, more: bool },
    /// After `ESC O`.
    Single,
}

/// Makes keys out of bytes.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    state: State,
}

impl Keys {
    /// Takes one byte; gives at most two keys, the first one first (an `ESC` that begins nothing is a key of its own).
    pub fn push(&mut self, byte: u8) -> [Option<Key>; 2] {
        match self.state {
            State::Ground => [self.ground(byte), None],
            State::Escape => match byte {
                b'[' => self.go(State::Control { first: 0, more: false }),
                b'O' => self.go(State::Single),
                _ => {
                    self.state = State::Ground;
                    [Some(Key::Back), self.ground(byte)]
                }
            },
            State::Control { first, more } => [self.control(first, more, byte), None],
            State::Single => {
                self.state = State::Ground;
                let key = match byte {
                    b'M' => Some(Key::Enter),
                    0x1b => self.ground(byte),
                    _ => cursor(byte),
                };
                [key, None]
            }
        }
    }

    /// Whether a sequence has begun: then [`Keys::silence`] is to be called if nothing follows for a moment.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.state != State::Ground
    }

    /// When nothing has followed for a moment: an `ESC` alone was the key, a broken sequence was nothing.
    pub fn silence(&mut self) -> Option<Key> {
        let state = core::mem::take(&mut self.state);
        (state == State::Escape).then_some(Key::Back)
    }

    fn go(&mut self, state: State) -> [Option<Key>; 2] {
        self.state = state;
        [None, None]
    }

    fn ground(&mut self, byte: u8) -> Option<Key> {
        match byte {
            0x1b => {
                self.state = State::Escape;
                None
            }
            b'\r' | b'\n' => Some(Key::Enter),
            0x08 | 0x7f => Some(Key::Erase),
            0x0c => Some(Key::Redraw),
            crate::guest::LEAVE => Some(Key::Back),
            b' '..=b'~' => Some(Key::Char(char::from(byte))),
            _ => None,
        }
    }

    fn control(&mut self, first: u8, more: bool, byte: u8) -> Option<Key> {
        match byte {
            b'0'..=b'9' if !more => {
                let first = first.saturating_mul(10).saturating_add(byte - b'0');
                self.state = State::Control { first, more };
                None
            }
            // Further parameters (which tell of Shift, Alt and Ctrl) and intermediate bytes.
            b' '..=b'?' => {
                self.state = State::Control { first, more: true };
                None
            }
            _ => {
                self.state = State::Ground;
                match (byte, first) {
                    (b'~', 1 | 7) => Some(Key::Home),
                    (b'~', 4 | 8) => Some(Key::End),
                    (b'~', 5) => Some(Key::PageUp),
                    (b'~', 6) => Some(Key::PageDown),
                    // No final byte, so what was begun is broken off; the byte counts by itself.
                    (..0x40 | 0x7f.., _) => self.ground(byte),
                    _ => cursor(byte),
                }
            }
        }
    }
}

/// The final byte of a cursor key.
fn cursor(byte: u8) -> Option<Key> {
    match byte {
        b'A' => Some(Key::Up),
        b'B' => Some(Key::Down),
        b'C' => Some(Key::Right),
        b'D' => Some(Key::Left),
        b'F' => Some(Key::End),
        b'H' => Some(Key::Home),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut keys = Keys::default();
        let mut pressed: Vec<Key> = bytes.iter().flat_map(|byte| keys.push(*byte)).flatten().collect();
        assert_eq!(keys.waits(), keys.state != State::Ground);
        pressed.extend(keys.silence());
        assert!(!keys.waits());
        pressed
    }

    #[test]
    fn sequences_are_keys() {
        let table: [(&[u8], &[Key]); 20] = [
            (b"4y", &[Key::Char('4'), Key::Char('y')]),
            (b"\r", &[Key::Enter]),
            (b"\x1bOM", &[Key::Enter]),
            (b"\x0c", &[Key::Redraw]),
            (b"\x7f\x08", &[Key::Erase, Key::Erase]),
            (b"\x1b", &[Key::Back]),
            (b"\x1b\x1b", &[Key::Back, Key::Back]),
            (b"\x1bq", &[Key::Back, Key::Char('q')]),
            (b"\x1b[A\x1b[B\x1bOA\x1bOB", &[Key::Up, Key::Down, Key::Up, Key::Down]),
            (b"\x1b[C\x1b[D", &[Key::Right, Key::Left]),
            (b"\x1b[5~\x1b[6~", &[Key::PageUp, Key::PageDown]),
            (b"\x1b[1~\x1b[7~\x1b[H\x1bOH", &[Key::Home; 4]),
            (b"\x1b[4~\x1b[8~\x1b[F\x1bOF", &[Key::End; 4]),
            (b"\x1b[1;5A", &[Key::Up]),
            // F5, the answer to a question for the cursor, a mouse: no keys of ours, and no crumbs of them either.
            (b"\x1b[15~\x1b[24;80R\x1b[?1;2c", &[]),
            (b"\x1b[999999999999A", &[Key::Up]),
            (b"\x1b\x1b[A", &[Key::Back, Key::Up]),
            (b"\x1b[1\x1b[A", &[Key::Up]),
            (b"\x1b[1\r", &[Key::Enter]),
            (b"\0\x01\xff\xc3\xa9", &[]),
        ];
        for (bytes, expected) in table {
            assert_eq!(keys(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_broken_sequence_ends_with_silence() {
        for begun in [&b"\x1b["[..], b"\x1b[1;", b"\x1bO"] {
            assert_eq!(keys(begun), []);
        }
    }

    /// Every three bytes are taken, and a plain key behind them and a silence is that key.
    #[test]
    fn every_sequence_is_taken_and_left() {
        let interesting = [0, 0x0c, 0x1b, b' ', b'0', b';', b'?', b'A', b'O', b'[', b'~', 0x7f, 0x80, 0xff];
        for a in 0..=255 {
            for b in interesting {
                for c in interesting {
                    let mut keys = Keys::default();
                    for byte in [0x1b, a, b, c] {
                        keys.push(byte);
                    }
                    keys.silence();
                    assert_eq!(keys.push(b'4'), [Some(Key::Char('4')), None], "{a} {b} {c}");
                }
            }
        }
    }
}

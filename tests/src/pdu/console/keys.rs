//! From bytes to what is meant: a line and its ENTER, or one of the keys that need none.

/// No line that means anything is longer; what is typed beyond is not taken.
const LONGEST: usize = 64;
/// Moves back over a character, and wipes it.
const RUB_OUT: &[u8] = b"\x08 \x08";

/// What was pressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// ENTER, and what stood before it.
    Line(String),
    /// ESC.
    Escape,
    /// Ctrl-C.
    MainMenu,
    /// Ctrl-L.
    EventLog,
}

/// What was typed since the last key.
#[derive(Debug, Default)]
pub(super) struct Keys {
    typed: String,
    /// The last byte was a CR: an LF or NUL behind it belongs to it.
    after_return: bool,
}

impl Keys {
    /// Takes one byte; what a terminal is to show at once goes to `echo`.
    pub(super) fn take(&mut self, byte: u8, secret: bool, echo: &mut Vec<u8>) -> Option<Key> {
        let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
        match byte {
            b'\0' => {
                self.after_return = after_return;
                None
            }
            b'\n' if after_return => None,
            b'\r' | b'\n' => {
                echo.extend(b"\r\n");
                Some(Key::Line(std::mem::take(&mut self.typed)))
            }
            0x08 | 0x7f => {
                if self.typed.pop().is_some() {
                    echo.extend(RUB_OUT);
                }
                None
            }
            0x1b | 0x03 | 0x0c => {
                self.typed.clear();
                Some(match byte {
                    0x1b => Key::Escape,
                    0x03 => Key::MainMenu,
                    _ => Key::EventLog,
                })
            }
            b' '..=b'~' if self.typed.len() < LONGEST => {
                self.typed.push(char::from(byte));
                echo.push(if secret { b'*' } else { byte });
                None
            }
            _ => None,
        }
    }
}

//! Telnet (RFC 854, 857, 858, 860): what of the bytes of a connection was typed, and what the other end is to be told.
//!
//! The card echoes and suppresses go-ahead, so that terminals send each key as it is pressed, and wants nothing else.

const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SB: u8 = 250;
const INTERRUPT: u8 = 244;
const SE: u8 = 240;

const ECHO: u8 = 1;
const NO_GO_AHEAD: u8 = 3;

/// The listening side of one connection.
#[derive(Debug, Default)]
pub struct Telnet {
    state: State,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Data,
    Command,
    /// DO, DONT, WILL or WONT, without its option yet.
    Option(u8),
    /// Within the parameters of an option.
    Parameters,
    /// The same, behind an IAC.
    ParametersCommand,
}

impl Telnet {
    /// What is sent first.
    #[must_use]
    pub const fn offer() -> [u8; 6] {
        [IAC, WILL, ECHO, IAC, WILL, NO_GO_AHEAD]
    }

    /// Bytes have come: what was typed, and what is to be sent back.
    #[must_use]
    pub fn receive(&mut self, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut typed, mut reply) = (Vec::new(), Vec::new());
        for byte in bytes.iter().copied() {
            self.state = match (self.state, byte) {
                (State::Data, IAC) => State::Command,
                (State::Command, DO | DONT | WILL | WONT) => State::Option(byte),
                (State::Command, SB) => State::Parameters,
                (State::Parameters, IAC) => State::ParametersCommand,
                (State::Parameters, _) => State::Parameters,
                (State::ParametersCommand, SE) => State::Data,
                (State::ParametersCommand, _) => State::Parameters,
                (State::Data, _) | (State::Command, IAC) => {
                    typed.push(byte);
                    State::Data
                }
                // As if Ctrl-C had been typed.
                (State::Command, INTERRUPT) => {
                    typed.push(3);
                    State::Data
                }
                (State::Command, _) => State::Data,
                (State::Option(verb), option) => {
                    match (verb, option) {
                        // What we offered.
                        (DO, ECHO | NO_GO_AHEAD) => {}
                        (DO, _) => reply.extend([IAC, WONT, option]),
                        (WILL, _) => reply.extend([IAC, DONT, option]),
                        _ => {}
                    }
                    State::Data
                }
            };
        }
        (typed, reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_is_told_from_negotiated_wherever_the_bytes_are_cut() {
        let stream = [
            &[IAC, DO, ECHO, IAC, DO, NO_GO_AHEAD, b'a', IAC, WILL, 24, IAC, SB, 24, 0, IAC, IAC, IAC, SE][..],
            &[b'b', IAC, IAC, IAC, INTERRUPT, IAC, DO, 6, IAC, 241, IAC, DONT, ECHO, IAC, WONT, 3, b'c'],
        ]
        .concat();
        let expected = (vec![b'a', b'b', 255, 3, b'c'], vec![IAC, DONT, 24, IAC, WONT, 6]);
        for cut in 0..=stream.len() {
            let mut telnet = Telnet::default();
            let (first, second) = stream.split_at(cut);
            let (one, two) = (telnet.receive(first), telnet.receive(second));
            assert_eq!(([one.0, two.0].concat(), [one.1, two.1].concat()), expected, "cut at {cut}");
        }
    }
}

//! Netlink messages: requests to the kernel, and its word on them (RFC 3549; `linux/netlink.h`).

use std::io;

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;

/// A request under construction: `struct nlmsghdr` and what follows it, in the machine's own byte order.
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// A request of that kind, with the header that its family wants.
    pub(crate) fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(header);
        Self(bytes)
    }

    /// Adds an attribute: its length with its own header, its type, its value, and what is missing to a whole word.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |inner| inner.0.extend(value));
    }

    /// Adds a text, with the zero byte that ends it.
    pub(crate) fn text(&mut self, kind: u16, text: &str) {
        self.nest(kind, |inner| {
            inner.0.extend(text.as_bytes());
            inner.0.push(0);
        });
    }

    /// Adds a number of 32 bits.
    pub(crate) fn number(&mut self, kind: u16, number: u32) {
        self.attribute(kind, &number.to_ne_bytes());
    }

    /// Adds an attribute whose value is made by `fill`.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        fill(self);
        // All that this program sends fits a few hundred bytes.
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0.iter_mut().skip(start).zip(length.to_ne_bytes()).for_each(|(byte, value)| *byte = value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// The bytes to send.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.iter_mut().zip(length.to_ne_bytes()).for_each(|(byte, value)| *byte = value);
        self.0
    }
}

/// What the kernel's answer to a request says. An error's number follows the header of 16 bytes; zero is agreement.
pub(crate) fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a netlink answer that is no acknowledgement");
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) if code < 0 => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Err(malformed()),
    }
}

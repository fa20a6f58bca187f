//! Generic netlink: requests to a family that a kernel module has brought along (`linux/genetlink.h`).

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::netlink::{Message, acknowledged};

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// What the type of an attribute bears that has attributes in it; newer kernels insist on it (NLA_F_NESTED).
pub(crate) const NESTED: u16 = 1 << 15;
/// Bytes of a netlink and a generic netlink header.
const HEADERS: usize = 20;

/// A connection to one family.
#[derive(Debug)]
pub(crate) struct Genetlink {
    socket: OwnedFd,
    family: u16,
    version: u8,
}

impl Genetlink {
    /// Opens it.
    ///
    /// # Errors
    /// The kernel has no such family: its module is not loaded.
    pub(crate) fn open(name: &str, version: u8) -> io::Result<Self> {
        let protocol = Some(rustix::net::netlink::GENERIC);
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        let mut kernel = Self { socket, family: GENL_ID_CTRL, version };
        let mut request = kernel.request(CTRL_CMD_GETFAMILY);
        request.text(CTRL_ATTR_FAMILY_NAME, name);
        let missing = |_| io::Error::other(format!("the kernel module {name} is not loaded"));
        let answer = kernel.ask(request).map_err(missing)?;
        let family = find(&answer, CTRL_ATTR_FAMILY_ID).and_then(|value| value.try_into().ok());
        kernel.family = family.map(u16::from_ne_bytes).ok_or_else(|| io::Error::other("the kernel names no family"))?;
        Ok(kernel)
    }

    /// A request that names a command of the family.
    pub(crate) fn request(&self, command: u8) -> Message {
        Message::new(self.family, 0, &[command, self.version, 0, 0])
    }

    /// Sends a request, and returns the attributes of what the kernel answers before it acknowledges.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(crate) fn ask(&self, request: Message) -> io::Result<Vec<u8>> {
        rustix::net::send(&self.socket, &request.finish(), SendFlags::empty())?;
        let mut attributes = Vec::new();
        loop {
            let mut buffer = [0; 8192];
            let (length, _) = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
            let mut answer = buffer.get(..length).unwrap_or_default();
            while let Some((message, rest)) = split(answer) {
                answer = rest;
                let kind = message.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
                if kind != Some(self.family) {
                    return acknowledged(message).map(|()| attributes);
                }
                attributes = message.get(HEADERS..).unwrap_or_default().to_vec();
            }
        }
    }
}

/// The first message of several, and the rest.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let length = usize::try_from(length).ok().filter(|length| *length >= 16)?;
    let message = bytes.get(..length)?;
    Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The value of the first attribute of that type.
pub(crate) fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let found = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let value = attributes.get(4..length)?;
        if found == kind {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_damage_is_not() {
        let mut message = Message::new(1, 0, &[]);
        message.attribute(9, &[1, 2, 3]);
        message.number(1, 7);
        let bytes = message.finish();
        assert_eq!(find(&bytes[16..], 1), Some(&7_u32.to_ne_bytes()[..]));
        assert_eq!(find(&bytes[16..], 9), Some(&[1, 2, 3][..]));
        assert_eq!(find(&bytes[16..], 5), None);
        for length in 0..bytes.len() - 17 {
            assert_eq!(find(&bytes[16..16 + length], 1).filter(|value| value.len() < 4), None);
        }
        assert_eq!(find(&[0, 0, 9, 0, 0, 0, 0, 0], 5), None, "an attribute shorter than its header");
    }
}

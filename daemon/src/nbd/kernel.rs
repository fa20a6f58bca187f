//! The kernel's NBD client, over generic netlink (Linux `linux/nbd-netlink.h`; generic netlink: `linux/genetlink.h`).

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::negotiate::Export;
use crate::netlink::{Message, acknowledged};

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const NBD_VERSION: u8 = 1;
const NBD_CMD_CONNECT: u8 = 1;
const NBD_CMD_DISCONNECT: u8 = 2;
const NBD_CMD_RECONFIGURE: u8 = 3;
const NBD_ATTR_INDEX: u16 = 1;
const NBD_ATTR_SIZE_BYTES: u16 = 2;
const NBD_ATTR_BLOCK_SIZE_BYTES: u16 = 3;
const NBD_ATTR_SERVER_FLAGS: u16 = 5;
const NBD_ATTR_SOCKETS: u16 = 7;
const NBD_ATTR_DEAD_CONN_TIMEOUT: u16 = 8;
const NBD_ATTR_BACKEND_IDENTIFIER: u16 = 10;
const NBD_SOCK_ITEM: u16 = 1;
const NBD_SOCK_FD: u16 = 1;

/// Bytes of a block.
const BLOCK: u64 = 512;
/// Bytes of a netlink and a generic netlink header.
const HEADERS: usize = 20;

/// A connection to the kernel's NBD client.
#[derive(Debug)]
pub(super) struct Kernel {
    socket: OwnedFd,
    family: u16,
}

impl Kernel {
    /// Opens it.
    ///
    /// # Errors
    /// The kernel's module is not loaded.
    pub(super) fn open() -> io::Result<Self> {
        let protocol = Some(rustix::net::netlink::GENERIC);
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        let mut kernel = Self { socket, family: GENL_ID_CTRL };
        let mut request = kernel.request(CTRL_CMD_GETFAMILY);
        request.text(CTRL_ATTR_FAMILY_NAME, "nbd");
        let answer = kernel.ask(request).map_err(|_| io::Error::other("the kernel module nbd is not loaded"))?;
        let family = find(&answer, CTRL_ATTR_FAMILY_ID).and_then(|value| value.try_into().ok());
        kernel.family = family.map(u16::from_ne_bytes).ok_or_else(|| io::Error::other("the kernel names no family"))?;
        Ok(kernel)
    }

    /// Makes a device of a connected socket; its number. It bears `backend` in the kernel ([`devices`]).
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn connect(
        &mut self,
        backend: &str,
        export: &Export,
        patience: Duration,
        socket: BorrowedFd<'_>,
    ) -> io::Result<u32> {
        let mut request = self.request(NBD_CMD_CONNECT);
        request.attribute(NBD_ATTR_SIZE_BYTES, &export.size.to_ne_bytes());
        request.attribute(NBD_ATTR_BLOCK_SIZE_BYTES, &BLOCK.to_ne_bytes());
        request.attribute(NBD_ATTR_SERVER_FLAGS, &u64::from(export.flags).to_ne_bytes());
        request.attribute(NBD_ATTR_DEAD_CONN_TIMEOUT, &patience.as_secs().to_ne_bytes());
        request.text(NBD_ATTR_BACKEND_IDENTIFIER, backend);
        give(&mut request, socket)?;
        let answer = self.ask(request)?;
        let index = find(&answer, NBD_ATTR_INDEX).and_then(|value| value.try_into().ok());
        index.map(u32::from_ne_bytes).ok_or_else(|| io::Error::other("the kernel names no device"))
    }

    /// Gives a device a new socket in place of one that is dead.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn reconfigure(&mut self, index: u32, backend: &str, socket: BorrowedFd<'_>) -> io::Result<()> {
        let mut request = self.request(NBD_CMD_RECONFIGURE);
        request.number(NBD_ATTR_INDEX, index);
        request.text(NBD_ATTR_BACKEND_IDENTIFIER, backend);
        give(&mut request, socket)?;
        self.ask(request).map(drop)
    }

    /// Ends a device.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn disconnect(&mut self, index: u32) -> io::Result<()> {
        let mut request = self.request(NBD_CMD_DISCONNECT);
        request.number(NBD_ATTR_INDEX, index);
        self.ask(request).map(drop)
    }

    fn request(&self, command: u8) -> Message {
        Message::new(self.family, 0, &[command, NBD_VERSION, 0, 0])
    }

    /// Sends a request, and returns the attributes of what the kernel answers before it acknowledges.
    fn ask(&self, request: Message) -> io::Result<Vec<u8>> {
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

/// A device in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// Its number.
    pub(super) index: u32,
    /// In bytes.
    pub(super) size: u64,
    /// What it bears.
    pub(super) backend: String,
}

/// The devices in use, as `blocks` (sysfs' `/sys/block`) shows them.
pub(super) fn devices(blocks: &Path) -> Vec<Device> {
    let entries = fs::read_dir(blocks).into_iter().flatten().flatten();
    let indexes = entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("nbd")?.parse().ok());
    let device = |index: u32| {
        let read = |what| fs::read_to_string(blocks.join(format!("nbd{index}")).join(what)).ok();
        // Only a device in use has a backend.
        let backend = read("backend")?.trim_end().to_owned();
        let sectors: u64 = read("size")?.trim_end().parse().ok()?;
        Some(Device { index, size: sectors.saturating_mul(BLOCK), backend })
    };
    indexes.filter_map(device).collect()
}

/// The first message of several, and the rest.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let length = usize::try_from(length).ok().filter(|length| *length >= 16)?;
    let message = bytes.get(..length)?;
    Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The value of the first attribute of that type.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
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

fn give(request: &mut Message, socket: BorrowedFd<'_>) -> io::Result<()> {
    let number = u32::try_from(socket.as_raw_fd()).map_err(io::Error::other)?;
    // NLA_F_NESTED, which newer kernels insist on.
    const NESTED: u16 = 1 << 15;
    request.nest(NBD_ATTR_SOCKETS | NESTED, |sockets| {
        sockets.nest(NBD_SOCK_ITEM | NESTED, |item| item.number(NBD_SOCK_FD, number));
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_in_use_say_what_they_bear() {
        let directory = tempfile::tempdir().unwrap();
        for (device, backend) in
            [("nbd0", None), ("nbd1", Some("x1 x1 3 17\n")), ("vda", Some("x1\n")), ("nbdx", Some("x1\n"))]
        {
            let device = directory.path().join(device);
            fs::create_dir(&device).unwrap();
            fs::write(device.join("size"), "2048\n").unwrap();
            if let Some(backend) = backend {
                fs::write(device.join("backend"), backend).unwrap();
            }
        }
        let found = Device { index: 1, size: 1 << 20, backend: "x1 x1 3 17".to_owned() };
        assert_eq!(devices(directory.path()), [found]);
        assert_eq!(devices(Path::new("/nonexistent")), []);
    }

    #[test]
    fn attributes_are_found_and_damage_is_not() {
        let mut message = Message::new(1, 0, &[]);
        message.attribute(9, &[1, 2, 3]);
        message.number(NBD_ATTR_INDEX, 7);
        let bytes = message.finish();
        assert_eq!(find(&bytes[16..], NBD_ATTR_INDEX), Some(&7_u32.to_ne_bytes()[..]));
        assert_eq!(find(&bytes[16..], 9), Some(&[1, 2, 3][..]));
        assert_eq!(find(&bytes[16..], 5), None);
        for length in 0..bytes.len() - 17 {
            assert_eq!(find(&bytes[16..16 + length], NBD_ATTR_INDEX).filter(|value| value.len() < 4), None);
        }
        assert_eq!(find(&[0, 0, 9, 0, 0, 0, 0, 0], 5), None, "an attribute shorter than its header");
    }
}

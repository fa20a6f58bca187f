//! The kernel's NBD client, over generic netlink (`linux/nbd-netlink.h`).

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use super::negotiate::Export;
use crate::genetlink::{Genetlink, NESTED, find};
use crate::netlink::Message;

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

/// A connection to the kernel's NBD client.
#[derive(Debug)]
pub(super) struct Kernel(Genetlink);

impl Kernel {
    /// Opens it.
    ///
    /// # Errors
    /// The kernel's module is not loaded.
    pub(super) fn open() -> io::Result<Self> {
        Genetlink::open("nbd", NBD_VERSION).map(Self)
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
        let mut request = self.0.request(NBD_CMD_CONNECT);
        request.attribute(NBD_ATTR_SIZE_BYTES, &export.size.to_ne_bytes());
        request.attribute(NBD_ATTR_BLOCK_SIZE_BYTES, &BLOCK.to_ne_bytes());
        request.attribute(NBD_ATTR_SERVER_FLAGS, &u64::from(export.flags).to_ne_bytes());
        request.attribute(NBD_ATTR_DEAD_CONN_TIMEOUT, &patience.as_secs().to_ne_bytes());
        request.text(NBD_ATTR_BACKEND_IDENTIFIER, backend);
        give(&mut request, socket)?;
        let answer = self.0.ask(request)?;
        let index = find(&answer, NBD_ATTR_INDEX).and_then(|value| value.try_into().ok());
        index.map(u32::from_ne_bytes).ok_or_else(|| io::Error::other("the kernel names no device"))
    }

    /// Gives a device a new socket in place of one that is dead.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn reconfigure(&mut self, index: u32, backend: &str, socket: BorrowedFd<'_>) -> io::Result<()> {
        let mut request = self.0.request(NBD_CMD_RECONFIGURE);
        request.number(NBD_ATTR_INDEX, index);
        request.text(NBD_ATTR_BACKEND_IDENTIFIER, backend);
        give(&mut request, socket)?;
        self.0.ask(request).map(drop)
    }

    /// Ends a device.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn disconnect(&mut self, index: u32) -> io::Result<()> {
        let mut request = self.0.request(NBD_CMD_DISCONNECT);
        request.number(NBD_ATTR_INDEX, index);
        self.0.ask(request).map(drop)
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

fn give(request: &mut Message, socket: BorrowedFd<'_>) -> io::Result<()> {
    let number = u32::try_from(socket.as_raw_fd()).map_err(io::Error::other)?;
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
}

//! The console of a VM for a menu: bytes between the menu's end and the node where the VM runs, which has Xen's end
//! ([`crate::streams`]). Nothing of it passes through the loop.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;

use cluster::config::Config;
use cluster::status::Status;
use cluster::words::VmName;

use super::run::servant;
use crate::carried::Counter;
use crate::stream::{Service, Stream};
use crate::streams::{GO, Member, carry};

/// Attaches `end` to a VM's console, or says there why not, in a line.
pub(super) fn attach(vm: VmName, end: UnixStream, config: &Config, status: &Status) {
    let at = address(&vm, config, status);
    // A menu that is not answered is hung up on, which it can tell.
    let _ = servant("console", move || {
        let _ = match at.and_then(|address| connect(vm, address)) {
            Ok(stream) => writeln!(&end, "{GO}").and_then(|()| carry(stream, end, Counter::unseen())),
            Err(reason) => writeln!(&end, "{reason}"),
        };
    });
}

/// Where a VM runs.
fn address(vm: &VmName, config: &Config, status: &Status) -> Result<Ipv4Addr, String> {
    let vm = status.vms.iter().find(|other| other.name == vm.as_str());
    let owner = vm.and_then(|vm| vm.owner.as_deref()).and_then(|owner| config.named(owner));
    owner.map(|slot| config.node(slot).address).ok_or_else(|| "it runs nowhere now".to_owned())
}

fn connect(vm: VmName, address: Ipv4Addr) -> Result<Stream, String> {
    Member::read()?.connect(address, &Service::Console(vm)).map_err(|error| error.to_string())
}

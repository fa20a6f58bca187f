//! Xen's hotplug programs: libxl starts them when a VM's network card or disk comes and goes.
//!
//! They do what Xen's own scripts of the same names do (`tools/hotplug/Linux` in Xen's source), as far as this image
//! needs it. The answer goes to xenstore, to the device's `XENBUS_PATH`, where libxl and the drivers read it.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::ExitCode;

use crate::netsetup;
use crate::rtnetlink::{Change, Rtnetlink};
use crate::xenstore::Xenstore;

/// The largest station address that is not the broadcast: a bridge takes its smallest port's for its own.
const PORT_ADDRESS: [u8; 6] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];

/// `vif-bridge online|offline|add|remove`: a VM's network card and its bridge.
pub(crate) fn vif_bridge(arguments: &[String]) -> ExitCode {
    run(|device| match arguments.first().map(String::as_str) {
        Some("online") => online(device),
        // An interface that goes leaves its bridge by itself. The other two are of emulated cards, which we have not.
        Some("offline" | "add" | "remove") => Ok(()),
        _ => Err("vif-bridge wants one of: online, offline, add, remove".to_owned()),
    })
}

/// `block add|remove`: a VM's disk, a block device of this machine.
pub(crate) fn block(arguments: &[String]) -> ExitCode {
    run(|device| match arguments.first().map(String::as_str) {
        Some("add") => add(device),
        Some("remove") => Ok(()),
        _ => Err("block wants one of: add, remove".to_owned()),
    })
}

/// The device in question: its directory in xenstore.
struct Device {
    store: Xenstore,
    path: String,
}

impl Device {
    fn read(&mut self, node: &str) -> Result<String, String> {
        self.store.read(&format!("{}/{node}", self.path)).map_err(|error| format!("{}/{node}: {error}", self.path))
    }

    /// The node's value, where there is such a node.
    fn look(&mut self, node: &str) -> Option<String> {
        self.read(node).ok()
    }

    fn write(&mut self, node: &str, value: &str) -> Result<(), String> {
        let written = self.store.write(&format!("{}/{node}", self.path), value);
        written.map_err(|error| format!("{}/{node}: {error}", self.path))
    }
}

/// Does what is asked for the device of `XENBUS_PATH`, and tells libxl how it went.
fn run(act: impl FnOnce(&mut Device) -> Result<(), String>) -> ExitCode {
    let done = variable("XENBUS_PATH").and_then(|path| {
        let store = Xenstore::open().map_err(|error| format!("xenstored: {error}"))?;
        let mut device = Device { store, path };
        act(&mut device).inspect_err(|error| {
            // libxl shows the text to whoever asked for the VM. Where xenstored cannot be told, the exit code must do.
            let _ = device.write("hotplug-error", error).and_then(|()| device.write("hotplug-status", "error"));
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = io::stderr().lock().write_all(format!("holdfast: hotplug: {error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).ok().filter(|value| !value.is_empty()).ok_or_else(|| format!("{name} is not in the environment"))
}

/// Puts the backend's interface on its bridge.
fn online(device: &mut Device) -> Result<(), String> {
    let interface = variable("vif")?;
    let bridge = device.read("bridge")?;
    let mtu = match device.look("mtu") {
        Some(text) => text.trim().parse().map_err(|_| format!("`{text}` is not an MTU"))?,
        None => mtu_of(&bridge)?,
    };
    let attached = Rtnetlink::open().and_then(|kernel| {
        kernel.change(&interface, Change::Up(false))?;
        kernel.change(&interface, Change::Address(PORT_ADDRESS))?;
        kernel.change(&interface, Change::Mtu(mtu))?;
        netsetup::add_port(&kernel, &bridge, &interface)
    });
    attached.map_err(|error| format!("{interface} cannot join bridge {bridge}: {error}"))?;
    if let Some(frontend) = device.look("frontend") {
        let told = device.store.write(&format!("{frontend}/mtu"), &mtu.to_string());
        told.map_err(|error| format!("{frontend}/mtu: {error}"))?;
    }
    device.write("hotplug-status", "connected")
}

/// The largest packet that a bridge carries, in bytes.
fn mtu_of(bridge: &str) -> Result<u32, String> {
    let text = fs::read_to_string(format!("/sys/class/net/{bridge}/mtu"));
    let text = text.map_err(|_| format!("there is no bridge {bridge}"))?;
    text.trim().parse().map_err(|_| format!("{bridge} has no MTU"))
}

/// Tells the backend driver which device the disk is.
fn add(device: &mut Device) -> Result<(), String> {
    let path = device.read("params")?;
    let number = device_number(Path::new(&path))?;
    // libxl itself writes it for a disk that was there when the VM was planned; the driver takes it only once.
    if device.look("physical-device").is_none() {
        device.write("physical-device", &number)?;
        device.write("physical-device-path", &path)?;
    }
    device.write("hotplug-status", "connected")
}

/// A block device's numbers, as its driver wants them: major and minor, in hexadecimal.
fn device_number(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let found = fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?;
    if !found.file_type().is_block_device() {
        return Err(format!("{shown} is not a block device"));
    }
    let device = found.rdev();
    Ok(format!("{:x}:{:x}", rustix::fs::major(device), rustix::fs::minor(device)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::device_number;

    #[test]
    fn a_file_that_is_no_block_device_is_refused_by_name() {
        assert_eq!(device_number(Path::new("/dev/null")).unwrap_err(), "/dev/null is not a block device");
        let missing = device_number(Path::new("/dev/no-such-device")).unwrap_err();
        assert!(missing.starts_with("/dev/no-such-device: "), "{missing}");
    }
}

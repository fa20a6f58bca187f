//! One machine: its QEMU command line, and what QEMU says of it over QMP.
//!
//! A machine has a serial line (`com1`: Xen's and dom0's console), a virtio console (the monitor line), a card on the cluster
//! network, and, unless it is the gateway, one on the public network. The one that holds the cable of the PDU's console, and the
//! two at the ends of the null modem, have another serial line (`com3`). A node that boots by PXE has one disk, which is blank at
//! first, and keeps who it is; one that boots from a stick has only that.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::accel::Accel;
use super::layout::{Firmware, Machine, Medium, Nic};
use super::serial::Line;

/// The firmware of machines with UEFI.
pub const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

/// A disk of a machine.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The raw file.
    pub file: PathBuf,
    /// The serial number that the guest sees; `None` for the disk it boots from.
    pub serial: Option<String>,
    /// May it only be read?
    pub read_only: bool,
}

/// The name of a machine's console, Xen's and dom0's, and QEMU's for its character device.
pub const CONSOLE: &str = "com1";
/// The name of a machine's monitor line. It is no UART: emulated, each byte of one costs the machine tens of microseconds, and
/// a status every second was a sixth of all that an idle machine did.
pub const MONITOR: &str = "monitor";
/// The name of a machine's other serial line, its third.
pub const THIRD: &str = "com3";

/// The name of one of a machine's sockets in the rack's namespace.
pub fn socket(machine: &str, which: &str) -> String {
    format!("holdfast/{machine}/{which}")
}

/// Starts the machine's QEMU, which dies with the calling thread.
///
/// # Errors
/// QEMU cannot be started or its message file not be written.
pub fn start(machine: &Machine, accel: &Accel, disks: &[Disk], cable: Option<&str>, messages: &Path) -> Result<Child> {
    let messages = File::create(messages)?;
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
        .args(arguments(machine, accel, disks, cable))
        .stdin(Stdio::null())
        .stdout(messages.try_clone()?)
        .stderr(messages)
        // Ctrl-C at the rack's terminal is for the rack.
        .process_group(0)
        .spawn()
        .context("cannot run setpriv and qemu-system-x86_64 (Debian's util-linux and qemu-system-x86)")
}

fn arguments(machine: &Machine, accel: &Accel, disks: &[Disk], cable: Option<&str>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut put = |option: &str, value: String| all.extend([option.to_owned(), value]);
    put("-name", machine.name.clone());
    put("-machine", "pc,graphics=off".into());
    put("-m", machine.memory_mib.to_string());
    put("-smp", "1".into());
    put("-display", "none".into());
    put("-vga", "none".into());
    // A node that finds no gateway yet tries again.
    put("-boot", "reboot-timeout=3000".into());
    match machine.firmware {
        Firmware::Bios => {}
        Firmware::Uefi => put("-bios", OVMF.into()),
    }
    if machine.medium == Medium::Stick {
        put("-device", "qemu-xhci".into());
    }
    put("-chardev", Line::chardev(CONSOLE, &socket(&machine.name, CONSOLE)));
    put("-serial", format!("chardev:{CONSOLE}"));
    put("-chardev", Line::chardev(MONITOR, &socket(&machine.name, MONITOR)));
    put("-device", "virtio-serial-pci,max_ports=1".into());
    put("-device", format!("virtconsole,chardev={MONITOR}"));
    if let Some(chardev) = cable {
        put("-chardev", chardev.into());
        // Its usual interrupt is com1's, which Xen keeps for itself.
        put("-device", format!("isa-serial,chardev={THIRD},index=2,irq=5"));
    }
    put("-chardev", Line::chardev("qmp", &socket(&machine.name, "qmp")));
    put("-mon", "chardev=qmp,mode=control".into());
    put("-object", "rng-random,id=random,filename=/dev/urandom".into());
    put("-device", "virtio-rng-pci,rng=random".into());
    for (index, disk) in disks.iter().enumerate() {
        let read_only = if disk.read_only { "on" } else { "off" };
        let file = disk.file.display().to_string().replace(',', ",,");
        put("-drive", format!("if=none,id=d{index},format=raw,file={file},read-only={read_only}"));
        let boots = (machine.medium == Medium::Stick, "bootindex=1".to_owned());
        let (usb, role) = disk.serial.as_ref().map_or(boots, |serial| (false, format!("serial={serial}")));
        let kind = if usb { "usb-storage,removable=on" } else { "virtio-blk-pci" };
        put("-device", format!("{kind},drive=d{index},{role}"));
    }
    let mut card = |id: &str, nic: &Nic, role: &str| {
        put("-netdev", format!("tap,id={id},ifname={},script=no,downscript=no", nic.tap));
        put("-device", format!("virtio-net-pci,netdev={id},mac={},{role}", nic.mac));
    };
    let boots_from_network = machine.medium == Medium::Network;
    card("cluster", &machine.cluster, if boots_from_network { "bootindex=1" } else { "romfile=" });
    if let Some(public) = &machine.public {
        card("public", public, "romfile=");
    }
    all.push("-nodefaults".into());
    all.push("-no-user-config".into());
    all.extend(accel.options.iter().cloned());
    all
}

/// What QEMU reports of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The guest switched the machine off.
    GuestPoweredOff,
    /// The machine was reset, by its guest or its firmware.
    Reset,
    /// QEMU has ended.
    Ended,
}

/// QEMU's own control line for one machine.
#[derive(Debug, Clone)]
pub struct Qmp {
    stream: Arc<Mutex<Option<UnixStream>>>,
}

impl Qmp {
    /// Listens for the machine's QEMU, at every start of it; what it reports goes to `reports` with the machine's name.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn open(machine: &str, reports: Sender<(String, Report)>) -> Result<Self> {
        let address = SocketAddr::from_abstract_name(socket(machine, "qmp"))?;
        let listener = UnixListener::bind_addr(&address)?;
        let qmp = Self { stream: Arc::default() };
        let (served, name) = (qmp.clone(), machine.to_owned());
        std::thread::Builder::new().name(format!("{machine} qmp")).spawn(move || {
            for stream in listener.incoming().flatten() {
                // A line that breaks is a QEMU that ended, which is reported below.
                let _ = served.serve(stream, |report| drop(reports.send((name.clone(), report))));
                let _ = reports.send((name.clone(), Report::Ended));
            }
        })?;
        Ok(qmp)
    }

    /// Stops every processor of the machine where it stands.
    pub fn stop(&self) -> bool {
        self.say("stop")
    }

    fn say(&self, command: &str) -> bool {
        let mut stream = self.stream.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        stream.as_mut().is_some_and(|s| writeln!(s, "{{\"execute\":\"{command}\"}}").is_ok())
    }

    fn serve(&self, stream: UnixStream, mut report: impl FnMut(Report)) -> Result<()> {
        *self.stream.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(stream.try_clone()?);
        self.say("qmp_capabilities");
        for line in BufReader::new(stream).lines() {
            let message: Value = serde_json::from_str(&line?)?;
            let by_guest = message.pointer("/data/guest").and_then(Value::as_bool) == Some(true);
            match message.get("event").and_then(Value::as_str) {
                Some("SHUTDOWN") if by_guest => report(Report::GuestPoweredOff),
                Some("RESET") => report(Report::Reset),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::{GATEWAY, Layout};
    use super::*;

    #[test]
    fn only_the_holder_of_a_cable_has_a_third_line() {
        let layout = Layout::new(1, 0);
        let accel = Accel { options: Vec::new(), reason: String::new() };
        let of = |name: &str, cable: Option<&str>| {
            let machine = layout.machine(name).expect("it is in the layout");
            arguments(machine, &accel, &[], cable).join(" ")
        };
        let holder = of(GATEWAY, Some("serial,id=com3,path=/dev/pts/7"));
        assert!(holder.contains("-chardev serial,id=com3,path=/dev/pts/7"), "{holder}");
        // ttyS2 is the third; com1's interrupt is Xen's.
        assert!(holder.contains("-device isa-serial,chardev=com3,index=2,irq=5"), "{holder}");
        assert!(!of("node1", None).contains("com3"));
    }
}

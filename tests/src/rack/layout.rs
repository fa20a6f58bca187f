//! What stands in the rack: which machines, on which cables, at which addresses, behind which outlets.
//!
//! One value of [`Layout`] is the only place that knows; `cluster.toml`, the QEMU command lines, the network and the
//! probes are all made from it, so they cannot disagree.
//!
//! ```text
//!              hfp0  10.78.0.254   public: guests, probes
//!   ------+-----------+-----------+------
//!       node1       node2       node3        gateway (disk)       node4, node5: spare, no file names them
//!         |===========|  a serial line
//!   ------+-----------+-----------+-------------+------
//!              hfc0  10.77.0.250   cluster: heartbeat, storage, migration, PXE, the PDU, and upsd
//! ```

use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// The bridge of the cluster network.
pub const CLUSTER_BRIDGE: &str = "hfc0";
/// The bridge of the public network.
pub const PUBLIC_BRIDGE: &str = "hfp0";
/// The PDU's address, which is also the rack's own on the cluster network.
pub const PDU_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 250);
/// The probes' address on the public network.
pub const PROBE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 254);
/// The PDU's name in `cluster.toml`.
pub const PDU_NAME: &str = "pdu1";
/// The community that the PDU accepts for writing.
pub const PDU_COMMUNITY: &str = "private";
/// Who logs in at the PDU's console, and the password.
pub const PDU_LOGIN: (&str, &str) = ("apc", "apc");
/// The machine that holds the cable of the PDU's console, and the line there. It is the gateway: whoever is fenced by that
/// cable must not be the one that holds it.
pub const PDU_CABLE: (&str, &str) = (GATEWAY, "ttyS2");
/// The serial line between two nodes: its name, whose it is, and the line at each.
pub const NULL_MODEM: (&str, [&str; 2], &str) = ("null-modem", ["node1", "node2"], "ttyS2");
/// The monitor line as each machine knows it: `hvc0` is Xen's, and the next is the virtio console.
const MONITOR_LINE: &str = "hvc1";
/// The port of upsd, which has the PDU's address.
pub const NUT_PORT: u16 = 3493;
/// As whom the nodes log in at upsd.
pub const NUT_LOGIN: (&str, &str) = ("holdfast", "mains");
/// The gateway's name.
pub const GATEWAY: &str = "gateway";
/// Outlets of the PDU.
const OUTLETS: u8 = 8;
/// Spare machines, at most.
const SPARES: u8 = 2;

/// What a machine boots from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A disk of its own: the gateway's.
    Disk,
    /// The network.
    Network,
    /// A USB stick.
    Stick,
}

/// The firmware of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

/// One machine of the rack.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its node name.
    pub name: String,
    /// The outlet that feeds it, from 1.
    pub outlet: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// What it boots from.
    pub medium: Medium,
    /// Its firmware.
    pub firmware: Firmware,
    /// Its cable to the cluster network.
    pub cluster: Nic,
    /// Its cable to the public network; the gateway has none.
    pub public: Option<Nic>,
}

/// One network card with its cable.
#[derive(Debug, Clone)]
pub struct Nic {
    /// The tap device in the rack's namespace.
    pub tap: String,
    /// The card's address.
    pub mac: String,
    /// The node's IP address, where it has one.
    pub address: Option<Ipv4Addr>,
}

/// One VM of the rack.
#[derive(Debug, Clone)]
pub struct Vm {
    /// Its name, also that of its export and of its xl file.
    pub name: String,
    /// The MAC address of its vif.
    pub mac: String,
    /// Its address on the public network.
    pub address: Ipv4Addr,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Whether its disk is a logical volume of the gateway's, which `cluster.toml` does not name; otherwise it is a disk of its
    /// own there.
    pub on_volume: bool,
    /// Whether it is suspended where its node leaves, and not moved.
    pub suspends: bool,
}

/// Everything in the rack.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The machines that `cluster.toml` names, the gateway first.
    pub machines: Vec<Machine>,
    /// Machines that no file names, without power until somebody switches them on; behind the outlets that are left.
    pub spares: Vec<Machine>,
    /// The VMs.
    pub vms: Vec<Vm>,
}

impl Layout {
    /// A gateway, `nodes` nodes, `vms` VMs, and spare machines as far as there are outlets.
    pub fn new(nodes: u8, vms: u8) -> Self {
        let gateway = Machine {
            name: GATEWAY.into(),
            outlet: 1,
            memory_mib: 768,
            medium: Medium::Disk,
            firmware: Firmware::Bios,
            cluster: Nic {
                tap: "gwc".into(),
                mac: "52:54:00:77:00:01".into(),
                address: Some(Ipv4Addr::new(10, 77, 0, 1)),
            },
            public: None,
        };
        // Of every three nodes the second has UEFI, and the third boots from a stick, with UEFI as well. A spare machine can
        // but boot from the network.
        let node = |n: u8| Machine {
            name: format!("node{n}"),
            outlet: n + 1,
            memory_mib: 1024,
            medium: if n.is_multiple_of(3) { Medium::Stick } else { Medium::Network },
            firmware: if n % 3 == 1 { Firmware::Bios } else { Firmware::Uefi },
            cluster: Nic {
                tap: format!("n{n}c"),
                mac: format!("52:54:00:77:00:{:02x}", 0x10 + n),
                address: Some(Ipv4Addr::new(10, 77, 0, 10 + n)),
            },
            public: Some(Nic { tap: format!("n{n}p"), mac: format!("52:54:00:78:00:{:02x}", 0x10 + n), address: None }),
        };
        let spare = |n: u8| Machine { medium: Medium::Network, firmware: Firmware::Bios, ..node(n) };
        let vm = |n: u8| Vm {
            name: format!("x{n}"),
            mac: format!("00:16:3e:78:00:{:02x}", 0x10 + n),
            address: Ipv4Addr::new(10, 78, 0, 10 + n),
            memory_mib: 128,
            on_volume: n % 2 == 1,
            suspends: false,
        };
        Self {
            machines: std::iter::once(gateway).chain((1..=nodes).map(node)).collect(),
            spares: (nodes + 1..=(nodes + SPARES).min(OUTLETS - 1)).map(spare).collect(),
            vms: (0..vms).map(vm).collect(),
        }
    }

    /// Every machine that stands in the rack.
    pub fn all(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().chain(&self.spares)
    }

    /// The VMs whose disks are logical volumes, in the order in which these lie on the gateway's disk.
    pub fn on_volumes(&self) -> impl Iterator<Item = &Vm> {
        self.vms.iter().filter(|vm| vm.on_volume)
    }

    /// The machine of that name.
    pub fn machine(&self, name: &str) -> Option<&Machine> {
        self.all().find(|m| m.name == name)
    }

    /// The machine behind that outlet.
    pub fn behind(&self, outlet: u8) -> Option<&Machine> {
        self.all().find(|m| m.outlet == outlet)
    }

    /// Whether there is a serial line between two nodes: in every rack that has them.
    pub fn has_null_modem(&self) -> bool {
        NULL_MODEM.1.iter().all(|name| self.machines.iter().any(|machine| machine.name == *name))
    }

    /// The UPSes, and what each feeds: the gateway hangs on both, of the nodes every other one on each.
    pub fn upses(&self) -> Vec<(String, Vec<String>)> {
        let feeds = |half: usize| {
            let mine = |(at, machine): (usize, &Machine)| (at == 0 || at % 2 == half).then(|| machine.name.clone());
            self.machines.iter().enumerate().filter_map(mine).collect()
        };
        vec![("u1".to_owned(), feeds(1)), ("u2".to_owned(), feeds(0))]
    }

    /// The cluster's `cluster.toml`.
    pub fn cluster_toml(&self) -> String {
        let mut t = String::from(concat!(
            "# Written by the rack from its layout.\n",
            "[cluster]\nname = \"rack\"\nkeepalive = \"1s\"\nwarntime = \"4s\"\ndeadtime = \"10s\"\ninitdead = \"240s\"\n",
            "lease = \"40s\"\nself_fence = true\nevacuation = \"600s\"\n\n",
            "[network.cluster]\nsubnet = \"10.77.0.0/24\"\n[network.public]\nbridge = \"xenbr0\"\n\n",
            "[gateway]\npxe = true\n",
        ));
        let mut put = |line: std::fmt::Arguments<'_>| {
            // Writing to a String cannot fail.
            let _ = t.write_fmt(line);
        };
        put(format_args!("\n[[pdu]]\nname = \"{PDU_NAME}\"\nmodel = \"ap7921\"\naddress = \"{PDU_ADDRESS}\"\n"));
        let (holder, line) = PDU_CABLE;
        put(format_args!("serial = {{ node = \"{holder}\", device = \"{line}\" }}\n"));
        let (name, [one, other], line) = NULL_MODEM;
        if self.has_null_modem() {
            put(format_args!(
                "\n[serial.{name}]\nnodes = [\"{one}\", \"{other}\"]\ndevices = [\"{line}\", \"{line}\"]\n"
            ));
        }
        for machine in &self.machines {
            put(format_args!("\n[[node]]\nname = \"{}\"\n", machine.name));
            if machine.name == GATEWAY {
                // With two votes it is a majority with the nodes of either UPS.
                put(format_args!("role = \"gateway\"\nvotes = 2\n"));
            } else {
                put(format_args!("fencing = [\"snmp\", \"serial\"]\n"));
            }
            put(format_args!(
                "outlets = [{{ pdu = \"{PDU_NAME}\", outlet = {}, name = \"{}\" }}]\nmonitor = \"{MONITOR_LINE}\"\n",
                machine.outlet, machine.name
            ));
            put(format_args!("nics = [\n"));
            if let Some(address) = machine.cluster.address {
                put(format_args!(
                    "  {{ mac = \"{}\", network = \"cluster\", address = \"{address}\" }},\n",
                    machine.cluster.mac
                ));
            }
            if let Some(public) = &machine.public {
                put(format_args!("  {{ mac = \"{}\", network = \"public\" }},\n", public.mac));
            }
            put(format_args!("]\n"));
        }
        let (user, _) = NUT_LOGIN;
        for (name, feeds) in self.upses() {
            put(format_args!(
                "\n[[ups]]\nname = \"{name}\"\nnut = {{ address = \"{PDU_ADDRESS}\", ups = \"{name}\", user = \"{user}\" }}\n\
                 feeds = {feeds:?}\nwait = \"20s\"\n"
            ));
        }
        for vm in self.vms.iter().filter(|vm| !vm.on_volume) {
            put(format_args!("\n[[export]]\nname = \"{0}\"\ndevice = \"/dev/disk/{0}\"\n", vm.name));
        }
        put(format_args!("\n[[export]]\nname = \"import\"\ndevice = \"/dev/disk/import\"\nread_only = true\n"));
        put(format_args!("\n[[export]]\nname = \"shared\"\ndevice = \"/dev/disk/shared\"\n"));
        put(format_args!("\n[shared]\nfilesystem = \"gfs2\"\n"));
        t
    }

    /// The cluster's `secrets.toml` around a key of 64 hexadecimal digits.
    pub fn secrets_toml(&self, key: &str) -> String {
        let (user, password) = PDU_LOGIN;
        let (_, nut) = NUT_LOGIN;
        let upses = self.upses().into_iter().map(|(name, _)| format!("[ups.{name}]\npassword = \"{nut}\"\n"));
        let pdu = format!(
            "cluster_key = \"{key}\"\n\n[pdu.{PDU_NAME}]\ncommunity = \"{PDU_COMMUNITY}\"\nuser = \"{user}\"\n\
             password = \"{password}\"\n"
        );
        std::iter::once(pdu).chain(upses).collect()
    }
}

impl Vm {
    /// Its ordinary xl file, as it lies under `/shared/vms`.
    pub fn xl_file(&self) -> String {
        format!(
            concat!(
                "# An ordinary xl file, with a disk path as it always was.\n",
                "name = \"{name}\"\n",
                "memory = {memory}\n",
                "vcpus = 1\n",
                "kernel = \"/shared/boot/guest-vmlinux\"\n",
                "ramdisk = \"/shared/boot/guest-initramfs\"\n",
                "extra = \"console=hvc0 ip={address}/24 quiet\"\n",
                "disk = [ 'phy:/dev/gnbd/{name},xvda,w' ]\n",
                "vif = [ 'mac={mac},bridge=xenbr0' ]\n",
                "# An emulated TSC counts as unsteady: Xen would trap every reading of it, and an idle guest be busy.\n",
                "# All machines of a rack share one clock.\n",
                "tsc_mode = \"native\"\n",
                "on_poweroff = \"destroy\"\n",
                "on_reboot = \"restart\"\n",
                "on_crash = \"destroy\"\n",
            ),
            name = self.name,
            memory = self.memory_mib,
            address = self.address,
            mac = self.mac,
        )
    }

    /// What it wants of the cluster, as it lies beside that as `NAME.ha.toml`.
    pub fn ha_file(&self) -> Option<&'static str> {
        self.suspends.then_some("contract = [\"suspend\"]\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The core reads what the rack writes: whoever is fenced does not hold the cable.
    #[cfg(feature = "world")]
    #[test]
    fn its_nodes_are_fenced_over_snmp_and_then_by_the_gateways_cable() {
        use cluster::config::{By, Config, Level};

        let layout = Layout::new(3, 2);
        let config = Config::parse(&layout.cluster_toml()).expect("what the rack writes is a configuration");
        let (gateway, _) = config.gateway().expect("there is a gateway");
        assert_eq!(config.pdus.len(), 1);
        assert_eq!(config.lines.len(), 1);
        assert!(Config::parse(&Layout::new(1, 0).cluster_toml()).expect("a small rack").lines.is_empty());
        for (slot, node) in config.slots().filter(|(slot, _)| *slot != gateway) {
            assert_eq!(node.fencing, [Level::Snmp, Level::Serial]);
            assert_eq!(config.fenced_by(slot, Level::Serial), Some(By::Node(gateway)));
            let outlet = layout.machine(&node.name).map(|machine| machine.outlet);
            assert!(config.pdus.iter().any(|pdu| outlet.and_then(|n| pdu.names.get(&n)) == Some(&node.name)));
        }
    }

    #[test]
    fn every_machine_has_an_outlet_and_cables_of_its_own() {
        let layout = Layout::new(3, 2);
        let mut seen = std::collections::BTreeSet::new();
        for machine in layout.all() {
            assert!(seen.insert(format!("outlet {}", machine.outlet)));
            for nic in machine.public.iter().chain([&machine.cluster]) {
                assert!(seen.insert(nic.mac.clone()) && seen.insert(nic.tap.clone()));
            }
        }
        for vm in &layout.vms {
            assert!(seen.insert(vm.mac.clone()) && seen.insert(vm.address.to_string()));
        }
    }
}

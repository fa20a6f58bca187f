use std::path::Path;
use std::process::Command;

use cluster::config::{Config, Export};

use super::{NBD_SOCKET, dnsmasq_configuration, dnsmasq_hosts, fat_label, nbd_configuration};

const SITE: &str = r#"
[cluster]
name = "rack"
keepalive = "500ms"
warntime = "2s"
deadtime = "6s"
initdead = "60s"
lease = "30s"
self_fence = true
evacuation = "120s"

[network.cluster]
subnet = "10.77.0.0/24"
[network.public]
bridge = "xenbr0"

[[pdu]]
name = "pdu1"
model = "ap7921"
address = "10.77.0.250"

[[node]]
name = "gateway"
role = "gateway"
outlets = [{ pdu = "pdu1", outlet = 1 }]
nics = [{ mac = "52:54:00:77:00:01", network = "cluster", address = "10.77.0.1" }]
[[node]]
name = "node1"
outlets = [{ pdu = "pdu1", outlet = 2 }]
nics = [
  { mac = "52:54:00:77:00:11", network = "cluster", address = "10.77.0.11" },
  { mac = "52:54:00:78:00:11", network = "public" },
]
[[node]]
name = "node2"
outlets = [{ pdu = "pdu1", outlet = 3 }]
nics = [{ mac = "52:54:00:77:00:12", network = "cluster", address = "10.77.0.12" }]

[gateway]
pxe = true
[[export]]
name = "x0"
device = "/dev/disk/x0"
"#;

fn dnsmasq() -> String {
    let config = Config::parse(SITE).unwrap();
    let (_, own) = config.gateway().unwrap();
    dnsmasq_configuration(&config, own, "eth0", "/media/pxe")
}

fn hosts(config: &Config) -> String {
    let (_, own) = config.gateway().unwrap();
    dnsmasq_hosts(config, own)
}

/// A node that was added gets its address, one that was removed no longer: then it is any machine that boots.
#[test]
fn the_other_nodes_cards_have_their_addresses() {
    let config = Config::parse(SITE).unwrap();
    assert_eq!(hosts(&config), "52:54:00:77:00:11,10.77.0.11,node1\n52:54:00:77:00:12,10.77.0.12,node2\n");
    let next = config
        .with_node(
            "name = \"node3\"\noutlets = [{ pdu = \"pdu1\", outlet = 4 }]\n\
             nics = [{ mac = \"52:54:00:77:00:13\", network = \"cluster\", address = \"10.77.0.13\" }]",
        )
        .unwrap();
    let next = next.without_node(cluster::words::Slot(1), 2).unwrap();
    assert_eq!(hosts(&next), "52:54:00:77:00:12,10.77.0.12,node2\n52:54:00:77:00:13,10.77.0.13,node3\n");
}

/// A machine that boots from the network and is no node gets one of the addresses that are nobody's; others get none.
#[test]
fn who_boots_gets_an_address() {
    let text = dnsmasq();
    for line in [
        "port=0",
        "interface=eth0",
        "tftp-port-range=61000,61255",
        "user=boot",
        "dhcp-hostsfile=/run/holdfast/dnsmasq.hosts",
        "dhcp-range=10.77.0.234,10.77.0.241,255.255.255.0",
        "dhcp-vendorclass=set:boots,PXEClient",
        "dhcp-ignore=tag:!known,tag:!boots",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing");
    }
}

/// Debian's own dnsmasq reads it, where it is installed.
#[test]
fn dnsmasq_takes_its_configuration() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), dnsmasq()).unwrap();
    let Some(program) = ["/usr/sbin/dnsmasq", "/sbin/dnsmasq"].into_iter().find(|path| Path::new(path).exists()) else {
        return;
    };
    let conf = format!("--conf-file={}", file.path().display());
    let output = Command::new(program).args(["--test", &conf]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_export_is_a_section() {
    let export = |name: &str, read_only| Export { name: name.into(), device: format!("/dev/disk/{name}"), read_only };
    let (disk, shared) = (export("x0", false), export("shared", true));
    let expected = "\
[generic]
    unixsock = /run/holdfast/nbd.sock
    allowlist = true
[.]
    exportname = /dev/null
    readonly = true
[x0]
    exportname = /dev/disk/x0
    readonly = false
    flush = true
    fua = true
[shared]
    exportname = /dev/disk/shared
    readonly = true
    flush = true
    fua = true
";
    assert_eq!(nbd_configuration(&[disk, shared], Path::new(NBD_SOCKET)), expected);
}

#[test]
fn a_label_is_read_from_both_kinds_of_fat() {
    let sector = |kind_at: usize, kind: &[u8], label_at: usize| {
        let mut sector = [0; 512];
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector[kind_at..kind_at + kind.len()].copy_from_slice(kind);
        sector[label_at..label_at + 11].copy_from_slice(b"HOLDFAST   ");
        sector
    };
    assert_eq!(fat_label(&sector(54, b"FAT16   ", 43)).as_deref(), Some("HOLDFAST"));
    assert_eq!(fat_label(&sector(82, b"FAT32   ", 71)).as_deref(), Some("HOLDFAST"));
    let mut unsigned = sector(54, b"FAT16   ", 43);
    unsigned[511] = 0;
    assert_eq!(fat_label(&unsigned), None);
    assert_eq!(fat_label(&sector(54, b"NTFS    ", 43)), None);
}

//! What this machine says of itself: its cards, and what its maker calls it.

use std::fs;
use std::path::Path;

use cluster::config::Mac;

use super::Hello;
use crate::netsetup;

/// What the kernel knows of the machine's maker.
const SMBIOS: &str = "/sys/class/dmi/id";

/// This machine, which is `node` by its own configuration, and asks over the card `first`, if it knows.
pub(super) fn hello(node: &str, first: Option<Mac>) -> Hello {
    let smbios = |name: &str| text(&Path::new(SMBIOS).join(name));
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let others = netsetup::cards().into_iter().map(|(mac, _)| mac).filter(|mac| Some(*mac) != first);
    Hello {
        cards: first.into_iter().chain(others).map(|mac| mac.0).collect(),
        node: node.to_owned(),
        serial: smbios("product_serial"),
        uuid: smbios("product_uuid"),
        cpu: value(&cpus, "model name").unwrap_or_default().to_owned(),
        memory_mib: memory_mib(&memory),
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// What stands behind `name` and a colon in the first line that begins with it.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(before, _)| before.trim() == name).map(|(_, value)| value.trim())
}

/// The memory of this domain: under Xen the machine has more, of which only Xen knows.
fn memory_mib(text: &str) -> u32 {
    let kib = value(text, "MemTotal").and_then(|value| value.strip_suffix(" kB")?.parse::<u32>().ok());
    kib.map_or(0, |kib| kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        assert_eq!(value("processor\t: 0\nmodel name\t: Some CPU: fast\n", "model name"), Some("Some CPU: fast"));
        assert_eq!(memory_mib("MemTotal:         262144 kB\nMemFree: 1 kB\n"), 256);
        assert_eq!((memory_mib(""), memory_mib("MemTotal: lots\n")), (0, 0));
    }
}

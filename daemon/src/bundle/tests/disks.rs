//! Which disks are sticks: as the kernel would list them, with real file systems on them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::disks::{is_held, sticks, text, usable_of};
use super::run;

/// What the kernel would tell of a machine's disks.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        fs::create_dir(bench.dev()).unwrap();
        fs::create_dir(bench.sys()).unwrap();
        bench
    }

    fn dev(&self) -> PathBuf {
        self.0.path().join("dev")
    }

    fn sys(&self) -> PathBuf {
        self.0.path().join("block")
    }

    /// A disk on that bus, of 64 MiB, with so many partitions; all blank.
    fn disk(&self, bus: &str, name: &str, parts: &[&str]) -> PathBuf {
        let place = self.0.path().join("devices/pci0000:00").join(bus).join("host0/block").join(name);
        fs::create_dir_all(place.join("device")).unwrap();
        fs::create_dir_all(place.join("holders")).unwrap();
        for (file, text) in
            [("ro", "0\n"), ("size", "131072\n"), ("device/vendor", "Make \n"), ("device/model", "X 1\n")]
        {
            fs::write(place.join(file), text).unwrap();
        }
        symlink(&place, self.sys().join(name)).unwrap();
        for part in parts {
            fs::create_dir_all(place.join(part).join("holders")).unwrap();
            fs::write(place.join(part).join("partition"), "1\n").unwrap();
            fs::write(place.join(part).join("size"), "65536\n").unwrap();
        }
        for device in parts.iter().chain([&name]) {
            File::create(self.dev().join(device)).unwrap().set_len(64 << 20).unwrap();
        }
        place
    }

    fn format(&self, name: &str, words: &[&str]) {
        run(Command::new("mkfs.vfat").args(words).arg(self.dev().join(name)));
    }

    fn begin(&self, name: &str, at: u64, bytes: &[u8]) {
        File::options().write(true).open(self.dev().join(name)).unwrap().write_all_at(bytes, at).unwrap();
    }

    /// Each stick in a line, and whether a bundle may be written to it.
    fn seen(&self, named: &[&str]) -> Vec<String> {
        let named: BTreeSet<PathBuf> = named.iter().map(|name| self.dev().join(name).canonicalize().unwrap()).collect();
        let sticks = sticks(&self.sys(), &self.dev(), &named);
        for stick in &sticks {
            let usable = usable_of(&self.sys(), &self.dev(), &named, &stick.name);
            assert_eq!(usable.err(), stick.refused, "{}", stick.name);
        }
        let refused = |reason: Option<String>| reason.map_or_else(String::new, |reason| format!(": {reason}"));
        sticks
            .into_iter()
            .map(|stick| {
                format!("{} {} MiB [{}] {}{}", stick.name, stick.mib, stick.label, stick.model, refused(stick.refused))
            })
            .collect()
    }
}

#[test]
fn a_fat_on_a_usb_disk_is_a_stick_and_nothing_else_is() {
    let bench = Bench::new();
    assert_eq!(bench.seen(&[]), Vec::<String>::new(), "none is plugged in");
    bench.disk("ata1", "sda", &[]);
    bench.format("sda", &["-F", "32", "-n", "INNER"]);
    bench.disk("usbmisc", "sdx", &[]);
    bench.format("sdx", &["-F", "32"]);
    bench.disk("usb1/1-1", "sdb", &["sdb1", "sdb2"]);
    bench.format("sdb1", &["-F", "32", "-n", "TOOLS"]);
    bench.disk("usb2/2-1", "sdc", &[]);
    bench.format("sdc", &["-F", "16", "-n", "WHOLE"]);
    bench.disk("usb2/2-2", "sdd", &["sdd1"]);
    bench.format("sdd1", &["-F", "32"]);
    let sticks = ["sdb1 32 MiB [TOOLS] Make X 1", "sdc 64 MiB [WHOLE] Make X 1", "sdd1 32 MiB [] Make X 1"];
    assert_eq!(bench.seen(&[]), sticks);
    let gone = usable_of(&bench.sys(), &bench.dev(), &BTreeSet::new(), "sde1").unwrap_err();
    assert_eq!(gone, "sde1 is not plugged in any more");
    assert!(usable_of(&bench.sys(), &bench.dev(), &BTreeSet::new(), "sda").is_err());
}

#[test]
fn a_stick_without_fat_says_what_to_do() {
    let bench = Bench::new();
    for (name, at, begin) in
        [("sdb", 3, &b"EXFAT   "[..]), ("sdc", 3, b"NTFS    "), ("sdd", 0, b""), ("sde", 1080, b"\x53\xef")]
    {
        bench.disk("usb1/1-1", name, &[]);
        bench.begin(name, at, begin);
    }
    bench.disk("usb1/1-2", "sdf", &[]);
    fs::remove_file(bench.dev().join("sdf")).unwrap();
    let protected = bench.disk("usb1/1-3", "sdg", &[]);
    bench.format("sdg", &["-F", "32"]);
    fs::write(protected.join("ro"), "1\n").unwrap();
    let no_fat = "it has no FAT file system";
    let seen = bench.seen(&[]);
    assert_eq!(
        seen,
        [
            format!("sdb 64 MiB [] Make X 1: {no_fat} (this is exFAT): format it as FAT32"),
            format!("sdc 64 MiB [] Make X 1: {no_fat} (this is NTFS): format it as FAT32"),
            format!("sdd 64 MiB [] Make X 1: {no_fat}: format it as FAT32"),
            format!("sde 64 MiB [] Make X 1: {no_fat}: format it as FAT32"),
            "sdf 64 MiB [] Make X 1: it cannot be read: No such file or directory (os error 2)".to_owned(),
            "sdg 64 MiB [] Make X 1: it is write-protected".to_owned(),
        ]
    );
}

/// Makes a disk, which the kernel describes there, one of the cluster's.
type Make = fn(&Bench, PathBuf);

/// Each of the cluster's own media is a USB disk here, and has a FAT beside it that would do.
#[test]
fn a_disk_with_anything_of_the_clusters_on_it_is_refused_whole() {
    let reasons: [(&str, Make); 7] = [
        ("a machine of the cluster boots from it", |bench, _| bench.format("sdb2", &["-F", "32", "-n", "HOLDFAST"])),
        ("a machine of the cluster keeps its identity or its tables on it", |bench, _| {
            bench.begin("sdb2", 0, b"HOLDFAST SELF  1");
        }),
        ("a machine of the cluster keeps its identity or its tables on it", |bench, _| {
            bench.begin("sdb2", 0, b"HOLDFAST STATE 1");
        }),
        ("it belongs to a volume group", |bench, _| bench.begin("sdb2", 512, b"LABELONE")),
        ("it belongs to a volume group", |bench, _| bench.begin("sdb", 1536, b"LABELONE")),
        ("the kernel uses it for something else", |_, place| fs::create_dir(place.join("sdb2/holders/dm-0")).unwrap()),
        ("the kernel uses it for something else", |_, place| fs::create_dir(place.join("holders/md0")).unwrap()),
    ];
    for (reason, make) in reasons {
        let bench = Bench::new();
        let place = bench.disk("usb1/1-1", "sdb", &["sdb1", "sdb2"]);
        bench.format("sdb1", &["-F", "32", "-n", "TOOLS"]);
        assert_eq!(bench.seen(&[]), ["sdb1 32 MiB [TOOLS] Make X 1"]);
        make(&bench, place);
        assert_eq!(bench.seen(&[]), [format!("sdb 64 MiB [] Make X 1: {reason}")]);
        assert!(usable_of(&bench.sys(), &bench.dev(), &BTreeSet::new(), "sdb1").is_err(), "{reason}");
    }
    let bench = Bench::new();
    bench.disk("usb1/1-1", "sdb", &["sdb1"]);
    bench.format("sdb1", &["-F", "32"]);
    symlink(bench.dev().join("sdb"), bench.dev().join("SERIAL")).unwrap();
    assert_eq!(bench.seen(&["SERIAL"]), ["sdb 64 MiB [] Make X 1: cluster.toml names it"]);
}

#[test]
fn what_a_disk_begins_with_is_read_whatever_it_is() {
    let bench = Bench::new();
    bench.disk("usb1/1-1", "sdb", &[]);
    bench.format("sdb", &["-F", "32", "-n", "TOOLS"]);
    let good = fs::read(bench.dev().join("sdb")).unwrap();
    for length in [0, 1, 11, 82, 510, 511, 512, 513, 2047, 2048] {
        fs::write(bench.dev().join("sdb"), &good[..length]).unwrap();
        assert_eq!(bench.seen(&[]).len(), 1);
    }
    for bit in 0..4096 {
        let mut sector = good[..512].to_vec();
        sector[bit / 8] ^= 1 << (bit % 8);
        fs::write(bench.dev().join("sdb"), &sector).unwrap();
        assert_eq!(bench.seen(&[]).len(), 1);
    }
}

#[test]
fn the_kernels_disks_are_described() {
    let bench = Bench::new();
    let place = bench.disk("usb1/1-1", "sdb", &["sdb1"]);
    let expected = format!("sdb: 64 MiB, ro 0, removable , model X 1, serial , {}\n  sdb1: 32 MiB\n", place.display());
    assert_eq!(text(&bench.sys()).unwrap(), expected);
    assert!(text(Path::new("/nonexistent")).is_err());
    assert!(!text(Path::new("/sys/block")).unwrap().is_empty());
    assert!(!is_held(Path::new("/nonexistent")));
}

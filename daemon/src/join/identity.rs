//! Who this machine is: a private key (X25519) that it draws once and keeps on a disk of its own.
//!
//! ```text
//! byte 0   the mark    \
//! 16       the key      > one sector, which a disk writes whole
//! 48       a checksum  /
//! ```
//!
//! The disk, or partition, is one that bears the mark: those that a node boots from have such a partition, with no identity in
//! it yet. Otherwise it is a blank disk: one whose first and last MiB are all zero. A disk with data is never written to.
//! Without either, the identity lasts as long as this boot, and the machine must be let in at every boot.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use blake2::{Blake2s256, Digest};
use zeroize::Zeroizing;

use crate::secrets::Key;

/// What the disk begins with.
const MARK: &[u8; 16] = b"HOLDFAST SELF  1";
/// Bytes at either end that are looked at.
const END: usize = 1 << 20;
/// A sector, in bytes.
const SECTOR: usize = 512;
/// How long the disk may take to be found.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 5 });
/// Between two looks for it.
const LOOK: Duration = Duration::from_millis(100);

/// An identity.
#[derive(Debug)]
pub(super) struct Own {
    /// Its private key.
    pub(super) key: Key,
    /// Whether it outlives this boot; if not, why.
    pub(super) kept: Result<PathBuf, String>,
}

/// Where it is for the rest of this boot: a member asks for the cluster's next key as who it was let in.
pub(super) const IN_MEMORY: &str = "/run/holdfast/identity";

/// [`own`], or what that was the first time in this boot: it is kept in memory too.
///
/// # Errors
/// As [`own`]; or it cannot be kept.
pub(super) fn of_this_boot(sys: &Path, dev: &Path, memory: &Path) -> io::Result<Own> {
    let drawn = fs::read(memory).map(Zeroizing::new).ok().and_then(|sector| parse(&sector).flatten());
    if let Some(key) = drawn {
        return Ok(Own { key, kept: Err("it was drawn in this boot".to_owned()) });
    }
    let own = own(sys, dev)?;
    if own.kept.is_err() {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(memory)?;
        file.write_all(&sector(&own.key))?;
    }
    Ok(own)
}

/// This machine's identity: what is kept on the disks that `sys` (as `/sys/block`) lists and `dev` has, or a fresh one.
///
/// # Errors
/// The kernel gives no random numbers.
pub(super) fn own(sys: &Path, dev: &Path) -> io::Result<Own> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (places, disks) = (places(sys, dev), disks(sys, dev));
        if let Some((disk, key)) = places.iter().find_map(|place| Some((place, read(place)?))) {
            match key {
                Some(key) => return Ok(Own { key, kept: Ok(disk.clone()) }),
                // It bears the mark, so it is ours; what was on it is lost.
                None => return fresh(Some(disk)),
            }
        }
        if Instant::now() >= deadline {
            return fresh(disks.iter().find(|disk| is_blank(disk).unwrap_or(false)));
        }
        thread::sleep(LOOK);
    }
}

/// Draws an identity, and keeps it on that disk.
fn fresh(disk: Option<&PathBuf>) -> io::Result<Own> {
    let key = Key::random()?;
    let kept = match disk {
        None => Err("no local disk is blank".to_owned()),
        Some(disk) => match write(disk, &key) {
            Ok(()) => Ok(disk.clone()),
            Err(error) => Err(format!("{}: {error}", disk.display())),
        },
    };
    Ok(Own { key, kept })
}

/// All disks and partitions that can be written to.
fn places(sys: &Path, dev: &Path) -> Vec<PathBuf> {
    let disks = entries(sys).into_iter().filter(|disk| disk.join("device").exists() && !says(disk, "ro"));
    let with_partitions = disks.flat_map(|disk| {
        let partitions = entries(&disk).into_iter().filter(|entry| entry.join("partition").exists());
        partitions.chain([disk.clone()]).collect::<Vec<_>>()
    });
    let mut places: Vec<PathBuf> = with_partitions.filter_map(|place| Some(dev.join(place.file_name()?))).collect();
    places.sort();
    places
}

/// The machine's own disks, whole ones, that can be written to and do not come and go.
fn disks(sys: &Path, dev: &Path) -> Vec<PathBuf> {
    let own = |disk: &PathBuf| disk.join("device").exists() && !says(disk, "ro") && !says(disk, "removable");
    let disks = entries(sys).into_iter().filter(own);
    let mut disks: Vec<PathBuf> = disks.filter_map(|disk| Some(dev.join(disk.file_name()?))).collect();
    disks.sort();
    disks
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Whether a device's attribute of that name is 1.
fn says(device: &Path, name: &str) -> bool {
    fs::read_to_string(device.join(name)).is_ok_and(|text| text.trim() == "1")
}

/// What a disk that bears the mark holds; no key if that is damaged.
fn read(disk: &Path) -> Option<Option<Key>> {
    let mut sector = Zeroizing::new([0; SECTOR]);
    File::open(disk).and_then(|file| file.read_exact_at(&mut *sector, 0)).ok()?;
    parse(&*sector)
}

fn parse(sector: &[u8]) -> Option<Option<Key>> {
    let (mark, rest) = sector.split_at_checked(MARK.len())?;
    let (key, rest) = rest.split_first_chunk::<32>()?;
    let whole = rest.get(..32)? == checksum(key);
    (mark == MARK).then(|| whole.then(|| Key::of(*key)))
}

fn checksum(key: &[u8; 32]) -> [u8; 32] {
    Blake2s256::new().chain_update(MARK).chain_update(key).finalize().into()
}

fn write(disk: &Path, key: &Key) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(disk)?;
    file.write_all_at(&sector(key), 0)?;
    file.sync_all()
}

/// A key as [`parse`] reads it.
fn sector(key: &Key) -> Zeroizing<Vec<u8>> {
    let mut sector = Zeroizing::new([&MARK[..], key.bytes(), &checksum(key.bytes())].concat());
    sector.resize(SECTOR, 0);
    sector
}

/// Whether there is nothing at a disk's either end.
fn is_blank(disk: &Path) -> io::Result<bool> {
    let mut file = File::open(disk)?;
    let length = file.seek(SeekFrom::End(0))?;
    let end = u64::try_from(END).map_err(io::Error::other)?;
    if length < 2 * end {
        return Ok(false);
    }
    for place in [0, length - end] {
        let mut bytes = vec![1; END];
        file.read_exact_at(&mut bytes, place)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with disks: names, and what is on them.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            fs::create_dir(machine.dev()).unwrap();
            machine
        }

        fn dev(&self) -> PathBuf {
            self.0.path().join("dev")
        }

        fn with(&self, name: &str, content: &[u8]) -> PathBuf {
            let sys = self.0.path().join("block").join(name);
            fs::create_dir_all(sys.join("device")).unwrap();
            fs::write(sys.join("removable"), "0\n").unwrap();
            fs::write(self.dev().join(name), content).unwrap();
            self.dev().join(name)
        }

        /// A stick that the machine boots from, with a partition.
        fn with_partition(&self, disk: &str, name: &str, content: &[u8]) -> PathBuf {
            self.with(disk, &[0x55; 2 << 20]);
            let sys = self.0.path().join("block").join(disk);
            fs::write(sys.join("removable"), "1\n").unwrap();
            fs::create_dir(sys.join(name)).unwrap();
            fs::write(sys.join(name).join("partition"), "2\n").unwrap();
            fs::write(self.dev().join(name), content).unwrap();
            self.dev().join(name)
        }

        fn own(&self) -> Own {
            own(&self.0.path().join("block"), &self.dev()).unwrap()
        }
    }

    static BLANK: [u8; 4 << 20] = [0; 4 << 20];

    #[test]
    fn an_identity_is_drawn_once_and_kept_on_the_blank_disk() {
        let machine = Machine::new();
        let mut data = BLANK.to_vec();
        *data.last_mut().unwrap() = 1;
        let with_data = machine.with("sda", &data);
        let blank = machine.with("sdb", &BLANK);
        let first = machine.own();
        assert_eq!(first.kept.as_ref(), Ok(&blank));
        for _ in 0..2 {
            let again = machine.own();
            assert_eq!(again.key.bytes(), first.key.bytes());
            assert_eq!(again.kept.as_ref(), Ok(&blank));
        }
        assert!(fs::read(with_data).unwrap() == data, "a disk with data is not touched");
    }

    #[test]
    fn a_partition_that_bears_the_mark_comes_before_a_blank_disk() {
        let machine = Machine::new();
        let blank = machine.with("sda", &BLANK);
        let mut content = BLANK.to_vec();
        content[..MARK.len()].copy_from_slice(MARK);
        let partition = machine.with_partition("sdb", "sdb2", &content);
        let first = machine.own();
        assert_eq!(first.kept.as_ref(), Ok(&partition));
        assert_eq!(fs::read(blank).unwrap(), BLANK);
        let again = machine.own();
        assert_eq!((again.kept.as_ref(), again.key.bytes()), (Ok(&partition), first.key.bytes()));
    }

    #[test]
    fn a_blank_partition_is_nobodys() {
        let machine = Machine::new();
        let partition = machine.with_partition("sda", "sda1", &BLANK);
        assert!(machine.own().kept.is_err());
        assert_eq!(fs::read(partition).unwrap(), BLANK);
    }

    #[test]
    fn in_one_boot_it_is_drawn_once_even_without_a_disk() {
        let machine = Machine::new();
        let memory = machine.0.path().join("identity");
        let own = || of_this_boot(&machine.0.path().join("block"), &machine.dev(), &memory).unwrap();
        let first = own();
        assert!(first.kept.is_err());
        assert_eq!(own().key.bytes(), first.key.bytes());
        fs::remove_file(&memory).unwrap();
        let disk = machine.with("sda", &BLANK);
        let kept = own();
        assert_eq!(kept.kept.as_ref(), Ok(&disk));
        assert!(!memory.exists() && own().key.bytes() == kept.key.bytes());
    }

    #[test]
    fn without_a_blank_disk_it_does_not_last() {
        let machine = Machine::new();
        let mut other = BLANK.to_vec();
        other[70_000] = 1;
        let disk = machine.with("sda", &other);
        machine.with("sdb", &BLANK[..1 << 20]);
        let stick = machine.with("sdc", &BLANK);
        fs::write(machine.0.path().join("block/sdc/removable"), "1\n").unwrap();
        fs::create_dir(machine.0.path().join("block/nbd0")).unwrap();
        fs::write(machine.dev().join("nbd0"), &BLANK[..]).unwrap();
        let first = machine.own();
        assert_eq!(first.kept, Err("no local disk is blank".to_owned()));
        assert_ne!(machine.own().key.bytes(), first.key.bytes());
        assert!(fs::read(disk).unwrap() == other && fs::read(stick).unwrap() == BLANK[..]);
    }

    #[test]
    fn a_damaged_one_is_drawn_anew_on_the_disk_that_bears_the_mark() {
        let machine = Machine::new();
        let disk = machine.with("vda", &BLANK);
        let first = machine.own();
        let good = fs::read(&disk).unwrap();
        for at in 0..80 {
            let mut sector = good[..SECTOR].to_vec();
            sector[at] ^= 1 << (at % 8);
            match parse(&sector) {
                // Whose it is cannot be seen any more.
                None => assert!(at < MARK.len()),
                Some(key) => assert!(key.is_none() && at >= MARK.len(), "byte {at}"),
            }
            assert!(parse(&good[..at]).is_none());
        }
        fs::write(&disk, [&good[..20], &[!good[20]], &good[21..]].concat()).unwrap();
        let second = machine.own();
        assert_ne!(second.key.bytes(), first.key.bytes());
        assert_eq!(machine.own().key.bytes(), second.key.bytes());
    }
}

//! Writing to a real block device, a loop device, through the kernel's own file system. This needs root, as the rack does.
//!
//! Where the kernel has no vfat, ext4 stands in: all that is ours is the same.

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{MemfdFlags, SealFlags};

use super::super::disks::is_held;
use super::super::stick::write;
use super::run;

const NAME: &str = "holdfast-node2-20261122-020304.tar";

/// A stick, as long as this lives.
struct Loop {
    device: PathBuf,
    image: PathBuf,
    directory: tempfile::TempDir,
}

/// The file system of the sticks here, and the program that makes it.
fn kind() -> (&'static CStr, [&'static str; 4]) {
    let listed = fs::read_to_string("/proc/filesystems").unwrap();
    if listed.lines().any(|line| line.trim() == "vfat") {
        (c"vfat", ["mkfs.vfat", "-F", "16", "-v"])
    } else {
        (c"ext4", ["mkfs.ext4", "-qF", "-O", "^has_journal"])
    }
}

impl Loop {
    fn new(bytes: u64, protected: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        File::create(&image).unwrap().set_len(bytes).unwrap();
        let (_, [program, words @ ..]) = kind();
        run(Command::new(program).args(words).arg(&image));
        Self::of(image, directory, protected)
    }

    fn of(image: PathBuf, directory: tempfile::TempDir, protected: bool) -> Self {
        let words: &[&str] = if protected { &["--read-only"] } else { &[] };
        let said = run(Command::new("losetup").args(["--find", "--show"]).args(words).arg(&image));
        Self { device: PathBuf::from(said.trim()), image, directory }
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), String> {
        write(&self.device, kind().0, name, content)
    }

    /// What is on it, as whoever plugs it in somewhere else finds it.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let place = self.directory.path().join("mounted");
        fs::create_dir_all(&place).unwrap();
        run(Command::new("mount").args(["-o", "ro"]).arg(&self.device).arg(&place));
        let named = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), entry.path());
        let files = fs::read_dir(&place).unwrap().map(|entry| named(entry.unwrap()));
        let mut files: Vec<_> = files.filter(|(_, path)| path.is_file()).collect();
        files.sort();
        let files = files.into_iter().map(|(name, path)| (name, fs::read(path).unwrap())).collect();
        run(Command::new("umount").arg(&place));
        files
    }

    fn is_free(&self) {
        assert!(!is_held(&self.device), "nobody holds it");
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        assert!(!mounts.contains(self.device.to_str().unwrap()), "{mounts}");
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run(Command::new("losetup").arg("--detach").arg(&self.device));
    }
}

#[test]
fn a_file_is_on_it_whole_and_nobody_holds_it() {
    let stick = Loop::new(16 << 20, false);
    let content: Vec<u8> = (0..3_000_001_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    stick.write(NAME, &content).unwrap();
    stick.is_free();
    stick.write("second.tar", b"2").unwrap();
    stick.is_free();
    assert!(stick.files() == [(NAME.to_owned(), content), ("second.tar".to_owned(), b"2".to_vec())]);
    // What is there is never written over.
    assert!(stick.write("second.tar", b"3").unwrap_err().contains("ask again"));
    stick.is_free();
    let files = stick.files();
    assert_eq!(files.len(), 2, "and nothing unfinished is left");
    assert_eq!(files.last().unwrap().1, b"2");
}

#[test]
fn a_full_one_is_said_and_what_is_on_it_stays() {
    let stick = Loop::new(4 << 20, false);
    stick.write("mine.txt", &[1; 1 << 20]).unwrap();
    let full = stick.write(NAME, &[2; 4 << 20]).unwrap_err();
    assert!(full.starts_with("it is full: 4096 KiB are needed, and "), "{full}");
    stick.is_free();
    assert_eq!(stick.files(), [("mine.txt".to_owned(), vec![1; 1 << 20])]);
}

#[test]
fn a_write_protected_one_is_said() {
    let stick = Loop::new(4 << 20, true);
    assert_eq!(
        stick.write(NAME, b"x").unwrap_err(),
        "it is write-protected, or its file system is damaged. It may be pulled out"
    );
    stick.is_free();
}

#[test]
fn one_that_is_no_file_system_or_not_there_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    fs::write(&image, vec![0x5a; 4 << 20]).unwrap();
    let stick = Loop::of(image, directory, false);
    assert_eq!(stick.write(NAME, b"x").unwrap_err(), "its file system is damaged, or is not FAT. It may be pulled out");
    stick.is_free();
    assert_eq!(fs::read(&stick.image).unwrap(), vec![0x5a; 4 << 20], "nothing was written");
    let gone = write(Path::new("/dev/nonexistent"), kind().0, NAME, b"x").unwrap_err();
    assert_eq!(gone, "the stick does not answer any more: was it pulled out? It may be pulled out");
    let none = write(&stick.device, c"nosuchfs", NAME, b"x").unwrap_err();
    assert_eq!(none, "the kernel has no driver for its file system. It may be pulled out");
}

#[test]
fn one_that_is_mounted_is_in_use() {
    let stick = Loop::new(4 << 20, false);
    let place = stick.directory.path().join("elsewhere");
    fs::create_dir(&place).unwrap();
    run(Command::new("mount").arg(&stick.device).arg(&place));
    assert!(is_held(&stick.device));
    run(Command::new("umount").arg(&place));
    stick.is_free();
}

/// Its memory is a file that ends after 3 MiB and cannot grow: to the kernel a disk that answers at first, and fails in the middle.
#[test]
fn one_that_is_gone_in_the_middle_is_said_and_let_go() {
    let memory = rustix::fs::memfd_create("stick", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    let memory = File::from(memory);
    memory.set_len(16 << 20).unwrap();
    let image = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd()));
    let (_, [program, words @ ..]) = kind();
    run(Command::new(program).args(words).arg(&image));
    let stick = Loop::of(image, tempfile::tempdir().unwrap(), false);
    memory.set_len(3 << 20).unwrap();
    rustix::fs::fcntl_add_seals(&memory, SealFlags::GROW).unwrap();
    let gone = stick.write(NAME, &[7; 8 << 20]).unwrap_err();
    assert_eq!(gone, "the stick does not answer any more: was it pulled out? It may be pulled out");
    stick.is_free();
}

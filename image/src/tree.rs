//! A file tree in memory, and the cpio archive that the kernel unpacks it from.
//!
//! The archive depends on the tree alone: names in order, every time zero, everything root's (format: `newc`, see the
//! kernel's Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::manifest::Programs;
use crate::{debian, elf};

/// What every record begins with.
const MAGIC: &str = "070701";
/// Bytes of a record's header: the magic and thirteen numbers of eight hexadecimal digits.
const HEADER: usize = 6 + 13 * 8;
/// The name of the last record.
const TRAILER: &str = "TRAILER!!!";

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A file and its mode.
    File(Vec<u8>, u32),
    /// A symbolic link.
    Link(String),
}

/// A file tree; paths have no slash in front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, Entry>);

impl Tree {
    /// Puts something at a path, and directories above it.
    pub fn put(&mut self, path: &str, entry: Entry) {
        let mut above = path;
        while let Some((parent, _)) = above.rsplit_once('/') {
            self.0.entry(parent.to_owned()).or_insert(Entry::Directory);
            above = parent;
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// What stands at a path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.0.get(path)
    }

    /// Everything, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.0.iter()
    }

    /// The bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let size = |entry: &Entry| match entry {
            Entry::File(bytes, _) => bytes.len(),
            Entry::Directory | Entry::Link(_) => 0,
        };
        self.0.values().map(size).sum()
    }

    /// Copies a directory of the source tree.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn mirror(&mut self, directory: &Path) -> Result<()> {
        for file in debian::files(directory)? {
            let bytes = fs::read(directory.join(&file))?;
            self.put(&file.to_string_lossy(), Entry::File(bytes, 0o644));
        }
        Ok(())
    }

    /// Adds programs, and every library that they need or open, from unpacked packages.
    ///
    /// # Errors
    /// A program or a library is in none of the packages.
    pub fn add_programs(&mut self, programs: &Programs, packages: &[PathBuf]) -> Result<()> {
        let mut libraries = BTreeMap::new();
        for package in packages {
            for file in debian::files(package)? {
                let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
                if let Some(name) = name.filter(|name| name.contains(".so")) {
                    libraries.entry(name).or_insert_with(|| (package.join(&file), file));
                }
            }
        }
        let mut wanted: Vec<(PathBuf, PathBuf)> = Vec::new();
        for name in &programs.opened {
            let (path, place) = libraries.get(name).with_context(|| format!("no package has {name}"))?;
            wanted.push((path.clone(), place_of(place)));
        }
        for program in &programs.files {
            let found = packages.iter().map(|package| package.join(program)).find(|path| path.exists());
            wanted.push((found.with_context(|| format!("no package has {program}"))?, PathBuf::from(program)));
        }
        while let Some((from, to)) = wanted.pop() {
            let to = to.to_string_lossy().into_owned();
            if self.0.contains_key(&to) {
                continue;
            }
            let bytes = fs::read(&from).with_context(|| from.display().to_string())?;
            for name in elf::libraries(&bytes)? {
                let Some((path, place)) = libraries.get(&name) else {
                    bail!("{to} needs {name}, which no package of its group in image.toml has");
                };
                wanted.push((path.clone(), place_of(place)));
            }
            let mode = fs::metadata(&from)?.permissions().mode() & 0o111 | 0o644;
            self.put(&to, Entry::File(bytes, mode));
        }
        Ok(())
    }

    /// The archive, uncompressed.
    #[must_use]
    pub fn cpio(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        for (number, (path, entry)) in (1_usize..).zip(&self.0) {
            let (mode, data) = match entry {
                Entry::Directory => (0o040_755, &[][..]),
                Entry::File(bytes, mode) => (0o100_000 | mode, bytes.as_slice()),
                Entry::Link(target) => (0o120_777, target.as_bytes()),
            };
            record(&mut archive, number, mode, path, data);
        }
        record(&mut archive, 0, 0, TRAILER, &[]);
        archive
    }

    /// Reads an archive of [`Tree::cpio`] back, over what is there.
    ///
    /// # Errors
    /// It is damaged, or has what no tree has: devices, directories that others than root may write to, somebody's files.
    pub fn unpack(&mut self, mut archive: &[u8]) -> Result<()> {
        loop {
            let (fields, rest) = archive.split_at_checked(HEADER).context("an archive that is cut off")?;
            let field = |index: usize| -> Result<u32> {
                let at = MAGIC.len() + 8 * index;
                let digits = fields.get(at..at + 8).context("a short header")?;
                Ok(u32::from_str_radix(core::str::from_utf8(digits)?, 16)?)
            };
            let (mode, size, name) = (field(1)?, usize::try_from(field(6)?)?, usize::try_from(field(11)?)?);
            let begin = (HEADER + name).next_multiple_of(4) - HEADER;
            let path = core::str::from_utf8(rest.get(..name - 1).context("a name that is cut off")?)?;
            if !fields.starts_with(MAGIC.as_bytes()) {
                bail!("not an archive of the newc format");
            }
            if path == TRAILER {
                return Ok(());
            }
            let data = rest.get(begin..begin + size).context("a file that is cut off")?;
            if (field(2)?, field(3)?) != (0, 0) {
                bail!("{path} is not root's");
            }
            let entry = match mode & 0o170_000 {
                0o040_000 if mode & 0o7777 == 0o755 => Entry::Directory,
                0o100_000 => Entry::File(data.to_vec(), mode & 0o7777),
                0o120_000 => Entry::Link(core::str::from_utf8(data)?.to_owned()),
                _ => bail!("{path} is of the unknown kind {mode:o}"),
            };
            self.0.insert(path.to_owned(), entry);
            archive = rest.get((HEADER + begin + size).next_multiple_of(4) - HEADER..).unwrap_or_default();
        }
    }
}

/// Debian 12's libraries below /lib are found below /usr/lib as well: the image has one place for them.
fn place_of(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    match text.strip_prefix("usr/lib/x86_64-linux-gnu/") {
        Some(rest) => PathBuf::from(format!("lib/x86_64-linux-gnu/{rest}")),
        None if text.ends_with("ld-linux-x86-64.so.2") => PathBuf::from("lib64/ld-linux-x86-64.so.2"),
        None => path.to_path_buf(),
    }
}

fn record(archive: &mut Vec<u8>, inode: usize, mode: u32, path: &str, data: &[u8]) {
    let links = 1;
    let header = format!(
        "{MAGIC}{inode:08X}{mode:08X}{uid:08X}{gid:08X}{links:08X}{time:08X}{size:08X}{zero:08X}{zero:08X}{zero:08X}{zero:08X}{name:08X}{zero:08X}",
        uid = 0,
        gid = 0,
        time = 0,
        size = data.len(),
        zero = 0,
        name = path.len() + 1,
    );
    archive.extend(header.as_bytes());
    archive.extend(path.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend(data);
    pad(archive);
}

/// Fills up to a multiple of four bytes: so every record, and every segment behind another, begins.
pub fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn the_archive_is_what_cpio_reads_and_repeats() {
        let mut tree = Tree::default();
        tree.put("a/b/file", Entry::File(b"hello".to_vec(), 0o600));
        tree.put("a/link", Entry::Link("b/file".to_owned()));
        assert_eq!(tree.cpio(), tree.clone().cpio());
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("archive"), tree.cpio()).unwrap();
        let archive = fs::File::open(directory.path().join("archive")).unwrap();
        let status = Command::new("cpio")
            .args(["-id", "--quiet"])
            .current_dir(directory.path())
            .stdin(Stdio::from(archive))
            .status()
            .expect("cpio: apt-get install cpio");
        assert!(status.success());
        assert_eq!(fs::read(directory.path().join("a/link")).unwrap(), b"hello");
        let mode = fs::metadata(directory.path().join("a/b/file")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

//! How far a migration is: the process that carries its bytes counts them where others can look.
//!
//! ```text
//! supervisor ---makes---> /run/holdfast/moves/VM@BEGAN <---lengthens--- sh at the source, pull at the target
//! supervisor ---looks at its length----^
//! ```
//!
//! The count is the file's length; no byte is ever written to it. So it takes no memory, nobody can see half of it, a
//! supervisor that begins anew finds it, and the carrier never waits for whoever looks. A migration that cannot be counted
//! goes on uncounted.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use cluster::words::Instant;

/// Where the counts are.
pub(crate) const DIRECTORY: &str = "/run/holdfast/moves";
/// What names a carrier its file, through `xl`.
const VARIABLE: &str = "HOLDFAST_CARRIED";

/// One migration's count, as whoever has begun it holds it.
#[derive(Debug)]
pub(crate) struct Tally {
    path: PathBuf,
    file: Option<File>,
}

impl Tally {
    /// Begins to count the migration of `vm`, in place of an earlier one.
    pub(crate) fn begin(directory: &Path, vm: &str, at: Instant) -> Self {
        let path = directory.join(format!("{vm}@{}", at.millis()));
        let make = || -> io::Result<File> {
            fs::create_dir_all(directory)?;
            forget(directory, |other| other == vm);
            File::create(&path)
        };
        Self { file: make().ok(), path }
    }

    /// Has `command`, or what it starts, count.
    pub(crate) fn give(&self, command: &mut Command) {
        command.env(VARIABLE, &self.path);
    }

    /// The bytes that were carried so far, even when others have let go of the count.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.file.as_ref()?.metadata().ok().map(|about| about.len())
    }
}

/// How many bytes were carried of which VM, and since when, as far as it is counted on this machine.
pub(crate) fn look(directory: &Path) -> BTreeMap<String, (Instant, u64)> {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    files
        .filter_map(|file| {
            let (vm, began) = parse(file.file_name().to_str()?)?;
            Some((vm, (began, file.metadata().ok()?.len())))
        })
        .collect()
}

/// Lets go of the counts of those VMs. Whoever still counts there does so unseen.
pub(crate) fn forget(directory: &Path, which: impl Fn(&str) -> bool) {
    for file in fs::read_dir(directory).into_iter().flatten().flatten() {
        if file.file_name().to_str().and_then(parse).is_some_and(|(vm, _)| which(&vm)) {
            // One that is gone already is what is wanted.
            let _ = fs::remove_file(file.path());
        }
    }
}

/// No VM has an `@` in its name.
fn parse(name: &str) -> Option<(String, Instant)> {
    let (vm, began) = name.split_once('@')?;
    Some((vm.to_owned(), Instant::from_millis(began.parse().ok()?)))
}

/// One migration's count, as its carrier holds it.
#[derive(Debug)]
pub(crate) struct Counter {
    file: Option<File>,
    bytes: u64,
}

impl Counter {
    /// One that nobody looks at.
    pub(crate) const fn unseen() -> Self {
        Self { file: None, bytes: 0 }
    }

    /// The one that this program was given, if it was given one.
    pub(crate) fn given() -> Self {
        env::var_os(VARIABLE).map_or(Self::unseen(), |path| Self::at(Path::new(&path)))
    }

    /// The one at `path`. One that others have let go of does not come back.
    pub(crate) fn at(path: &Path) -> Self {
        Self { file: OpenOptions::new().write(true).open(path).ok(), bytes: 0 }
    }

    fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.file.as_ref().is_some_and(|file| file.set_len(self.bytes).is_err()) {
            self.file = None;
        }
    }
}

/// A way on which what is written is counted.
#[derive(Debug)]
pub(crate) struct Counted<W> {
    to: W,
    counter: Counter,
}

impl<W: Write> Counted<W> {
    /// Counts what is written to `to`.
    pub(crate) const fn new(to: W, counter: Counter) -> Self {
        Self { to, counter }
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.counter.add(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_is_seen_by_whoever_looks_and_takes_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let moves = directory.path().join("moves");
        assert_eq!(look(&moves), BTreeMap::new());
        let tally = Tally::begin(&moves, "x0.a-b", Instant::from_millis(7_000));
        let mut way = Counted::new(Vec::new(), Counter::at(&tally.path));
        way.write_all(&[7; 5_000_000]).unwrap();
        way.write_all(&[7; 3]).unwrap();
        assert_eq!(way.to.len(), 5_000_003);
        assert_eq!(look(&moves), [("x0.a-b".to_owned(), (Instant::from_millis(7_000), 5_000_003))].into());
        assert_eq!(fs::read_dir(&moves).unwrap().count(), 1);
        assert_eq!(std::os::unix::fs::MetadataExt::blocks(&tally.file.as_ref().unwrap().metadata().unwrap()), 0);
    }

    #[test]
    fn the_next_migration_of_a_vm_counts_from_the_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let at = Instant::from_millis;
        let first = Tally::begin(directory.path(), "x0", at(1));
        let mut way = Counted::new(Vec::new(), Counter::at(&first.path));
        let _other = Tally::begin(directory.path(), "x1", at(2));
        way.write_all(b"1234").unwrap();
        let _second = Tally::begin(directory.path(), "x0", at(3));
        // What was given up is counted on, but not seen.
        way.write_all(b"5").unwrap();
        assert_eq!(first.bytes(), Some(5));
        let seen = look(directory.path());
        assert_eq!(seen, [("x0".to_owned(), (at(3), 0)), ("x1".to_owned(), (at(2), 0))].into());
        forget(directory.path(), |vm| vm == "x1");
        assert_eq!(look(directory.path()).into_keys().collect::<Vec<_>>(), ["x0"]);
    }

    #[test]
    fn what_cannot_be_counted_is_carried_all_the_same() {
        let tally = Tally::begin(Path::new("/proc/no/such/place"), "x0", Instant::ZERO);
        assert_eq!(tally.bytes(), None);
        let mut way = Counted::new(Vec::new(), Counter::at(&tally.path));
        way.write_all(b"domain").unwrap();
        // A file that cannot grow: it was opened for reading only.
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x0@1");
        File::create(&file).unwrap();
        way.counter.file = File::open(&file).ok();
        way.write_all(b" memory").unwrap();
        assert_eq!(way.to, b"domain memory");
    }

    #[test]
    fn other_files_are_no_counts() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["x0", "x0@", "@", "x0@1@2", "x0@-1", "x0@99999999999999999999999", "x0@1s"] {
            fs::write(directory.path().join(name), "12").unwrap();
        }
        assert_eq!(look(directory.path()), BTreeMap::new());
    }
}

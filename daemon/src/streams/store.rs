//! Where a table of the gateway's outlives it: two places for each, that are written in turn.
//!
//! ```text
//! 0        the mark of this format, written when the medium is made (a plain file has none)
//! 4 KiB    the first place    \  number, length and checksum, then the table of claims
//! 260 KiB  the second place   /
//! 516 KiB  the first place    \  the same of the machines that were approved
//! 772 KiB  the second place   /
//! 1028 KiB the first place    \  the same of the newest `cluster.toml`
//! 1280 KiB the second place   /  (a medium of an earlier version ends before)
//! ```
//!
//! The place with the higher number counts. A write that a power cut tears spoils the place that did not count; what was
//! kept before is still there. A medium of which nothing can be read any more is refused, never taken for an empty one.

use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::Path;

use blake2::{Blake2s256, Digest};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a medium for the table begins with; `image` writes it.
pub(crate) const MARK: &[u8; 16] = b"HOLDFAST STATE 1";
/// Bytes of a place.
const ROOM: usize = 252 << 10;
/// Bytes of number, length and checksum.
const HEADER: usize = 8 + 4 + 32;

/// A table that outlives the gateway.
pub(crate) trait Table: Serialize + DeserializeOwned + Default {
    /// Where its two places begin, in bytes.
    const PLACES: [u64; 2];
    /// What it is called when it cannot be read.
    const NAME: &str;
}

/// A table's part of a medium.
#[derive(Debug)]
pub(crate) struct Store<T> {
    file: File,
    /// The number of the place that counts; 0 if there is none.
    number: u64,
    table: PhantomData<T>,
}

impl<T: Table> Store<T> {
    /// Opens the medium at `path`, a plain file being made if there is none, and reads the table.
    ///
    /// # Errors
    /// It cannot be read, or neither place is whole although one was written.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, T)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let places = [read_place::<T>(&file, 0)?, read_place::<T>(&file, 1)?];
        let empty = places.iter().all(|bytes| bytes.iter().all(|byte| *byte == 0));
        let newest = places.iter().filter_map(|bytes| parse(bytes)).max_by_key(|(number, _)| *number);
        match newest {
            Some((number, table)) => Ok((Self { file, number, table: PhantomData }, table)),
            None if empty => Ok((Self { file, number: 0, table: PhantomData }, T::default())),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, format!("the table of {} is damaged", T::NAME))),
        }
    }

    /// Keeps the table: when this returns, it outlives a power cut.
    ///
    /// # Errors
    /// It does not fit, or the medium fails; then what was kept before still counts.
    pub(crate) fn keep(&mut self, table: &T) -> io::Result<()> {
        let number = self.number.saturating_add(1);
        let bytes = format(number, table)?;
        self.file.write_all_at(&bytes, place::<T>(number))?;
        self.file.sync_data()?;
        self.number = number;
        Ok(())
    }

    /// Writes to that file from now on: one that cannot be written to, in tests.
    #[cfg(test)]
    pub(crate) fn fail_with(&mut self, file: File) {
        self.file = file;
    }
}

fn place<T: Table>(number: u64) -> u64 {
    let [first, second] = T::PLACES;
    if number.is_multiple_of(2) { first } else { second }
}

fn read_place<T: Table>(file: &File, number: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; ROOM];
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, place::<T>(number) + u64::try_from(read).map_err(io::Error::other)?) {
            // A plain file ends where nothing was written yet.
            Ok(0) => break,
            Ok(length) => read += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

fn format<T: Table>(number: u64, table: &T) -> io::Result<Vec<u8>> {
    let table = postcard::to_allocvec(table).map_err(io::Error::other)?;
    if table.len() > ROOM - HEADER {
        return Err(io::Error::other(format!("the table of {} has grown too large", T::NAME)));
    }
    let length = u32::try_from(table.len()).map_err(io::Error::other)?;
    let mut bytes = [&number.to_be_bytes()[..], &length.to_be_bytes()].concat();
    bytes.extend(checksum(&bytes, &table));
    bytes.extend(table);
    // Whole sectors: part of one would have to be read before it is written.
    bytes.resize(bytes.len().next_multiple_of(4 << 10).min(ROOM), 0);
    Ok(bytes)
}

/// What a place holds, if it is whole.
fn parse<T: Table>(bytes: &[u8]) -> Option<(u64, T)> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let number = u64::from_be_bytes(header.get(..8)?.try_into().ok()?);
    let length = u32::from_be_bytes(header.get(8..12)?.try_into().ok()?);
    let table = rest.get(..usize::try_from(length).ok()?)?;
    let whole = header.get(12..)? == checksum(header.get(..12)?, table);
    let table = postcard::from_bytes(table).ok().filter(|_| whole && number > 0)?;
    Some((number, table))
}

fn checksum(header: &[u8], table: &[u8]) -> [u8; 32] {
    Blake2s256::new().chain_update(header).chain_update(table).finalize().into()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use cluster::words::{Claim, Generation, Incarnation, VmName};

    use super::super::claims::{Boot, Claimant, Claims};
    use super::*;

    fn claims(generation: u64) -> Claims {
        let mut claims = Claims::default();
        let boot = Boot { node: "node1".to_owned(), incarnation: Incarnation::new(5).unwrap() };
        let claim = Claim { epoch: claims.reserve(), generation: Generation(generation) };
        claims.claim("x0", &Claimant { vm: VmName::new("x0").unwrap(), claim, boot }, None, |_| false).unwrap();
        claims
    }

    fn medium() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        (directory, path)
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let (_directory, path) = medium();
        let (mut store, empty) = Store::open(&path).unwrap();
        assert_eq!(empty, Claims::default());
        for generation in 1..=5 {
            store.keep(&claims(generation)).unwrap();
            let (again, read) = Store::open(&path).unwrap();
            assert_eq!(read, claims(generation));
            store = again;
        }
    }

    #[test]
    fn a_torn_write_leaves_what_was_kept_before() {
        let (_directory, path) = medium();
        let (mut store, _) = Store::<Claims>::open(&path).unwrap();
        store.keep(&claims(1)).unwrap();
        store.keep(&claims(2)).unwrap();
        let after = std::fs::read(&path).unwrap();
        assert_eq!(Store::<Claims>::open(&path).unwrap().1, claims(2));
        let start = usize::try_from(place::<Claims>(2)).unwrap();
        let whole = HEADER + postcard::to_allocvec(&claims(2)).unwrap().len();
        for written in 0..whole {
            let mut bytes = after.clone();
            // Nothing was in that place before.
            bytes[start + written..start + whole].fill(0);
            std::fs::write(&path, &bytes).unwrap();
            let survives = if bytes == after { 2 } else { 1 };
            assert_eq!(Store::<Claims>::open(&path).unwrap().1, claims(survives), "{written} of {whole} bytes");
        }
    }

    #[test]
    fn a_damaged_medium_is_no_empty_one() {
        let (_directory, path) = medium();
        let (mut store, _) = Store::<Claims>::open(&path).unwrap();
        store.keep(&claims(1)).unwrap();
        let good = std::fs::read(&path).unwrap();
        let start = usize::try_from(place::<Claims>(1)).unwrap();
        let whole = HEADER + postcard::to_allocvec(&claims(1)).unwrap().len();
        for at in 0..whole {
            let mut bytes = good.clone();
            bytes[start + at] ^= 1 << (at % 8);
            std::fs::write(&path, bytes).unwrap();
            assert!(Store::<Claims>::open(&path).is_err(), "byte {at}");
        }
    }

    #[test]
    fn whatever_a_place_holds_is_a_table_or_none() {
        let mut seed = 7_u64;
        for length in 0..600 {
            let noise: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    seed.to_be_bytes()[0]
                })
                .collect();
            assert_eq!(parse::<Claims>(&noise), None);
        }
    }
}

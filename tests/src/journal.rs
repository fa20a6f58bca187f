//! The guests' journal: numbered, checksummed records on a disk, so that a lost, torn or doubled write shows.
//!
//! Record N lies at N times 512 bytes: magic, the boot that wrote it, N, the guest's uptime, and a CRC-32 over all of it.
//! A guest counts a record only when it is synchronised, and goes on after the last one that it finds.

use anyhow::{Result, bail, ensure};

/// Bytes of a record: one sector.
pub const RECORD: usize = 512;
const MAGIC: &[u8; 8] = b"HFJRNL01";

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The boot that wrote it.
    pub boot: u64,
    /// Its number, from 0.
    pub number: u64,
    /// The guest's uptime, in milliseconds.
    pub uptime_ms: u64,
}

impl Record {
    /// As it lies on the disk.
    pub fn encode(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        let fields =
            MAGIC.iter().copied().chain([self.boot, self.number, self.uptime_ms].map(u64::to_le_bytes).concat());
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        let (body, end) = bytes.split_at_mut(RECORD - 4);
        end.copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        bytes
    }

    /// From a disk; `None` if no whole record lies there.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.get(..RECORD)?.split_at(RECORD - 4);
        let sum = u32::from_le_bytes(sum.try_into().ok()?);
        let word = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
        let whole = body.starts_with(MAGIC) && crc32fast::hash(body) == sum;
        if whole { Some(Self { boot: word(8)?, number: word(16)?, uptime_ms: word(24)? }) } else { None }
    }
}

/// What a sound journal says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many records there are.
    pub records: u64,
    /// The boots that wrote them, in order.
    pub boots: Vec<u64>,
}

/// Reads a whole disk.
///
/// # Errors
/// A record is lost, torn, misplaced or written by a boot that another one had followed.
pub fn check(disk: &[u8]) -> Result<Report> {
    let slots = disk.chunks_exact(RECORD).map(Record::decode);
    let mut report = Report::default();
    let mut last: Option<Record> = None;
    let mut ended = false;
    for (number, slot) in (0..).zip(slots) {
        let Some(record) = slot else {
            ended = true;
            continue;
        };
        ensure!(!ended, "record {} is there, but {} before it is lost or torn", number, report.records);
        ensure!(record.number == number, "record {} lies in the place of {number}", record.number);
        match last {
            Some(last) if last.boot == record.boot => {
                ensure!(
                    last.uptime_ms <= record.uptime_ms,
                    "record {number} was written before the one in front of it"
                );
            }
            _ if report.boots.contains(&record.boot) => {
                bail!("record {number} was written by boot {:016x} after another had followed it", record.boot);
            }
            _ => report.boots.push(record.boot),
        }
        report.records = number + 1;
        last = Some(record);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(records: &[(u64, u64, u64)]) -> Vec<u8> {
        let encode = |(boot, number, uptime_ms): &(u64, u64, u64)| {
            Record { boot: *boot, number: *number, uptime_ms: *uptime_ms }.encode()
        };
        let mut disk = records.iter().map(encode).collect::<Vec<_>>().concat();
        disk.resize(disk.len() + 4 * RECORD, 0);
        disk
    }

    #[test]
    fn a_sound_journal_is_counted() {
        let report = check(&disk(&[(7, 0, 10), (7, 1, 20), (9, 2, 5)])).unwrap();
        assert_eq!(report, Report { records: 3, boots: vec![7, 9] });
        assert_eq!(check(&[0; 4 * RECORD]).unwrap(), Report::default());
    }

    #[test]
    fn every_kind_of_damage_is_told() {
        let mut torn = disk(&[(7, 0, 10), (7, 1, 20), (7, 2, 30)]);
        torn[RECORD + 100] ^= 1;
        assert!(check(&torn).unwrap_err().to_string().contains("lost or torn"));
        let doubled = disk(&[(7, 0, 10), (9, 1, 5), (7, 2, 30)]);
        assert!(check(&doubled).unwrap_err().to_string().contains("after another"));
        assert!(check(&disk(&[(7, 1, 10)])).unwrap_err().to_string().contains("in the place of"));
        assert!(check(&disk(&[(7, 0, 10), (7, 1, 9)])).unwrap_err().to_string().contains("before the one"));
    }
}

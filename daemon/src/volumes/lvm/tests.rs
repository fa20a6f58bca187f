//! What Debian's lvm2 2.03.16 has printed, read.

use super::{Found, Report, Volume, parse, said};

/// A group with a volume of ours, a snapshot of it, and another's volume (with device mapper 4.47).
const SNAPSHOT: &str = include_str!("recorded/snapshot.json");
/// A group of two disks of which one is missing.
const MISSING: &str = include_str!("recorded/missing.json");
/// Two groups of our name.
const TWO: &str = include_str!("recorded/two.json");
/// A disk of a group whose records are spoiled.
const DAMAGED: &str = include_str!("recorded/damaged.json");
/// No disk at all.
const NONE: &str = include_str!("recorded/none.json");

#[test]
fn only_what_bears_our_tag_is_ours() {
    let report = parse(SNAPSHOT).unwrap();
    let volume = |name: &str, bytes, origin: Option<&str>| Volume {
        name: name.to_owned(),
        bytes,
        origin: origin.map(str::to_owned),
        problem: None,
    };
    let expected = Report {
        group: Some(Found { bytes: 310_378_496, free: 213_909_504, missing: 0 }),
        disks: vec!["/dev/ubdb".to_owned()],
        damaged: vec![],
        volumes: vec![volume("x0", 41_943_040, None), volume("x0-snap1", 46_137_344, Some("x0"))],
        names: ["foreign", "x0", "x0-snap1"].map(str::to_owned).to_vec(),
    };
    assert_eq!(report, expected);
    assert_eq!(report.problem(), None);
    assert_eq!(parse(NONE), Ok(Report::default()));
}

#[test]
fn a_disk_that_is_missing_is_said() {
    let report = parse(MISSING).unwrap();
    assert_eq!(report.group.unwrap().missing, 1);
    assert!(report.problem().unwrap().starts_with("1 of the volume group's disks are missing"));
    assert!(report.volumes.iter().all(|volume| volume.problem.as_deref() == Some("partial")));
}

#[test]
fn what_cannot_be_told_apart_or_read_is_said() {
    assert_eq!(parse(TWO), Err("two volume groups are called holdfast: take the disks of one out".to_owned()));
    let damaged = parse(DAMAGED).unwrap();
    assert_eq!((damaged.group, damaged.damaged.as_slice()), (None, &["/dev/loop2".to_owned()][..]));
    assert!(damaged.problem().unwrap().contains("/dev/loop2 cannot be read"));
}

#[test]
fn whatever_it_prints_is_a_report_or_none() {
    for text in [SNAPSHOT, MISSING, TWO] {
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            let cut = &text[..end];
            assert!(cut.trim_end() == text.trim_end() || parse(cut).is_err(), "{cut}");
        }
        let mut seed = 7_u64;
        for _ in 0..2000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut bytes = text.as_bytes().to_vec();
            let at = usize::try_from(seed >> 33).unwrap() % bytes.len();
            bytes[at] ^= 1 << (seed >> 20 & 6);
            // It is read, or refused; it does not panic.
            let _ = parse(&String::from_utf8_lossy(&bytes));
        }
    }
    for odd in [
        "",
        "null",
        "{}",
        "{\"report\":[{\"vg\":[{\"vg_name\":\"holdfast\"}]}]}",
        "{\"report\":[{\"vg\":[{\"vg_name\":1}]}]}",
    ] {
        assert!(parse(odd).is_err(), "{odd}");
    }
}

#[test]
fn what_it_says_is_cut_to_what_is_wrong() {
    let words = "  WARNING: Metadata changes will NOT be backed up\n  Volume group \"holdfast\" has insufficient free space \
                 (38 extents): 51200 required.\n";
    assert_eq!(said(words), "Volume group \"holdfast\" has insufficient free space (38 extents): 51200 required.");
    assert_eq!(said("  WARNING: x\n"), "it does not say why");
    assert_eq!(said(&"long ".repeat(1000)).chars().count(), super::WORDS);
}

//! Debian's own `mkfs.gfs2` and `fsck.gfs2`, at work on files.

use super::*;

fn superblock(protocol: &str, table: &str) -> [u8; 512] {
    let mut block = [0; 512];
    block[..4].copy_from_slice(&MAGIC);
    block[PROTOCOL..PROTOCOL + protocol.len()].copy_from_slice(protocol.as_bytes());
    block[TABLE..TABLE + table.len()].copy_from_slice(table.as_bytes());
    block
}

#[test]
fn only_this_clusters_file_system_is_taken() {
    for purpose in [Use::Mount, Use::Check] {
        assert_eq!(judge(&superblock("lock_dlm", "lab:shared"), "lab:shared", purpose), Ok(()));
        for (block, says) in [
            ([0; 512], "it carries no GFS2"),
            (superblock("lock_nolock", ""), "lock_nolock"),
            (superblock("lock_dlm", "lab2:shared"), "lab2:shared"),
            (superblock("fsck_dlm", "lab2:shared"), "lab2:shared"),
            (superblock("lock_dlm", "lab:share"), "another cluster's"),
        ] {
            let problem = judge(&block, "lab:shared", purpose).unwrap_err();
            assert!(problem.contains(says), "{problem}");
        }
    }
}

#[test]
fn one_whose_repair_was_cut_short_is_not_mounted_and_can_be_checked() {
    let block = superblock("fsck_dlm", "lab:shared");
    assert_eq!(judge(&block, "lab:shared", Use::Check), Ok(()));
    let problem = judge(&block, "lab:shared", Use::Mount).unwrap_err();
    assert!(problem.contains("cut short"), "{problem}");
}

#[test]
fn every_exit_status_has_a_meaning() {
    let says = |code: i32, repair| outcome(ExitStatus::from_raw(code << 8), repair);
    assert!(says(0, false).contains("in order") && says(0, true).contains("in order"));
    assert!(says(4, false).contains("nothing was changed"));
    assert!(says(1, true).contains("were repaired") && says(3, true).contains("were repaired"));
    assert!(says(4, true).contains("could not be repaired") && says(5, true).contains("could not be repaired"));
    assert!(says(8, false).contains("without changing anything"));
    for code in [8, 9, 16, 32, 128] {
        assert!(says(code, true).contains("not finished"), "{code}");
    }
    assert!(outcome(ExitStatus::from_raw(11), true).contains("signal 11"));
}

#[test]
fn what_a_program_says_is_cut_and_harmless() {
    assert_eq!(said(b""), "");
    assert_eq!(said(b"one\n\n  two\x1b[2J\n"), "\none\ntwo [2J");
    let long = said("x\n".repeat(9).as_bytes());
    assert!(long.ends_with("\nx\n(3 more lines)"), "{long}");
    assert!(said(&[0xff; 4000]).len() < 1000);
}

/// A file system in a file, as the gateway makes it.
pub(crate) fn made(path: &Path, cluster: &str) {
    File::create(path).unwrap().set_len(128 << 20).unwrap();
    let table = table(cluster);
    let arguments = ["-O", "-q", "-K", "-p", "lock_dlm", "-t", &table, "-j", "2", "-J", JOURNAL];
    let made = Command::new("/usr/sbin/mkfs.gfs2").args(arguments).arg(path).output();
    let made = made.expect("mkfs.gfs2 is missing: apt-get install gfs2-utils");
    assert!(made.status.success(), "{made:?}");
}

/// Destroys the first journal of a file system that was just made.
pub(crate) fn damage(path: &Path) {
    const JOURNAL_INODE: u64 = 18 * 4096;
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0xa5; 4096], JOURNAL_INODE).unwrap();
}

#[test]
fn errors_are_found_told_and_repaired() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    made(&disk, "lab");
    assert_eq!(check(&disk, "lab:shared", false).unwrap(), "The file system is in order.");
    damage(&disk);
    let damaged = fs::read(&disk).unwrap();
    let found = check(&disk, "lab:shared", false).unwrap();
    assert!(found.starts_with("There are errors; nothing was changed (status 4).\n"), "{found}");
    assert!(fs::read(&disk).unwrap() == damaged, "nothing was changed");
    let repaired = check(&disk, "lab:shared", true).unwrap();
    assert!(repaired.starts_with("There were errors, and they were repaired (status 1)."), "{repaired}");
    assert_eq!(check(&disk, "lab:shared", true).unwrap(), "The file system is in order.");
    check_superblock(&disk, "lab:shared").unwrap();
}

#[test]
fn what_is_not_ours_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    made(&disk, "lab");
    damage(&disk);
    let before = fs::read(&disk).unwrap();
    for (device, cluster) in [(&disk, "other"), (&directory.path().join("none"), "lab")] {
        assert!(check(device, &table(cluster), true).is_err());
    }
    assert!(fs::read(&disk).unwrap() == before);
}

#[test]
fn journals_are_added_only_where_it_is_mounted() {
    assert!(!is_mounted(), "this machine has a /shared");
    assert!(add_journals(1).is_err());
}

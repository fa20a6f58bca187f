//! Names and sizes, judged; and the volume group of real disks, with Debian's lvm2.

use std::os::unix::fs::FileExt;

use super::tests_bench::{Bench, has_mapper};
use super::*;

fn site(name: &str, device: &str) -> Export {
    Export { name: name.to_owned(), device: device.to_owned(), read_only: false }
}

#[test]
fn a_size_is_digits_and_a_unit() {
    for (typed, expected) in
        [("1M", Some(1)), ("20G", Some(20 << 10)), ("2t", Some(2 << 20)), ("007m", Some(7)), ("1024T", Some(1 << 30))]
    {
        assert_eq!(parse_size(typed).ok(), expected, "{typed}");
    }
    for typed in [
        "",
        "G",
        "20",
        "0G",
        "-1G",
        "+1G",
        "1.5G",
        "1 G",
        "1GG",
        "1K",
        "1Gi",
        "1025T",
        "99999999999999999999T",
        "١G",
        "1М",
    ] {
        assert!(parse_size(typed).is_err(), "{typed}");
    }
}

#[test]
fn a_name_is_one_that_every_part_takes() {
    assert_eq!(parse_new("  web   20G "), Ok(("web".to_owned(), 20 << 10)));
    assert!(parse_new(&format!("{} 1M", "a".repeat(24))).is_ok());
    let long = format!("{} 1M", "a".repeat(25));
    for typed in [
        "",
        "web",
        "20G",
        "web 20G now",
        "web20G",
        "-web 1G",
        "_web 1G",
        "../x 1G",
        "a/b 1G",
        "é 1G",
        "a.b 1G",
        "@x 1G",
        &long,
        "x0-snap1 1G",
        "shared 1G",
        "import 1G",
    ] {
        assert!(parse_new(typed).is_err(), "{typed}");
    }
    let longest = format!("{}{SNAPSHOT}{SNAPSHOTS}", "a".repeat(NAME_LENGTH));
    assert!(is_plain(&longest) && is_snapshot(&longest), "a snapshot's name is an export's too");
    assert!(!is_snapshot("x0-snap") && !is_snapshot("snap1") && !is_snapshot("x0-snap1a"));
}

/// Whatever is typed is a name and a size, or refused.
#[test]
fn whatever_is_typed_is_judged() {
    let mut seed = 5_u64;
    let letters: Vec<char> = "ab09-_ .GMTk/\u{e9}\u{0}'\"".chars().collect();
    for _ in 0..20_000 {
        let mut typed = String::new();
        for _ in 0..12 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            typed.push(letters[usize::try_from(seed >> 40).unwrap() % letters.len()]);
        }
        if let Ok((name, mib)) = parse_new(&typed) {
            assert!(is_plain(&name) && (1..=LARGEST).contains(&mib), "{typed}");
        }
    }
}

#[test]
fn a_group_is_made_of_a_blank_disk_and_its_volumes_come_and_go() {
    let bench = Bench::new(&[128, 64]);
    let group = bench.group(&[site("x0", "/dev/disk/none")]);
    let [first, second] = bench.disks.as_slice() else { panic!() };
    let report = group.report().unwrap();
    assert_eq!(report, Report::default());
    assert_eq!(group.create(&report, "web 8M"), Err("there is no volume group yet".to_owned()));
    assert_eq!(group.take(&report, first, true, second), Err(format!("\"{second}\" is not its name")));
    group.take(&report, first, true, first).unwrap();

    let report = group.report().unwrap();
    let found = report.group.unwrap();
    assert_eq!((found.missing, found.bytes, found.free), (0, 124 << 20, 124 << 20));
    assert_eq!(report.disks, [format!("/dev/{first}")]);
    let free: Vec<String> = group.free_disks(&report).into_iter().map(|disk| disk.name).collect();
    assert_eq!(free, std::slice::from_ref(second), "what is in the group is not to be taken");

    assert_eq!(group.create(&report, "web 40M"), Ok("web".to_owned()));
    let report = group.report().unwrap();
    assert_eq!(report.volume("web").unwrap().bytes, 40 << 20);
    assert_eq!(group.create(&report, "web 8M"), Err("there is a volume web".to_owned()));
    assert_eq!(group.create(&report, "x0 8M"), Err("cluster.toml names an export x0".to_owned()));
    assert_eq!(group.create(&report, "big 1G"), Err("1.0 GiB are asked for, and 84 MiB are free".to_owned()));
    assert_eq!(group.grow(&report, "web", "40M"), Err("it has 40 MiB already".to_owned()));
    assert_eq!(group.grow(&report, "wib", "50M"), Err("there is no volume wib".to_owned()));
    assert_eq!(group.grow(&report, "web", "400M"), Err("360 MiB are asked for, and 84 MiB are free".to_owned()));
    group.grow(&report, "web", "80M").unwrap();

    group.take(&group.report().unwrap(), second, true, second).unwrap();
    let report = group.report().unwrap();
    assert_eq!(report.volume("web").unwrap().bytes, 80 << 20);
    assert_eq!(report.group.unwrap().free, (44 + 60) << 20);
    assert_eq!(Group::may_delete(&report, "web", "wev"), Err("\"wev\" is not its name".to_owned()));
    Group::may_delete(&report, "web", "web").unwrap();
    group.delete("web").unwrap();
    assert_eq!(group.report().unwrap().volumes, []);
}

#[test]
fn a_disk_with_data_is_lost_only_by_who_was_told() {
    let bench = Bench::new(&[64]);
    let group = bench.group(&[]);
    let disk = &bench.disks[0];
    let device = fs::OpenOptions::new().read(true).write(true).open(format!("/dev/{disk}")).unwrap();
    let data = [1; 16];
    for at in [0, 446, 510, 1024, 32 << 10, 64 << 10, (4 << 20) - 16, (63 << 20), (64 << 20) - 16] {
        device.write_all_at(&data, at).unwrap();
        let report = group.report().unwrap();
        assert!(!group.free_disks(&report)[0].blank, "data at {at}");
        assert_eq!(group.take(&report, disk, true, disk), Err(format!("{disk} is not blank any more: look again")));
        let mut kept = [0; 16];
        device.read_exact_at(&mut kept, at).unwrap();
        assert_eq!(kept, data, "nothing is written");
        disks::wipe(&bench.sys(), Path::new("/dev"), disk).unwrap();
        assert!(group.free_disks(&report)[0].blank, "wiped at {at}");
    }
    device.write_all_at(&data, 1024).unwrap();
    group.take(&group.report().unwrap(), disk, false, disk).unwrap();
    assert!(group.report().unwrap().group.is_some());
}

#[test]
fn what_has_another_use_is_no_disk_for_a_group() {
    let bench = Bench::new(&[16, 16, 16, 16, 16]);
    let [named, state, identity, boot, free] = bench.disks.as_slice() else { panic!() };
    let write = |disk: &String, bytes: &[u8], at| {
        fs::OpenOptions::new().write(true).open(format!("/dev/{disk}")).unwrap().write_all_at(bytes, at).unwrap();
    };
    write(state, b"HOLDFAST STATE 1", 0);
    write(identity, b"HOLDFAST SELF  1", 0);
    for (at, bytes) in [(510, &[0x55, 0xaa][..]), (54, b"FAT16   "), (43, b"HOLDFAST   ")] {
        write(boot, bytes, at);
    }
    // By a link, as `/dev/disk` has them.
    let link = bench.sys().join("link");
    std::os::unix::fs::symlink(format!("/dev/{named}"), &link).unwrap();
    let group = bench.group(&[site("x0", &link.display().to_string())]);
    let found: Vec<String> = group.free_disks(&Report::default()).into_iter().map(|disk| disk.name).collect();
    assert_eq!(found, std::slice::from_ref(free));
    for disk in [named, state, identity, boot] {
        let refused = group.take(&Report::default(), disk, false, disk);
        assert_eq!(refused, Err(format!("{disk} cannot be taken: it is not there, or has another use")));
    }
    for (word, disk) in [("removable", free), ("ro", free)] {
        fs::write(bench.sys().join(disk).join(word), "1\n").unwrap();
        assert_eq!(group.free_disks(&Report::default()), []);
        fs::write(bench.sys().join(disk).join(word), "0\n").unwrap();
    }
}

/// A guest's own volume group on its disk, even one of our name, is never seen.
#[test]
fn what_guests_write_to_their_disks_does_not_count() {
    let bench = Bench::new(&[64, 64]);
    let [guests, ours] = bench.disks.as_slice() else { panic!() };
    let group = bench.group(&[]);
    group.take(&Report::default(), guests, true, guests).unwrap();
    let group = bench.group(&[site("x0", &format!("/dev/{guests}"))]);
    assert_eq!(group.report().unwrap(), Report::default());
    group.take(&Report::default(), ours, true, ours).unwrap();
    assert_eq!(group.report().unwrap().disks, [format!("/dev/{ours}")]);
}

#[test]
fn a_group_with_a_disk_missing_is_said_and_not_changed() {
    let bench = Bench::new(&[64, 64, 64]);
    let [gone, there, other] = bench.disks.as_slice() else { panic!() };
    let group = bench.group(&[]);
    for disk in [gone, there] {
        group.take(&group.report().unwrap(), disk, true, disk).unwrap();
    }
    let before = fs::read(format!("/dev/{there}")).unwrap();
    // As if it were not plugged in.
    let group = bench.group(&[site("x0", &format!("/dev/{gone}"))]);
    let report = group.report().unwrap();
    assert_eq!(report.group.unwrap().missing, 1);
    assert!(report.problem().unwrap().starts_with("1 of the volume group's disks are missing"));
    assert_eq!(group.activate(&report), Err(report.problem().unwrap()));
    assert!(group.create(&report, "web 8M").unwrap_err().contains("missing"), "LVM itself refuses it");
    assert!(group.take(&report, other, true, other).unwrap_err().contains("missing"));
    assert!(fs::read(format!("/dev/{there}")).unwrap() == before, "nothing is written");
}

#[test]
fn a_damaged_group_is_said_and_not_written_to() {
    let bench = Bench::new(&[64]);
    let disk = &bench.disks[0];
    let group = bench.group(&[]);
    group.take(&Report::default(), disk, true, disk).unwrap();
    let device = fs::OpenOptions::new().write(true).open(format!("/dev/{disk}")).unwrap();
    device.write_all_at(&[0x5a; 8192], 4096).unwrap();
    device.sync_all().unwrap();
    let before = fs::read(format!("/dev/{disk}")).unwrap();
    let report = group.report().unwrap();
    assert_eq!(
        report.problem().unwrap(),
        format!("the volume group on /dev/{disk} cannot be read; nothing is written to it")
    );
    assert!(group.activate(&report).is_err());
    assert!(group.create(&report, "web 8M").is_err());
    assert!(fs::read(format!("/dev/{disk}")).unwrap() == before);
    group.take(&report, disk, false, disk).unwrap();
    assert_eq!(group.report().unwrap().problem(), None, "it was given up by who was told");
}

#[test]
fn what_cluster_toml_names_comes_before_a_volume_of_that_name() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["x0", "web", "web-snap2", "a.b", "-x"] {
        fs::write(directory.path().join(name), "").unwrap();
    }
    let served = served(&[site("x0", "/dev/null"), site("gone", "/dev/disk/none")], directory.path());
    let served: Vec<_> = served.iter().map(|export| (export.name.as_str(), export.read_only)).collect();
    assert_eq!(served, [("x0", false), ("web", false), ("web-snap2", true)]);
    assert_eq!(super::served(&[site("x0", "/dev/null")], directory.path())[0].device, "/dev/null");
}

/// With a device mapper only: what the kernel makes of it.
#[test]
fn volumes_are_devices_and_come_back_after_a_reboot() {
    if !has_mapper() {
        return;
    }
    let bench = Bench::new(&[256]);
    let group = bench.group(&[]);
    let disk = &bench.disks[0];
    let directory = Path::new(DIRECTORY);
    group.take(&Report::default(), disk, true, disk).unwrap();
    group.create(&group.report().unwrap(), "web 40M").unwrap();
    let open = || fs::OpenOptions::new().read(true).write(true).open(directory.join("web"));
    open().unwrap().write_all_at(b"before", 8192).unwrap();
    assert_eq!(group.snapshot(&group.report().unwrap(), "web"), Ok("web-snap1".to_owned()));
    assert_eq!(group.snapshot(&group.report().unwrap(), "web"), Ok("web-snap2".to_owned()));
    open().unwrap().write_all_at(b"after ", 8192).unwrap();
    let read = |name: &str| {
        let mut text = [0; 6];
        fs::File::open(directory.join(name)).unwrap().read_exact_at(&mut text, 8192).unwrap();
        String::from_utf8(text.to_vec()).unwrap()
    };
    let exports = |directory| exports(directory).into_iter().map(|export| (export.name, export.read_only));
    let expected = [("web", false), ("web-snap1", true), ("web-snap2", true)].map(|(name, ro)| (name.to_owned(), ro));
    for _ in 0..2 {
        assert_eq!(exports(directory).collect::<Vec<_>>(), expected);
        assert_eq!((read("web").as_str(), read("web-snap1").as_str()), ("after ", "before"));
        let written = fs::OpenOptions::new().write(true).open(directory.join("web-snap1"));
        let written = written.and_then(|device| device.write_all_at(b"later", 0));
        assert!(written.is_err(), "it can only be read");
        bench.power_off();
        assert_eq!(exports(directory).count(), 0);
        group.activate(&group.report().unwrap()).unwrap();
    }
    let report = group.report().unwrap();
    assert_eq!(group.snapshot(&report, "web-snap1"), Err("web-snap1 is a snapshot of web".to_owned()));
    assert_eq!(group.grow(&report, "web", "60M"), Err("there is a snapshot web-snap1: delete it first".to_owned()));
    assert!(Group::may_delete(&report, "web", "web").is_err());
    let held = open().unwrap();
    for snapshot in ["web-snap1", "web-snap2"] {
        group.delete(snapshot).unwrap();
    }
    assert_eq!(group.delete("web"), Err("lvm lvremove: Logical volume holdfast/web in use.".to_owned()));
    drop(held);
    group.grow(&group.report().unwrap(), "web", "60M").unwrap();
    assert_eq!(disks::look(&bench.sys(), directory, "web").unwrap().bytes, 60 << 20);
    group.delete("web").unwrap();
    assert_eq!(exports(directory).count(), 0);
}

//! Debian's `lvm`, called without a shell: its command lines, and its report, which is read whole or not at all.
//!
//! It has no configuration but what stands in its command line: no udev, no daemon, no file of devices, no copies of its
//! records outside the disks; and it sees no disk but those it is given, so that what guests write to theirs never counts.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use super::NAME;

/// The program.
pub(crate) const PROGRAM: &str = "/sbin/lvm";
/// Characters of what it says that are kept.
const WORDS: usize = 300;
/// How it behaves, but for what it may see.
const SETTINGS: &str = "activation { udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0 } \
    global { use_lvmpolld=0 event_activation=0 system_id_source=\"none\" locking_dir=\"/run/lock/lvm\" } \
    backup { backup=0 archive=0 } log { syslog=0 } ";
/// How its report is asked for: everything in bytes, and nothing that we do not read but what it insists on.
const REPORT: [&str; 14] = [
    "fullreport",
    "--reportformat=json",
    "--units=b",
    "--nosuffix",
    "--configreport=vg",
    "-ovg_name,vg_size,vg_free,vg_missing_pv_count",
    "--configreport=pv",
    "-opv_name,pv_in_use",
    "--configreport=lv",
    "-olv_name,lv_size,lv_tags,origin,lv_health_status",
    "--configreport=pvseg",
    "-opvseg_size",
    "--configreport=seg",
    "-oseg_size",
];

/// The program.
#[derive(Debug, Default)]
pub(super) struct Lvm {
    /// What is set besides: that there is no device mapper, where tests have none.
    pub(super) settings: &'static str,
    /// What `lvcreate` is told besides.
    pub(super) words: &'static [&'static str],
}

/// What is on the disks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// The volume group, if there is one.
    pub(crate) group: Option<Found>,
    /// The disks that it is made of, as far as they are there: `/dev/sdb`.
    pub(crate) disks: Vec<String>,
    /// The disks whose volume group cannot be read.
    pub(crate) damaged: Vec<String>,
    /// Our volumes in it.
    pub(crate) volumes: Vec<Volume>,
    /// The names of all volumes in it, also of those that are not ours.
    pub(crate) names: Vec<String>,
}

/// The volume group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its size, in bytes.
    pub(crate) bytes: u64,
    /// How much of it no volume has, in bytes.
    pub(crate) free: u64,
    /// How many of its disks are missing.
    pub(crate) missing: u64,
}

/// A volume of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Its name, which is its export's.
    pub(crate) name: String,
    /// How much of the group it has, in bytes.
    pub(crate) bytes: u64,
    /// Of which one it is a snapshot.
    pub(crate) origin: Option<String>,
    /// What LVM says is wrong with it.
    pub(crate) problem: Option<String>,
}

impl Lvm {
    pub(super) fn report(&self, disks: &[String]) -> Result<Report, String> {
        parse(&self.run(disks, &REPORT)?)
    }

    pub(super) fn activate(&self, disks: &[String]) -> Result<(), String> {
        self.run(disks, &["lvchange", "--activate=y", "--select=lv_tags=holdfast", NAME]).map(drop)
    }

    /// Makes the group of a disk that is blank, or takes it into the group.
    pub(super) fn take(&self, disks: &[String], disk: &str, new: bool) -> Result<(), String> {
        let command = if new { "vgcreate" } else { "vgextend" };
        self.run(disks, &[command, "--yes", NAME, &format!("/dev/{disk}")]).map(drop)
    }

    pub(super) fn create(&self, disks: &[String], name: &str, mib: u64) -> Result<(), String> {
        let size = format!("--size={mib}m");
        let words = ["lvcreate", "--yes", "--addtag=holdfast", &format!("--name={name}"), &size];
        self.run(disks, &[&words[..], self.words, &[NAME]].concat()).map(drop)
    }

    pub(super) fn grow(&self, disks: &[String], name: &str, mib: u64) -> Result<(), String> {
        self.run(disks, &["lvextend", "--yes", &format!("--size={mib}m"), &path(name)]).map(drop)
    }

    /// As large as its origin, so that it never fills.
    pub(super) fn snapshot(&self, disks: &[String], origin: &str, name: &str) -> Result<(), String> {
        let words = ["lvcreate", "--yes", "--snapshot", "--permission=r", "--addtag=holdfast", "--extents=100%ORIGIN"];
        self.run(disks, &[&words[..], &[&format!("--name={name}"), &path(origin)]].concat()).map(drop)
    }

    pub(super) fn delete(&self, disks: &[String], name: &str) -> Result<(), String> {
        self.run(disks, &["lvremove", "--yes", &path(name)]).map(drop)
    }

    /// Runs it, the command before its settings; gives its output.
    fn run(&self, disks: &[String], words: &[&str]) -> Result<String, String> {
        let (command, rest) = words.split_first().unwrap_or((&"version", &[]));
        let mut lvm = Command::new(PROGRAM);
        lvm.args([command, "--config", &self.settings(disks)]).args(rest).stdin(Stdio::null()).env_clear();
        lvm.envs([("LVM_SYSTEM_DIR", ""), ("LVM_SUPPRESS_FD_WARNINGS", "1")]);
        let ended = lvm.output().map_err(|error| format!("{PROGRAM}: {error}"))?;
        if ended.status.success() {
            return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
        }
        Err(format!("lvm {command}: {}", said(&String::from_utf8_lossy(&ended.stderr))))
    }

    fn settings(&self, disks: &[String]) -> String {
        let seen: String = disks.iter().map(|disk| format!("\"a|^/dev/{disk}$|\",")).collect();
        let devices = format!(
            "devices {{ filter=[{seen}\"r|.*|\"] use_devicesfile=0 scan_lvs=0 hints=\"none\" \
             obtain_device_list_from_udev=0 external_device_info_source=\"none\" }}"
        );
        [SETTINGS, &devices, self.settings].concat()
    }
}

fn path(name: &str) -> String {
    format!("{NAME}/{name}")
}

/// What it says that is wrong, in a line.
fn said(words: &str) -> String {
    let lines = words.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("WARNING"));
    let line = lines.collect::<Vec<_>>().join(" ");
    if line.is_empty() { "it does not say why".to_owned() } else { line.chars().take(WORDS).collect() }
}

type Row = BTreeMap<String, String>;

/// Reads a report.
fn parse(json: &str) -> Result<Report, String> {
    let no = || "lvm's report is not understood".to_owned();
    let mut sections: BTreeMap<String, Vec<BTreeMap<String, Vec<Row>>>> =
        serde_json::from_slice(json.as_bytes()).map_err(|_| no())?;
    let mut report = Report::default();
    for section in sections.remove("report").ok_or_else(no)? {
        let rows = |of: &str| section.get(of).map(Vec::as_slice).unwrap_or_default();
        let disks = rows("pv");
        let Some(group) = rows("vg").first() else {
            for disk in disks.iter().filter(|disk| text(disk, "pv_in_use").is_some_and(|word| word == "used")) {
                report.damaged.push(text(disk, "pv_name").ok_or_else(no)?);
            }
            continue;
        };
        // What others call theirs is none of ours.
        if group.get("vg_name").is_none_or(|name| name != NAME) {
            continue;
        }
        if report.group.is_some() {
            return Err(format!("two volume groups are called {NAME}: take the disks of one out"));
        }
        let number = |word| number(group, word).ok_or_else(no);
        report.group = Some(Found {
            bytes: number("vg_size")?,
            free: number("vg_free")?,
            missing: number("vg_missing_pv_count")?,
        });
        report.disks.extend(disks.iter().filter_map(|disk| text(disk, "pv_name")));
        for row in rows("lv") {
            let volume = volume(row).ok_or_else(no)?;
            report.names.push(volume.name.clone());
            if row.get("lv_tags").is_some_and(|tags| tags.split(',').any(|tag| tag == NAME)) {
                report.volumes.push(volume);
            }
        }
    }
    Ok(report)
}

fn volume(row: &Row) -> Option<Volume> {
    let (origin, problem) = (text(row, "origin"), text(row, "lv_health_status"));
    Some(Volume { name: text(row, "lv_name")?, bytes: number(row, "lv_size")?, origin, problem })
}

/// What stands there, if anything does.
fn text(row: &Row, word: &str) -> Option<String> {
    row.get(word).filter(|text| !text.is_empty()).cloned()
}

fn number(row: &Row, word: &str) -> Option<u64> {
    row.get(word)?.parse().ok()
}

impl Report {
    /// What is wrong with the group, in words for the operator.
    pub(crate) fn problem(&self) -> Option<String> {
        match (self.group, self.damaged.as_slice()) {
            (_, damaged @ [_, ..]) => {
                Some(format!("the volume group on {} cannot be read; nothing is written to it", damaged.join(", ")))
            }
            (Some(Found { missing: 0, .. }) | None, []) => None,
            (Some(Found { missing, .. }), []) => Some(format!(
                "{missing} of the volume group's disks are missing: what has a part there is not served, and nothing is \
                 changed until they are back"
            )),
        }
    }
}

#[cfg(test)]
mod tests;

//! The VM files: the servant that mounts the shared file system and tells the node which VMs there are, and what the operator
//! has decided of them; and what operations read of one file.
//!
//! A file counts when `xl` itself takes it, in a dry run. One that it refuses is said once, and does not stop the others.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cluster::config::{Config, Decisions, FileSystem, SHARED, VmSpec};
use cluster::event::{Event, VmFile};
use cluster::limits;
use cluster::words::{Edition, Instant, Mebibytes, VmName};
use rustix::mount::{MountFlags, mount};
use serde::Deserialize;

use super::child::xl;
use super::clock::now;
use super::decisions;
use super::import;
use super::mailbox::{Post, Told};
use super::storage::{self, Disks};
use crate::gfs2::{MOUNT, is_mounted};
use crate::roster::Current;

/// Where the VM files are.
pub(super) const FILES: &str = "/shared/vms";
/// Where the images of suspended VMs are.
pub(super) const IMAGES: &str = "/shared/suspended";
/// What a VM's file is called that says what the operator wants for it, behind the VM's name.
const WANTS: &str = ".ha.toml";
/// Between two looks at the files, and between two attempts to mount what they are on.
const LOOK: Duration = Duration::from_secs(5);
/// Between two looks whether they are there.
const GLANCE: Duration = Duration::from_millis(100);
/// How long the disk of the shared file system may take to come, and a dry run may take, in emulation.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a VM file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    /// What it needs of Xen's memory.
    memory: Mebibytes,
    /// The block devices that it names.
    disks: Vec<String>,
}

impl Parsed {
    /// The network disks that it names.
    pub(super) fn network_disks(&self) -> Vec<String> {
        storage::names(&self.disks)
    }
}

/// The file of a VM.
pub(super) fn path_of(vm: &VmName) -> PathBuf {
    Path::new(FILES).join(vm.as_str())
}

/// Where the image of a suspended VM is.
pub(super) fn image_of(vm: &VmName) -> PathBuf {
    Path::new(IMAGES).join(vm.as_str())
}

/// Waits until the shared file system is there: an order may come before it.
///
/// # Errors
/// It did not come before `deadline`.
pub(super) fn wait_for_them(deadline: Instant) -> Result<(), String> {
    while !Path::new(FILES).is_dir() {
        if now() >= deadline {
            return Err(format!("{FILES} is not there: no shared file system"));
        }
        thread::sleep(GLANCE);
    }
    Ok(())
}

/// What `xl` makes of a VM's file.
///
/// # Errors
/// Why it refuses it, in words for the operator.
pub(super) fn parse(vm: &VmName) -> Result<Parsed, String> {
    let path = path_of(vm);
    let mut arguments = vec![OsStr::new("create"), OsStr::new("-n"), path.as_os_str()];
    let of_type = type_override(&path)?;
    arguments.extend(of_type.map(OsStr::new));
    let parsed = understand(&xl(arguments, now() + PATIENCE)?)?;
    if parsed.name == vm.as_str() {
        return Ok(parsed.parsed);
    }
    Err(format!("it names the VM `{}`: write name = \"{vm}\", or rename the file", parsed.name))
}

/// What the command line of `xl create` adds to a file that names no type.
///
/// # Errors
/// The file cannot be read, in words for the operator.
pub(super) fn type_override(path: &Path) -> Result<Option<&'static str>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(pvh_unless_said(&text))
}

fn pvh_unless_said(text: &str) -> Option<&'static str> {
    let names_type = |line: &str| {
        let key = line.split('=').next().unwrap_or_default().trim();
        line.contains('=') && matches!(key, "type" | "builder")
    };
    (!text.lines().any(names_type)).then_some("type=\"pvh\"")
}

struct Understood {
    name: String,
    parsed: Parsed,
}

/// What matters of libxl's `libxl_domain_config` in JSON.
#[derive(Deserialize)]
struct DomainConfig {
    c_info: CreateInfo,
    b_info: BuildInfo,
    #[serde(default)]
    disks: Vec<Disk>,
}

#[derive(Deserialize)]
struct CreateInfo {
    name: String,
}

#[derive(Deserialize)]
struct BuildInfo {
    max_memkb: u64,
}

#[derive(Deserialize)]
struct Disk {
    #[serde(default)]
    pdev_path: String,
}

/// Reads what `xl create -n` prints: a line or two of words, then JSON.
fn understand(printed: &str) -> Result<Understood, String> {
    let start = printed.find('{').ok_or("xl says nothing of it")?;
    let json = printed.get(start..).unwrap_or_default();
    let config: DomainConfig =
        serde_json::from_str(json).map_err(|error| format!("xl's description of it: {error}"))?;
    let memory = u32::try_from(config.b_info.max_memkb.div_ceil(1024)).map_err(|_| "it wants too much memory")?;
    Ok(Understood {
        name: config.c_info.name,
        parsed: Parsed {
            memory: Mebibytes(memory),
            disks: config.disks.into_iter().map(|disk| disk.pdev_path).collect(),
        },
    })
}

/// Waits for the shared file system, reads, and tells of every change, for ever.
pub(super) fn run(post: &Post, disks: &Arc<Disks>, current: &Current) {
    let mut said = None;
    while let Err(problem) = ready(disks, &current.get()) {
        if said.as_ref() != Some(&problem) {
            post.tell(Told::Said(format!("no shared file system: {problem}")));
            said = Some(problem);
        }
        thread::sleep(LOOK);
    }
    let mut files = Files::default();
    loop {
        // A node that leaves lets go of it.
        if is_mounted() {
            files.look(post, &current.get());
        }
        thread::sleep(LOOK);
    }
}

/// Waits until GFS2 is mounted, and fills it if it is fresh; mounts any other kind.
fn ready(disks: &Arc<Disks>, config: &Config) -> Result<(), String> {
    match config.shared {
        FileSystem::Squashfs => mounted(disks),
        FileSystem::Gfs2 => {
            while !is_mounted() {
                thread::sleep(GLANCE);
            }
            import::fill(disks, config)
        }
    }
}

/// Mounts the shared file system unless it is.
fn mounted(disks: &Arc<Disks>) -> Result<(), String> {
    // A mounted file system keeps its disk, whatever became of the process that carried it for a former supervisor.
    let _held = disks.have_unclaimed(SHARED, now() + PATIENCE)?;
    if is_mounted() {
        return Ok(());
    }
    fs::create_dir_all(MOUNT).map_err(|error| format!("{MOUNT}: {error}"))?;
    let device = format!("/dev/gnbd/{SHARED}");
    // VM files and what they boot: nothing there is for this domain to run.
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(&device, MOUNT, "squashfs", flags, None).map_err(|error| format!("mount {device}: {error}"))
}

/// What is known of the files.
#[derive(Debug, Default)]
struct Files {
    edition: Option<Edition>,
    known: BTreeMap<VmName, (Stamps, Result<VmFile, String>)>,
    told: Option<Event>,
    problem: Option<String>,
}

/// What changes when a file does: its modification, in seconds and nanoseconds, its length and its inode.
type Stamp = (i64, i64, u64, u64);

/// Of a VM's own file, and of the file beside it that says what the operator wants.
type Stamps = (Stamp, Option<Stamp>);

impl Files {
    fn look(&mut self, post: &Post, config: &Config) {
        if self.edition != Some(config.edition) {
            // They may name nodes.
            self.known.clear();
            self.edition = Some(config.edition);
        }
        let read = self.read(post, config).map_err(|error| format!("{FILES}: {error}"));
        let place = decisions::PLACE;
        let decided =
            read.and_then(|()| decisions::read(Path::new(place)).map_err(|error| format!("{place}: {error}")));
        let (decisions, problem) = match decided {
            Ok(Ok(decisions)) => (Some(decisions), None),
            // The VMs must not wait for it: nobody but an operator could mend it.
            Ok(Err(reason)) => {
                (Some(Decisions::default()), Some(format!("{place} is not understood, and does not count: {reason}")))
            }
            Err(reason) => (None, Some(reason)),
        };
        if let Some(problem) = problem.as_ref().filter(|problem| self.problem.as_ref() != Some(problem)) {
            post.tell(Told::Said(problem.clone()));
        }
        self.problem = problem;
        if !is_mounted() {
            // It went while it was read: what was not found there says nothing.
            return;
        }
        let Some(decisions) = decisions else { return };
        let good = self.known.values().filter_map(|(_, file)| file.as_ref().ok());
        let event = Event::Read { files: good.take(limits::VMS).cloned().collect(), decisions };
        if self.told.as_ref() != Some(&event) {
            self.told = Some(event.clone());
            post.tell(Told::Event(event));
        }
    }

    fn read(&mut self, post: &Post, config: &Config) -> io::Result<()> {
        let mut present = BTreeMap::new();
        for entry in fs::read_dir(FILES)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // What lies beside VM files is no VM: directories, and names that no VM can have.
            if let Some(vm) = VmName::new(&name).filter(|_| metadata.is_file() && !name.ends_with(".toml")) {
                let wants = fs::metadata(wants_of(&vm)).ok().map(|metadata| stamp(&metadata));
                present.insert(vm, (stamp(&metadata), wants));
            }
        }
        self.known.retain(|vm, _| present.contains_key(vm));
        for (vm, stamp) in present {
            if self.known.get(&vm).is_some_and(|(known, _)| *known == stamp) {
                continue;
            }
            let file = parse(&vm).and_then(|parsed| {
                let spec = spec(&vm, config)?;
                Ok(VmFile { name: vm.clone(), memory: parsed.memory, spec })
            });
            if file.is_err() && !is_mounted() {
                // It went while it was read.
                return Ok(());
            }
            if let Err(reason) = &file {
                post.tell(Told::Said(format!("VM file {vm} is refused: {reason}")));
            }
            self.known.insert(vm, (stamp, file));
        }
        Ok(())
    }
}

fn wants_of(vm: &VmName) -> PathBuf {
    Path::new(FILES).join(format!("{vm}{WANTS}"))
}

/// What the operator wants for a VM; all of it has a default, and so has a file that is not there.
fn spec(vm: &VmName, config: &Config) -> Result<VmSpec, String> {
    match fs::read_to_string(wants_of(vm)) {
        Ok(text) => VmSpec::parse(&text, config).map_err(|error| format!("{vm}{WANTS}: {error}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(VmSpec::default()),
        Err(error) => Err(format!("{vm}{WANTS}: {error}")),
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.mtime(), metadata.mtime_nsec(), metadata.len(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = r#"Parsing config from /shared/vms/x0
{
    "c_info": { "type": "pvh", "name": "x0", "uuid": "c2b4", "run_hotplug_scripts": "True" },
    "b_info": { "max_vcpus": 1, "max_memkb": 90112, "target_memkb": 90112, "type.pvh": {} },
    "disks": [ { "pdev_path": "/dev/gnbd/x0", "vdev": "sda1", "format": "raw", "readwrite": 1 } ]
}
"#;

    #[test]
    fn a_dry_run_says_what_a_vm_needs() {
        let Understood { name, parsed } = understand(PRINTED).map_err(|_| ()).unwrap();
        assert_eq!((name.as_str(), parsed.memory), ("x0", Mebibytes(88)));
        assert_eq!(parsed.network_disks(), ["x0"]);
        assert!(understand("Parsing config from /shared/vms/x0\n").is_err());
    }

    #[test]
    fn a_file_without_a_type_runs_as_pvh() {
        assert_eq!(pvh_unless_said("name = \"x0\"\nmemory = 88\n"), Some("type=\"pvh\""));
        assert_eq!(pvh_unless_said("type=\"hvm\"\n"), None);
        assert_eq!(pvh_unless_said("  builder = 'hvm'\n"), None);
        assert_eq!(pvh_unless_said("# type = \"hvm\"\n"), Some("type=\"pvh\""));
    }
}

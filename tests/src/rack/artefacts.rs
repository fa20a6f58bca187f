//! Everything that the machines boot and store, made before they start: the image, the site's configuration with a fresh
//! key, the gateway's disk, and the VMs' disks.
//!
//! The image builder is met as a program, for it links the core, and the rack must be built before that can be.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::layout::{GATEWAY, Layout, Medium, Vm};
use super::machine::Disk;
use super::volumes;

/// The disk that the gateway boots from.
const GATEWAY_DISK: &str = "gateway.img";
/// The size of a VM's disk, in bytes; where that is a logical volume, in its extents.
const VM_DISK: u64 = 32 << 20;
const VM_EXTENTS: u64 = 8;
/// The size of the shared file system, in bytes.
const SHARED: u64 = 512 << 20;
/// The size of the gateway's spare disk, in bytes.
const SPARE: u64 = 256 << 20;
/// The size of a node's own disk, in bytes.
const OWN_DISK: u64 = 4 << 20;

/// Writes the gateway's disk anew, in place of the disk `keep` if there was one.
///
/// # Errors
/// The builder's; it says why on standard error.
pub fn gateway_disk(run_dir: &Path, keep: Option<&Path>, out: &Path) -> Result<()> {
    let (cluster, secrets) = (run_dir.join("cluster.toml"), run_dir.join("secrets.toml"));
    let mut words =
        vec!["gateway-disk", "--cluster", text(&cluster)?, "--secrets", text(&secrets)?, "--out", text(out)?];
    if let Some(keep) = keep {
        words.extend(["--keep", text(keep)?]);
    }
    image(&words)
}

/// Replaces the gateway's disk by one that is written anew and keeps what is to be kept; the gateway must be off.
///
/// # Errors
/// The builder's, or the file's.
pub fn replace_gateway_disk(run_dir: &Path) -> Result<()> {
    let (disk, new) = (run_dir.join(GATEWAY_DISK), run_dir.join("gateway.new.img"));
    gateway_disk(run_dir, Some(&disk), &new)?;
    Ok(fs::rename(new, disk)?)
}

/// Builds the image, and in `run_dir` the disks of every machine.
///
/// # Errors
/// The image cannot be built, or a file not be written; the builder says why on standard error.
pub fn make(layout: &Layout, run_dir: &Path) -> Result<BTreeMap<String, Vec<Disk>>> {
    image(&["build"])?;
    let (cluster, secrets) = (run_dir.join("cluster.toml"), run_dir.join("secrets.toml"));
    fs::write(&cluster, layout.cluster_toml())?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&secrets)?;
    file.write_all(layout.secrets_toml(&random_key()?).as_bytes())?;

    let boot = run_dir.join(GATEWAY_DISK);
    gateway_disk(run_dir, None, &boot)?;
    let mut disks = vec![Disk { file: boot, serial: None, read_only: false }];
    for vm in layout.vms.iter().filter(|vm| !vm.on_volume) {
        let file = vm_disk(run_dir, &vm.name);
        File::create_new(&file)?.set_len(VM_DISK)?;
        disks.push(Disk { file, serial: Some(vm.name.clone()), read_only: false });
    }
    let on_volumes: Vec<&str> = layout.on_volumes().map(|vm| vm.name.as_str()).collect();
    if !on_volumes.is_empty() {
        let file = volumes_disk(run_dir);
        volumes::make(&file, &on_volumes, VM_EXTENTS)?;
        disks.push(Disk { file, serial: Some("volumes".into()), read_only: false });
    }
    let (files, import) = (run_dir.join("import"), run_dir.join("import.img"));
    shared_files(layout, &files)?;
    image(&["shared", text(&files)?, "--out", text(&import)?])?;
    disks.push(Disk { file: import, serial: Some("import".into()), read_only: true });
    // Blank: the gateway makes the file system, and the first node fills it from the volume above.
    let shared = shared_disk(run_dir);
    File::create_new(&shared)?.set_len(SHARED)?;
    disks.push(Disk { file: shared, serial: Some("shared".into()), read_only: false });
    // Blank too: for a volume group.
    let spare = spare_disk(run_dir);
    File::create_new(&spare)?.set_len(SPARE)?;
    disks.push(Disk { file: spare, serial: Some("spare".into()), read_only: false });
    let mut all = BTreeMap::from([(GATEWAY.to_owned(), disks)]);
    for node in layout.all().filter(|machine| machine.name != GATEWAY) {
        let file = run_dir.join(format!("{}.img", node.name));
        let serial = if node.medium == Medium::Stick {
            let (cluster, secrets) = (text(&cluster)?, text(&secrets)?);
            image(&["node-disk", "--cluster", cluster, "--secrets", secrets, "--out", text(&file)?])?;
            None
        } else {
            File::create_new(&file)?.set_len(OWN_DISK)?;
            Some("own".into())
        };
        all.insert(node.name.clone(), vec![Disk { file, serial, read_only: false }]);
    }
    Ok(all)
}

/// The file that is a VM's disk, unless that is a logical volume.
fn vm_disk(run_dir: &Path, vm: &str) -> PathBuf {
    run_dir.join(format!("{vm}.img"))
}

/// The file that is the gateway's disk of logical volumes.
fn volumes_disk(run_dir: &Path) -> PathBuf {
    run_dir.join("volumes.img")
}

/// What is on a VM's disk.
///
/// # Errors
/// It cannot be read.
pub fn read_vm_disk(layout: &Layout, run_dir: &Path, vm: &Vm) -> Result<Vec<u8>> {
    match (0..).zip(layout.on_volumes()).find(|(_, other)| other.name == vm.name) {
        Some((number, _)) => volumes::read(&volumes_disk(run_dir), number, VM_EXTENTS),
        None => Ok(fs::read(vm_disk(run_dir, &vm.name))?),
    }
}

/// The file that is the shared file system's disk.
pub fn shared_disk(run_dir: &Path) -> PathBuf {
    run_dir.join("shared.img")
}

/// The file that is the disk of the gateway's which nothing needs.
pub fn spare_disk(run_dir: &Path) -> PathBuf {
    run_dir.join("spare.img")
}

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("")
}

/// Where a rack of this checkout keeps its files: in cargo's target folder.
pub fn rack_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    workspace().join(target).join("rack")
}

/// The files that the shared file system is filled with: the VMs' descriptions, and what they boot.
fn shared_files(layout: &Layout, dir: &Path) -> Result<()> {
    let (vms, boot, guest) = (dir.join("vms"), dir.join("boot"), workspace().join("target/image/guest"));
    fs::create_dir_all(&vms)?;
    fs::create_dir_all(&boot)?;
    for vm in &layout.vms {
        fs::write(vms.join(&vm.name), vm.xl_file())?;
        if let Some(wants) = vm.ha_file() {
            fs::write(vms.join(format!("{}.ha.toml", vm.name)), wants)?;
        }
    }
    for file in ["vmlinux", "initramfs"] {
        fs::copy(guest.join(file), boot.join(format!("guest-{file}")))
            .with_context(|| format!("the guest's {file}"))?;
    }
    Ok(())
}

/// Runs the image builder.
fn image(arguments: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // It ends with the rack, should that be ended meanwhile.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "TERM", "--"])
        .arg(cargo)
        .args(["run", "-q", "-p", "image", "--bin", "image", "--"])
        .args(arguments)
        .current_dir(workspace())
        .stdin(Stdio::null())
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo image {}: {status}", arguments.join(" "));
    }
    Ok(())
}

/// 256 random bits, in hexadecimal.
fn random_key() -> Result<String> {
    let mut key = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    Ok(key.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}

//! What depends on a site: the gateway's disk, with the configuration and the secrets, and with all that the nodes boot; and the
//! disk of a node that does not boot from the network, which has nothing secret in it.
//!
//! ```text
//! sector 0        GRUB's boot code for BIOS, and the partition table
//! sector 1 ...    GRUB's core for BIOS
//! 1 MiB ...       FAT, labelled HOLDFAST:  xen vmlinuz initramfs SHA256SUMS  boot/grub/grub.cfg
//!                                          EFI/BOOT/BOOTX64.EFI (GRUB's core for UEFI)
//!                                          boot/grub/grubenv (which image GRUB starts)
//!                 the gateway's also:      pxe/ ... (GRUB for the network, xen vmlinuz initramfs of the nodes)
//!                 if it replaces another:  previous/ ... (that one's xen vmlinuz initramfs pxe), previous.cfg (its grub.cfg)
//! last 2 MiB      what the daemon keeps, empty but for the mark it finds it by: the gateway's tables
//!                 (`daemon/src/streams/store.rs`), or who a node is (`daemon/src/join/identity.rs`)
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cluster::config::Config;

use crate::build::{PROFILE, Places, TARGET};
use crate::debian::{files, output};
use crate::tree::{self, Entry, Tree};

/// Where the partition begins, in bytes.
const PARTITION: u64 = 1 << 20;
/// The least length of FAT's partition, in bytes: FAT32 has at least 65,525 clusters, or is taken for FAT16.
const SMALLEST: u64 = 64 << 20;
/// The length of the partition that the daemon writes to, in bytes.
const STATE: u64 = 2 << 20;
/// What that partition begins with where it is for the gateway's tables.
const TABLES_MARK: &[u8; 16] = b"HOLDFAST STATE 1";
/// What it begins with where it is for a node's identity. A mark without one has the node draw it.
const SELF_MARK: &[u8; 16] = b"HOLDFAST SELF  1";
/// What a machine boots.
const SYSTEM: [&str; 3] = ["xen", "vmlinuz", "initramfs"];
/// The folder with the image of the disk that was replaced.
const PREVIOUS: &str = "previous";
/// The length of the file in which GRUB keeps what was chosen, in bytes: it writes to it in place.
const GRUB_ENVIRONMENT: usize = 1024;
const MTOOLS: &str = "mtools";
/// A sector, in bytes.
const SECTOR: u64 = 512;

/// Writes the gateway's disk; with the tables that it has kept on the disk `keep`, which this one replaces.
///
/// # Errors
/// The configuration is one that the daemon would refuse; or `keep` is no such disk; or something was not built, or cannot be
/// written.
pub fn gateway_disk(places: &Places, cluster: &Path, secrets: &Path, keep: Option<&Path>, out: &Path) -> Result<()> {
    let state = kept(keep, TABLES_MARK, out)?;
    let gateway = site(cluster, &[("secrets.toml", secret_text(secrets)?, 0o600)])?;
    let work = Work::begin(out)?;
    let pxe = work.0.join("pxe");
    for file in files(&places.out.join("pxe"))? {
        copy(&places.out.join("pxe").join(&file), &pxe.join(&file))?;
    }
    // What travels over TFTP and HTTP is for everybody to see.
    put_system(places, &pxe, &["initramfs"], &nodes_site(places, cluster, secrets)?)?;
    put_system(places, &work.0, &["initramfs", "gateway.cpio"], &gateway)?;
    put_previous(keep, &work.0, &["pxe"])?;
    assemble(places, &work.0, &state, out)
}

/// Writes the disk that a node boots from, instead of from the network: one for all of a cluster's nodes; or for one of them, with
/// the identity that it has on the disk `keep`.
///
/// # Errors
/// As for the gateway's.
pub fn node_disk(places: &Places, cluster: &Path, secrets: &Path, keep: Option<&Path>, out: &Path) -> Result<()> {
    let state = kept(keep, SELF_MARK, out)?;
    let work = Work::begin(out)?;
    put_system(places, &work.0, &["initramfs"], &nodes_site(places, cluster, secrets)?)?;
    put_previous(keep, &work.0, &[])?;
    assemble(places, &work.0, &state, out)
}

/// A directory beside a disk, with the files that it is to hold; gone when this is dropped.
struct Work(PathBuf);

impl Work {
    fn begin(out: &Path) -> Result<Self> {
        let directory = out.with_extension("tmp");
        drop(fs::remove_dir_all(&directory));
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        Ok(Self(directory))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Puts what a machine boots into a directory: Xen, Linux, and an initramfs of these segments and the site's.
fn put_system(places: &Places, directory: &Path, segments: &[&str], site: &[u8]) -> Result<()> {
    for name in ["xen", "vmlinuz"] {
        copy(&places.out.join(name), &directory.join(name))?;
    }
    let segments: Vec<PathBuf> = segments.iter().map(|name| places.out.join(name)).collect();
    write_secret(&directory.join("initramfs"), &joined(&segments, site)?)
}

/// Takes along the image of the disk that is replaced, if there is one, with these folders: GRUB's menu goes back to it.
fn put_previous(disk: Option<&Path>, directory: &Path, folders: &[&str]) -> Result<()> {
    let Some(disk) = disk else { return Ok(()) };
    let previous = directory.join(PREVIOUS);
    fs::create_dir_all(&previous)?;
    let taken = SYSTEM.iter().chain(folders).map(|name| format!("::/{name}"));
    output(mcopy(disk).args(taken).arg(&previous), MTOOLS)?;
    output(mcopy(disk).arg("::/boot/grub/grub.cfg").arg(previous.with_extension("cfg")), MTOOLS)?;
    Ok(())
}

/// What copies files, or whole folders, to the partition that a disk boots from, or out of it.
fn mcopy(disk: &Path) -> Command {
    let mut mcopy = Command::new("mcopy");
    mcopy.env("MTOOLS_SKIP_CHECK", "1").args(["-s", "-Q", "-i", &format!("{}@@{PARTITION}", disk.display())]);
    mcopy
}

/// What the nodes know of their site when they boot: nothing secret.
fn nodes_site(places: &Places, cluster: &Path, secrets: &Path) -> Result<Vec<u8>> {
    site(cluster, &[("join.key", join_key(places, cluster, secrets)?, 0o644)])
}

/// Writes a read-only volume of a directory's files: the VM files and the guests' kernels.
///
/// # Errors
/// `mksquashfs` is missing or fails.
pub fn shared(directory: &Path, out: &Path) -> Result<()> {
    drop(fs::remove_file(out));
    let mut squash = Command::new("mksquashfs");
    squash.arg(directory).arg(out).args(["-quiet", "-no-progress", "-all-root", "-all-time", "0", "-mkfs-time", "0"]);
    squash.args(["-comp", "zstd", "-Xcompression-level", "3"]);
    output(&mut squash, "squashfs-tools").map(drop)
}

fn secret_text(secrets: &Path) -> Result<Vec<u8>> {
    fs::read(secrets).with_context(|| secrets.display().to_string())
}

/// The gateway's public key for machines that join. The daemon makes it of the secrets, and refuses what it would refuse later.
fn join_key(places: &Places, cluster: &Path, secrets: &Path) -> Result<Vec<u8>> {
    let holdfast = places.target.join(TARGET).join(PROFILE).join("holdfast");
    let made = Command::new(&holdfast).arg("join-key").args([cluster, secrets]).output();
    let made = made.with_context(|| format!("{}: run cargo image", holdfast.display()))?;
    if !made.status.success() {
        bail!("{}", String::from_utf8_lossy(&made.stderr).trim());
    }
    Ok(made.stdout)
}

/// The segment with the site's configuration and, in the same folder, some files more, each with its mode.
fn site(cluster: &Path, files: &[(&str, Vec<u8>, u32)]) -> Result<Vec<u8>> {
    let configuration = fs::read_to_string(cluster).with_context(|| cluster.display().to_string())?;
    if let Err(error) = Config::parse(&configuration) {
        bail!("{}: {error}", cluster.display());
    }
    let mut tree = Tree::default();
    tree.put("etc/holdfast/cluster.toml", Entry::File(configuration.into_bytes(), 0o644));
    for (name, bytes, mode) in files {
        tree.put(&format!("etc/holdfast/{name}"), Entry::File(bytes.clone(), *mode));
    }
    Ok(tree.cpio())
}

/// Segments behind one another, the site's last.
fn joined(segments: &[PathBuf], site: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for segment in segments {
        bytes.extend(fs::read(segment).with_context(|| format!("{}: run cargo image", segment.display()))?);
        tree::pad(&mut bytes);
    }
    bytes.extend(site);
    Ok(bytes)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, to).with_context(|| format!("{}: run cargo image", from.display()))?;
    Ok(())
}

fn write_secret(file: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    Ok(file.write_all(bytes)?)
}

/// What the daemon has kept on the disk that is replaced, if there is one; otherwise only the mark by which it finds its place.
fn kept(disk: Option<&Path>, mark: &[u8; 16], out: &Path) -> Result<Vec<u8>> {
    let Some(disk) = disk else { return Ok(mark.to_vec()) };
    let name = || disk.display().to_string();
    let file = File::open(disk).with_context(name)?;
    if fs::canonicalize(out).is_ok_and(|out| fs::canonicalize(disk).is_ok_and(|disk| disk == out)) {
        bail!("{}: write the new disk to another file: what is kept would be lost if that failed", name());
    }
    // Where the second partition begins is what its entry says.
    let mut first = [0; 4];
    let mut kept = vec![0; usize::try_from(STATE)?];
    let place = |first| u64::from(u32::from_le_bytes(first)) * SECTOR;
    let read = file.read_exact_at(&mut first, 470).and_then(|()| file.read_exact_at(&mut kept, place(first)));
    if read.is_err() || !kept.starts_with(mark) {
        bail!("{}: there is nothing on it to be kept: it is not the disk that this one replaces", name());
    }
    Ok(kept)
}

/// Makes a disk of the files in a directory, to which the boot loader's are added; `state` is what the daemon's partition begins with.
fn assemble(places: &Places, work: &Path, state: &[u8], out: &Path) -> Result<()> {
    if fs::metadata(out).is_ok_and(|there| !there.is_file()) {
        bail!("{}: this is no file; write one, then copy it to the disk", out.display());
    }
    copy(&places.out.join("disk.cfg"), &work.join("boot/grub/grub.cfg"))?;
    copy(&places.out.join("BOOTX64.EFI"), &work.join("EFI/BOOT/BOOTX64.EFI"))?;
    let environment = format!("{:#<GRUB_ENVIRONMENT$}", "# GRUB Environment Block\n");
    fs::write(work.join("boot/grub/grubenv"), environment)?;
    let mut sums = Command::new("sha256sum");
    sums.args(SYSTEM).current_dir(work);
    if work.join(PREVIOUS).exists() {
        sums.args(SYSTEM.map(|name| format!("{PREVIOUS}/{name}")));
    }
    fs::write(work.join("SHA256SUMS"), output(&mut sums, "coreutils")?)?;
    let used: u64 = files(work)?.iter().map(|file| fs::metadata(work.join(file)).map_or(0, |data| data.len())).sum();
    // Room for FAT's own tables and for every file's last cluster.
    let size = (used + used / 16 + (8 << 20)).max(SMALLEST).next_multiple_of(PARTITION);
    drop(fs::remove_file(out));
    let disk = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(out)?;
    disk.set_len(PARTITION + size + STATE)?;
    disk.write_all_at(state, PARTITION + size)?;
    let offset = PARTITION / SECTOR;
    let mut format = Command::new("mkfs.vfat");
    format.args(["-F", "32", "-n", "HOLDFAST", "-i", "484f4c44", "--offset", &offset.to_string()]);
    output(format.arg(out).arg((size / 1024).to_string()), "dosfstools")?;
    for entry in fs::read_dir(work)? {
        output(mcopy(out).arg(entry?.path()).arg("::/"), MTOOLS)?;
    }
    boot_record(places, &disk, offset, size / SECTOR)
}

/// The first sector (GRUB's boot code finds the core behind it) with two partitions: of type FAT32 LBA, and of no file system.
fn boot_record(places: &Places, disk: &File, first: u64, sectors: u64) -> Result<()> {
    let code = Path::new("/usr/lib/grub/i386-pc/boot.img");
    let code = fs::read(code).context("GRUB is missing: apt-get install grub-pc-bin")?;
    let core = fs::read(places.out.join("core.img")).context("core.img is missing: run cargo image")?;
    if u64::try_from(core.len())? > PARTITION - SECTOR {
        bail!("GRUB's core does not fit before the partition");
    }
    let mut sector = [0; 512];
    sector.get_mut(..440).context("a sector")?.copy_from_slice(code.get(..440).context("GRUB's boot code is short")?);
    let partition = |begin: [u8; 4], kind: u8, first: u64, sectors: u64| -> Result<Vec<u8>> {
        let places = [u32::try_from(first)?.to_le_bytes(), u32::try_from(sectors)?.to_le_bytes()].concat();
        Ok([&begin[..], &[kind, 0xff, 0xff, 0xff], &places].concat())
    };
    let boot = partition([0x80, 0, 2, 0], 0x0c, first, sectors)?;
    let state = partition([0, 0xff, 0xff, 0xff], 0xda, first + sectors, STATE / SECTOR)?;
    sector.get_mut(446..478).context("a sector")?.copy_from_slice(&[boot, state].concat());
    sector.get_mut(510..).context("a sector")?.copy_from_slice(&[0x55, 0xaa]);
    disk.write_all_at(&sector, 0)?;
    disk.write_all_at(&core, SECTOR)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../daemon/cluster/src/config/good.toml");

    #[test]
    fn a_site_has_the_files_that_it_is_given_and_a_configuration_that_the_daemon_takes() {
        let directory = tempfile::tempdir().unwrap();
        let cluster = directory.path().join("cluster.toml");
        fs::write(&cluster, GOOD).unwrap();
        let segment = site(&cluster, &[("join.key", b"a public key".to_vec(), 0o644)]).unwrap();
        let has = |bytes: &[u8]| segment.windows(bytes.len()).any(|window| window == bytes);
        assert!(has(GOOD.as_bytes()) && has(b"etc/holdfast/join.key") && has(b"a public key"));
        assert!(!has(b"secrets.toml"));
        fs::write(&cluster, "nonsense").unwrap();
        assert!(site(&cluster, &[]).is_err());
    }

    #[test]
    fn what_is_kept_is_taken_from_the_disk_that_is_replaced_and_from_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("disk");
        let disk = File::create_new(&file).unwrap();
        let out = directory.path().join("new");
        let refused =
            || kept(Some(&file), TABLES_MARK, &out).unwrap_err().to_string().contains("nothing on it to be kept");
        assert!(refused(), "an empty one");
        disk.set_len(8 << 20).unwrap();
        assert!(refused(), "a blank one");
        disk.write_all_at(&(5_u32 << 11).to_le_bytes(), 446 + 16 + 8).unwrap();
        disk.write_all_at(SELF_MARK, 5 << 20).unwrap();
        assert!(refused(), "a node's");
        disk.write_all_at(TABLES_MARK, 5 << 20).unwrap();
        disk.write_all_at(b"claims", (5 << 20) + 4096).unwrap();
        let tables = kept(Some(&file), TABLES_MARK, &out).unwrap();
        assert_eq!((tables.len(), tables.get(4096..4102)), (2 << 20, Some(&b"claims"[..])));
        assert_eq!(kept(None, TABLES_MARK, &out).unwrap(), TABLES_MARK);
        let onto_itself = kept(Some(&file), TABLES_MARK, &file).unwrap_err().to_string();
        assert!(onto_itself.contains("to another file"), "{onto_itself}");
    }
}

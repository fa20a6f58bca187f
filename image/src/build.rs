//! Builds everything that does not depend on a site.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::check;
use crate::debian::{self, Packages, output};
use crate::kernel::{self, Modules};
use crate::manifest::Manifest;
use crate::sbom;
use crate::tree::{Entry, Tree};

/// The target that our own programs are built for: static, without a C library of the system's.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-musl";
/// How they are built: see the workspace's Cargo.toml.
pub(crate) const PROFILE: &str = "image";

/// The packages that GRUB comes from.
const GRUB: &str = "grub-pc-bin grub-efi-amd64-bin grub-common";

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The source tree.
    pub source: PathBuf,
    /// Where what is built goes.
    pub out: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
}

impl Places {
    /// The source tree that this program was built from.
    ///
    /// # Errors
    /// It is gone.
    pub fn find() -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no source tree")?.to_path_buf();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| source.join("target"), PathBuf::from);
        Ok(Self { out: source.join("target/image"), source, target })
    }
}

/// One part of what was built, and its size in bytes.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it is.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// Builds the image; returns the size of each part.
///
/// # Errors
/// Something is missing, cannot be built, or exceeds its budget.
pub fn build(places: &Places) -> Result<Vec<Part>> {
    let manifest = Manifest::read(&places.source.join("image/image.toml"))?;
    fs::create_dir_all(&places.out)?;
    // Two builds at once would take each other's files away; the second one waits, and then has little to do.
    let lock = File::create(places.out.join("lock"))?;
    lock.lock().context("the lock on the build directory")?;
    let step = Steps::new(7);
    step.next("our own programs");
    let holdfast = our_binary(places, "holdfast", &["-p", "holdfast", "--bin", "holdfast"])?;
    let guest = our_binary(places, "guest", &["-p", "holdfast-tests", "--bin", "guest"])?;
    step.next("Debian's packages");
    let packages = Packages::new(places.target.join("debian"));
    let kernel_package = debian::dependency(&manifest.linux.package, "linux-image-")?;
    let (xen, xen_version) = packages.unpacked_one(&manifest.xen.package)?;
    let (linux, linux_version) = packages.unpacked_one(&kernel_package)?;
    let all = trees(&manifest, &packages, &linux, &holdfast, &places.source)?;
    step.next("the initramfs");
    let release = kernel_package.trim_start_matches("linux-image-");
    let vmlinuz = linux.join(format!("boot/vmlinuz-{}", release.trim_end_matches("-unsigned")));
    // Uncompressed: not every boot loader unpacks.
    let xen = output(Command::new("gzip").arg("-dc").arg(xen.join(&manifest.xen.file)), "gzip")?;
    fs::write(places.out.join("xen"), xen)?;
    fs::copy(&vmlinuz, places.out.join("vmlinuz")).with_context(|| vmlinuz.display().to_string())?;
    write_compressed(&places.out.join("initramfs"), &all.node)?;
    write_compressed(&places.out.join("gateway.cpio"), &all.gateway)?;
    let [all_segment, gateway_segment] = ["initramfs", "gateway.cpio"].map(|name| places.out.join(name));
    check::segments(&manifest, &["all"], &[&all_segment])?;
    check::segments(&manifest, &["all", "gateway"], &[&all_segment, &gateway_segment])?;
    step.next("the guest");
    let guest_out = places.out.join("guest");
    fs::create_dir_all(&guest_out)?;
    fs::write(guest_out.join("vmlinux"), kernel::vmlinux(&fs::read(&vmlinuz)?)?)?;
    let mut guest_tree = Tree::default();
    Modules::find(&linux)?.add(&manifest.linux.guest_modules, &mut guest_tree)?;
    guest_tree.put("init", Entry::File(guest.clone(), 0o755));
    guest_tree.put("sbin/poweroff", Entry::Link("/init".to_owned()));
    for directory in ["proc", "sys", "dev"] {
        guest_tree.put(directory, Entry::Directory);
    }
    write_compressed(&guest_out.join("initramfs"), &guest_tree)?;
    step.next("the boot loader");
    boot_loader(places)?;
    step.next("the bill of materials");
    sbom::write(places, &packages, &components(&manifest, &kernel_package), &holdfast)?;
    step.next("done");
    let parts = sizes(places, &manifest, &holdfast, &all, (&xen_version, &linux_version))?;
    Ok(parts)
}

/// Every Debian package that something in the image comes from.
fn components(manifest: &Manifest, kernel: &str) -> BTreeSet<String> {
    let programs = manifest.programs.values().flat_map(|programs| programs.packages.iter().cloned());
    programs.chain([manifest.xen.package.clone(), kernel.to_owned()]).collect()
}

/// The file trees of the segments.
struct Trees {
    node: Tree,
    gateway: Tree,
}

fn trees(manifest: &Manifest, packages: &Packages, linux: &Path, holdfast: &[u8], source: &Path) -> Result<Trees> {
    let group = |name: &str| -> Result<Tree> {
        let programs = manifest.programs.get(name).with_context(|| format!("image.toml has no [programs.{name}]"))?;
        let unpacked: Vec<PathBuf> = packages.unpacked(&programs.packages)?.into_iter().map(|(path, _)| path).collect();
        let mut tree = Tree::default();
        tree.add_programs(programs, &unpacked)?;
        Ok(tree)
    };
    let mut node = group("all")?;
    node.mirror(&source.join("rootfs"))?;
    Modules::find(linux)?.add(&manifest.linux.modules, &mut node)?;
    node.put(&manifest.applets.path, Entry::File(holdfast.to_vec(), 0o755));
    for link in &manifest.applets.links {
        node.put(link, Entry::Link(format!("/{}", manifest.applets.path)));
    }
    // libxl looks for programs by name only along the PATH; xl is called by its place.
    for directory in ["proc", "sys", "dev", "run", "tmp", "media", "shared", "var/lib/xen", "var/log/xen", "usr/lib"] {
        node.put(directory, Entry::Directory);
    }
    node.put("var/run", Entry::Link("/run".to_owned()));
    node.put("var/lock", Entry::Link("/run".to_owned()));
    // What the gateway has beside it: its own programs, and no second copy of a library.
    let mut gateway = Tree::default();
    for (path, entry) in group("gateway")?.iter().filter(|(path, _)| node.get(path).is_none()) {
        gateway.put(path, entry.clone());
    }
    Ok(Trees { node, gateway })
}

/// Builds one of our own programs and returns it: with relocations in a dense form, which musl knows since 1.2.4. The level at
/// which it is linked is its last file's, whatever each package was compiled for: at any but 2 and 3 the ciphers are 1.6 times slower.
fn our_binary(places: &Places, name: &str, what: &[&str]) -> Result<Vec<u8>> {
    let script = places.source.join("image/no-unwinding.ld");
    let flags = ["-z,pack-relative-relocs".to_owned(), format!("-T,{}", script.display())];
    let flags = flags.map(|flag| format!("-Clink-arg=-Wl,{flag}"));
    let status = Command::new("cargo")
        .args(["rustc", "-q", "--profile", PROFILE, "--target", TARGET])
        .args(["--config", &format!("target.{TARGET}.rustflags={flags:?}")])
        .args(what)
        .args(["--", "-Copt-level=3"])
        .current_dir(&places.source)
        .status()
        .context("cargo")?;
    if !status.success() {
        bail!("cargo could not build {name}");
    }
    let file = places.target.join(TARGET).join(PROFILE).join(name);
    fs::read(&file).with_context(|| file.display().to_string())
}

fn write_compressed(file: &Path, tree: &Tree) -> Result<()> {
    let plain = file.with_extension("cpio.tmp");
    fs::write(&plain, tree.cpio())?;
    // The kernel unpacks zstd with windows of up to 128 MB; one thread, so that the bytes do not depend on the machine.
    let mut zstd = Command::new("zstd");
    zstd.args(["-q", "-f", "-T1", "-12", "-o"]).arg(file).arg(&plain);
    output(&mut zstd, "zstd")?;
    fs::remove_file(&plain)?;
    Ok(())
}

/// GRUB's trees for PXE with a script for cards whose firmware is iPXE, and GRUB's cores for disks; each for BIOS and for UEFI.
fn boot_loader(places: &Places) -> Result<()> {
    let pxe = places.out.join("pxe");
    drop(fs::remove_dir_all(&pxe));
    let net = format!("--net-directory={}", pxe.display());
    for platform in ["i386-pc", "x86_64-efi"] {
        let from = format!("/usr/lib/grub/{platform}");
        let mut grub = Command::new("grub-mknetdir");
        grub.args([&net, "--subdir=boot/grub", "-d", &from, "--locales=", "--fonts=", "--themes="]);
        output(grub.arg("--modules=multiboot2 echo http sleep reboot"), GRUB)?;
    }
    // The partition that a core was read from is its root, whatever its number is.
    for (platform, prefix, disk, core) in [
        ("i386-pc", "(,msdos1)/boot/grub", &["biosdisk"][..], "core.img"),
        ("x86_64-efi", "/boot/grub", &[], "BOOTX64.EFI"),
    ] {
        let mut grub = Command::new("grub-mkimage");
        grub.args(["-O", platform, "-p", prefix, "-o"]).arg(places.out.join(core)).args(disk);
        grub.args(["part_msdos", "fat", "normal", "configfile", "multiboot2", "echo", "boot", "sleep"]);
        output(grub.args(["serial", "terminal", "hashsum", "gcry_sha256", "test", "true", "loadenv"]), GRUB)?;
    }
    for (template, name) in
        [("net.cfg", "pxe/boot/grub/grub.cfg"), ("boot.ipxe", "pxe/boot.ipxe"), ("disk.cfg", "disk.cfg")]
    {
        fs::write(places.out.join(name), filled(&places.source, template)?)?;
    }
    Ok(())
}

/// A boot loader's configuration with the command lines filled in.
fn filled(source: &Path, template: &str) -> Result<String> {
    let read = |name: &str| {
        let file = source.join("boot").join(name);
        fs::read_to_string(&file).with_context(|| file.display().to_string())
    };
    let options = |text: &str| -> String {
        let lines = text.lines().filter_map(|line| line.split('#').next().map(str::trim));
        lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    };
    Ok(read(template)?
        .replace("{xen}", &options(&read("xen.conf")?))
        .replace("{linux}", &options(&read("linux.conf")?)))
}

fn sizes(
    places: &Places,
    manifest: &Manifest,
    holdfast: &[u8],
    trees: &Trees,
    (xen_version, linux_version): (&str, &str),
) -> Result<Vec<Part>> {
    let size = |name: &str| -> Result<u64> { Ok(fs::metadata(places.out.join(name))?.len()) };
    let part = |name: String, bytes: u64| Part { name, bytes };
    let (xen, linux, initramfs) = (size("xen")?, size("vmlinuz")?, size("initramfs")?);
    let ours = u64::try_from(holdfast.len())?;
    let boot = xen + linux + initramfs;
    let parts = vec![
        part(format!("Xen {xen_version}"), xen),
        part(format!("Linux {linux_version}"), linux),
        part("initramfs".to_owned(), initramfs),
        part("= what a node boots".to_owned(), boot),
        part("initramfs, unpacked".to_owned(), u64::try_from(trees.node.bytes())?),
        part("our binary, unpacked".to_owned(), ours),
        part("gateway's segment".to_owned(), size("gateway.cpio")?),
        part("guest kernel".to_owned(), size("guest/vmlinux")?),
        part("guest initramfs".to_owned(), size("guest/initramfs")?),
    ];
    for (what, bytes, budget) in
        [("Xen + Linux + initramfs", boot, manifest.budgets.boot), ("our binary", ours, manifest.budgets.binary)]
    {
        if bytes > budget {
            bail!("{what}: {bytes} bytes are over the budget of {budget} in image.toml");
        }
    }
    Ok(parts)
}

/// A bar over the steps of a build.
struct Steps(ProgressBar);

impl Steps {
    fn new(steps: u64) -> Self {
        let bar = ProgressBar::new(steps);
        if let Ok(style) = ProgressStyle::with_template("image [{bar:24}] {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(bar)
    }

    fn next(&self, what: &str) {
        self.0.set_message(what.to_owned());
        self.0.inc(1);
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

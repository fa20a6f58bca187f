//! The boot media by themselves: each is booted with the firmware that the rack does not boot it with, and its boot menu is used.
//!
//! Only the boot loader runs here, and Xen's first line, and once an image that says which one it is. The rest is the rack's to show.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::rack::accel::Accel;
use crate::rack::artefacts;
use crate::rack::layout::{Firmware, GATEWAY, Layout, Medium};
use crate::rack::machine::OVMF;
use crate::rack::serial::Line;

/// How long a boot loader may take for anything, in emulation.
const PATIENCE: Duration = Duration::from_mins(10);
/// Between two looks at its screen.
const LOOK: Duration = Duration::from_millis(200);
/// How long a key may take to have its effect before it is pressed again, and how often it is.
const EFFECT: Duration = Duration::from_secs(3);
const PRESSES: usize = 50;

const MENU: &str = "Esc brings the menu";
const CHECK: (&str, &str) = ("Check this medium", "Reading everything");
const SLOW_LINE: (&str, &str) = ("Start with the serial line at 9600 baud", "loading /xen");
const PREVIOUS: (&str, &str) = ("Start the previous image, until the newest is chosen", "loading /previous/xen");
const PRESENT: (&str, &str) = ("Start Holdfast, the newest image", "loading /xen");

/// Both kinds of disk boot with either firmware; the menu finds a medium whole, finds a damaged one damaged, and its entry for a
/// slow serial line starts Xen too (what speed that has then, nobody looks at). A disk that replaces another starts the image of
/// that one if it is told to, and goes on doing so until it is told otherwise.
///
/// # Errors
/// A medium does not boot, or says something else; the text shows its screen.
pub fn media_check_themselves(dir: &Path) -> Result<()> {
    drop(fs::remove_dir_all(dir));
    fs::create_dir_all(dir)?;
    let layout = Layout::new(3, 0);
    let disks = artefacts::make(&layout, dir)?;
    let of = |name: &str| disks.get(name).and_then(|disks| disks.first()).map(|disk| disk.file.clone());
    let stick =
        layout.machines.iter().find(|machine| machine.medium == Medium::Stick).context("no node has a stick")?;
    let (gateway, stick) = (of(GATEWAY).context("no gateway")?, of(&stick.name).context("no stick")?);

    let whole = Booting::start("whole", &gateway, Medium::Disk, Firmware::Uefi)?;
    whole.choose(CHECK.0, CHECK.1)?;
    whole.says("This medium is whole.")?;
    drop(whole);
    let slow = Booting::start("slow", &stick, Medium::Stick, Firmware::Bios)?;
    slow.choose(SLOW_LINE.0, SLOW_LINE.1)?;
    slow.says("(XEN) Xen version")?;
    drop(slow);
    damage(&stick, &artefacts::workspace().join("target/image/vmlinuz"))?;
    let damaged = Booting::start("damaged", &stick, Medium::Stick, Firmware::Bios)?;
    damaged.choose(CHECK.0, CHECK.1)?;
    damaged.says("This medium is damaged")?;
    drop(damaged);

    let replaced = dir.join("replaced.img");
    artefacts::gateway_disk(dir, Some(&gateway), &replaced)?;
    let back = Booting::start("back", &replaced, Medium::Disk, Firmware::Uefi)?;
    back.choose(PREVIOUS.0, PREVIOUS.1)?;
    back.says("this is the previous image of the medium")?;
    drop(back);
    let stays = Booting::start("stays", &replaced, Medium::Disk, Firmware::Bios)?;
    stays.says(PREVIOUS.1)?;
    drop(stays);
    let forth = Booting::start("forth", &replaced, Medium::Disk, Firmware::Bios)?;
    forth.choose(PRESENT.0, PRESENT.1)?;
    drop(forth);
    let goes_on = Booting::start("goes-on", &replaced, Medium::Disk, Firmware::Uefi)?;
    goes_on.says(PRESENT.1)
}

/// Turns one bit in the middle of a file on a disk. A file's cluster is found by what it holds.
fn damage(disk: &Path, file: &Path) -> Result<()> {
    let (bytes, whole) = (fs::read(file)?, fs::read(disk)?);
    let middle = bytes.get(bytes.len() / 2..).and_then(|rest| rest.get(..512)).context("a short file")?;
    let found: Vec<usize> = (0..).zip(whole.windows(512)).filter(|(_, at)| *at == middle).map(|(at, _)| at).collect();
    let [at] = found.as_slice() else { bail!("{} is on the disk {} times", file.display(), found.len()) };
    let byte = whole.get(*at).copied().context("an empty disk")?;
    OpenOptions::new().write(true).open(disk)?.write_all_at(&[byte ^ 1], u64::try_from(*at)?)?;
    Ok(())
}

/// A machine that boots from a disk and has nothing else.
struct Booting {
    line: Line,
    qemu: Child,
    log: PathBuf,
}

impl Booting {
    fn start(which: &str, disk: &Path, medium: Medium, firmware: Firmware) -> Result<Self> {
        let name = format!("holdfast/medium/{}/{which}", std::process::id());
        let log = disk.with_file_name(format!("{which}.console.log"));
        let line = Line::open(&name, Some(&log))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-machine", "pc,graphics=off", "-m", "512"]);
        command.args(["-display", "none", "-vga", "none", "-nodefaults", "-no-user-config", "-net", "none"]);
        command.args(Accel::probe().options);
        if firmware == Firmware::Uefi {
            command.args(["-bios", OVMF]);
        }
        let file = disk.display().to_string().replace(',', ",,");
        command.args(["-drive", &format!("if=none,id=disk,format=raw,file={file}")]);
        match medium {
            Medium::Stick => command.args(["-device", "qemu-xhci", "-device", "usb-storage,drive=disk,bootindex=1"]),
            Medium::Disk | Medium::Network => command.args(["-device", "virtio-blk-pci,drive=disk,bootindex=1"]),
        };
        command.args(["-chardev", &Line::chardev("com1", &name), "-serial", "chardev:com1"]);
        let qemu = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot run setpriv and QEMU")?;
        Ok(Self { line, qemu, log })
    }

    /// Asks for the menu while the boot loader waits for that, and chooses an entry, which says `effect` then. Where the firmware
    /// uses the serial line as well, it and the boot loader take keys from each other: each is pressed until it has its effect.
    fn choose(&self, entry: &str, effect: &str) -> Result<()> {
        self.says(MENU)?;
        self.press_until(b"\x1b", entry, LOOK)?;
        let marked = format!("*{entry}");
        if !self.said().contains(&marked) {
            // Ctrl-N is one byte, which cannot be torn apart as an arrow key can.
            self.press_until(b"\x0e", &marked, EFFECT)?;
        }
        self.press_until(b"\r", effect, EFFECT)
    }

    /// Presses a key, again and again after that time.
    fn press_until(&self, key: &[u8], effect: &str, again: Duration) -> Result<()> {
        let before = self.said().len();
        for _ in 0..PRESSES {
            self.line.write(key);
            let begun = Instant::now();
            while begun.elapsed() < again {
                if self.said().get(before..).is_some_and(|said| said.contains(effect)) {
                    return Ok(());
                }
                std::thread::sleep(LOOK);
            }
        }
        bail!("no key brings: {effect}\n{}", self.line.screen())
    }

    /// All that the machine has said. Firmware paints a larger screen than a terminal has: lines are looked for here.
    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until the machine says that.
    fn says(&self, words: &str) -> Result<()> {
        let begun = Instant::now();
        while !self.said().contains(words) {
            ensure!(begun.elapsed() < PATIENCE, "it does not say: {words}\n{}", self.line.screen());
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Booting {
    fn drop(&mut self) {
        drop(self.qemu.kill());
        drop(self.qemu.wait());
    }
}

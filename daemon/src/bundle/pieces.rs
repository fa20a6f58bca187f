//! Which pieces a bundle has, and where each comes from. What is not named here is not in it.
//!
//! Nothing here waits: what may, the shared file system, the supervisor reads. Programs have a deadline.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use super::secret::without_comments;
use super::{Wanted, disks};
use crate::init::PROBLEMS;
use crate::kmsg::{KMSG, RECORD, records};
use crate::roster::{AGREED, FILE};
use crate::supervise::{child, clock, events};

/// The most of one piece, in bytes.
pub(super) const PIECE_BYTES: usize = 512 << 10;
/// How long Xen's toolstack may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Below these the image's files lie.
const IMAGE: [&str; 6] = ["bin", "sbin", "usr", "lib", "lib64", "etc"];
/// The deepest directory of the image that is looked into.
const DEPTH: usize = 8;

/// Files that go in as they are: their names there, and where they are.
const FILES: [(&str, &str); 22] = [
    ("events.log", events::FILE),
    ("problems.txt", PROBLEMS),
    ("starts", "/run/holdfast/starts"),
    ("incarnation", "/run/holdfast/incarnation"),
    ("nbd-server.conf", crate::init::NBD_CONFIGURATION),
    ("modules.list", "/etc/modules"),
    ("proc/version", "/proc/version"),
    ("proc/cmdline", "/proc/cmdline"),
    ("proc/uptime", "/proc/uptime"),
    ("proc/loadavg", "/proc/loadavg"),
    ("proc/meminfo", "/proc/meminfo"),
    ("proc/vmstat", "/proc/vmstat"),
    ("proc/cpuinfo", "/proc/cpuinfo"),
    ("proc/mounts", "/proc/mounts"),
    ("proc/modules", "/proc/modules"),
    ("proc/interrupts", "/proc/interrupts"),
    ("proc/partitions", "/proc/partitions"),
    ("proc/diskstats", "/proc/diskstats"),
    ("proc/net-dev", "/proc/net/dev"),
    ("proc/net-udp", "/proc/net/udp"),
    ("proc/net-tcp", "/proc/net/tcp"),
    ("proc/locks", "/proc/locks"),
];

/// What `xl` is asked. Its long forms are not: they tell VMs' passwords for VNC.
const XL: [(&str, &[&str]); 3] = [("xl/list", &["list", "-v"]), ("xl/info", &["info"]), ("xl/dmesg", &["dmesg"])];

/// One piece.
#[derive(Debug)]
pub(super) struct Piece {
    /// What it is called in the bundle.
    pub(super) name: &'static str,
    /// What is in it; nothing if there is no such thing here; or why it is not known.
    pub(super) content: Result<Option<Vec<u8>>, String>,
    /// Which part of it is kept where it is too long.
    pub(super) keep: Keep,
}

/// A part of something too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    First,
    Last,
}

/// All pieces, of the machine whose files are below `root`.
pub(super) fn collect(root: &Path, wanted: Wanted) -> Vec<Piece> {
    let Wanted { stick: _, status, decisions } = wanted;
    let at = |place: &str| root.join(place.trim_start_matches('/'));
    let mut pieces = vec![
        whole("status.json", status.map(String::into_bytes)),
        whole("decisions.toml", decisions.map(String::into_bytes)),
        configuration("cluster.toml", &at(AGREED)),
        configuration("cluster.booted.toml", &at(FILE)),
        kernel_log(&at(KMSG)),
        whole("disks.txt", disks::text(&at("/sys/block")).map_err(|error| error.to_string()).map(String::into_bytes)),
        whole("processes.txt", processes(&at("/proc")).map_err(|error| error.to_string())),
        whole("image.txt", Ok(image(root).into_bytes())),
    ];
    pieces.extend(FILES.map(|(name, place)| file(name, &at(place))));
    pieces
        .extend(XL.map(|(name, words)| whole(name, child::xl(words, clock::now() + PATIENCE).map(String::into_bytes))));
    pieces
}

impl Keep {
    /// Cuts what is too long; says so, if it was.
    pub(super) fn cut(self, bytes: &mut Vec<u8>) -> Option<String> {
        let beyond = bytes.len().checked_sub(PIECE_BYTES).filter(|beyond| *beyond > 0)?;
        let part = match self {
            Self::First => {
                bytes.truncate(PIECE_BYTES);
                "first"
            }
            Self::Last => {
                bytes.drain(..beyond);
                "last"
            }
        };
        Some(format!("cut to its {part} {} KiB", PIECE_BYTES >> 10))
    }
}

/// A piece of which the beginning is kept.
fn whole(name: &'static str, content: Result<Vec<u8>, String>) -> Piece {
    Piece { name, content: content.map(Some), keep: Keep::First }
}

fn file(name: &'static str, place: &Path) -> Piece {
    match read(place) {
        Ok(bytes) => whole(name, Ok(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Piece { name, content: Ok(None), keep: Keep::First },
        Err(error) => whole(name, Err(error.to_string())),
    }
}

/// What is in a file; of a longer one, more than is kept: no secret is in two parts, one of them kept, before it is looked for.
fn read(place: &Path) -> io::Result<Vec<u8>> {
    let most = u64::try_from(PIECE_BYTES + RECORD).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    File::open(place)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A `cluster.toml`, without its comments: they are the operator's own words, which may say anything.
fn configuration(name: &'static str, place: &Path) -> Piece {
    let bare = |bytes: Option<Vec<u8>>| match bytes {
        None => Ok(None),
        Some(bytes) if bytes.len() > PIECE_BYTES => Err("left out: it is too long".to_owned()),
        Some(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| "left out: it is no text".to_owned())?;
            without_comments(&text).map(|text| Some(text.into_bytes()))
        }
    };
    let piece = file(name, place);
    Piece { content: piece.content.and_then(bare), ..piece }
}

/// The end of the kernel's log, a record a line as the kernel writes it.
fn kernel_log(place: &Path) -> Piece {
    let content = records(place, 4 * PIECE_BYTES).map(Some).map_err(|error| error.to_string());
    Piece { name: "kernel.log", content, keep: Keep::Last }
}

/// Every process as the kernel counts it (`/proc/PID/stat`, proc(5)). Their arguments are left out.
fn processes(proc: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for entry in fs::read_dir(proc)?.flatten() {
        if entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            // It may have ended meanwhile.
            text.extend(read(&entry.path().join("stat")).unwrap_or_default());
        }
    }
    Ok(text)
}

/// What the image is made of: every file's length and name. Libraries have their versions in their names.
fn image(root: &Path) -> String {
    let mut text = format!("Holdfast {}, protocol {}\n", env!("CARGO_PKG_VERSION"), cluster::node::VERSION);
    IMAGE.iter().for_each(|directory| list(&root.join(directory), root, DEPTH, &mut text));
    text
}

fn list(directory: &Path, root: &Path, depth: usize, text: &mut String) {
    let mut entries: Vec<_> = fs::read_dir(directory).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // A link is not followed.
        let Ok(data) = entry.metadata() else { continue };
        let path = entry.path();
        if text.len() > PIECE_BYTES {
            return;
        } else if data.is_dir() && depth > 0 {
            list(&path, root, depth - 1, text);
        } else if data.is_file() {
            let _ = writeln!(text, "{:>10} {}", data.len(), path.strip_prefix(root).unwrap_or(&path).display());
        }
    }
}

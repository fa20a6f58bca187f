//! What gets into a bundle, read by Debian's `tar`; and which disks are sticks, made by Debian's `mkfs.vfat` and `mtools`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use super::pieces::{Keep, PIECE_BYTES};
use super::*;

mod disks;
mod stick;

/// A program of Debian's; what it said.
fn run(command: &mut Command) -> String {
    let output = command.output().expect("a program is missing: apt-get install tar dosfstools mount e2fsprogs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What Debian's `tar` finds in a bundle, by its names.
fn unpack(bundle: &Bundle) -> BTreeMap<String, Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("a.tar");
    std::fs::write(&archive, &bundle.tar).unwrap();
    let said = run(Command::new("tar").arg("-xvf").arg(&archive).arg("-C").arg(directory.path()));
    let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    let within = |name: &str| name.strip_prefix(&format!("{}/", bundle.name)).unwrap().to_owned();
    said.lines().map(|name| (within(name), read(name))).collect()
}

/// A machine's files.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    fn with(self, place: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.root().join(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn bundle(&self, wanted: Wanted) -> Bundle {
        pack(
            "holdfast-node2-20261122-020304",
            pieces::collect(&self.root(), wanted),
            &Secrets::read(&self.root()).unwrap(),
        )
    }
}

fn wanted() -> Wanted {
    Wanted {
        stick: "sdb1".to_owned(),
        status: Ok("{\"node\":\"node2\"}".to_owned()),
        decisions: Err("the shared file system does not answer".to_owned()),
    }
}

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF";
/// Every kind of secret there is, in the form of the file's own documentation.
const SECRETS: &str = r#"
cluster_key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF"
[pdu.pdu1]
community = "write-me-42"
user = "operator-of-pdu"
password = 'sw"itch\pass'
[pdu.pdu2]
v3_user = "hold-fast-v3"
auth_password = "auth secret one"
priv_password = "priv secret two"
[ups.u1]
password = "upsd#secret"
[console]
pin = "4711"
"#;
const HIDDEN: [&str; 8] = [
    KEY,
    "write-me-42",
    "operator-of-pdu",
    "sw\"itch\\pass",
    "hold-fast-v3",
    "auth secret one",
    "priv secret two",
    "upsd#secret",
];

#[test]
fn a_stranger_reads_the_bundle_and_its_index_names_what_is_missing() {
    let machine = Machine::new()
        .with("run/holdfast/events.log", "{\"at_ms\":5,\"node\":\"node2\",\"text\":\"up\"}\n")
        .with("run/holdfast/cluster.toml", "name = \"rack\" # mine\nkeep = \"#1\"\n")
        .with("proc/meminfo", "MemTotal: 1 kB\n")
        .with("proc/7/stat", "7 (init) S 0\n")
        .with("bin/holdfast", [0; 77]);
    std::fs::create_dir_all(machine.root().join("proc/mounts")).unwrap();
    let bundle = machine.bundle(wanted());
    let files = unpack(&bundle);
    let text = |name: &str| String::from_utf8(files[name].clone()).unwrap();
    assert_eq!(text("events.log"), "{\"at_ms\":5,\"node\":\"node2\",\"text\":\"up\"}\n");
    assert_eq!(text("cluster.toml"), "name = \"rack\"\nkeep = \"#1\"\n");
    assert_eq!(text("status.json"), "{\"node\":\"node2\"}");
    assert_eq!(text("processes.txt"), "7 (init) S 0\n");
    assert!(text("image.txt").contains("        77 bin/holdfast\n"), "{}", text("image.txt"));
    let index = text("index.txt");
    for line in [
        "proc/meminfo: 15 bytes",
        "problems.txt: there is none",
        "decisions.toml: not read: the shared file system does not answer",
        "kernel.log: not read: No such file or directory (os error 2)",
        "proc/mounts: not read: Is a directory (os error 21)",
    ] {
        assert!(index.lines().any(|found| found == line), "{line}:\n{index}");
    }
    let named = |line: &&str| line.contains("not read") || line.contains("left out") || line.contains("cut to");
    assert_eq!(index.lines().filter(named).collect::<Vec<_>>(), bundle.missing);
    assert!(!files.contains_key("proc/mounts") && !files.contains_key("kernel.log"));
}

#[test]
fn this_machines_own_facts_are_read() {
    let bundle =
        pack("holdfast-here-0", pieces::collect(Path::new("/"), wanted()), &Secrets::read(Path::new("/")).unwrap());
    let files = unpack(&bundle);
    for name in ["proc/meminfo", "proc/interrupts", "proc/mounts", "kernel.log", "disks.txt", "processes.txt"] {
        assert!(files.get(name).is_some_and(|content| !content.is_empty()), "{name}: {:?}", bundle.missing);
    }
    assert!(files.values().all(|content| content.len() <= PIECE_BYTES));
    assert!(bundle.tar.len() <= BUNDLE_BYTES + (1 << 20));
    // Here is no Xen: that is said, and harms nothing.
    assert!(bundle.missing.iter().any(|line| line.starts_with("xl/list: not read: ")));
}

#[test]
fn no_secret_gets_in_wherever_it_was_written() {
    let said: String = HIDDEN.iter().map(|secret| format!("said {secret} and {}\n", secret.to_uppercase())).collect();
    let mut log = vec![b'.'; PIECE_BYTES - 20];
    log.extend_from_slice(format!("{KEY}{KEY}").as_bytes());
    let key: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&KEY[at * 2..at * 2 + 2], 16).unwrap()).collect();
    let comments: String = HIDDEN.iter().map(|secret| format!("a = 1 # {secret}\n")).collect();
    let machine = Machine::new()
        .with("etc/holdfast/secrets.toml", SECRETS)
        .with("run/holdfast/secrets.toml", SECRETS)
        .with("etc/holdfast/cluster.toml", format!("{comments}pin = 1 # the PIN is 4711\n"))
        .with("run/holdfast/events.log", &said)
        .with("proc/cmdline", log)
        .with("proc/mounts", [&key[..], b"\n", &key].concat())
        .with("run/holdfast/problem", serde_json::to_string(HIDDEN.as_slice()).unwrap());
    let wanted = Wanted { stick: "sdb1".to_owned(), status: Ok(said.clone()), decisions: Err(said.clone()) };
    let bundle = machine.bundle(wanted);
    let files = unpack(&bundle);
    let lower = |bytes: &[u8]| bytes.to_ascii_lowercase();
    let has = |bytes: &[u8], part: &[u8]| lower(bytes).windows(part.len()).any(|window| window == lower(part));
    let told = bundle.missing.join("\n").into_bytes();
    for secret in HIDDEN.iter().map(|secret| secret.as_bytes()).chain([&key[..], b"4711"]) {
        let shown = String::from_utf8_lossy(secret);
        assert!(has(said.as_bytes(), secret) || secret == key || secret == b"4711", "the test plants {shown}");
        assert!(!has(&bundle.tar, secret), "{shown} is in the bundle");
        assert!(!has(&told, secret), "{shown} is told to the menu");
    }
    assert!(!has(&bundle.tar, &KEY.as_bytes()[..12]), "a part of a key that was cut is in the bundle");
    assert!(files["events.log"].starts_with(b"said [secret] and [secret]\n"));
    assert_eq!(files["cluster.booted.toml"], [&b"a = 1\n".repeat(HIDDEN.len())[..], b"pin = 1\n"].concat());
    assert!(!files.keys().any(|name| name.contains("secret")));
}

#[test]
fn secrets_that_cannot_be_parsed_are_kept_out_and_what_cannot_be_read_stops_it() {
    let torn = SECRETS.replace("[console]", "[console");
    let machine =
        Machine::new().with("etc/holdfast/secrets.toml", torn).with("proc/mounts", "write-me-42 auth secret one");
    assert_eq!(unpack(&machine.bundle(wanted()))["proc/mounts"], b"[secret] [secret]");
    let machine = Machine::new();
    std::fs::create_dir_all(machine.root().join("etc/holdfast/secrets.toml")).unwrap();
    assert!(Secrets::read(&machine.root()).unwrap_err().contains("nothing could be kept out"));
}

#[test]
fn comments_are_left_out_of_any_text() {
    let bare = |text: &str| secret::without_comments(text);
    assert_eq!(bare("a = 1\r\n\n# x\nb = \"#\\\"#\" # \"y\n").unwrap(), "a = 1\n\n\nb = \"#\\\"#\"\n");
    assert_eq!(bare("c = '\\' # z").unwrap(), "c = '\\'\n");
    assert_eq!(bare("torn = \"x # in the text\nd = 2 # out").unwrap(), "torn = \"x # in the text\nd = 2\n");
    assert!(bare("a = \"\"\"\n# b\"\"\"").is_err());
    let text = "né = \"wörld # \\\\\" # größe\n";
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
        let bare = bare(&text[..end]).unwrap();
        assert!(!bare.contains("gr") && bare.lines().count() == text[..end].lines().count(), "{bare}");
    }
}

#[test]
fn a_bundle_is_bounded_and_says_what_it_has_left_out() {
    let big = |name, keep| {
        let mut bytes = vec![b'b'; PIECE_BYTES];
        bytes.extend_from_slice(b"end");
        Piece { name, content: Ok(Some(bytes)), keep }
    };
    let names: [&str; 40] = std::array::from_fn(|at| &*format!("piece{at}").leak());
    let pieces = names.map(|name| big(name, Keep::Last)).into_iter().chain([big("first", Keep::First)]).collect();
    let bundle = pack("b", pieces, &Secrets::read(Path::new("/nonexistent")).unwrap());
    let files = unpack(&bundle);
    assert_eq!(files.len(), 1 + BUNDLE_BYTES / PIECE_BYTES);
    assert!(files["piece0"].ends_with(b"bend") && files["piece0"].len() == PIECE_BYTES);
    assert_eq!(bundle.missing.first().unwrap(), "piece0: cut to its last 512 KiB");
    assert_eq!(bundle.missing.last().unwrap(), "first: left out: the bundle is full");
    let mut long = b"0123".repeat(PIECE_BYTES / 4 + 1);
    assert_eq!(Keep::First.cut(&mut long).unwrap(), "cut to its first 512 KiB");
    assert!(long.len() == PIECE_BYTES && Keep::First.cut(&mut long).is_none());
}

#[test]
fn any_length_of_a_file_is_archived_as_it_is() {
    let mut tar = tar::Tar::new("holdfast-a");
    let files: Vec<(String, Vec<u8>)> =
        [0, 1, 511, 512, 513, 1024].into_iter().map(|length| (format!("d/{length}"), vec![7; length])).collect();
    files.iter().for_each(|(name, bytes)| tar.add(name, bytes));
    let bundle = Bundle { name: "holdfast-a".to_owned(), tar: tar.end(), missing: Vec::new() };
    assert_eq!(unpack(&bundle), files.into_iter().collect());
}

#[test]
fn one_bundle_is_written_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("lock");
    let held = alone(&place).unwrap();
    assert_eq!(alone(&place).unwrap_err(), "another bundle is being written");
    drop(held);
    alone(&place).unwrap();
}

#[test]
fn the_name_has_the_node_and_the_time() {
    let name = name(1_795_286_100);
    assert!(name.starts_with("holdfast-") && name.ends_with("-20261121-183500"), "{name}");
}

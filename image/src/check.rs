//! Checks what was built by reading it back: nothing runs that the manifest does not name, and nothing is in it that nobody
//! should find there.
//!
//! Every ELF file of an archive is a program of the manifest, our own binary, a library that one of these needs, or a
//! module of `/etc/modules`; nothing else begins like something that a kernel would run; every link leads to something.
//! No file changes the rights of who runs it, none can be written by others than root, none holds a secret; and what gives
//! its user a way in or a language to write programs in is refused by its name, even where the manifest has it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::debian::{files, output};
use crate::elf;
use crate::manifest::Manifest;
use crate::tree::{Entry, Tree};

/// Shells, interpreters, compilers, remote logins, package managers, debuggers: their names, and what these begin with.
const FORBIDDEN: [&str; 26] = [
    "ash", "awk", "bash", "busybox", "csh", "dash", "fish", "gawk", "ksh", "mawk", "nawk", "sh", "su", "sudo", "zsh",
    "gcc", "cc", "clang", "apt", "dpkg", "rpm", "dropbear", "gdb", "strace", "login", "modprobe",
];
/// These come with versions or in families.
const FORBIDDEN_FAMILIES: [&str; 8] = ["python", "perl", "lua", "ruby", "ssh", "telnet", "apt-", "dpkg-"];
/// What stands in a file that holds a secret: our own file's key, and keys in PEM's form.
const SECRETS: [&str; 3] = ["cluster_key", "community", "PRIVATE KEY"];
/// Where the site's own files go, in a segment of their own.
const SITE: &str = "etc/holdfast";

/// Reads segments back and checks them as one tree, as the kernel unpacks them.
///
/// # Errors
/// Something runs that must not, something is missing, or a link leads nowhere: with its path.
pub fn segments(manifest: &Manifest, groups: &[&str], archives: &[&Path]) -> Result<()> {
    let mut tree = Tree::default();
    for file in archives {
        let archive = output(Command::new("zstd").arg("-dcq").arg(file), "zstd")?;
        tree.unpack(&archive).with_context(|| file.display().to_string())?;
    }
    let programs: Vec<_> = groups.iter().filter_map(|group| manifest.programs.get(*group)).collect();
    let named = programs.iter().flat_map(|group| group.files.iter().cloned());
    let opened = programs.iter().flat_map(|group| group.opened.iter().cloned());
    walk(&tree, &manifest.applets.path)?;
    check(&tree, named.chain([manifest.applets.path.clone()]).collect(), opened.collect())
}

/// Compares two builds, file by file.
///
/// # Errors
/// A file differs, or only one of them has it: with its path.
pub fn same(one: &Path, other: &Path) -> Result<()> {
    let (names, others) = (files(one)?, files(other)?);
    if names != others {
        bail!("{} and {} do not have the same files", one.display(), other.display());
    }
    for name in names {
        if fs::read(one.join(&name))? != fs::read(other.join(&name))? {
            bail!("two builds differ in {}", name.display());
        }
    }
    Ok(())
}

fn check(tree: &Tree, programs: Vec<String>, opened: Vec<String>) -> Result<()> {
    let mut named = modules(tree);
    let mut waiting = programs;
    waiting.extend(opened.iter().filter_map(|name| library(tree, name)));
    while let Some(path) = waiting.pop() {
        let Some(Entry::File(bytes, _)) = tree.get(&path) else { bail!("/{path} is missing") };
        if named.insert(path.clone()) {
            for name in elf::libraries(bytes)? {
                waiting.push(library(tree, &name).with_context(|| format!("/{path} needs {name}"))?);
            }
        }
    }
    for (path, entry) in tree.iter() {
        match entry {
            Entry::File(bytes, _) if elf::is_elf(bytes) && !named.contains(path) => {
                bail!("/{path} can run, and image.toml does not name it");
            }
            Entry::File(bytes, _) if bytes.starts_with(b"#!") => {
                bail!("/{path} is a script, and nothing reads scripts")
            }
            Entry::Link(target) if tree.get(target.trim_start_matches('/')).is_none() => {
                bail!("/{path} leads to {target}, which is not there");
            }
            Entry::File(..) | Entry::Link(_) | Entry::Directory => {}
        }
    }
    Ok(())
}

/// Looks at every file on its own; `own` is our binary, which may go by any name.
fn walk(tree: &Tree, own: &str) -> Result<()> {
    for (path, entry) in tree.iter() {
        let is_ours = matches!(entry, Entry::Link(target) if target.trim_start_matches('/') == own);
        if !is_ours && is_forbidden(path) {
            bail!("/{path} is by its name what the image must not have");
        }
        if path.starts_with(SITE) {
            bail!("/{path} is a site's own, and this image is everybody's");
        }
        let Entry::File(bytes, mode) = entry else { continue };
        let runs = elf::is_elf(bytes);
        match mode {
            mode if mode & 0o7000 != 0 => bail!("/{path} changes the rights of who runs it (mode {mode:o})"),
            mode if mode & 0o022 != 0 => bail!("/{path} can be written by others than root (mode {mode:o})"),
            mode if mode & 0o111 != 0 && !runs => bail!("/{path} is no program and has a program's mode {mode:o}"),
            _ => {}
        }
        if let Some(secret) = SECRETS.iter().find(|secret| !runs && has(bytes, secret)) {
            bail!("/{path} says `{secret}`, as a secret does");
        }
    }
    Ok(())
}

fn is_forbidden(path: &str) -> bool {
    let (directory, name) = path.rsplit_once('/').unwrap_or_default();
    let runs = directory.split('/').any(|part| matches!(part, "bin" | "sbin" | "libexec" | "scripts"));
    runs && (FORBIDDEN.contains(&name) || FORBIDDEN_FAMILIES.iter().any(|family| name.starts_with(family)))
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The kernel modules that are loaded at boot.
fn modules(tree: &Tree) -> BTreeSet<String> {
    let Some(Entry::File(list, _)) = tree.get("etc/modules") else { return BTreeSet::new() };
    let list = String::from_utf8_lossy(list);
    let path = |line: &str| line.split(' ').next().unwrap_or_default().trim_start_matches('/').to_owned();
    list.lines().map(path).collect()
}

/// Where a library of that name lies.
fn library(tree: &Tree, name: &str) -> Option<String> {
    tree.iter().map(|(path, _)| path).find(|path| path.rsplit('/').next() == Some(name)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shortest ELF file: a header (x86-64, executable) and nothing behind it.
    fn elf_file() -> Entry {
        program(0o755)
    }

    /// The same, with a mode.
    fn program(mode: u32) -> Entry {
        let mut bytes = vec![0; 64];
        for (at, value) in [(4, 2), (5, 1), (6, 1), (16, 2), (18, 62), (20, 1), (52, 64)] {
            bytes[at] = value;
        }
        bytes[..4].copy_from_slice(b"\x7fELF");
        Entry::File(bytes, mode)
    }

    /// A tree with one program (this test's own), the libraries that it needs, and a link to it.
    fn tree() -> Tree {
        let program = fs::read("/proc/self/exe").unwrap();
        let mut tree = Tree::default();
        for name in elf::libraries(&program).unwrap() {
            tree.put(&format!("lib/{name}"), elf_file());
        }
        tree.put("bin/program", Entry::File(program, 0o755));
        tree.put("init", Entry::Link("/bin/program".to_owned()));
        tree
    }

    fn checked(tree: &Tree) -> Result<()> {
        check(tree, vec!["bin/program".to_owned()], Vec::new())
    }

    fn refusal(path: &str, entry: Entry) -> String {
        let mut tree = tree();
        tree.put(path, entry);
        checked(&tree).unwrap_err().to_string()
    }

    #[test]
    fn what_the_manifest_names_passes() {
        checked(&tree()).unwrap();
        let mut read_back = Tree::default();
        read_back.unpack(&tree().cpio()).unwrap();
        assert_eq!(read_back, tree());
    }

    #[test]
    fn a_foreign_program_a_script_and_a_dead_link_are_refused() {
        assert_eq!(refusal("bin/sh", elf_file()), "/bin/sh can run, and image.toml does not name it");
        let script = Entry::File(b"#!/bin/sh\n".to_vec(), 0o755);
        assert_eq!(refusal("etc/script", script), "/etc/script is a script, and nothing reads scripts");
        let link = Entry::Link("/bin/other".to_owned());
        assert_eq!(refusal("sbin/init", link), "/sbin/init leads to /bin/other, which is not there");
    }

    #[test]
    fn what_nobody_should_find_is_refused() {
        let walked = |path: &str, entry: Entry| {
            let mut tree = tree();
            tree.put(path, entry);
            walk(&tree, "bin/program").err().map(|error| error.to_string())
        };
        let file = |text: &str, mode| Entry::File(text.as_bytes().to_vec(), mode);
        for (path, entry) in [
            ("bin/sh", Entry::Link("/bin/program".to_owned())),
            ("usr/sbin/nft", program(0o755)),
            ("lib/modules/su.ko", program(0o644)),
            ("etc/passwd", file("root:x:0:0:root:/:/none\n", 0o644)),
        ] {
            assert_eq!(walked(path, entry), None, "{path}");
        }
        for (path, entry, reason) in [
            ("bin/sh", Entry::Link("/bin/other".to_owned()), "by its name"),
            ("bin/sh", program(0o755), "by its name"),
            ("usr/bin/python3.11", program(0o755), "by its name"),
            ("usr/sbin/sshd", program(0o755), "by its name"),
            ("usr/sbin/nft", program(0o4755), "rights of who runs it (mode 4755)"),
            ("usr/sbin/nft", program(0o2755), "rights of who runs it (mode 2755)"),
            ("etc/passwd", file("", 0o666), "written by others than root (mode 666)"),
            ("etc/passwd", file("", 0o664), "written by others than root (mode 664)"),
            ("etc/passwd", file("", 0o755), "is no program"),
            ("etc/key", file("-----BEGIN PRIVATE KEY-----", 0o600), "`PRIVATE KEY`"),
            ("etc/other.toml", file("cluster_key = \"00\"", 0o600), "`cluster_key`"),
            ("etc/holdfast/cluster.toml", file("", 0o644), "a site's own"),
        ] {
            let refused = walked(path, entry).unwrap();
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn a_difference_between_two_builds_is_told() {
        let [one, other] = [(), ()].map(|()| tempfile::tempdir().unwrap());
        for directory in [&one, &other] {
            fs::write(directory.path().join("initramfs"), "the same").unwrap();
        }
        same(one.path(), other.path()).unwrap();
        fs::write(other.path().join("initramfs"), "the sane").unwrap();
        assert_eq!(same(one.path(), other.path()).unwrap_err().to_string(), "two builds differ in initramfs");
        fs::write(other.path().join("more"), "").unwrap();
        assert!(same(one.path(), other.path()).unwrap_err().to_string().ends_with("the same files"));
    }

    #[test]
    fn a_missing_program_is_told() {
        let error = check(&tree(), vec!["bin/other".to_owned()], Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "/bin/other is missing");
    }
}

//! Checks what was built by reading it back: nothing runs that the manifest does not name.
//!
//! Every ELF file of an archive is a program of the manifest, our own binary, a library that one of these needs, or a
//! module of `/etc/modules`; nothing else begins like something that a kernel would run; every link leads to something.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::debian::{files, output};
use crate::elf;
use crate::manifest::Manifest;
use crate::tree::{Entry, Tree};

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
        let mut bytes = vec![0; 64];
        for (at, value) in [(4, 2), (5, 1), (6, 1), (16, 2), (18, 62), (20, 1), (52, 64)] {
            bytes[at] = value;
        }
        bytes[..4].copy_from_slice(b"\x7fELF");
        Entry::File(bytes, 0o755)
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

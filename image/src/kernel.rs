//! The kernel: its modules in load order, and its uncompressed form for guests.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::tree::{Entry, Tree};
use crate::{debian, elf};

/// The modules of one unpacked kernel package.
#[derive(Debug)]
pub struct Modules {
    root: PathBuf,
    files: BTreeMap<String, PathBuf>,
    builtin: Vec<String>,
}

impl Modules {
    /// Finds them.
    ///
    /// # Errors
    /// The package has none.
    pub fn find(package: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut builtin = Vec::new();
        for file in debian::files(package)? {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if let Some(name) = name.strip_suffix(".ko") {
                files.insert(plain(name), file);
            } else if name == "modules.builtin" {
                let list = fs::read_to_string(package.join(&file))?;
                let names = list.lines().filter_map(|line| line.rsplit('/').next()?.strip_suffix(".ko"));
                builtin.extend(names.map(plain));
            }
        }
        Ok(Self { root: package.to_path_buf(), files, builtin })
    }

    /// Adds modules and what they depend on, and `/etc/modules`: one path a line, in load order, parameters behind it.
    ///
    /// # Errors
    /// The kernel has no such module.
    pub fn add(&self, wanted: &[String], tree: &mut Tree) -> Result<()> {
        let mut order = Vec::new();
        for line in wanted {
            let (name, parameters) = line.split_once(' ').unwrap_or((line, ""));
            self.visit(&plain(name), parameters, &mut order, tree)?;
        }
        let lines = order.iter().map(|(_, line)| format!("{}\n", line.trim_end()));
        tree.put("etc/modules", Entry::File(lines.collect::<String>().into_bytes(), 0o644));
        Ok(())
    }

    fn visit(&self, name: &str, parameters: &str, order: &mut Vec<(String, String)>, tree: &mut Tree) -> Result<()> {
        if order.iter().any(|(other, _)| other == name) || self.builtin.iter().any(|other| other == name) {
            return Ok(());
        }
        let Some(file) = self.files.get(name) else { bail!("the kernel has no module {name}") };
        let bytes = fs::read(self.root.join(file))?;
        for needed in elf::module_depends(&bytes)? {
            self.visit(&plain(&needed), "", order, tree)?;
        }
        let path = file.to_string_lossy().into_owned();
        tree.put(&path, Entry::File(bytes, 0o644));
        order.push((name.to_owned(), format!("/{path} {parameters}")));
        Ok(())
    }
}

/// The kernel writes `_` and file names have either.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// The ELF file inside a bzImage (the kernel's Documentation/arch/x86/boot.rst: setup_sects at 0x1f1, payload_offset at
/// 0x248, payload_length at 0x24c; the payload's last four bytes are its uncompressed length).
///
/// # Errors
/// It is not a bzImage with an xz payload.
pub fn vmlinux(image: &[u8]) -> Result<Vec<u8>> {
    let word = |at: usize| -> Result<usize> {
        let bytes = image.get(at..at + 4).context("a kernel image that is too short")?;
        Ok(usize::try_from(u32::from_le_bytes(bytes.try_into()?))?)
    };
    let setup = usize::from(*image.get(0x1f1).context("a kernel image that is too short")?);
    let begin = (setup + 1) * 512 + word(0x248)?;
    let end = begin + word(0x24c)? - 4;
    let payload = image.get(begin..end).context("a kernel image whose payload is cut off")?.to_vec();
    if !payload.starts_with(b"\xfd7zXZ") {
        bail!("the kernel's payload is not xz");
    }
    let mut xz = Command::new("xz")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("xz is missing: apt-get install xz-utils")?;
    let mut input = xz.stdin.take().context("xz takes no input")?;
    let writer = std::thread::spawn(move || input.write_all(&payload));
    let output = xz.wait_with_output()?;
    if !output.status.success() || !matches!(writer.join(), Ok(Ok(()))) || !elf::is_elf(&output.stdout) {
        bail!("the kernel's payload cannot be unpacked");
    }
    Ok(output.stdout)
}

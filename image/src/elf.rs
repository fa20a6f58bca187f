//! What a program or a kernel module needs, read from its ELF headers.

use anyhow::{Context, Result};
use goblin::elf::Elf;

/// The libraries that an ELF file names, its interpreter among them; nothing if it is not an ELF file.
///
/// # Errors
/// It begins like an ELF file and is none.
pub fn libraries(bytes: &[u8]) -> Result<Vec<String>> {
    if !is_elf(bytes) {
        return Ok(Vec::new());
    }
    let elf = Elf::parse(bytes).context("a damaged ELF file")?;
    let interpreter = elf.interpreter.and_then(|path| path.rsplit('/').next());
    Ok(elf.libraries.iter().copied().chain(interpreter).map(str::to_owned).collect())
}

/// Whether it can be run or loaded by the kernel.
#[must_use]
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// The modules that a kernel module depends on (`depends=` in its `.modinfo` section).
///
/// # Errors
/// It is not a kernel module.
pub fn module_depends(bytes: &[u8]) -> Result<Vec<String>> {
    let elf = Elf::parse(bytes).context("not a kernel module")?;
    let named = |header: &&goblin::elf::SectionHeader| elf.shdr_strtab.get_at(header.sh_name) == Some(".modinfo");
    let header = elf.section_headers.iter().find(named).context("a kernel module without .modinfo")?;
    let section = header.file_range().and_then(|range| bytes.get(range)).context("a damaged kernel module")?;
    let mut fields = section.split(|byte| *byte == 0).filter_map(|field| core::str::from_utf8(field).ok());
    let depends = fields.find_map(|field| field.strip_prefix("depends=")).unwrap_or_default();
    Ok(depends.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

//! Everything that the machines boot and store, made before they start.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::layout::Layout;
use super::machine::Disk;

/// The disks of every machine.
///
/// # Errors
/// The image cannot be built, or a file not be written.
pub fn make(_layout: &Layout, _run_dir: &Path) -> Result<BTreeMap<String, Vec<Disk>>> {
    Ok(BTreeMap::new())
}

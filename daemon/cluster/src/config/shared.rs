//! `[shared]`: what the file system is that every node has, with the VMs' files on it.

use core::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::Export;

/// The export that carries the shared file system.
pub const SHARED: &str = "shared";

/// What the shared file system is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileSystem {
    /// Made elsewhere, and read by every node.
    #[default]
    Squashfs,
    /// Written by every node: the members of the kernels' lockspace are the cluster's to say.
    Gfs2,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SharedTable {
    filesystem: Option<Spanned<String>>,
}

/// What the file says of it.
///
/// # Errors
/// Where what is written cannot work, and what to write instead.
pub(super) fn shared(table: &SharedTable, exports: &[Export]) -> Result<FileSystem, (Range<usize>, String)> {
    let Some(written) = &table.filesystem else { return Ok(FileSystem::default()) };
    let refuse = |text: &str| Err((written.span(), text.to_owned()));
    match (written.get_ref().as_str(), exports.iter().find(|export| export.name == SHARED)) {
        ("squashfs", _) => Ok(FileSystem::Squashfs),
        ("gfs2", None) => refuse("gfs2 needs an [[export]] with name = \"shared\" that carries it"),
        ("gfs2", Some(export)) if export.read_only => {
            refuse("every node writes to gfs2: remove read_only from the [[export]] named \"shared\"")
        }
        ("gfs2", Some(_)) => Ok(FileSystem::Gfs2),
        _ => refuse("filesystem must be \"squashfs\" (read only, the default) or \"gfs2\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_file_system_that_cannot_work_is_refused_with_its_line() {
        let good = include_str!("good.toml");
        assert_eq!(Config::parse(good).unwrap().shared, FileSystem::Squashfs, "the default");
        let table = |name: &str| format!("{good}[shared]\nfilesystem = \"{name}\"\n");
        assert_eq!(Config::parse(&table("squashfs")).unwrap().shared, FileSystem::Squashfs);
        let writable = table("gfs2").replace("read_only = true\n", "");
        assert_eq!(Config::parse(&writable).unwrap().shared, FileSystem::Gfs2);
        let rows = [
            (table("gfs2"), "remove read_only"),
            (writable.replace("name = \"shared\"", "name = \"other\""), "needs an [[export]]"),
            (table("ocfs2"), "must be \"squashfs\""),
            (table("squashfs").replace("filesystem", "file_system"), "unknown field"),
        ];
        for (text, expected) in rows {
            let error = Config::parse(&text).unwrap_err();
            assert!(error.text.contains(expected) && error.line > 50, "{error}");
        }
    }
}

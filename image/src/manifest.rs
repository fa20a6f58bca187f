//! `image.toml`: what is in the image.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The whole manifest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What must not be exceeded.
    pub budgets: Budgets,
    /// The hypervisor.
    pub xen: Xen,
    /// The kernel and its modules.
    pub linux: Linux,
    /// Groups of programs, by the name of their segment.
    pub programs: BTreeMap<String, Programs>,
    /// Our own binary.
    pub applets: Applets,
}

/// Sizes that must not be exceeded.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// Xen, kernel and initramfs together, in bytes.
    pub boot: u64,
    /// Our own binary, in bytes.
    pub binary: u64,
}

/// Where the hypervisor comes from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xen {
    /// The Debian package.
    pub package: String,
    /// The file in it.
    pub file: String,
}

/// Where the kernel comes from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linux {
    /// A meta-package, which depends on the newest kernel's own.
    pub package: String,
    /// Modules that dom0 loads, in order, with parameters behind the name.
    pub modules: Vec<String>,
    /// Modules that the rack's guests load.
    pub guest_modules: Vec<String>,
}

/// A group of programs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Programs {
    /// Their paths, in the packages and in the image alike.
    pub files: Vec<String>,
    /// Libraries that they open by name while they run, which their ELF headers do not tell.
    #[serde(default)]
    pub opened: Vec<String>,
    /// The Debian packages that they and their libraries come from.
    pub packages: Vec<String>,
}

/// Our own binary.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applets {
    /// Where it lies.
    pub path: String,
    /// The other names under which it is called.
    pub links: Vec<String>,
}

impl Manifest {
    /// Reads `image/image.toml` of the source tree.
    ///
    /// # Errors
    /// It cannot be read, or is not a manifest: with its line.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        toml::from_str(&text).with_context(|| file.display().to_string())
    }
}

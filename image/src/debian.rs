//! Debian's packages: fetched once into a cache, unpacked, and never installed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a program and returns what it prints.
///
/// # Errors
/// It is missing, with the Debian package that has it, or it fails, with what it said.
pub fn output(command: &mut Command, package: &str) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{name} is missing: apt-get install {package}"))?;
    if !output.status.success() {
        bail!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// The package cache below the build directory.
#[derive(Debug)]
pub struct Packages {
    cache: PathBuf,
}

impl Packages {
    /// A cache in that directory.
    #[must_use]
    pub fn new(cache: PathBuf) -> Self {
        Self { cache }
    }

    /// Every package's unpacked directory and its version; what is not in the cache is fetched in one go.
    ///
    /// # Errors
    /// Debian does not have one, or it cannot be fetched or unpacked.
    pub fn unpacked(&self, packages: &[String]) -> Result<Vec<(PathBuf, String)>> {
        let versions = candidates(packages)?;
        let found: Vec<(PathBuf, String)> = packages
            .iter()
            .map(|package| {
                let version = versions.get(package).with_context(|| unknown(package))?;
                let directory = self.cache.join(format!("{package}_{}", version.replace(':', "%3a")));
                Ok((directory, version.clone()))
            })
            .collect::<Result<_>>()?;
        let fetched = self.cache.join("fetched");
        drop(fs::remove_dir_all(&fetched));
        fs::create_dir_all(&fetched).with_context(|| fetched.display().to_string())?;
        let missing = || packages.iter().zip(&found).filter(|(_, (directory, _))| !directory.exists());
        let requests: Vec<String> = missing().map(|(package, (_, version))| format!("{package}={version}")).collect();
        if !requests.is_empty() {
            // apt gives its rights away to fetch, and complains where it then may not write; it fetches all the same.
            output(Command::new("apt-get").args(["download", "-q"]).args(&requests).current_dir(&fetched), "apt")?;
        }
        for (package, (directory, _)) in missing() {
            let archive = archive_of(&fetched, package)?;
            let unpacked = fetched.join("root");
            output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked), "dpkg")?;
            fs::rename(&unpacked, directory)?;
        }
        fs::remove_dir_all(&fetched)?;
        Ok(found)
    }

    /// As [`Packages::unpacked`], for one package.
    ///
    /// # Errors
    /// The same.
    pub fn unpacked_one(&self, package: &str) -> Result<(PathBuf, String)> {
        self.unpacked(&[package.to_owned()])?.pop().with_context(|| unknown(package))
    }
}

/// A package's file among those that apt has fetched: `NAME_VERSION_ARCHITECTURE.deb`.
fn archive_of(directory: &Path, package: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().split('_').next() == Some(package) {
            return Ok(entry.path());
        }
    }
    bail!("apt-get fetched no {package}")
}

/// The versions that apt would install, by package.
fn candidates(packages: &[String]) -> Result<BTreeMap<String, String>> {
    let text = output(Command::new("apt-cache").arg("policy").args(packages).env("LC_ALL", "C"), "apt")?;
    let mut versions = BTreeMap::new();
    let mut package = String::new();
    for line in String::from_utf8_lossy(&text).lines() {
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with(' ')) {
            package = name.to_owned();
        } else if let Some(version) = line.trim().strip_prefix("Candidate: ").filter(|version| *version != "(none)") {
            versions.insert(package.clone(), version.to_owned());
        }
    }
    Ok(versions)
}

fn unknown(package: &str) -> String {
    format!("apt knows no package {package}: run apt-get update")
}

/// The package that a meta-package depends on and whose name begins with `prefix`.
///
/// # Errors
/// There is none.
pub fn dependency(package: &str, prefix: &str) -> Result<String> {
    let text = output(Command::new("apt-cache").args(["depends", package]).env("LC_ALL", "C"), "apt")?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let found = names.find(|name| name.starts_with(prefix));
    found.map(str::to_owned).with_context(|| format!("{package} depends on no {prefix}*: run apt-get update"))
}

/// Every file below `directory`, with its path relative to it. Links are listed as they are, not followed.
///
/// # Errors
/// A directory cannot be read.
pub fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(next) = waiting.pop() {
        let entries = fs::read_dir(&next).with_context(|| next.display().to_string())?;
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(directory)?.to_path_buf());
            }
        }
    }
    found.sort();
    Ok(found)
}

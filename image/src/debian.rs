//! Debian's packages: fetched once into a cache, unpacked, and never installed.

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

    /// The directory into which a package is unpacked, and its version.
    ///
    /// # Errors
    /// Debian does not have it, or it cannot be fetched or unpacked.
    pub fn unpacked(&self, package: &str) -> Result<(PathBuf, String)> {
        let version = candidate(package)?;
        let directory = self.cache.join(format!("{package}_{}", version.replace(':', "%3a")));
        if directory.exists() {
            return Ok((directory, version));
        }
        let fetched = self.cache.join(format!("fetch-{package}"));
        drop(fs::remove_dir_all(&fetched));
        fs::create_dir_all(&fetched)?;
        // apt-get gives its rights away to fetch, and complains where it then may not write; it fetches all the same.
        let request = format!("{package}={version}");
        output(Command::new("apt-get").args(["download", "-q", &request]).current_dir(&fetched), "apt")?;
        let archive = fs::read_dir(&fetched)?.next().context("apt-get fetched nothing")??.path();
        let unpacked = fetched.join("root");
        output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked), "dpkg")?;
        fs::rename(&unpacked, &directory)?;
        fs::remove_dir_all(&fetched)?;
        Ok((directory, version))
    }
}

/// The version of a package that apt would install.
fn candidate(package: &str) -> Result<String> {
    let told = |program: &str| -> Result<Option<String>> {
        let text = output(Command::new(program).args(["policy", package]).env("LC_ALL", "C"), "apt")?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
        Ok(line.filter(|version| *version != "(none)").map(str::to_owned))
    };
    told("apt-cache")?.with_context(|| format!("apt knows no package {package}: run apt-get update"))
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

//! The page "Storage": the gateway's volume group, and the exports that are made in it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{Menu, PATIENCE};

const STORAGE: &str = "Storage";
const TAKE: &str = "Take the disk ";
const BLANK: &str = "blank)";
const CREATE: &str = "Make an export";
const GROW: &str = "Make it larger";
const SNAPSHOT: &str = "Take a snapshot of it";
const DELETE: &str = "Delete it";
const JOURNALS: &str = "Add journals";
/// How long it may take to write a journal's 32 MiB through an emulated machine.
const WRITTEN: Duration = Duration::from_mins(12);

impl Menu {
    /// Takes the first blank disk for the volume group, and tells which.
    ///
    /// # Errors
    /// There is none, or it is refused; the text shows the screen.
    pub fn take_blank_disk(&self) -> Result<String> {
        self.open_storage()?;
        let disk = self.until("a blank disk", |screen| {
            let line = screen.lines().find(|line| line.contains(TAKE) && line.contains(BLANK))?;
            let (_, rest) = line.split_once(TAKE)?;
            rest.split(' ').next().map(str::to_owned)
        })?;
        self.choose(&format!("{TAKE}{disk} "))?;
        self.type_and_enter(&disk)?;
        Ok(disk)
    }

    /// Makes an export: `NAME SIZE`.
    ///
    /// # Errors
    /// It is refused; the text shows the screen.
    pub fn create_export(&self, typed: &str) -> Result<()> {
        self.open_storage()?;
        self.choose(CREATE)?;
        self.type_and_enter(typed)
    }

    /// Makes an export larger.
    ///
    /// # Errors
    /// It is refused; the text shows the screen.
    pub fn grow_export(&self, name: &str, size: &str) -> Result<()> {
        self.open_export(name)?;
        self.choose(GROW)?;
        self.type_and_enter(size)
    }

    /// Takes a snapshot of an export.
    ///
    /// # Errors
    /// It is refused; the text shows the screen.
    pub fn snapshot_export(&self, name: &str) -> Result<()> {
        self.open_export(name)?;
        self.choose(SNAPSHOT)?;
        self.until("a question to confirm", |screen| screen.contains("(y/n)").then_some(()))?;
        self.press("y")?;
        self.done(PATIENCE)
    }

    /// Deletes an export.
    ///
    /// # Errors
    /// It is refused; the text shows the screen.
    pub fn delete_export(&self, name: &str) -> Result<()> {
        self.open_export(name)?;
        self.choose(DELETE)?;
        self.type_and_enter(name)
    }

    /// Has so many journals added to the file system on an export.
    ///
    /// # Errors
    /// It is refused; the text shows the screen.
    pub fn add_journals(&self, name: &str, count: usize) -> Result<()> {
        self.open_export(name)?;
        self.choose(JOURNALS)?;
        self.fill_in(&count.to_string())?;
        self.done(WRITTEN)
    }

    /// The sizes of all exports, as they are shown, by their names, once `ready`.
    ///
    /// # Errors
    /// They never are; the text shows the screen.
    pub fn exports(&self, what: &str, ready: impl Fn(&[(String, String)]) -> bool) -> Result<Vec<(String, String)>> {
        self.open_storage()?;
        let found = self.until(what, |screen| {
            let exports: Vec<_> = screen.lines().filter_map(export).collect();
            (!exports.is_empty() && ready(&exports)).then_some(exports)
        })?;
        self.back()?;
        Ok(found)
    }

    fn open_storage(&self) -> Result<()> {
        let key = self.entry(STORAGE)?;
        self.press(&key)?;
        self.until("the gateway's disks", |screen| screen.contains("volume group").then_some(()))
    }

    fn open_export(&self, name: &str) -> Result<()> {
        self.open_storage()?;
        self.choose(&format!("{name} "))?;
        self.until("the export", |screen| screen.contains(&format!("Export {name}")).then_some(()))
    }

    fn type_and_enter(&self, typed: &str) -> Result<()> {
        self.fill_in(typed)?;
        self.done(PATIENCE)
    }

    fn fill_in(&self, typed: &str) -> Result<()> {
        // The sentence may be broken into lines anywhere; what is typed stands before this.
        self.until("where to type", |screen| screen.contains("Enter: do it").then_some(()))?;
        self.press(&format!("{typed}\r"))
    }

    /// The gateway has done what was asked, within `limit`. Back to the first page.
    fn done(&self, limit: Duration) -> Result<()> {
        let done = self.within(limit, "an answer", |screen| {
            (screen.contains("| Done. ") || screen.contains("| Refused: ")).then(|| screen.to_owned())
        })?;
        self.back()?;
        if done.contains("| Refused: ") {
            bail!("it is refused:\n{done}");
        }
        Ok(())
    }
}

/// The name and the size in a line of the list: `|  5) web      64 MiB  none      none |`.
fn export(line: &str) -> Option<(String, String)> {
    let (_, entry) = line.split_once(") ")?;
    let words: Vec<&str> = entry.split_whitespace().collect();
    let unit = words.iter().position(|word| matches!(*word, "MiB" | "GiB")).filter(|unit| *unit == 2)?;
    Some((words.first()?.to_string(), format!("{} {}", words.get(unit - 1)?, words.get(unit)?)))
}

/// The size of an export in a list of [`Menu::exports`].
///
/// # Errors
/// It is not there.
pub fn size<'a>(exports: &'a [(String, String)], name: &str) -> Result<&'a str> {
    let found = exports.iter().find(|(other, _)| other == name).map(|(_, size)| size.as_str());
    found.with_context(|| format!("there is no export {name} among {exports:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_read_off_the_screen() {
        let of = |line| export(line).map(|(name, size)| format!("{name}: {size}"));
        assert_eq!(of("|  2) x0                    32 MiB  node2           VM x0 on node2   |").unwrap(), "x0: 32 MiB");
        assert_eq!(
            of("|  5) lv1-snap1            1.5 GiB  none            none             |").unwrap(),
            "lv1-snap1: 1.5 GiB"
        );
        for other in ["|  6) Make an export   |", "|  7) Take the disk vdg (256 MiB, blank)  |", "| Export    Size |"] {
            assert_eq!(of(other), None);
        }
    }
}

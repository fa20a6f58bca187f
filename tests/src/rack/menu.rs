//! An operator at a node's console: eyes that read the screen, and fingers that press keys.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::serial::Line;

/// How often the screen is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long a menu may take to show what a key brings, on a machine that is emulated and busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pages that can lie on the first one: VMs, one VM, where to, the question.
const DEEPEST: usize = 4;
/// How the entry that shuts a node down reads.
const SHUT_DOWN: &str = "Shut down this node";

/// A node's console with its menu.
#[derive(Debug)]
pub struct Menu {
    line: Line,
}

impl Menu {
    /// At that console.
    pub fn at(line: Line) -> Self {
        Self { line }
    }

    /// Chooses "Shut down this node" and confirms.
    ///
    /// # Errors
    /// The menu does not come, has no such entry, or does not ask; the text shows the screen.
    pub fn shut_down(&self) -> Result<()> {
        let key = self.entry(SHUT_DOWN)?;
        self.press(&key)?;
        self.until("a question to confirm", |screen| screen.contains("(y/n)").then_some(()))?;
        self.press("y")
    }

    /// The key of the entry `N) text`.
    fn entry(&self, text: &str) -> Result<String> {
        // Escapes lead back to the menu from wherever somebody left it; Ctrl-L paints over what the kernel wrote.
        self.press(&format!("{}\u{c}", "\u{1b}".repeat(DEEPEST)))?;
        self.until(text, |screen| {
            screen.lines().filter(|line| line.contains(text)).find_map(|line| {
                let (before, _) = line.split_once(')')?;
                let digits: String = before.chars().filter(char::is_ascii_alphanumeric).collect();
                (!digits.is_empty()).then_some(digits)
            })
        })
    }

    fn press(&self, keys: &str) -> Result<()> {
        if !self.line.write(keys.as_bytes()) {
            bail!("nobody is at the other end of this console");
        }
        Ok(())
    }

    fn until<T>(&self, what: &str, mut find: impl FnMut(&str) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.line.screen();
            if let Some(found) = find(&screen) {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("the console does not show {what:?}; it shows:\n{screen}");
            }
            std::thread::sleep(LOOK);
        }
    }
}

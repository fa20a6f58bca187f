//! An operator at a node's console: eyes that read the screen, and fingers that press keys.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::serial::Line;

pub mod volumes;

/// How often the screen is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long a menu may take to show what a key brings, on a machine that is emulated and busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pages that can lie on the first one: VMs, one VM, where to, the question.
const DEEPEST: usize = 4;
/// How the entry that shuts a node down reads.
const SHUT_DOWN: &str = "Shut down this node";
/// How the entry reads behind which machines join, and there the one that opens a window.
const JOINING: &str = "Joining";
const WINDOW: &str = "Open a window";

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

    /// Waits for the first page of a machine that boots: before, keys would reach its boot loader.
    ///
    /// # Errors
    /// It does not come; the text shows the screen.
    pub fn comes(&self) -> Result<()> {
        self.shown(JOINING).map(drop)
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

    /// Opens a window for so many machines that join.
    ///
    /// # Errors
    /// The menu does not come, has no such entry, or the gateway refuses; the text shows the screen.
    pub fn open_window(&self, machines: usize) -> Result<()> {
        let key = self.entry(JOINING)?;
        self.press(&key)?;
        let key = self.shown(WINDOW)?;
        self.press(&key)?;
        self.until("how many machines", |screen| screen.contains("How many machines?").then_some(()))?;
        self.press(&format!("{machines}\r"))?;
        self.until("that the window is open", |screen| screen.contains("The window is open").then_some(()))?;
        self.back()
    }

    /// The key of the entry `N) text` of the first page.
    fn entry(&self, text: &str) -> Result<String> {
        self.back()?;
        self.shown(text)
    }

    /// Back to the first page, from wherever somebody left the menu.
    fn back(&self) -> Result<()> {
        // Ctrl-L paints over what the kernel wrote.
        self.press(&format!("{}\u{c}", "\u{1b}".repeat(DEEPEST)))
    }

    /// The key of the entry `N) text` of the page that is open.
    fn shown(&self, text: &str) -> Result<String> {
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

//! An operator at a node's console: eyes that read the screen, and fingers that press keys.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::serial::Line;

pub mod vms;
pub mod volumes;

/// How often the screen is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long a menu may take to show what a key brings, on a machine that is emulated and busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a page may take to open after its key.
const OPENS: Duration = Duration::from_secs(10);
/// Pages that can lie on the first one: VMs, one VM, where to, the question.
const DEEPEST: usize = 4;
/// How often a cluster is asked that did not agree in time.
const TRIES: usize = 5;
/// How the entry that shuts a node down reads.
const SHUT_DOWN: &str = "Shut down this node";
/// How the entry reads behind which machines join, and there the one that opens a window.
const JOINING: &str = "Joining";
const WINDOW: &str = "Open a window";
/// How the entry reads behind which the nodes are, and the one of a node that is off by which it goes for good.
const NODES: &str = "Nodes";
const REMOVE: &str = "Remove it from the cluster";
/// How the entry of the page of nodes reads by which all of them are restarted.
const RESTART_ALL: &str = "Restart all nodes";
/// How the entries of a node read that keep VMs from it, and no longer.
const INTO_STANDBY: &str = "Put into standby";
const OUT_OF_STANDBY: &str = "Take out of standby";
/// What stands before the code of a machine that asks to join.
const CODE: &str = "Its code is ";
/// Digits of a code.
const DIGITS: usize = 6;

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

    /// The code that this machine shows, which asks to join. It may still boot.
    ///
    /// # Errors
    /// There is none within `limit`; the text shows the screen.
    pub fn code(&self, limit: Duration) -> Result<String> {
        self.within(limit, "a code", |screen| {
            let text = prose(screen);
            let digits = text.split_once(CODE)?.1.get(..DIGITS)?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.to_owned())
        })
    }

    /// Waits until the screen says this, in however many lines.
    ///
    /// # Errors
    /// It does not within `limit`; the text shows the screen.
    pub fn says(&self, limit: Duration, words: &str) -> Result<()> {
        self.within(limit, words, |screen| prose(screen).contains(words).then_some(()))
    }

    /// Lets the machine with this card in, which asks to join: types its code, and behind it which node it is to be; again, as
    /// anybody would, when the cluster did not agree in time.
    ///
    /// # Errors
    /// It does not ask, or is refused; the text shows the screen.
    pub fn let_in(&self, card: &str, typed: &str) -> Result<()> {
        again(|| {
            let key = self.entry(JOINING)?;
            self.press(&key)?;
            let key = self.shown(card)?;
            self.press(&key)?;
            self.says(PATIENCE, "Type the code and press Enter:")?;
            self.press(&format!("{typed}\r"))?;
            self.agreed()
        })
    }

    /// Waits until the gateway has told who asks to join: it answers this node over a stream that is begun for it. A menu on which
    /// nobody has looked before shows no older answer.
    ///
    /// # Errors
    /// It does not answer; the text shows the screen.
    pub fn who_joins(&self) -> Result<()> {
        let key = self.entry(JOINING)?;
        self.press(&key)?;
        self.shown(WINDOW)?;
        self.back()
    }

    /// Puts a node into standby, or takes it out.
    ///
    /// # Errors
    /// There is no such node, or it is in standby already, or not, or the cluster refuses; the text shows the screen.
    pub fn standby(&self, node: &str, on: bool) -> Result<()> {
        self.open_node(node)?;
        let key = self.shown(if on { INTO_STANDBY } else { OUT_OF_STANDBY })?;
        self.press(&key)?;
        self.until("a question to confirm", |screen| screen.contains("(y/n)").then_some(()))?;
        self.press("y")?;
        self.agreed()
    }

    /// Has all nodes restarted, one after another.
    ///
    /// # Errors
    /// There is no such entry, as while they are restarting, or the cluster refuses; the text shows the screen.
    pub fn restart_all(&self) -> Result<()> {
        let key = self.entry(NODES)?;
        self.press(&key)?;
        let key = self.shown(RESTART_ALL)?;
        self.press(&key)?;
        self.until("a question to confirm", |screen| screen.contains("(y/n)").then_some(()))?;
        self.press("y")?;
        self.agreed()
    }

    /// Removes a node that is off from the cluster; asks again, as anybody would, when the cluster did not agree in time.
    ///
    /// # Errors
    /// There is no such node, or it is not off, or the cluster refuses; the text shows the screen.
    pub fn remove(&self, node: &str) -> Result<()> {
        again(|| {
            self.open_node(node)?;
            let key = self.shown(REMOVE)?;
            self.press(&key)?;
            self.says(PATIENCE, "Type its name and press Enter:")?;
            self.press(&format!("{node}\r"))?;
            self.agreed()
        })
    }

    /// The page of a node. The list may become shorter between a look at it and a key: then another page opens, or none, and it is
    /// looked at again.
    fn open_node(&self, node: &str) -> Result<()> {
        let (list, page) = (title(NODES), title(&format!("Node {node}")));
        let end = Instant::now() + PATIENCE;
        loop {
            let key = self.entry(NODES)?;
            self.press(&key)?;
            let key = self.shown(node)?;
            self.press(&key)?;
            let opened = self.within(OPENS, &page, |screen| (!screen.contains(&list)).then(|| screen.contains(&page)));
            match opened {
                Ok(true) => return Ok(()),
                _ if Instant::now() <= end => {}
                Ok(false) => bail!("the page of {node} does not open; the console shows:\n{}", self.line.screen()),
                Err(error) => return Err(error),
            }
        }
    }

    /// What was asked for last is agreed. Back to the first page.
    fn agreed(&self) -> Result<()> {
        let refused = self.until("an answer", |screen| {
            let text = prose(screen);
            let refused = text.find("Refused: ").and_then(|at| text.get(at..).map(str::to_owned));
            refused.map(Some).or_else(|| text.contains("Agreed.").then_some(None))
        })?;
        self.back()?;
        refused.map_or(Ok(()), |text| bail!("{text}"))
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

    /// Chooses the entry `N) text` of the page that is open.
    fn choose(&self, text: &str) -> Result<()> {
        let key = self.shown(text)?;
        self.press(&key)
    }

    fn press(&self, keys: &str) -> Result<()> {
        if !self.line.write(keys.as_bytes()) {
            bail!("nobody is at the other end of this console");
        }
        Ok(())
    }

    fn until<T>(&self, what: &str, find: impl FnMut(&str) -> Option<T>) -> Result<T> {
        self.within(PATIENCE, what, find)
    }

    fn within<T>(&self, limit: Duration, what: &str, mut find: impl FnMut(&str) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + limit;
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

/// Asks, and asks again as long as the cluster does not agree in time.
fn again(ask: impl Fn() -> Result<()>) -> Result<()> {
    for _ in 1..TRIES {
        match ask() {
            Err(refused) if refused.to_string().contains("did not agree in time") => {}
            answer => return answer,
        }
    }
    ask()
}

/// How the line begins that names a page.
fn title(page: &str) -> String {
    format!("\n| {page} ")
}

/// A screen's words without its frame, in one line.
fn prose(screen: &str) -> String {
    screen.split(|c: char| c.is_whitespace() || c == '|').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_screen_says_is_read_over_the_ends_of_its_lines() {
        let screen =
            "+-- Holdfast --+\n| This machine asks to join the cluster rack. Its code  |\n| is 042917.   |\n+---+";
        assert!(prose(screen).contains("rack. Its code is 042917. +---+"), "{}", prose(screen));
    }
}

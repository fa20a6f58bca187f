//! The page "VMs": one VM's page, its console, and what an operator asks for there.

use anyhow::Result;

use super::{Menu, PATIENCE};

const VMS: &str = "VMs";
const CONSOLE: &str = "Console";
const MIGRATE: &str = "Migrate to another node";
const START: &str = "Start";
const STOP: &str = "Stop";
/// What the last line says as long as the keys are a guest's, and what takes them back.
const ATTACHED: &str = "Ctrl-]: back to the menu";
const LEAVE: &str = "\u{1d}";

impl Menu {
    /// Attaches to a VM's console.
    ///
    /// # Errors
    /// It is refused; the text shows the screen.
    pub fn attach(&self, vm: &str) -> Result<()> {
        self.open_vm(vm)?;
        self.choose(CONSOLE)?;
        self.until("the VM's console", |screen| screen.contains(ATTACHED).then_some(()))
    }

    /// Types a line at the console that is attached.
    ///
    /// # Errors
    /// Nobody is at the other end of the line.
    pub fn type_line(&self, line: &str) -> Result<()> {
        self.press(&format!("{line}\r"))
    }

    /// Leaves a VM's console; the VM's page is there again.
    ///
    /// # Errors
    /// It is not; the text shows the screen.
    pub fn leave_console(&self) -> Result<()> {
        self.press(LEAVE)?;
        self.shown(MIGRATE).map(drop)
    }

    /// Migrates a VM, and looks on until the bar is drawn that shows how far it is.
    ///
    /// # Errors
    /// There is no such node to choose, the cluster refuses, or no bar is seen; the text shows the screen.
    pub fn migrate(&self, vm: &str, to: &str) -> Result<()> {
        self.open_vm(vm)?;
        self.choose(MIGRATE)?;
        self.choose(to)?;
        self.says(PATIENCE, "(y/n)")?;
        self.press("y")?;
        self.agreed()?;
        self.open_vm(vm)?;
        self.until("how much of it is carried", |screen| screen.contains("MiB carried").then_some(()))
    }

    /// Starts or stops a VM.
    ///
    /// # Errors
    /// The cluster refuses; the text shows the screen.
    pub fn start_or_stop(&self, vm: &str, start: bool) -> Result<()> {
        self.open_vm(vm)?;
        self.choose(if start { START } else { STOP })?;
        self.says(PATIENCE, "(y/n)")?;
        self.press("y")?;
        self.agreed()
    }

    fn open_vm(&self, vm: &str) -> Result<()> {
        let key = self.entry(VMS)?;
        self.press(&key)?;
        self.choose(&format!("{vm} "))?;
        self.until(vm, |screen| screen.contains(&super::title(&format!("VM {vm}"))).then_some(()))
    }
}

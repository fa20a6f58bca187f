//! `cargo verify`: everything that must hold, in order, with a time for each; what CI runs.

use std::fs;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use holdfast_tests::rack::artefacts::{rack_dir, workspace};
use holdfast_tests::rack::{Options, Rack};
use holdfast_tests::{
    drill, drill_attacks, drill_cuts, drill_growth, drill_media, drill_operator, drill_rolling, drill_ups,
    drill_volumes, setup,
};

/// Lines shown of each console when the rack failed.
const TAIL: NonZero<u16> = NonZero::new(40).expect("not 0");
/// Columns shown of each console.
const WIDTH: NonZero<u16> = NonZero::new(132).expect("not 0");
/// Simulated worlds.
const SEEDS: &str = "1000";

/// Checks everything: format, lints, tests, the simulator, the image, and a drill in the virtual rack.
#[derive(Parser)]
struct Arguments {
    /// Only the steps whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Of the drill, beside what brings the rack up and what is judged in the end, only the steps whose name contains this;
    /// may be given several times.
    #[arg(long)]
    step: Vec<String>,
}

/// What is done with every rack, whichever steps are wanted.
const ALWAYS: [&str; 5] = [
    "rack: starts",
    "rack: the cluster forms",
    "rack: the VMs run",
    "rack: no journal record is lost",
    "rack: no VM was in two places",
];

/// What is done only where it is named: in emulation it takes minutes, and CI has 90.
const BY_NAME: [&str; 5] = [
    "rack: the switch dies",
    "rack: power fails at bad moments",
    "rack: the shared file system gets more journals",
    "rack: a rolling restart of all nodes",
    "rack: an upgrade of the gateway and of all nodes",
];

fn main() -> ExitCode {
    let Arguments { only, step } = Arguments::parse();
    let mut run = Run { only, parts: step, steps: Vec::new() };
    run.step("setup", || setup::install_missing().and_then(|()| setup::check_machine()));
    if run.failed() == 0 {
        run.step("format", || cargo(&["fmt", "--check"]));
        run.step("lints", || {
            let world = ["--features", "holdfast-tests/world"];
            cargo(&[&["clippy", "--workspace", "--all-targets"], &world[..], &["--", "-D", "warnings"]].concat())?;
            // Not of the workspace, and run by hand.
            let fuzz =
                ["--manifest-path", "tests/fuzz/Cargo.toml", "--no-default-features", "--target-dir", "target/fuzz"];
            cargo(&[&["check"], &fuzz[..]].concat())
        });
        run.step("tests", || cargo(&["test", "--workspace", "--features", "holdfast-tests/world"]));
        run.step("simulator", || cargo(&["sim", "--seeds", SEEDS]));
        run.step("image", || cargo(&["image"]));
        run.step("media", || drill_media::media_check_themselves(&rack_dir().with_file_name("media")));
        rack(&mut run);
    }
    run.close()
}

/// The drill, step by step; what comes after a failure would only fail again.
fn rack(run: &mut Run) {
    if !run.wants("rack") {
        return;
    }
    let dir = rack_dir();
    let mut started = None;
    run.step("rack: starts", || {
        let options = Options { nodes: 3, vms: 2, suspends: true, dir: dir.clone(), print: true };
        started = Some(Rack::start(&options)?);
        Ok(())
    });
    let Some(rack) = started else { return };
    let mut left = None;
    let mut go_on = run.step("rack: the cluster forms", || drill::forms(&rack))
        && run.step("rack: the VMs run", || drill::vms_run(&rack));
    if go_on {
        // Nothing that follows depends on it.
        run.step("rack: volumes on the gateway", || drill_volumes::are_made_and_deleted(&rack));
    }
    go_on = go_on
        && run.step("rack: the shared file system gets more journals", || drill_volumes::get_more_journals(&rack))
        && run.step("rack: a rolling restart of all nodes", || drill_rolling::all_restart(&rack))
        && run.step("rack: an upgrade of the gateway and of all nodes", || drill_rolling::all_is_upgraded(&rack))
        && run.step("rack: the cluster grows", || drill_growth::grows(&rack))
        && run.step("rack: it shrinks again", || drill_growth::shrinks(&rack))
        && run.step("rack: an operator's VMs", || drill_operator::works_with_vms(&rack))
        && run.step("rack: a node leaves gracefully", || {
            left = Some(drill::leaves_gracefully(&rack)?);
            Ok(())
        });
    if let (true, Some(node)) = (go_on, &left) {
        go_on = run.step("rack: attacks are held off", || drill_attacks::are_held_off(&rack, node))
            && run.step("rack: its power goes while it mounts", || drill_cuts::power_goes_while_it_mounts(&rack, node));
    }
    if go_on {
        go_on = run.step("rack: a VM is suspended and resumed", || drill::suspends_a_vm(&rack));
    }
    let _ = go_on
        && run.step("rack: a node crashes", || drill::survives_a_crash(&rack))
        && run.step("rack: a node hangs, fenced by serial", || drill::survives_a_hang_without_snmp(&rack))
        && run.step("rack: the switch dies", || drill_cuts::the_switch_dies(&rack))
        && run.step("rack: the way between two nodes dies", || drill::survives_a_dead_way(&rack))
        && run.step("rack: a migration is cut", || drill_cuts::a_migration_is_cut(&rack))
        && run.step("rack: one of two UPSes fails", || drill_ups::one_ups_fails(&rack))
        && run.step("rack: all power fails", || drill_ups::all_upses_fail(&rack))
        && run.step("rack: power fails at bad moments", || drill_ups::all_upses_fail_at_bad_moments(&rack))
        && run.step("rack: no journal record is lost", || drill::journals_hold(&rack));
    run.step("rack: no VM was in two places", || drill::never_in_two_places(&rack));
    rack.close();
    if run.failed() > 0 {
        show_consoles(&dir);
    }
}

/// Runs cargo in the workspace.
fn cargo(arguments: &[&str]) -> Result<()> {
    let program = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let status = Command::new(program)
        .args(arguments)
        .current_dir(workspace())
        .stdin(Stdio::null())
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo {}: {status}", arguments.join(" "));
    }
    Ok(())
}

fn show_consoles(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(bytes) = fs::read(&path) else { continue };
        if !name.ends_with(".log") || bytes.is_empty() {
            continue;
        }
        // As a terminal would show it: whatever a machine wrote, it must not set the reader's own.
        let text = if name.ends_with(".console.log") {
            let mut terminal = vt100::Parser::new(TAIL, WIDTH, 0);
            terminal.process(&bytes);
            terminal.screen().contents()
        } else {
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let lines: Vec<&str> = text.lines().collect();
        say(&format!("---- the end of {}", path.display()));
        lines.iter().skip(lines.len().saturating_sub(TAIL.get().into())).for_each(|line| say(line));
    }
}

/// The steps so far.
struct Run {
    only: Option<String>,
    parts: Vec<String>,
    steps: Vec<Step>,
}

struct Step {
    name: String,
    took: Duration,
    passed: bool,
}

impl Run {
    fn wants(&self, name: &str) -> bool {
        let everything = self.parts.is_empty() && !BY_NAME.contains(&name);
        let part = !name.starts_with("rack: ") || ALWAYS.contains(&name) || everything;
        let is_wanted = |wanted: &String| name.contains(wanted.as_str());
        let only = self.only.as_ref().is_none_or(|only| is_wanted(only) || only.starts_with(name));
        only && (part || self.parts.iter().any(is_wanted))
    }

    /// Does a step, if it is wanted; `false` if it failed.
    fn step(&mut self, name: &str, run: impl FnOnce() -> Result<()>) -> bool {
        if name != "setup" && !self.wants(name) {
            return true;
        }
        let bold = if stdout().is_terminal() { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
        say(&format!("{}==== {name}{}", bold.0, bold.1));
        let begun = Instant::now();
        let outcome = run();
        if let Err(error) = &outcome {
            say(&format!("FAILED: {name}: {error:#}"));
        }
        self.steps.push(Step { name: name.into(), took: begun.elapsed(), passed: outcome.is_ok() });
        outcome.is_ok()
    }

    fn failed(&self) -> usize {
        self.steps.iter().filter(|step| !step.passed).count()
    }

    /// Says where the time went, and the verdict as the last line.
    fn close(&self) -> ExitCode {
        say("");
        for step in &self.steps {
            let verdict = if step.passed { "passed" } else { "FAILED" };
            say(&format!("{:>8.1} s  {verdict}  {}", step.took.as_secs_f64(), step.name));
        }
        let total: Duration = self.steps.iter().map(|step| step.took).sum();
        say(&format!("{:>8.1} s  in all", total.as_secs_f64()));
        say(&format!("{} passed, {} failed", self.steps.len() - self.failed(), self.failed()));
        if self.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn say(line: &str) {
    // Where even this cannot be written there is nobody to tell.
    let _ = writeln!(stdout().lock(), "{line}");
}

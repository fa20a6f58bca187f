//! The text form of every case: intent, input, `----`, output. The transcript is the specification.
//!
//! ```text
//! A sentence or two of what this shows.
//!
//! the input, line by line
//! ----
//! what comes out
//! ```
//! `UPDATE_EXPECT=1` writes what came out in place of what was expected; review reads the difference.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// What stands between input and output.
const RULE: &str = "----\n";

/// One case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What it shows.
    pub intent: String,
    /// What goes in.
    pub input: String,
    /// What must come out.
    pub output: String,
}

impl Case {
    /// From its text.
    ///
    /// # Errors
    /// It has no intent, or no rule.
    pub fn parse(text: &str) -> Result<Self> {
        let (head, output) = text.split_once(RULE).context("a case has a line ---- between input and output")?;
        let (intent, input) = head.split_once("\n\n").context("a case begins with its intent and an empty line")?;
        ensure!(!intent.trim().is_empty(), "a case says what it shows");
        Ok(Self { intent: intent.into(), input: input.into(), output: output.into() })
    }
}

/// Runs every `*.txt` of a directory through `run`, and compares.
///
/// # Errors
/// Every case whose output is another than expected, with both; or there is none.
pub fn check(directory: &Path, mut run: impl FnMut(&str) -> Result<String>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut files: Vec<_> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    ensure!(!files.is_empty(), "{} has no cases", directory.display());
    let mut wrong = String::new();
    for file in files {
        let case = Case::parse(&fs::read_to_string(&file)?).with_context(|| file.display().to_string())?;
        let output = run(&case.input).with_context(|| file.display().to_string())?;
        if output == case.output {
            continue;
        }
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&file, format!("{}\n\n{}{RULE}{output}", case.intent, case.input))?;
        } else {
            wrong += &format!("{}: expected\n{}came out\n{output}\n", file.display(), case.output);
        }
    }
    ensure!(wrong.is_empty(), "{wrong}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_and_a_wrong_one_is_told() {
        let case = Case::parse("Shows it.\n\nin\n----\nout\n").unwrap();
        assert_eq!(case, Case { intent: "Shows it.".into(), input: "in\n".into(), output: "out\n".into() });
        assert!(Case::parse("no rule\n\nin\n").is_err());
        assert!(Case::parse("no intent\n----\n").is_err());
    }
}

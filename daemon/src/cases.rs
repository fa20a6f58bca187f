//! The text form of a case: intent, an empty line, input, `----`, output. `UPDATE_EXPECT=1` writes what came out.

use std::fs;
use std::path::Path;

/// Runs every file of `folder` through `run`, and compares.
pub(crate) fn check(folder: &Path, run: impl Fn(&str) -> String) {
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let case = fs::read_to_string(&file).unwrap();
        let (head, expected) = case.split_once("----\n").unwrap();
        let (_intent, input) = head.split_once("\n\n").unwrap();
        let output = run(input);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&file, format!("{head}----\n{output}")).unwrap();
        } else {
            assert_eq!(output, expected, "{}", file.display());
        }
    }
}

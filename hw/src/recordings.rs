//! The form of all recordings: a sentence of intent, an empty line, the dialogue and what happens to it, a line `----`, and
//! what comes of it. `UPDATE_EXPECT=1 cargo test -p hw` writes what comes.

use std::path::Path;

/// Replays every recording of a folder of `dialogues`, and compares.
pub(crate) fn check(folder: &str, replay: impl Fn(&str) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogues").join(folder);
    let mut recordings: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    recordings.sort();
    assert!(!recordings.is_empty());
    let mut wrong = Vec::new();
    for path in recordings {
        let text = std::fs::read_to_string(&path).unwrap();
        let (given, expected) = text.split_once("\n----\n").unwrap_or((text.trim_end(), ""));
        let (_intent, input) = given.split_once("\n\n").expect("an intent, an empty line, the input");
        let output = replay(input);
        if output == expected {
            continue;
        }
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, format!("{given}\n----\n{output}")).unwrap();
        } else {
            wrong.push(format!("{}:\n{output}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "not as written:\n{}", wrong.join("\n"));
}

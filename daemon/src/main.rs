//! The program. All of it is in the library, which the image has small; this file is linked for speed (`image/src/build.rs`).

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast::run()
}

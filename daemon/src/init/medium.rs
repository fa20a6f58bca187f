//! Which of its medium's images this machine has booted: a disk that was written anew has the one before beside its own.

use std::fs;

use super::{failed, report};

/// What the boot loader says to Linux when it was asked for the image before.
const PREVIOUS: &str = "holdfast.image=/previous";
const COMMAND_LINE: &str = "/proc/cmdline";

/// Says it where this machine has booted the image before: it does so until the boot loader's menu says otherwise.
///
/// # Errors
/// The kernel's command line cannot be read.
pub(super) fn say_which() -> Result<(), String> {
    if is_previous()? {
        report::problem(
            "this is the previous image of the medium; the newest is started when it is chosen in the boot loader's menu",
        );
    }
    Ok(())
}

/// The folder of the boot partition in which the image is that was booted.
///
/// # Errors
/// The kernel's command line cannot be read.
pub(super) fn folder() -> Result<&'static str, String> {
    is_previous().map(|previous| if previous { "/previous" } else { "" })
}

fn is_previous() -> Result<bool, String> {
    fs::read_to_string(COMMAND_LINE).map(|line| names_previous(&line)).map_err(failed(COMMAND_LINE))
}

fn names_previous(line: &str) -> bool {
    line.split_whitespace().any(|word| word == PREVIOUS)
}

#[cfg(test)]
mod tests {
    use super::names_previous;

    #[test]
    fn the_boot_loader_says_which_image_it_started() {
        assert!(names_previous("console=hvc0 panic=5 holdfast.image=/previous\n"));
        for other in ["console=hvc0 holdfast.image=\n", "console=hvc0", "holdfast.image=/previous2"] {
            assert!(!names_previous(other), "{other}");
        }
    }
}

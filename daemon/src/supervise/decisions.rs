//! What the operator has decided, on the shared file system: read with the VM files, and written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::mpsc;

use cluster::config::Decisions;
use cluster::words::Instant;

use super::clock::until;
use super::run::servant;
use crate::gfs2::MOUNT;

/// Where they are.
pub(super) const PLACE: &str = "/shared/cluster/decisions.toml";

/// What is kept at `place`; nothing is decided where nothing was ever kept.
///
/// # Errors
/// It cannot be read; or, within, it is not understood: in words for the operator.
pub(super) fn read(place: &Path) -> io::Result<Result<Decisions, String>> {
    match fs::read_to_string(place) {
        Ok(text) => Ok(Decisions::parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ok(Decisions::default())),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Err("it is no text".to_owned())),
        Err(error) => Err(error),
    }
}

/// Keeps them at `place` before `deadline`. The file system may be held for a change of its members: whoever waits for that in the
/// kernel is a thread of its own.
///
/// # Errors
/// They could not be written, or were not yet: in words for the operator.
pub(super) fn keep(place: &'static Path, decisions: &Decisions, deadline: Instant) -> Result<String, String> {
    let (text, (ended, end)) = (decisions.to_text(), mpsc::channel());
    servant("what the operator has decided", move || {
        // Nobody may be waiting any more.
        let _ = ended.send(write(place, &text));
    })?;
    let written = end.recv_timeout(until(deadline)).map_err(|_| format!("{MOUNT} does not answer"))?;
    written.map(|()| String::new()).map_err(|error| format!("{}: {error}", place.display()))
}

/// Writes beside it, makes sure of that, and puts it in its place. What is there and not understood is put aside.
fn write(place: &Path, text: &str) -> io::Result<()> {
    let directory = place.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(directory)?;
    if read(place)?.is_err() {
        fs::rename(place, place.with_extension("refused"))?;
    }
    let fresh = place.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, place)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use cluster::words::VmName;

    use super::*;

    #[test]
    fn what_is_kept_is_read_again_whatever_was_left_there() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("cluster/decisions.toml");
        assert_eq!(read(&place).unwrap(), Ok(Decisions::default()), "nothing was ever kept");
        let stopped = |name: &str| Decisions { stopped: [VmName::new(name).unwrap()].into(), ..Decisions::default() };
        for name in ["x0", "x1"] {
            write(&place, &stopped(name).to_text()).unwrap();
            assert_eq!(read(&place).unwrap(), Ok(stopped(name)));
        }
        // A write that ended in the middle.
        fs::write(place.with_extension("new"), "disarmed = tr").unwrap();
        assert_eq!(read(&place).unwrap(), Ok(stopped("x1")));
        write(&place, &stopped("x2").to_text()).unwrap();
        assert_eq!(read(&place).unwrap(), Ok(stopped("x2")));
    }

    #[test]
    fn what_is_not_understood_is_put_aside_and_not_lost() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("decisions.toml");
        for bad in [&b"stopped = 7\n"[..], b"\xff\xfe"] {
            fs::write(&place, bad).unwrap();
            assert!(read(&place).unwrap().is_err());
            write(&place, &Decisions::default().to_text()).unwrap();
            assert_eq!(read(&place).unwrap(), Ok(Decisions::default()));
            assert_eq!(fs::read(place.with_extension("refused")).unwrap(), bad);
        }
    }
}

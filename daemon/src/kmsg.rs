//! The kernel's log (Linux, `Documentation/ABI/testing/dev-kmsg`): what it says where a system call says too little.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Where it is read.
pub(crate) const KMSG: &str = "/dev/kmsg";
/// Its longest record, in bytes (`CONSOLE_EXT_LOG_MAX`).
pub(crate) const RECORD: usize = 8192;

/// What is in it, oldest first, a record a line as the kernel writes it; of more than `most` bytes, at least the last half of them.
///
/// # Errors
/// It cannot be read.
pub(crate) fn records(place: &Path, most: usize) -> io::Result<Vec<u8>> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let mut file = OpenOptions::new().read(true).custom_flags(nonblocking).open(place)?;
    let (mut log, mut record) = (Vec::new(), vec![0; RECORD]);
    loop {
        match file.read(&mut record) {
            Ok(0) => return Ok(log),
            Ok(length) => {
                log.extend_from_slice(record.get(..length).unwrap_or_default());
                if log.len() > most {
                    log.drain(..most / 2);
                }
            }
            // There is no more of it.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(log),
            // What was to come next is overwritten already: the next one is another.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The last message that begins with one of `sources`, without the kernel's numbers.
pub(crate) fn last(place: &Path, sources: &[&str]) -> Option<String> {
    let log = records(place, 64 * RECORD).ok()?;
    let text = String::from_utf8_lossy(&log);
    let message = |record: &str| record.split_once(';').map(|(_, message)| message.to_owned());
    text.lines().rev().filter_map(message).find(|message| sources.iter().any(|source| message.starts_with(source)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_of_a_source_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("kmsg");
        let text = "6,5,100,-;dlm: shared: join complete\n SUBSYSTEM=dlm\n6,6,200,-;gfs2: fsid=rack:shared: control_mount wait1; lvb 3\n\
                    4,7,300,-;usb 1-1: gfs2: said by nobody\n";
        std::fs::write(&place, text).unwrap();
        assert_eq!(last(&place, &["gfs2: ", "dlm: "]).unwrap(), "gfs2: fsid=rack:shared: control_mount wait1; lvb 3");
        assert_eq!(last(&place, &["dlm: "]).unwrap(), "dlm: shared: join complete");
        assert_eq!(last(&place, &["xfs: "]), None);
        assert_eq!(last(&directory.path().join("none"), &["dlm: "]), None);
        assert_eq!(records(&place, text.len() - 1).unwrap().len(), text.len() - (text.len() - 1) / 2);
    }
}

//! `/dev/disk/SERIAL`: block devices under the serial numbers that they report, whatever order they were found in.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::failed;
use super::mounts::all;

/// Where the kernel lists them.
const BLOCK: &str = "/sys/block";
/// Where serial numbers are, by the kind of disk: virtio; NVMe; SCSI and SATA (a page of vital product data).
const VIRTIO: &str = "serial";
const NVME: &str = "device/serial";
const SCSI: &str = "device/vpd_pg80";

/// Makes the links that are missing.
///
/// # Errors
/// Every link that could not be made.
pub(crate) fn link() -> Result<(), String> {
    let disks = fs::read_dir(BLOCK).map_err(failed(BLOCK))?;
    all(disks.flatten().map(|disk| {
        let Some(serial) = serial(&disk.path()) else {
            return Ok(());
        };
        let link = format!("/dev/disk/{serial}");
        match symlink(Path::new("/dev").join(disk.file_name()), &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(format!("{link}: {error}")),
            _ => Ok(()),
        }
    }))
}

/// The serial number of the disk that the kernel describes in `directory`, fit to be a file's name.
pub(crate) fn serial(directory: &Path) -> Option<String> {
    let plain = |name| fs::read_to_string(directory.join(name)).ok();
    let page = || fs::read(directory.join(SCSI)).ok().and_then(|page| of_page(&page));
    let raw = plain(VIRTIO).or_else(|| plain(NVME)).or_else(page)?;
    let fit = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' }
    };
    let name: String = raw.trim().chars().map(fit).collect();
    (!name.is_empty()).then_some(name)
}

/// The text of SCSI's page 80h: four bytes of header, the last two of them the text's length (SPC-4, 7.8.15).
fn of_page(page: &[u8]) -> Option<String> {
    let (header, text) = page.split_at_checked(4)?;
    let length = header.get(2..4).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)?;
    let text = text.get(..usize::from(length))?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{of_page, serial};

    #[test]
    fn a_virtio_disk_says_its_serial_plainly() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(serial(directory.path()), None);
        fs::write(directory.path().join("serial"), "").unwrap();
        assert_eq!(serial(directory.path()), None);
        fs::write(directory.path().join("serial"), "../x 0\n").unwrap();
        assert_eq!(serial(directory.path()).as_deref(), Some("___x_0"));
    }

    #[test]
    fn a_scsi_disk_says_it_in_a_page() {
        assert_eq!(of_page(b"\x00\x80\x00\x04 AB1").as_deref(), Some(" AB1"));
        assert_eq!(of_page(b"\x00\x80\x00\x05 AB1"), None);
        assert_eq!(of_page(b"\x00\x80"), None);
    }
}

//! An archive of plain files, in the form of POSIX.1-1988 (ustar): every `tar` reads it.
//!
//! All files lie in one directory, belong to root, and bear no date: the archive's name has it.

/// Bytes of a block: a header is one, and what is in a file is filled up to whole ones.
const BLOCK: usize = 512;
/// The longest name of a file; what is longer is cut.
const NAME: usize = 100;
/// The longest name of the directory.
const PREFIX: usize = 155;

/// An archive that is being made.
#[derive(Debug)]
pub(super) struct Tar {
    directory: String,
    bytes: Vec<u8>,
}

impl Tar {
    /// An empty one, whose files lie in a directory of that name.
    pub(super) fn new(directory: &str) -> Self {
        Self { directory: directory.to_owned(), bytes: Vec::new() }
    }

    /// Adds a file.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) {
        let header = header(&self.directory, name, content.len());
        self.bytes.extend(header);
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }

    /// The whole archive: two blocks of zeros end it.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }
}

/// A file's header: the fields in their order, each of its length.
fn header(directory: &str, name: &str, length: usize) -> Vec<u8> {
    let of = |checksum: &str| {
        let fields: [(&str, usize); 16] = [
            (name, NAME),
            ("0000644", 8),
            ("0000000", 8),
            ("0000000", 8),
            (&format!("{length:011o}"), 12),
            ("00000000000", 12),
            (checksum, 8),
            ("0", 1),
            ("", 100),
            ("ustar", 6),
            ("00", 2),
            ("root", 32),
            ("root", 32),
            ("0000000", 8),
            ("0000000", 8),
            (directory, PREFIX),
        ];
        let mut header = Vec::with_capacity(BLOCK);
        for (text, length) in fields {
            let end = header.len() + length;
            header.extend(text.bytes().take(length));
            header.resize(end, 0);
        }
        header.resize(BLOCK, 0);
        header
    };
    // The sum of all bytes, with blanks where it will stand itself.
    let sum: u32 = of("        ").into_iter().map(u32::from).sum();
    of(&format!("{sum:06o}\0 "))
}

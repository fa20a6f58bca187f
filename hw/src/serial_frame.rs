//! Datagrams on a serial line: where each begins and ends, and whether it came whole.
//!
//! ```text
//! 00 | COBS( datagram, its CRC-32 ) | 00 | ..
//! ```
//!
//! What it decides: which bytes of a line are a datagram. Zero stands between frames and nowhere else (consistent overhead
//! byte stuffing, Cheshire and Baker 1999: one byte more in 254), so after any noise the next frame is found at the next
//! zero. The CRC-32 of Ethernet (ISO 8802-3) finds every change of up to three bits in a frame this long, and lets one in
//! four thousand million other changes through: it keeps noise out, not strangers. What a datagram says is sealed by
//! whoever sends it.
//!
//! The reader is total, and keeps no more than one frame.

#[cfg(test)]
mod tests;

/// The longest datagram, in bytes: at 115,200 bits per second it takes 0.36 s.
pub const LONGEST: usize = 4096;

const CRC_BYTES: usize = 4;
/// The most that a block of COBS stands for, with the byte that tells its length.
const BLOCK: u8 = 0xff;
/// The longest frame between its zeros.
const LONGEST_FRAME: usize = LONGEST + CRC_BYTES + (LONGEST + CRC_BYTES) / 254 + 1;

/// The frame of a datagram, ready to be written; `None` if it is too long, or empty: the frame of nothing, five ones in a
/// row, is too much like noise. It begins with a zero, too, which ends whatever noise came before it.
#[must_use]
pub fn frame(datagram: &[u8]) -> Option<Vec<u8>> {
    if datagram.is_empty() || datagram.len() > LONGEST {
        return None;
    }
    let content = [datagram, &crc(datagram).to_le_bytes()].concat();
    let mut frame = Vec::with_capacity(LONGEST_FRAME.min(content.len() + content.len() / 254 + 3));
    frame.push(0);
    stuff(&content, &mut frame);
    frame.push(0);
    Some(frame)
}

/// Finds the datagrams in what comes from a line.
#[derive(Debug, Default)]
pub struct Reader {
    /// What has come since the last zero.
    frame: Vec<u8>,
    /// It is longer than any frame: nothing counts until the next zero.
    is_too_long: bool,
    broken: u64,
}

impl Reader {
    /// For a line of which nothing was read yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes some bytes of the line, cut anywhere, and gives the datagrams that are whole now.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        bytes.iter().filter_map(|byte| self.byte(*byte)).collect()
    }

    /// How many frames came broken: what the quality of the line is judged by. Noise between zeros counts as a frame.
    #[must_use]
    pub fn broken(&self) -> u64 {
        self.broken
    }

    fn byte(&mut self, byte: u8) -> Option<Vec<u8>> {
        if byte != 0 {
            if self.frame.len() == LONGEST_FRAME {
                self.is_too_long = true;
            } else {
                self.frame.push(byte);
            }
            return None;
        }
        let frame = core::mem::take(&mut self.frame);
        let is_too_long = core::mem::take(&mut self.is_too_long);
        // Between two frames there are two zeros.
        if frame.is_empty() {
            return None;
        }
        let is_fit = |datagram: &Vec<u8>| !is_too_long && (1..=LONGEST).contains(&datagram.len());
        let datagram = unstuff(&frame).and_then(checked).filter(is_fit);
        if datagram.is_none() {
            self.broken = self.broken.saturating_add(1);
        }
        datagram
    }
}

/// The content without its CRC, if that is right.
fn checked(mut content: Vec<u8>) -> Option<Vec<u8>> {
    let length = content.len().checked_sub(CRC_BYTES)?;
    let is_right = content.get(length..)? == crc(content.get(..length)?).to_le_bytes();
    content.truncate(length);
    is_right.then_some(content)
}

/// Appends the content without any zero: each block begins with how far it is to the next zero, or to the next block.
fn stuff(content: &[u8], frame: &mut Vec<u8>) {
    let mut length_at = frame.len();
    let mut length: u8 = 1;
    frame.push(length);
    for byte in content {
        if *byte != 0 {
            frame.push(*byte);
            length += 1;
        }
        if *byte == 0 || length == BLOCK {
            set(frame, length_at, length);
            (length_at, length) = (frame.len(), 1);
            frame.push(length);
        }
    }
    set(frame, length_at, length);
}

fn set(frame: &mut [u8], at: usize, length: u8) {
    if let Some(byte) = frame.get_mut(at) {
        *byte = length;
    }
}

/// The content of a frame; `None` if a block says that it is longer than the frame.
fn unstuff(frame: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::with_capacity(frame.len());
    let mut rest = frame;
    while let Some((length, behind)) = rest.split_first() {
        let (block, after) = behind.split_at_checked(usize::from(*length).checked_sub(1)?)?;
        content.extend_from_slice(block);
        // The zero behind a full block, and behind the last one, is not the content's.
        if *length != BLOCK && !after.is_empty() {
            content.push(0);
        }
        rest = after;
    }
    Some(content)
}

/// The CRC-32 of ISO 8802-3: bit by bit, since a line is slower than that.
fn crc(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

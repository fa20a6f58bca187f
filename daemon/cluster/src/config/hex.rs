//! Octets as hexadecimal digits.

/// The octets; colons between them may stay as other programs write them. `None` for anything else.
pub(super) fn octets(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let octet = |pair: &[u8; 2]| {
        let text = core::str::from_utf8(pair).ok().filter(|_| pair.iter().all(u8::is_ascii_hexdigit))?;
        u8::from_str_radix(text, 16).ok()
    };
    pairs.iter().map(octet).collect()
}

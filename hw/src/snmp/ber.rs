//! The basic encoding rules (ITU-T X.690), as much of them as SNMP uses: one-octet tags, definite lengths.

use super::Malformed;

/// What an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(pub(super) u8);

impl Tag {
    pub(super) const INTEGER: Self = Self(0x02);
    pub(super) const OCTETS: Self = Self(0x04);
    pub(super) const NULL: Self = Self(0x05);
    pub(super) const OID: Self = Self(0x06);
    pub(super) const GAUGE: Self = Self(0x42);
    pub(super) const SEQUENCE: Self = Self(0x30);
    pub(super) const GET: Self = Self(0xa0);
    pub(super) const RESPONSE: Self = Self(0xa2);
    pub(super) const SET: Self = Self(0xa3);
    pub(super) const REPORT: Self = Self(0xa8);
}

/// An element with its tag and length.
pub(super) fn element(Tag(tag): Tag, content: &[u8]) -> Vec<u8> {
    let octets = content.len().to_be_bytes();
    let octets = without_leading(&octets, |first, _| first == 0);
    let mut bytes = vec![tag];
    match *octets {
        [short @ 0..0x80] => bytes.push(short),
        _ => {
            // There are at most 8 of them.
            bytes.push(0x80 | u8::try_from(octets.len()).unwrap_or(0x7f));
            bytes.extend_from_slice(octets);
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

/// A signed number, in the fewest octets.
pub(super) fn integer(number: i32) -> Vec<u8> {
    let octets = number.to_be_bytes();
    let redundant = |first: u8, second: u8| (first == 0 && second < 0x80) || (first == 0xff && second >= 0x80);
    element(Tag::INTEGER, without_leading(&octets, redundant))
}

/// An object identifier. Its first two arcs share an octet.
pub(super) fn oid(arcs: &[u32]) -> Vec<u8> {
    let mut content = Vec::new();
    let (first, rest) = match arcs {
        [first, second, rest @ ..] => (first.saturating_mul(40).saturating_add(*second), rest),
        [first] => (first.saturating_mul(40), &[][..]),
        [] => (0, &[][..]),
    };
    for arc in core::iter::once(&first).chain(rest) {
        let sevens = (0..5).rev().map(|n| (arc >> (7 * n)) & 0x7f).map(|seven| u8::try_from(seven).unwrap_or(0));
        let sevens: Vec<u8> = sevens.collect();
        let kept = without_leading(&sevens, |first, _| first == 0);
        let (last, more) = kept.split_last().unwrap_or((&0, &[]));
        content.extend(more.iter().map(|seven| seven | 0x80));
        content.push(*last);
    }
    element(Tag::OID, &content)
}

/// The octets without those at the front that say nothing; at least one is kept.
fn without_leading(mut octets: &[u8], redundant: impl Fn(u8, u8) -> bool) -> &[u8] {
    while let Some((first, rest)) = octets.split_first() {
        if !rest.first().is_some_and(|second| redundant(*first, *second)) {
            break;
        }
        octets = rest;
    }
    octets
}

/// A Gauge (RFC 1155, section 3.2.3.4): a number that is never negative.
pub(super) fn gauge(number: u32) -> Vec<u8> {
    let octets = u64::from(number).to_be_bytes();
    let octets = without_leading(&octets, |first, second| first == 0 && second < 0x80);
    element(Tag::GAUGE, octets)
}

/// The value of a signed number.
pub(super) fn number(octets: &[u8]) -> Result<i32, Malformed> {
    i32::try_from(wide(octets)?).map_err(|_| Malformed)
}

/// The value of a Gauge.
pub(super) fn unsigned(octets: &[u8]) -> Result<u32, Malformed> {
    u32::try_from(wide(octets)?).map_err(|_| Malformed)
}

/// Up to 5 octets, the first of which says whether it is negative.
fn wide(octets: &[u8]) -> Result<i64, Malformed> {
    let first = octets.first().ok_or(Malformed)?;
    let start = if *first >= 0x80 { -1 } else { 0_i64 };
    if octets.len() > 5 {
        return Err(Malformed);
    }
    Ok(octets.iter().fold(start, |number, octet| number << 8 | i64::from(*octet)))
}

/// The arcs of an object identifier.
pub(super) fn arcs(octets: &[u8]) -> Result<Vec<u32>, Malformed> {
    let mut arcs = Vec::new();
    let mut arc: u64 = 0;
    for octet in octets {
        arc = arc << 7 | u64::from(octet & 0x7f);
        let arc_now = u32::try_from(arc).map_err(|_| Malformed)?;
        if *octet < 0x80 {
            if arcs.is_empty() {
                let first = (arc_now / 40).min(2);
                arcs.extend([first, arc_now - 40 * first]);
            } else {
                arcs.push(arc_now);
            }
            arc = 0;
        }
    }
    let ended = octets.last().is_some_and(|last| *last < 0x80);
    if ended { Ok(arcs) } else { Err(Malformed) }
}

/// Reads one element after another.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The content of the one element that these bytes are.
    pub(super) fn all(bytes: &'a [u8], tag: Tag) -> Result<Self, Malformed> {
        let mut outer = Self(bytes);
        let content = outer.expect(tag)?;
        outer.end()?;
        Ok(Self(content))
    }

    /// How many bytes are still to be read.
    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    pub(super) fn next(&mut self) -> Result<(Tag, &'a [u8]), Malformed> {
        let [tag, length, rest @ ..] = self.0 else { return Err(Malformed) };
        let (length, rest) = match *length {
            short @ 0..0x80 => (usize::from(short), rest),
            long @ 0x81..=0x84 => {
                let (octets, rest) = rest.split_at_checked(usize::from(long & 0x7f)).ok_or(Malformed)?;
                (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
            }
            0x80 | 0x85.. => return Err(Malformed),
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok((Tag(*tag), content))
    }

    pub(super) fn expect(&mut self, expected: Tag) -> Result<&'a [u8], Malformed> {
        let (tag, content) = self.next()?;
        if tag == expected { Ok(content) } else { Err(Malformed) }
    }

    pub(super) fn integer(&mut self) -> Result<i32, Malformed> {
        number(self.expect(Tag::INTEGER)?)
    }
}

//! How a peer is heard on one link: when last, and how many of its last beats came.

use core::time::Duration;

use super::LinkNews;
use crate::words::Instant;

/// Numbers that a [`Window`] remembers.
const REMEMBERED: u64 = 64;

/// A peer on one link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reception {
    last: Instant,
    beats: Window,
    quiet: bool,
}

impl Reception {
    /// Nothing was heard yet, and nobody has waited yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, beats: Window::default(), quiet: false }
    }

    /// A beat has come. A copy of one that has come on this link before counts for nothing.
    pub(super) fn hear(&mut self, now: Instant, beat: u64) {
        if self.beats.admit(beat) == Admission::New {
            self.last = now;
        }
    }

    /// This node itself slept for `gap`.
    pub(super) fn sleep(&mut self, gap: Duration) {
        self.last = self.last + gap;
    }

    /// The peer, which was silent on all links, is heard again since `since`: this link begins anew.
    pub(super) fn back(&mut self, since: Instant) {
        if !self.quiet {
            self.last = self.last.max(since);
        }
    }

    /// What has just changed, when the peer was heard at `elsewhere` on some link: this one is silent when others have
    /// heard the peer for `warntime` longer.
    pub(super) fn change(&mut self, now: Instant, elsewhere: Instant, warntime: Duration) -> Option<LinkNews> {
        let silent = elsewhere.since(self.last) >= warntime;
        let changed = silent != core::mem::replace(&mut self.quiet, silent);
        let news = if silent { LinkNews::Quiet(now.since(self.last)) } else { LinkNews::Back };
        changed.then_some(news)
    }

    /// The highest beat that came.
    pub(super) fn newest(&self) -> u64 {
        self.beats.highest
    }

    /// The share of the last 64 beats up to `newest` that came, in percent; of a peer heard since the beat `first`.
    pub(super) fn percent(&self, first: u64, newest: u64) -> u8 {
        let span = newest.saturating_sub(first).saturating_add(1).min(REMEMBERED);
        let late = u32::try_from(newest.saturating_sub(self.beats.highest)).unwrap_or(u32::MAX);
        let seen = self.beats.seen.checked_shl(late).unwrap_or(0);
        let counted = (u64::MAX).checked_shr(u32::try_from(REMEMBERED - span).unwrap_or(0)).unwrap_or(0);
        let came = u64::from((seen & counted).count_ones());
        u8::try_from(came * 100 / span).unwrap_or(100)
    }
}

/// What a [`Window`] makes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It was not seen before.
    New,
    /// It was seen, lately.
    Again,
    /// It is older than what is remembered.
    Old,
}

/// Which of the last 64 numbers were seen (RFC 4303, section 3.4.3).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    highest: u64,
    seen: u64,
}

impl Window {
    /// Whether this number was seen before; it is now.
    pub(super) fn admit(&mut self, number: u64) -> Admission {
        if number > self.highest {
            let ahead = u32::try_from(number - self.highest).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = number;
            return Admission::New;
        }
        let behind = u32::try_from(self.highest - number).unwrap_or(u32::MAX);
        let Some(bit) = 1_u64.checked_shl(behind) else {
            return Admission::Old;
        };
        let new = self.seen & bit == 0;
        self.seen |= bit;
        if new { Admission::New } else { Admission::Again }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_admits_every_number_once() {
        let mut window = Window::default();
        let admitted: Vec<Admission> = [5, 4, 5, 100, 4, 99, 99, 36, 37, 101].map(|n| window.admit(n)).into();
        use Admission::{Again, New, Old};
        assert_eq!(admitted, [New, New, Again, New, Old, New, Again, Old, New, New]);
    }

    #[test]
    fn the_share_of_beats_is_counted_from_the_first_and_over_sixty_four() {
        let mut reception = Reception::new(Instant::ZERO);
        assert_eq!(reception.percent(10, 10), 0);
        for beat in 10..20 {
            reception.hear(Instant::ZERO, beat);
        }
        assert_eq!(reception.percent(10, 19), 100);
        assert_eq!(reception.percent(10, 29), 50, "what came on other links only is missing here");
        for beat in (20..200).step_by(2) {
            reception.hear(Instant::ZERO, beat);
            reception.hear(Instant::ZERO, beat);
        }
        assert_eq!(reception.percent(10, 198), 50, "a copy does not count");
        assert_eq!(reception.percent(10, u64::MAX), 0);
    }
}

//! Which menus may ask for things, on a machine whose cluster has a PIN: those whose operator has typed it on this very
//! connection, and has pressed a key within the last ten minutes. Without a PIN everybody may who stands at the machine.
//!
//! Wrong PINs are counted for the machine as a whole, over all its terminals, restarts of the menu and of the supervisor. After
//! each of them no PIN is looked at for a while, twice as long every time. A try counts as wrong before it is looked at, so that
//! whoever could end the supervisor at the right moment gains nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster::event::Answer;
use cluster::trace::{Kind, Severity};
use cluster::words::Instant;
use console::{BundleAnswer, BundleRequest, JoinAnswer, JoinRequest, Lock};

use super::menu_link::{FromMenu, MenuId, ToMenu};
use crate::secrets::Pin;

/// Where wrong PINs are counted for as long as the machine is up.
const FILE: &str = "/run/holdfast/pin";
/// How long a menu stays unlocked without a key.
const IDLE: Duration = Duration::from_secs(600);
/// After the first wrong PIN; twice that after every further one, up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Between two lines of the event log about wrong PINs.
const SAID: Duration = Duration::from_secs(60);

/// Why a locked menu is refused.
const LOCKED: &str = "this console is locked: type its PIN first";

const WRONG: Kind = Kind { name: "WrongPin", severity: Severity::Warning };
const RIGHT: Kind = Kind { name: "RightPin", severity: Severity::Notice };

/// How many wrong PINs there were since the last right one, and when the next one is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tries {
    wrong: u32,
    next: Instant,
}

impl Tries {
    /// How long no PIN is looked at.
    fn wait(self, now: Instant) -> Duration {
        self.next.since(now)
    }

    /// One more that is wrong.
    fn count(self, now: Instant) -> Self {
        let pause = 1_u32.checked_shl(self.wrong).map_or(LONGEST_PAUSE, |times| PAUSE.saturating_mul(times));
        Self { wrong: self.wrong.saturating_add(1), next: now + pause.min(LONGEST_PAUSE) }
    }

    /// From the text that [`Tries::text`] gave.
    fn parse(text: &str) -> Option<Self> {
        let (wrong, next) = text.trim_end().split_once(' ')?;
        Some(Self { wrong: wrong.parse().ok()?, next: Instant::from_millis(next.parse().ok()?) })
    }

    fn text(self) -> String {
        format!("{} {}\n", self.wrong, self.next.millis())
    }
}

/// The lock of this machine's menus.
#[derive(Debug)]
pub(super) struct Guard {
    pin: Option<Pin>,
    tries: Tries,
    file: PathBuf,
    /// Which menus are unlocked, and when a key was pressed last.
    open: BTreeMap<MenuId, Instant>,
    /// When wrong PINs may be said again.
    next_said: Instant,
}

impl Guard {
    /// With that PIN, if there is one. What a former life has counted counts.
    pub(super) fn new(pin: Option<Pin>) -> Self {
        Self::at(Path::new(FILE), pin)
    }

    fn at(file: &Path, pin: Option<Pin>) -> Self {
        let tries = fs::read_to_string(file).ok().and_then(|text| Tries::parse(&text)).unwrap_or_default();
        Self { pin, tries, file: file.to_owned(), open: BTreeMap::new(), next_said: Instant::ZERO }
    }

    /// Whether a menu may ask for things.
    fn may(&self, menu: MenuId, now: Instant) -> bool {
        self.pin.is_none() || self.open.get(&menu).is_some_and(|last| now.since(*last) < IDLE)
    }

    /// How a menu's lock stands; `None` where there is no PIN.
    pub(super) fn lock(&self, menu: MenuId, now: Instant) -> Option<Lock> {
        self.pin.as_ref()?;
        let wait = self.tries.wait(now);
        let wait_s = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Some(Lock { open: self.may(menu, now), wrong: self.tries.wrong, wait_s })
    }

    /// A menu asks for something: what it is told instead, where it is locked. Where it is not, somebody is there.
    pub(super) fn hear(&mut self, menu: MenuId, asked: &FromMenu, now: Instant) -> Option<ToMenu> {
        if !self.may(menu, now) {
            return match asked {
                FromMenu::Request(_) => Some(ToMenu::Answer(Answer::Refused(LOCKED.to_owned()))),
                FromMenu::Join(to) => {
                    Some(ToMenu::Joining(JoinAnswer { to: to.clone(), outcome: Err(LOCKED.to_owned()) }))
                }
                FromMenu::Volume(to) => Some(ToMenu::Volumes { to: to.clone(), outcome: Err(LOCKED.to_owned()) }),
                FromMenu::Bundle(_) => Some(ToMenu::Bundle(BundleAnswer::Failed(LOCKED.to_owned()))),
                // Nobody has the end that came with it any more.
                FromMenu::Console(_) => Some(ToMenu::Answer(Answer::Refused(LOCKED.to_owned()))),
                FromMenu::Unlock(_) | FromMenu::Lock | FromMenu::Active => None,
            };
        }
        // How machines that join and the gateway's disks stand, and which sticks there are, a menu asks by itself.
        let by_itself = FromMenu::Bundle(BundleRequest::Look);
        if !matches!(asked, FromMenu::Join(JoinRequest::List) | FromMenu::Volume(_))
            && *asked != by_itself
            && let Some(last) = self.open.get_mut(&menu)
        {
            *last = now;
        }
        None
    }

    /// A menu is to be locked.
    pub(super) fn close(&mut self, menu: MenuId) {
        self.open.remove(&menu);
    }

    /// A PIN was typed; what is to be said of that.
    pub(super) fn unlock(&mut self, menu: MenuId, typed: &str, now: Instant) -> Option<(Kind, String)> {
        let pin = self.pin.as_ref()?;
        if self.tries.wait(now) > Duration::ZERO {
            return None;
        }
        let before = self.tries.wrong;
        self.tries = self.tries.count(now);
        let kept = self.keep();
        if pin.is(typed) {
            self.tries = Tries::default();
            let kept = kept.and(self.keep());
            // Menus that are gone are forgotten when their time is over.
            self.open.retain(|_, last| now.since(*last) < IDLE);
            self.open.insert(menu, now);
            let after = format!("the console of this machine was unlocked after {before} wrong PINs");
            return (before > 0 || kept.is_err()).then(|| (RIGHT, after + &doubt(&kept)));
        }
        if self.next_said > now {
            return None;
        }
        self.next_said = now + SAID;
        let wrong = self.tries.wrong;
        let text = format!("a wrong PIN was typed at the console of this machine: {wrong} since the last right one");
        Some((WRONG, text + &doubt(&kept)))
    }

    /// Keeps what was counted for the next life.
    fn keep(&self) -> std::io::Result<()> {
        let fresh = self.file.with_extension("new");
        fs::write(&fresh, self.tries.text())?;
        fs::rename(&fresh, &self.file)
    }
}

/// What is to be said if the count could not be kept.
fn doubt(kept: &std::io::Result<()>) -> String {
    kept.as_ref().err().map_or_else(String::new, |error| format!(" (a restart will not know that: {error})"))
}

#[cfg(test)]
mod tests {
    use cluster::event::Request;
    use cluster::words::VmName;

    use super::*;
    use crate::secrets::tests_key;

    fn guard(file: &Path) -> Guard {
        Guard::at(file, Some(Pin::new(&tests_key(1), "4711")))
    }

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    const ONE: MenuId = MenuId::of(1);
    const TWO: MenuId = MenuId::of(2);

    #[test]
    fn every_wrong_pin_doubles_the_pause_up_to_five_minutes() {
        let mut tries = Tries::default();
        let mut pauses = Vec::new();
        for _ in 0..40 {
            tries = tries.count(at(7));
            pauses.push(tries.wait(at(7)).as_secs());
        }
        assert_eq!(pauses[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(pauses[10..].iter().all(|pause| *pause == 300));
        assert_eq!(tries.wait(at(300_007)), Duration::ZERO);
        let last = Tries { wrong: u32::MAX, next: at(1) };
        assert_eq!(last.count(at(0)), Tries { wrong: u32::MAX, next: at(300_000) });
    }

    #[test]
    fn what_is_kept_is_read_again_and_nothing_else_is_taken_for_it() {
        let tries = Tries { wrong: 3, next: at(12_345) };
        assert_eq!(Tries::parse(&tries.text()), Some(tries));
        for torn in ["", "3", "3 ", "3 x\n", "-1 5\n", "3 4 5\n"] {
            assert_eq!(Tries::parse(torn), None, "{torn:?}");
        }
    }

    #[test]
    fn only_the_menu_at_which_the_pin_was_typed_is_unlocked_and_only_while_somebody_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let mut guard = guard(&directory.path().join("pin"));
        assert!(!guard.may(ONE, at(0)));
        guard.hear(ONE, &FromMenu::Active, at(0));
        assert!(!guard.may(ONE, at(0)), "a key does not unlock");
        assert_eq!(guard.unlock(ONE, "4711", at(1_000)), None, "nothing to say");
        assert!(guard.may(ONE, at(1_000)) && !guard.may(TWO, at(1_000)));
        guard.hear(ONE, &FromMenu::Active, at(500_000));
        guard.hear(ONE, &FromMenu::Join(JoinRequest::List), at(1_000_000));
        assert!(guard.may(ONE, at(1_099_999)) && !guard.may(ONE, at(1_100_000)));
        guard.hear(ONE, &FromMenu::Active, at(1_100_000));
        assert!(!guard.may(ONE, at(1_100_000)), "a key comes too late");
        guard.unlock(ONE, "4711", at(1_200_000));
        guard.close(ONE);
        assert!(!guard.may(ONE, at(1_200_000)));
    }

    #[test]
    fn the_right_pin_is_not_looked_at_while_the_pause_lasts_on_any_menu_or_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pin");
        let mut first = guard(&file);
        let mut now = 0;
        for wrong in 1..=3 {
            first.unlock(ONE, "1234", at(now));
            assert_eq!(first.lock(TWO, at(now)), Some(Lock { open: false, wrong, wait_s: 1 << (wrong - 1) }));
            now += 1_000 << (wrong - 1);
        }
        let mut second = guard(&file);
        assert_eq!(second.lock(ONE, at(now - 1)), Some(Lock { open: false, wrong: 3, wait_s: 1 }));
        assert_eq!(second.unlock(ONE, "4711", at(now - 1)), None);
        assert!(!second.may(ONE, at(now - 1)), "too early");
        let (kind, text) = second.unlock(ONE, "4711", at(now)).unwrap();
        assert_eq!(kind.name, "RightPin");
        assert_eq!(text, "the console of this machine was unlocked after 3 wrong PINs");
        assert_eq!(second.lock(ONE, at(now)), Some(Lock { open: true, wrong: 0, wait_s: 0 }));
        assert_eq!(guard(&file).lock(ONE, at(now)), Some(Lock { open: false, wrong: 0, wait_s: 0 }));
    }

    #[test]
    fn wrong_pins_are_said_once_a_minute_and_never_which() {
        let directory = tempfile::tempdir().unwrap();
        let mut guard = guard(&directory.path().join("pin"));
        let mut said = Vec::new();
        for second in 0..200 {
            said.extend(guard.unlock(ONE, "hunter2", at(second * 1_000)).map(|(_, text)| (second, text)));
        }
        let text =
            |wrong| format!("a wrong PIN was typed at the console of this machine: {wrong} since the last right one");
        assert_eq!(said, [(0, text(1)), (63, text(7)), (127, text(8))]);
    }

    #[test]
    fn whatever_a_locked_menu_asks_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut guard = guard(&directory.path().join("pin"));
        guard.unlock(TWO, "4711", at(0));
        let revoke = JoinRequest::Revoke { identity: "ab".to_owned() };
        for asked in [
            FromMenu::Request(Request::ShutDown),
            FromMenu::Request(Request::Stop { vm: VmName::new("x0").unwrap() }),
            FromMenu::Join(JoinRequest::List),
            FromMenu::Join(revoke),
        ] {
            let told = serde_json::to_string(&guard.hear(ONE, &asked, at(0)).unwrap()).unwrap();
            assert!(told.contains(LOCKED), "{told}");
            assert_eq!(guard.hear(TWO, &asked, at(0)), None, "an unlocked one may");
        }
    }

    #[test]
    fn without_a_pin_every_menu_may_ask_and_is_told_of_no_lock() {
        let directory = tempfile::tempdir().unwrap();
        let mut guard = Guard::at(&directory.path().join("pin"), None);
        assert_eq!(guard.hear(ONE, &FromMenu::Request(Request::ShutDown), at(0)), None);
        assert_eq!(guard.lock(ONE, at(0)), None);
        assert_eq!(guard.unlock(ONE, "4711", at(0)), None);
    }

    #[test]
    fn a_count_that_cannot_be_kept_is_said_and_still_counts() {
        let directory = tempfile::tempdir().unwrap();
        let mut guard = guard(&directory.path().join("none/pin"));
        let (_, text) = guard.unlock(ONE, "1234", at(0)).unwrap();
        assert!(text.contains("a restart will not know that"), "{text}");
        assert_eq!(guard.lock(ONE, at(0)).map(|lock| lock.wait_s), Some(1));
    }
}

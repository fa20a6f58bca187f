//! What a test of a node's fencing has shown: the right one fell silent, or not, or not alone. Whoever is on trial is tested
//! once without anybody's asking, and is on trial no longer when a test has passed.
//!
//! The fencing itself is that of any unclean member ([`crate::fencer`]). The DC that saw the node well before it looks on,
//! and remembers what it sees; a new DC knows nothing of that, and says nothing.

use std::collections::BTreeSet;

use crate::agreement::Agreement;
use crate::fencing::{Cause, Method};
use crate::hearing::Hearing;
use crate::host::Desk;
use crate::limits;
use crate::operator;
use crate::state::Standing;
use crate::trace::Trace;
use crate::words::{Identity, Instant, Slot};

/// One test.
#[derive(Clone, Debug)]
struct Test {
    of: Identity,
    since: Instant,
    /// Since when it is known to be proven off.
    proven: Option<Instant>,
    /// The others that were heard when it began, and have been ever since.
    others: Vec<Identity>,
    /// Who was not.
    silent: Option<Identity>,
}

/// What this DC has seen of tests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drill {
    /// Who was a member when this DC looked last.
    well: Vec<Identity>,
    test: Option<Test>,
    /// Whose test has passed, as long as they are on trial all the same.
    passed: BTreeSet<Slot>,
}

impl Drill {
    /// Looks on; says once how a test has ended.
    pub(crate) fn review(&mut self, desk: &mut Desk<'_>, hearing: &Hearing, agreement: &Agreement) {
        let tested = self.well.iter().copied().find(|identity| desk.state.is_tested(*identity));
        if let Some(of) = tested {
            let heard = hearing.alive(desk.now, desk.config.timing.warntime).map(|peer| peer.identity);
            let others = heard.filter(|other| other.slot != of.slot && is_present(desk, *other)).collect();
            self.test = Some(Test { of, since: desk.now, proven: None, others, silent: None });
        }
        let members = desk.state.members.values().filter(|member| member.standing == Standing::Member);
        self.well = members.map(|member| member.identity).collect();
        if let Some(test) = &mut self.test
            && let Some(result) = test.result(desk, hearing)
        {
            let (node, slot) = (desk.name(test.of.slot), test.of.slot);
            self.test = None;
            if result.is_ok() {
                self.passed.insert(slot);
            }
            desk.say(match result {
                Ok(()) => Trace::DrillPassed { node },
                Err(reason) => Trace::DrillFailed { node, reason },
            });
        }
        let config = desk.config;
        let on_trial = || config.slots().filter(|(_, node)| node.on_trial).map(|(slot, _)| slot);
        self.passed.retain(|slot| on_trial().any(|other| other == *slot));
        for slot in on_trial() {
            if self.passed.contains(&slot) {
                operator::end_trial(desk, hearing, agreement, slot);
            } else {
                operator::begin_trial(desk, hearing, agreement, slot);
            }
        }
    }
}

impl Test {
    /// How it has ended, if it has.
    fn result(&mut self, desk: &Desk<'_>, hearing: &Hearing) -> Option<Result<(), String>> {
        let (now, timing) = (desk.now, &desk.config.timing);
        let fallen = |other: &Identity| {
            let boot = hearing.peer(other.slot).filter(|peer| peer.identity.same_boot(*other));
            boot.is_none_or(|peer| now.since(peer.last) >= timing.warntime)
        };
        // Whoever leaves in good order falls silent too.
        self.others.retain(|other| is_present(desk, *other));
        self.silent = self.silent.or_else(|| self.others.iter().copied().find(fallen));
        let death = desk.state.deaths.get(&self.of.slot).filter(|death| death.proven.identity() == self.of)?;
        match death.proven.method() {
            Method::OutletsOff(_) if death.cause == Cause::Tested => {}
            Method::OutletsOff(_)
            | Method::NewerIncarnation(_)
            | Method::CutOff
            | Method::Watchdog(_)
            | Method::Operator => {
                return Some(Err(format!("its outlets did not prove it off: {}", death.proven.method())));
            }
        }
        let proven = *self.proven.get_or_insert(now);
        if proven.since(self.since) >= timing.lease {
            return Some(Err("its outlets took so long that its own watchdog may have reset it".to_owned()));
        }
        let peer = hearing.peer(self.of.slot).filter(|peer| peer.identity.same_boot(self.of));
        let last = peer.map_or(proven, |peer| peer.last.max(proven));
        let other = self.silent.map(|other| desk.name(other.slot));
        if now.since(last) >= timing.warntime {
            return Some(other.map_or(Ok(()), |other| Err(format!("{other} fell silent as well"))));
        }
        // One that is proven off and lives lets its watchdog reset it: that silence would prove nothing.
        (now.since(proven) >= timing.deadtime.min(limits::WATCHDOG / 2)).then(|| {
            Err(match other {
                None => "it is still heard: its outlets feed something else".to_owned(),
                Some(other) => format!("it is still heard, and {other} fell silent: the outlets are mixed up"),
            })
        })
    }
}

fn is_present(desk: &Desk<'_>, identity: Identity) -> bool {
    let member = desk.state.members.get(&identity.slot);
    member.is_some_and(crate::state::Member::is_present)
}

//! The UPSes: which of them have mains, for how long the others last, and who has power by them.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use cluster::event::{Event, Outcome, UpsReading};
use cluster::words::{Instant, Slot, UpsId};

use super::script::duration;
use super::{Caller, Happening, World};

/// How often each shell reads every UPS.
const POLL: Duration = Duration::from_secs(2);
/// How long a battery lasts that is nearly empty.
const LOW: Duration = Duration::from_secs(240);
/// How long a UPS that was ordered to cut its load waits before it does.
const GRACE: Duration = Duration::from_secs(10);
/// How long a UPS that has mains leaves its load without power.
const GAP: Duration = Duration::from_secs(5);

/// One UPS.
#[derive(Debug, Clone)]
pub(super) struct Ups {
    mains: bool,
    /// It gives power to what it feeds.
    pub(super) gives: bool,
    low: bool,
    /// When its battery is empty, if that is known.
    empty: Option<Instant>,
    /// It was ordered to cut its load.
    ordered: bool,
    answers: bool,
    /// Grows whenever what was planned for it is overtaken.
    order: u64,
}

impl Ups {
    pub(super) const GOOD: Self =
        Self { mains: true, gives: true, low: false, empty: None, ordered: false, answers: true, order: 0 };
}

impl World {
    /// Whether some UPS gives a machine power, or none feeds it.
    pub(super) fn has_feed(&self, at: usize) -> bool {
        let feeds = |ups: &cluster::config::Ups| ups.feeds.iter().any(|slot| usize::from(slot.0) == at);
        let mut gives =
            self.config.upses.iter().zip(&self.upses).filter(|(ups, _)| feeds(ups)).map(|(_, ups)| ups.gives);
        let first = gives.next();
        first.is_none_or(|first| first || gives.any(|gives| gives))
    }

    fn ups(&mut self, at: usize) -> &mut Ups {
        let Some(ups) = self.upses.get_mut(at) else { panic!("there is no UPS {at}") };
        ups
    }

    /// Does to a UPS what a script says.
    ///
    /// # Errors
    /// There is no such UPS, or no such thing to do to it.
    pub(super) fn do_to_ups(&mut self, name: &str, what: &[&str]) -> Result<()> {
        let at = self.config.upses.iter().position(|ups| ups.name == name);
        let at = at.with_context(|| format!("there is no UPS {name}"))?;
        match what {
            ["battery"] => {
                self.ups(at).mains = false;
                Ok(())
            }
            ["lasts", time] => {
                self.lasts(at, duration(time)?);
                Ok(())
            }
            ["low"] => {
                self.lasts(at, LOW);
                self.ups(at).low = true;
                Ok(())
            }
            ["mains"] => {
                self.mains(at);
                Ok(())
            }
            ["unreachable"] => {
                self.ups(at).answers = false;
                Ok(())
            }
            ["answers"] => {
                self.ups(at).answers = true;
                Ok(())
            }
            _ => bail!("what becomes of the UPS?"),
        }
    }

    /// A UPS is on battery, and lasts so long.
    fn lasts(&mut self, at: usize, time: Duration) {
        let empty = self.now + time;
        let ups = self.ups(at);
        ups.order += 1;
        (ups.mains, ups.empty) = (false, Some(empty));
        let order = ups.order;
        self.plan(time, Happening::UpsLoad { ups: at, on: false, order });
    }

    fn mains(&mut self, at: usize) {
        let ups = self.ups(at);
        (ups.mains, ups.low, ups.empty) = (true, false, None);
        // Whoever was ordered to cut its load does so all the same.
        if !ups.ordered {
            ups.order += 1;
        }
        if !ups.gives {
            let order = ups.order;
            self.ups_load(at, true, order);
        }
    }

    /// Every UPS has mains and gives power.
    pub(super) fn heal_upses(&mut self) {
        for at in 0..self.upses.len() {
            let order = self.ups(at).order + 1;
            *self.ups(at) = Ups { order, ..Ups::GOOD };
        }
    }

    /// A UPS begins or ceases to give power, unless that was overtaken.
    pub(super) fn ups_load(&mut self, at: usize, on: bool, order: u64) {
        if self.ups(at).order != order {
            return;
        }
        let fed: Vec<Slot> = self.config.upses.get(at).map(|ups| ups.feeds.clone()).unwrap_or_default();
        let fed: Vec<usize> = fed.into_iter().map(|slot| usize::from(slot.0)).collect();
        let had: Vec<bool> = fed.iter().map(|machine| self.has_feed(*machine)).collect();
        self.ups(at).gives = on;
        for (machine, had) in fed.into_iter().zip(had) {
            match (had, self.has_feed(machine)) {
                (true, false) => {
                    self.say(machine, "[its UPS gives no power]");
                    self.lose(machine);
                    self.machine(machine).on = false;
                }
                (false, true) if self.machine(machine).outlet => {
                    self.say(machine, "[its UPS gives power]");
                    self.machine(machine).on = true;
                    self.reset(machine);
                }
                (true | false, _) => {}
            }
        }
        if on {
            self.ups(at).ordered = false;
        } else if self.ups(at).mains {
            self.plan(GAP, Happening::UpsLoad { ups: at, on: true, order });
        }
    }

    /// A node orders a UPS to cut its load.
    pub(super) fn cut_load(&mut self, caller: Caller, ups: UpsId) {
        let at = usize::from(ups.0);
        if self.is_cut(caller.at) || !self.ups(at).answers {
            return self.done(caller, Outcome::Failed("it does not answer".to_owned()));
        }
        let ups = self.ups(at);
        ups.order += 1;
        ups.ordered = true;
        let order = ups.order;
        self.plan(GRACE, Happening::UpsLoad { ups: at, on: false, order });
        self.done(caller, Outcome::Succeeded);
    }

    /// A shell reads every UPS.
    pub(super) fn read_upses(&mut self, at: usize, life: u64) {
        let (now, cut) = (self.now, self.is_cut(at));
        for (id, ups) in (0..).map(UpsId).zip(self.upses.clone()) {
            let runtime = ups.empty.map(|empty| u32::try_from(empty.since(now).as_secs()).unwrap_or(u32::MAX));
            let reading = UpsReading {
                on_battery: !ups.mains,
                low: ups.low,
                ordered: ups.ordered,
                charge_percent: None,
                runtime_s: runtime.filter(|_| !ups.mains),
            };
            let answers = ups.answers && !cut;
            let reading = if answers { Ok(reading) } else { Err("it does not answer".to_owned()) };
            self.tell(at, Event::Ups { ups: id, reading });
        }
        self.plan(POLL, Happening::ReadUpses { at, life });
    }
}

//! UPSes: what this node hears of them, and what the DC makes of it.
//!
//! Who watches a UPS (the DC, or the holder of its serial line) proposes how it stands; everybody else keeps what he hears,
//! and begins with that when he becomes DC. What a standing means is in [`crate::state`]; here are the times: since when a
//! UPS stands so is counted by every node for itself, from the commitment on, so a DC that goes off with its UPS takes
//! nothing along. A UPS that is not heard stands as it stood: that is a warning, and never a reason to shut down.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Config, Ups, UpsWay};
use crate::event::UpsReading;
use crate::host::Desk;
use crate::state::{Command, Member, Standing, State};
use crate::trace::Trace;
use crate::words::{Instant, Slot, Supply, UpsId};

/// What was heard of one UPS.
#[derive(Clone, Debug, Default)]
struct Heard {
    /// The last reading, and when it came.
    last: Option<(UpsReading, Instant)>,
    /// Why nothing is heard now.
    silent: Option<String>,
    /// Whether that was said.
    said: bool,
    /// Whether an order to shut down is of the past: `upsd` keeps one until it is restarted. It stood already when the UPS was
    /// first heard; or it came when nobody was there to obey, as our own does, which has the UPS cut its load.
    stale_order: bool,
}

/// What this node knows of the UPSes beside what is agreed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    heard: BTreeMap<UpsId, Heard>,
    /// How each stood when this node looked last, and since when.
    stands: BTreeMap<UpsId, (Supply, Instant)>,
    /// Those that were ordered to cut their load.
    ordered: BTreeSet<UpsId>,
}

impl Heard {
    /// How the UPS stands by its own words; `None` if there are none that count.
    fn supply(&self, now: Instant, ups: &Ups) -> Option<Supply> {
        let (reading, at) = self.last.as_ref()?;
        let left = |runtime_s: u32| Duration::from_secs(runtime_s.into()).saturating_sub(now.since(*at));
        let ends = reading.runtime_s.is_some_and(|runtime_s| left(runtime_s) < ups.runtime);
        let ordered = reading.ordered && (reading.on_battery || !self.stale_order);
        match (reading.on_battery, reading.low || ends) {
            _ if ordered => Some(Supply::Low),
            (true, true) => Some(Supply::Low),
            (true, false) => Some(Supply::Battery),
            // It may have lost mains since it was heard.
            (false, _) if self.silent.is_some() => None,
            (false, _) => Some(Supply::Mains),
        }
    }
}

impl Watch {
    /// A UPS was read, or could not be; whether nobody that it feeds is there now.
    pub(crate) fn read(&mut self, now: Instant, ups: UpsId, reading: Result<UpsReading, String>, idle: bool) {
        let heard = self.heard.entry(ups).or_default();
        match reading {
            Ok(reading) => {
                let stood = heard.last.is_some_and(|(last, _)| last.ordered);
                let late = heard.last.is_none() || heard.stale_order || (idle && !stood);
                heard.stale_order = reading.ordered && late;
                heard.last = Some((reading, now));
                heard.silent = None;
            }
            Err(reason) => heard.silent = Some(reason),
        }
    }

    /// The last reading of a UPS, and whether it is heard now.
    pub(crate) fn last(&self, ups: UpsId) -> (Option<UpsReading>, bool) {
        let heard = self.heard.get(&ups);
        let last = heard.and_then(|heard| heard.last).map(|(reading, _)| reading);
        (last, heard.is_some_and(|heard| heard.silent.is_none()))
    }

    /// Looks at every UPS, and as DC at what becomes of whom they feed.
    pub(crate) fn review(&mut self, desk: &mut Desk<'_>, acting: bool) {
        for (id, ups) in desk.config.ups_ids() {
            let supply = desk.state.ups(id);
            let stands = self.stands.entry(id).or_insert((supply, desk.now));
            if stands.0 != supply {
                *stands = (supply, desk.now);
            }
            let watches = match &ups.way {
                UpsWay::Nut { .. } => acting,
                UpsWay::Smart(line) => line.holder == desk.me.slot,
            };
            if watches {
                self.watch(desk, id, ups, supply);
            }
            if acting && supply == Supply::Battery && self.stands_since(desk.now, id) >= ups.wait {
                desk.proposals.push(Command::Ups(id, Supply::Failing));
            }
        }
        if acting {
            self.lead_away(desk);
        }
    }

    fn stands_since(&self, now: Instant, id: UpsId) -> Duration {
        self.stands.get(&id).map(|(_, since)| now.since(*since)).unwrap_or_default()
    }

    /// Says whether it is heard, and proposes how it stands.
    fn watch(&mut self, desk: &mut Desk<'_>, id: UpsId, ups: &Ups, agreed: Supply) {
        let Some(heard) = self.heard.get_mut(&id) else { return };
        if heard.said != heard.silent.is_some() {
            heard.said = heard.silent.is_some();
            let name = ups.name.clone();
            desk.say(match &heard.silent {
                Some(reason) => Trace::UpsSilent { ups: name, reason: reason.clone() },
                None => Trace::UpsHeard { ups: name },
            });
        }
        let read = heard.supply(desk.now, ups).filter(|read| *read > agreed || *read == Supply::Mains);
        if let Some(read) = read.filter(|read| *read != agreed) {
            desk.proposals.push(Command::Ups(id, read));
        }
    }

    /// Has members leave whose power goes, remain when it does not, and wakes them when it is back: one after the other, as
    /// it is committed.
    fn lead_away(&self, desk: &mut Desk<'_>) {
        let (state, config) = (desk.state, desk.config);
        for (slot, member) in &state.members {
            let (goes, stays) = (state.is_to_withdraw(config, *slot), !state.is_to_stay_withdrawn(config, *slot));
            let identity = member.identity;
            let command = match member.standing {
                Standing::Member if goes && !state.duty(*slot).maintenance => Command::Withdraw(identity),
                Standing::Leaving if member.withdrawn && stays => Command::Remain(identity),
                Standing::Off if self.is_to_be_woken(desk, *slot, member) => Command::Wake(identity),
                Standing::Member
                | Standing::Leaving
                | Standing::Off
                | Standing::Waking
                | Standing::Unclean
                | Standing::Fenced
                | Standing::Booting => continue,
            };
            return desk.proposals.push(command);
        }
    }

    /// Whether a member that is off for want of power is to be woken: a UPS of it has had mains for so long that it would
    /// be here if it had booted by itself, as it does when the UPS had cut its load.
    fn is_to_be_woken(&self, desk: &Desk<'_>, slot: Slot, member: &Member) -> bool {
        let steady = |(id, ups): (UpsId, &Ups)| {
            ups.feeds.contains(&slot)
                && desk.state.ups(id) == Supply::Mains
                && self.stands_since(desk.now, id) >= desk.config.timing.initdead
        };
        let switched = !desk.config.node(slot).outlets.is_empty() && !desk.state.is_disarmed(slot);
        member.withdrawn && switched && desk.config.ups_ids().any(steady)
    }

    /// The UPSes to be ordered now to cut their load, and to give power again with mains: all that they feed is off, and
    /// nobody else will wake it. Each is ordered once.
    pub(crate) fn orders_due(&mut self, config: &Config, state: &State, gone: impl Fn(Slot) -> bool) -> Vec<UpsId> {
        let due = |(id, ups): &(UpsId, &Ups)| {
            let withdrawn = |slot: &Slot| state.members.get(slot).is_some_and(|member| member.withdrawn);
            state.ups(*id) >= Supply::Failing
                && ups.feeds.iter().any(withdrawn)
                && ups.feeds.iter().all(|slot| gone(*slot))
        };
        let due: Vec<UpsId> = config.ups_ids().filter(due).map(|(id, _)| id).collect();
        due.into_iter().filter(|id| self.ordered.insert(*id)).collect()
    }

    /// The cluster works: what was ordered is of the past.
    pub(crate) fn forget_orders(&mut self) {
        self.ordered.clear();
    }
}

//! What may never happen. Each is a function of its own and has a canary that breaks it (tests/swarm.rs).

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::event::Work;
use cluster::words::{Instant, Slot};

use super::World;

/// How long a majority may be gone before nobody may still believe in it: the longest election timeout, and a margin.
const BELIEF: Duration = Duration::from_secs(12);

/// What the invariants remember.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The last view that a supervisor was in, by machine and life.
    views: BTreeMap<(usize, u64), (Option<String>, u64)>,
    /// When each machine was last seen in a generation.
    seen_in: BTreeMap<(String, usize), Instant>,
    /// What a node began, to be judged.
    begun: Vec<(usize, Work)>,
}

impl World {
    pub(super) fn note_begin(&mut self, at: usize, work: &Work) {
        self.history.begun.push((at, work.clone()));
    }

    /// For the canary: as if that machine began to create a VM when nobody else had been in its generation for long.
    pub fn pretend_alone(&mut self, at: usize) {
        self.history.seen_in.clear();
        if let Some(vm) = self.vms.first().cloned() {
            let claim = cluster::words::Claim::default();
            self.note_begin(at, &Work::Create { vm, claim, resume: false });
        }
    }

    /// For the canary: as if that machine had been in a later view before.
    pub fn pretend_older_view(&mut self, at: usize) {
        if let Some(machine) = self.machines.get(at)
            && let Some((_, view)) = self.history.views.get_mut(&(at, machine.life))
        {
            *view += 1;
        }
    }

    /// Looks at everything once; the first breach is kept.
    pub(super) fn check(&mut self) {
        let breach = self.one_copy().or_else(|| self.nothing_starts_inquorate()).or_else(|| self.views_never_fall());
        self.breach = self.breach.take().or(breach);
    }

    /// A VM runs in one place at most.
    fn one_copy(&self) -> Option<String> {
        self.vms.iter().find_map(|vm| {
            let running = self.running(vm);
            let names: Vec<&str> = running.iter().map(|at| self.name(*at)).collect();
            (running.len() > 1).then(|| format!("one copy: {vm} runs on {}", names.join(" and ")))
        })
    }

    /// Within a generation, a supervisor's view only grows.
    fn views_never_fall(&mut self) -> Option<String> {
        let mut breach = None;
        for (at, machine) in self.machines.iter().enumerate() {
            let Some(node) = &machine.node else { continue };
            let (generation, view) = node.position();
            let generation = generation.map(|generation| generation.to_string());
            if let Some(name) = &generation {
                self.history.seen_in.insert((name.clone(), at), self.now);
            }
            let last = self.history.views.insert((at, machine.life), (generation.clone(), view.0));
            if let Some((was, last)) = last
                && was == generation
                && last > view.0
            {
                breach = Some(format!("views never fall: {} went from {last} to {}", self.name(at), view.0));
            }
        }
        breach
    }

    /// Nobody fences itself, or begins anything for the cluster without a majority that was in its generation a moment ago.
    fn nothing_starts_inquorate(&mut self) -> Option<String> {
        let mut breach = None;
        for (at, work) in std::mem::take(&mut self.history.begun) {
            if let Work::OutletsOff { slot, .. } = &work
                && usize::from(slot.0) == at
            {
                breach = Some(format!("nobody fences itself: {}", self.name(at)));
            }
            let asks = !matches!(work, Work::Shutdown { .. } | Work::Destroy { .. });
            let generation = self.machines.get(at).and_then(|machine| machine.node.as_ref()?.position().0);
            let Some(generation) = generation.filter(|_| asks) else { continue };
            let name = generation.to_string();
            let recent = self
                .history
                .seen_in
                .iter()
                .filter(|((other, _), last)| *other == name && self.now.since(**last) < BELIEF);
            let slots = recent.filter_map(|((_, other), _)| u8::try_from(*other).ok().map(Slot));
            let count = self.config.votes(slots);
            if count < self.config.majority() {
                breach = Some(format!("nothing starts inquorate: {} with {count} votes began {work:?}", self.name(at)));
            }
        }
        breach
    }
}

//! What the machines say of themselves on their monitor lines, and the truth about which VM runs where.
//!
//! A monitor line carries one JSON object a line: `{"event": {"text": ..}}` as things happen, and `{"status": {..}}`
//! whenever a byte is received. Every machine is asked once a second, all the time, and what its Xen says it runs is
//! compared with what the others' Xen say.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use super::events::{Log, What};
use super::serial::Line;

/// How often a machine is asked.
const ASK: Duration = Duration::from_secs(1);
/// How old a status may be that is taken as the present one.
pub const FRESH: Duration = Duration::from_secs(10);
/// How long two machines may both report a VM before it counts as running in two places: what a supervisor tells may be
/// a poll of Xen old.
const STALE: Duration = Duration::from_secs(3);
/// Bytes of a line without an end that are kept.
const LONGEST: usize = 1 << 20;

/// A machine's last word on itself.
#[derive(Debug, Clone)]
pub struct Heard {
    /// When.
    pub at: Instant,
    /// The daemon's `Status`.
    pub status: Value,
}

impl Heard {
    /// A text of the status, empty if there is none.
    pub fn text(&self, key: &str) -> &str {
        self.status.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// The names of the domains that Xen runs there.
    pub fn domains(&self) -> Vec<&str> {
        self.list("domains").iter().filter_map(Value::as_str).collect()
    }

    /// A list of the status.
    pub fn list(&self, key: &str) -> &[Value] {
        self.status.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// Is it the machine's present state?
    pub fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH
    }
}

/// What all machines said.
#[derive(Debug, Clone)]
pub struct Monitor {
    shared: Arc<Mutex<Shared>>,
    log: Arc<Log>,
}

#[derive(Debug, Default)]
struct Shared {
    heard: BTreeMap<String, Heard>,
    /// By VM, then by machine.
    seen: BTreeMap<String, BTreeMap<String, Sighting>>,
}

/// A VM seen on a machine, in every status from the first to the last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sighting {
    incarnation: String,
    first: Instant,
    last: Instant,
    reported: bool,
}

impl Monitor {
    /// Nothing heard yet.
    pub fn new(log: Arc<Log>) -> Self {
        Self { shared: Arc::default(), log }
    }

    /// Begins to listen to a machine.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn follow(&self, machine: &str, line: Line, vms: Vec<String>) -> Result<()> {
        let (monitor, machine) = (self.clone(), machine.to_owned());
        let listened = line.listen();
        std::thread::Builder::new().name(format!("{machine} monitor")).spawn(move || {
            monitor.listen(&machine, &line, &listened, &vms);
        })?;
        Ok(())
    }

    /// The machine's last status, if it ever gave one.
    pub fn heard(&self, machine: &str) -> Option<Heard> {
        self.lock().heard.get(machine).cloned()
    }

    /// Every machine's last status that is fresh.
    pub fn fresh(&self) -> BTreeMap<String, Heard> {
        self.lock().heard.iter().filter(|(_, heard)| heard.is_fresh()).map(|(n, h)| (n.clone(), h.clone())).collect()
    }

    fn listen(&self, machine: &str, line: &Line, listened: &Receiver<Vec<u8>>, vms: &[String]) {
        let mut partial: Vec<u8> = Vec::new();
        let mut asked = Instant::now();
        loop {
            match listened.recv_timeout(ASK.saturating_sub(asked.elapsed())) {
                Ok(bytes) => {
                    partial.extend(bytes);
                    while let Some(end) = partial.iter().position(|b| *b == b'\n') {
                        let whole: Vec<u8> = partial.drain(..=end).collect();
                        self.said(machine, &whole, vms);
                    }
                    if partial.len() > LONGEST {
                        partial.clear();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    asked = Instant::now();
                    line.write(b"\n");
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn said(&self, machine: &str, line: &[u8], vms: &[String]) {
        // The line may carry what a firmware or a dying kernel wrote: whatever is no JSON is passed over.
        let Ok(value) = serde_json::from_slice::<Value>(line.trim_ascii()) else {
            return;
        };
        if let Some(text) = value.pointer("/event/text").and_then(Value::as_str) {
            self.log.push(machine, What::Said(text.into()));
        }
        if let Some(status) = value.get("status") {
            let heard = Heard { at: Instant::now(), status: status.clone() };
            let mut shared = self.lock();
            let doubles = shared.compare(machine, &heard, vms);
            shared.heard.insert(machine.into(), heard);
            drop(shared);
            for double in doubles {
                self.log.push("rack", What::TwoPlaces(double));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Shared {
    /// Notes where VMs are seen, and tells those newly found in two places.
    fn compare(&mut self, machine: &str, heard: &Heard, vms: &[String]) -> Vec<String> {
        let (now, incarnation, domains) = (heard.at, heard.text("incarnation"), heard.domains());
        let mut doubles = Vec::new();
        for vm in vms {
            let seen = self.seen.entry(vm.clone()).or_default();
            if !domains.contains(&vm.as_str()) {
                seen.remove(machine);
                continue;
            }
            let mut here = match seen.remove(machine) {
                Some(sighting) if sighting.incarnation == incarnation => Sighting { last: now, ..sighting },
                _ => Sighting { incarnation: incarnation.into(), first: now, last: now, reported: false },
            };
            for (there, other) in seen.iter_mut() {
                if overlap(&here, other) <= STALE {
                    continue;
                }
                if !here.reported || !other.reported {
                    doubles.push(format!("{vm} on {machine} and on {there}"));
                }
                here.reported = true;
                other.reported = true;
            }
            seen.insert(machine.into(), here);
        }
        doubles
    }
}

/// How long both were seen together.
fn overlap(one: &Sighting, other: &Sighting) -> Duration {
    one.last.min(other.last).saturating_duration_since(one.first.max(other.first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(at: Instant, incarnation: &str, domains: &[&str]) -> Heard {
        Heard { at, status: serde_json::json!({ "incarnation": incarnation, "domains": domains }) }
    }

    /// Plays statuses at seconds, and tells which doubles were found.
    fn play(statuses: &[(u64, &str, &str, &[&str])]) -> Vec<String> {
        let (begin, mut shared) = (Instant::now(), Shared::default());
        let vms = ["x0".to_owned()];
        statuses
            .iter()
            .flat_map(|(at, machine, incarnation, domains)| {
                shared.compare(machine, &heard(begin + Duration::from_secs(*at), incarnation, domains), &vms)
            })
            .collect()
    }

    #[test]
    fn a_vm_that_stays_on_two_machines_is_found_once() {
        let steps: &[(u64, &str, &str, &[&str])] = &[
            (0, "node1", "a", &["Domain-0", "x0"]),
            (1, "node2", "b", &["Domain-0", "x0"]),
            (6, "node1", "a", &["Domain-0", "x0"]),
            (7, "node2", "b", &["Domain-0", "x0"]),
            (8, "node1", "a", &["Domain-0", "x0"]),
        ];
        assert_eq!(play(steps), ["x0 on node2 and on node1"]);
    }

    #[test]
    fn a_migration_a_crash_and_a_return_are_no_doubles() {
        let steps: &[(u64, &str, &str, &[&str])] = &[
            (0, "node1", "a", &["Domain-0", "x0"]),
            (1, "node2", "b", &["Domain-0", "x0--incoming"]),
            // Handed over just after node1 looked.
            (5, "node1", "a", &["Domain-0", "x0"]),
            (6, "node2", "b", &["Domain-0", "x0"]),
            (7, "node1", "a", &["Domain-0"]),
            (20, "node2", "b", &["Domain-0", "x0"]),
            // node2 lost its power; x0 restarted on node1, and came back to node2's next boot.
            (40, "node1", "a", &["Domain-0", "x0"]),
            (60, "node1", "a", &["Domain-0"]),
            (61, "node2", "c", &["Domain-0", "x0"]),
            (80, "node2", "c", &["Domain-0", "x0"]),
        ];
        assert_eq!(play(steps), Vec::<String>::new());
    }
}

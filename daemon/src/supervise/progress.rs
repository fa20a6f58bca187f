//! How far moves and nodes that leave are, for the menus and the monitor line: what is counted on this machine
//! ([`carried`]), and since when each of them is seen in the status.
//!
//! Any node's status says that a VM moves, but not since when, nor how much of it was carried. So the bytes are known where
//! they are carried, at the move's two ends, and the time everywhere but on a node whose supervisor began after the move did.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cluster::status::{NodeStatus, Status, VmStatus};
use cluster::words::Instant;
use console::{Leaving, Move, Progress};

use crate::carried;

/// How long it may be between two looks so that what is new at the second has begun between them.
const SEAMLESS: Duration = Duration::from_secs(5);

/// What goes on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Course {
    /// A VM moves, in this generation of it.
    Move(String, u64),
    /// A node leaves, in this boot of it.
    Leaves(String, String),
}

/// Since when what goes on is seen.
#[derive(Debug, Default)]
pub(super) struct Courses {
    /// `None` of what had begun before anybody looked.
    since: BTreeMap<Course, Option<Instant>>,
    looked: Option<Instant>,
}

impl Courses {
    /// Looks at how things are, and in `directory` at what is counted. What does not move any more is not counted any more.
    pub(super) fn look(&mut self, now: Instant, status: &Status, evacuation: Duration, directory: &Path) -> Progress {
        let began = self.looked.filter(|looked| now.since(*looked) <= SEAMLESS).map(|_| now);
        self.looked = Some(now);
        let mut before = std::mem::take(&mut self.since);
        let mut since = |course: Course| {
            let since = before.remove(&course).unwrap_or(began);
            self.since.insert(course, since);
            since
        };
        let ends_here = |vm: &VmStatus| target(vm).is_some_and(|to| to == status.node || is_at(vm, &status.node));
        carried::forget(directory, |name| status.vms.iter().any(|vm| vm.name == name && !ends_here(vm)));
        let counts = carried::look(directory);
        let moves = status.vms.iter().filter(|vm| target(vm).is_some()).map(|vm| {
            let seen = since(Course::Move(vm.name.clone(), vm.generation));
            let count = counts.get(&vm.name).filter(|_| ends_here(vm));
            Move {
                vm: vm.name.clone(),
                for_ms: count.map(|(began, _)| *began).or(seen).map(|since| passed(now, since)),
                carried_bytes: count.map(|(_, bytes)| *bytes),
            }
        });
        let moves = moves.collect();
        let leaves = |node: &&NodeStatus| node.state == "leaving" || node.name == status.node && status.leaving;
        let leaving = status.nodes.iter().filter(leaves).map(|node| Leaving {
            node: node.name.clone(),
            for_ms: since(Course::Leaves(node.name.clone(), node.incarnation.clone())).map(|since| passed(now, since)),
            evacuation_ms: millis(evacuation),
        });
        Progress { moves, leaving: leaving.collect() }
    }
}

/// Where a VM moves to, if it does.
fn target(vm: &VmStatus) -> Option<&str> {
    vm.phase.strip_prefix("moving to ")
}

fn is_at(vm: &VmStatus, node: &str) -> bool {
    vm.owner.as_deref() == Some(node)
}

fn passed(now: Instant, since: Instant) -> u64 {
    millis(now.since(since))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use cluster::words::{Mebibytes, Role};

    use super::*;
    use crate::carried::Tally;

    const EVACUATION: Duration = Duration::from_secs(600);

    fn vm(name: &str, owner: &str, phase: &str) -> VmStatus {
        VmStatus {
            name: name.to_owned(),
            owner: Some(owner.to_owned()),
            phase: phase.to_owned(),
            generation: 4,
            memory: Mebibytes(128),
            wanted: true,
            priority: 50,
        }
    }

    fn node(name: &str, state: &str) -> NodeStatus {
        NodeStatus {
            name: name.to_owned(),
            role: Role::Node,
            state: state.to_owned(),
            incarnation: "5d01c0ffee".to_owned(),
            heard_ms: None,
            links: Vec::new(),
            free: Mebibytes(0),
            on_trial: false,
            standby: false,
            maintenance: false,
            disarmed: false,
            death: None,
            outlets: Vec::new(),
        }
    }

    fn at(node: &str, vms: Vec<VmStatus>) -> Status {
        Status { node: node.to_owned(), vms, ..Status::default() }
    }

    fn looks(courses: &mut Courses, second: u64, status: &Status, directory: &Path) -> Vec<(Option<u64>, Option<u64>)> {
        let progress = courses.look(Instant::from_millis(second * 1000), status, EVACUATION, directory);
        progress.moves.into_iter().map(|told| (told.for_ms, told.carried_bytes)).collect()
    }

    #[test]
    fn both_ends_of_a_move_tell_its_bytes_and_the_others_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let still = vec![vm("x0", "node1", "running")];
        let moves = vec![vm("x0", "node1", "moving to node2")];
        for (here, carried) in [("node1", Some(5_000)), ("node2", Some(5_000)), ("node3", None)] {
            let mut courses = Courses::default();
            assert_eq!(looks(&mut courses, 10, &at(here, still.clone()), directory.path()), []);
            let tally = Tally::begin(directory.path(), "x0", Instant::from_millis(12_000));
            let file = fs::File::options().write(true).open(directory.path().join("x0@12000")).unwrap();
            file.set_len(5_000).unwrap();
            let first = looks(&mut courses, 12, &at(here, moves.clone()), directory.path());
            assert_eq!(first, [(Some(0), carried)], "{here}");
            assert_eq!(tally.bytes(), Some(5_000));
            let later = looks(&mut courses, 49, &at(here, moves.clone()), directory.path());
            assert_eq!(later, [(Some(37_000), carried)], "{here}");
        }
    }

    #[test]
    fn a_supervisor_that_begins_anew_goes_on_with_what_is_counted_and_makes_no_time_up() {
        let directory = tempfile::tempdir().unwrap();
        let moves = at("node1", vec![vm("x0", "node1", "moving to node2"), vm("x1", "node2", "moving to node3")]);
        let _tally = Tally::begin(directory.path(), "x0", Instant::from_millis(3_000));
        let mut courses = Courses::default();
        for second in [40, 41] {
            let told = looks(&mut courses, second, &moves, directory.path());
            assert_eq!(told, [(Some((second - 3) * 1000), Some(0)), (None, None)]);
        }
        // Where nobody has looked for long nothing is known of when it began either.
        courses.look(Instant::from_millis(50_000), &at("node1", vec![]), EVACUATION, directory.path());
        let told = looks(&mut courses, 70, &at("node1", vec![vm("x2", "node2", "moving to node3")]), directory.path());
        assert_eq!(told, [(None, None)]);
    }

    #[test]
    fn what_does_not_move_any_more_is_not_counted_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let _tallies = ["x0", "x1", "x2"].map(|vm| Tally::begin(directory.path(), vm, Instant::ZERO));
        let status = at("node1", vec![vm("x0", "node1", "running"), vm("x1", "node2", "moving to node3")]);
        Courses::default().look(Instant::from_millis(1), &status, EVACUATION, directory.path());
        // Of the third nothing is said: this node may know of no VM for the moment.
        assert_eq!(carried::look(directory.path()).into_keys().collect::<Vec<_>>(), ["x2"]);
    }

    #[test]
    fn a_node_that_leaves_is_told_with_its_time_and_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let nodes = |state| vec![node("node1", "member"), node("node2", state)];
        let mut courses = Courses::default();
        let mut look = |second: u64, leaving, state| {
            let status = Status { node: "node1".to_owned(), leaving, nodes: nodes(state), ..Status::default() };
            let progress = courses.look(Instant::from_millis(second * 1000), &status, EVACUATION, directory.path());
            let told = |leaves: Leaving| format!("{} {:?} {}", leaves.node, leaves.for_ms, leaves.evacuation_ms);
            progress.leaving.into_iter().map(told).collect::<Vec<_>>()
        };
        assert_eq!(look(1, false, "member"), Vec::<String>::new());
        assert_eq!(look(2, false, "leaving"), ["node2 Some(0) 600000"]);
        assert_eq!(look(5, true, "leaving"), ["node1 Some(0) 600000", "node2 Some(3000) 600000"]);
        assert_eq!(look(6, true, "off"), ["node1 Some(1000) 600000"]);
    }
}

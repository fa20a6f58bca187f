//! The smallest world: nodes on a perfect network, whose shells do at once what they are asked for. What can go wrong is
//! the simulator's business (package `holdfast-tests`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::*;
use crate::event::{Domain, StreamId, VmFile, Work};
use crate::fencing::{Reading, Readings};
use crate::words::{Generation, Mebibytes, VmName};

struct Machine {
    node: Option<Node>,
    domains: BTreeMap<String, Domain>,
    boots: u64,
    on: bool,
}

struct World {
    config: Arc<Config>,
    now: Instant,
    machines: Vec<Machine>,
    mail: VecDeque<(usize, Event)>,
    pulls: BTreeMap<u64, (usize, OpId, usize)>,
    log: Vec<String>,
}

impl World {
    fn new() -> Self {
        let config = Arc::new(Config::parse(include_str!("../config/good.toml")).unwrap());
        let machines =
            config.slots().map(|_| Machine { node: None, domains: BTreeMap::new(), boots: 0, on: false }).collect();
        let mut world = Self {
            config,
            now: Instant::from_millis(1000),
            machines,
            mail: VecDeque::new(),
            pulls: BTreeMap::new(),
            log: Vec::new(),
        };
        for at in 0..world.machines.len() {
            world.boot(at);
        }
        world
    }

    fn boot(&mut self, at: usize) {
        let mut actions = Vec::new();
        let machine = &mut self.machines[at];
        machine.boots += 1;
        machine.on = true;
        machine.domains.clear();
        let incarnation = Incarnation::new(machine.boots * 100 + u64::try_from(at).unwrap() + 1).unwrap();
        let slot = Slot(u8::try_from(at).unwrap());
        let boot = Boot { config: self.config.clone(), slot, incarnation, start: 0, seed: 7 };
        machine.node = Some(Node::new(boot, self.now, &mut actions));
        self.carry_out(at, actions);
        if at > 0 {
            let files = ["x0", "x1"].map(|name| VmFile { name: VmName::new(name).unwrap(), memory: Mebibytes(128) });
            self.mail.push_back((at, Event::Read { files: files.to_vec() }));
        }
    }

    fn tell(&mut self, at: usize, event: Event) {
        let mut actions = Vec::new();
        if let Some(node) = self.machines[at].node.as_mut() {
            node.handle(self.now, event, &mut actions);
        }
        self.carry_out(at, actions);
    }

    fn carry_out(&mut self, at: usize, actions: Actions) {
        for action in actions {
            match action {
                Action::Send { to, datagram } => {
                    for other in 0..self.machines.len() {
                        if other != at && (to == To::All || to == To::Node(Slot(u8::try_from(other).unwrap()))) {
                            self.mail.push_back((other, Event::Heard { link: LinkId(0), datagram: datagram.clone() }));
                        }
                    }
                }
                Action::Trace(trace) => {
                    self.log.push(format!("{:>7} {} {trace}", self.now.millis(), self.config.nodes[at].name));
                }
                Action::Begin { op, work, .. } => self.work(at, op, work),
                Action::Refuse { .. } => panic!("nothing is refused here"),
                Action::Pet => {}
                Action::PowerOff => self.power_off(at),
            }
        }
    }

    fn power_off(&mut self, at: usize) {
        self.machines[at].node = None;
        self.machines[at].domains.clear();
        self.machines[at].on = false;
    }

    fn done(&mut self, at: usize, op: OpId, outcome: Outcome) {
        self.mail.push_back((at, Event::Done { op, outcome }));
    }

    fn work(&mut self, at: usize, op: OpId, work: Work) {
        match work {
            Work::Create { vm, .. } => {
                let elsewhere = self.machines.iter().any(|machine| machine.domains.contains_key(vm.as_str()));
                assert!(!elsewhere, "{vm} would run twice");
                self.machines[at].domains.insert(vm.to_string(), Domain::Running);
                self.done(at, op, Outcome::Succeeded);
            }
            Work::Receive { vm, generation, from } => {
                let stream = u64::try_from(self.pulls.len()).unwrap();
                let from = usize::from(from.0);
                self.pulls.insert(stream, (at, op, from));
                let by = Slot(u8::try_from(at).unwrap());
                self.mail.push_back((from, Event::Pulled { stream: StreamId(stream), vm, generation, by }));
            }
            Work::Push { vm, stream } => {
                let (target, receive, source) = self.pulls[&stream.0];
                assert_eq!(source, at);
                self.machines[source].domains.remove(vm.as_str());
                self.machines[target].domains.insert(vm.to_string(), Domain::Running);
                self.done(source, op, Outcome::Succeeded);
                self.done(target, receive, Outcome::Succeeded);
            }
            Work::Shutdown { vm } => {
                self.machines[at].domains.remove(vm.as_str());
                self.done(at, op, Outcome::Succeeded);
            }
            Work::Destroy { domain } => {
                self.machines[at].domains.remove(&domain);
                self.done(at, op, Outcome::Succeeded);
            }
            Work::OutletsOff { slot, outlets } => {
                self.power_off(usize::from(slot.0));
                self.read(at, op, outlets, &Reading::Off);
            }
            Work::OutletsOn { slot, outlets } => {
                self.boot(usize::from(slot.0));
                self.read(at, op, outlets, &Reading::On);
            }
        }
    }

    fn read(&mut self, at: usize, op: OpId, outlets: Vec<crate::words::Outlet>, reading: &Reading) {
        let readings: Readings = outlets.into_iter().map(|outlet| (outlet, reading.clone())).collect();
        self.done(at, op, Outcome::Read(readings));
    }

    fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.now = self.now + Duration::from_millis(50);
            for at in 0..self.machines.len() {
                if self.now.millis().is_multiple_of(500) && self.machines[at].node.is_some() {
                    let domains = self.machines[at].domains.clone();
                    let free = Mebibytes(600 - 150 * u32::try_from(domains.len()).unwrap());
                    self.mail.push_back((at, Event::Seen { domains, free }));
                }
                self.mail.push_back((at, Event::Tick));
            }
            while let Some((at, event)) = self.mail.pop_front() {
                self.tell(at, event);
            }
        }
    }

    fn status(&self, at: usize) -> crate::status::Status {
        self.machines[at].node.as_ref().unwrap().status(self.now)
    }

    fn running(&self, vm: &str) -> Vec<usize> {
        let has = |at: &usize| self.machines[*at].domains.contains_key(vm);
        (0..self.machines.len()).filter(has).collect()
    }

    /// Every node that is on agrees, and each VM runs once, as recorded.
    #[track_caller]
    fn check(&self) {
        for vm in ["x0", "x1"] {
            assert_eq!(self.running(vm).len(), 1, "{vm}\n{}", self.log.join("\n"));
        }
        for at in (0..self.machines.len()).filter(|at| self.machines[*at].on) {
            let status = self.status(at);
            assert!(status.quorate, "{}\n{}", status.node, self.log.join("\n"));
            for vm in &status.vms {
                assert_eq!(vm.phase, "running", "{}\n{}", vm.name, self.log.join("\n"));
                let owner = self.config.nodes[self.running(&vm.name)[0]].name.clone();
                assert_eq!(vm.owner.as_ref(), Some(&owner));
            }
        }
    }
}

#[test]
fn a_cluster_forms_and_spreads_its_vms() {
    let mut world = World::new();
    world.run(30);
    world.check();
    assert_ne!(world.running("x0"), world.running("x1"), "each goes where most memory is free");
}

#[test]
fn a_node_that_leaves_hands_its_vms_over_and_powers_off() {
    let mut world = World::new();
    world.run(30);
    let at = world.running("x0")[0];
    world.tell(at, Event::Asked { request: Request::ShutDown });
    world.run(30);
    assert!(!world.machines[at].on, "{}", world.log.join("\n"));
    world.check();
    let generations: Vec<u64> = world.status(0).vms.iter().map(|vm| vm.generation).collect();
    assert_eq!(generations, [2, 1], "moved, not started again");
    world.boot(at);
    world.run(30);
    world.check();
    let standings: Vec<String> = world.status(0).nodes.iter().map(|node| node.state.clone()).collect();
    assert_eq!(standings, ["member", "member", "member"], "{}", world.log.join("\n"));
}

#[test]
fn a_node_whose_plug_is_pulled_is_fenced_before_its_vms_start_elsewhere() {
    let mut world = World::new();
    world.run(30);
    let at = world.running("x0")[0];
    world.power_off(at);
    world.run(60);
    world.check();
    let position = |text: &str| world.log.iter().position(|line| line.contains(text)).unwrap();
    let node = &world.config.nodes[at].name;
    let story = [
        format!("suspects {node}"),
        format!("fences {node}: commands off"),
        format!("{node} is proven off: pdu1 outlet"),
        "x0, generation 2".to_owned(),
    ];
    let order: Vec<usize> = story.iter().map(|text| position(text)).collect();
    assert!(order.is_sorted(), "{order:?}\n{}", world.log.join("\n"));
    assert!(world.log.iter().any(|line| line.contains("powers")), "its power comes back");
}

#[test]
fn a_supervisor_that_restarts_keeps_what_runs() {
    let mut world = World::new();
    world.run(30);
    let at = world.running("x0")[0];
    let incarnation = world.machines[at].node.as_ref().unwrap().me.incarnation;
    let slot = Slot(u8::try_from(at).unwrap());
    let mut actions = Vec::new();
    let boot = Boot { config: world.config.clone(), slot, incarnation, start: 1, seed: 8 };
    world.machines[at].node = Some(Node::new(boot, world.now, &mut actions));
    world.carry_out(at, actions);
    world.run(30);
    world.check();
    assert_eq!(world.running("x0"), [at]);
    let generations: Vec<u64> = world.status(0).vms.iter().map(|vm| vm.generation).collect();
    assert_eq!(generations, [1, 1], "nothing was started again\n{}", world.log.join("\n"));
}

#[test]
fn a_cluster_whose_nodes_all_lose_power_comes_back() {
    let mut world = World::new();
    world.run(30);
    for at in 0..3 {
        world.boot(at);
    }
    world.run(60);
    world.check();
    assert_eq!(world.status(1).vms.iter().map(|vm| vm.generation).collect::<Vec<_>>(), [Generation(1).0; 2]);
}

#[test]
fn a_majority_of_new_lives_makes_the_rest_give_up_and_its_vms_are_adopted() {
    let mut world = World::new();
    world.run(30);
    let at = world.running("x0")[0];
    for other in (0..3).filter(|other| *other != at) {
        world.boot(other);
    }
    world.run(90);
    world.check();
    assert_eq!(world.running("x0"), [at], "{}", world.log.join("\n"));
    assert!(world.log.iter().any(|line| line.contains("VM x0 runs on") && line.contains("adopted")));
}

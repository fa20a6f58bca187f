//! Random worlds: a seed is a script of faults. Then everything is healed and must come right again.

use super::script::{self, Story};
use super::{Chance, MEMORY, VM_MEMORY};

/// How long a healed world may take to come right: fencing, a boot, a formation and the VMs' starts, one after another.
const PATIENCE: &str = "240s";

/// Lives through the world of one seed.
///
/// # Panics
/// If the script of the seed is none.
pub fn live(seed: u64) -> Story {
    live_with(seed, None)
}

/// The same with so many nodes, whatever the seed says.
///
/// # Panics
/// If the script of the seed is none.
pub fn live_with(seed: u64, nodes: Option<u64>) -> Story {
    script::tell(&script(seed, nodes)).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"))
}

/// The script of one seed, with so many nodes or as many as the seed says.
pub fn script(seed: u64, nodes: Option<u64>) -> String {
    let mut dice = Chance::new(seed ^ 0x0005_eed0_fa11_da75);
    let drawn = match dice.below(10) {
        0..6 => 1 + dice.below(4),
        6..9 => 5 + dice.below(4),
        _ => 9 + dice.below(7),
    };
    let nodes = nodes.unwrap_or(drawn);
    let room = nodes * u64::from(MEMORY.0 / VM_MEMORY.0).saturating_sub(2);
    let vms = dice.below(4.min(room) + 1) + dice.below(nodes);
    let links = 1 + u64::from(dice.happens(25)) + u64::from(dice.happens(5));
    let fencing = match dice.below(8) {
        0..4 => "snmp",
        4 => "snmp serial",
        5 => "snmp storage",
        6 => "snmp watchdog",
        _ => "serial storage watchdog",
    };
    let votes = votes(seed, nodes);
    // Dice of their own: a world without UPSes is what it would be if there were none at all.
    let mut power = Chance::new(seed ^ 0x00ba_77e2);
    let upses = if power.happens(30) { 1 + power.below(3) } else { 0 };
    let fed: String = (1..=upses).map(|n| feeds(&mut power, n, nodes)).collect();
    // Likewise: a world whose shared file system needs no lockspace is what it would be if there were none. The number is one
    // by which all the seeds that were kept before are such worlds.
    let mut shared = Chance::new(seed ^ 0x0d15_7c0c_1057_093c);
    let gfs2 = shared.happens(35);
    let word = if gfs2 { " gfs2" } else { "" };
    let mut roster = Chance::new(seed ^ 0x0add_ed0d);
    let spare = if nodes <= 13 && roster.happens(25) { 1 + roster.below(2) } else { 0 };
    let spares = if spare > 0 { format!(" {spare} spare") } else { String::new() };
    let (removals, weighted) = (u64::from(nodes >= 3), !votes.is_empty());
    let medium = Chance::new(seed ^ 0x00f1_11ed_0d15_c000);
    // Likewise.
    let mut keys = Chance::new(seed ^ 0x5ea1_ed0f_f1ce);
    let rekeys = keys.happens(20);
    let mut changes = Changes { roster, medium, nodes, spare, removals, weighted };
    let mut faults = Faults { dice, power, shared, upses, nodes, vms: vms.max(1), links };
    let world = format!("world {nodes} nodes {vms} vms {links} links{spares} seed {seed}");
    let mut lines = vec![format!("{world}{votes}{fed}{word} fencing {fencing}")];
    faults.set_up(&mut lines);
    for _ in 0..3 + faults.dice.below(12) {
        let fault = faults.fault();
        lines.push(fault);
        if faults.upses > 0 && faults.power.happens(60) {
            let fault = faults.ups();
            lines.push(fault);
        }
        if gfs2 && faults.shared.happens(50) {
            let fault = faults.shared();
            lines.push(fault);
            if faults.shared.happens(50) {
                lines.push(format!("run {}ms", 1 + faults.shared.below(1_500)));
                let fault = faults.shared();
                lines.push(fault);
            }
        }
        lines.push(format!("run {}ms", 1 + faults.dice.below(15_000)));
        changes.draw(&mut lines);
        if rekeys && keys.happens(30) {
            lines.push("change the key".to_owned());
        }
    }
    let come_right = ["heal".to_owned(), format!("settle {PATIENCE}")];
    lines.extend(come_right.clone());
    if roll(seed, &mut faults, &mut lines) {
        lines.extend(come_right);
    }
    lines.join("\n") + "\n"
}

/// In some worlds the machines have votes of different weight. Its dice are its own, so that the others fall as ever.
fn votes(seed: u64, nodes: u64) -> String {
    let mut dice = Chance::new(seed ^ 0x0000_5a11_0773_d0e5);
    if !dice.happens(25) {
        return String::new();
    }
    let most = if nodes <= 5 { u64::from(cluster::limits::VOTES) } else { 3 };
    let votes: Vec<String> = (0..=nodes).map(|_| (1 + dice.below(most)).to_string()).collect();
    format!(" votes {}", votes.join(","))
}

/// In some worlds that have come right the nodes are restarted, one after another, and something happens meanwhile. Whether, its
/// own dice say. The number is one by which no seed that was kept before is such a world.
fn roll(seed: u64, faults: &mut Faults, lines: &mut Vec<String>) -> bool {
    let mut dice = Chance::new(seed ^ 0x0011_b007_0000_745b);
    if !dice.happens(25) {
        return false;
    }
    for _ in 0..1 + dice.below(3) {
        lines.extend(["restart the nodes one by one".to_owned(), format!("run {}ms", 1 + dice.below(90_000))]);
        match dice.below(4) {
            0 => lines.push(faults.fault()),
            1 => lines.push(format!("kill supervisor {}", faults.who())),
            2 => lines.push("stop restarting the nodes".to_owned()),
            _ => {}
        }
        lines.push(format!("run {}ms", 1 + dice.below(60_000)));
    }
    true
}

/// A UPS, and what it feeds: machines may have none, or several.
fn feeds(power: &mut Chance, n: u64, nodes: u64) -> String {
    let share = 30 + power.below(71);
    let mut fed: Vec<String> = (0..=nodes).filter(|_| power.happens(share)).map(name).collect();
    if fed.is_empty() {
        fed.push(name(power.below(nodes + 1)));
    }
    format!(" u{n}:{}", fed.join(","))
}

/// Nodes that are added and removed. Their dice are their own as well.
struct Changes {
    roster: Chance,
    medium: Chance,
    nodes: u64,
    spare: u64,
    /// How many of the first nodes may still be removed: the others must have room for all VMs.
    removals: u64,
    weighted: bool,
}

impl Changes {
    fn draw(&mut self, lines: &mut Vec<String>) {
        if self.spare > 0 && self.medium.happens(10) {
            let is = if self.medium.happens(50) { "is full" } else { "has room" };
            lines.push(format!("medium {is} at {}", name(self.medium.below(self.nodes + 1))));
        }
        if self.spare == 0 || !self.roster.happens(40) {
            return;
        }
        let spare = name(self.nodes + 1 + self.roster.below(self.spare));
        match self.roster.below(9) {
            0..3 => lines.extend([format!("add {spare}"), format!("power on {spare}")]),
            3 => lines.push(format!("add {spare}")),
            4 => lines.push(format!("power on {spare}")),
            5 => lines.extend([format!("shut down {spare}"), self.pause(), format!("remove {spare}")]),
            6 => lines.extend([format!("power off {spare}"), self.pause(), format!("remove {spare}")]),
            // With votes of different weight those of one machine might be a majority by its old file.
            7 if !self.weighted => {
                lines.push(format!("old cluster.toml at {}", name(self.roster.below(self.nodes + 1))))
            }
            _ if self.removals > 0 => {
                let gone = name(self.roster.below(self.nodes + 1));
                lines.extend([format!("shut down {gone}"), self.pause(), format!("remove {gone}")]);
                self.removals -= 1;
            }
            _ => {}
        }
    }

    fn pause(&mut self) -> String {
        format!("run {}ms", 1 + self.roster.below(25_000))
    }
}

struct Faults {
    dice: Chance,
    power: Chance,
    shared: Chance,
    upses: u64,
    nodes: u64,
    vms: u64,
    links: u64,
}

impl Faults {
    fn set_up(&mut self, lines: &mut Vec<String>) {
        for at in 0..=self.nodes {
            if self.dice.happens(60) {
                let ppm = i64::try_from(self.dice.below(40_001)).unwrap_or(20_000) - 20_000;
                lines.push(format!("clock {} {ppm} ppm", name(at)));
            }
        }
        lines.push(self.weather());
        lines.push(format!("migrations fail {}", self.dice.below(40)));
        for at in 0..=self.nodes {
            if !self.dice.happens(10) {
                lines.push(format!("power on {}", name(at)));
            }
            if self.dice.happens(20) {
                lines.push(format!("run {}ms", self.dice.below(8_000)));
            }
        }
        lines.push(format!("run {}ms", 40_000 + self.dice.below(60_000)));
    }

    fn weather(&mut self) -> String {
        let loss = self.dice.below(4) * self.dice.below(6);
        format!("weather loss {loss} doubling {} delay {}ms", self.dice.below(10), 1 + self.dice.below(120))
    }

    /// A machine: any, or one that matters.
    fn who(&mut self) -> String {
        match self.dice.below(6) {
            0 => "the DC".to_owned(),
            1 => format!("the host of {}", self.vm()),
            _ => self.any(),
        }
    }

    fn any(&mut self) -> String {
        name(self.dice.below(self.nodes + 1))
    }

    fn vm(&mut self) -> String {
        format!("x{}", self.dice.below(self.vms))
    }

    /// `other` in `percent` of a hundred cases.
    fn either(&mut self, one: &str, other: &str, percent: u64) -> String {
        if self.dice.happens(percent) { other.to_owned() } else { one.to_owned() }
    }

    fn seconds(&mut self, most: u64) -> String {
        format!("{}ms", 1 + self.dice.below(most * 1000))
    }

    fn fault(&mut self) -> String {
        match self.dice.below(33) {
            0 => format!("power off {}", self.who()),
            1 | 2 => format!("power on {}", self.any()),
            3 => format!("reset {}", self.who()),
            4 => format!("power fails {} after {} actions", self.who(), self.dice.below(40)),
            5 => format!("kill supervisor {}", self.who()),
            6 | 7 => format!("kill supervisor {} after {} actions", self.who(), self.dice.below(40)),
            8 => format!("stall {} {}", self.who(), self.seconds(15)),
            9 => format!("stall {} {}", self.who(), self.seconds(60)),
            10 => format!("stall disks of {} {}", self.who(), self.seconds(150)),
            11 => format!("stall disks of all {}", self.seconds(60)),
            12 | 13 => format!("shut down {}", self.who()),
            14 => format!("cut {}", self.who()),
            15 => format!("cut {} -> {}", self.any(), self.any()),
            16 => self.split(),
            17 | 18 => "join everything".to_owned(),
            19 => self.weather(),
            20 => format!("replay {}", 1 + self.dice.below(30)),
            21 => self.pdu(),
            22 => "pdu answers".to_owned(),
            23 => self.either("storage gone", "storage back", 60),
            24 => format!("{} {}", self.either("hang", "free", 50), self.vm()),
            25 => format!("kill VM {}", self.vm()),
            26 | 27 => self.operator(),
            28 => format!("cut {} link {}", self.any(), self.dice.below(self.links)),
            29 => format!("join {} link {}", self.any(), self.dice.below(self.links)),
            31 => format!("fail storage {}", self.who()),
            30 => format!("stall {} {}", self.any(), self.seconds(6)),
            _ => self.either("power off all", "power on all", 60),
        }
    }

    fn ups(&mut self) -> String {
        let ups = format!("ups u{}", 1 + self.power.below(self.upses));
        match self.power.below(8) {
            0 | 1 => format!("{ups} battery"),
            2 => format!("{ups} lasts {}s", 1 + self.power.below(200)),
            3 => format!("{ups} low"),
            4..6 => format!("{ups} mains"),
            6 => format!("{ups} unreachable"),
            _ => format!("{ups} answers"),
        }
    }

    /// Troubles of the shared file system, and what changes the members of its lockspace.
    fn shared(&mut self) -> String {
        let dice = &mut self.shared;
        let who = if dice.happens(25) { "the DC".to_owned() } else { name(1 + dice.below(self.nodes)) };
        match dice.below(16) {
            0 => format!("shared withdraws {who}"),
            1 => format!("shared refuses {who}"),
            2 => format!("shared is deaf {who}"),
            3 => format!("shared clings {who}"),
            4 | 5 => format!("shared is well {who}"),
            6 | 7 => format!("reset {who}"),
            8 | 9 => format!("kill supervisor {who}"),
            10 | 11 => format!("kill supervisor {who} after {} actions", dice.below(20)),
            12 => format!("power fails {who} after {} actions", dice.below(20)),
            13 => format!("power on {who}"),
            _ => format!("shut down {who}"),
        }
    }

    fn pdu(&mut self) -> String {
        match self.dice.below(4) {
            0 => "pdu unreachable".to_owned(),
            1 => "pdu refuses".to_owned(),
            2 => "pdu sticks".to_owned(),
            _ => format!("pdu lags {}", self.seconds(30)),
        }
    }

    /// What an operator may ask for, sensible or not.
    fn operator(&mut self) -> String {
        match self.dice.below(14) {
            0 | 1 => format!("start VM {}", self.vm()),
            2 => format!("stop VM {}", self.vm()),
            3..6 => format!("migrate VM {} to {}", self.vm(), self.any()),
            6 => format!("disarm {}", self.any()),
            7 => format!("arm {}", self.any()),
            8 => self.either("disarm the cluster", "arm the cluster", 70),
            9 => format!("put {} into standby", self.any()),
            10 => format!("take {} out of standby", self.any()),
            11 => format!("put {} into maintenance", self.any()),
            12 => format!("take {} out of maintenance", self.any()),
            _ => format!("take {} for off", self.any()),
        }
    }

    /// Two or three groups; some stay joined with everybody.
    fn split(&mut self) -> String {
        let count = 2 + self.dice.below(2);
        let mut groups = vec![String::new(); usize::try_from(count).unwrap_or(2)];
        for at in 0..=self.nodes {
            let group = usize::try_from(self.dice.below(count)).unwrap_or(0);
            if let Some(group) = groups.get_mut(group).filter(|_| !self.dice.happens(10)) {
                group.push(' ');
                group.push_str(&name(at));
            }
        }
        groups.retain(|group| !group.is_empty());
        if groups.is_empty() {
            return "join everything".to_owned();
        }
        format!("split{}", groups.join(" |"))
    }
}

fn name(at: u64) -> String {
    if at == 0 { "gateway".to_owned() } else { format!("node{at}") }
}

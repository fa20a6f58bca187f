//! How the rack stands, for eyes and for programs.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Rack;
use super::layout::Machine;
use super::monitor::Heard;
use super::power::Stand;
use super::probe::Seen;

/// Events shown with a status.
const LAST_EVENTS: usize = 12;

/// Everything at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The machines, the spare ones behind the others, and as long as they have power.
    pub nodes: Vec<Node>,
    /// The VMs.
    pub vms: Vec<Vm>,
    /// The last events, oldest first.
    pub events: Vec<String>,
}

/// One machine, as the rack knows it, and as the cluster does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its outlet.
    pub outlet: u8,
    /// Is the outlet on?
    pub outlet_on: bool,
    /// How the machine stands: "runs", "hangs", "switched itself off", "no power".
    pub machine: String,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// Its slot's state, as the cluster sees it.
    pub state: Option<String>,
    /// Its own word on its boot.
    pub incarnation: Option<String>,
    /// The cluster generation it belongs to.
    pub generation: Option<String>,
    /// The edition of `cluster.toml` that it goes by.
    pub edition: Option<u64>,
    /// The membership it knows.
    pub view: Option<u64>,
    /// The DC it knows.
    pub dc: Option<String>,
    /// Is it part of a quorate cluster?
    pub quorate: Option<bool>,
    /// What its Xen has free, in MiB.
    pub free_mib: Option<u64>,
    /// The domains of its Xen.
    pub domains: Vec<String>,
}

/// One VM, as the cluster knows it, and as the probes see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// The node that owns it.
    pub owner: Option<String>,
    /// What it is doing.
    pub phase: Option<String>,
    /// How often its owner changed or it was started.
    pub generation: Option<u64>,
    /// What the probes see.
    pub seen: Seen,
}

impl Status {
    pub(super) fn of(rack: &Rack) -> Self {
        let fresh = rack.monitor.fresh();
        // The word of the DC counts for what the cluster knows; without one, that of whoever is in the highest view.
        let best = fresh.values().max_by_key(|heard| {
            let quorate = heard.status.get("quorate").and_then(Value::as_bool) == Some(true);
            (quorate, number(heard, "view"), heard.text("dc") == heard.text("node"))
        });
        let row = |list: &str, name: &str| {
            best.and_then(|heard| {
                heard.list(list).iter().find(|row| text(row, "name").as_deref() == Some(name)).cloned()
            })
            .unwrap_or_default()
        };
        let has_power = |machine: &&Machine| rack.power.is_on(machine.outlet) == Some(true);
        let machines = rack.layout.machines.iter().chain(rack.layout.spares.iter().filter(has_power));
        let nodes = machines.map(|machine| {
            let own = fresh.get(&machine.name);
            let slot = row("nodes", &machine.name);
            Node {
                name: machine.name.clone(),
                outlet: machine.outlet,
                outlet_on: rack.power.is_on(machine.outlet) == Some(true),
                machine: rack.power.stand(&machine.name).map(stand_in_words).unwrap_or_default().into(),
                memory_mib: machine.memory_mib,
                state: text(&slot, "state"),
                incarnation: own.and_then(|h| text(&h.status, "incarnation")),
                generation: own.and_then(|h| text(&h.status, "generation")),
                edition: own.and_then(|h| number(h, "edition")),
                view: own.and_then(|h| number(h, "view")),
                dc: own.and_then(|h| text(&h.status, "dc")),
                quorate: own.and_then(|h| h.status.get("quorate").and_then(Value::as_bool)),
                free_mib: own.and_then(|h| number(h, "free_mib")),
                domains: own.map(|h| h.domains().into_iter().map(String::from).collect()).unwrap_or_default(),
            }
        });
        let vms = rack.layout.vms.iter().map(|vm| {
            let record = row("vms", &vm.name);
            Vm {
                name: vm.name.clone(),
                owner: text(&record, "owner"),
                phase: text(&record, "phase"),
                generation: record.get("generation").and_then(Value::as_u64),
                seen: rack.probes.get(&vm.name).map(super::probe::Probe::seen).unwrap_or_default(),
            }
        });
        let events = rack.log.last(LAST_EVENTS).iter().map(ToString::to_string).collect();
        Self { nodes: nodes.collect(), vms: vms.collect(), events }
    }

    /// The VM of that name.
    pub fn vm(&self, name: &str) -> Option<&Vm> {
        self.vms.iter().find(|vm| vm.name == name)
    }

    /// The machine of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = || "-".to_owned();
        writeln!(
            f,
            "{:<9} {:<11} {:<20} {:<10} {:<17} {:>4} {:<9} {:>9}  DOMAINS",
            "NODE", "OUTLET", "MACHINE", "STATE", "INCARNATION", "VIEW", "DC", "FREE MiB"
        )?;
        for n in &self.nodes {
            writeln!(
                f,
                "{:<9} {:<11} {:<20} {:<10} {:<17} {:>4} {:<9} {:>9}  {}",
                n.name,
                format!("{} {}", n.outlet, if n.outlet_on { "on" } else { "off" }),
                n.machine,
                n.state.clone().unwrap_or_else(none),
                n.incarnation.clone().unwrap_or_else(none),
                n.view.map_or_else(none, |v| v.to_string()),
                n.dc.clone().unwrap_or_else(none),
                n.free_mib.map_or_else(none, |m| m.to_string()),
                n.domains.join(" "),
            )?;
        }
        writeln!(f, "\n{:<9} {:<11} {:<20} {:>10}  {:<8} BOOT ID", "VM", "OWNER", "PHASE", "GENERATION", "ANSWERS")?;
        for vm in &self.vms {
            writeln!(
                f,
                "{:<9} {:<11} {:<20} {:>10}  {:<8} {}",
                vm.name,
                vm.owner.clone().unwrap_or_else(none),
                vm.phase.clone().unwrap_or_else(none),
                vm.generation.map_or_else(none, |g| g.to_string()),
                if vm.seen.answers { "yes" } else { "no" },
                vm.seen.boot_id.clone().unwrap_or_else(none),
            )?;
        }
        writeln!(f)?;
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

fn stand_in_words(stand: Stand) -> &'static str {
    match stand {
        Stand::Runs => "runs",
        Stand::Hangs => "hangs",
        Stand::SwitchedOff => "switched itself off",
        Stand::NoPower => "no power",
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(String::from)
}

fn number(heard: &Heard, key: &str) -> Option<u64> {
    heard.status.get(key).and_then(Value::as_u64)
}

//! What a node says of itself: its status, and why an operation failed.

use crate::config::{Config, Ups};
use crate::event::Work;
use crate::hearing::{LinkNews, Peer};
use crate::node::Node;
use crate::placement;
use crate::scene::{Sight, Wishes};
use crate::state::{Phase, Rolling, Standing, State, Stop, names};
use crate::status::{LinkStatus, NodeStatus, RollingStatus, Shortfall, Status, UpsStatus, VmStatus};
use crate::trace::Trace;
use crate::words::{ClusterGeneration, Identity, Instant, LinkId, Mebibytes, Role, Slot, Supply, UpsId, View};

/// What to say when an operation failed. Of fencing the DC says more, and says it itself.
pub(super) fn failure(config: &Config, work: &Work, reason: &str) -> Option<Trace> {
    let reason = reason.to_owned();
    match work {
        Work::Create { vm, .. } => Some(Trace::NotStarted { vm: vm.clone(), reason }),
        Work::Receive { vm, from, .. } => {
            Some(Trace::NotMoved { vm: vm.clone(), from: config.node_name(*from), reason })
        }
        Work::Push { vm, .. } => Some(Trace::NotPushed { vm: vm.clone(), reason }),
        Work::Shutdown { vm } => Some(Trace::NotShutDown { vm: vm.clone(), reason }),
        Work::Destroy { domain } => Some(Trace::NotDestroyed { domain: domain.clone(), reason }),
        Work::Suspend { vm } => Some(Trace::NotSuspended { vm: vm.clone(), reason }),
        Work::Reserve => Some(Trace::NotReserved { reason }),
        Work::Keep(_) => Some(Trace::NotKept { reason }),
        Work::CutLoad { ups } => {
            let ups = config.ups(*ups).map(|ups| ups.name.clone()).unwrap_or_default();
            Some(Trace::NotCut { ups, reason })
        }
        // Of these those say more who began them.
        Work::OutletsOff { .. } | Work::OutletsOn { .. } | Work::Bar { .. } | Work::Lockspace(_) => None,
    }
}

/// What to say of the nodes that are not there when a generation is formed of `present`.
pub(super) fn absent(config: &Config, present: &[Identity]) -> impl Iterator<Item = Trace> {
    let missing = |slot: Slot| !present.iter().any(|identity| identity.slot == slot);
    let absent = config.slots().filter(move |(slot, node)| node.role == Role::Node && missing(*slot));
    absent.map(|(_, node)| Trace::Absent { node: node.name.clone() })
}

/// What to say of a link.
pub(super) fn link_news(config: &Config, slot: Slot, link: LinkId, news: LinkNews) -> Trace {
    let (node, network) = (config.node_name(slot), config.link_name(link).to_owned());
    match news {
        LinkNews::Quiet(silence) => Trace::LinkQuiet { node, network, silence },
        LinkNews::Back => Trace::LinkBack { node, network },
    }
}

impl Node {
    /// The generation and the view that this node is in.
    #[must_use]
    pub fn position(&self) -> (Option<ClusterGeneration>, View) {
        let belonging = self.belonging.as_ref().ok();
        let state = belonging.and_then(|belonging| belonging.state.as_ref());
        (belonging.map(|belonging| belonging.generation), state.map(|state| state.view).unwrap_or_default())
    }

    /// Whether this node belongs to the majority.
    #[must_use]
    pub fn is_quorate(&self) -> bool {
        self.belonging.as_ref().is_ok_and(|belonging| belonging.is_quorate())
    }

    /// What this node knows of the cluster.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let belonging = self.belonging.as_ref().ok();
        let state = belonging.and_then(|belonging| belonging.state.as_ref());
        let name = |slot: Slot| self.config.node_name(slot);
        let leader = belonging.and_then(|belonging| belonging.agreement.leader());
        Status {
            cluster: self.config.name.clone(),
            edition: self.config.edition.number,
            key: self.config.key,
            oldest_key: self.keys.least,
            node: name(self.me.slot),
            incarnation: self.me.incarnation.to_string(),
            generation: belonging.map(|belonging| belonging.generation.to_string()),
            view: state.map_or(0, |state| state.view.0),
            dc: leader.filter(|leader| self.config.has(leader.slot)).map(|leader| name(leader.slot)),
            quorate: self.is_quorate(),
            leaving: self.leaving.is_some(),
            free_mib: self.host.free().unwrap_or_default().0,
            domains: self.host.domains().cloned().collect(),
            disarmed: state.is_some_and(|state| state.disarmed),
            nodes: (0..)
                .map(Slot)
                .zip(&self.config.nodes)
                .map(|(slot, _)| self.node_status(now, slot, state))
                .collect(),
            vms: state.map_or_else(Vec::new, |state| self.vm_status(state)),
            upses: self.config.ups_ids().map(|(id, ups)| self.ups_status(id, ups, state)).collect(),
            shortfalls: state.map_or_else(Vec::new, |state| self.shortfalls(now, state)),
            rolling: state.filter(|state| state.rolling.number > 0).map(|state| self.rolling_status(&state.rolling)),
        }
    }

    fn rolling_status(&self, rolling: &Rolling) -> RollingStatus {
        RollingStatus {
            done: names(&self.config, &rolling.done),
            node: rolling.turn.map(|turn| self.config.node_name(turn.slot)),
            todo: names(&self.config, &rolling.todo.keys().copied().collect()),
            left_out: names(&self.config, &rolling.left_out),
            stopped: rolling.stopped.clone(),
        }
    }

    fn ups_status(&self, id: UpsId, ups: &Ups, state: Option<&State>) -> UpsStatus {
        let (reading, heard) = self.ups.last(id);
        let reading = reading.unwrap_or_default();
        UpsStatus {
            name: ups.name.clone(),
            supply: state.map_or(Supply::Mains, |state| state.ups(id)),
            heard,
            charge_percent: reading.charge_percent,
            runtime_s: reading.runtime_s,
            feeds: ups.feeds.iter().map(|slot| self.config.node(*slot).name.clone()).collect(),
        }
    }

    fn shortfalls(&self, now: Instant, state: &State) -> Vec<Shortfall> {
        let (me, config, hearing, host) = (self.me, &*self.config, &self.hearing, &self.host);
        let scene = Sight { now, me, config, state, hearing, host }.scene(&Wishes::default());
        let said = placement::shortfalls(&scene.inventory).into_iter().filter_map(|short| {
            let node = config.node(scene.node(short.node)?.slot).name.clone();
            let vms = short.vms.into_iter().filter_map(|vm| scene.vm(vm)).map(ToString::to_string).collect();
            Some(Shortfall { node, vms })
        });
        said.collect()
    }

    fn node_status(&self, now: Instant, slot: Slot, state: Option<&State>) -> NodeStatus {
        let config = self.config.node(slot);
        let member = state.and_then(|state| state.members.get(&slot));
        let peer = self.hearing.peer(slot);
        let here = slot == self.me.slot;
        let heard = if here { Some(self.me) } else { peer.map(|peer| peer.identity) };
        let identity = heard.or(member.map(|member| member.identity)).filter(|identity| !identity.is_absent());
        let duty = state.map(|state| state.duty(slot)).unwrap_or_default();
        let free = if here { self.host.free() } else { peer.and_then(|peer| peer.beat.free) };
        NodeStatus {
            name: config.name.clone(),
            role: config.role,
            state: match member {
                _ if config.removed => "removed",
                Some(member) => standing(member.standing),
                None => "unknown",
            }
            .to_owned(),
            incarnation: identity.map(|identity| identity.incarnation.to_string()).unwrap_or_default(),
            heard_ms: if here {
                Some(0)
            } else {
                peer.map(|peer| u64::try_from(now.since(peer.last).as_millis()).unwrap_or(u64::MAX))
            },
            links: peer.map_or_else(Vec::new, |peer| self.links_of(now, peer)),
            free: free.unwrap_or(Mebibytes(0)),
            standby: duty.standby,
            maintenance: duty.maintenance,
            on_trial: config.on_trial,
            disarmed: duty.disarmed,
            death: state.and_then(|state| state.deaths.get(&slot)).map(ToString::to_string),
            outlets: config.outlets.iter().map(ToString::to_string).collect(),
        }
    }

    fn links_of(&self, now: Instant, peer: &Peer) -> Vec<LinkStatus> {
        let status = |(link, quality)| LinkStatus { network: self.config.link_name(link).to_owned(), quality };
        peer.quality(now, self.config.timing.keepalive).map(status).collect()
    }

    fn vm_status(&self, state: &State) -> Vec<VmStatus> {
        let name = |slot: Slot| self.config.node_name(slot);
        let status = |(vm_name, vm): (&crate::words::VmName, &crate::state::Vm)| VmStatus {
            name: vm_name.to_string(),
            owner: vm.owner().map(|owner| name(owner.slot)),
            phase: match vm.phase {
                Phase::Stopped if vm.image => "suspended".to_owned(),
                Phase::Stopped => "stopped".to_owned(),
                Phase::Starting(_) => "starting".to_owned(),
                Phase::Running(_) => "running".to_owned(),
                Phase::Moving { to, .. } => format!("moving to {}", name(to.slot)),
                Phase::Landing(_) => "landing".to_owned(),
                Phase::Stopping(_, Stop::Suspend) => "suspending".to_owned(),
                Phase::Stopping(_, Stop::ShutDown) => "stopping".to_owned(),
                Phase::Failed => "failed".to_owned(),
            },
            generation: vm.generation.0,
            memory: vm.memory,
            wanted: vm.wanted,
            priority: vm.spec.priority,
        };
        state.vms.iter().map(status).collect()
    }
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Member => "member",
        Standing::Leaving => "leaving",
        Standing::Off => "off",
        Standing::Waking => "waking",
        Standing::Unclean => "unclean",
        Standing::Fenced => "fenced",
        Standing::Booting => "booting",
    }
}

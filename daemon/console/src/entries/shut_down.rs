//! Shut down this node: what that means now, and the question.

use cluster::status::Status;
use cluster::words::Role;

use super::WIDTH;
use crate::facts::Facts;
use crate::text::wrap;

/// Whether `y` is an answer: the supervisor is there, has said how things are, and was not asked yet.
pub(crate) fn may_ask(facts: &Facts) -> bool {
    knows(facts) && !leaves(facts)
}

/// Whether the supervisor is there and has said how things are.
fn knows(facts: &Facts) -> bool {
    facts.connected && (facts.status.is_some() || !facts.problems.is_empty())
}

/// Whether the node is on its way out.
fn leaves(facts: &Facts) -> bool {
    facts.asked || facts.status.as_ref().is_some_and(|status| status.leaving)
}

pub(super) fn lines(facts: &Facts) -> Vec<String> {
    let vms: Vec<_> = facts.vms_here().iter().map(|vm| vm.name.clone()).collect();
    let text = if !knows(facts) {
        "The supervisor does not answer, so it cannot be asked. It is started again by itself: wait a moment."
            .to_owned()
    } else if leaves(facts) {
        match vms.as_slice() {
            [] => "This node is leaving. It has no VMs any more and powers off.".to_owned(),
            vms => format!("This node is leaving. These VMs are still here: {}.", vms.join(", ")),
        }
    } else {
        let name = facts.status.as_ref().map_or("this machine", |status| &status.node);
        format!("Shut down {name}? (y/n)\n\n{}", consequences(facts.status.as_ref(), &vms))
    };
    wrap(&text, WIDTH, 0)
}

/// What a `y` will do.
fn consequences(status: Option<&Status>, vms: &[String]) -> String {
    let Some(status) = status else {
        return "It does not take part in the cluster. It powers off at once, with all that runs on it.".to_owned();
    };
    let gateway = |node: &cluster::status::NodeStatus| node.name == status.node && node.role == Role::Gateway;
    if status.nodes.iter().any(gateway) {
        return "This is the gateway: every VM of the cluster has its disks here. They stand still until the gateway is \
                back. It leaves the cluster and powers off."
            .to_owned();
    }
    let moved = match vms {
        [] => "It has no VMs.".to_owned(),
        vms => format!(
            "It has these VMs, which are moved to other nodes first, live: {}.\n\nOne that cannot be moved in time is \
             shut down and started again elsewhere.",
            vms.join(", ")
        ),
    };
    let quorum =
        if status.quorate { "" } else { "\n\nThe cluster is inquorate: nothing can be moved as long as it is." };
    format!("{moved}{quorum}\n\nThen the node leaves the cluster and powers off.")
}

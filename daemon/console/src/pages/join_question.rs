//! A question about machines that join: what it will do, whether it may be asked now, and what the gateway has answered.
//!
//! A machine is let in by typing the code that stands on its own console; a window is opened by typing for how many.

use crate::facts::{Facts, Reply};
use crate::joining::{Asking, JoinRequest, Machine};
use crate::page::{Row, no_status, paragraph};

/// Whether the operator may confirm now.
pub(crate) fn is_open(facts: &Facts, request: &JoinRequest) -> bool {
    let reply = facts.join_reply(request);
    facts.connected
        && facts.status.is_some()
        && is_there(facts, request)
        && !facts.awaits_gateway()
        && reply != Some(&Reply::Agreed)
}

/// Whether it is about something that there is.
fn is_there(facts: &Facts, request: &JoinRequest) -> bool {
    match request {
        JoinRequest::Approve { ask, .. } => {
            asking(facts, *ask).is_some_and(|machine| !matches!(machine.offer, Some(Err(_))))
        }
        JoinRequest::Revoke { identity } => machine(facts, identity).is_some_and(|machine| !machine.revoked),
        JoinRequest::Forget { identity } => machine(facts, identity).is_some_and(|machine| machine.revoked),
        JoinRequest::List | JoinRequest::Open { .. } | JoinRequest::Close => true,
    }
}

fn asking(facts: &Facts, ask: u64) -> Option<&Asking> {
    let joining = facts.joining.as_ref()?.as_ref().ok()?;
    joining.asking.iter().find(|machine| machine.ask == ask)
}

fn machine<'a>(facts: &'a Facts, identity: &str) -> Option<&'a Machine> {
    let joining = facts.joining.as_ref()?.as_ref().ok()?;
    joining.machines.iter().find(|machine| machine.identity == identity)
}

/// What a machine that asks is called.
pub(crate) fn name(machine: &Asking) -> String {
    machine.node.clone().unwrap_or_else(|| "new machine".to_owned())
}

/// What a machine that asks says of itself, and what is strange about it.
pub(crate) fn description(machine: &Asking) -> impl Iterator<Item = String> {
    let of = format!("serial number {}, {} MiB, {}", word(&machine.serial), machine.memory_mib, word(&machine.cpu));
    let warning = machine.warning.iter().map(|warning| format!("Beware: {warning}."));
    let offer = machine.offer.iter().map(|offer| match offer {
        Ok(node) => format!("It would become {node}."),
        Err(reason) => format!("It cannot become a node: {reason}."),
    });
    std::iter::once(of).chain(warning).chain(offer)
}

fn word(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

/// The request in a few words.
pub(crate) fn title(facts: &Facts, request: &JoinRequest) -> String {
    let node = |identity| machine(facts, identity).map_or("the machine", |machine| &*machine.node);
    match request {
        JoinRequest::List => "Joining".to_owned(),
        JoinRequest::Approve { ask, .. } => match asking(facts, *ask) {
            Some(machine) if machine.node.is_none() => "Make the new machine a node".to_owned(),
            machine => format!("Let {} in", machine.map_or_else(|| "the machine".to_owned(), name)),
        },
        JoinRequest::Open { .. } => "Let the next machines in without a code".to_owned(),
        JoinRequest::Close => "Close the window".to_owned(),
        JoinRequest::Revoke { identity } => format!("Take the approval of {} back", node(identity)),
        JoinRequest::Forget { identity } => format!("Forget that {} was refused", node(identity)),
    }
}

pub(crate) fn rows(facts: &Facts, request: &JoinRequest) -> Vec<Row> {
    if !facts.connected || facts.status.is_none() {
        return no_status(facts);
    }
    let text = match facts.join_reply(request) {
        Some(Reply::Agreed) => agreed(request).to_owned(),
        Some(Reply::Awaited) => "Asked. The gateway answers within 10 s.".to_owned(),
        _ if facts.awaits_gateway() => {
            "What was asked last is not answered yet. The gateway answers within 10 s.".to_owned()
        }
        _ if !is_there(facts, request) => format!("{}{}", note(facts, request), not_there(facts, request)),
        Some(Reply::Refused(_) | Reply::Lost) | None => note(facts, request) + &question(facts, request),
    };
    paragraph(&text).collect()
}

/// Why it cannot be asked.
fn not_there(facts: &Facts, request: &JoinRequest) -> String {
    if let JoinRequest::Approve { ask, .. } = request
        && let Some(Asking { offer: Some(Err(reason)), .. }) = asking(facts, *ask)
    {
        return format!("It cannot become a node: {reason}.");
    }
    "That machine does not ask any more.".to_owned()
}

/// What came of it when it was asked before.
fn note(facts: &Facts, request: &JoinRequest) -> String {
    match facts.join_reply(request) {
        Some(Reply::Refused(reason)) => format!("Refused: {reason}.\n\n"),
        Some(Reply::Lost) => "The supervisor was lost after this was asked.\n\n".to_owned(),
        Some(Reply::Awaited | Reply::Agreed) | None => String::new(),
    }
}

fn agreed(request: &JoinRequest) -> &'static str {
    match request {
        JoinRequest::List => "",
        JoinRequest::Approve { .. } => "Agreed. It is given the cluster's secrets, now and at every boot.",
        JoinRequest::Open { .. } => "Agreed. The window is open.",
        JoinRequest::Close => "Agreed. Nobody is let in without a code any more.",
        JoinRequest::Revoke { .. } => "Agreed. It is refused from now on.",
        JoinRequest::Forget { .. } => "Agreed. It may ask to join again.",
    }
}

fn question(facts: &Facts, request: &JoinRequest) -> String {
    let effect = match request {
        JoinRequest::List => String::new(),
        JoinRequest::Approve { ask, code } => {
            let machine = asking(facts, *ask);
            let described = machine.map_or_else(String::new, |machine| {
                let described: Vec<_> = description(machine).collect();
                format!("{}: {}", machine.card, described.join("\n"))
            });
            let (vote, wish) = if machine.is_some_and(|machine| machine.node.is_none()) {
                let wish = " If it is to be another node than that, type a name behind the code, and behind it power switches \
                            with an outlet each, as in 123456 node7 pdu1 5.";
                ("Its vote counts from now on. Before it is given VMs its outlets are switched off and on once, to see that they \
                  feed it and nobody else. It ", wish)
            } else {
                ("It ", "")
            };
            return format!(
                "{described}\n\n{vote}is given the cluster's secrets, now and at every boot.\n\nGo to that machine: a code of six \
                 digits stands on its console. After three wrong ones it is sent away, and shows another.{wish}\n\nType the \
                 code and press Enter: {code}_"
            );
        }
        JoinRequest::Open { machines } => {
            return format!(
                "For 15 minutes every machine that cluster.toml names is let in as soon as it asks, and is given the cluster's \
                 secrets, until there were as many as you say. Whoever can plug a machine into the cluster's network could \
                 be one of them.\n\nHow many machines? Type a number and press Enter: {machines}_"
            );
        }
        JoinRequest::Close => "Whoever asks from now on is let in by its code only.".to_owned(),
        JoinRequest::Revoke { .. } => "It is not given the cluster's secrets any more: when it boots again it stays out, and \
                                       its VMs with it. It keeps those that it has been given: as long as the cluster's key is \
                                       not changed, whoever has read them from its memory can use them."
            .to_owned(),
        JoinRequest::Forget { .. } => "It may ask to join again, as any other machine.".to_owned(),
    };
    format!("{}? (y/n)\n\n{effect}", title(facts, request))
}

/// The keys of it.
pub(crate) fn keys(facts: &Facts, request: &JoinRequest) -> Option<&'static str> {
    let open = is_open(facts, request);
    match request {
        _ if !open => None,
        JoinRequest::Approve { .. } => Some("Enter: let it in   Esc: no, back   Ctrl-L: draw again"),
        JoinRequest::Open { .. } => Some("Enter: open the window   Esc: no, back   Ctrl-L: draw again"),
        JoinRequest::List | JoinRequest::Close | JoinRequest::Revoke { .. } | JoinRequest::Forget { .. } => {
            Some("y: yes   n, Esc, q: no, back   Ctrl-L: draw again")
        }
    }
}

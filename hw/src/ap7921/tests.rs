//! Every dialogue as it goes: `dialogues/ap7921-snmp/*.txt`.
//!
//! A recording is the dialogue, and what happens to each datagram it sends:
//!
//! ```text
//! off OUTLET.. | on OUTLET.. | status | load    the dialogue; an outlet is NUMBER or NUMBER=NAME
//! ap7921                                 the next two are answered as an AP7921 with eight outlets does
//! ap7921b                                the same for an AP7921B
//! is VALUE ..                            answered with these values: a number, "text" (`_` is a blank), null, an OID, or gauge:NUMBER
//! done                                   a SET is answered as it was sent
//! error NAME                             refused
//! lost                                   not answered
//! first SENTENCE                         before what follows, the reply comes that ..
//!   .. old VALUE                           .. the request before would have had
//!   .. id | community | object | value     .. differs in that from the right one (which says that all is well)
//!   .. noise                               .. is no reply at all
//! after MILLISECONDS SENTENCE            the same as the sentence, so much later
//! give up                                at this request the caller has no more time
//! ```

use std::fmt::Write as _;

use super::branch::{RPDU, RPDU2};
use super::*;
use crate::recordings;
use crate::snmp::{Kind, Message, Pdu};

const COMMUNITY: &str = "private";

#[test]
fn every_dialogue_goes_as_written() {
    recordings::check("ap7921-snmp", replay);
}

fn replay(input: &str) -> String {
    let (dialogue, script) = input.split_once('\n').unwrap();
    let script = script.replace("ap7921b", "is 1.3.6.1.4.1.318.1.3.4.8\nis \"AP7921B\" 8");
    let script = script.replace("ap7921", "is 1.3.6.1.4.1.318.1.3.4.5\nis \"AP7921\" 8");
    let (word, rest) = dialogue.split_once(' ').unwrap_or((dialogue, ""));
    let outlet = |text: &str| {
        let (number, name) = text.split_once('=').map_or((text, None), |(number, name)| (number, Some(name.into())));
        Outlet { number: number.parse().unwrap(), name }
    };
    let outlets: Vec<Outlet> = rest.split_whitespace().map(outlet).collect();
    let access = Access::community(COMMUNITY);
    match word {
        "off" => go(switch(Relay::Off, &outlets, &access, 1), &script, |relay| format!(" {relay}")),
        "on" => go(switch(Relay::On, &outlets, &access, 1), &script, |relay| format!(" {relay}")),
        "status" => go(status(&access, 1), &script, |outlets| {
            outlets.iter().map(|(seen, name)| format!("\n  {seen}, called \"{name}\"")).collect()
        }),
        "load" => go(load(&access, 1), &script, |load| format!(" {load} tenths of an ampere")),
        _ => panic!("no such dialogue: {word}"),
    }
}

/// The device and the network of a recording.
struct Script<'a> {
    lines: std::str::Lines<'a>,
    now_ms: u64,
    previous: Option<Pdu>,
    output: String,
}

fn go<T, D: Dialogue<Outcome = Result<T, Error>>>(mut dialogue: D, script: &str, say: impl Fn(&T) -> String) -> String {
    let mut script = Script { lines: script.lines(), now_ms: 0, previous: None, output: String::new() };
    let outcome = loop {
        match dialogue.poll(script.now_ms) {
            Step::Done(outcome) => break outcome,
            Step::Wait(until) => script.now_ms = until,
            Step::Send(datagram) => {
                let request = Message::decode(&datagram).unwrap().pdu;
                writeln!(script.output, "{:>6} ms  {}", script.now_ms, said(&request)).unwrap();
                if !script.play(&request, &mut dialogue) {
                    break dialogue.give_up();
                }
                script.previous = Some(request);
            }
        }
    };
    assert_eq!(script.lines.next(), None, "said and never asked, after:\n{}", script.output);
    let outcome = match outcome {
        Ok(answer) => format!("ok:{}", say(&answer)),
        Err(error) => format!("failed: {error}"),
    };
    format!("{}{:>6} ms  {outcome}\n", script.output, script.now_ms)
}

impl Script<'_> {
    /// What happens to this request. Is there more time?
    fn play(&mut self, request: &Pdu, dialogue: &mut impl Dialogue) -> bool {
        loop {
            let mut line = self.lines.next().unwrap_or_else(|| panic!("not said what comes of it:\n{}", self.output));
            if let Some((millis, rest)) = line.strip_prefix("after ").and_then(|rest| rest.split_once(' ')) {
                self.now_ms += millis.parse::<u64>().unwrap();
                line = rest;
            }
            if let Some(wrong) = line.strip_prefix("first ") {
                dialogue.handle(self.now_ms, &self.wrong_reply(wrong, request));
                writeln!(self.output, "           (a reply: {wrong})").unwrap();
                continue;
            }
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let reply = match word {
                "lost" => return true,
                "give" => return false,
                "done" => response(request, request.bindings.iter().map(|(_, value)| value.clone()).collect()),
                "is" => response(request, values(rest)),
                "error" => Pdu { error: Some((refusal(rest), 1)), ..response(request, vec![]) },
                _ => panic!("not understood: {line}"),
            };
            dialogue.handle(self.now_ms, &carried(COMMUNITY, reply));
            return true;
        }
    }

    fn wrong_reply(&self, wrong: &str, request: &Pdu) -> Vec<u8> {
        let well = |request: &Pdu| {
            let value = |value: &Value| if *value == Value::Null { Value::Integer(2) } else { value.clone() };
            response(request, request.bindings.iter().map(|(_, v)| value(v)).collect())
        };
        let mut right = well(request);
        match wrong.split_once(' ').unwrap_or((wrong, "")) {
            ("old", rest) => {
                return carried(COMMUNITY, response(self.previous.as_ref().unwrap(), values(rest)));
            }
            ("id", _) => right.id ^= 1,
            ("community", _) => return carried("public", right),
            ("object", _) => right.bindings[0].0 = Oid::new(RPDU.device, &[9]),
            ("value", _) => right.bindings[0].1 = Value::Integer(1),
            ("kind", _) => right.kind = Kind::Set,
            ("noise", _) => return carried(COMMUNITY, right)[..20].to_vec(),
            _ => panic!("not understood: {wrong}"),
        }
        carried(COMMUNITY, right)
    }
}

/// The datagram.
fn carried(community: &str, pdu: Pdu) -> Vec<u8> {
    Message { community: community.as_bytes().to_vec(), pdu }.encode()
}

fn response(request: &Pdu, values: Vec<Value>) -> Pdu {
    let mut values = values.into_iter();
    let bindings = request.bindings.iter().map(|(oid, _)| (oid.clone(), values.next().unwrap_or(Value::Null)));
    Pdu { kind: Kind::Response, bindings: bindings.collect(), ..request.clone() }
}

fn values(text: &str) -> Vec<Value> {
    let value = |word: &str| match word.strip_prefix('"') {
        Some(text) => Value::Text(text.trim_end_matches('"').replace('_', " ").into_bytes()),
        None if word == "null" => Value::Null,
        None if word.starts_with("gauge:") => Value::Gauge(word["gauge:".len()..].parse().unwrap()),
        None if word.contains('.') => {
            Value::Oid(Oid::new(&word.split('.').map(|arc| arc.parse().unwrap()).collect::<Vec<u32>>(), &[]))
        }
        None => Value::Integer(word.parse().unwrap()),
    };
    text.split_whitespace().map(value).collect()
}

fn refusal(name: &str) -> ErrorStatus {
    use ErrorStatus::{BadValue, GenErr, NoSuchName, ReadOnly, TooBig};
    let all = [TooBig, NoSuchName, BadValue, ReadOnly, GenErr];
    all.into_iter().find(|status| status.to_string() == name).unwrap()
}

/// A request in words.
fn said(request: &Pdu) -> String {
    let object = |oid: &Oid| {
        let named = |branch: &Branch| {
            let but_last = |oid: Oid| oid.arcs().split_last().unwrap().1.to_vec();
            let [model, outlets] = branch.identity().map(but_last);
            let column = |column| but_last(branch.of_outlet(column, 0));
            let columns = [
                (model, "model"),
                (outlets, "outlets"),
                (column(branch.command), "command"),
                (column(branch.name), "name"),
                (column(branch.state), "state"),
                (column(branch.pending), "pending"),
                (but_last(branch.load()), "load"),
            ];
            let (object, name) = columns.into_iter().find(|(object, _)| oid.arcs().starts_with(object))?;
            let rest: String = oid.arcs()[object.len()..].iter().map(|arc| format!(".{arc}")).collect();
            Some(format!("{name}{rest}"))
        };
        named(&RPDU).or_else(|| Some(named(&RPDU2)? + " (rPDU2)")).unwrap_or_else(|| "sysObjectID".to_owned())
    };
    let binding = |(oid, value): &(Oid, Value)| match request.kind {
        Kind::Set => format!("{} = {value}", object(oid)),
        Kind::Get | Kind::Response | Kind::Report => object(oid),
    };
    let bindings: Vec<String> = request.bindings.iter().map(binding).collect();
    format!("{} {}", if request.kind == Kind::Set { "set" } else { "get" }, bindings.join(", "))
}

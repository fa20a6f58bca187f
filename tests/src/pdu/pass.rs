//! The PDU behind net-snmp's agent: the lines that `snmpd` exchanges with a `pass_persist` program (snmpd.conf(5)).
//!
//! So our driver meets an agent whose every byte on the wire is a stranger's, while the outlets do what they are told.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Bound;
use std::time::Instant;

use super::agent::carry_out;
use super::mib::{self, Oid, Refusal, Value};
use super::{Pdu, Way};

/// `snmpd` does not say who asks.
const ANYBODY: Way = Way::Snmp(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));

/// The exchange, as far as it has come.
#[derive(Debug, Default)]
pub struct Pass {
    /// The lines of a request that is not whole yet.
    lines: Vec<String>,
}

impl Pass {
    /// A line has come: the lines to answer with, once the request is whole.
    #[must_use]
    pub fn line(&mut self, pdu: &Pdu, now: Instant, line: &str) -> Option<String> {
        if self.lines.is_empty() && line.trim().is_empty() {
            // snmpd ends what is written with an empty line of its own.
            return None;
        }
        self.lines.push(line.trim().to_owned());
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        let answer = match *lines.as_slice() {
            ["PING"] => "PONG\n".into(),
            ["get" | "getnext" | "set"] | ["set", _] => return None,
            ["get", name] => shown(pdu, now, &Bound::Included(oid(name))),
            ["getnext", name] => shown(pdu, now, &Bound::Excluded(oid(name))),
            ["set", name, value] => written(pdu, now, &oid(name), value),
            _ => "NONE\n".into(),
        };
        self.lines.clear();
        Some(answer)
    }
}

/// What is no number is no part of a name that there is.
fn oid(text: &str) -> Oid {
    text.split('.').filter(|part| !part.is_empty()).map(|part| part.parse().unwrap_or(u32::MAX)).collect()
}

fn shown(pdu: &Pdu, now: Instant, from: &Bound<Oid>) -> String {
    let table = mib::table(pdu, now);
    let found = match from {
        Bound::Included(oid) => table.get_key_value(oid),
        Bound::Excluded(_) | Bound::Unbounded => table.range((from.clone(), Bound::Unbounded)).next(),
    };
    let Some((oid, value)) = found else { return "NONE\n".into() };
    let (kind, value) = match value {
        Value::Number(number) => ("integer", number.to_string()),
        Value::Text(text) => ("string", text.clone()),
        Value::Oid(oid) => ("objectid", dotted(oid)),
        Value::Ticks(ticks) => ("timeticks", ticks.to_string()),
        Value::Gauge(gauge) => ("gauge", gauge.to_string()),
    };
    format!("{}\n{kind}\n{value}\n", dotted(oid))
}

fn dotted(oid: &[u32]) -> String {
    oid.iter().map(|part| format!(".{part}")).collect()
}

fn written(pdu: &Pdu, now: Instant, oid: &[u32], value: &str) -> String {
    let value = match value.split_once(' ') {
        Some(("integer", number)) => number.trim().parse().ok().map(Value::Number),
        Some(("string", text)) => Some(Value::Text(text.trim().trim_matches('"').into())),
        Some(_) | None => None,
    };
    let Some(value) = value else { return "wrong-type\n".into() };
    match mib::write(pdu, oid, &value) {
        Ok(writes) => {
            let done = writes.into_iter().all(|write| carry_out(pdu, now, ANYBODY, write));
            if done { "DONE\n".into() } else { "inconsistent-value\n".into() }
        }
        Err(Refusal::BadValue) => "wrong-value\n".into(),
        Err(Refusal::NoSuchName) => "not-writable\n".into(),
    }
}

//! The agent: from a datagram to its answer, by version 1 (RFC 1157); by version 3 it is [`super::v3`]'s.

use std::ops::Bound;
use std::time::Instant;

use rasn::types::{Integer, ObjectIdentifier, OctetString};
use rasn_smi::v1::{ApplicationSyntax, Gauge, ObjectSyntax, SimpleSyntax, TimeTicks};
use rasn_snmp::v1::{GetResponse, Message, Pdu as Body, Pdus, VarBind};

use super::bank::Outlet;
use super::mib::{self, Oid, Refusal, Value, Write};
use super::{Pdu, Way, What};

const NO_SUCH_NAME: u64 = Body::ERROR_STATUS_NO_SUCH_NAME;
const BAD_VALUE: u64 = Body::ERROR_STATUS_BAD_VALUE;
const GENERAL: u64 = Body::ERROR_STATUS_GEN_ERR;

/// What a community may do.
#[derive(PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// The answer, if this is a request of somebody who may ask. As real agents do: to anything else, silence.
pub(super) fn answer(pdu: &Pdu, now: Instant, from: Way, datagram: &[u8]) -> Option<Vec<u8>> {
    let message: Message<Pdus> = rasn::ber::decode(datagram).ok()?;
    if message.version != Integer::from(0) {
        return None;
    }
    let access = match &*message.community {
        b"public" => Access::Read,
        b"private2" if pdu.is_used() => Access::Read,
        b"private" | b"private2" => Access::Write,
        _ => return None,
    };
    let (request, result) = match message.data {
        Pdus::GetRequest(request) => {
            let result = get(pdu, now, from, &request.0.variable_bindings);
            (request.0, result)
        }
        Pdus::GetNextRequest(request) => {
            let result = get_next(pdu, now, from, &request.0.variable_bindings);
            (request.0, result)
        }
        Pdus::SetRequest(request) => {
            let result = set(pdu, now, from, &access, &request.0.variable_bindings);
            (request.0, result)
        }
        Pdus::GetResponse(_) | Pdus::Trap(_) => return None,
    };
    let body = match result {
        Ok(variable_bindings) => Body { variable_bindings, error_status: 0.into(), error_index: 0.into(), ..request },
        Err((status, index)) => Body { error_status: status.into(), error_index: index.into(), ..request },
    };
    rasn::ber::encode(&Message { data: Pdus::GetResponse(GetResponse(body)), ..message }).ok()
}

/// The bindings of the answer, or the error's status, and the index of the binding (from 1) that it is about.
type Answer = Result<Vec<VarBind>, (u64, u64)>;

fn get(pdu: &Pdu, now: Instant, from: Way, asked: &[VarBind]) -> Answer {
    let table = mib::table(pdu, now);
    let one = |(index, bind): (u64, &VarBind)| {
        let oid: Oid = bind.name.to_vec();
        let value = table.get(&oid).ok_or((NO_SUCH_NAME, index))?;
        Ok(bound(pdu, now, from, oid, value))
    };
    (1..).zip(asked).map(one).collect()
}

fn get_next(pdu: &Pdu, now: Instant, from: Way, asked: &[VarBind]) -> Answer {
    let table = mib::table(pdu, now);
    let one = |(index, bind): (u64, &VarBind)| {
        let oid: Oid = bind.name.to_vec();
        let (next, value) =
            table.range((Bound::Excluded(oid), Bound::Unbounded)).next().ok_or((NO_SUCH_NAME, index))?;
        Ok(bound(pdu, now, from, next.clone(), value))
    };
    (1..).zip(asked).map(one).collect()
}

/// All or nothing: what cannot be written is refused before anything is.
fn set(pdu: &Pdu, now: Instant, from: Way, access: &Access, asked: &[VarBind]) -> Answer {
    let mut writes = Vec::new();
    for (index, bind) in (1..).zip(asked) {
        if *access == Access::Read {
            return Err((NO_SUCH_NAME, index));
        }
        let value = value_of(&bind.value).ok_or((BAD_VALUE, index))?;
        let meant = mib::write(pdu, &bind.name, &value).map_err(|refusal| match refusal {
            Refusal::NoSuchName => (NO_SUCH_NAME, index),
            Refusal::BadValue => (BAD_VALUE, index),
        })?;
        writes.extend(meant.into_iter().map(|write| (index, write)));
    }
    for (index, write) in writes {
        if !carry_out(pdu, now, from, write) {
            return Err((GENERAL, index));
        }
    }
    Ok(asked.to_vec())
}

pub(super) fn carry_out(pdu: &Pdu, now: Instant, from: Way, write: Write) -> bool {
    let change = |outlet: u8, change: &dyn Fn(&mut Outlet)| {
        let index = usize::from(outlet).saturating_sub(1);
        pdu.lock().outlets.get_mut(index).map(change).is_some()
    };
    match write {
        Write::Command(outlet, command) => pdu.command(now, from, outlet, command),
        Write::Name(outlet, name) => change(outlet, &|outlet| outlet.name.clone_from(&name)),
        Write::OnDelay(outlet, seconds) => change(outlet, &|outlet| outlet.on_delay = seconds),
        Write::OffDelay(outlet, seconds) => change(outlet, &|outlet| outlet.off_delay = seconds),
        Write::RebootDuration(outlet, seconds) => change(outlet, &|outlet| outlet.reboot_duration = seconds),
    }
}

/// Whoever learns an outlet's state is noted.
pub(super) fn note(pdu: &Pdu, now: Instant, from: Way, oid: &[u32], value: &Value) {
    if let Some((outlet, on)) = mib::state_of(oid, value) {
        pdu.note(now, from, outlet, What::Read(on));
    }
}

/// One binding of an answer.
fn bound(pdu: &Pdu, now: Instant, from: Way, oid: Oid, value: &Value) -> VarBind {
    note(pdu, now, from, &oid, value);
    let value = match value {
        Value::Number(number) => ObjectSyntax::Simple(SimpleSyntax::Number((*number).into())),
        Value::Text(text) => ObjectSyntax::Simple(SimpleSyntax::String(OctetString::from(text.clone().into_bytes()))),
        Value::Oid(oid) => ObjectSyntax::Simple(SimpleSyntax::Object(name(oid.clone()))),
        Value::Ticks(ticks) => ObjectSyntax::ApplicationWide(ApplicationSyntax::Ticks(TimeTicks(*ticks))),
        Value::Gauge(gauge) => ObjectSyntax::ApplicationWide(ApplicationSyntax::Gauge(Gauge(*gauge))),
    };
    VarBind { name: name(oid), value }
}

fn name(oid: Oid) -> ObjectIdentifier {
    ObjectIdentifier::new_unchecked(oid.into())
}

/// What is written, if it is of a type that anything here is written with.
fn value_of(value: &ObjectSyntax) -> Option<Value> {
    match value {
        ObjectSyntax::Simple(SimpleSyntax::Number(number)) => i32::try_from(number).ok().map(Value::Number),
        ObjectSyntax::Simple(SimpleSyntax::String(text)) => String::from_utf8(text.to_vec()).ok().map(Value::Text),
        ObjectSyntax::Simple(SimpleSyntax::Object(_) | SimpleSyntax::Empty) | ObjectSyntax::ApplicationWide(_) => None,
    }
}

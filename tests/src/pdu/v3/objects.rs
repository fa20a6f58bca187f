//! What is asked by version 3, answered from the same table as by version 1 (RFC 3416, section 4.2).

use std::ops::Bound;
use std::time::Instant;

use rasn::types::{ObjectIdentifier, OctetString};
use rasn_smi::v1::{Gauge, TimeTicks};
use rasn_smi::v2::{ApplicationSyntax, ObjectSyntax, SimpleSyntax};
use rasn_snmp::v2::{BulkPdu, Pdu as Body, Response, VarBind, VarBindValue};
use rasn_snmp::v3::Pdus;

use crate::pdu::agent::{carry_out, note};
use crate::pdu::mib::{self, Oid, Refusal, Value};
use crate::pdu::{Pdu, Way};

/// The most bindings of an answer: a datagram has an end.
const BINDINGS: usize = 20;

/// The answer; `None` to what is no request.
pub(super) fn answer(pdu: &Pdu, now: Instant, from: Way, asked: Pdus) -> Option<Pdus> {
    let looking = Looking { pdu, now, from };
    let body = match asked {
        Pdus::GetRequest(request) => looking.each(request.0, |looking, oid| looking.get(oid)),
        Pdus::GetNextRequest(request) => looking.each(request.0, |looking, oid| looking.next(oid)),
        Pdus::GetBulkRequest(request) => looking.bulk(&request.0),
        Pdus::SetRequest(request) => looking.set(request.0),
        Pdus::Response(_) | Pdus::InformRequest(_) | Pdus::Trap(_) | Pdus::Report(_) => return None,
    };
    Some(Pdus::Response(Response(body)))
}

/// Who looks at what, and when.
#[derive(Clone, Copy)]
struct Looking<'a> {
    pdu: &'a Pdu,
    now: Instant,
    from: Way,
}

impl Looking<'_> {
    fn each(self, request: Body, look: impl Fn(Self, Oid) -> VarBind) -> Body {
        let variable_bindings = request.variable_bindings.iter().map(|bind| look(self, bind.name.to_vec())).collect();
        Body { variable_bindings, ..request }
    }

    fn get(self, oid: Oid) -> VarBind {
        match mib::table(self.pdu, self.now).get(&oid) {
            Some(value) => self.bound(oid, value),
            None => VarBind { name: name(oid), value: VarBindValue::NoSuchInstance },
        }
    }

    fn next(self, oid: Oid) -> VarBind {
        let table = mib::table(self.pdu, self.now);
        match table.range((Bound::Excluded(oid.clone()), Bound::Unbounded)).next() {
            Some((next, value)) => self.bound(next.clone(), value),
            None => VarBind { name: name(oid), value: VarBindValue::EndOfMibView },
        }
    }

    fn bulk(self, request: &BulkPdu) -> Body {
        let once = usize::try_from(request.non_repeaters).unwrap_or(usize::MAX);
        let asked = request.variable_bindings.iter().map(|bind| bind.name.to_vec());
        let mut variable_bindings: Vec<VarBind> = asked.clone().take(once).map(|oid| self.next(oid)).collect();
        let mut row: Vec<Oid> = asked.skip(once).collect();
        for _ in 0..request.max_repetitions {
            if row.is_empty() || variable_bindings.len() + row.len() > BINDINGS {
                break;
            }
            let binds: Vec<VarBind> = row.into_iter().map(|oid| self.next(oid)).collect();
            row = binds.iter().map(|bind| bind.name.to_vec()).collect();
            variable_bindings.extend(binds);
        }
        Body { request_id: request.request_id, error_status: 0, error_index: 0, variable_bindings }
    }

    /// All or nothing: what cannot be written is refused before anything is.
    fn set(self, request: Body) -> Body {
        let refused = |status, index| Body { error_status: status, error_index: index, ..request.clone() };
        let mut writes = Vec::new();
        for (index, bind) in (1..).zip(&request.variable_bindings) {
            let Some(value) = value_of(&bind.value) else {
                return refused(Body::ERROR_STATUS_WRONG_TYPE, index);
            };
            match mib::write(self.pdu, &bind.name, &value) {
                Ok(meant) => writes.extend(meant.into_iter().map(|write| (index, write))),
                Err(Refusal::NoSuchName) => return refused(Body::ERROR_STATUS_NOT_WRITABLE, index),
                Err(Refusal::BadValue) => return refused(Body::ERROR_STATUS_WRONG_VALUE, index),
            }
        }
        for (index, write) in writes {
            if !carry_out(self.pdu, self.now, self.from, write) {
                return refused(Body::ERROR_STATUS_GEN_ERR, index);
            }
        }
        request
    }

    fn bound(self, oid: Oid, value: &Value) -> VarBind {
        note(self.pdu, self.now, self.from, &oid, value);
        let value = match value {
            Value::Number(number) => ObjectSyntax::Simple(SimpleSyntax::Integer((*number).into())),
            Value::Text(text) => {
                ObjectSyntax::Simple(SimpleSyntax::String(OctetString::from(text.clone().into_bytes())))
            }
            Value::Oid(oid) => ObjectSyntax::Simple(SimpleSyntax::ObjectId(name(oid.clone()))),
            Value::Ticks(ticks) => ObjectSyntax::ApplicationWide(ApplicationSyntax::Ticks(TimeTicks(*ticks))),
            Value::Gauge(gauge) => ObjectSyntax::ApplicationWide(ApplicationSyntax::Unsigned(Gauge(*gauge))),
        };
        VarBind { name: name(oid), value: VarBindValue::Value(value) }
    }
}

fn name(oid: Oid) -> ObjectIdentifier {
    ObjectIdentifier::new_unchecked(oid.into())
}

/// What is written, if it is of a type that anything here is written with.
fn value_of(value: &VarBindValue) -> Option<Value> {
    let VarBindValue::Value(ObjectSyntax::Simple(value)) = value else { return None };
    match value {
        SimpleSyntax::Integer(number) => i32::try_from(number).ok().map(Value::Number),
        SimpleSyntax::String(text) => String::from_utf8(text.to_vec()).ok().map(Value::Text),
        SimpleSyntax::ObjectId(_) => None,
    }
}

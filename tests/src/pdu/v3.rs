//! The agent's version 3: from a datagram to its answer, by the steps of RFC 3414, section 3.2. Messages are read and written
//! by `rasn`; this shares no line with our driver.
//!
//! Users, each with the passwords `apc auth passphrase` and `apc crypt passphrase`, and each may write:
//!
//! ```text
//! apc snmp profile1   HMAC-SHA-96, CFB128-AES-128    as the second card offers
//! apc snmp profile2   HMAC-MD5-96, CBC-DES           all that the first card offers in truth; the emulated one has both
//! apc snmp profile3   HMAC-SHA-96                    nothing encrypted
//! ```
//!
//! A user is served at his own level alone: what is asked below it is no matter of the user's view here, but refused as an
//! unsupported level.

mod keys;
mod objects;

use std::time::Instant;

use rasn::types::{ObjectIdentifier, OctetString};
use rasn_smi::v1::Counter;
use rasn_smi::v2::{ApplicationSyntax, ObjectSyntax};
use rasn_snmp::v2::{Pdu as Body, Report, VarBind, VarBindValue};
use rasn_snmp::v3::{HeaderData, Message, Pdus, ScopedPdu, ScopedPduData, USMSecurityParameters};

use super::{Pdu, Way};
use keys::{Keys, TAG_BYTES};

/// RFC 3411: an enterprise's number (APC's), what follows (3: a MAC address), and that.
const ENGINE: [u8; 11] = [0x80, 0, 0x01, 0x3e, 3, 0x00, 0xc0, 0xb7, 0x77, 0x02, 0x50];
/// By how many seconds a message may be late or early.
const WINDOW: u64 = 150;
/// Where a tag will be, in a message that has none yet.
const NO_TAG: [u8; TAG_BYTES] = *b"tag of a msg";

const AUTHENTICATED: u8 = 1;
const ENCRYPTED: u8 = 2;
const REPORTABLE: u8 = 4;

/// usmStats: why a message was not taken.
#[derive(Debug, Clone, Copy)]
enum Unfit {
    Level,
    Clock,
    User,
    Engine,
    Tag,
}

/// A message that asks something.
struct Asked {
    message: Message,
    parameters: USMSecurityParameters,
}

/// The answer, if there is one. To what is no message of version 3, and to what cannot be decrypted: silence.
pub(super) fn answer(pdu: &Pdu, now: Instant, from: Way, datagram: &[u8]) -> Option<Vec<u8>> {
    let message: Message = rasn::ber::decode(datagram).ok()?;
    let parameters: USMSecurityParameters = message.decode_security_parameters(rasn::Codec::Ber).ok()?;
    let [flags] = *message.global_data.flags.as_ref() else { return None };
    if message.version != 3.into() {
        return None;
    }
    let clock = clock(pdu, now);
    let asked = Asked { message, parameters };
    let report = |unfit: Unfit| (flags & REPORTABLE != 0).then(|| asked.report(unfit, clock)).flatten();
    if *asked.parameters.authoritative_engine_id != ENGINE {
        return report(Unfit::Engine);
    }
    let Some(keys) = keys::of(&asked.parameters.user_name, &ENGINE) else { return report(Unfit::User) };
    let level = AUTHENTICATED | if keys.encrypts() { ENCRYPTED } else { 0 };
    if flags & (AUTHENTICATED | ENCRYPTED) != level {
        return report(Unfit::Level);
    }
    if !is_signed(keys, &asked.parameters.authentication_parameters, datagram) {
        return report(Unfit::Tag);
    }
    if !asked.is_timely(clock) {
        let body = unfit(Unfit::Clock);
        return (flags & REPORTABLE != 0).then(|| asked.reply(keys, AUTHENTICATED, clock, body)).flatten();
    }
    let scoped = asked.opened(keys)?;
    let body = objects::answer(pdu, now, from, scoped.data)?;
    asked.reply(keys, level, clock, body)
}

/// How often the card has come up, and how many seconds ago it last did.
fn clock(pdu: &Pdu, now: Instant) -> (u64, u64) {
    let state = pdu.lock();
    (state.boots + 1, now.saturating_duration_since(state.up).as_secs() + state.faults.clock_ahead.as_secs())
}

/// Is the message's tag that of this user's key, with zeros in its place?
fn is_signed(keys: &Keys, tag: &[u8], datagram: &[u8]) -> bool {
    let Some(at) = datagram.windows(TAG_BYTES).position(|part| part == tag) else { return false };
    let mut blank = datagram.to_vec();
    blank.iter_mut().skip(at).take(TAG_BYTES).for_each(|byte| *byte = 0);
    keys.tag(&blank) == tag
}

/// What a report says.
fn unfit(unfit: Unfit) -> Pdus {
    let number = match unfit {
        Unfit::Level => 1,
        Unfit::Clock => 2,
        Unfit::User => 3,
        Unfit::Engine => 4,
        Unfit::Tag => 5,
    };
    let name = ObjectIdentifier::new_unchecked(vec![1, 3, 6, 1, 6, 3, 15, 1, 1, number, 0].into());
    let value = VarBindValue::Value(ObjectSyntax::ApplicationWide(ApplicationSyntax::Counter(Counter(1))));
    let body =
        Body { request_id: 0, error_status: 0, error_index: 0, variable_bindings: vec![VarBind { name, value }] };
    Pdus::Report(Report(body))
}

impl Asked {
    /// Is it of now, by the card's clock?
    fn is_timely(&self, (boots, time): (u64, u64)) -> bool {
        let said = u64::try_from(&self.parameters.authoritative_engine_time).unwrap_or(u64::MAX);
        self.parameters.authoritative_engine_boots == boots.into() && said.abs_diff(time) <= WINDOW
    }

    /// What it asks, in clear.
    fn opened(&self, keys: &Keys) -> Option<ScopedPdu> {
        match &self.message.scoped_data {
            ScopedPduData::CleartextPdu(scoped) => (!keys.encrypts()).then(|| scoped.clone()),
            ScopedPduData::EncryptedPdu(sealed) => {
                let boots = u32::try_from(&self.parameters.authoritative_engine_boots).ok()?;
                let time = u32::try_from(&self.parameters.authoritative_engine_time).ok()?;
                let plain = keys.decrypt(boots, time, &self.parameters.privacy_parameters, sealed)?;
                // A block cipher fills its last block.
                rasn::ber::decode_with_remainder(&plain).ok().map(|(scoped, _)| scoped)
            }
        }
    }

    /// A report that nobody vouches for: there is no key that both have.
    fn report(&self, why: Unfit, clock: (u64, u64)) -> Option<Vec<u8>> {
        let message = self.message(
            0,
            clock,
            ScopedPduData::CleartextPdu(scoped(unfit(why))),
            OctetString::from_static(b""),
            OctetString::from_static(b""),
        )?;
        rasn::ber::encode(&message).ok()
    }

    fn reply(&self, keys: &Keys, level: u8, clock: (u64, u64), body: Pdus) -> Option<Vec<u8>> {
        let plain = rasn::ber::encode(&scoped(body)).ok()?;
        let (data, salt) = if level & ENCRYPTED == 0 {
            (rasn::ber::decode(&plain).ok().map(ScopedPduData::CleartextPdu)?, OctetString::from_static(b""))
        } else {
            let (sealed, salt) = keys.encrypt(u32::try_from(clock.0).ok()?, u32::try_from(clock.1).ok()?, &plain)?;
            (ScopedPduData::EncryptedPdu(sealed.into()), salt.to_vec().into())
        };
        let message = self.message(level, clock, data, NO_TAG.to_vec().into(), salt)?;
        let mut datagram = rasn::ber::encode(&message).ok()?;
        let at = datagram.windows(TAG_BYTES).position(|part| part == NO_TAG)?;
        let mut put = |tag: &[u8]| datagram.iter_mut().skip(at).zip(tag).for_each(|(to, from)| *to = *from);
        put(&[0; TAG_BYTES]);
        let tag = keys.tag(&datagram);
        datagram.iter_mut().skip(at).zip(tag).for_each(|(to, from)| *to = from);
        Some(datagram)
    }

    fn message(
        &self,
        level: u8,
        (boots, time): (u64, u64),
        scoped_data: ScopedPduData,
        tag: OctetString,
        salt: OctetString,
    ) -> Option<Message> {
        let header = &self.message.global_data;
        let global_data = HeaderData { flags: vec![level].into(), max_size: 484.into(), ..header.clone() };
        let parameters = USMSecurityParameters {
            authoritative_engine_id: ENGINE.to_vec().into(),
            authoritative_engine_boots: boots.into(),
            authoritative_engine_time: time.into(),
            user_name: self.parameters.user_name.clone(),
            authentication_parameters: tag,
            privacy_parameters: salt,
        };
        let security_parameters = rasn::ber::encode(&parameters).ok()?.into();
        Some(Message { version: 3.into(), global_data, security_parameters, scoped_data })
    }
}

fn scoped(data: Pdus) -> ScopedPdu {
    ScopedPdu { engine_id: ENGINE.to_vec().into(), name: OctetString::from_static(b""), data }
}

//! What carries a request: version 1, which only says the community, or version 3.

use core::fmt;

use zeroize::Zeroizing;

use super::usm::{self, Expected, Refusal, User};
use super::{Ids, Message, Pdu};

/// As whom a device is spoken with. Never shown.
#[derive(Clone)]
pub enum Access {
    /// By version 1, with a community; everybody on the way can read it.
    V1(Zeroizing<String>),
    /// By version 3, authenticated and encrypted; and which device is expected to answer.
    V3(User, Expected),
}

impl Access {
    /// By version 1.
    #[must_use]
    pub fn community(community: &str) -> Self {
        Self::V1(Zeroizing::new(community.to_owned()))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1(_) => "V1",
            Self::V3(..) => "V3",
        })
    }
}

/// What a datagram was.
pub(super) enum Heard {
    /// Nothing that counts.
    Nothing,
    /// What had to be known before the request could be sent.
    Learned,
    /// The agent wants the request again, dated by what it has now said.
    Corrected,
    /// A reply, from whom it should come; to which request is not looked at here.
    Reply(Pdu),
}

/// What carries the requests of one dialogue.
pub struct Session(Inner);

enum Inner {
    V1(Zeroizing<String>),
    V3(Box<usm::Talk>),
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    /// For one dialogue with one device.
    #[must_use]
    pub fn new(access: &Access) -> Self {
        Self(match access {
            Access::V1(community) => Inner::V1(community.clone()),
            Access::V3(user, expected) => Inner::V3(Box::new(usm::Talk::new(user.clone(), expected.clone()))),
        })
    }

    /// What version 3 knows of why nothing comes.
    #[must_use]
    pub fn why(&self) -> Option<Refusal> {
        match &self.0 {
            Inner::V1(_) => None,
            Inner::V3(talk) => talk.why(),
        }
    }

    /// The datagram to send for this request.
    pub(super) fn send(&mut self, now_ms: u64, pdu: &Pdu, ids: &mut Ids) -> Vec<u8> {
        match &mut self.0 {
            Inner::V1(community) => Message { community: community.as_bytes().to_vec(), pdu: pdu.clone() }.encode(),
            Inner::V3(talk) => talk.send(now_ms, pdu, ids),
        }
    }

    /// What was sent last was not answered in time.
    pub(super) fn lost(&mut self) {
        match &mut self.0 {
            Inner::V1(_) => {}
            Inner::V3(talk) => talk.lost(),
        }
    }

    /// A datagram has come.
    pub(super) fn hear(&mut self, now_ms: u64, datagram: &[u8]) -> Heard {
        match &mut self.0 {
            Inner::V1(community) => match Message::decode(datagram) {
                Ok(message) if message.community == community.as_bytes() => Heard::Reply(message.pdu),
                Ok(_) | Err(_) => Heard::Nothing,
            },
            Inner::V3(talk) => talk.hear(now_ms, datagram),
        }
    }
}

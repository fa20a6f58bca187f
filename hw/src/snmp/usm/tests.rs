//! The vectors of the RFCs, frames from the wire between net-snmp's tools and agent, and which datagrams count.

use md5::Md5;
use sha1::Sha1;

use super::*;
use crate::snmp::Value;
use crate::snmp::{Exchange, Failure, Malformed, Progress, Session};

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

const AUTHENTICATION: &str = "apc auth passphrase";
const PRIVACY: &str = "apc crypt passphrase";
const ENGINE: &str = "80001f8880820b377feebd016b00000000";
/// net-snmp 5.9.3: who is there; snmpd's Report; a GET of one outlet's state and its reply, by SHA-1 and AES; by MD5 and DES.
const FRAMES: [&str; 6] = [
    "303e0201033011020413865a3a020300ffe30401040201030410300e0400020100020100040004000400301404000400a00e020422ff124a0\
     201000201003000",
    "30710201033011020413865a3a020300ffe30401000201030421301f041180001f8880820b377feebd016b0000000002010102010404000400\
     04003036041180001f8880820b377feebd016b000000000400a81f020422ff124a0201000201003011300f060a2b060106030f010104004101\
     01",
    "30818f0201033011020413865a39020300ffe304010702010304383036041180001f8880820b377feebd016b000000000201010201040403736\
     861040c7d98baee9761cfd1361d255e0408d9ac9bb06b028f32043d14c2e811f69264979636b44926f36d28091b75463944d9b86cd9f4ea55f6\
     e8746c8099207fe069aeb49e0e37c8767e31a9e2c916829eb8e7d508455fe1",
    "3081900201033011020413865a39020300ffe304010302010304383036041180001f8880820b377feebd016b000000000201010201040403736\
     861040c418f63e31ee63c4b78a09b8b04087aa93be39780a852043e9523a74446e1708d0f836c99fc08aea069bc2985ed954e36961727099d46\
     a639a3aed1a2bcc38236f1e525a6da35900c186ea2f5c8b0fc01f38cb40766d3",
    "3081920201033011020452636927020300ffe304010702010304383036041180001f8880820b377feebd016b0000000002010102010404036d6\
     435040c8bf9d92d083bbaf78bd170810408000000019edfa4ab044067846b256b7954452dd923971bbc7980ce634ab3b94807c95098158bce3d\
     bfb8d1d3c81222e70f6070fd5f5d8aa1a116e9e7a83dcb18f229b083d053d46db57e",
    "3081920201033011020452636927020300ffe304010302010304383036041180001f8880820b377feebd016b0000000002010102010404036d6\
     435040cd73e01cedfa7c566f7af5840040800000001bb13e19f0440aba6ebab3f19666b24b8df862d2c8fea96c394e45d16c33c0a20814cfab5\
     8093eae91c1973c626202abd3b964bb745b171b7065c628771f62e3b4b1b345aad36",
];

fn frames() -> [Vec<u8>; 6] {
    FRAMES.map(bytes)
}

fn engine() -> EngineId {
    EngineId::new(&bytes(ENGINE)).unwrap()
}

fn user(name: &str, protocols: Protocols) -> User {
    User::new(name, AUTHENTICATION, PRIVACY, protocols).unwrap()
}

#[test]
fn keys_are_those_of_rfc_3414() {
    let engine = bytes("000000000000000000000002");
    let md5 = keys::stretched::<Md5>(b"maplesyrup");
    assert_eq!(md5.to_vec(), bytes("9faf3283884e92834ebc9847d8edd963"));
    assert_eq!(keys::localised::<Md5>(&md5, &engine).to_vec(), bytes("526f5eed9fcce26f8964c2930787d82b"));
    let sha = keys::stretched::<Sha1>(b"maplesyrup");
    assert_eq!(sha.to_vec(), bytes("9fb5cc0381497b3793528939ff788d5d79145211"));
    assert_eq!(keys::localised::<Sha1>(&sha, &engine).to_vec(), bytes("6695febc9288e36282235fc7151f128497b38f3f"));
}

#[test]
fn the_frames_of_net_snmp_are_read_and_written_to_the_byte() {
    for frame in frames() {
        let (message, at) = Message::decode(&frame).unwrap();
        assert_eq!(frame[at.clone()], message.tag);
        assert_eq!(message.encode(), (frame, at));
    }
}

#[test]
fn the_frames_of_net_snmp_are_opened_with_the_users_keys() {
    let state = Oid::new(&[1, 3, 6, 1, 4, 1, 318, 1, 1, 12], &[3, 5, 1, 1, 4, 1]);
    let users = [
        ("sha", Protocols::ShaAes),
        ("sha", Protocols::ShaAes),
        ("md5", Protocols::Md5Des),
        ("md5", Protocols::Md5Des),
    ];
    for (frame, (name, protocols)) in frames().into_iter().skip(2).zip(users) {
        let keys = user(name, protocols).master.at(&bytes(ENGINE));
        let (message, at) = Message::decode(&frame).unwrap();
        assert_eq!(message.user, name.as_bytes());
        let mut blank = frame.clone();
        blank[at].fill(0);
        let tag: [u8; TAG_BYTES] = message.tag.clone().try_into().unwrap();
        assert!(keys.is_tag(&blank, &tag) && keys.tag(&blank) == Some(tag));
        let plain = keys.decrypt(message.boots, message.time, &message.salt, &message.data).unwrap();
        let scoped = Scoped::decode(&plain).unwrap();
        assert_eq!(scoped.engine, bytes(ENGINE));
        let value = if scoped.pdu.kind == Kind::Get { Value::Null } else { Value::Integer(1) };
        assert_eq!(scoped.pdu.bindings, [(state.clone(), value)]);
    }
}

/// Every cut of a frame is malformed; every change of one octet is read or refused without a panic, and none has the tag.
#[test]
fn reading_is_total_and_no_change_goes_unseen() {
    for (frame, protocols) in [(&frames()[3], Protocols::ShaAes), (&frames()[5], Protocols::Md5Des)] {
        let name = if protocols == Protocols::ShaAes { "sha" } else { "md5" };
        for length in 0..frame.len() {
            assert_eq!(Message::decode(&frame[..length]).err(), Some(Malformed), "cut to {length}");
        }
        let id = Message::decode(frame).unwrap().0.id;
        let mut talk = Talk::new(user(name, protocols), Expected::first());
        let keys = talk.user.master.at(&bytes(ENGINE));
        talk.engine = Some(Engine { id: engine(), keys, clock: None });
        talk.sent = Some(id);
        for place in 0..frame.len() {
            for octet in 0..=255 {
                let mut changed = frame.clone();
                changed[place] = octet;
                let heard = talk.hear(0, &changed);
                assert_eq!(matches!(heard, Heard::Reply(_)), changed == *frame, "octet {place} is {octet}");
            }
        }
    }
    for frame in frames() {
        for length in 0..frame.len() {
            assert!(Message::decode(&frame[..length]).is_err());
        }
        let plain = Message::decode(&frame).unwrap().0.data;
        for length in 0..plain.len() {
            let _ = Scoped::decode(&plain[..length]);
        }
    }
}

#[test]
fn what_is_encrypted_is_decrypted_at_every_length() {
    for protocols in [Protocols::ShaAes, Protocols::Md5Des] {
        let keys = user("us", protocols).master.at(b"engine");
        for length in 0..50_u8 {
            let plain: Vec<u8> = (0..length).collect();
            let (sealed, salt) = keys.encrypt(7, 8, u64::from(length), &plain).unwrap();
            let opened = keys.decrypt(7, 8, &salt, &sealed).unwrap();
            assert_eq!(opened[..plain.len()], plain);
            assert!(length < 8 || sealed[..plain.len()] != plain);
            assert_eq!(keys.decrypt(7, 8, &salt[1..], &sealed), None, "a salt is eight octets");
        }
    }
    assert_eq!(
        user("us", Protocols::Md5Des).master.at(b"engine").decrypt(7, 8, &[0; 8], &[0; 9]),
        None,
        "no whole block"
    );
}

#[test]
fn who_cannot_be_a_user_is_none() {
    let new = |name: &str, authentication, privacy| User::new(name, authentication, privacy, Protocols::ShaAes).err();
    assert_eq!(new("us", "12345678", "12345678"), None);
    assert_eq!(new("us", "1234567", "12345678"), Some(Unfit::Password));
    assert_eq!(new("us", "12345678", "1234567"), Some(Unfit::Password));
    assert_eq!(
        (new("", PRIVACY, PRIVACY), new(&"u".repeat(33), PRIVACY, PRIVACY)),
        (Some(Unfit::Name), Some(Unfit::Name))
    );
    assert_eq!(format!("{:?}", user("us", Protocols::ShaAes)), "User", "nothing shows who it is");
}

/// An agent with our own means, whose every answer a test can spoil.
struct Agent {
    keys: Keys,
    boots: i32,
    time: i32,
}

impl Agent {
    fn new() -> Self {
        Self { keys: user("us", Protocols::ShaAes).master.at(&bytes(ENGINE)), boots: 3, time: 1000 }
    }

    /// What this datagram asks: nothing, if it cannot be decrypted.
    fn asked(&self, datagram: &[u8]) -> (Message, Option<Pdu>) {
        let (message, _) = Message::decode(datagram).unwrap();
        let plain = self.keys.decrypt(message.boots, message.time, &message.salt, &message.data);
        let pdu = plain.and_then(|plain| Scoped::decode(&plain).ok()).map(|scoped| scoped.pdu);
        (message, pdu)
    }

    fn report(number: u32) -> Pdu {
        let bindings = vec![(Oid::new(USM_STATS, &[number, 0]), Value::Integer(1))];
        Pdu { kind: Kind::Report, id: 0, error: None, bindings }
    }

    /// An answer of that level, spoiled before it gets its tag.
    fn answer(&self, to: &Message, level: Level, pdu: &Pdu, spoil: impl FnOnce(&mut Message)) -> Vec<u8> {
        let plain = Scoped { engine: bytes(ENGINE), context: Vec::new(), pdu: pdu.clone() }.encode();
        let (data, salt) = match level {
            Level::AuthPriv => self.keys.encrypt(self.boots, self.time, 9, &plain).unwrap(),
            Level::AuthNoPriv | Level::NoAuthNoPriv => (plain, Vec::new()),
        };
        let tag = if level == Level::NoAuthNoPriv { Vec::new() } else { vec![0; TAG_BYTES] };
        let (engine, (boots, time)) = (bytes(ENGINE), (self.boots, self.time));
        let mut message = Message { level, reportable: false, engine, boots, time, tag, salt, data, ..to.clone() };
        spoil(&mut message);
        let (mut datagram, at) = message.encode();
        if level != Level::NoAuthNoPriv {
            let tag = self.keys.tag(&datagram).unwrap();
            datagram[at].copy_from_slice(&tag);
        }
        datagram
    }
}

/// A request under way, with an agent that it has come to know.
struct Scene {
    agent: Agent,
    exchange: Exchange,
    session: Session,
    ids: Ids,
    now_ms: u64,
}

impl Scene {
    fn new() -> Self {
        Self::expecting(&Expected::first())
    }

    fn expecting(expected: &Expected) -> Self {
        let access = crate::snmp::Access::V3(user("us", Protocols::ShaAes), expected.clone());
        let exchange = Exchange::get([Oid::new(&[1, 3], &[6])]);
        Self { agent: Agent::new(), exchange, session: Session::new(&access), ids: Ids::new(1), now_ms: 0 }
    }

    fn poll(&mut self) -> Progress {
        self.exchange.poll(self.now_ms, &mut self.session, &mut self.ids)
    }

    fn sent(&mut self) -> (Message, Option<Pdu>) {
        let Progress::Send(datagram) = self.poll() else { panic!("nothing is sent") };
        self.agent.asked(&datagram)
    }

    fn hear(&mut self, datagram: &[u8]) -> bool {
        self.exchange.handle(self.now_ms, &mut self.session, datagram)
    }

    /// As far as the request that the agent takes.
    fn synchronised() -> (Self, Message, Pdu) {
        Self::new().synchronise()
    }

    fn synchronise(self) -> (Self, Message, Pdu) {
        let mut scene = self;
        let (who, _) = scene.sent();
        let engine = scene.agent.answer(&who, Level::NoAuthNoPriv, &Agent::report(4), |_| {});
        assert!(!scene.hear(&engine));
        let (first, _) = scene.sent();
        assert_eq!((first.level, first.boots, first.time), (Level::AuthPriv, 0, 0), "nobody else dates what we send");
        let clock = scene.agent.answer(&first, Level::AuthNoPriv, &Agent::report(2), |_| {});
        assert!(!scene.hear(&clock));
        let (message, pdu) = scene.sent();
        assert_eq!((message.boots, message.time), (scene.agent.boots, scene.agent.time));
        (scene, message, pdu.unwrap())
    }

    fn reply(pdu: &Pdu) -> Pdu {
        let bindings = pdu.bindings.iter().map(|(oid, _)| (oid.clone(), Value::Integer(2))).collect();
        Pdu { kind: Kind::Response, bindings, ..pdu.clone() }
    }
}

#[test]
fn the_reply_counts_and_nothing_that_only_looks_like_it() {
    type Spoil = fn(&mut Message);
    let (mut scene, message, pdu) = Scene::synchronised();
    let reply = Scene::reply(&pdu);
    let spoiled: [(&str, Level, Spoil); 9] = [
        ("in clear", Level::NoAuthNoPriv, |_| {}),
        ("not encrypted", Level::AuthNoPriv, |_| {}),
        ("to another message", Level::AuthPriv, |message| message.id ^= 1),
        ("of another engine", Level::AuthPriv, |message| message.engine[5] ^= 1),
        ("for another user", Level::AuthPriv, |message| message.user = b"them".to_vec()),
        ("from before a reboot", Level::AuthPriv, |message| message.boots -= 1),
        ("too old", Level::AuthPriv, |message| message.time -= 151),
        ("of the last of all times", Level::AuthPriv, |message| message.boots = i32::MAX),
        ("with half a salt", Level::AuthPriv, |message| message.salt.truncate(4)),
    ];
    for (name, level, spoil) in spoiled {
        let (mut scene, message, pdu) = Scene::synchronised();
        let datagram = scene.agent.answer(&message, level, &Scene::reply(&pdu), spoil);
        assert!(!scene.hear(&datagram), "a reply {name}");
        assert!(matches!(scene.poll(), Progress::Wait(_)), "a reply {name}");
    }
    let mut wrong_tag = scene.agent.answer(&message, Level::AuthPriv, &reply, |_| {});
    let (_, at) = Message::decode(&wrong_tag).unwrap();
    wrong_tag[at.start] ^= 1;
    assert!(!scene.hear(&wrong_tag));
    let other = Pdu { id: reply.id ^ 1, ..reply.clone() };
    let other = scene.agent.answer(&message, Level::AuthPriv, &other, |_| {});
    assert!(!scene.hear(&other), "to another request");
    let good = scene.agent.answer(&message, Level::AuthPriv, &reply, |_| {});
    assert!(scene.hear(&good));
    assert_eq!(scene.poll(), Progress::Answered(vec![Value::Integer(2)]));
    assert!(!scene.hear(&good), "once");
}

#[test]
fn no_report_that_is_not_authenticated_changes_anything() {
    let (mut scene, message, pdu) = Scene::synchronised();
    for number in 1..=7 {
        let forged = scene.agent.answer(&message, Level::NoAuthNoPriv, &Agent::report(number), |message| {
            (message.engine, message.boots, message.time) = (vec![6; 12], 9, 9);
        });
        assert!(!scene.hear(&forged));
        assert!(matches!(scene.poll(), Progress::Wait(_)), "report {number}");
    }
    let good = scene.agent.answer(&message, Level::AuthPriv, &Scene::reply(&pdu), |_| {});
    assert!(scene.hear(&good));
    assert_eq!(scene.session.why(), None, "who has replied has no reason not to");
}

#[test]
fn an_engine_that_nobody_vouches_for_is_forgotten_with_its_try() {
    let mut scene = Scene::new();
    let (who, _) = scene.sent();
    let forged = scene.agent.answer(&who, Level::NoAuthNoPriv, &Agent::report(4), |message| message.engine[6] ^= 1);
    scene.hear(&forged);
    let (first, _) = scene.sent();
    assert_eq!(first.level, Level::AuthPriv);
    scene.now_ms = 1000;
    let (again, _) = scene.sent();
    assert_eq!((again.level, again.engine), (Level::NoAuthNoPriv, Vec::new()), "it asks anew who is there");
}

/// The number of an engine next door.
fn other() -> EngineId {
    let mut octets = bytes(ENGINE);
    octets[6] ^= 1;
    EngineId::new(&octets).unwrap()
}

#[test]
fn the_first_engine_that_authenticates_itself_is_the_only_one_from_then_on() {
    let expected = Expected::first();
    let mut forged = Scene::expecting(&expected);
    let (who, _) = forged.sent();
    let report = forged.agent.answer(&who, Level::NoAuthNoPriv, &Agent::report(4), |message| message.engine[6] ^= 1);
    forged.hear(&report);
    forged.sent();
    assert_eq!(expected.known(), None, "nobody vouches for that one");

    let (mut scene, message, pdu) = Scene::expecting(&expected).synchronise();
    assert_eq!(expected.known(), Some(engine()), "its clock came with a tag");
    let good = scene.agent.answer(&message, Level::AuthPriv, &Scene::reply(&pdu), |_| {});
    assert!(scene.hear(&good));

    // A later dialogue, and another device that has the same user, at the same address.
    let refusal = Refusal::Engine { expected: engine(), found: other() };
    let mut later = Scene::expecting(&expected);
    for _ in 0..crate::snmp::TRIES {
        let (who, _) = later.sent();
        assert_eq!((who.level, who.engine.as_slice()), (Level::NoAuthNoPriv, &[][..]), "it is asked nothing else");
        let report = later.agent.answer(&who, Level::NoAuthNoPriv, &Agent::report(4), |message| message.engine[6] ^= 1);
        assert!(!later.hear(&report));
        assert!(matches!(later.poll(), Progress::Wait(_)), "somebody else may still answer");
        later.now_ms += crate::snmp::TIMEOUT_MS;
    }
    assert_eq!(later.poll(), Progress::Failed(Failure::Unwilling(refusal)));
    assert_eq!(
        refusal.to_string(),
        "is another device: its engine is 80001f8880820a377feebd016b00000000, not 80001f8880820b377feebd016b00000000"
    );
    assert_eq!(expected.known(), Some(engine()));
}

#[test]
fn an_address_that_two_have_is_no_obstacle_once_the_right_one_answers() {
    let mut scene = Scene::expecting(&Expected::only(engine()));
    let (who, _) = scene.sent();
    let report = scene.agent.answer(&who, Level::NoAuthNoPriv, &Agent::report(4), |message| message.engine[6] ^= 1);
    scene.hear(&report);
    assert_eq!(scene.session.why(), Some(Refusal::Engine { expected: engine(), found: other() }));
    scene.now_ms = crate::snmp::TIMEOUT_MS;
    let (mut scene, message, pdu) = scene.synchronise();
    let good = scene.agent.answer(&message, Level::AuthPriv, &Scene::reply(&pdu), |_| {});
    assert!(scene.hear(&good));
    assert_eq!(scene.session.why(), None);
}

/// Both were asked before either had answered.
#[test]
fn of_two_engines_that_are_met_at_once_one_is_refused() {
    let expected = Expected::first();
    let mut scene = Scene::expecting(&expected);
    let (who, _) = scene.sent();
    let report = scene.agent.answer(&who, Level::NoAuthNoPriv, &Agent::report(4), |_| {});
    scene.hear(&report);
    let (first, _) = scene.sent();
    assert_eq!(expected.met(other()), other());
    let clock = scene.agent.answer(&first, Level::AuthNoPriv, &Agent::report(2), |_| {});
    assert!(!scene.hear(&clock));
    assert!(matches!(scene.poll(), Progress::Wait(_)), "it is asked nothing");
    assert_eq!(scene.session.why(), Some(Refusal::Engine { expected: other(), found: engine() }));
}

#[test]
fn an_engines_number_has_5_to_32_octets() {
    for (length, fits) in [(0, false), (4, false), (5, true), (32, true), (33, false)] {
        let octets = vec![7; length];
        let id = EngineId::new(&octets);
        assert_eq!(id.is_some(), fits, "{length}");
        assert!(id.is_none_or(|id| id.octets() == octets));
    }
}

#[test]
fn a_clock_that_has_moved_is_followed_but_not_for_ever() {
    let (mut scene, mut message, _) = Scene::synchronised();
    for _ in 1..crate::snmp::TRIES {
        scene.agent.time += 1000;
        let clock = scene.agent.answer(&message, Level::AuthNoPriv, &Agent::report(2), |_| {});
        assert!(!scene.hear(&clock));
        message = scene.sent().0;
        assert_eq!(message.time, scene.agent.time);
    }
    scene.agent.time += 1000;
    let clock = scene.agent.answer(&message, Level::AuthNoPriv, &Agent::report(2), |_| {});
    assert!(!scene.hear(&clock));
    assert_eq!(scene.poll(), Progress::Failed(Failure::Unwilling(Refusal::Window)));
}

#[test]
fn time_passes_with_the_agents_clock() {
    let (mut scene, ..) = Scene::synchronised();
    scene.now_ms = 3500;
    let (message, _) = scene.sent();
    assert_eq!((message.boots, message.time), (3, 1003));
    let mut clock = Clock { boots: 3, time: 1000, told_ms: 0 };
    assert!(clock.takes(0, 3, 850) && !clock.takes(0, 3, 849));
    assert!(clock.takes(0, 3, 2000) && !clock.takes(0, 3, 1000), "the newest sets the clock");
    assert!(clock.takes(0, 4, 0) && !clock.takes(0, 3, 2000), "and so does a reboot");
    assert!(!clock.takes(0, i32::MAX, 0), "after the last reboot nothing counts");
}

#[test]
fn every_message_has_its_own_number_and_salt() {
    let mut scene = Scene::synchronised().0;
    let mut seen = std::collections::BTreeSet::new();
    for at in 1..crate::snmp::TRIES {
        scene.now_ms = u64::from(at) * 1000;
        let (message, pdu) = scene.sent();
        assert!(seen.insert((message.id, message.salt, pdu.unwrap().id)));
    }
    let numbers: std::collections::BTreeSet<i32> = seen.iter().map(|(id, ..)| *id).collect();
    let salts: std::collections::BTreeSet<&Vec<u8>> = seen.iter().map(|(_, salt, _)| salt).collect();
    assert_eq!((numbers.len(), salts.len()), (4, 4));
    scene.now_ms = 9000;
    assert_eq!(scene.poll(), Progress::Failed(Failure::Unwilling(Refusal::Encryption)), "what is known by then");
}

use super::*;

const SALT: [u8; 32] = [1; 32];

/// A gateway, with what it keeps.
struct Gateway {
    desk: Desk,
    medium: tempfile::TempDir,
    now: Instant,
}

fn good() -> Config {
    Config::parse(include_str!("../../../cluster/src/config/good.toml")).unwrap()
}

fn open(medium: &tempfile::TempDir) -> Desk {
    let config = Current::at(medium.path().join("cluster.toml"), good());
    Desk::new(config, Store::open(&medium.path().join("state")).unwrap())
}

impl Gateway {
    fn new() -> Self {
        let medium = tempfile::tempdir().unwrap();
        Self { desk: open(&medium), medium, now: Instant::now() }
    }

    fn restart(&mut self) {
        self.desk = open(&self.medium);
    }

    /// The machine with this identity and card asks; its connection is bound by the same number.
    fn ask(&self, who: u8, card: u8) -> Admission<'_> {
        let hello = Hello { cards: vec![[0x52, 0x54, 0, 0x77, 0, card]], ..Hello::default() };
        self.desk.ask(Identity([who; 32]), hello, &SALT, &[who; 32], self.now)
    }

    fn waits(&self, who: u8, card: u8) -> Waiting<'_> {
        match self.ask(who, card) {
            Admission::Waits(waiting) => waiting,
            other @ (Admission::In | Admission::Out(_)) => panic!("{other:?}"),
        }
    }

    fn order(&self, request: &JoinRequest) -> Result<Joining, String> {
        self.desk.order(request, self.now)
    }

    fn list(&self) -> Joining {
        self.order(&JoinRequest::List).unwrap()
    }

    fn approve(&self, waiting: &Waiting<'_>, who: u8) -> Result<Joining, String> {
        self.order(&JoinRequest::Approve { ask: waiting.ask, code: code(&SALT, &[who; 32]) })
    }

    /// The cluster has agreed to another `cluster.toml`.
    fn configured(&self, config: &Config) {
        let place = self.medium.path().join("cluster.toml");
        std::fs::write(place.with_extension("new"), &config.text).unwrap();
        std::fs::rename(place.with_extension("new"), place).unwrap();
    }

    fn window(&self, machines: u8) -> Joining {
        self.order(&JoinRequest::Open { machines: machines.to_string() }).unwrap()
    }

    fn revoke(&self, who: u8) -> Joining {
        self.order(&JoinRequest::Revoke { identity: Identity([who; 32]).to_string() }).unwrap()
    }
}

fn is_in(waiting: &Waiting<'_>) -> bool {
    waiting.decided.try_recv() == Ok(Decision::In)
}

fn out(admission: Admission<'_>) -> String {
    match admission {
        Admission::Out(reason) => reason,
        other @ (Admission::In | Admission::Waits(_)) => panic!("{other:?}"),
    }
}

#[test]
fn who_was_let_in_by_its_code_comes_in_at_every_boot_and_after_every_restart() {
    let mut gateway = Gateway::new();
    let waiting = gateway.waits(1, 0x11);
    let [asking] = &gateway.list().asking[..] else { panic!("one asks") };
    assert_eq!((asking.node.as_deref(), &*asking.card, &asking.warning), (Some("node1"), "52:54:00:77:00:11", &None));
    let joining = gateway.approve(&waiting, 1).unwrap();
    assert!(joining.asking.is_empty() && joining.machines[0].node == "node1");
    assert!(is_in(&waiting));
    drop(waiting);
    for _ in 0..2 {
        assert!(matches!(gateway.ask(1, 0x11), Admission::In));
        gateway.restart();
    }
}

#[test]
fn after_three_wrong_codes_a_machine_is_sent_away() {
    let gateway = Gateway::new();
    let waiting = gateway.waits(1, 0x11);
    let wrong = || gateway.order(&JoinRequest::Approve { ask: waiting.ask, code: "12345x".to_owned() }).unwrap_err();
    assert_eq!(wrong(), "that is not the code on its console; 2 more may be tried");
    assert_eq!(wrong(), "that is not the code on its console; 1 more may be tried");
    assert!(wrong().ends_with("for the third time: it was sent away, and asks anew"));
    assert!(matches!(waiting.decided.try_recv(), Ok(Decision::Out(_))));
    assert!(gateway.approve(&waiting, 1).is_err(), "the right one comes too late");
    assert!(gateway.list().asking.is_empty() && gateway.list().machines.is_empty());
}

#[test]
fn a_window_lets_in_as_many_as_it_says_in_its_time() {
    let mut gateway = Gateway::new();
    let first = gateway.waits(1, 0x11);
    assert_eq!(gateway.window(2).window.unwrap().machines, 1, "who asks already is one of them");
    assert!(is_in(&first));
    drop(first);
    assert!(is_in(&gateway.waits(2, 0x12)));
    assert_eq!(gateway.list().window, None);
    gateway.restart();
    assert_eq!(gateway.list().machines.len(), 2);
    gateway.revoke(1);
    gateway.order(&JoinRequest::Forget { identity: Identity([1; 32]).to_string() }).unwrap();
    gateway.window(1);
    gateway.now += OPEN;
    assert!(!is_in(&gateway.waits(1, 0x11)), "it has closed by itself");
    gateway.window(1);
    gateway.order(&JoinRequest::Close).unwrap();
    assert!(!is_in(&gateway.waits(1, 0x11)));
    for machines in ["", "0", "17", "-1", "three", "1 2"] {
        assert!(gateway.order(&JoinRequest::Open { machines: machines.to_owned() }).is_err(), "{machines}");
    }
}

#[test]
fn no_window_lets_in_a_second_machine_with_a_card_that_is_anothers() {
    let gateway = Gateway::new();
    gateway.window(16);
    let first = gateway.waits(1, 0x11);
    assert!(is_in(&first));
    let second = gateway.waits(2, 0x11);
    assert!(!is_in(&second));
    assert!(second.note.contains("another machine with its card 52:54:00:77:00:11 is approved"), "{}", second.note);
    // By its code it is: then the first one is refused.
    gateway.approve(&second, 2).unwrap();
    assert!(is_in(&second));
    assert!(out(gateway.ask(1, 0x11)).contains("given to another machine"));
}

#[test]
fn of_two_that_ask_with_the_same_card_no_window_chooses() {
    let gateway = Gateway::new();
    let (one, other) = (gateway.waits(1, 0x11), gateway.waits(2, 0x11));
    assert_eq!(gateway.window(16).window.unwrap().machines, 16);
    assert!(!is_in(&one) && !is_in(&other));
    assert!(gateway.list().asking.iter().all(|asking| asking.warning.as_ref().unwrap().contains("the same card")));
    drop(other);
    gateway.window(16);
    assert!(is_in(&one));
}

#[test]
fn who_has_no_node_or_is_no_node_is_not_let_in() {
    let gateway = Gateway::new();
    let (stranger, gateways) = (gateway.waits(1, 0x99), gateway.waits(2, 0x01));
    gateway.window(16);
    assert!(!is_in(&stranger) && !is_in(&gateways));
    assert_eq!(stranger.note, "it is not in cluster.toml");
    assert!(gateway.list().machines.is_empty());
    assert_eq!(gateway.approve(&gateways, 2).unwrap_err(), "there is one gateway, and this is not it");
}

#[test]
fn a_new_machine_is_let_in_once_the_cluster_has_agreed_to_its_node() {
    let gateway = Gateway::new();
    let waiting = gateway.waits(1, 0x13);
    let [asking] = &gateway.list().asking[..] else { panic!("one asks") };
    let offer = "node3, fed by pdu1 outlet 4, 52:54:00:77:00:13 on cluster as 10.77.0.13";
    assert_eq!((&asking.node, &asking.offer), (&None, &Some(Ok(offer.to_owned()))));
    let typed = |words: &str| gateway.order(&JoinRequest::Approve { ask: waiting.ask, code: words.to_owned() });
    let code = code(&SALT, &[1; 32]);
    assert!(typed(&format!("{code} node2")).unwrap_err().contains("two nodes are named"));
    assert!(typed(&format!("{code} node3 pdu1 3")).unwrap_err().contains("feeds both"));
    assert!(typed(&format!("{code} node3 pdu9 3")).unwrap_err().contains("no such [[pdu]]"));
    assert!(typed("000000x node3").unwrap_err().contains("2 more"), "a guess counts");
    assert!(typed("").is_err());
    let joining = typed(&format!("{code} big pdu1 7")).unwrap();
    let table = joining.add.unwrap();
    assert!(joining.asking.len() == 1 && !is_in(&waiting) && joining.machines.is_empty(), "nobody has agreed yet");
    let next = good().with_node(&table).unwrap();
    assert_eq!(next.node(next.named("big").unwrap()).outlets[0].number, 7);
    gateway.configured(&next);
    waiting.look();
    assert!(is_in(&waiting));
    drop(waiting);
    assert_eq!(gateway.list().machines[0].node, "big");
    assert!(matches!(gateway.ask(1, 0x13), Admission::In), "at its next boot too");
}

#[test]
fn a_removed_nodes_machine_is_refused_until_its_approval_is_forgotten() {
    let mut gateway = Gateway::new();
    gateway.window(1);
    drop(gateway.waits(2, 0x12));
    let gone = good().without_node(cluster::words::Slot(2), 2).unwrap();
    gateway.configured(&gone);
    gateway.window(16);
    for _ in 0..2 {
        let reason = out(gateway.ask(2, 0x12));
        assert!(reason.contains("removed from the cluster") || reason.contains("taken back"), "{reason}");
        assert!(gateway.list().machines[0].revoked);
        gateway.restart();
    }
    // Its node comes back under the same name and card: its old approval does not.
    let table = "name = \"node2\"\noutlets = [{ pdu = \"pdu1\", outlet = 3 }]\n\
                 nics = [{ mac = \"52:54:00:77:00:12\", network = \"cluster\", address = \"10.77.0.12\" }]";
    gateway.configured(&gone.with_node(table).unwrap());
    assert!(out(gateway.ask(2, 0x12)).contains("taken back"));
    gateway.order(&JoinRequest::Forget { identity: Identity([2; 32]).to_string() }).unwrap();
    let waiting = gateway.waits(2, 0x12);
    gateway.approve(&waiting, 2).unwrap();
    assert!(is_in(&waiting));
}

#[test]
fn a_removed_nodes_machine_is_refused_whichever_cards_it_names() {
    let gateway = Gateway::new();
    let waiting = gateway.waits(2, 0x12);
    gateway.approve(&waiting, 2).unwrap();
    assert!(is_in(&waiting));
    drop(waiting);
    gateway.configured(&good().without_node(cluster::words::Slot(2), 2).unwrap());
    let cards = [0x12, 0x11].map(|card| [0x52, 0x54, 0, 0x77, 0, card]);
    let hello = Hello { cards: cards.to_vec(), ..Hello::default() };
    let asked = gateway.desk.ask(Identity([2; 32]), hello, &SALT, &[2; 32], gateway.now);
    assert!(out(asked).contains("node2 was removed"), "node1's card is not its own");
}

#[test]
fn an_identity_that_has_moved_to_another_machine_waits() {
    let gateway = Gateway::new();
    gateway.window(1);
    drop(gateway.waits(1, 0x11));
    gateway.window(1);
    let moved = gateway.waits(1, 0x12);
    assert_eq!(moved.note, "it was approved as node1 with another card, 52:54:00:77:00:11");
    assert!(!is_in(&moved));
}

#[test]
fn whose_approval_was_taken_back_is_refused_until_that_is_forgotten() {
    let mut gateway = Gateway::new();
    gateway.window(1);
    drop(gateway.waits(1, 0x11));
    assert!(gateway.revoke(1).machines[0].revoked);
    gateway.restart();
    gateway.window(16);
    assert!(out(gateway.ask(1, 0x11)).starts_with("its approval was taken back"));
    let revoke = JoinRequest::Revoke { identity: Identity([1; 32]).to_string() };
    assert!(gateway.order(&revoke).is_err(), "that was done");
    gateway.order(&JoinRequest::Close).unwrap();
    assert!(
        gateway.order(&JoinRequest::Forget { identity: Identity([1; 32]).to_string() }).unwrap().machines.is_empty()
    );
    assert!(!is_in(&gateway.waits(1, 0x11)), "it is a stranger again");
    assert!(gateway.order(&JoinRequest::Forget { identity: "1234".to_owned() }).is_err());
}

#[test]
fn no_more_than_so_many_ask_and_each_once() {
    let gateway = Gateway::new();
    let mut all: Vec<_> = (1..=ASKING).map(|who| gateway.waits(u8::try_from(who).unwrap(), 0x99)).collect();
    assert!(out(gateway.ask(100, 0x99)).contains("32 machines"));
    // One of them has booted again: its old connection ends.
    let again = gateway.waits(1, 0x11);
    assert_eq!(all[0].decided.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected));
    all.clear();
    assert_eq!(gateway.list().asking.len(), 1);
    drop(again);
    assert!(gateway.list().asking.is_empty(), "who goes away asks no more");
}

#[test]
fn what_cannot_be_kept_does_not_count() {
    let gateway = Gateway::new();
    let waiting = gateway.waits(1, 0x11);
    {
        let mut books = gateway.desk.books();
        let state = gateway.medium.path().join("state");
        let read_only = std::fs::File::open(state).unwrap();
        books.store.fail_with(read_only);
    }
    assert!(gateway.approve(&waiting, 1).unwrap_err().starts_with("it cannot be kept"));
    assert!(!is_in(&waiting) && gateway.list().machines.is_empty());
    assert_eq!(gateway.window(1).window.unwrap().machines, 1, "nor does a window let it in");
}

#[test]
fn a_full_table_makes_room_of_what_was_taken_back() {
    let mut table = Table::default();
    let machine = |number: u8| Machine {
        identity: Identity([number; 32]),
        card: [number; 6],
        node: "node1".to_owned(),
        at_s: 0,
        revoked: false,
    };
    for number in 0..64 {
        table.approve(machine(number)).unwrap();
    }
    assert!(table.approve(machine(64)).unwrap_err().contains("64 machines"));
    table.revoke(Identity([7; 32]));
    table.approve(machine(64)).unwrap();
    assert!(table.of(Identity([7; 32])).is_none() && table.machines().len() == 64);
}

#[test]
fn times_are_dates() {
    assert_eq!(date(0), "1970-01-01 00:00 UTC");
    assert_eq!(date(951_782_399), "2000-02-28 23:59 UTC");
    assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
    assert_eq!(date(1_795_273_566), "2026-11-21 15:06 UTC");
}

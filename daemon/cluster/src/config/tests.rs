use super::*;

const GOOD: &str = include_str!("good.toml");

#[test]
fn a_good_file_is_read_whole() {
    let config = Config::parse(GOOD).unwrap();
    assert_eq!(config.name, "rack");
    assert_eq!(config.timing.keepalive, Duration::from_millis(500));
    assert_eq!(config.timing.initdead, Duration::from_secs(60));
    assert_eq!(config.majority(), 2);
    assert_eq!(config.gateway().map(|(slot, _)| slot), Some(Slot(0)));
    assert_eq!(config.find(&[Mac::parse("52:54:00:78:00:11").unwrap()]), Some(Slot(1)));
    assert_eq!(config.find(&[Mac::parse("52:54:00:78:00:99").unwrap()]), None);
    assert_eq!(config.cluster_network(), (Ipv4Addr::new(10, 77, 0, 0), 24));
    assert_eq!(config.exports.len(), 2);
}

/// Each row changes the good file in one place; the error names that line and says what to do.
#[test]
fn what_cannot_work_is_refused_with_its_line() {
    let rows = [
        ("keepalive = \"500ms\"", "keepalive = \"500\"", "not a duration"),
        ("keepalive = \"500ms\"", "keepalive = \"5ms\"", "at least \"20ms\""),
        ("warntime = \"2s\"", "warntime = \"600ms\"", "twice keepalive"),
        ("deadtime = \"6s\"", "deadtime = \"2s\"", "longer than warntime"),
        ("initdead = \"60s\"", "initdead = \"6s\"", "initdead must be longer"),
        ("lease = \"30s\"", "lease = \"3s\"", "lease must be longer"),
        ("lease = \"30s\"", "leese = \"30s\"", "unknown field `leese`"),
        ("model = \"ap7921\"", "model = \"toaster\"", "model must be"),
        ("outlet = 3 }", "outlet = 2 }", "feeds both"),
        ("outlet = 3 }", "outlet = 99 }", "1 to 24"),
        ("outlets = [{ pdu = \"pdu1\", outlet = 3 }]", "outlets = []", "could not be fenced"),
        ("name = \"node2\"", "name = \"node1\"", "two nodes are named"),
        ("name = \"node2\"", "name = \"Node 2\"", "a name is"),
        ("10.77.0.12", "10.77.0.11", "same address"),
        ("10.77.0.12", "10.78.0.12", "is not in 10.77.0.0/24"),
        ("52:54:00:77:00:12", "52:54:00:77:00:11", "same mac"),
        ("52:54:00:77:00:12", "52:54:00:77:00", "not a MAC address"),
        ("subnet = \"10.77.0.0/24\"", "subnet = \"10.77.0.1/24\"", "subnet must look like"),
        ("device = \"/dev/disk/x0\"", "device = \"x0\"", "below /dev/"),
    ];
    for (from, to, expected) in rows {
        assert!(GOOD.contains(from), "{from}");
        let error = Config::parse(&GOOD.replacen(from, to, 1)).unwrap_err();
        assert!(error.text.contains(expected), "{to}: {error}");
        assert!(error.line > 0, "{to}: {error}");
    }
}

#[test]
fn whatever_is_not_a_configuration_is_an_error_not_a_panic() {
    for text in ["", "x", "[cluster]", "\u{0}", "[[node]]\n[cluster]\nname=1"] {
        assert!(Config::parse(text).is_err(), "{text:?}");
    }
}

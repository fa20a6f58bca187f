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
    assert_eq!(config.patience, Duration::from_secs(600));
    let silent = Config::parse(&GOOD.replacen("patience = \"10m\"", "", 1)).unwrap();
    assert_eq!(silent.patience, Duration::from_secs(3600));
}

#[test]
fn an_outlet_may_be_called_as_the_power_switch_calls_it() {
    let text = GOOD.replacen("outlet = 3 }", "outlet = 3, name = \"node 2, left\" }", 1);
    let config = Config::parse(&text).unwrap();
    assert_eq!(config.pdus[0].names, [(3, "node 2, left".to_owned())].into());
}

#[test]
fn a_power_switch_is_spoken_with_by_the_version_that_is_written() {
    assert_eq!(Config::parse(GOOD).unwrap().pdus[0].snmp, Snmp::V1);
    for (written, meant) in [("v1", Snmp::V1), ("v3", Snmp::V3), ("v3-md5-des", Snmp::V3Md5Des)] {
        let text = GOOD.replacen("model = \"ap7921\"", &format!("model = \"ap7921\"\nsnmp = \"{written}\""), 1);
        assert_eq!(Config::parse(&text).unwrap().pdus[0].snmp, meant);
    }
}

#[test]
fn the_engine_of_a_power_switch_is_written_as_other_programs_show_it() {
    for written in ["80001f8880Aa", "80:00:1F:88:80:aa"] {
        let text = format!("model = \"ap7921\"\nsnmp = \"v3\"\nengine = \"{written}\"");
        let config = Config::parse(&GOOD.replacen("model = \"ap7921\"", &text, 1)).unwrap();
        assert_eq!(config.pdus[0].engine.as_deref(), Some(&[0x80, 0, 0x1f, 0x88, 0x80, 0xaa][..]));
    }
    assert_eq!(Config::parse(GOOD).unwrap().pdus[0].engine, None);
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
        ("model = \"ap7921\"", "model = \"ap7921\"\nsnmp = \"v2c\"", "expected one of `v1`, `v3`, `v3-md5-des`"),
        ("model = \"ap7921\"", "model = \"ap7921\"\nengine = \"8000000001\"", "engine needs snmp = \"v3\""),
        ("model = \"ap7921\"", "model = \"ap7921\"\nsnmp = \"v3\"\nengine = \"80000000\"", "engine must be 10 to 64"),
        ("model = \"ap7921\"", "model = \"ap7921\"\nsnmp = \"v3\"\nengine = \"80000000xy\"", "hexadecimal digits"),
        ("outlet = 3 }", "outlet = 2 }", "feeds both"),
        ("outlet = 3 }", "outlet = 99 }", "1 to 24"),
        ("outlet = 3 }", "outlet = 3, name = \"\" }", "what the power switch calls it"),
        ("outlets = [{ pdu = \"pdu1\", outlet = 3 }]", "outlets = []", "could not be fenced"),
        ("name = \"node2\"", "name = \"node1\"", "two nodes are named"),
        ("name = \"node2\"", "name = \"Node 2\"", "a name is"),
        ("10.77.0.12", "10.77.0.11", "same address"),
        ("10.77.0.12", "10.78.0.12", "is not in 10.77.0.0/24"),
        ("52:54:00:77:00:12", "52:54:00:77:00:11", "same mac"),
        ("52:54:00:77:00:12", "52:54:00:77:00", "not a MAC address"),
        ("subnet = \"10.77.0.0/24\"", "subnet = \"10.77.0.1/24\"", "subnet must look like"),
        ("patience = \"10m\"", "patience = \"6s\"", "patience must be longer than deadtime"),
        ("patience = \"10m\"", "patients = \"10m\"", "unknown field `patients`"),
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

/// The good file, with a serial line between its nodes.
fn serial_line() -> String {
    let line = "[serial.null-modem]\nnodes = [\"node1\", \"node2\"]\ndevices = [\"ttyS2\", \"ttyS3\"]\n\n[[pdu]]";
    GOOD.replacen("[[pdu]]", line, 1)
}

#[test]
fn a_serial_line_is_a_link_of_two_nodes_behind_the_networks() {
    let config = Config::parse(&serial_line()).unwrap();
    assert_eq!(config.link_name(LinkId(1)), "null-modem");
    let [line] = config.lines.as_slice() else { panic!("one line") };
    assert_eq!(line.at(Slot(1)).map(|(end, other)| (end.device.as_str(), other)), Some(("ttyS2", Slot(2))));
    assert_eq!(line.at(Slot(2)).map(|(end, other)| (end.device.as_str(), other)), Some(("ttyS3", Slot(1))));
    assert_eq!(line.at(Slot(0)), None);
    let shared = config.shared_links(Slot(1));
    assert_eq!(shared, [(Slot(0), vec![LinkId(0)]), (Slot(2), vec![LinkId(0), LinkId(1)])].into());
}

#[test]
fn serial_lines_that_cannot_work_are_refused() {
    let rows = [
        ("[\"node1\", \"node2\"]", "[\"node1\", \"node3\"]", "\"node3\" is none"),
        ("[\"node1\", \"node2\"]", "[\"node1\", \"node1\"]", "name two nodes"),
        ("[\"node1\", \"node2\"]", "[\"node1\"]", "length"),
        ("\"ttyS2\", \"ttyS3\"", "\"ttyS2\", \"/dev/ttyS3\"", "below /dev"),
        ("\"ttyS2\", \"ttyS3\"", "\"ttyS1\", \"ttyS3\"", "uses ttyS1 for something else"),
        ("serial.null-modem", "serial.public", "no [network.NAME] has the same"),
        ("keepalive = \"500ms\"", "keepalive = \"200ms\"", "at least \"250ms\""),
    ];
    for (from, to, expected) in rows {
        assert!(serial_line().contains(from), "{from}");
        let error = Config::parse(&serial_line().replacen(from, to, 1)).unwrap_err();
        assert!(error.text.contains(expected), "{to}: {error}");
        assert!(error.line > 0, "{to}: {error}");
    }
}

/// The good file, with a second cluster network that the gateway is not on.
fn two_networks() -> String {
    let second = |node: u8| {
        format!(
            "address = \"10.77.0.{node}\" }},\n  {{ mac = \"52:54:00:79:00:{node}\", network = \"backup\", \
             address = \"10.79.0.{node}\" }},"
        )
    };
    let text = GOOD.replace("[network.public]", "[network.backup]\nsubnet = \"10.79.0.0/24\"\n[network.public]");
    let text = text.replace("address = \"10.77.0.11\" },", &second(11));
    text.replace("address = \"10.77.0.12\" },", &second(12))
}

#[test]
fn cluster_networks_are_links_in_the_order_of_the_file() {
    let config = Config::parse(&two_networks()).unwrap();
    let names: Vec<_> = config.links().map(|link| (link.id, link.name, link.prefix)).collect();
    assert_eq!(names, [(LinkId(0), "cluster", 24), (LinkId(1), "backup", 24)]);
    assert_eq!(config.link_name(LinkId(1)), "backup");
    assert_eq!(config.cluster_network(), (Ipv4Addr::new(10, 77, 0, 0), 24));
    let node = config.node(Slot(2));
    assert_eq!(node.address, Ipv4Addr::new(10, 77, 0, 12));
    assert_eq!(node.links, [(LinkId(0), node.address), (LinkId(1), Ipv4Addr::new(10, 79, 0, 12))]);
    let shared = config.shared_links(Slot(1));
    assert_eq!(shared, [(Slot(0), vec![LinkId(0)]), (Slot(2), vec![LinkId(0), LinkId(1)])].into());
}

#[test]
fn cluster_networks_that_cannot_work_are_refused() {
    let rows = [
        ("10.79.0.0/24", "10.77.0.0/16", "overlap; give each a subnet of its own"),
        ("subnet = \"10.77.0.0/24\"", "bridge = \"br1\"", "no address"),
        (
            "network = \"backup\", address = \"10.79.0.12\"",
            "network = \"cluster\", address = \"10.77.0.13\"",
            "two nics",
        ),
        ("10.79.0.12", "10.79.0.11", "same address 10.79.0.11"),
    ];
    for (from, to, expected) in rows {
        assert!(two_networks().contains(from), "{from}");
        let error = Config::parse(&two_networks().replacen(from, to, 1)).unwrap_err();
        assert!(error.text.contains(expected), "{to}: {error}");
        assert!(error.line > 0, "{to}: {error}");
    }
    let other_first = two_networks()
        .replace("network = \"cluster\", address = \"10.77.0.12\"", "network = \"backup\", address = \"10.79.0.13\"");
    let other_first = other_first
        .replace("network = \"backup\", address = \"10.79.0.12\"", "network = \"cluster\", address = \"10.77.0.12\"");
    let error = Config::parse(&other_first).unwrap_err();
    assert!(error.text.contains("name the nic of the same network first on every node"), "{error}");
    let no_subnet = GOOD.replace("subnet = \"10.77.0.0/24\"", "bridge = \"br1\"");
    assert!(Config::parse(&no_subnet).unwrap_err().text.contains("at least one [network.NAME] must have a subnet"));
}

#[test]
fn times_that_are_not_written_have_defaults_that_fit_each_other() {
    let without: Vec<&str> = ["keepalive", "warntime", "deadtime", "initdead", "lease", "evacuation"].into();
    let text: String = GOOD
        .lines()
        .filter(|line| !without.iter().any(|key| line.starts_with(key)))
        .flat_map(|line| [line, "\n"])
        .collect();
    let timing = Config::parse(&text).unwrap().timing;
    assert_eq!((timing.keepalive, timing.deadtime), (Duration::from_millis(250), Duration::from_secs(2)));
    let error = Config::parse(&text.replacen("[cluster]\n", "[cluster]\nkeepalive = \"1s\"\n", 1)).unwrap_err();
    assert!(error.to_string().contains("warntime must be at least twice keepalive"), "{error}");
}

use std::path::Path;

use cluster::config::Config;

use super::{closed, of_a_stranger, ruleset};
use crate::cases;

mod wire;

/// The rules of the node that the first line of `input` names, with its cards' names in their order (`-`: not there); the
/// rest is the configuration.
fn generated(input: &str) -> String {
    let (first, toml) = input.split_once('\n').unwrap();
    let mut words = first.split(' ');
    let name = words.next().unwrap();
    let interfaces: Vec<&str> = words.collect();
    let config = Config::parse(toml).unwrap();
    let (slot, node) = config.slots().find(|(_, node)| node.name == name).unwrap();
    assert_eq!(interfaces.len(), node.nics.len(), "a name for each card");
    ruleset(&config, slot, |mac| {
        let place = node.nics.iter().position(|nic| nic.mac == mac)?;
        Some(interfaces[place].to_owned()).filter(|name| name != "-")
    })
}

/// Every case in `firewall/cases`: intent, an empty line, input, `----`, the rules.
#[test]
fn the_rules_are_those_of_the_cases() {
    cases::check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/firewall/cases"), generated);
}

/// It may have any of the addresses that are nobody's.
#[test]
fn a_machine_that_asks_to_join_talks_with_the_gateway_alone() {
    let config = Config::parse(include_str!("../../cluster/src/config/good.toml")).unwrap();
    let rules = of_a_stranger(&config);
    let accepted = rules.split("chain input").nth(1).unwrap().lines().filter(|line| line.ends_with(" accept"));
    let expected = [
        "\t\tiifname \"lo\" accept",
        "\t\tip saddr 10.77.0.1 ip daddr 10.77.0.234-10.77.0.249 tcp sport 694 tcp dport 32768-60999 tcp flags != syn / \
         fin,syn,rst,ack accept",
        "\t\toifname \"lo\" accept",
        "\t\tip saddr 10.77.0.234-10.77.0.249 ip daddr 10.77.0.1 tcp sport 32768-60999 tcp dport 694 accept",
    ];
    assert_eq!(accepted.collect::<Vec<_>>(), expected);
    assert!(!rules.contains("jump"), "{rules}");
}

#[test]
fn who_is_no_node_talks_with_nobody() {
    let rules = closed();
    assert_eq!(rules.matches("policy drop").count(), 3);
    assert!(!rules.contains("jump"), "{rules}");
    let accepted = rules.split("chain input").nth(1).unwrap().lines().filter(|line| line.ends_with(" accept"));
    assert_eq!(accepted.collect::<Vec<_>>(), ["\t\tiifname \"lo\" accept", "\t\toifname \"lo\" accept"]);
}

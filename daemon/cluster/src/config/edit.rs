//! How `cluster.toml` changes while the cluster runs: a table more at its end, or a line more in one. The rest of the file,
//! comments too, stays as its operator wrote it; and what comes of it is judged as any file is.

use std::net::Ipv4Addr;

use serde::Deserialize;
use toml::Spanned;

use super::{Config, ConfigError, Level, NodeConfig};
use crate::words::{Role, Slot};

/// Where those things stand that change.
#[derive(Deserialize)]
struct Places {
    cluster: Cluster,
    #[serde(default)]
    node: Vec<Node>,
}

#[derive(Deserialize)]
struct Cluster {
    name: Spanned<String>,
    edition: Option<Spanned<u32>>,
    key: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
struct Node {
    name: Spanned<String>,
    on_trial: Option<Spanned<bool>>,
}

/// The head of a node's table.
const HEAD: &str = "[[node]]";
/// What stands below it as long as the node is on trial.
const ON_TRIAL: &str = "on_trial = true";

/// The name of the node that a table describes, if it can be read.
#[must_use]
pub fn name_of(table: &str) -> Option<String> {
    let places = format!("[cluster]\nname = \"\"\n{}", with_head(table));
    let places: Places = toml::from_str(&places).ok()?;
    places.node.into_iter().next().map(|node| node.name.into_inner())
}

fn with_head(table: &str) -> String {
    let table = table.trim();
    if table.lines().any(|line| line.trim() == HEAD) { table.to_owned() } else { format!("{HEAD}\n{table}") }
}

/// What is left of a node that was removed: its name, and the place of its slot.
pub(super) fn removed(name: &str, role: Option<Role>) -> NodeConfig {
    NodeConfig {
        name: name.to_owned(),
        role: role.unwrap_or(Role::Node),
        removed: true,
        on_trial: false,
        votes: 0,
        outlets: Vec::new(),
        fencing: Vec::new(),
        nics: Vec::new(),
        monitor: None,
        address: Ipv4Addr::UNSPECIFIED,
        links: Vec::new(),
    }
}

/// The same table, on trial.
fn on_trial(table: &str) -> String {
    with_head(table).replacen(HEAD, &format!("{HEAD}\n{ON_TRIAL}"), 1)
}

fn refuse(text: &str) -> ConfigError {
    ConfigError { line: 0, text: text.to_owned() }
}

impl Config {
    /// Whether the file has this table, letter by letter, or has it on trial.
    #[must_use]
    pub fn has_table(&self, table: &str) -> bool {
        self.text.contains(&with_head(table)) || self.text.contains(&on_trial(table))
    }

    /// The next edition, with one node more: `table` is what stands below its `[[node]]`. If it is fenced by outlets it is on
    /// trial.
    ///
    /// # Errors
    /// What is wrong with it; its line is that of the table.
    pub fn with_node(&self, table: &str) -> Result<Self, ConfigError> {
        let next = self.with_table(&with_head(table))?;
        let by_outlets =
            |node: &NodeConfig| node.fencing.iter().any(|level| matches!(level, Level::Snmp | Level::Serial));
        if next.nodes.last().is_some_and(by_outlets) { self.with_table(&on_trial(table)) } else { Ok(next) }
    }

    fn with_table(&self, table: &str) -> Result<Self, ConfigError> {
        let mut text = self.next(None, self.key)?;
        text += if text.ends_with('\n') { "\n" } else { "\n\n" };
        let above = text.lines().count();
        text += table;
        text += "\n";
        let below = |error: ConfigError| ConfigError { line: error.line.saturating_sub(above), ..error };
        let next = Self::parse(&text).map_err(below)?;
        let others = |config: &Self| {
            let nodes = config.nodes.iter().take(self.nodes.len()).cloned().collect();
            // Their outlets may be called by names from now on.
            let pdus = config.pdus.iter().map(|pdu| (pdu.name.clone(), pdu.serial.clone())).collect::<Vec<_>>();
            let (text, edition) = (String::new(), self.edition);
            (Self { text, edition, nodes, pdus: Vec::new(), ..config.clone() }, pdus)
        };
        let added = next.nodes.get(self.nodes.len()).filter(|node| !node.removed);
        match added {
            Some(node) if node.role == Role::Gateway => Err(refuse("a gateway cannot be added while the cluster runs")),
            Some(_) if next.nodes.len() == self.nodes.len() + 1 && others(self) == others(&next) => Ok(next),
            Some(_) | None => Err(refuse("one [[node]] is added at a time, and nothing else")),
        }
    }

    /// The next edition, without the node in `slot`. Its table stays, with a word that says so: so the slots of the others
    /// stay as well. The cluster's key becomes `key`, which that node does not hold.
    ///
    /// # Errors
    /// Why the others cannot do without it.
    pub fn without_node(&self, slot: Slot, key: u32) -> Result<Self, ConfigError> {
        if !self.has(slot) {
            return Err(refuse("there is no such [[node]]"));
        }
        Self::parse(&self.next(Some(slot), key)?)
    }

    /// The next edition, in which nothing but the cluster's key is another: `key`.
    ///
    /// # Errors
    /// The file is too long for it.
    pub fn with_key(&self, key: u32) -> Result<Self, ConfigError> {
        Self::parse(&self.next(None, key)?)
    }

    /// The next edition, in which that node is not on trial any more.
    ///
    /// # Errors
    /// It is on none.
    pub fn with_proven(&self, slot: Slot) -> Result<Self, ConfigError> {
        let text = self.next(None, self.key)?;
        let places: Places = toml::from_str(&text).map_err(|error| refuse(error.message()))?;
        let node = places.node.into_iter().nth(usize::from(slot.0));
        let written = node.and_then(|node| node.on_trial).filter(|on_trial| *on_trial.get_ref());
        let at = written.ok_or_else(|| refuse("this node is not on trial"))?.span();
        let (above, below) = text.split_at_checked(at.start).ok_or_else(|| refuse("it is not where it was"))?;
        let begin = above.rfind('\n').map_or(0, |end| end + 1);
        let end = below.find('\n').map_or(text.len(), |end| at.start + end + 1);
        let text: String = text.get(..begin).into_iter().chain(text.get(end..)).collect();
        Self::parse(&text)
    }

    /// The text of the next edition, in which that node is removed and this is the key.
    fn next(&self, removed: Option<Slot>, key: u32) -> Result<String, ConfigError> {
        let places: Places = toml::from_str(&self.text).map_err(|error| refuse(error.message()))?;
        let number = self.edition.number.saturating_add(1);
        let line_end =
            |at: usize| self.text.get(at..).and_then(|rest| rest.find('\n')).map_or(self.text.len(), |end| at + end);
        let after = |above: usize, line: String| {
            let end = line_end(above);
            (end..end, format!("\n{line}"))
        };
        let edition = match &places.cluster.edition {
            Some(written) => (written.span(), number.to_string()),
            None => after(places.cluster.name.span().end, format!("edition = {number}")),
        };
        let node = removed.and_then(|slot| places.node.get(usize::from(slot.0)));
        let mut changes = Vec::new();
        if key != self.key {
            let above =
                || places.cluster.edition.as_ref().map_or(places.cluster.name.span().end, |edition| edition.span().end);
            changes.push(match &places.cluster.key {
                Some(written) => (written.span(), key.to_string()),
                None => after(above(), format!("key = {key}")),
            });
        }
        changes.push(edition);
        changes.extend(node.map(|node| after(node.name.span().end, "removed = true".to_owned())));
        // The last one first, so that what stands before stays where it is.
        changes.sort_by_key(|(range, _)| core::cmp::Reverse(range.start));
        let mut text = self.text.clone();
        for (range, new) in changes {
            text.replace_range(range, &new);
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("good.toml");
    const NODE3: &str = "name = \"node3\" # new\noutlets = [{ pdu = \"pdu1\", outlet = 4, name = \"third\" }]\n\
                         nics = [{ mac = \"52:54:00:77:00:13\", network = \"cluster\", address = \"10.77.0.13\" }]\n";

    fn good() -> Config {
        Config::parse(GOOD).unwrap()
    }

    fn names(config: &Config) -> Vec<(u8, &str)> {
        config.slots().map(|(slot, node)| (slot.0, node.name.as_str())).collect()
    }

    #[test]
    fn a_node_comes_at_the_end_and_nothing_else_changes() {
        let next = good().with_node(NODE3).unwrap();
        assert_eq!(next.edition.number, 2);
        assert!(
            next.edition > good().edition && next.edition != good().with_node(&format!("{NODE3}#")).unwrap().edition
        );
        assert_eq!(names(&next), [(0, "gateway"), (1, "node1"), (2, "node2"), (3, "node3")]);
        assert_eq!(next.nodes[..3], good().nodes);
        assert_eq!((good().majority(), next.majority()), (2, 3));
        assert!(next.has_table(NODE3) && !good().has_table(NODE3));
        assert_eq!(next, Config::parse(&next.text).unwrap(), "the text says it all");
        assert_eq!(name_of(NODE3).as_deref(), Some("node3"));
        assert_eq!(good().with_node(&format!("# a comment\n[[node]]\n{NODE3}")).unwrap().nodes, next.nodes);
        let again = next.with_node(&NODE3.replace("3", "4").replace("outlet = 4", "outlet = 5")).unwrap();
        assert_eq!((again.edition.number, again.nodes.len()), (3, 5));
    }

    #[test]
    fn a_new_node_is_on_trial_until_its_outlets_are_proven() {
        let next = good().with_node(NODE3).unwrap();
        assert!(next.node(Slot(3)).on_trial && next.text.contains("[[node]]\non_trial = true\nname = \"node3\""));
        let proven = next.with_proven(Slot(3)).unwrap();
        assert!(!proven.node(Slot(3)).on_trial && !proven.text.contains("on_trial") && proven.has_table(NODE3));
        assert_eq!((proven.edition.number, &proven.nodes[..3]), (3, &good().nodes[..]));
        for (config, slot) in [(&proven, 3), (&next, 1), (&next, 9)] {
            assert!(config.with_proven(Slot(slot)).unwrap_err().text.contains("not on trial"));
        }
        let otherwise = NODE3.replacen("nics", "fencing = [\"watchdog\"]\nnics", 1);
        assert!(!good().with_node(&otherwise).unwrap().node(Slot(3)).on_trial, "its outlets prove nothing");
        for name in ["gateway", "node1"] {
            let text = GOOD.replacen(&format!("name = \"{name}\""), &format!("name = \"{name}\"\non_trial = true"), 1);
            let refused = Config::parse(&text).err().map(|error| error.text);
            assert_eq!(refused.is_some_and(|text| text.contains("only a node with outlets")), name == "gateway");
        }
    }

    /// What is wrong with a table is told with the line of the table.
    #[test]
    fn a_node_that_cannot_work_is_refused() {
        let rows = [
            ("outlet = 4", "outlet = 3", "feeds both", 1),
            ("10.77.0.13", "10.77.0.12", "same address", 1),
            ("00:13", "00:12", "same mac", 1),
            ("node3", "node2", "two nodes are named", 1),
            ("name = \"node3\"", "name = \"node3\"\nnomen = 1", "unknown field `nomen`", 3),
            ("name = \"node3\"", "name = \"node3\"\nrole = \"gateway\"", "more than one node", 0),
            ("name = \"node3\"", "name = \"node3\"\nremoved = true", "one [[node]] is added", 0),
            (
                "# new",
                "\n[[export]]\nname = \"y\"\ndevice = \"/dev/y\"\n[[node]]\nname = \"node4\"",
                "duplicate key",
                1,
            ),
            ("]\n", "]\n[[pdu]]\nname = \"y\"\nmodel = \"ap7921\"\naddress = \"10.77.0.9\"\n", "nothing else", 0),
            ("]\n", "]\n[gateway]\npxe = false\n", "duplicate key", 5),
        ];
        for (from, to, expected, line) in rows {
            assert!(NODE3.contains(from), "{from}");
            let at = NODE3.rfind(from).unwrap();
            let table = format!("{}{to}{}", &NODE3[..at], &NODE3[at + from.len()..]);
            let error = good().with_node(&table).unwrap_err();
            assert!(error.text.contains(expected), "{to}: {error}");
            assert_eq!(error.line, line, "{to}: {error}");
        }
        for table in ["", "x", "[[node]]", "\u{0}"] {
            assert!(good().with_node(table).is_err(), "{table:?}");
        }
        let long = format!("{NODE3}#{}", "x".repeat(crate::limits::CONFIGURATION_BYTES));
        assert!(good().with_node(&long).unwrap_err().text.contains("longer than"));
    }

    #[test]
    fn no_more_than_sixteen_slots_are_ever_used() {
        let table = |n: usize| {
            format!(
                "name = \"n{n}\"\noutlets = [{{ pdu = \"pdu1\", outlet = {n} }}]\nnics = [{{ mac = \"52:54:00:77:01:{n:02}\", \
                 network = \"cluster\", address = \"10.77.0.{}\" }}]",
                n + 100
            )
        };
        let mut config = good();
        for n in 4..17 {
            config = config.with_node(&table(n)).unwrap();
            if n == 9 {
                config = config.without_node(Slot(1), 2).unwrap();
            }
        }
        assert_eq!(config.nodes.len(), 16);
        assert!(config.with_node(&table(17)).unwrap_err().text.contains("1 to 16 [[node]]"));
    }

    #[test]
    fn a_removed_node_leaves_a_hole_and_everything_of_it_is_free() {
        let next = good().without_node(Slot(1), 2).unwrap();
        assert_eq!(names(&next), [(0, "gateway"), (2, "node2")]);
        assert!(next.has_removed(Slot(1)) && !next.has(Slot(1)) && next.has(Slot(2)));
        assert_eq!((next.edition.number, next.majority(), next.named("node1")), (2, 2, None));
        assert_eq!(next.find(&[crate::config::Mac::parse("52:54:00:77:00:11").unwrap()]), None);
        let same = "name = \"node1\"\noutlets = [{ pdu = \"pdu1\", outlet = 2 }]\n\
                    nics = [{ mac = \"52:54:00:77:00:11\", network = \"cluster\", address = \"10.77.0.11\" }]";
        let back = next.with_node(same).unwrap();
        assert_eq!((back.named("node1"), back.edition.number), (Some(Slot(3)), 3));
        let gone = back.without_node(Slot(3), 2).unwrap();
        assert_eq!(names(&gone), [(0, "gateway"), (2, "node2")]);
        assert!(gone.without_node(Slot(7), 2).is_err());
    }

    #[test]
    fn whoever_holds_a_cable_is_needed_and_who_is_merely_named_is_not() {
        let held =
            GOOD.replacen("10.77.0.250\"", "10.77.0.250\"\nserial = { node = \"node2\", device = \"ttyS0\" }", 1);
        let error = Config::parse(&held).unwrap().without_node(Slot(2), 2).unwrap_err();
        assert!(error.text.contains("\"node2\" is none"), "{error}");
        let fed = format!(
            "{GOOD}\n[[ups]]\nname = \"u1\"\nfeeds = [\"node1\", \"node2\"]\n\
             nut = {{ address = \"10.77.0.251\", ups = \"u1\", user = \"holdfast\" }}\n"
        );
        let next = Config::parse(&fed).unwrap().without_node(Slot(2), 2).unwrap();
        assert_eq!(next.upses[0].feeds, [Slot(1)]);
        let spec = crate::config::VmSpec::parse("preferred = [\"node2\", \"node1\"]", &next).unwrap();
        assert_eq!(spec.preferred, [Slot(1)]);
    }

    #[test]
    fn comments_stay_and_a_written_edition_is_counted_on() {
        let text = GOOD.replacen("name = \"rack\"", "name = \"rack\" # ours\nedition = 41 # so far", 1);
        let next = Config::parse(&text).unwrap().without_node(Slot(2), 2).unwrap();
        assert_eq!(next.edition.number, 42);
        assert!(next.text.contains("name = \"rack\" # ours\nedition = 42 # so far\n"), "{}", next.text);
        assert!(next.text.contains("name = \"node2\"\nremoved = true\noutlets"), "{}", next.text);
        assert!(next.text.contains("# so far\nkey = 2\n"), "{}", next.text);
        let third = next.with_key(3).unwrap();
        assert_eq!((third.edition.number, third.key, third.nodes), (43, 3, next.nodes));
        assert!(good().with_key(2).unwrap().text.contains("name = \"rack\"\nedition = 2\nkey = 2\n"));
        assert!(Config::parse(&third.text.replacen("key = 3", "key = 0", 1)).unwrap_err().text.contains("from 1"));
        let zero = text.replacen("41", "0", 1);
        assert!(Config::parse(&zero).unwrap_err().text.contains("from 1"));
    }
}

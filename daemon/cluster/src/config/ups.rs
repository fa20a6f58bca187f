//! `[[ups]]`: which UPSes there are, how each is read, what it feeds, and when to act.

use core::time::Duration;
use std::net::Ipv4Addr;

use serde::Deserialize;

use super::hex;
use super::serial::{SerialTable, serial_line, used};
use super::{Config, SerialLine, doubled, file};
use crate::limits;
use crate::words::Slot;

/// The port of NUT's `upsd`.
const NUT_PORT: u16 = 3493;

/// One UPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ups {
    /// Its name.
    pub name: String,
    /// How it is read.
    pub way: UpsWay,
    /// What it feeds. What two UPSes feed has power as long as one of them has.
    pub feeds: Vec<Slot>,
    /// How long it may be on battery before anything is done.
    pub wait: Duration,
    /// When its battery lasts no longer than this, everything is shut down.
    pub runtime: Duration,
    /// VMs of a lower priority than this are shut down first, where nodes that have mains are none.
    pub shed: u8,
}

/// How a UPS is read, and ordered to switch its load off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpsWay {
    /// By NUT's `upsd` (RFC 9271), from every node.
    Nut {
        /// Where it listens.
        address: Ipv4Addr,
        /// Its TCP port.
        port: u16,
        /// The UPS's name there.
        ups: String,
        /// As whom to log in; without, the UPS is only read, and cannot be ordered anything.
        user: Option<String>,
        /// The SHA-256 of its certificate: it is spoken with by TLS and never in clear. Without, always in clear.
        tls: Option<[u8; 32]>,
    },
    /// By APC's smart signalling, on a serial line.
    Smart(SerialLine),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpsTable {
    name: String,
    nut: Option<NutTable>,
    smart: Option<SerialTable>,
    feeds: Vec<String>,
    wait: Option<String>,
    runtime: Option<String>,
    shed: Option<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NutTable {
    address: Ipv4Addr,
    port: Option<u16>,
    ups: String,
    user: Option<String>,
    tls: Option<String>,
}

/// `sha256:` and 64 hexadecimal digits.
fn fingerprint(text: &str) -> Option<[u8; 32]> {
    hex::octets(text.strip_prefix("sha256:")?)?.try_into().ok()
}

/// One table, checked against those before it and against the nodes.
pub(super) fn ups(table: &UpsTable, config: &Config) -> Result<Ups, String> {
    let name = &table.name;
    if !file::is_name(name) {
        return Err(format!("ups \"{name}\": {}", file::NAME_RULE));
    }
    if config.upses.iter().any(|other| other.name == *name) {
        return Err(format!("two [[ups]] are named \"{name}\"; give each its own name"));
    }
    if config.upses.len() >= limits::UPSES {
        return Err(format!("a cluster has at most {} [[ups]]", limits::UPSES));
    }
    let feeds = config.all_named(&table.feeds);
    let feeds = feeds.map_err(|node| format!("ups \"{name}\": \"{node}\" is not one of the nodes"))?;
    if table.feeds.is_empty() || doubled(feeds.iter().copied()).is_some() {
        return Err(format!("ups \"{name}\": feeds names each node that it feeds, once"));
    }
    let way = match (&table.nut, &table.smart) {
        (Some(nut), None) => {
            let tls = nut.tls.as_deref().map(fingerprint);
            if tls == Some(None) {
                return Err(format!("ups \"{name}\": tls must be \"sha256:\" and the 64 digits of upsd's certificate"));
            }
            UpsWay::Nut {
                address: nut.address,
                port: nut.port.unwrap_or(NUT_PORT),
                ups: nut.ups.clone(),
                user: nut.user.clone(),
                tls: tls.flatten(),
            }
        }
        (None, Some(smart)) => UpsWay::Smart(line(name, smart, config)?),
        (Some(_), Some(_)) | (None, None) => {
            return Err(format!(
                "ups \"{name}\" needs either nut = {{ address = \"10.77.0.9\", ups = \"NAME\" }} or \
                 smart = {{ node = \"gateway\", device = \"ttyS0\" }}"
            ));
        }
    };
    if let Some(other) = config.upses.iter().find(|other| other.way == way) {
        return Err(format!("ups \"{name}\" and ups \"{}\" are the same one", other.name));
    }
    let duration = |key: &str, text: &Option<String>, default: Duration| {
        text.as_deref().map_or(Ok(default), |text| file::duration(key, text))
    };
    let wait = duration("wait", &table.wait, limits::UPS_WAIT)?;
    let runtime = duration("runtime", &table.runtime, limits::UPS_RUNTIME)?;
    if runtime < limits::SHUTDOWN + limits::DESTROY {
        return Err(format!("ups \"{name}\": runtime must be at least \"2m\": guests may take that long to shut down"));
    }
    let shed = table.shed.unwrap_or(limits::UPS_SHED);
    if shed > 100 {
        return Err(format!("ups \"{name}\": shed = {shed} is not a priority; write 0 to 100"));
    }
    Ok(Ups { name: name.clone(), way, feeds, wait, runtime, shed })
}

/// The serial line to a UPS. Who holds it must be the last that needs the UPS.
fn line(name: &str, table: &SerialTable, config: &Config) -> Result<SerialLine, String> {
    let line = serial_line(config, &table.node, &table.device, "smart.device", "smart.node");
    let line = line.map_err(|text| format!("ups \"{name}\": {text}"))?;
    let last = config.last_to_go();
    if line.holder != last {
        let last = &config.node(last).name;
        return Err(format!(
            "ups \"{name}\": smart.node must be \"{last}\", which goes last and gives the UPS its orders"
        ));
    }
    if used(config, last).contains(line.device.as_str()) {
        return Err(format!("ups \"{name}\": {} of {} carries something else already", line.device, table.node));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("good.toml");
    const NUT: &str = "nut = { address = \"10.77.0.9\", ups = \"left\" }";

    fn parse(tables: &[&str]) -> Result<Vec<Ups>, String> {
        let tables: String = tables.iter().map(|table| format!("[[ups]]\n{table}\n")).collect();
        Config::parse(&format!("{GOOD}\n{tables}")).map(|config| config.upses).map_err(|error| error.to_string())
    }

    #[test]
    fn a_ups_is_read_with_its_defaults() {
        let table = format!("name = \"u1\"\n{NUT}\nfeeds = [\"gateway\", \"node1\"]");
        let smart = "name = \"u2\"\nsmart = { node = \"gateway\", device = \"ttyS3\" }\nfeeds = [\"node2\"]\n\
                     wait = \"10s\"\nruntime = \"3m\"\nshed = 0";
        let upses = parse(&[&table, smart]).unwrap();
        let way = |ups: &str| UpsWay::Nut {
            address: Ipv4Addr::new(10, 77, 0, 9),
            port: 3493,
            ups: ups.to_owned(),
            user: None,
            tls: None,
        };
        assert_eq!(upses[0].way, way("left"));
        assert_eq!(upses[0].feeds, [Slot(0), Slot(1)]);
        assert_eq!((upses[0].wait, upses[0].runtime, upses[0].shed), (limits::UPS_WAIT, limits::UPS_RUNTIME, 50));
        let line = SerialLine { holder: Slot(0), device: "ttyS3".to_owned() };
        assert_eq!(upses[1].way, UpsWay::Smart(line));
        assert_eq!((upses[1].wait, upses[1].runtime), (Duration::from_secs(10), Duration::from_secs(180)));
    }

    #[test]
    fn the_certificate_of_upsd_is_written_as_other_programs_show_it() {
        for (digit, colons) in [("ab", ""), ("AB", ":")] {
            let certificate = vec![digit; 32].join(colons);
            let nut = NUT.replace(" }", &format!(", tls = \"sha256:{certificate}\" }}"));
            let upses = parse(&[&format!("name = \"u1\"\n{nut}\nfeeds = [\"gateway\"]")]).unwrap();
            assert!(matches!(upses[0].way, UpsWay::Nut { tls: Some(tls), .. } if tls == [0xab; 32]));
        }
    }

    /// Each row is a file's UPSes; the error says what to do.
    #[test]
    fn what_cannot_work_is_refused_with_its_line() {
        let feeds = "feeds = [\"node1\"]";
        let good = format!("name = \"u1\"\n{NUT}\n{feeds}");
        let smart = |line: &str| format!("name = \"u1\"\nsmart = {line}\n{feeds}");
        let with = |line: &str| format!("{good}\n{line}");
        for (table, remedy) in [
            (format!("name = \"U 1\"\n{NUT}\n{feeds}"), "a name is"),
            (format!("name = \"u1\"\n{feeds}"), "needs either nut"),
            (format!("{good}\nsmart = {{ node = \"gateway\", device = \"ttyS3\" }}"), "needs either nut"),
            (format!("name = \"u1\"\n{NUT}\nfeeds = []"), "names each node"),
            (format!("name = \"u1\"\n{NUT}\nfeeds = [\"node1\", \"node1\"]"), "names each node"),
            (format!("name = \"u1\"\n{NUT}\nfeeds = [\"node9\"]"), "\"node9\" is not one of the nodes"),
            (smart("{ node = \"node1\", device = \"ttyS3\" }"), "must be \"gateway\""),
            (smart("{ node = \"gateway\", device = \"../ttyS3\" }"), "a line's name below /dev"),
            (with("runtime = \"60s\""), "at least \"2m\""),
            (with("wait = \"soon\""), "not a duration"),
            (with("shed = 101"), "0 to 100"),
            (with("colour = 1"), "unknown field"),
            (good.replace(" }", ", tls = \"ab\" }"), "tls must be"),
            (good.replace(" }", ", tls = \"sha256:ab\" }"), "64 digits"),
            (good.replace(" }", ", tls = true }"), "expected a string"),
        ] {
            let refused = parse(&[&table]).unwrap_err();
            assert!(refused.contains(remedy) && refused.contains("line"), "{table}: {refused}");
        }
        assert!(parse(&[&good, &good]).unwrap_err().contains("two [[ups]]"));
        assert!(parse(&[&good, &good.replace("u1", "u2")]).unwrap_err().contains("the same one"));
        let line = "smart = { node = \"gateway\", device = \"ttyS3\" }";
        let one = format!("name = \"u1\"\n{line}\n{feeds}");
        assert!(parse(&[&one, &one.replace("u1", "u2")]).unwrap_err().contains("carries something else"));
    }
}

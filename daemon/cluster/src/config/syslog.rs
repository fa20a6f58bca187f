//! `[syslog]`: where every node sends its event log.
//!
//! Nodes have no routes, so the collector's address must be on a cluster network that every node has a card on.

use core::ops::Range;
use std::net::{Ipv4Addr, SocketAddrV4};

use serde::Deserialize;
use toml::Spanned;

use super::{Config, Link};

/// The port where the file names none (RFC 5426, section 3.3; over TCP nothing is registered, and collectors use the same).
const PORT: u16 = 514;

/// A collector of event logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// Where it listens.
    pub server: SocketAddrV4,
    /// How it is spoken with.
    pub transport: Transport,
}

/// How the event log travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A datagram a line (RFC 5426): what is lost on the way is lost.
    #[default]
    Udp,
    /// A connection, each line with its length in front (RFC 6587, octet counting).
    Tcp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SyslogTable {
    server: Spanned<String>,
    #[serde(default)]
    transport: Transport,
}

/// What the file says of it, against the networks and the nodes.
///
/// # Errors
/// Where what is written cannot work, and what to write instead.
pub(super) fn syslog(table: &SyslogTable, config: &Config) -> Result<Syslog, (Range<usize>, String)> {
    let refuse = |text: String| Err((table.server.span(), text));
    let Some(server) = address(table.server.get_ref()) else {
        return refuse("server must look like \"10.77.0.5:514\": an address, not a name, and a port".to_owned());
    };
    let Some(link) = config.links().find(|link| reaches(link, *server.ip())) else {
        return refuse(format!(
            "server {} is on no cluster network; nodes have no route to other networks",
            server.ip()
        ));
    };
    for node in &config.nodes {
        let Some((_, own)) = node.links.iter().find(|(id, _)| *id == link.id) else {
            return refuse(format!(
                "node \"{}\" has no nic on [network.{}], where server {} is; give it one, or name a server that every node \
                 can reach",
                node.name,
                link.name,
                server.ip()
            ));
        };
        if own == server.ip() {
            return refuse(format!(
                "server {own} is node \"{}\" itself; name a machine outside the cluster",
                node.name
            ));
        }
    }
    Ok(Syslog { server, transport: table.transport })
}

/// `ADDRESS:PORT`, or `ADDRESS` alone.
fn address(text: &str) -> Option<SocketAddrV4> {
    let alone = || text.parse::<Ipv4Addr>().ok().map(|address| SocketAddrV4::new(address, PORT));
    text.parse().ok().or_else(alone).filter(|server: &SocketAddrV4| server.port() != 0)
}

/// Whether an address is one that a machine on that network can have.
fn reaches(link: &Link<'_>, address: Ipv4Addr) -> bool {
    let host = u32::MAX.checked_shr(link.prefix.into()).unwrap_or(0);
    let within = address.to_bits() & host;
    address.to_bits() & !host == link.subnet.to_bits() && within != 0 && within != host
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("good.toml");

    fn parse(table: &str) -> Result<Option<Syslog>, super::super::ConfigError> {
        Config::parse(&format!("{GOOD}\n[syslog]\n{table}\n")).map(|config| config.syslog)
    }

    #[test]
    fn a_collector_is_read() {
        assert_eq!(Config::parse(GOOD).unwrap().syslog, None, "none is needed");
        let server = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 5), 514);
        assert_eq!(parse("server = \"10.77.0.5\""), Ok(Some(Syslog { server, transport: Transport::Udp })));
        let tcp = parse("server = \"10.77.0.5:6514\"\ntransport = \"tcp\"").unwrap().unwrap();
        assert_eq!((tcp.server.port(), tcp.transport), (6514, Transport::Tcp));
    }

    #[test]
    fn a_collector_that_cannot_work_is_refused_with_its_line() {
        let second = GOOD.replace("[network.public]", "[network.backup]\nsubnet = \"10.79.0.0/24\"\n[network.public]");
        let nic = "address = \"10.77.0.11\" },\n  { mac = \"52:54:00:79:00:11\", network = \"backup\", address = \"10.79.0.11\" },";
        let second = second.replace("address = \"10.77.0.11\" },", nic) + "\n[syslog]\nserver = \"10.79.0.5:514\"\n";
        let table = |text: &str| format!("{GOOD}\n[syslog]\n{text}\n");
        for (text, remedy) in [
            (table("server = \"loghost:514\""), "must look like"),
            (table("server = \"10.77.0.5:0\""), "must look like"),
            (table("server = \"10.77.0.5:70000\""), "must look like"),
            (table("server = \"[fd00::5]:514\""), "must look like"),
            (table("server = \"\""), "must look like"),
            (table("server = \"192.0.2.5:514\""), "on no cluster network"),
            (table("server = \"10.77.0.0:514\""), "on no cluster network"),
            (table("server = \"10.77.0.255:514\""), "on no cluster network"),
            (table("server = \"10.77.0.12:514\""), "is node \"node2\" itself"),
            (table("server = \"10.77.0.5\"\ntransport = \"tls\""), "expected `udp` or `tcp`"),
            (table("server = \"10.77.0.5\"\nfacility = 3"), "unknown field"),
            (table("transport = \"udp\""), "missing field `server`"),
            (second, "node \"gateway\" has no nic on [network.backup]"),
        ] {
            let error = Config::parse(&text).unwrap_err();
            assert!(error.text.contains(remedy) && error.line > 50, "{remedy}: {error}");
        }
    }
}

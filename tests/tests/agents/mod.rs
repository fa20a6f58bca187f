//! Agents that are not ours, with an AP7921's objects.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use hw::ap7921::Relay;

use crate::ours::{self, PATIENCE};

/// net-snmp's own agent, with lines of configuration, until it is dropped.
pub(crate) struct Agent {
    program: Child,
    folder: PathBuf,
    /// Where it answers.
    pub(crate) address: SocketAddr,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.program.kill();
        let _ = self.program.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Agent {
    /// Started, and it answers.
    pub(crate) fn start(lines: &str) -> Self {
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let folder = std::env::temp_dir().join(format!("holdfast-snmpd-{}", address.port()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("snmpd.conf");
        let text = format!("agentaddress udp:{address}\nrwcommunity private 127.0.0.1\n{lines}");
        std::fs::write(&file, text).unwrap();
        let mut program = Process::new("snmpd");
        program.args(["-f", "-Le", "-C", "-r", "-c"]).arg(&file).env("SNMP_PERSISTENT_DIR", &folder).env("MIBS", "");
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let program = program.spawn().unwrap_or_else(|error| panic!("snmpd: {error}; install Debian's package snmpd"));
        let agent = Self { program, folder, address };
        // Until it listens, it does not reply.
        let deadline = Instant::now() + Duration::from_secs(20);
        while ours::switch(address, Relay::On, &[1], PATIENCE) != Ok(Relay::On) {
            assert!(Instant::now() < deadline, "snmpd does not start");
        }
        agent
    }
}

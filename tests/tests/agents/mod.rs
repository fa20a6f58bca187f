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

    /// snmpsim with a recording (lines of an object's name, its type and its value), for one user of version 3: what its
    /// command line says of him.
    #[allow(dead_code, reason = "one of the programs that use this module has no need of it")]
    pub(crate) fn recorded(recording: &str, user: &[&str]) -> Self {
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let folder = std::env::temp_dir().join(format!("holdfast-snmpsim-{}", address.port()));
        // Where it looks for what is asked over UDP from this machine, under no context.
        let data = folder.join("data/1.3.6.1.6.1.1.0");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("127.0.0.1.snmprec"), recording).unwrap();
        let root = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap().name;
        let mut program = Process::new("snmpsimd");
        program.arg(format!("--agent-udpv4-endpoint={address}")).args(user);
        program.arg(format!("--data-dir={}", folder.join("data").display()));
        program.arg(format!("--cache-dir={}", folder.join("cache").display()));
        // Asked to be somebody else if it is started by root.
        program.arg(format!("--process-user={root}")).arg("--process-group=root");
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let program =
            program.spawn().unwrap_or_else(|error| panic!("snmpsimd: {error}; install Debian's package snmpsim"));
        Self { program, folder, address }
    }
}

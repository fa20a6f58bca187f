//! Every bound of the core, in one place, with the relations between them asserted.

use core::time::Duration;

/// Nodes in a cluster. DLM and the heartbeat frame set it.
pub const NODES: usize = 16;
/// Bytes of a `cluster.toml`. It is part of the agreed state, which must fit a datagram as a snapshot.
pub const CONFIGURATION_BYTES: usize = 16_000;
/// Votes of one node.
pub const VOTES: u8 = 7;
/// UPSes of a cluster.
pub const UPSES: usize = 16;
/// Cluster networks: each is a link.
pub const LINKS: usize = 4;
/// Serial lines from node to node: each is a link.
pub const LINES: usize = 8;
/// VMs in a cluster. The whole state must fit a datagram as a snapshot.
pub const VMS: usize = 256;
/// Bytes of a VM's name.
pub const VM_NAME_BYTES: usize = 32;
/// Bytes of a node's or a switch's name.
pub const NODE_NAME_BYTES: usize = 16;
/// Bytes of what a power switch calls an outlet.
pub const OUTLET_NAME_BYTES: usize = 31;
/// Bytes of one datagram in plain text; the rest of UDP's 65,507 is for the seal.
pub const DATAGRAM_BYTES: usize = 64_000;
/// Bytes of a heartbeat in plain text: one Ethernet frame, less the headers and the seal.
pub const HEARTBEAT_BYTES: usize = 1_400;
/// Bytes of the part of a list of domains that a heartbeat carries.
pub const LIST_BYTES: usize = 1_000;
/// Parts of a list of domains.
pub const LIST_PARTS: u8 = 64;
/// Identities of one slot that are remembered as gone.
pub const RETIRED: usize = 16;
/// Requests to pull a VM that may wait for their commitment.
pub const WAITING_PULLS: usize = 16;

/// VM files in one command.
pub const DEFINED_AT_ONCE: usize = 32;

/// VMs whose end for want of power is proposed at once: each command is a datagram to everybody.
pub const STOPS_AT_ONCE: usize = 4;

/// Heartbeats between two words of what `cluster.toml` says, to a node that has another edition.
pub const TELL_EDITION: u64 = 4;
/// Between two words about the same thing that does not change.
pub const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Ticks of the agreement in one `keepalive`.
pub const TICKS_PER_KEEPALIVE: u32 = 5;
/// Agreement: ticks without a leader before an election.
pub const ELECTION_TICKS: usize = 20;
/// Agreement: ticks between a leader's heartbeats.
pub const HEARTBEAT_TICKS: usize = 5;
/// For how long a leader may sleep, in `keepalive`, and still know that nobody was elected meanwhile: the ticks before an
/// election but for those that may have passed since its last heartbeat.
pub const LEADERS_NAP: u32 = 3;
/// Between two tries to have another lead: one that came to nothing holds everything up for an election's time.
pub const HAND_OVER: Duration = Duration::from_secs(30);
/// Agreement: terms by which a message may be ahead.
pub const TERMS: u64 = 1 << 32;
/// Agreement: entries that a log may hold before they are committed.
pub const UNCOMMITTED_ENTRIES: u64 = 4_096;
/// Log entries kept behind the applied index before compaction.
pub const LOG_ENTRIES: u64 = 64;

/// How long a VM may take to be created.
pub const CREATE: Duration = Duration::from_secs(120);
/// How long a live migration may take, and an image of a guest to be written.
pub const MIGRATE: Duration = Duration::from_secs(300);
/// How long a source waits for the commitment that explains a pull.
pub const PULL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a domain may take to be destroyed.
pub const DESTROY: Duration = Duration::from_secs(30);
/// How long a guest may take to shut down.
pub const SHUTDOWN: Duration = Duration::from_secs(90);
/// How long one attempt at fencing may take (fence-agents' power timeout).
pub const FENCE: Duration = Duration::from_secs(20);
/// How long the operator's decisions may take to be kept on the shared file system.
pub const KEEP: Duration = Duration::from_secs(20);
/// Between two attempts at something that failed.
pub const RETRY: Duration = Duration::from_secs(3);
/// How often a VM's start may fail before it waits for the operator.
pub const START_ATTEMPTS: u32 = 6;
/// How often a VM's domain may die by itself before it is started elsewhere.
pub const RESTARTS_HERE: u32 = 2;
/// How often it may die by itself, if its file does not say, before it waits for the operator.
pub const RESTARTS: u32 = 5;
/// A VM that has run for so long has no past failures.
pub const SETTLED: Duration = Duration::from_secs(600);
/// Groups of each kind that a VM may be in.
pub const GROUPS: usize = 2;
/// Answers to operators that are remembered, so that a request that comes twice is answered alike.
pub const ANSWERS: usize = 32;
/// Between two questions to the gateway for the cluster's key.
pub const ASK_FOR_KEY: Duration = Duration::from_secs(5);
/// How long a request may take to be agreed by a cluster whose DC lives.
pub const AGREE: Duration = Duration::from_secs(10);
/// A hypervisor's watchdog that is not petted for this long resets its machine.
pub const WATCHDOG: Duration = Duration::from_secs(20);
/// How long a UPS may be on battery before anything is done, if `cluster.toml` does not say.
pub const UPS_WAIT: Duration = Duration::from_secs(30);
/// How long its battery must last at least, if `cluster.toml` does not say, for anything to run on.
pub const UPS_RUNTIME: Duration = Duration::from_secs(300);
/// VMs of a lower priority are shed first, if `cluster.toml` does not say.
pub const UPS_SHED: u8 = 50;
/// How long a UPS may take to take an order.
pub const UPS_ORDER: Duration = Duration::from_secs(20);
/// How long a kernel may take to hold the shared file system's lockspace.
pub const HOLD: Duration = Duration::from_secs(20);
/// How long it may take to recover it, and to mount the file system.
pub const MOUNT: Duration = Duration::from_secs(240);
/// How long it may take to let go of it: what nobody has written back yet goes to the gateway first.
pub const LET_GO: Duration = Duration::from_secs(120);
/// After how long a node tries again that could not mount it: the others are held for a moment each time.
pub const MOUNT_AGAIN: Duration = Duration::from_secs(60);
/// Lists of domains in which a VM must be missing before it counts as ended.
pub const MISSED_LISTS: u32 = 2;

const _: () = assert!(ELECTION_TICKS > 2 * HEARTBEAT_TICKS);
const _: () = assert!(HEARTBEAT_BYTES < DATAGRAM_BYTES);
// Of every other node two identities of 9 bytes may be named: the one that is proven fresh, and one that is not yet.
const _: () = assert!(LIST_BYTES + 2 * 9 * NODES + 100 <= HEARTBEAT_BYTES);
const _: () = assert!(VMS * (VM_NAME_BYTES + 2) <= 16 * LIST_BYTES && LIST_PARTS > 16);

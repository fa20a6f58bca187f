//! What the processes that read what strangers send are left with: which files, and which system calls.
//!
//! ```text
//!  who                    reads                    may open                     may call
//!  menu                   keys, a terminal's word  nothing                      a list
//!  boot-files             HTTP of whoever boots    the boot files, for reading  a list
//!  dnsmasq (Debian's)     DHCP and TFTP            its files, for reading       all but what nobody needs
//! ```
//!
//! Two parts of the kernel judge apart from each other: Landlock the files, whatever call opens them, and a filter the calls.
//!
//! A call that is on no list fails as one that the kernel does not have: a library that meets it goes another way, and a menu
//! that a list has wrongly forgotten something of still works. A call of [`NEVER`](calls::NEVER) is none that a library tries: whoever
//! makes it is somebody else's by now, and is ended. Init says so, counts it and starts it again.

mod calls;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, RestrictSelf, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use calls::{Call, NEVER, NO_OTHER_PROGRAM, Only, any};

/// The newest rights of Landlock that are asked for; an older kernel, as Debian 12's with its second version, gives what it
/// has: files, but no say about TCP.
const RIGHTS: ABI = ABI::V6;

/// What dnsmasq reads: libraries, who `boot` is, and what it is to serve. Its lists are written anew in place: a
/// file that takes another's place would be another one to Landlock.
const DNSMASQ_READS: [&str; 9] = [
    "/usr/sbin/dnsmasq",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/etc/passwd",
    "/etc/group",
    "/dev/urandom",
    "/run/holdfast/dnsmasq.conf",
    "/run/holdfast/dnsmasq.hosts",
];

/// Confines the calling process to what a menu needs, for ever. It must have one thread.
///
/// # Errors
/// The kernel cannot filter calls, in words for the operator.
pub(crate) fn menu() -> Result<(), String> {
    confine(files([])?, &calls::of_menu())
}

/// Confines the calling process to what serving the files in `directory` needs, for ever. It must have one thread, and listen
/// already.
///
/// # Errors
/// As [`menu`].
pub(crate) fn boot_files(directory: &Path) -> Result<(), String> {
    confine(files([(directory, AccessFs::ReadFile.into())])?, &calls::of_boot_files())
}

fn confine(files: RulesetCreated, calls: &[Call]) -> Result<(), String> {
    let never: Vec<Call> = NEVER.into_iter().chain(NO_OTHER_PROGRAM).map(any).collect();
    files.restrict_self().map_err(said)?;
    // Of two filters, the stricter one's word counts.
    for filter in [ended(&never)?, allowed(calls)?] {
        seccompiler::apply_filter(&filter).map_err(said)?;
    }
    Ok(())
}

/// A program of somebody else's, confined between fork and exec.
#[derive(Debug)]
pub(crate) struct Foreign {
    files: Option<RulesetCreated>,
    never: BpfProgram,
}

impl Foreign {
    /// What dnsmasq needs, which serves the files in `directory`.
    ///
    /// # Errors
    /// The kernel does not take a rule, in words for the operator.
    pub(crate) fn dnsmasq(directory: &Path) -> Result<Self, String> {
        let read = AccessFs::from_read(RIGHTS);
        let reads = DNSMASQ_READS.into_iter().map(|path| (Path::new(path), read));
        let null = (Path::new("/dev/null"), AccessFs::ReadFile | AccessFs::WriteFile);
        let served = (directory, AccessFs::ReadFile | AccessFs::ReadDir);
        Self::new(reads.chain([null, served]))
    }

    fn new<'a>(paths: impl IntoIterator<Item = (&'a Path, Rights)>) -> Result<Self, String> {
        let never: Vec<Call> = NEVER.into_iter().map(any).collect();
        Ok(Self { files: Some(files(paths)?), never: ended(&never)? })
    }

    /// Confines the calling process, once. It makes system calls only, takes no lock and allocates nothing, unless it fails.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn confine(&mut self) -> io::Result<()> {
        if let Some(files) = self.files.take() {
            files.restrict_self().map_err(io::Error::other)?;
        }
        seccompiler::apply_filter(&self.never).map_err(io::Error::other)
    }
}

/// Whether this kernel can confine as this module says.
///
/// # Errors
/// What it lacks, in words for the operator.
pub(crate) fn check() -> Result<(), String> {
    // Whoever has no filters does not know its own mode either.
    rustix::thread::secure_computing_mode().map_err(said)?;
    match RestrictSelf::default().no_new_privs(false).apply().map_err(said)?.landlock {
        LandlockStatus::Available { .. } => Ok(()),
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => Err("Landlock is not at work: which files the menus, \
            dnsmasq and boot-files open, only their users' rights say (`lsm=` on the kernel's command line must name it)"
            .to_owned()),
    }
}

/// What may be done with a file, or with all below a directory.
type Rights = landlock::BitFlags<AccessFs>;

/// Rules by which nothing may be opened but `paths`, and no TCP port be bound or called; what is open stays so. A path that is not
/// there is nobody's.
fn files<'a>(paths: impl IntoIterator<Item = (&'a Path, Rights)>) -> Result<RulesetCreated, String> {
    let rules = || -> Result<RulesetCreated, RulesetError> {
        let handled = Ruleset::default().handle_access(AccessFs::from_all(RIGHTS))?;
        let handled = handled.handle_access(AccessNet::from_all(RIGHTS))?.scope(Scope::from_all(RIGHTS))?;
        let mut rules = handled.create()?;
        for (path, rights) in paths {
            rules = rules.add_rules(path_beneath_rules([path], rights))?;
        }
        Ok(rules)
    };
    rules().map_err(said)
}

/// A filter that ends the process that makes one of these calls.
fn ended(calls: &[Call]) -> Result<BpfProgram, String> {
    filter(calls, SeccompAction::Allow, SeccompAction::KillProcess)
}

/// A filter that lets these calls pass; all others are as if the kernel had none like it.
fn allowed(calls: &[Call]) -> Result<BpfProgram, String> {
    let unknown = u32::try_from(libc::ENOSYS).map_err(said)?;
    filter(calls, SeccompAction::Errno(unknown), SeccompAction::Allow)
}

fn filter(calls: &[Call], others: SeccompAction, these: SeccompAction) -> Result<BpfProgram, String> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for Call { number, only } in calls {
        let rules = rules.entry(*number).or_default();
        if let Some(Only { argument, mask, value }) = only {
            let equal = SeccompCmpOp::MaskedEq(*mask);
            let condition = SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, equal, *value).map_err(said)?;
            rules.push(SeccompRule::new(vec![condition]).map_err(said)?);
        }
    }
    let filter = SeccompFilter::new(rules, others, these, TargetArch::x86_64).map_err(said)?;
    filter.try_into().map_err(said)
}

fn said(error: impl std::fmt::Display) -> String {
    format!("cannot be confined: {error}")
}

#[cfg(test)]
mod tests;

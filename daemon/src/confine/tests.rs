//! On this machine's kernel: a thread of the test confines itself and tries what it may and what it may not. What ends a process
//! is tried by another one: this program, started again for the one test that is ignored otherwise.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::UnmountFlags;

use super::*;
use crate::sys;

/// What a thread may do does not come back; so each has one of its own.
fn in_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().unwrap())
}

fn kind<T>(tried: io::Result<T>) -> Option<ErrorKind> {
    tried.err().map(|error| error.kind())
}

/// A kernel without such a call.
fn is_unknown<T>(tried: io::Result<T>) -> bool {
    tried.err().and_then(|error| error.raw_os_error()) == Some(libc::ENOSYS)
}

#[test]
fn this_kernel_confines() {
    check().unwrap();
}

#[test]
fn no_call_stands_twice_on_a_list_or_on_both() {
    let never: BTreeSet<i64> = NEVER.into_iter().chain(NO_OTHER_PROGRAM).collect();
    assert_eq!(never.len(), NEVER.len() + NO_OTHER_PROGRAM.len());
    for calls in [calls::of_menu(), calls::of_boot_files()] {
        let of = |number: i64| calls.iter().filter(move |call| call.number == number);
        for call in &calls {
            // A condition beside a call without one would be all that counts.
            assert!(call.only.is_some() || of(call.number).count() == 1, "{call:?}");
            assert!(!never.contains(&call.number), "{call:?}");
        }
    }
}

#[test]
fn a_menu_reaches_its_supervisor_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    in_a_thread(|| {
        menu().unwrap();
        UnixStream::connect(&socket).unwrap().set_nonblocking(true).unwrap();
        assert!(is_unknown(File::open("/etc/passwd")));
        assert!(is_unknown(File::create(directory.path().join("file"))));
        assert!(is_unknown(fs::read_dir("/")));
        assert!(is_unknown(fs::remove_file(&socket)));
        assert!(is_unknown(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))));
        assert!(is_unknown(TcpStream::connect(tcp.local_addr().unwrap())));
        assert!(is_unknown(Command::new("/bin/true").status()));
        assert!(thread::Builder::new().spawn(|| ()).is_err());
    });
}

#[test]
fn the_server_of_boot_files_opens_them_for_reading_and_nothing_else() {
    let [own, other] = [(), ()].map(|()| tempfile::tempdir().unwrap());
    let [file, elsewhere] = [&own, &other].map(|directory| directory.path().join("file"));
    fs::write(&file, "booted").unwrap();
    fs::write(&elsewhere, "secret").unwrap();
    std::os::unix::fs::symlink(&elsewhere, own.path().join("link")).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let _client = TcpStream::connect(address).unwrap();
    in_a_thread(|| {
        boot_files(own.path()).unwrap();
        listener.accept().unwrap();
        // In a thread that is made only now.
        thread::spawn({
            let file = file.clone();
            move || assert_eq!(fs::read_to_string(file).unwrap(), "booted")
        })
        .join()
        .unwrap();
        for outside in [&elsewhere, &own.path().join("link"), Path::new("/proc/self/environ")] {
            assert_eq!(kind(File::open(outside)), Some(ErrorKind::PermissionDenied), "{}", outside.display());
        }
        assert!(is_unknown(File::options().write(true).open(&file)));
        assert!(is_unknown(File::options().append(true).open(&file)));
        assert!(is_unknown(File::create(own.path().join("new"))));
        assert!(is_unknown(TcpStream::connect(address)));
        assert!(is_unknown(Command::new("/bin/true").status()));
    });
}

/// Landlock by itself, without a filter.
#[test]
fn files_are_read_where_a_rule_says_so() {
    let [own, other] = [(), ()].map(|()| tempfile::tempdir().unwrap());
    let [file, elsewhere] = [&own, &other].map(|directory| directory.path().join("file"));
    fs::write(&file, "").unwrap();
    fs::write(&elsewhere, "").unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    in_a_thread(|| {
        let status = files([(own.path(), AccessFs::ReadFile.into())]).unwrap().restrict_self().unwrap();
        File::open(&file).unwrap();
        let denied = Some(ErrorKind::PermissionDenied);
        assert_eq!(kind(File::open(&elsewhere)), denied);
        assert_eq!(kind(File::options().write(true).open(&file)), denied);
        assert_eq!(kind(File::create(own.path().join("new"))), denied);
        assert_eq!(kind(fs::remove_file(&file)), denied);
        assert_eq!(kind(Command::new("/bin/true").status()), denied);
        // Since Landlock's fourth version; Debian 12's kernel has the second.
        if matches!(status.landlock, LandlockStatus::Available { effective_abi, .. } if effective_abi >= ABI::V4) {
            assert_eq!(kind(TcpStream::connect(listener.local_addr().unwrap())), denied);
            assert_eq!(kind(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))), denied);
        }
    });
}

/// The name by which this program is told what to try.
const DEED: &str = "HOLDFAST_TEST_DEED";

/// Started by [`who_does_what_nobody_does_is_ended`]: confined as a menu is, it does one thing.
#[test]
#[ignore = "it is ended by the kernel"]
fn a_deed() {
    let deed = std::env::var(DEED).unwrap();
    menu().unwrap();
    match deed.as_str() {
        "nothing" => {}
        "exec" => drop(Command::new("/bin/true").exec()),
        "ptrace" => sys::let_be_traced().unwrap(),
        "unshare" => unshare(CloneFlags::CLONE_NEWUTS).unwrap(),
        "unmount" => rustix::mount::unmount("/nowhere", UnmountFlags::empty()).unwrap(),
        _ => panic!("{deed}"),
    }
}

fn do_it(deed: &str) -> ExitStatus {
    let mut again = Command::new(std::env::current_exe().unwrap());
    let again = again.args(["--ignored", "--exact", "confine::tests::a_deed", "--nocapture", "--test-threads=1"]);
    again.env(DEED, deed).output().unwrap().status
}

#[test]
fn who_does_what_nobody_does_is_ended() {
    assert!(do_it("nothing").success());
    for deed in ["exec", "ptrace", "unshare", "unmount"] {
        assert_eq!(do_it(deed).signal(), Some(libc::SIGSYS), "{deed}");
    }
}

/// Starts a program of this machine's as dnsmasq is started, with one more directory that it may read.
fn foreign(program: &str, arguments: &[&OsStr], read: &Path) -> ExitStatus {
    let mut command = Command::new(program);
    let system = ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache"]
        .map(|path| (Path::new(path), AccessFs::from_read(RIGHTS)));
    let own = (read, AccessFs::ReadFile | AccessFs::ReadDir);
    sys::confine_child(command.args(arguments), Foreign::new(system.into_iter().chain([own])).unwrap());
    command.output().unwrap().status
}

#[test]
fn a_program_of_somebody_else_s_is_confined() {
    let [own, other] = [(), ()].map(|()| tempfile::tempdir().unwrap());
    let [file, elsewhere] = [&own, &other].map(|directory| directory.path().join("file"));
    fs::write(&file, "").unwrap();
    fs::write(&elsewhere, "").unwrap();
    let status = |program: &str, path: &Path| foreign(program, &[path.as_os_str()], own.path());
    assert!(status("/bin/cat", &file).success());
    assert_eq!(status("/bin/cat", &elsewhere).code(), Some(1));
    assert_eq!(status("/bin/rm", &file).code(), Some(1));
    assert!(file.exists());
    let ended = foreign("/usr/bin/unshare", &["--uts", "/bin/true"].map(OsStr::new), own.path());
    assert_eq!(ended.signal(), Some(libc::SIGSYS));
}

/// This machine's dnsmasq, where it has one, with the libraries that it finds where the node's are.
#[test]
fn dnsmasq_starts_confined() {
    if !Path::new("/usr/sbin/dnsmasq").exists() {
        return;
    }
    let [own, other] = [(), ()].map(|()| tempfile::tempdir().unwrap());
    let tests = |directory: &Path| {
        let file = directory.join("configuration");
        fs::write(&file, "port=0\n").unwrap();
        let mut command = Command::new("/usr/sbin/dnsmasq");
        command.args(["--test".to_owned(), format!("--conf-file={}", file.display())]);
        sys::confine_child(&mut command, Foreign::dnsmasq(own.path()).unwrap());
        command.output().unwrap()
    };
    let taken = tests(own.path());
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let refused = tests(other.path());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied"), "{refused:?}");
}

//! Debian's `upsd` with NUT's `dummy-ups`, for the time of a test.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use hw::nut;
use hw::port::tcp;
use hw::ups::Flag;
use hw::{Credentials, Dialogue};
use tempfile::TempDir;

const DRIVER: &str = "/lib/nut/dummy-ups";
/// The program itself: what Debian has in /usr/sbin is a script around it, which asks the machine's own configuration.
const UPSD: &str = "/lib/nut/upsd";

/// An upsd with its driver, both ours and both ended with it.
pub(crate) struct Upsd {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    folder: TempDir,
    /// The driver, and upsd.
    pub(crate) processes: Vec<Child>,
}

impl Drop for Upsd {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A user's credentials at our upsd.
pub(crate) fn user(name: &str, password: &str) -> Credentials {
    Credentials { user: name.to_owned(), password: password.to_owned() }
}

/// Who may order it anything.
pub(crate) fn mon() -> Credentials {
    user("mon", "pass \"word\" \\ one")
}

/// The user who runs this test: NUT's programs would change to their own.
fn me() -> String {
    let said = Command::new("id").arg("-un").output().unwrap().stdout;
    String::from_utf8(said).unwrap().trim().to_owned()
}

fn start(folder: &Path, program: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new(program);
    command.args(arguments).env("NUT_CONFPATH", folder).env("NUT_STATEPATH", folder).env("NUT_ALTPIDPATH", folder);
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Starts both, and waits until they know the UPS.
pub(crate) fn serve(settings: &str) -> Upsd {
    serve_in(TempDir::new().unwrap(), settings)
}

/// The same in a folder that has files already, with more lines for `upsd.conf`.
pub(crate) fn serve_in(folder: TempDir, settings: &str) -> Upsd {
    for needed in [DRIVER, UPSD, "/usr/bin/upsc", "/usr/bin/upsrw"] {
        assert!(Path::new(needed).exists(), "{needed} is missing: apt-get install nut-server nut-client");
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "ups.conf",
        "[ups1]\ndriver = dummy-ups\nport = ups1.dev\ndesc = \"the \\\"left\\\" one\"\nmode = dummy-once\n",
    );
    write("ups1.dev", "ups.status: OL CHRG\nbattery.charge: 90.5\nbattery.runtime: 1200\n");
    write("upsd.conf", &format!("LISTEN {} {}\n{settings}", free.ip(), free.port()));
    let password = "\"pass \\\"word\\\" \\\\ one\"";
    write(
        "upsd.users",
        &format!(
            "[mon]\npassword = {password}\nupsmon primary\n[guest]\npassword = guest\nupsmon secondary\n\
             [admin]\npassword = admin\nactions = SET\n"
        ),
    );
    let me = me();
    let driver = start(folder.path(), DRIVER, &["-a", "ups1", "-u", &me, "-D"]);
    let upsd = start(folder.path(), UPSD, &["-u", &me, "-D"]);
    let served = Upsd { address: free, folder, processes: vec![driver, upsd] };
    let begin = Instant::now();
    loop {
        let reading = drive(&served, nut::read("ups1"));
        if matches!(&reading, Ok(Ok(reading)) if reading.is(Flag::OnLine)) {
            return served;
        }
        let log = || std::fs::read_to_string(served.folder.path().join("log")).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(30), "{reading:?}\n{}", log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Carries one of our dialogues, in clear.
pub(crate) fn drive<D: Dialogue>(upsd: &Upsd, dialogue: D) -> Result<D::Outcome, tcp::Error> {
    tcp::run(dialogue, upsd.address, Instant::now() + Duration::from_secs(20), &AtomicBool::new(false))
}

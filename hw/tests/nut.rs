//! Our NUT client against Debian's own `upsd`, with NUT's `dummy-ups` for a UPS and NUT's own tools beside us.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test file: what is not as it should be is a failure")]

mod upsd;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use hw::nut::{self, Error, ErrorCode};
use hw::port::tcp;
use hw::ups::{Flag, UpsReading};
use upsd::{Upsd, drive, mon, serve, user};

/// What NUT's own client says.
fn upsc(upsd: &Upsd, variable: &str) -> String {
    let ups = format!("ups1@{}", upsd.address);
    let said = Command::new("/usr/bin/upsc").args([&ups, variable]).output().unwrap().stdout;
    String::from_utf8(said).unwrap().trim().to_owned()
}

/// Makes the UPS be so, with NUT's own tool.
fn set_status(upsd: &Upsd, status: &str) {
    let arguments = ["-s", &format!("ups.status={status}"), "-u", "admin", "-p", "admin", "-w"];
    let ups = format!("ups1@{}", upsd.address);
    let set = Command::new("/usr/bin/upsrw").args(arguments).arg(ups).output().unwrap();
    assert!(set.status.success(), "{set:?}");
}

/// Reads until it is so.
fn read_until(upsd: &Upsd, flag: Flag) -> UpsReading {
    let begin = Instant::now();
    loop {
        let reading = drive(upsd, nut::read("ups1")).unwrap().unwrap();
        if reading.is(flag) {
            return reading;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "never {flag:?}, but {reading}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_real_upsd_is_read() {
    let upsd = serve("");
    let directory = drive(&upsd, nut::list()).unwrap().unwrap();
    assert!(directory.version.starts_with("Network UPS Tools upsd"), "{}", directory.version);
    assert_eq!(directory.upses, [("ups1".to_owned(), "the \"left\" one".to_owned())]);

    let reading = drive(&upsd, nut::read("ups1")).unwrap().unwrap();
    assert_eq!(reading.flags, [Flag::OnLine, Flag::Charging].into());
    assert_eq!((reading.charge_percent, reading.runtime_s), (Some(90), Some(1200)));
    assert!(!reading.is_critical());

    set_status(&upsd, "OB LB");
    let reading = read_until(&upsd, Flag::LowBattery);
    assert!(reading.is_critical() && reading.is(Flag::OnBattery) && !reading.is(Flag::OnLine), "{reading}");
}

#[test]
fn a_real_upsd_refuses_each_in_its_own_way() {
    let mut upsd = serve("");
    let refused = |asked, code| Error::Refused { asked, code };
    let unknown = drive(&upsd, nut::read("ups9"));
    assert_eq!(unknown, Ok(Err(refused("read the UPS", ErrorCode::UnknownUps))));
    let wrong = user("mon", "wrong");
    let denied = drive(&upsd, nut::force_shutdown("ups1", &wrong));
    assert_eq!(denied, Ok(Err(refused("log in", ErrorCode::AccessDenied))));
    let guest = user("guest", "guest");
    let denied = drive(&upsd, nut::force_shutdown("ups1", &guest));
    assert_eq!(denied, Ok(Err(refused("be in charge of the UPS", ErrorCode::AccessDenied))));
    assert_eq!(upsc(&upsd, "ups.status"), "OL CHRG", "nothing was ordered");

    // Without its driver, the UPS is not read; upsd knows at once that it has lost it.
    upsd.processes[0].kill().unwrap();
    upsd.processes[0].wait().unwrap();
    let begin = Instant::now();
    loop {
        match drive(&upsd, nut::read("ups1")).unwrap() {
            Err(Error::Refused { code: ErrorCode::DriverNotConnected | ErrorCode::DataStale, .. }) => break,
            other => assert!(begin.elapsed() < Duration::from_secs(30), "{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    upsd.processes[1].kill().unwrap();
    upsd.processes[1].wait().unwrap();
    assert_eq!(drive(&upsd, nut::read("ups1")), Err(tcp::Error::Refused));
}

#[test]
fn a_real_upsd_counts_us_and_takes_the_order() {
    let upsd = serve("");
    let (told, readings) = channel();
    let cancel = Arc::new(AtomicBool::new(false));
    let attending = {
        let (address, cancel) = (upsd.address, cancel.clone());
        let tell = move |reading: &UpsReading| told.send(reading.clone()).unwrap();
        let dialogue = nut::attend("ups1", &user("guest", "guest"), 200, tell);
        std::thread::spawn(move || tcp::run(dialogue, address, Instant::now() + Duration::from_secs(60), &cancel))
    };
    assert!(readings.recv().unwrap().is(Flag::OnLine));
    let logins = |count: &str| {
        let begin = Instant::now();
        while upsc_logins(&upsd) != count {
            assert!(begin.elapsed() < Duration::from_secs(30), "never {count} logged in");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    logins("1");
    assert_eq!(drive(&upsd, nut::force_shutdown("ups1", &mon())), Ok(Ok(())));
    let last = readings.recv().unwrap();
    assert!(last.is(Flag::ForcedShutdown) && last.is_critical(), "{last}");
    assert!(upsc(&upsd, "ups.status").split(' ').any(|word| word == "FSD"), "NUT's own client sees it too");
    cancel.store(true, Ordering::Relaxed);
    assert_eq!(attending.join().unwrap(), Ok(Ok(last)));
    logins("0");
}

/// How many are logged in, asked by hand: NUT's tools do not tell.
fn upsc_logins(upsd: &Upsd) -> String {
    use std::io::{BufRead as _, BufReader, Write as _};
    let mut stream = std::net::TcpStream::connect(upsd.address).unwrap();
    stream.write_all(b"GET NUMLOGINS ups1\nLOGOUT\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.trim().rsplit(' ').next().unwrap().to_owned()
}

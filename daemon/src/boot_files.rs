//! The files that nodes boot, by HTTP, on the gateway's cluster address.
//!
//! TFTP waits for a round trip every kilobyte, which takes minutes where machines are emulated: boot loaders (iPXE, GRUB) read
//! the big files here. One request a connection, `GET` only, and nothing outside the one directory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::{confine, sys};

/// HTTP's port.
const PORT: u16 = 80;
/// The most connections at a time; more nodes wait for their turn with the firmware's own patience.
const CONNECTIONS: usize = 64;
/// The longest request, in bytes.
const REQUEST: u64 = 4096;
/// How long a node may say or take nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// The applet: `boot-files ADDRESS DIRECTORY`.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let [address, directory] = arguments else {
        return failed("boot-files ADDRESS DIRECTORY");
    };
    match listen(address, Path::new(directory)) {
        Ok(listener) => serve(&listener, Path::new(directory)),
        Err(error) => failed(&format!("boot-files on {address}: {error}")),
    }
}

/// Listens, and gives up whatever answering does not need: only root may listen on this port.
fn listen(address: &str, directory: &Path) -> Result<TcpListener, String> {
    let address = address.parse::<Ipv4Addr>().map_err(|error| error.to_string())?;
    let listener = TcpListener::bind((address, PORT)).map_err(|error| error.to_string())?;
    sys::become_user(sys::BOOT).map_err(|error| error.to_string())?;
    confine::boot_files(directory)?;
    Ok(listener)
}

fn failed(text: &str) -> ExitCode {
    // Nobody is told where the log cannot be written.
    let _ = io::stderr().lock().write_all(format!("holdfast: {text}\n").as_bytes());
    ExitCode::FAILURE
}

fn serve(listener: &TcpListener, directory: &Path) -> ExitCode {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming().flatten() {
        if open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS {
            open.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (open, directory) = (Arc::clone(&open), directory.to_path_buf());
        thread::spawn(move || {
            // A node that breaks off asks again.
            let _ = answer(stream, &directory);
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
    ExitCode::FAILURE
}

fn answer(mut stream: TcpStream, directory: &Path) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = BufReader::new(stream.try_clone()?.take(REQUEST));
    let mut first = String::new();
    request.read_line(&mut first)?;
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    let Some(mut file) = path_of(&first).and_then(|path| File::open(directory.join(path)).ok()) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let length = file.metadata()?.len();
    // One write: some boot loaders take no header that comes in pieces.
    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").as_bytes())?;
    io::copy(&mut file, &mut stream).map(drop)
}

/// The file that a request's first line asks for, below the directory.
fn path_of(line: &str) -> Option<PathBuf> {
    let path = Path::new(line.strip_prefix("GET /")?.split(' ').next()?);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && path.file_name().is_some()).then(|| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_the_directory() {
        assert_eq!(path_of("GET /boot.ipxe HTTP/1.1\r\n"), Some(PathBuf::from("boot.ipxe")));
        assert_eq!(path_of("GET /a/b HTTP/1.0\r\n"), Some(PathBuf::from("a/b")));
        for refused in
            ["GET /../etc/passwd HTTP/1.1", "GET //etc/passwd HTTP/1.1", "GET / HTTP/1.1", "PUT /a HTTP/1.1", ""]
        {
            assert_eq!(path_of(refused), None, "{refused}");
        }
    }

    #[test]
    fn a_file_is_sent_whole_and_what_is_not_there_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), [7; 100_000]).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || serve(&listener, directory.path()));
        let ask = |path: &str| {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            answer
        };
        let answer = ask("/file");
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n"));
        assert!(answer.ends_with(&[7; 100_000]));
        assert!(ask("/other").starts_with(b"HTTP/1.1 404 "));
    }
}

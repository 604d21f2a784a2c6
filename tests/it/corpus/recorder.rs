//! A backend that trusts nobody: it keeps the very bytes that it gets, and reads them by the letter.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};

use parking_lot::Mutex;

/// One whole request.
#[derive(Debug)]
pub(super) struct Seen {
    /// Method and target.
    pub(super) line: String,
    pub(super) body: Vec<u8>,
    /// How many fields say where it ends.
    pub(super) framings: usize,
    pub(super) raw: Vec<u8>,
}

pub(super) struct Recorder {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, shared) = (stream.unwrap(), shared.clone());
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, seen }
    }

    /// The whole requests since the last time.
    pub(super) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock())
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Seen>>) {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 8192]);
    let mut invited = false;
    loop {
        if let Some((request, length)) = parse(&bytes) {
            bytes.drain(..length);
            invited = false;
            seen.lock().push(request);
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                return;
            }
            continue;
        }
        let head = String::from_utf8_lossy(&bytes).to_lowercase();
        if !invited && head.contains("\r\n\r\n") && head.contains("expect: 100-continue") {
            invited = true;
            let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        match stream.read(&mut buffer) {
            Ok(read @ 1..) => bytes.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
}

/// The first whole request in `bytes`, and its length.
fn parse(bytes: &[u8]) -> Option<(Seen, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let fields: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let of = |wanted: &str| fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.clone()).collect();
    let (lengths, codings): (Vec<String>, Vec<String>) = (of("content-length"), of("transfer-encoding"));
    let framings = lengths.len() + codings.len();
    let (body, length) = if codings.is_empty() {
        let length: usize = lengths.first().map_or(0, |length| length.parse().unwrap());
        (bytes.get(end..end + length)?.to_vec(), end + length)
    } else {
        let (body, length) = chunks(&bytes[end..])?;
        (body, end + length)
    };
    Some((Seen { line, body, framings, raw: bytes[..length].to_vec() }, length))
}

/// A chunked body, as a proxy that writes its own chunks would write it, and its length.
fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes[at..].windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).unwrap(), 16).unwrap();
        at += line + 2;
        let chunk = bytes.get(at..at + size + 2)?;
        assert_eq!(&chunk[size..], b"\r\n", "a chunk has another length than it says");
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}

//! Backends that speak for themselves, byte by byte.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};

/// A backend that does `talk` with each connection; its host and port.
pub(crate) fn raw_backend(talk: impl Fn(TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // What the system keeps of its own accord is little.
    setsockopt(&listener, sockopt::RcvBuf, &4096).unwrap();
    let url = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let talk = talk.clone();
            std::thread::spawn(move || talk(stream));
        }
    });
    url
}

/// Reads a head, and no more.
pub(crate) fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// An address where nobody is accepted any more: connecting to it takes as long as one waits.
pub(crate) struct FullBackend {
    pub(crate) address: SocketAddr,
    _held: (TcpListener, Vec<TcpStream>),
}

pub(crate) fn full_backend() -> FullBackend {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listen(&listener, Backlog::new(1).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(stream);
    }
    FullBackend { address, _held: (listener, waiting) }
}

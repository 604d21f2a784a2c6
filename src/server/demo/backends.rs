//! The three backends: a few lines of HTTP/1.1, enough for the gateway and for curl.

use std::{
    io,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use super::{page, ports::Ports};

/// The longest head, and the longest body, that one reads.
const MOST: usize = 64 << 10;

/// All backends, by their place.
pub(super) struct Backends {
    ports: Ports,
    all: [Backend; 3],
}

struct Backend {
    name: &'static str,
    delay: Duration,
    failing: AtomicBool,
    /// Requests answered, without health checks.
    answered: AtomicU64,
}

/// A request, as far as a backend looks at it.
struct Request {
    method: String,
    path: String,
    wants_html: bool,
    /// The length of its body; `None` when only the end of the connection tells.
    length: Option<usize>,
}

struct Answer {
    status: &'static str,
    media: &'static str,
    body: String,
}

impl Backends {
    pub(super) fn new(ports: Ports) -> Self {
        let backend = |name, delay| Backend {
            name,
            delay: Duration::from_millis(delay),
            failing: AtomicBool::new(false),
            answered: AtomicU64::new(0),
        };
        Self { ports, all: [backend("one", 0), backend("two", 0), backend("slow", 400)] }
    }

    /// How many requests the backend in this place has answered.
    pub(super) fn answered(&self, place: usize) -> u64 {
        self.all[place].answered.load(Relaxed)
    }

    /// Serves all of them until it is dropped.
    pub(super) async fn serve_all(self: Arc<Self>, sockets: [TcpListener; 3]) -> io::Result<()> {
        let [one, two, three] = sockets;
        let serve = |place, socket| self.clone().serve(place, socket);
        tokio::try_join!(serve(0, one), serve(1, two), serve(2, three)).map(drop)
    }

    /// Serves one of them until it is dropped, which closes its connections.
    pub(super) async fn serve(self: Arc<Self>, place: usize, socket: TcpListener) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(socket)?;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(self.clone().talk(place, stream))),
                    // Want of descriptors, say.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn talk(self: Arc<Self>, place: usize, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        while let Ok(Some(request)) = read(&mut stream, &mut buffer).await {
            let answer = self.answer(place, &request).await;
            let (length, close) = (answer.body.len(), request.length.is_none());
            let connection = if close { "connection: close\r\n" } else { "" };
            let mut text = format!(
                "HTTP/1.1 {}\r\ncontent-type: {}\r\ncontent-length: {length}\r\n{connection}\r\n",
                answer.status, answer.media
            );
            if request.method != "HEAD" {
                text.push_str(&answer.body);
            }
            if stream.write_all(text.as_bytes()).await.is_err() || close {
                return;
            }
        }
    }

    async fn answer(&self, place: usize, request: &Request) -> Answer {
        let backend = &self.all[place];
        let path = request.path.split('?').next().unwrap_or_default();
        match path {
            "/" => {
                let (media, body) = if request.wants_html {
                    ("text/html; charset=utf-8", page::html(self.ports))
                } else {
                    ("text/plain; charset=utf-8", page::text(self.ports))
                };
                return Answer { status: "200 OK", media, body };
            }
            "/users/fail" => backend.failing.store(true, Relaxed),
            // Whoever asks for it comes to one that is well: the others are meant.
            "/users/heal" => self.all.iter().for_each(|backend| backend.failing.store(false, Relaxed)),
            "/health" => {}
            _ => tokio::time::sleep(backend.delay).await,
        }
        if path != "/health" {
            backend.answered.fetch_add(1, Relaxed);
        }
        let failing = backend.failing.load(Relaxed);
        let state = if failing { "failing" } else { "fine" };
        let status = if failing && path != "/users/fail" { "503 Service Unavailable" } else { "200 OK" };
        let value = serde_json::json!({ "backend": backend.name, "path": path, "state": state });
        Answer { status, media: "application/json", body: format!("{value}\n") }
    }
}

/// The next request on a connection; `buffer` holds what has been read too far. `None` at the end.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if buffer.len() > MOST || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let request = parse(&String::from_utf8_lossy(&buffer[..end]));
    let whole = end + request.length.unwrap_or(0).min(MOST);
    while buffer.len() < whole {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    buffer.drain(..whole);
    Ok(Some(request))
}

fn parse(head: &str) -> Request {
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = Request { method, path, wants_html: false, length: Some(0) };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        match name.to_ascii_lowercase().as_str() {
            "accept" => request.wants_html |= value.contains("text/html"),
            "content-length" => request.length = value.trim().parse().ok().filter(|length| *length <= MOST),
            "transfer-encoding" => request.length = None,
            _ => {}
        }
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_far_as_it_matters() {
        let request = parse("POST /users/fail HTTP/1.1\r\nContent-Length: 3\r\nAccept: text/html,*/*\r\n\r\n");
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/users/fail"));
        assert!(request.wants_html && request.length == Some(3));
        assert_eq!(parse("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").length, None);
        assert_eq!(parse("GET / HTTP/1.1\r\n\r\n").length, Some(0));
    }
}

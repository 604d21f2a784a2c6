//! Many requests, over connections that are kept.

use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, Uri};

/// Longer than any answer should take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections to each gateway.
const EACH: usize = 4;

/// The largest answer that is read.
const LARGEST: usize = 1 << 20;

/// One answer.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Between sending and answer, since the beginning.
    pub(super) at: Duration,
    pub(super) status: u16,
    pub(super) policy: Option<String>,
}

/// One gateway.
pub(super) struct Target {
    url: String,
    address: String,
    head: String,
}

/// A connection to it.
pub(super) struct Connection<'t> {
    target: &'t Target,
    stream: TcpStream,
}

/// The lines of `fields`, checked.
pub(super) fn fields(fields: &[String]) -> Result<String, String> {
    let line = |field: &String| {
        let (name, value) = field.split_once(':')?;
        let (name, value) = (name.trim().parse::<HeaderName>().ok()?, value.trim());
        HeaderValue::try_from(value).ok()?;
        Some(format!("{name}: {value}\r\n"))
    };
    let lines = fields.iter().map(line).collect::<Option<String>>();
    lines.ok_or_else(|| "a field is written like 'Name: value'".to_owned())
}

impl Target {
    pub(super) fn new(url: &str, fields: &str) -> Result<Self, String> {
        let place = url.split_once("://").map_or(url, |(_, rest)| rest);
        if place.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')) {
            // And what stands there is not repeated: it may be a password.
            return Err("a login does not stand in a URL: give what the gateway wants with -H".to_owned());
        }
        let wrong = || format!("'{url}' is not the URL of a gateway: write it like http://10.0.0.1:8080/path (no TLS)");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let head = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n{fields}\r\n");
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        Ok(Self { url: url.to_owned(), address, head })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn connect(&self) -> Result<Connection<'_>, String> {
        let failed = |e: std::io::Error| format!("{} cannot be reached: {e}", self.url);
        let place = self.address.to_socket_addrs().map_err(failed)?.next();
        let place = place.ok_or_else(|| format!("{} has no address", self.url))?;
        let stream = TcpStream::connect_timeout(&place, PATIENCE).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Connection { target: self, stream })
    }
}

impl Connection<'_> {
    /// Asks once; a connection that the gateway has closed is made anew.
    pub(super) fn ask(&mut self, begun: Instant) -> Result<Asked, String> {
        let sent = begun.elapsed();
        let (head, closes) = self.exchange().map_err(|e| match e.kind() {
            std::io::ErrorKind::WouldBlock => format!("{}: no answer within {PATIENCE:?}", self.target.url),
            _ => format!("{}: {e}", self.target.url),
        })?;
        let status = head.get(9..12).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| format!("{} does not speak HTTP/1.1", self.target.url))?;
        let field = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(':'));
            let value = lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
            // It is printed, and a terminal takes some characters for commands.
            value.map(|value| value.replace(char::is_control, "?"))
        };
        let policy = field("ratelimit-policy");
        if closes {
            *self = self.target.connect()?;
        }
        Ok(Asked { at: (sent + begun.elapsed()) / 2, status, policy })
    }

    /// The head of the answer, and whether the connection ends.
    fn exchange(&mut self) -> std::io::Result<(String, bool)> {
        self.stream.write_all(self.target.head.as_bytes())?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 8192]);
        loop {
            let read = self.stream.read(&mut buffer)?;
            answer.extend_from_slice(&buffer[..read]);
            let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head = String::from_utf8_lossy(&answer[..end]).into_owned();
                let low = head.to_ascii_lowercase();
                let length =
                    low.split("\r\ncontent-length:").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
                let had = answer.len() - end - 4;
                let closes = length.is_none() || low.contains("\r\nconnection: close");
                if length.is_none_or(|length: usize| had >= length) {
                    return Ok((head, closes));
                }
            }
            if read == 0 || answer.len() > LARGEST {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Sends `count` requests as fast as it goes.
pub(super) fn at_once(targets: &[Target], count: u64, begun: Instant) -> Result<Vec<Asked>, String> {
    let next = AtomicU64::new(0);
    together(targets, begun, &|_| (next.fetch_add(1, Relaxed) < count).then_some(Duration::ZERO))
}

/// Sends `rate` requests a second for `time`, or as many as it can.
pub(super) fn steadily(targets: &[Target], rate: f64, time: Duration, begun: Instant) -> Result<Vec<Asked>, String> {
    let (next, from) = (AtomicU64::new(0), begun.elapsed());
    together(targets, begun, &|now| {
        #[expect(clippy::cast_precision_loss, reason = "a number of requests")]
        let at = from + Duration::from_secs_f64(next.fetch_add(1, Relaxed) as f64 / rate);
        (at < from + time && now < from + time).then(|| at.saturating_sub(now))
    })
}

/// Asks all of them from several threads, until `pause` says that it is over.
fn together(
    targets: &[Target],
    begun: Instant,
    pause: &(dyn Fn(Duration) -> Option<Duration> + Sync),
) -> Result<Vec<Asked>, String> {
    let all = Mutex::new(Ok(Vec::new()));
    let work = |target: &Target| -> Result<Vec<Asked>, String> {
        let (mut connection, mut asked) = (target.connect()?, Vec::new());
        while let Some(pause) = pause(begun.elapsed()) {
            std::thread::sleep(pause);
            asked.push(connection.ask(begun)?);
        }
        Ok(asked)
    };
    std::thread::scope(|scope| {
        for target in targets.iter().cycle().take(EACH * targets.len()) {
            let (work, all) = (&work, &all);
            scope.spawn(move || {
                let done = work(target);
                let mut all = all.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                match (&mut *all, done) {
                    (Ok(all), Ok(done)) => all.extend(done),
                    (all @ Ok(_), Err(e)) => *all = Err(e),
                    (Err(_), _) => {}
                }
            });
        }
    });
    all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

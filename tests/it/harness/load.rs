//! Many requests at a steady pace, over connections that are kept.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Mutex,
    time::{Duration, Instant},
};

use super::Gateway;

/// What came of them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    /// Answers by status.
    pub(crate) statuses: BTreeMap<u16, u32>,
    /// The time of each, in order of size once it is over.
    pub(crate) times: Vec<Duration>,
    /// From the first to the last.
    pub(crate) took: Duration,
}

impl Tally {
    pub(crate) fn count(&self, status: u16) -> u32 {
        self.statuses.get(&status).copied().unwrap_or(0)
    }

    pub(crate) fn all(&self) -> u32 {
        self.statuses.values().sum()
    }

    /// The time within which so large a share of them was answered.
    pub(crate) fn within(&self, share: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share"
        )]
        let place = ((self.times.len().max(1) - 1) as f64 * share) as usize;
        self.times.get(place).copied().unwrap_or_default()
    }

    fn add(&mut self, other: &Self) {
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.times.extend(&other.times);
    }
}

/// Asks `gateways` in turn for `path`, as often as `rate` a second says and they can, for `seconds`.
pub(crate) fn load(gateways: &[&Gateway], path: &str, rate: f64, seconds: f64) -> Tally {
    const EACH: u32 = 3;
    let (begun, total) = (Instant::now(), Mutex::new(Tally::default()));
    let threads = EACH * u32::try_from(gateways.len()).unwrap();
    std::thread::scope(|scope| {
        for number in 0..threads {
            let (gateway, total) = (gateways[number as usize % gateways.len()], &total);
            scope.spawn(move || {
                let pause = Duration::from_secs_f64(f64::from(threads) / rate);
                let mut next = begun + pause.mul_f64(f64::from(number) / f64::from(threads));
                let (mut own, mut stream) = (Tally::default(), connect(gateway));
                while begun.elapsed().as_secs_f64() < seconds {
                    if let Some(wait) = next.checked_duration_since(Instant::now()) {
                        std::thread::sleep(wait);
                    }
                    next += pause;
                    if begun.elapsed().as_secs_f64() >= seconds {
                        break;
                    }
                    let sent = Instant::now();
                    let status = ask(&mut stream, path).unwrap_or_else(|_| {
                        stream = connect(gateway);
                        0
                    });
                    own.times.push(sent.elapsed());
                    *own.statuses.entry(status).or_default() += 1;
                }
                total.lock().unwrap().add(&own);
            });
        }
    });
    let mut total = total.into_inner().unwrap();
    total.times.sort_unstable();
    total.took = begun.elapsed();
    total
}

fn connect(gateway: &Gateway) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// One request and its answer's status.
fn ask(stream: &mut TcpStream, path: &str) -> std::io::Result<u16> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Ok(head[9..12].parse().unwrap_or(0));
        }
    }
}

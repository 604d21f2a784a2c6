//! A request on a connection of its own, for the tour: no connection is kept, so none can have been closed meanwhile.

use std::{io, net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Nothing in the demo takes longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The status and the body that come from `port`.
///
/// # Errors
/// There is no answer, or half of one.
pub(super) async fn get(port: u16, path: &str) -> io::Result<(u16, String)> {
    tokio::time::timeout(PATIENCE, exchange(port, path)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn exchange(port: u16, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    parse(&String::from_utf8_lossy(&bytes)).ok_or_else(|| io::Error::other("the answer breaks off"))
}

fn parse(text: &str) -> Option<(u16, String)> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse::<usize>().ok() } else { None }
    });
    (length.is_none_or(|length| length == body.len())).then(|| (status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_answer_is_none() {
        let answer = |body: &str| parse(&format!("HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n{body}"));
        assert_eq!(answer("ab"), Some((429, "ab".to_owned())));
        assert_eq!((answer("a"), parse("HTTP/1.1 200 OK\r\n"), parse("")), (None, None, None));
    }
}

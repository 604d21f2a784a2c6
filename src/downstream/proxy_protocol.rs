//! The PROXY protocol, versions 1 and 2: a load balancer in front says who connected to it. Only `trusted_proxies` are
//! believed, and of them it is required: the specification forbids guessing (HAProxy, `proxy-protocol.txt` §2).

use std::net::{IpAddr, SocketAddr};

use ppp::{HeaderResult, PartialResult as _, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest version 1 line (specification §2.1).
const V1_MOST: usize = 107;
/// The fixed part of version 2.
const V2_FIXED: usize = 16;
/// Version 2 with the command LOCAL.
const V2_LOCAL: u8 = 0x20;
/// The longest version 2 that is read; addresses and the extensions that clouds add need far less.
const V2_MOST: usize = 2048;

/// Reads the header of the PROXY protocol, and not a byte more. `Ok(None)`: the balancer speaks for itself (a health check).
///
/// # Errors
/// What is wrong with it.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, &'static str> {
    let mut bytes = vec![0; V2_FIXED];
    // No version 1 line that says anything is shorter than this.
    stream.read_exact(&mut bytes[..12]).await.map_err(|_| "the connection ended within it")?;
    if bytes[..12] == *v2::PROTOCOL_PREFIX {
        stream.read_exact(&mut bytes[12..]).await.map_err(|_| "the connection ended within it")?;
        let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        if V2_FIXED + length > V2_MOST {
            return Err("it is too long");
        }
        bytes.resize(V2_FIXED + length, 0);
        stream.read_exact(&mut bytes[V2_FIXED..]).await.map_err(|_| "the connection ended within it")?;
        if bytes[12] == V2_LOCAL {
            // The rest of it is to be discarded, whatever family it names (specification §2.2).
            return Ok(None);
        }
    } else if bytes.starts_with(b"PROXY ") {
        bytes.truncate(12);
        while !bytes.ends_with(b"\r\n") {
            if bytes.len() >= V1_MOST {
                return Err("it is too long");
            }
            bytes.push(stream.read_u8().await.map_err(|_| "the connection ended within it")?);
        }
    } else {
        return Err("it is missing");
    }
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
    // A port has digits alone, and the parser takes a sign.
    if bytes.starts_with(b"PROXY TCP") && bytes.contains(&b'+') {
        return Err("it is malformed");
    }
    let header = HeaderResult::parse(bytes);
    if header.is_incomplete() {
        return Err("it is malformed");
    }
    match header {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(of) => Some(SocketAddr::new(IpAddr::V4(of.source_address), of.source_port)),
            v1::Addresses::Tcp6(of) => Some(SocketAddr::new(IpAddr::V6(of.source_address), of.source_port)),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) => Ok(match header.addresses {
            v2::Addresses::IPv4(of) => Some(SocketAddr::new(IpAddr::V4(of.source_address), of.source_port)),
            v2::Addresses::IPv6(of) => Some(SocketAddr::new(IpAddr::V6(of.source_address), of.source_port)),
            v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err("it is malformed"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    async fn read_all(mut bytes: &[u8]) -> (Result<Option<SocketAddr>, &'static str>, usize) {
        let result = read(&mut bytes).await;
        (result, bytes.len())
    }

    fn v2_bytes(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, body].concat()
    }

    #[tokio::test]
    async fn reads_both_versions_and_not_a_byte_more() {
        let source = Some("192.0.2.7:4711".parse().unwrap());
        let one = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\nGET /";
        assert_eq!(read_all(one).await, (Ok(source), 5));
        let body = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 187];
        let two = [v2_bytes(1, 0x11, &body), b"GET /".to_vec()].concat();
        assert_eq!(read_all(&two).await, (Ok(source), 5));
        let with_extensions = v2_bytes(1, 0x11, &[&body[..], &[4, 0, 1, 0]].concat());
        assert_eq!(read_all(&with_extensions).await, (Ok(source), 0));
        let six = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n";
        assert_eq!(read_all(six).await.0, Ok(Some("[2001:db8::1]:1".parse().unwrap())));
    }

    #[tokio::test]
    async fn a_balancer_that_speaks_for_itself_names_nobody() {
        assert_eq!(read_all(b"PROXY UNKNOWN\r\n").await.0, Ok(None));
        for (family, body) in [(0, &[][..]), (0x11, &[]), (0x11, &[1, 2, 3]), (0x7f, &[9; 40]), (0x31, &[0; 216])] {
            let bytes = [v2_bytes(0, family, body), b"GET /".to_vec()].concat();
            assert_eq!(read_all(&bytes).await, (Ok(None), 5), "{family:x}");
        }
    }

    #[tokio::test]
    async fn refuses_what_it_cannot_read() {
        for wrong in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
            b"PROXY TCP4 192.0.2.999 198.51.100.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 44",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n",
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1 +2\r\n",
            &[b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(),
            &v2_bytes(1, 0x11, &[1, 2, 3]),
            &v2_bytes(7, 0x11, &[0; 12]),
            &[v2::PROTOCOL_PREFIX, &[0x21, 0x11, 0xff, 0xff]].concat(),
        ] {
            assert!(read_all(wrong).await.0.is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), lead in 0..3) {
            let lead: &[u8] = [&b""[..], b"PROXY ", v2::PROTOCOL_PREFIX][usize::try_from(lead).unwrap()];
            let bytes = [lead, &bytes[..]].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (result, left) = runtime.block_on(read_all(&bytes));
            prop_assert!(result.is_err() || left <= bytes.len());
        }
    }
}

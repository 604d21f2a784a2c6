//! What a backend says of the answer that it begins, before it is believed and passed on. Pingora takes any transfer
//! coding for a length that is not known, lets 101 pass that nobody asked for, and hands on what the client could read
//! differently than the gateway did.

use http::{HeaderName, HeaderValue, StatusCode, Version, header};
use pingora::{Error, ErrorType, http::ResponseHeader};

use crate::message::{fields, framing::Framing, upgrade, violation::Violation};

/// Fields that frame an answer.
static FRAMING: [HeaderName; 2] = [header::TRANSFER_ENCODING, header::CONTENT_LENGTH];

/// Checks the framing of an answer, and puts it into its one proper form. `asked`: the request asked for an upgrade.
///
/// # Errors
/// It cannot be read in one way only; the backend is at fault.
pub(crate) fn verify(head: &mut ResponseHeader, asked: bool) -> pingora::Result<()> {
    let [coding, length] = fields::present(&head.headers, &FRAMING);
    check(head, asked, coding)
        .map_err(|reason| Error::explain(ErrorType::InvalidHTTPHeader, reason).into_up())
        .and_then(|()| normalise(head, length))
}

/// Takes framing off an interim answer: it has no body, and must not announce one (RFC 9110 §8.6, RFC 9112 §6.1).
pub(crate) fn unframe(head: &mut ResponseHeader) {
    for name in &FRAMING {
        head.remove_header(name);
    }
}

/// `coding`: it has a transfer coding.
fn check(head: &ResponseHeader, asked: bool, coding: bool) -> Result<(), Violation> {
    upgrade::check_switch(head, asked)?;
    if !coding {
        return Ok(());
    }
    // Lengths beside it Pingora has taken away; those that stand alone are put right below.
    let mut framing = Framing::default();
    for coding in head.headers.get_all(header::TRANSFER_ENCODING) {
        framing.coding(coding.as_bytes())?;
    }
    framing.body(head.version).map(drop)
}

/// `length`: it says how long its body is.
fn normalise(head: &mut ResponseHeader, length: bool) -> pingora::Result<()> {
    // The version is this hop's, not the backend's (RFC 9110 §6.2).
    if head.version < Version::HTTP_11 {
        head.set_version(Version::HTTP_11);
    }
    if head.status == StatusCode::NO_CONTENT || head.status == StatusCode::SWITCHING_PROTOCOLS {
        // It has no body, and nothing that announces one (RFC 9110 §8.6, RFC 9112 §6.1).
        head.remove_header(&header::CONTENT_LENGTH);
        head.remove_header(&header::TRANSFER_ENCODING);
        return Ok(());
    }
    if !length {
        return Ok(());
    }
    // Pingora has seen to it that all lengths are the same.
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    let (first, more) = (lengths.next(), lengths.next().is_some());
    if let Some(first) = first
        && (more || first.as_bytes().contains(&b','))
    {
        let one = fields::items(first.as_bytes()).next().unwrap_or_default();
        let one = HeaderValue::from_bytes(one).unwrap_or(HeaderValue::from_static("0"));
        head.insert_header(header::CONTENT_LENGTH, one)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn answer(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn one_framing_or_none() {
        for (coding, taken) in [
            ("chunked", true),
            ("Chunked", true),
            ("gzip, chunked", false),
            ("chunked, chunked", false),
            ("identity", false),
            ("xchunked", false),
            ("", false),
        ] {
            let mut head = answer(200, &[("Transfer-Encoding", coding)]);
            assert_eq!(verify(&mut head, false).is_ok(), taken, "{coding}");
        }
        assert!(verify(&mut answer(200, &[("TE", "x"), ("Transfer-Encoding", "chunked")]), false).is_ok());
        let twice = [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")];
        assert!(verify(&mut answer(200, &twice), false).is_err());
        let mut old = answer(200, &[("Transfer-Encoding", "chunked")]);
        old.set_version(Version::HTTP_10);
        assert!(verify(&mut old, false).is_err());
    }

    #[test]
    fn lengths_are_said_once() {
        for fields in [&[("Content-Length", "5"), ("Content-Length", "5")][..], &[("Content-Length", "5, 5")]] {
            let mut head = answer(200, fields);
            head.set_version(Version::HTTP_10);
            verify(&mut head, false).unwrap();
            let lengths: Vec<_> = head.headers.get_all("content-length").iter().collect();
            assert_eq!((lengths, head.version), (vec![&HeaderValue::from_static("5")], Version::HTTP_11));
        }
        let mut empty = answer(204, &[("Content-Length", "5"), ("Transfer-Encoding", "chunked")]);
        verify(&mut empty, false).unwrap();
        assert!(empty.headers.is_empty());
    }

    #[test]
    fn interim_answers_have_no_framing() {
        let mut head = answer(103, &[("Content-Length", "2"), ("Link", "</a>")]);
        unframe(&mut head);
        assert!(!head.headers.contains_key("content-length") && head.headers.contains_key("link"));
    }

    #[test]
    fn protocols_are_switched_on_demand() {
        let switch = |more: &[(&'static str, &str)], asked| {
            let mut head = answer(101, &[&[("Connection", "Upgrade")], more].concat());
            verify(&mut head, asked).map(|()| head.headers.len())
        };
        assert!(switch(&[("Upgrade", "WebSocket")], true).is_ok_and(|fields| fields == 2));
        assert!(switch(&[("Upgrade", "websocket"), ("Content-Length", "5")], true).is_ok_and(|fields| fields == 2));
        for wrong in [&[][..], &[("Upgrade", "h2c")], &[("Upgrade", "websocket"), ("Transfer-Encoding", "chunked")]] {
            assert!(switch(wrong, true).is_err(), "{wrong:?}");
        }
        assert!(switch(&[("Upgrade", "websocket")], false).is_err());
    }
}

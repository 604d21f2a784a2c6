//! Clients that send what nobody expects, or nothing at all, and what it does to others.

use crate::harness::{Gateway, Origin};

fn gateway(urls: &[String], root: &str, service: &str) -> Gateway {
    let urls = urls.join("\", \"");
    Gateway::start(&format!(
        "{root}services:\n  main:\n    urls: [\"{urls}\"]\n{service}routes:\n  - {{ match: {{ path: /* }}, service: main }}\n"
    ))
}

/// A request with fields that no library would send.
fn get(fields: &[u8]) -> Vec<u8> {
    [&b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"[..], fields, b"\r\n"].concat()
}

#[test]
fn a_byte_beyond_ascii_does_not_make_the_balancer_the_client() {
    let origin = Origin::start("o");
    let gw = gateway(&[origin.url()], "trusted_proxies: [127.0.0.0/8]\n", "");
    for (fields, client, list) in [
        (&b"X-Forwarded-For: \xff, 203.0.113.9, 127.0.0.3\r\n"[..], "203.0.113.9", "unknown, 203.0.113.9, 127.0.0.3, "),
        (
            b"X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: \xff, 127.0.0.3\r\n",
            "127.0.0.3",
            "9.9.9.9, unknown, 127.0.0.3, ",
        ),
        (b"Forwarded: for=\"\xff\", for=203.0.113.9;by=\"\xff\"\r\n", "203.0.113.9", ""),
    ] {
        let said = gw.raw(&get(fields));
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        let seen = origin.last().headers;
        assert_eq!(seen["x-real-ip"], client, "{}", fields.escape_ascii());
        assert_eq!(seen["x-forwarded-for"], format!("{list}127.0.0.1"), "{}", fields.escape_ascii());
    }
    gw.raw(&get(b"Via: 1.0 fred (\xff)\r\n"));
    assert_eq!(origin.last().headers["via"].as_bytes(), b"1.0 fred (\xff), 1.1 tollgate");
}

#[test]
fn a_cookie_is_found_beside_one_with_bytes_beyond_ascii() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let gw = gateway(&[a.url(), b.url()], "", "    sticky: { cookie: srv }\n");
    let answer = gw.get("/").expect(200);
    let pair = answer.get("set-cookie").split(';').next().unwrap().to_owned();
    for _ in 0..6 {
        let said = gw.raw(&get(&[b"Cookie: x=\xff; ", pair.as_bytes(), b"\r\n"].concat()));
        assert!(said.ends_with(&answer.body) && !said.contains("et-cookie"), "{said}");
    }
    let gw = gateway(&[a.url(), b.url()], "", "    balance: { consistent_hash: \"cookie:user\" }\n");
    let mut told = std::collections::HashSet::new();
    for user in 0..30 {
        let said = gw.raw(&get(&[b"Cookie: x=\xff; user=", user.to_string().as_bytes(), b"\r\n"].concat()));
        told.insert(said.chars().last());
    }
    assert_eq!(told.len(), 2, "users are told apart");
}

//! Signed requests.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    process::Command,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use crate::{
    auth::now,
    config_errors::check,
    harness::{Gateway, Origin, client_raw, h2_request},
};

pub(crate) const SECRET: &[u8] = b"a secret that is shared, of 32 or more bytes";
pub(crate) const OLD: &[u8] = b"the secret before that one, of as many bytes";

/// A request that can be signed, and then be changed.
#[derive(Clone)]
pub(crate) struct Signed {
    method: String,
    host: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    covered: Vec<&'static str>,
    created: u64,
    more: String,
    key_id: &'static str,
    nonce: String,
    secret: &'static [u8],
}

impl Signed {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self {
            method: method.to_owned(),
            host: "api.example".to_owned(),
            target: target.to_owned(),
            fields: vec![("x-tenant".to_owned(), "acme".to_owned())],
            body: Vec::new(),
            covered: vec!["@method", "@authority", "@path", "@query", "x-tenant"],
            created: now(),
            more: String::new(),
            key_id: "k1",
            nonce: format!("nonce-{:016}", COUNT.fetch_add(1, Relaxed)),
            secret: SECRET,
        }
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        let digest = STANDARD.encode(Sha256::digest(body));
        self.fields.push(("content-digest".to_owned(), format!("sha-256=:{digest}:")));
        self.covered.push("content-digest");
        self.body = body.to_vec();
        self
    }

    fn component(&self, name: &str) -> String {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        match name {
            "@method" => self.method.clone(),
            "@authority" => self.host.clone(),
            "@path" => path.to_owned(),
            "@query" => format!("?{query}"),
            _ => self.fields.iter().find(|(field, _)| field == name).unwrap().1.clone(),
        }
    }

    /// Signs it as it is now.
    pub(crate) fn sign(mut self) -> Self {
        let names: Vec<String> = self.covered.iter().map(|name| format!("\"{name}\"")).collect();
        let params = format!(
            "({});created={};keyid=\"{}\";nonce=\"{}\"{}",
            names.join(" "),
            self.created,
            self.key_id,
            self.nonce,
            self.more
        );
        let mut base = String::new();
        for name in &self.covered {
            writeln!(base, "\"{name}\": {}", self.component(name)).unwrap();
        }
        write!(base, "\"@signature-params\": {params}").unwrap();
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.secret), base.as_bytes());
        self.fields.push(("signature-input".to_owned(), format!("sig1={params}")));
        self.fields.push(("signature".to_owned(), format!("sig1=:{}:", STANDARD.encode(mac))));
        self
    }

    fn replace(mut self, name: &str, from: &str, to: &str) -> Self {
        let field = self.fields.iter_mut().find(|(field, _)| field == name).unwrap();
        assert!(field.1.contains(from), "{field:?}");
        field.1 = field.1.replacen(from, to, 1);
        self
    }

    /// Sends it; the status, and the whole answer.
    pub(crate) fn send(&self, gw: &Gateway, chunked: bool) -> (u16, String) {
        let mut head =
            format!("{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.method, self.target, self.host);
        for (name, value) in &self.fields {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        let mut bytes = Vec::new();
        if self.body.is_empty() && self.method == "GET" {
            head.push_str("\r\n");
        } else if chunked {
            head.push_str("Transfer-Encoding: chunked\r\n\r\n");
            for part in self.body.chunks(64 << 10) {
                bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                bytes.extend_from_slice(part);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            write!(head, "Content-Length: {}\r\n\r\n", self.body.len()).unwrap();
            bytes.extend_from_slice(&self.body);
        }
        let answer = client_raw(gw.port, &[head.as_bytes(), &bytes].concat());
        let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer)
    }
}

pub(crate) fn secret(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> String {
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

fn gateway(origin: &Origin, more: &str) -> (Gateway, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (new, old) = (secret(&dir, "new", SECRET), secret(&dir, "old", OLD));
    let gw = Gateway::start(&format!(
        "services: {{ main: {{ urls: ['{}'] }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n    filters:\n      - hmac: {{ keys: [ {{ id: k1, owner: acme, secrets: [ {{ file: {new} }}, {{ file: {old} }} ] }} ] {more} }}\n",
        origin.url()
    ));
    (gw, dir)
}

#[test]
fn a_signed_request_passes_once_and_the_backend_learns_whose_it_is() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(&origin, "");
    let get = Signed::new("GET", "/a/%7Eb/../c?x=1&y=%20").sign();
    assert_eq!(get.send(&gw, false).0, 200);
    let seen = origin.last();
    assert_eq!(seen.headers["x-consumer-id"], "acme");
    assert!(!seen.headers.contains_key("signature") && !seen.headers.contains_key("signature-input"), "{seen:?}");
    let (status, again) = get.send(&gw, false);
    assert!(status == 401 && again.to_lowercase().contains("www-authenticate: signature"), "{again}");
    for chunked in [false, true] {
        let post = Signed::new("POST", "/p").body(b"{\"a\":1}").sign();
        assert_eq!(post.send(&gw, chunked).0, 200);
        assert_eq!(&*origin.last().body, b"{\"a\":1}");
    }
    assert_eq!(
        Signed { secret: OLD, ..Signed::new("GET", "/") }.sign().send(&gw, false).0,
        200,
        "while it is replaced"
    );
    assert_eq!(gw.line_of(&again)["reason"], "signature_replayed");
    let log = gw.log(5);
    let good = log.iter().find(|line| line["status"] == 200).unwrap();
    assert_eq!((good["identity"].as_str(), good["key_id"].as_str()), (Some("acme"), Some("k1")));
}

#[test]
fn whatever_is_covered_and_then_changed_is_refused() {
    let origin = Origin::start("o");
    for mode in ["", ", body: stream"] {
        let (gw, _dir) = gateway(&origin, mode);
        let signed = || Signed::new("POST", "/orders?id=7").body(b"{\"amount\":1}").sign();
        let changed = || -> Vec<(&str, Signed, &str)> {
            vec![
                ("method", Signed { method: "PUT".to_owned(), ..signed() }, "signature_wrong"),
                ("path", Signed { target: "/orderz?id=7".to_owned(), ..signed() }, "signature_wrong"),
                (
                    "path that is the same when normalised",
                    Signed { target: "/./orders?id=7".to_owned(), ..signed() },
                    "signature_wrong",
                ),
                ("query", Signed { target: "/orders?id=8".to_owned(), ..signed() }, "signature_wrong"),
                ("no query", Signed { target: "/orders".to_owned(), ..signed() }, "signature_wrong"),
                ("authority", Signed { host: "apj.example".to_owned(), ..signed() }, "signature_wrong"),
                ("field", signed().replace("x-tenant", "acme", "acmf"), "signature_wrong"),
                (
                    "digest",
                    signed().replace("content-digest", "sha-256=:", "sha-512=:AAAA:, sha-256=:"),
                    "signature_wrong",
                ),
                ("created", signed().replace("signature-input", "created=1", "created=2"), "signature_wrong"),
                ("nonce", signed().replace("signature-input", "nonce-0", "nonce-1"), "signature_wrong"),
                ("keyid", signed().replace("signature-input", "\"k1\"", "\"k2\""), "signature_wrong"),
                (
                    "order",
                    signed().replace("signature-input", "\"@method\" \"@authority\"", "\"@authority\" \"@method\""),
                    "signature_wrong",
                ),
                ("coverage", signed().replace("signature-input", " \"x-tenant\"", ""), "signature_wrong"),
                ("mac", signed().replace("signature", "sig1=:", "sig1=:AAAA"), "signature_wrong"),
                ("body", Signed { body: b"{\"amount\":2}".to_vec(), ..signed() }, "digest_wrong"),
                ("longer body", Signed { body: b"{\"amount\":1} ".to_vec(), ..signed() }, "digest_wrong"),
                ("shorter body", Signed { body: b"{\"amount\":1".to_vec(), ..signed() }, "digest_wrong"),
                ("no body", Signed { body: Vec::new(), ..signed() }, "digest_wrong"),
            ]
        };
        for chunked in [false, true] {
            for (what, request, reason) in changed() {
                let (status, answer) = request.send(&gw, chunked);
                assert_eq!(status, 401, "{mode} {what} {chunked}: {answer}");
                assert_eq!(gw.line_of(&answer)["reason"], reason, "{mode} {what}");
            }
        }
        // None of them has used up a nonce that was not its own: the request itself still passes.
        let good = signed();
        assert_eq!(Signed { target: "/orderz?id=7".to_owned(), ..good.clone() }.send(&gw, false).0, 401);
        assert!(origin.seen().iter().all(|seen| seen.method != "PUT"), "{:?}", origin.seen());
        let before = origin.seen().len();
        assert_eq!(good.send(&gw, false).0, 200);
        assert_eq!(origin.seen().len(), before + 1);
    }
    assert_eq!(origin.seen().len(), 2, "no backend has got a whole request that was changed");
}

#[test]
fn a_signature_is_whole_and_of_now() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(&origin, ", max_age: 30s");
    let new = || Signed::new("GET", "/");
    let without = |name: &str| {
        let mut signed = new();
        signed.covered.retain(|covered| *covered != name);
        signed.sign()
    };
    let twice = |name: &str| {
        let mut signed = new().sign();
        let field = signed.fields.iter().find(|(field, _)| field == name).unwrap().clone();
        signed.fields.push(field);
        signed
    };
    let mut uncovered = Signed::new("POST", "/").body(b"x");
    uncovered.covered.retain(|name| *name != "content-digest");
    let mut bodiless = Signed::new("POST", "/");
    bodiless.body = b"x".to_vec();
    for (what, signed, reason) in [
        ("unsigned", new(), "credentials_missing"),
        ("old", Signed { created: now() - 60, ..new() }.sign(), "signature_expired"),
        ("of tomorrow", Signed { created: now() + 86_400, ..new() }.sign(), "signature_expired"),
        ("expired", Signed { more: format!(";expires={}", now() - 1), ..new() }.sign(), "signature_expired"),
        ("not the path", without("@path"), "signature_incomplete"),
        ("not the method", without("@method"), "signature_incomplete"),
        ("not the digest", uncovered.sign(), "signature_incomplete"),
        ("no digest", bodiless.sign(), "signature_incomplete"),
        ("another algorithm", Signed { more: ";alg=\"ed25519\"".to_owned(), ..new() }.sign(), "signature_malformed"),
        ("a short nonce", Signed { nonce: "short".to_owned(), ..new() }.sign(), "signature_malformed"),
        ("another key", Signed { secret: b"nobody's secret, of 32 or more bytes", ..new() }.sign(), "signature_wrong"),
        ("another key's id", Signed { key_id: "k2", ..new() }.sign(), "signature_wrong"),
        ("two inputs", twice("signature-input"), "signature_malformed"),
        ("two signatures", twice("signature"), "signature_malformed"),
        ("a field that has become two", twice("x-tenant"), "signature_wrong"),
    ] {
        let (status, answer) = signed.send(&gw, false);
        assert_eq!(status, 401, "{what}: {answer}");
        assert_eq!(gw.line_of(&answer)["reason"], reason, "{what}");
    }
    assert_eq!(
        Signed { more: format!(";expires={};alg=\"hmac-sha256\"", now() + 9), ..new() }.sign().send(&gw, false).0,
        200
    );
    assert_eq!(Signed { created: now() - 20, ..new() }.sign().send(&gw, false).0, 200);
}

#[test]
fn a_large_body_streams_and_a_buffered_one_has_a_bound() {
    let origin = Origin::start("o");
    let body = vec![b'x'; 1 << 20];
    let (gw, _dir) = gateway(&origin, ", body: stream");
    for chunked in [false, true] {
        assert_eq!(Signed::new("POST", "/").body(&body).sign().send(&gw, chunked).0, 200);
        assert_eq!(origin.last().body.len(), body.len());
        let mut changed = Signed::new("POST", "/").body(&body).sign();
        *changed.body.last_mut().unwrap() = b'y';
        let (status, answer) = changed.send(&gw, chunked);
        assert_eq!(status, 401, "{answer}");
    }
    assert_eq!(origin.seen().len(), 2);
    let (gw, _dir) = gateway(&origin, ", buffer: 1KiB");
    assert_eq!(Signed::new("POST", "/").body(&body[..1024]).sign().send(&gw, true).0, 200);
    let (status, _) = Signed::new("POST", "/").body(&body[..1025]).sign().send(&gw, true);
    assert_eq!(status, 413);
    assert_eq!(origin.seen().len(), 3);
}

#[test]
fn a_body_of_100_mib_is_verified_without_being_held() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(&origin, ", body: stream");
    assert_eq!(Signed::new("POST", "/").body(&vec![b'x'; 1 << 20]).sign().send(&gw, true).0, 200);
    let before = gw.peak_memory();
    let mut large = Signed::new("POST", "/").body(&vec![b'x'; 100 << 20]).sign();
    assert_eq!(large.send(&gw, false).0, 200);
    assert_eq!(origin.last().body.len(), 100 << 20);
    large = Signed::new("POST", "/").body(&large.body).sign();
    *large.body.last_mut().unwrap() = b'y';
    assert_eq!(large.send(&gw, false).0, 401);
    let grown = gw.peak_memory() - before;
    assert!(grown < 16 << 20, "{grown} bytes more");
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn nonces_have_a_bound_and_what_is_refused_uses_none_up() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(&origin, ", nonces: 2");
    for _ in 0..5 {
        assert_eq!(Signed { key_id: "k2", ..Signed::new("GET", "/") }.sign().send(&gw, false).0, 401);
    }
    let answers: Vec<_> = (0..3).map(|_| Signed::new("GET", "/").sign().send(&gw, false)).collect();
    assert_eq!(answers.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 200, 503]);
    assert_eq!(gw.line_of(&answers[2].1)["reason"], "nonces_full");
}

#[test]
fn another_implementation_signs_the_same() {
    let origin = Origin::start("o");
    let (gw, dir) =
        gateway(&origin, ", components: ['@method', '@authority', '@path', '@query', '@scheme', '@target-uri']");
    let python = format!("{}/target/tools/http-message-signatures/bin/python", env!("CARGO_MANIFEST_DIR"));
    assert!(fs::exists(&python).unwrap(), "'http-message-signatures' is missing: run 'scripts/deps test'");
    let url = format!("http://127.0.0.1:{}/a/b?c=d", gw.port);
    let secret = dir.path().join("new").display().to_string();
    for (method, body, nonce) in [("GET", None, "0123456789abcdef"), ("POST", Some("{\"a\":1}"), "0123456789abcdeg")] {
        let mut command = Command::new(&python);
        command.args(["tests/fixtures/sign.py", method, &url, &secret, nonce]).args(body);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut request = gw.request(method, "/a/b?c=d");
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        let request = if let Some(body) = body { request.body(body.as_bytes()) } else { request };
        request.expect(200);
    }
    assert_eq!(&*origin.last().body, b"{\"a\":1}");
}

/// The value of the simple field, by hand.
pub(crate) fn simple(time: u64, method: &str, target: &str, digest: &str) -> String {
    let signed = format!("{time}\n{method}\n{target}\n{digest}");
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
    let mut field = format!("keyid=k1,t={time},v1=");
    mac.as_ref().iter().for_each(|byte| write!(field, "{byte:02x}").unwrap());
    field
}

#[test]
fn a_shell_can_sign_and_whatever_it_has_signed_cannot_be_changed_or_replayed() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(&origin, ", simple_header: X-Signature");
    let page = fs::read_to_string("docs/signed-requests.md").unwrap();
    let (_, script) = page.split_once("```bash simple-signature\n").unwrap();
    let script = script.split("```").next().unwrap().replace("keyid=partner", "keyid=k1");
    let mut command = Command::new("bash");
    command.args(["-ec", &script]).env("GATEWAY", format!("http://127.0.0.1:{}", gw.port));
    let output = command.env("PARTNER_SECRET", String::from_utf8(SECRET.to_vec()).unwrap()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "o", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(&*origin.last().body, b"{\"amount\":1}");
    assert!(!origin.last().headers.contains_key("x-signature"));
    let digest = |body: &str| format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)));
    let time = now();
    let good = simple(time, "POST", "/p?a=1", &digest("abc"));
    let send = |method: &str, target: &str, digest: &str, field: &str, body: &str| {
        let mut request = gw.request(method, target).header("X-Signature", field).body(body.as_bytes());
        if !digest.is_empty() {
            request = request.header("Content-Digest", digest);
        }
        let answer = request.send();
        let reason =
            (answer.status != 200).then(|| gw.line_of(&answer.body)["reason"].as_str().unwrap_or_default().to_owned());
        (answer.status, reason.unwrap_or_default())
    };
    let refused = |reason: &str| (401, reason.to_owned());
    let right = digest("abc");
    assert_eq!(send("PUT", "/p?a=1", &right, &good, "abc"), refused("signature_wrong"));
    assert_eq!(send("POST", "/p?a=2", &right, &good, "abc"), refused("signature_wrong"));
    assert_eq!(send("POST", "/p?a=1", &digest("abd"), &good, "abd"), refused("signature_wrong"));
    assert_eq!(send("POST", "/p?a=1", &right, &good.replace("t=1", "t=2"), "abc"), refused("signature_wrong"));
    assert_eq!(send("POST", "/p?a=1", &right, &good.replace("k1", "k2"), "abc"), refused("signature_wrong"));
    assert_eq!(send("POST", "/p?a=1", "", &good, "abc"), refused("signature_incomplete"));
    assert_eq!(send("POST", "/p?a=1", &right, "v1=00", "abc"), refused("signature_malformed"));
    assert_eq!(
        send("POST", "/p?a=1", &right, &simple(time - 600, "POST", "/p?a=1", &right), "abc"),
        refused("signature_expired")
    );
    assert_eq!(send("POST", "/p?a=1", &right, &good, "abc").0, 200);
    assert_eq!(send("POST", "/p?a=1", &right, &good, "abc"), refused("signature_replayed"));
    let other = simple(time, "POST", "/q", &right);
    assert_eq!(send("POST", "/q", &right, &other, "abd"), refused("digest_wrong"));
    gw.get("/x").header("X-Signature", &simple(time, "GET", "/x", "")).expect(200);
    let both = Signed::new("GET", "/y").sign();
    let mut both = both.clone();
    both.fields.push(("x-signature".to_owned(), simple(time, "GET", "/y", "")));
    assert_eq!(both.send(&gw, false).0, 401);
    let mut spelt = Signed::new("POST", "/y").body(b"abc");
    spelt.fields.push(("content_digest".to_owned(), "sha-256=:AAAA:".to_owned()));
    let (status, answer) = spelt.sign().send(&gw, false);
    assert_eq!((status, gw.line_of(&answer)["reason"].as_str()), (401, Some("signature_incomplete")));
    assert_eq!(origin.seen().len(), 3);
}

#[test]
fn a_body_is_judged_where_no_backend_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let hmac = format!(
        "hmac: {{ keys: [ {{ id: k1, secrets: [ {{ file: {} }} ] }} ], simple_header: X-Signature }}",
        secret(&dir, "new", SECRET)
    );
    let gw = Gateway::start(&format!(
        "routes:\n  - {{ match: {{ path: /r }}, respond: {{ body: hi }}, filters: [ {hmac} ] }}\n  - {{ match: {{ path: /m }}, redirect: /r, filters: [ {hmac} ] }}\n  - {{ match: {{ path: /small }}, respond: {{ body: hi }}, filters: [ body_limit: 10B ] }}\n"
    ));
    let digest = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest("hello")));
    // Each signature counts once.
    let mut time = now();
    for (path, good) in [("/r", 200), ("/m", 308)] {
        for (body, status) in [("HELLO", 401), ("hello", good), ("", 401)] {
            for chunked in [false, true] {
                time -= 1;
                let field = simple(time, "POST", path, &digest);
                let framing = if chunked {
                    let chunk = if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) };
                    format!("Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n")
                } else {
                    format!("Content-Length: {}\r\n\r\n{body}", body.len())
                };
                let answer = gw.raw(
                    format!(
                        "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Digest: {digest}\r\nX-Signature: {field}\r\n{framing}"
                    )
                    .as_bytes(),
                );
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path} {body} {chunked}: {answer}");
            }
        }
    }
    let small = |length: usize| {
        format!(
            "POST /small HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{}\r\n0\r\n\r\n",
            "x".repeat(length)
        )
    };
    assert!(gw.raw(small(20).as_bytes()).starts_with("HTTP/1.1 413 "));
    assert!(gw.raw(small(10).as_bytes()).starts_with("HTTP/1.1 200 "));
    // An invitation comes first, and the connection serves on.
    let two = "POST /small HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nxxGET /small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answers = gw.raw(two.as_bytes());
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 2, "{answers}");
}

#[test]
fn over_http2_a_body_that_was_taken_away_is_missed() {
    let origin = Origin::start("o");
    let dir = tempfile::tempdir().unwrap();
    let gw = Gateway::start(&format!(
        "listeners: [ {{ address: '127.0.0.1:{{port}}', h2c: true }} ]\nservices: {{ main: {{ urls: ['{}'] }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n    filters:\n      - hmac: {{ keys: [ {{ id: k1, secrets: [ {{ file: {} }} ] }} ] }}\n",
        origin.url(),
        secret(&dir, "new", SECRET)
    ));
    let send = |signed: Signed| {
        let fields: Vec<(&str, &str)> = signed.fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        h2_request(gw.port, &signed.method, &signed.target, &fields).head.status().as_u16()
    };
    let new = |method: &str| Signed { host: "h".to_owned(), ..Signed::new(method, "/a?b=c") };
    assert_eq!(send(new("GET").sign()), 200);
    assert_eq!(send(new("POST").body(b"").sign()), 200);
    for _ in 0..20 {
        assert_eq!(send(new("POST").body(b"abc").sign()), 401, "its body has been taken away");
    }
    // The backend answers a later request: whatever it was sent before has come.
    assert_eq!(send(new("GET").sign()), 200);
    assert_eq!(origin.seen().len(), 3, "it has seen none of those");
}

/// Two routes to the same backend, with the same two keys: the one takes requests with `x-side: b`.
fn two_routes(origin: &Origin, more: [&str; 2]) -> (Gateway, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (secret(&dir, "one", SECRET), secret(&dir, "two", OLD));
    let route = |matches: &str, more: &str| {
        format!(
            "  - match: {{ {matches} }}\n    service: main\n    filters: [ {{ hmac: {{ keys: [ {{ id: k1, secrets: [ {{ file: {one} }} ] }}, {{ id: k2, secrets: [ {{ file: {two} }} ] }} ] {more} }} }} ]\n"
        )
    };
    let yaml = format!(
        "services: {{ main: {{ urls: ['{}'] }} }}\nroutes:\n{}{}",
        origin.url(),
        route("path: /*, headers: { x-side: b }", more[0]),
        route("path: /*", more[1])
    );
    (Gateway::start(&yaml), dir)
}

#[test]
fn a_nonce_counts_once_for_all_routes() {
    let origin = Origin::start("o");
    let (gw, _dir) = two_routes(&origin, [", max_age: 30s", ""]);
    let request = Signed::new("GET", "/a").sign();
    let mut other = request.clone();
    other.fields.push(("x-side".to_owned(), "b".to_owned()));
    assert_eq!(request.send(&gw, false).0, 200);
    let (status, answer) = other.send(&gw, false);
    assert_eq!((status, gw.line_of(&answer)["reason"].as_str()), (401, Some("signature_replayed")));
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_signature_of_the_simple_kind_counts_once_whatever_key_it_names() {
    let origin = Origin::start("o");
    let dir = tempfile::tempdir().unwrap();
    let file = secret(&dir, "new", SECRET);
    let gw = Gateway::start(&format!(
        "services: {{ main: {{ urls: ['{}'] }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n    filters: [ {{ hmac: {{ simple_header: X-Signature, keys: [ {{ id: k1, secrets: [ {{ file: {file} }} ] }}, {{ id: k2, secrets: [ {{ file: {file} }} ] }} ] }} }} ]\n",
        origin.url()
    ));
    let field = simple(now(), "GET", "/x", "");
    gw.get("/x").header("X-Signature", &field).expect(200);
    gw.get("/x").header("X-Signature", &field.replace("k1", "k2")).expect(401);
}

#[test]
fn a_key_that_has_used_up_its_nonces_locks_out_itself_alone() {
    let origin = Origin::start("o");
    let (gw, _dir) = two_routes(&origin, [", nonces: 2", ", nonces: 2"]);
    let statuses = |key_id, secret| {
        let send = |_| Signed { key_id, secret, ..Signed::new("GET", "/") }.sign().send(&gw, false).0;
        (0..3).map(send).collect::<Vec<_>>()
    };
    assert_eq!(statuses("k1", SECRET), [200, 200, 503]);
    assert_eq!(statuses("k2", OLD), [200, 200, 503]);
}

#[test]
fn settings_that_nobody_can_sign_for_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = secret(&dir, "new", SECRET);
    let says = |id: &str, owner: &str, more: &str| {
        check(&format!(
            "listeners: [ {{ address: 127.0.0.1:8080 }} ]\nroutes:\n  - match: {{ path: /* }}\n    respond: {{ body: a }}\n    filters:\n      - hmac: {{ keys: [ {{ id: {id}, owner: {owner}, secrets: [ {{ file: {file} }} ] }} ] {more} }}\n"
        ))
    };
    let many: Vec<String> = (0..32).map(|i| format!("x-{i}")).collect();
    let many = format!(", components: [{}]", many.join(", "));
    for (id, owner, more, place) in [
        ("'a\"b'", "a", "", "keys[0].id"),
        ("'a,b'", "a", "", "keys[0].id"),
        ("'a\\b'", "a", "", "keys[0].id"),
        ("caf\u{e9}", "a", "", "keys[0].id"),
        ("' a'", "a", "", "keys[0].id"),
        ("a", "' root'", "", "keys[0].owner"),
        ("a", "a", ", components: []", "components"),
        ("a", "a", ", components: ['x_a.b!']", "components[0]"),
        ("a", "a", ", components: ['@path', '@path']", "components[1]"),
        ("a", "a", &many, "components"),
        ("a", "a", ", simple_header: Signature", "simple_header"),
        ("a", "a", ", simple_header: signature-input", "simple_header"),
        ("a", "a", ", simple_header: Content-Digest", "simple_header"),
        ("a", "a", ", simple_header: Host", "simple_header"),
        ("a", "a", ", identity_header: Content-Length", "identity_header"),
        ("a", "a", ", identity_header: Signature", "identity_header"),
        ("a", "a", ", simple_header: X-Sign, identity_header: x_sign", "identity_header"),
    ] {
        let (code, text) = says(id, owner, more);
        let place = format!("hmac.{place}: ");
        assert!(code == 78 && text.contains(&place), "{id} {owner} {more}: {text}");
    }
    let (code, text) = says("'partner 7.a-b_c'", "caf\u{e9}", ", components: ['@path', x-a_b]");
    assert_eq!(code, 0, "{text}");
}

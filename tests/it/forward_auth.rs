//! Another service says who may pass (`forward_auth`).

use std::{
    io::Write as _,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    config_errors::check,
    harness::{Certs, Gateway, JwksServer, Origin, Publishes, eventually, h2_request, raw_backend, read_head},
};

/// A service that is asked: what it was sent, and over how many connections.
struct Judge {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

/// The value of a field in a head.
fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(": ")?;
        field.eq_ignore_ascii_case(name).then_some(value)
    })
}

impl Judge {
    /// Answers each head with what `says` makes of it, without the length of its body.
    fn start(says: impl Fn(&str) -> String + Clone + Send + 'static) -> Self {
        let (seen, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (heads, count) = (seen.clone(), connections.clone());
        let address = raw_backend(move |mut stream: TcpStream| {
            count.fetch_add(1, SeqCst);
            loop {
                let head = read_head(&mut stream);
                if head.is_empty() {
                    return;
                }
                heads.lock().push(head.clone());
                if stream.write_all(says(&head).as_bytes()).is_err() {
                    return;
                }
            }
        });
        Self { address, seen, connections }
    }

    fn last(&self) -> String {
        self.seen.lock().last().cloned().unwrap()
    }

    fn asked(&self) -> usize {
        self.seen.lock().len()
    }
}

fn ok(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok")
}

/// `Bearer NAME` is NAME, whose role is that of its first letter.
fn by_bearer(head: &str) -> String {
    match field(head, "authorization").and_then(|value| value.strip_prefix("Bearer ")) {
        Some("wrong") => {
            "HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\nContent-Length: 9\r\nX-Secret: a\r\n\r\n<p>No</p>"
                .to_owned()
        }
        Some(name) => ok(&format!("X-User: {name}\r\nX-Role: role-{}\r\nX-Other: o\r\n", &name[..1])),
        None => "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"judge\"\r\nContent-Length: 0\r\n\r\n"
            .to_owned(),
    }
}

fn gateway(origin: &Origin, judge: &str, settings: &str) -> Gateway {
    Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ id: r, match: {{ path: /* }}, service: main, filters: [ forward_auth: {{ url: 'http://{judge}/verify?k=v', {settings} }} ] }}\n  - {{ match: {{ path: /free/* }}, service: main }}\n",
        origin.url()
    ))
}

#[test]
fn the_service_is_asked_and_the_backend_told() {
    let (origin, judge) = (Origin::start("o"), Judge::start(by_bearer));
    let gw = gateway(&origin, &judge.address, "response_headers: [X-User, X-Role], identity: X-User");
    let request = gw
        .request("POST", "/a/../b%41?q=1")
        .bearer("alice")
        .body(b"the body")
        .header("Cookie", "c=1")
        .header("X-Mine", "m");
    let hearsay = [
        "X-Forwarded-Method",
        "X-Forwarded-Uri",
        "X-Forwarded-Host",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X_Forwarded_Method",
    ];
    let request = hearsay.iter().fold(request, |request, name| request.header(name, "spoofed"));
    let told =
        ["X-User", "X_User", "X-Role", "x_role"].iter().fold(request, |request, name| request.header(name, "spoofed"));
    told.expect(200);
    let head = judge.last();
    assert!(head.starts_with("GET /verify?k=v HTTP/1.1\r\n") && !head.contains("spoofed"), "{head}");
    for (name, value) in [
        ("host", judge.address.as_str()),
        ("authorization", "Bearer alice"),
        ("cookie", "c=1"),
        ("x-forwarded-method", "POST"),
        // As the backend sees it, and not as the client wrote it.
        ("x-forwarded-uri", "/bA?q=1"),
        ("x-forwarded-host", &format!("127.0.0.1:{}", gw.port)),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(field(&head, name), Some(value), "{name} in {head}");
    }
    for name in ["x-mine", "content-length", "content-type", "transfer-encoding", "accept-encoding"] {
        assert_eq!(field(&head, name), None, "{name} in {head}");
    }
    let seen = origin.last();
    let of = |name: &str| {
        seen.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((of("x-user"), of("x-role")), (vec!["alice".to_owned()], vec!["role-a".to_owned()]));
    assert!(
        of("x_user").is_empty()
            && of("x_role").is_empty()
            && of("x-other").is_empty()
            && of("authorization").is_empty()
    );
    assert_eq!((of("cookie"), &seen.body[..]), (vec!["c=1".to_owned()], &b"the body"[..]));
    // On a route without the filter nobody may send what it tells backends either.
    gw.get("/free/a").header("X-User", "spoofed").header("X_Role", "spoofed").expect(200);
    assert!(!origin.last().headers.contains_key("x-user") && !origin.last().headers.contains_key("x_role"));
    let log = gw.log(2);
    assert!(log.iter().any(|line| line["identity"] == "alice"));
    assert_eq!(gw.metric("gateway_forward_auth_total{outcome=\"allowed\",route=\"r\"}"), Some(1.0));
}

#[test]
fn nobody_says_its_own_name_where_the_service_is_to_say_it() {
    let (origin, judge) = (Origin::start("o"), Judge::start(by_bearer));
    let gw = gateway(&origin, &judge.address, "response_headers: [X-Role], identity: X-User");
    for path in ["/a", "/free/a"] {
        gw.get(path).bearer("alice").header("X-User", "root").header("X_User", "root").expect(200);
        let seen = origin.last().headers;
        assert!(!seen.contains_key("x-user") && !seen.contains_key("x_user"), "{path}: {seen:?}");
    }
    assert_eq!(gw.log(2)[0]["identity"], "alice");
}

#[test]
fn a_refusal_goes_to_the_client_as_the_service_says_it() {
    let origin = Origin::start("o");
    let judge = Judge::start(|head: &str| {
        match field(head, "x-case") {
        Some("redirect") => "HTTP/1.1 302 Found\r\nLocation: https://id.example/?rd=/\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n".to_owned(),
        Some("long") => format!("HTTP/1.1 403 Forbidden\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000)),
        Some("user") => ok("X-User: a\r\nX-User: b\r\n"),
        Some(status) => format!("HTTP/1.1 {status} Well\r\nX-User: mallory\r\nContent-Length: 2\r\n\r\nno"),
        None => by_bearer(head),
    }
    });
    let gw = gateway(
        &origin,
        &judge.address,
        "request_headers: [Authorization, X-Case], identity: X-User, response_headers: [X-User]",
    );
    gw.get("/").expect(401).has("www-authenticate", "Bearer realm=\"judge\"").problem();
    let answer = gw.get("/").bearer("wrong").expect(403).has("content-type", "text/html").lacks("x-secret");
    assert_eq!(answer.body, "<p>No</p>");
    let answer = gw.get("/").header("X-Case", "redirect").expect(302).has("location", "https://id.example/?rd=/");
    assert_eq!((answer.all("set-cookie"), answer.body.as_str()), (vec!["a=1", "b=2"], ""));
    assert!(!gw.get("/").header("X-Case", "long").expect(403).problem().body.contains("xxx"));
    for meaningless in ["500", "404", "304", "302", "user"] {
        let answer = gw.get("/").header("X-Case", meaningless).expect(503).problem();
        assert_eq!(answer.get("retry-after"), "1", "{meaningless}");
    }
    assert!(origin.seen().is_empty());
    let mut reasons: Vec<_> = gw.log(9).iter().map(|line| line["reason"].as_str().unwrap().to_owned()).collect();
    reasons.sort_unstable();
    let mut expected = ["auth_service_failed"; 9];
    expected[5..8].fill("auth_service_refused");
    expected[8] = "credentials_missing";
    assert_eq!(reasons, expected);
    assert_eq!(gw.errors().matches("forward_auth: http://").count(), 1, "one line for the change");
    assert!(!gw.errors().contains("k=v"), "a query may hold a secret");
    gw.get("/").bearer("alice").expect(200);
    eventually("it is said that it answers again", || gw.errors().contains("it answers again"));
}

#[test]
fn connections_to_the_service_are_kept() {
    let (origin, judge) = (Origin::start("o"), Judge::start(by_bearer));
    let gw = gateway(&origin, &judge.address, "identity: X-User");
    for _ in 0..20 {
        gw.get("/").bearer("alice").expect(200);
    }
    gw.get("/").bearer("wrong").expect(403);
    assert_eq!(judge.asked(), 21);
    // Pingora's pool gives a connection up now and then when another thread has just looked at it.
    assert!(judge.connections.load(SeqCst) < 21, "{} connections", judge.connections.load(SeqCst));
}

#[test]
fn a_kept_connection_that_was_closed_costs_no_request() {
    let origin = Origin::start("o");
    // It says that it keeps connections, and closes each after one answer.
    let address = raw_backend(|mut stream: TcpStream| {
        let head = read_head(&mut stream);
        let _ = stream.write_all(by_bearer(&head).as_bytes());
        // Noticed only by whoever sends something.
        std::thread::sleep(Duration::from_millis(20));
    });
    let gw = gateway(&origin, &address, "identity: X-User");
    for _ in 0..10 {
        gw.get("/").bearer("alice").expect(200);
    }
}

#[test]
fn without_an_answer_nobody_passes_unless_that_is_meant() {
    let origin = Origin::start("o");
    let nobody = format!("127.0.0.1:{}", crate::harness::free_port());
    let gw = gateway(&origin, &nobody, "");
    gw.get("/").bearer("alice").expect(503).problem();
    let silent = raw_backend(|mut stream: TcpStream| {
        read_head(&mut stream);
        std::thread::sleep(Duration::from_secs(5));
    });
    let gw = gateway(&origin, &silent, "timeout: 200ms");
    let begun = Instant::now();
    gw.get("/").bearer("alice").expect(503).problem();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(gw.errors().contains("no answer within 200ms"), "{}", gw.errors());
    assert!(origin.seen().is_empty());
    let gw = gateway(&origin, &silent, "timeout: 200ms, on_error: allow, response_headers: [X-User]");
    gw.get("/").bearer("alice").header("X-User", "spoofed").expect(200);
    let seen = origin.last();
    assert!(!seen.headers.contains_key("x-user") && !seen.headers.contains_key("authorization"), "{seen:?}");
}

#[test]
fn so_many_are_asked_about_at_once_and_others_wait_or_are_told() {
    let origin = Origin::start("o");
    let silent = raw_backend(|mut stream: TcpStream| {
        read_head(&mut stream);
        std::thread::sleep(Duration::from_secs(3));
    });
    // `on_error: allow` is no way in for whoever sends many requests.
    let gw = gateway(&origin, &silent, "timeout: 600ms, at_once: 1, on_error: allow");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..14).map(|_| scope.spawn(|| gw.get("/").send().status)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let busy = statuses.iter().filter(|status| **status == 503).count();
    assert!(busy >= 3, "{statuses:?}");
    assert!(gw.log(14).iter().any(|line| line["reason"] == "auth_service_busy"));
}

#[test]
fn what_is_remembered_counts_for_the_same_request_of_the_same_client_alone() {
    let origin = Origin::start("o");
    let judge = Judge::start(|head: &str| match field(head, "cookie") {
        Some("no-store") => ok("X-User: n\r\nCache-Control: no-store\r\n"),
        _ => by_bearer(head),
    });
    let gw = gateway(&origin, &judge.address, "identity: X-User, response_headers: [X-User], cache: { ttl: 1m }");
    let user = || origin.last().headers["x-user"].to_str().unwrap().to_owned();
    let mut asked = 0;
    let mut expect = |more: usize, what: &str| {
        asked += more;
        assert_eq!(judge.asked(), asked, "{what}");
    };
    gw.get("/a").bearer("alice").expect(200);
    expect(1, "the first");
    gw.get("/a").bearer("alice").expect(200);
    expect(0, "the same");
    gw.get("/a").bearer("bob").expect(200);
    assert_eq!(user(), "bob");
    expect(1, "another credential");
    gw.get("/a").bearer("alice").expect(200);
    assert_eq!(user(), "alice");
    expect(0, "the first again");
    gw.get("/a").bearer("alice").header("Cookie", "c=1").expect(200);
    expect(1, "another cookie");
    gw.get("/b").bearer("alice").expect(200);
    gw.get("/a?q=1").bearer("alice").expect(200);
    gw.request("POST", "/a").bearer("alice").expect(200);
    gw.get("/a").bearer("alice").header("Host", "other.example").expect(200);
    expect(4, "another path, query, method, host");
    // Whose value ends where another's begins is somebody else's.
    gw.get("/a").header("Cookie", "Bearer alice").expect(401);
    gw.get("/a").header("Authorization", "Bearer alice\u{20}").header("Cookie", "").expect(200);
    expect(2, "another field");
    for _ in 0..2 {
        gw.get("/a").bearer("wrong").expect(403);
        gw.get("/a").expect(401);
        gw.get("/a").header("Cookie", "no-store").expect(200);
    }
    expect(6, "refusals and answers that must not be kept are asked for each time");
    assert_eq!(gw.metric("gateway_forward_auth_total{outcome=\"remembered\",route=\"r\"}"), Some(2.0));
}

#[test]
fn what_the_service_does_not_judge_by_need_not_be_the_same() {
    let (origin, judge) = (Origin::start("o"), Judge::start(by_bearer));
    let gw = gateway(
        &origin,
        &judge.address,
        "identity: X-User, cache: { ttl: 1s, ignore: [method, uri, client, host, proto] }",
    );
    gw.get("/a").bearer("alice").expect(200);
    gw.request("POST", "/b?c").bearer("alice").header("Host", "other.example").expect(200);
    assert_eq!(judge.asked(), 1);
    gw.get("/a").bearer("bob").expect(200);
    assert_eq!(judge.asked(), 2);
    eventually("it ends", || {
        gw.get("/a").bearer("alice").expect(200);
        judge.asked() >= 3
    });
}

#[test]
fn whom_it_names_has_roles_and_a_cache_of_answers_of_its_own() {
    let (origin, judge) = (Origin::start("o"), Judge::start(by_bearer));
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main, cache: {{ ttl: 1m }}, filters: [ forward_auth: {{ url: 'http://{}/', response_headers: [X-Role, Authorization] }}, acl: {{ allow: {{ roles: [role-a, role-b] }}, roles_claim: x-role }} ] }}\n",
        origin.url(),
        judge.address
    ));
    gw.get("/").bearer("carol").expect(403).problem();
    gw.get("/").bearer("alice").expect(200);
    assert_eq!(origin.last().headers["x-role"], "role-a");
    // What was made for one role is not served to another, though nobody is named.
    gw.get("/").bearer("bob").expect(200);
    assert_eq!(origin.last().headers["x-role"], "role-b");
    assert!(!origin.last().headers.contains_key("authorization"));
}

#[test]
fn cookies_of_http2_come_as_one_field() {
    let origin = Origin::start("o");
    let judge = Judge::start(by_bearer);
    let gw = Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", h2c: true }} ]\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main, filters: [ forward_auth: {{ url: 'http://{}/' }} ] }}\n",
        origin.url(),
        judge.address
    ));
    let fields = [("authorization", "Bearer alice"), ("cookie", "a=1"), ("cookie", "b=2")];
    assert_eq!(h2_request(gw.port, "GET", "/", &fields).head.status(), 200);
    let head = judge.last();
    assert_eq!(field(&head, "cookie"), Some("a=1; b=2"), "{head}");
    assert_eq!(head.matches("ookie:").count(), 1, "{head}");
}

#[test]
fn the_service_is_verified_over_tls() {
    let (origin, certs) = (Origin::start("o"), Certs::new());
    let judge = JwksServer::start(&certs, Publishes::Raw("HTTP/1.1 204 No Content\r\n\r\n"));
    for (more, status) in [("", 503), ("ca: CA", 200)] {
        let more = more.replace("CA", &certs.path("ca.pem"));
        let gw = Gateway::start(&format!(
            "services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main, filters: [ forward_auth: {{ url: '{}', {more} }} ] }}\n",
            origin.url(),
            judge.url()
        ));
        gw.get("/").expect(status);
    }
}

#[test]
fn mistakes_are_told() {
    for (settings, message) in [
        ("url: 'auth/verify'", "url: "),
        ("url: 'http://u:hunter2@auth/'", "url: credentials do not belong into it"),
        ("url: 'ftp://auth/'", "url: the scheme is neither http nor https"),
        ("url: 'http://auth/', timeout: 0", "timeout: is more than 0"),
        ("url: 'http://auth/', at_once: 0", "at_once: 0 is not a number"),
        (
            "url: 'http://auth/', request_headers: [X-Forwarded-Uri]",
            "request_headers[0]: 'X-Forwarded-Uri' is made by the gateway",
        ),
        ("url: 'http://auth/', request_headers: [X_Forwarded_For]", "is made by the gateway"),
        ("url: 'http://auth/', request_headers: [Content-Length]", "belongs to the connection"),
        ("url: 'http://auth/', request_headers: [A, a]", "is there twice"),
        ("url: 'http://auth/', response_headers: [Host]", "response_headers[0]: 'Host' belongs to the connection"),
        ("url: 'http://auth/', response_headers: [X-A, X_A]", "is taken already"),
        ("url: 'http://auth/', response_headers: [Authorization], forward: true", "leave one of the two out"),
        ("url: 'http://auth/', cache: { ttl: 0 }", "cache.ttl: is more than 0"),
        ("url: 'http://auth/', ca: a.pem", "ca"),
        ("url: 'http://auth/', on_error: maybe", "on_error"),
    ] {
        let yaml = format!(
            "listeners: \"127.0.0.1:1\"\nroutes:\n  - {{ match: {{ path: /* }}, respond: {{ body: a }}, filters: [ forward_auth: {{ {settings} }} ] }}\n"
        );
        let (code, text) = check(&yaml);
        assert!(code == 78 && text.contains(message) && !text.contains("hunter2"), "{settings}: {text}");
    }
    let twice = "listeners: \"127.0.0.1:1\"\nroutes:\n  - { match: { path: /* }, respond: { body: a }, filters: [ forward_auth: { url: 'http://a/' }, forward_auth: { url: 'http://b/' } ] }\n";
    assert!(check(twice).1.contains("would be taken for who has passed the first"));
}

#[test]
fn who_is_let_in_without_a_name_has_a_cache_of_answers_of_its_own() {
    let origin = Origin::start("o");
    let judge = Judge::start(|_: &str| ok(""));
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main, cache: {{ ttl: 1m }}, filters: [ forward_auth: {{ url: 'http://{}/', request_headers: [X-Token, X-Other] }} ] }}\n",
        origin.url(),
        judge.address
    ));
    let shown: [&[(&str, &str)]; 6] = [
        &[("X-Token", "u1")],
        &[("X-Token", "u2")],
        &[("X-Token", "u1"), ("X-Token", "u2")],
        &[("X-Token", "u1"), ("X-Other", "u2")],
        &[("X-Other", "u1")],
        &[],
    ];
    for _ in 0..2 {
        for fields in shown {
            fields.iter().fold(gw.get("/"), |request, (name, value)| request.header(name, value)).expect(200);
        }
    }
    assert_eq!(origin.seen().len(), 6, "one for each, and a hit for each");
}

#[test]
fn a_token_of_its_own_is_hidden_from_the_backend() {
    let (origin, judge) = (Origin::start("o"), Judge::start(|_: &str| ok("")));
    for (more, hidden) in [("", true), (", forward: true", false)] {
        let gw = gateway(&origin, &judge.address, &format!("request_headers: [X-Token, Cookie, Accept]{more}"));
        gw.get("/").header("X-Token", "t").header("Cookie", "a=1").header("Accept", "text/a").expect(200);
        let seen = origin.last().headers;
        assert_eq!(seen.contains_key("x-token"), !hidden, "{seen:?}");
        assert!(seen["cookie"] == "a=1" && seen["accept"] == "text/a", "{seen:?}");
    }
}

#[test]
fn groups_keep_their_spaces_and_nobody_has_an_empty_name() {
    let origin = Origin::start("o");
    let judge = Judge::start(|head: &str| match field(head, "x-token") {
        Some("spaced") => ok("X-User: u\r\nX-Groups: not admin\r\n"),
        Some("domain") => ok("X-User: u\r\nX-Groups: Domain Users\r\n"),
        Some("admin") => ok("X-User: u\r\nX-Groups: admin\r\n"),
        _ => ok("X-User: \r\n"),
    });
    let asks = format!(
        "forward_auth: {{ url: 'http://{}/', request_headers: [X-Token], response_headers: [X-User, X-Groups], identity: X-User }}",
        judge.address
    );
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /allow }}, service: main, filters: [ {asks}, acl: {{ allow: {{ roles: [admin] }}, roles_claim: x-groups }} ] }}\n  - {{ match: {{ path: /deny }}, service: main, filters: [ {asks}, acl: {{ deny: {{ roles: [\"Domain Users\"] }}, roles_claim: x-groups }} ] }}\n",
        origin.url()
    ));
    let status = |path: &str, token: &str| gw.get(path).header("X-Token", token).send().status;
    assert_eq!((status("/allow", "spaced"), status("/allow", "admin")), (403, 200));
    assert_eq!((status("/deny", "domain"), status("/deny", "admin")), (403, 200));
    assert_eq!(status("/deny", "nobody"), 403);
}

#[test]
fn what_a_client_brings_about_opens_no_door_and_is_no_failure_of_the_service() {
    let origin = Origin::start("o");
    let judge = Judge::start(|head| match field(head, "authorization") {
        Some("large") => "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_owned(),
        _ => ok("X-User: alice\r\n"),
    });
    let gw = gateway(&origin, &judge.address, "identity: X-User, on_error: allow");
    gw.get("/").header("Authorization", "large").expect(403);
    gw.get("/").header("Authorization", "small").expect(200);
    assert_eq!(origin.seen().len(), 1);
    assert!(!gw.errors().contains("the answer is 400"), "{}", gw.errors());
}

#[test]
fn a_claim_of_a_field_has_no_case() {
    let (origin, judge) = (Origin::start("o"), Judge::start(by_bearer));
    let gw = Gateway::start(&format!(
        "services: {{ main: {{ urls: [\"{}\"] }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n    filters:\n      - forward_auth: {{ url: 'http://{}/v', response_headers: [X-Role], identity: X-User }}\n      - acl: {{ deny: {{ roles: [role-b] }}, roles_claim: X-Role }}\n",
        origin.url(),
        judge.address
    ));
    gw.get("/").bearer("bob").expect(403);
    gw.get("/").bearer("alice").expect(200);
}

#[test]
fn what_the_service_says_tells_answers_apart_whatever_the_field_is_called() {
    let names = |head: &str| ok(&format!("X-User: u\r\nNonce: {}\r\n", field(head, "x-token").unwrap_or_default()));
    let (origin, judge) = (Origin::start("o"), Judge::start(names));
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main, cache: {{ ttl: 1m }}, filters: [ forward_auth: {{ url: 'http://{}/', identity: X-User, response_headers: [X-User, Nonce], request_headers: [X-Token] }} ] }}\n",
        origin.url(),
        judge.address
    ));
    for token in ["one", "two"] {
        gw.get("/").header("X-Token", token).expect(200);
        assert_eq!(origin.last().headers["nonce"], token);
    }
}

#[test]
fn who_waits_for_the_service_does_not_begin_a_quota_anew() {
    let slow = |head: &str| {
        if head.contains("slow") {
            std::thread::sleep(Duration::from_millis(1500));
        }
        ok("")
    };
    let (origin, judge) = (Origin::start("o"), Judge::start(slow));
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main, filters: [ forward_auth: {{ url: 'http://{}/', request_headers: [Cookie] }}, rate_limit: {{ quota: 5/second }} ] }}\n",
        origin.url(),
        judge.address
    ));
    let begun = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let passed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let ask = |cookie: &str| {
            if gw.get("/").header("Cookie", cookie).send().status == 200 {
                passed.fetch_add(1, SeqCst);
            }
        };
        for _ in 0..28 {
            scope.spawn(move || ask("slow"));
            (0..4).for_each(|_| ask("fast"));
            std::thread::sleep(Duration::from_millis(150));
        }
    });
    let ended = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seconds = usize::try_from(ended.as_secs() - begun.as_secs()).unwrap() + 1;
    assert!(passed.load(SeqCst) <= 5 * seconds, "{} in {seconds} s", passed.load(SeqCst));
}

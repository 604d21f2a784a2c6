//! The cache through the running binary: what is kept, for whom, for how long, and what is said about it.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};

use crate::{
    auth::sha256,
    harness::{Answer, Gateway, eventually, h2_request, raw_backend, read_head},
};

/// A backend that answers as its query says: `?h=Name:value` are fields, `?b=` is the body, `?s=` the status, `?d=` a delay in
/// milliseconds; its body ends with how often it has been asked. To `If-None-Match: "same"` it says 304. With `?hold`, what is
/// neither GET nor HEAD is answered when it is let go.
pub(crate) struct Backend {
    pub(crate) address: String,
    asked: Arc<AtomicUsize>,
    let_go: Arc<AtomicBool>,
    /// The most requests at once.
    pub(crate) most: Arc<AtomicUsize>,
}

impl Backend {
    pub(crate) fn start() -> Self {
        let [asked, most, under_way] = std::array::from_fn(|_| Arc::new(AtomicUsize::new(0)));
        let (count, highest) = (asked.clone(), most.clone());
        let let_go = Arc::new(AtomicBool::new(false));
        let may_answer = let_go.clone();
        let address = raw_backend(move |mut stream| {
            loop {
                let head = read_head(&mut stream);
                if head.is_empty() {
                    return;
                }
                if head.to_lowercase().contains("transfer-encoding: chunked") {
                    // The end of an empty body.
                    read_head(&mut stream);
                }
                let number = count.fetch_add(1, SeqCst) + 1;
                let target = head.split(' ').nth(1).unwrap();
                let query = target.split_once('?').map_or("", |(_, query)| query);
                let (mut fields, mut body, mut status, mut delay) = (String::new(), String::new(), "200", 0);
                for part in query.split('&') {
                    match part.split_once('=') {
                        Some(("h", field)) => {
                            fields.extend([&spelled(field), "\r\n"]);
                        }
                        Some(("b", text)) => text.clone_into(&mut body),
                        Some(("s", text)) => status = text,
                        // From the second time on.
                        Some(("later", text)) if number > 1 => status = text,
                        Some(("d", text)) => delay = text.parse().unwrap(),
                        // The fields of the request with these names, as the body.
                        Some(("e", name)) => {
                            let named = head.lines().filter(|line| line.to_lowercase().starts_with(name));
                            body = named.collect::<Vec<_>>().join(",") + "#";
                        }
                        // Who asks, as a field.
                        Some(("who", _)) => {
                            let who = head.lines().find(|line| line.to_lowercase().starts_with("authorization"));
                            fields.extend(["X-Who: ", who.unwrap_or("nobody"), "\r\n"]);
                        }
                        _ => {}
                    }
                }
                highest.fetch_max(under_way.fetch_add(1, SeqCst) + 1, SeqCst);
                std::thread::sleep(Duration::from_millis(delay));
                hold(&head, query, &may_answer);
                under_way.fetch_sub(1, SeqCst);
                let lower = head.to_lowercase();
                let body = if let Some(size) = body.strip_prefix('*') {
                    "x".repeat(size.parse().unwrap())
                } else {
                    format!("{body}{number}")
                };
                let sent = if lower.contains("if-none-match: \"same\"") {
                    write!(stream, "HTTP/1.1 304 Not Modified\r\n{fields}\r\n")
                } else {
                    let sent = if lower.starts_with("head ") { "" } else { &body };
                    write!(stream, "HTTP/1.1 {status} S\r\n{fields}Content-Length: {}\r\n\r\n{sent}", body.len())
                };
                if sent.is_err() {
                    return;
                }
            }
        });
        Self { address, asked, let_go, most }
    }

    /// From now on, `?hold` holds nothing.
    pub(crate) fn let_go(&self) {
        self.let_go.store(true, SeqCst);
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

fn spelled(field: &str) -> String {
    let codes = [("%22", "\""), ("%20", " "), ("%3F", "?"), ("%26", "&")];
    codes.iter().fold(field.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn hold(head: &str, query: &str, may_answer: &AtomicBool) {
    let holds = query.contains("&hold") && !head.starts_with("GET ") && !head.starts_with("HEAD ");
    while holds && !may_answer.load(SeqCst) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn gateway(backend: &Backend, cache: &str) -> Gateway {
    Gateway::start(&format!(
        "services: {{ a: {{ urls: [\"http://{}\"], retry: {{ max_attempts: 1 }} }} }}\nroutes: [{{ match: {{ path: /* }}, service: a, cache: {cache} }}]\n",
        backend.address
    ))
}

pub(crate) fn said(answer: &Answer) -> (u16, String, String) {
    let field = |name: &str| answer.get(name).to_owned();
    (answer.status, field("x-cache"), field("cache-status"))
}

pub(crate) const FRESH: &str = "h=Cache-Control:max-age=60";

#[test]
fn an_answer_is_kept_and_given_again() {
    let backend = Backend::start();
    let gw = gateway(&backend, "{}");
    let first = gw.get(&format!("/a?{FRESH}&b=x")).send();
    assert_eq!(said(&first), (200, "MISS".into(), "tollgate; fwd=uri-miss; stored; ttl=60".into()));
    let second = gw.get(&format!("/a?{FRESH}&b=x")).send();
    assert_eq!((second.status, second.body.as_str()), (200, "x1"));
    assert_eq!(said(&second).1, "HIT");
    assert!(!second.get("age").is_empty() && said(&second).2.starts_with("tollgate; hit; ttl="), "{second:?}");
    assert_eq!(backend.asked(), 1);
    let other = gw.get("/a?h=Cache-Control:no-store&b=x").send();
    assert_eq!(said(&other), (200, "MISS".into(), "tollgate; fwd=uri-miss; detail=no-store".into()));
    assert_eq!(gw.get(&format!("/a?{FRESH}&b=x")).header("cache-control", "no-cache").send().body, "x3");
    let head = gw.request("HEAD", &format!("/a?{FRESH}&b=x")).send();
    assert_eq!((head.status, head.body.as_str(), said(&head).1.as_str()), (200, "", "HIT"));
    let ours = gw.get("/ours?h=Tollgate-Cache-Control:max-age=9&h=Cache-Control:no-store").send();
    assert_eq!(
        (said(&ours).2.as_str(), ours.get("tollgate-cache-control")),
        ("tollgate; fwd=uri-miss; stored; ttl=9", "")
    );
    let only = gw.get("/new").header("cache-control", "only-if-cached").send();
    assert_eq!(only.status, 504, "{only:?}");
    // Lines of one client may change places: each is written after its answer.
    let lines = gw.log(7);
    let count = |word: &str, by: &str| lines.iter().filter(|line| line["cache"] == word && line["by"] == by).count();
    assert_eq!((count("hit", "cache"), count("miss", "upstream"), count("miss", "cache")), (2, 4, 1), "{lines:?}");
    assert!(gw.metric("gateway_cache_requests_total{result=\"hit\"}") >= Some(2.0));
    // The same over HTTP/1.0, with a body to come, and in pieces.
    let old = gw.raw(format!("GET /a?{FRESH}&b=x HTTP/1.0\r\nHost: 127.0.0.1:{}\r\n\r\n", gw.port).as_bytes());
    assert!(old.ends_with("x3") && old.contains("x-cache: HIT"), "{old}");
}

#[test]
fn one_clients_cookie_makes_no_other_client_go_alone() {
    let backend = Backend::start();
    let gw = gateway(&backend, "{ ttl: 1m }");
    let path = "/c?d=400&b=x";
    std::thread::scope(|scope| {
        scope.spawn(|| gw.get(path).header("Cookie", "u=1").expect(200));
        eventually("it is asked for", || backend.most.load(SeqCst) >= 1);
        for _ in 0..8 {
            scope.spawn(|| gw.get(path).expect(200));
        }
    });
    assert_eq!(backend.asked(), 2, "one for whose answer is not kept, one for the others");
    let hit = gw.get(path).send();
    assert_eq!(said(&hit).1, "HIT");
    // Nor afterwards: what is known of the one is not known of the others.
    let path = "/d?d=400&b=x";
    gw.get(path).header("Cookie", "u=1").expect(200);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| gw.get(path).expect(200));
        }
    });
    assert_eq!(backend.asked(), 4);
}

#[test]
fn large_answers_are_given_whole_and_in_parts() {
    let backend = Backend::start();
    let gw = gateway(&backend, "{}");
    let path = format!("/large?{FRESH}&b=*300000");
    assert_eq!(gw.get(&path).send().body.len(), 300_000);
    let hit = gw.get(&path).send();
    assert_eq!((hit.body.len(), said(&hit).1.as_str(), backend.asked()), (300_000, "HIT", 1));
    let part = gw.get(&path).header("range", "bytes=100-199999").send();
    assert_eq!((part.status, part.body.len(), part.get("content-range")), (206, 199_900, "bytes 100-199999/300000"));
    let none = gw.get(&path).header("range", "bytes=300000-").send();
    assert_eq!((none.status, none.get("content-range")), (416, "bytes */300000"));
    let too_large = format!("/huge?{FRESH}&b=*9000000");
    assert_eq!(gw.get(&too_large).send().body.len(), 9_000_000);
    assert_eq!(said(&gw.get(&too_large).send()).1, "MISS");
}

#[test]
fn what_comes_whole_is_kept_whatever_was_asked_for() {
    let backend = Backend::start();
    let gw = gateway(&backend, "{ max_object: 1KiB }");
    // A backend that does not mind conditions and ranges.
    for (path, name, value) in
        [("/a", "If-None-Match", "\"old\""), ("/b", "Range", "bytes=3-"), ("/c", "If-Range", "\"old\"")]
    {
        let path = format!("{path}?{FRESH}&b=whole");
        let first = gw.get(&path).header(name, value).header("Range", "bytes=3-").send();
        assert_eq!((first.status, said(&first).1.as_str()), (200, "MISS"), "{name}");
        let again = gw.get(&path).send();
        assert_eq!((&again.body, said(&again).1.as_str()), (&first.body, "HIT"), "{name}");
    }
    // One that gives all that there is as a part, as browsers ask for it that play something.
    let path = format!("/video?{FRESH}&s=206&h=ETag:%22v%22&h=Content-Range:bytes%200-5/6&b=video");
    let first = gw.get(&path).header("Range", "bytes=0-").send();
    assert_eq!((first.status, first.get("content-range"), first.body.as_str()), (206, "bytes 0-5/6", "video4"));
    assert!(said(&first).2.contains("stored"), "{first:?}");
    let part = gw.get(&path).header("Range", "bytes=1-2").send();
    assert_eq!((part.status, part.get("content-range"), part.body.as_str()), (206, "bytes 1-2/6", "id"));
    let whole = gw.get(&path).send();
    assert_eq!((whole.status, whole.body.as_str(), said(&whole).1.as_str()), (200, "video4", "HIT"));
    assert_eq!((whole.get("content-range"), whole.get("content-length")), ("", "6"), "{whole:?}");
    assert_eq!(backend.asked(), 4);
    // What is no whole, or need not have all that is said of one.
    for (number, range, field) in [
        ("1", "bytes%200-5/7", "If-None-Match"),
        ("2", "bytes%201-6/7", "If-None-Match"),
        ("3", "bytes%200-5/6", "If-Range"),
    ] {
        let path = format!("/part{number}?{FRESH}&s=206&h=Content-Range:{range}&b=video");
        let part = gw.get(&path).header("Range", "bytes=0-").header(field, "\"v\"").send();
        assert!(said(&part).2.contains("detail=partial"), "{part:?}");
        assert_eq!(said(&gw.get(&path).send()).1, "MISS", "{range}");
    }
    for status in [404, 412, 416] {
        let path = format!("/s{status}?{FRESH}&s={status}");
        assert_eq!(gw.get(&path).header("If-None-Match", "\"v\"").send().status, status);
        assert_eq!(said(&gw.get(&path).send()).1, "MISS", "{status}");
    }
}

#[test]
fn a_stale_answer_is_validated() {
    let backend = Backend::start();
    let gw = gateway(&backend, "{}");
    let path = "/v?h=Cache-Control:max-age=1&h=ETag:%22same%22&b=x";
    assert_eq!(gw.get(path).send().body, "x1");
    std::thread::sleep(Duration::from_millis(2100));
    let again = gw.get(path).send();
    assert_eq!((again.status, again.body.as_str()), (200, "x1"), "{again:?}");
    assert_eq!(said(&again).1, "REVALIDATED");
    assert_eq!(said(&gw.get(path).send()).1, "HIT", "it is fresh again");
    assert_eq!(backend.asked(), 2);
    let same = gw.get(path).header("if-none-match", "W/\"same\"").send();
    assert_eq!((same.status, same.body.as_str()), (304, ""), "{same:?}");
    // The connection to the backend, and that of the client, go on.
    std::thread::sleep(Duration::from_millis(2100));
    let host = format!("Host: 127.0.0.1:{}\r\n", gw.port);
    let twice = format!("GET {path} HTTP/1.1\r\n{host}\r\n");
    let last = format!("GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
    let both = gw.raw(format!("{twice}{last}").as_bytes());
    assert_eq!(both.matches("HTTP/1.1 200 OK").count(), 2, "{both}");
    assert!(both.contains("x-cache: REVALIDATED") && both.contains("x-cache: HIT"), "{both}");
}

#[test]
fn over_http2_a_validated_answer_has_its_body() {
    let backend = Backend::start();
    let gw = Gateway::start(&format!(
        "listeners: [{{ address: \"127.0.0.1:{{port}}\", h2c: true }}]\nservices: {{ a: {{ urls: [\"http://{}\"] }} }}\nroutes: [{{ match: {{ path: /* }}, service: a, cache: {{}} }}]\n",
        backend.address
    ));
    let path = "/v?h=Cache-Control:no-cache&h=ETag:%22same%22&b=x";
    for expected in ["MISS", "REVALIDATED", "REVALIDATED"] {
        let answer = h2_request(gw.port, "GET", path, &[]);
        assert_eq!((answer.head.status().as_u16(), answer.body.as_slice(), answer.reset), (200, &b"x1"[..], None));
        assert_eq!(answer.head.headers()["x-cache"], expected);
    }
}

#[test]
fn when_the_backend_fails_a_stale_answer_is_better_than_none() {
    let mut backend = crate::harness::Origin::start("a");
    let gw = Gateway::start(&format!(
        "services: {{ a: {{ urls: [\"{}\"], retry: {{ max_attempts: 1 }} }} }}\nroutes: [{{ match: {{ path: /* }}, service: a, cache: {{ ttl: 1s, stale_if_unreachable: 1m }} }}]\n",
        backend.url()
    ));
    let first = gw.get("/x").send();
    assert_eq!(said(&first).1, "MISS");
    backend.kill();
    std::thread::sleep(Duration::from_millis(1100));
    let stale = gw.get("/x").send();
    assert_eq!((stale.status, said(&stale).1.as_str(), &stale.body), (200, "STALE", &first.body), "{stale:?}");
    assert_eq!(gw.get("/y").send().status, 502);
}

#[test]
fn an_error_gives_way_to_a_stale_answer_where_that_is_said() {
    let backend = Backend::start();
    let gw = gateway(&backend, "{ query: { include: [k] }, stale_if_error: 1m }");
    assert_eq!(gw.get("/e?k=1&h=Cache-Control:max-age=1&b=x").send().body, "x1");
    std::thread::sleep(Duration::from_millis(1100));
    let stale = gw.get("/e?k=1&s=503&b=broken").send();
    assert_eq!((stale.status, stale.body.as_str(), said(&stale).1.as_str()), (200, "x1", "STALE"), "{stale:?}");
    assert_eq!(gw.get("/e?k=2&s=503&b=broken").send().status, 503);
}

#[test]
fn a_stale_answer_is_given_while_a_new_one_is_fetched() {
    let backend = Backend::start();
    let gw = gateway(&backend, "{}");
    let path = "/s?h=Cache-Control:max-age=1,stale-while-revalidate=60&b=x&d=300";
    assert_eq!(gw.get(path).send().body, "x1");
    std::thread::sleep(Duration::from_millis(1100));
    let stale = gw.get(path).send();
    assert_eq!((stale.body.as_str(), said(&stale).1.as_str()), ("x1", "STALE"));
    eventually("the new one is there", || gw.get(path).send().body == "x2");
    assert_eq!(backend.asked(), 2, "one request has fetched it");
}

#[test]
fn nobody_sees_what_is_another_ones() {
    let backend = Backend::start();
    let gw = Gateway::start(&format!(
        "services: {{ a: {{ urls: [\"http://{}\"] }} }}\napi_keys: [{{ id: k1, sha256: {} }}, {{ id: k2, sha256: {} }}]\nroutes:\n  - {{ match: {{ path: /key }}, service: a, filters: [api_key], cache: {{}} }}\n  - {{ match: {{ path: /own }}, service: a, cache: {{ authorized: true }} }}\n  - {{ match: {{ path: /* }}, service: a, cache: {{}} }}\n",
        backend.address,
        sha256("one"),
        sha256("two")
    ));
    let path = format!("/key?{FRESH}");
    assert_eq!(gw.get(&path).key("one").send().body, "1");
    assert_eq!(gw.get(&path).key("two").send().body, "2");
    assert_eq!(gw.get(&path).key("one").send().body, "1");
    assert_eq!(gw.get(&path).send().status, 401, "the chain runs first");
    let path = format!("/own?{FRESH}");
    let (alice, bob) = ("alice", "bob");
    assert_eq!(gw.get(&path).bearer(alice).send().body, "3");
    assert_eq!(gw.get(&path).bearer(bob).send().body, "4");
    assert_eq!(gw.get(&path).bearer(alice).send().body, "3");
    // Nobody has looked at this credential: the answer to it is nobody else's, and not kept.
    let path = format!("/open?{FRESH}");
    let first = gw.get(&path).bearer("secret").send();
    assert_eq!((first.body.as_str(), said(&first).2.contains("authorization")), ("5", true), "{first:?}");
    assert_eq!(gw.get(&path).send().body, "6");
    // A backend may write the port into its links.
    let host = |port: &str| {
        let request = format!("GET /port?{FRESH} HTTP/1.1\r\nHost: shop{port}\r\nConnection: close\r\n\r\n");
        gw.raw(request.as_bytes()).contains("x-cache: HIT")
    };
    assert_eq!([host(""), host(":1337"), host(""), host(":1337"), host(":80")], [false, false, true, true, false]);
    let cookie = format!("/cookie?{FRESH}&h=Set-Cookie:session=1");
    assert!(!gw.get(&cookie).send().get("set-cookie").is_empty());
    assert_eq!(said(&gw.get(&cookie).send()).1, "MISS");
    let vary = format!("/vary?{FRESH}&h=Vary:X-A,X-B,X-C");
    let mut bodies: Vec<String> =
        (0..4).map(|n| gw.get(&vary).header("x-a", &n.to_string()).header("x-c", "c").send().body).collect();
    bodies.dedup();
    assert_eq!(bodies.len(), 4, "{bodies:?}");
    assert_eq!(gw.get(&vary).header("x-a", "2").header("x-c", "c").send().body, bodies[2]);
    assert_eq!(said(&gw.get(&vary).header("x-a", "2").send()).2, "tollgate; fwd=vary-miss; stored; ttl=60");
}

#[test]
fn who_changes_something_takes_away_what_is_stored_of_it() {
    let backend = Backend::start();
    let gw = gateway(&backend, "{ query: { include: [k] } }");
    let path = format!("/i?k=1&{FRESH}");
    assert_eq!((gw.get(&path).send().body, gw.get(&path).send().body), ("1".into(), "1".into()));
    gw.request("POST", "/i?k=1&s=500").send();
    assert_eq!(gw.get(&path).send().body, "1", "an error has changed nothing");
    gw.request("POST", "/i?k=1").send();
    assert_eq!(gw.get(&path).send().body, "4");
}

#[test]
fn a_thousand_clients_of_one_cold_key_ask_once() {
    let backend = Backend::start();
    let gw = Arc::new(gateway(&backend, "{}"));
    let crowd = |path: &'static str, count: usize| {
        let clients: Vec<_> = (0..count)
            .map(|_| {
                let gw = gw.clone();
                std::thread::Builder::new().stack_size(128 << 10).spawn(move || gw.get(path).send().status).unwrap()
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).filter(|status| *status == 200).count()
    };
    assert_eq!(crowd("/crowd?h=Cache-Control:max-age=60&d=1000", 300), 300);
    assert_eq!(backend.asked(), 1);
    let begun = std::time::Instant::now();
    assert_eq!(crowd("/private?h=Cache-Control:private&d=200", 50), 50);
    assert!(begun.elapsed() < Duration::from_secs(5), "nobody queues: {:?}", begun.elapsed());
    assert_eq!(backend.asked(), 51);
}

#[test]
fn what_breaks_off_is_not_kept() {
    let backend = raw_backend(|mut stream| {
        read_head(&mut stream);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nhalf");
    });
    let gw = Gateway::start(&format!(
        "services: {{ a: {{ urls: [\"http://{backend}\"] }} }}\nroutes: [{{ match: {{ path: /* }}, service: a, cache: {{}} }}]\n"
    ));
    for _ in 0..2 {
        let answer = gw.raw(b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert!(answer.contains("x-cache: MISS") && answer.ends_with("half"), "{answer}");
    }
}

#[test]
fn hedged_requests_fill_the_cache_too() {
    let backend = Backend::start();
    let gw = Gateway::start(&format!(
        "services: {{ a: {{ urls: [\"http://{}\"], hedge: {{ after: 5s }} }} }}\nroutes: [{{ match: {{ path: /* }}, service: a, cache: {{}} }}]\n",
        backend.address
    ));
    let path = "/h?h=Cache-Control:max-age=1&h=ETag:%22same%22&b=x";
    assert_eq!((gw.get(path).send().body, said(&gw.get(path).send()).1), ("x1".to_owned(), "HIT".to_owned()));
    std::thread::sleep(Duration::from_millis(2100));
    let again = gw.get(path).send();
    assert_eq!((again.status, again.body.as_str(), said(&again).1.as_str()), (200, "x1", "REVALIDATED"), "{again:?}");
}

#[test]
fn when_the_one_who_fetches_leaves_another_one_does() {
    let backend = Backend::start();
    let gw = Arc::new(gateway(&backend, "{}"));
    let path = format!("/left?{FRESH}&d=800");
    {
        use std::{io::Write as _, net::TcpStream};
        let mut first = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        write!(first, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", gw.port).unwrap();
        eventually("the first one asks", || backend.asked() == 1);
        let others: Vec<_> = (0..30)
            .map(|_| {
                let (gw, path) = (gw.clone(), path.clone());
                std::thread::spawn(move || gw.get(&path).send().status)
            })
            .collect();
        std::thread::sleep(Duration::from_millis(200));
        drop(first);
        assert!(others.into_iter().all(|other| other.join().unwrap() == 200));
    }
    assert_eq!(backend.asked(), 2, "one of those who were left has asked");
}

#[test]
fn a_body_that_no_field_speaks_of_is_seen_over_http2() {
    let backend = Backend::start();
    let gw = Gateway::start(&format!(
        "listeners: [{{ address: \"127.0.0.1:{{port}}\", h2c: true }}]\nservices: {{ a: {{ urls: [\"http://{}\"] }} }}\nroutes: [{{ match: {{ path: /* }}, service: a, cache: {{}} }}]\n",
        backend.address
    ));
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let status = executor.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", gw.port)).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = axum::http::Request::get(format!("http://h/fat?{FRESH}")).body(()).unwrap();
        let (answer, mut body) = client.send_request(request, false).unwrap();
        body.send_data("poison".into(), true).unwrap();
        answer.await.unwrap().headers()["x-cache"].to_str().unwrap().to_owned()
    });
    assert_eq!(status, "BYPASS");
    let next = h2_request(gw.port, "GET", &format!("/fat?{FRESH}"), &[]);
    assert_eq!(next.head.headers()["x-cache"], "MISS");
}

#[test]
fn what_one_clients_credentials_are_answered_stays_with_that_client() {
    let backend = Backend::start();
    let gw = gateway(&backend, "{}");
    let path = format!("/head?{FRESH}&h=ETag:%22same%22&who=1");
    assert_eq!(gw.get(&path).send().get("x-who"), "nobody");
    gw.request("HEAD", &path).bearer("alice").header("cache-control", "no-cache").send();
    assert_eq!(gw.get(&path).send().get("x-who"), "nobody");
    let path = "/stale?h=Cache-Control:max-age=1&h=ETag:%22same%22&who=1";
    gw.get(path).send();
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(said(&gw.get(path).bearer("alice").send()).1, "REVALIDATED");
    let next = gw.get(path).send();
    assert_eq!((said(&next).1.as_str(), next.get("x-who")), ("HIT", "nobody"));
}

#[test]
fn what_the_gateway_tells_backends_makes_a_difference() {
    let backend = Backend::start();
    let gw = Gateway::start(&format!(
        "trusted_proxies: [127.0.0.0/8]\nservices: {{ a: {{ urls: [\"http://{}\"] }} }}\nroutes: [{{ match: {{ path: /* }}, service: a, cache: {{}} }}]\n",
        backend.address
    ));
    let path = format!("/f?{FRESH}&e=x-forwarded-host");
    let evil = gw.get(&path).header("x-forwarded-host", "evil.test").send();
    assert!(evil.body.contains("evil.test"), "{evil:?}");
    assert!(!gw.get(&path).header("x-forwarded-host", "good.test").send().body.contains("evil"));
    assert!(!gw.get(&path).send().body.contains("evil"));
    let path = format!("/vary?{FRESH}&h=Vary:X-Forwarded-For");
    assert!(said(&gw.get(&path).send()).2.contains("vary-any"));
    let path = format!("/proto?{FRESH}&h=Vary:X-Forwarded-Proto");
    gw.get(&path).send();
    assert_eq!(said(&gw.get(&path).send()).1, "HIT");
}

#[test]
fn an_answer_out_of_the_cache_that_is_broken_off_is_logged_as_far_as_it_went() {
    use std::{io::Read as _, net::TcpStream};
    let backend = Backend::start();
    let gw = gateway(&backend, "{}");
    let path = format!("/big?{FRESH}&b=*8000000");
    assert_eq!(gw.get(&path).send().body.len(), 8_000_000);
    let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    write!(client, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", gw.port).unwrap();
    client.read_exact(&mut vec![0; 100_000]).unwrap();
    drop(client);
    let line = &gw.log(2)[1];
    assert_eq!((line["status"].as_u64(), line["cache"].as_str()), (Some(200), Some("hit")), "{line}");
    assert!(line["sent"].as_u64().is_some_and(|sent| (100_000..8_000_000).contains(&sent)), "{line}");
}

#[test]
fn who_wants_something_else_does_not_wait_in_line() {
    let backend = Backend::start();
    let gw = Arc::new(gateway(&backend, "{}"));
    let crowd = |path: &'static str, field: &'static str, alike: bool| {
        let begun = std::time::Instant::now();
        let clients: Vec<_> = (0..8)
            .map(|number| {
                let gw = gw.clone();
                let value = if alike { "max-age=0".to_owned() } else { format!("s={number}") };
                std::thread::spawn(move || gw.get(path).header(field, &value).send().status)
            })
            .collect();
        assert!(clients.into_iter().all(|client| client.join().unwrap() == 200));
        begun.elapsed()
    };
    let vary = crowd("/v?h=Cache-Control:max-age=60&h=Vary:Cookie&d=500", "cookie", false);
    let validated = "/nc?h=Cache-Control:no-cache&h=ETag:%22same%22&d=500";
    gw.get(validated).send();
    let validated = crowd(validated, "x-any", true);
    let fresh = "/f?h=Cache-Control:max-age=60&d=500";
    gw.get(fresh).send();
    let asked_anew = crowd(fresh, "cache-control", true);
    let most = Duration::from_millis(2500);
    assert!(vary < most && validated < most && asked_anew < most, "{vary:?} {validated:?} {asked_anew:?}");
}

#[test]
fn what_was_on_its_way_while_it_was_changed_is_not_kept() {
    let backend = Backend::start();
    let gw = Arc::new(gateway(&backend, "{ query: { include: [k] } }"));
    let slow = {
        let gw = gw.clone();
        std::thread::spawn(move || gw.get(&format!("/p?k=1&{FRESH}&d=700")).send())
    };
    eventually("it is asked for", || backend.asked() == 1);
    gw.request("POST", "/p?k=1").send();
    let slow = slow.join().unwrap();
    assert_eq!((slow.body.as_str(), said(&slow).2.as_str()), ("1", "tollgate; fwd=uri-miss; detail=purged"));
    assert_eq!(gw.get(&format!("/p?k=1&{FRESH}")).send().body, "3", "the store was empty, and the purge counts");
}

#[test]
fn who_has_a_stale_answer_fetched_anew_takes_it_from_nobody() {
    let backend = Backend::start();
    let gw = gateway(&backend, "{}");
    let path = "/swr?h=Cache-Control:max-age=1,stale-while-revalidate=60&b=x";
    gw.get(path).send();
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(said(&gw.get(path).bearer("alice").send()).1, "STALE");
    eventually("it is fetched", || backend.asked() == 2);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(said(&gw.get(path).send()).1, "STALE");
}

#[test]
fn what_slow_clients_read_is_bounded_and_counted() {
    /// Larger than all that lies between the gateway and a client.
    const SIZE: usize = 7 << 20;
    let backend = Backend::start();
    let gateway = Gateway::start(&format!(
        "cache: {{ memory: 16MiB }}\nservices: {{ main: {{ urls: ['http://{}'] }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main, cache: {{ max_object: 8MiB }} }} ]\n",
        backend.address
    ));
    let path = |n: usize| format!("/{n}?h=Cache-Control:max-age=100&b=*{SIZE}");
    let mut slow = Vec::new();
    for n in 0..24 {
        gateway.get(&path(n)).expect(200);
        let client = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
        setsockopt(&client, sockopt::RcvBuf, &4096).unwrap();
        (&client)
            .write_all(format!("GET {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", path(n), gateway.port).as_bytes())
            .unwrap();
        // It is being answered before the next one comes.
        let _ = (&client).read(&mut [0; 1]).unwrap();
        slow.push(client);
    }
    let held = || gateway.metric("gateway_cache_held_bytes");
    assert!(gateway.peak_memory() < 110 << 20, "{}", gateway.peak_memory());
    // With less than this, one more would have found room.
    assert!(held().is_some_and(|held| held > 9.4e6 && held <= 17e6), "{held:?}", held = held());
    let detail = gateway.get(&path(99)).expect(200).get("cache-status").to_owned();
    assert!(detail.contains("too-large"), "{detail}");
    drop(slow);
    eventually("it is given back", || held() == Some(0.0));
    assert!(!gateway.get(&path(98)).expect(200).get("cache-status").contains("too-large"));
}

/// The words of `X-Cache` of so many requests at once, with these fields each.
fn at_once(gateway: &Gateway, path: &str, clients: &[Vec<(&'static str, String)>]) -> Vec<String> {
    std::thread::scope(|scope| {
        let ask = |fields: &Vec<(&'static str, String)>| {
            let request = fields.iter().fold(gateway.get(path), |request, (name, value)| request.header(name, value));
            request.expect(200).get("x-cache").to_owned()
        };
        let all: Vec<_> = clients.iter().map(|fields| scope.spawn(move || ask(fields))).collect();
        all.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

#[test]
fn each_variant_is_fetched_once() {
    let backend = Backend::start();
    let gateway = Gateway::start(&format!(
        "services: {{ main: {{ urls: ['http://{}'] }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main, cache: {{}} }} ]\n",
        backend.address
    ));
    let path = "/v?h=Cache-Control:max-age=100&h=Vary:X-Tenant&e=x-tenant&d=300";
    let tenants = |names: &[&str], each: usize| -> Vec<Vec<_>> {
        names.iter().flat_map(|name| vec![vec![("X-Tenant", (*name).to_owned())]; each]).collect()
    };
    at_once(&gateway, path, &tenants(&["a"], 1));
    let words = at_once(&gateway, path, &tenants(&["b"], 20));
    assert_eq!((backend.asked(), words.iter().filter(|word| *word == "MISS").count()), (2, 1), "{words:?}");
    // Nobody knows beforehand that there are variants: whoever has waited for another's waits for their own.
    let path = path.replace("/v?", "/w?");
    at_once(&gateway, &path, &tenants(&["a", "b", "c"], 7));
    assert_eq!(backend.asked(), 5);
}

#[test]
fn what_one_client_sends_makes_no_others_fetch_by_themselves() {
    let backend = Backend::start();
    let gateway = Gateway::start(&format!(
        "services: {{ main: {{ urls: ['http://{}'] }} }}\nroutes:\n  - {{ match: {{ path: /s/* }}, service: main, cache: {{ shared: true }} }}\n  - {{ match: {{ path: /* }}, service: main, cache: {{}} }}\n",
        backend.address
    ));
    let vary = "h=Vary:Accept-Language";
    for (path, more, field, value) in [
        ("/a", vary, "Accept_Language", "x".to_owned()),
        ("/b", vary, "Accept-Language", "x".repeat(5000)),
        ("/s/c", "", "Authorization", "x".to_owned()),
    ] {
        let path = format!("{path}?h=Cache-Control:max-age=100&{more}&d=300");
        let before = backend.asked();
        gateway.get(&path).header(field, &value).expect(200);
        at_once(&gateway, &path, &vec![Vec::new(); 20]);
        assert_eq!(backend.asked() - before, 2, "{field}");
    }
}

#[test]
fn what_is_said_to_the_gateway_alone_is_not_told_to_clients() {
    let backend = Backend::start();
    let gateway = Gateway::start(&format!(
        "services: {{ main: {{ urls: ['http://{}'] }} }}\nroutes:\n  - {{ match: {{ path: /c/* }}, service: main, cache: {{}} }}\n  - {{ match: {{ path: /* }}, service: main }}\n",
        backend.address
    ));
    for path in ["/c/a", "/a"] {
        let answer = gateway.get(&format!("{path}?h=Tollgate-Cache-Control:max-age=9&h=X-Other:1")).expect(200);
        assert_eq!((answer.get("tollgate-cache-control"), answer.get("x-other")), ("", "1"), "{path}");
    }
}

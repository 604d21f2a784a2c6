//! Which listener a connection belongs to, and a start that says only what is true.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    time::Duration,
};

use crate::harness::{BINARY, Certs, Gateway, free_port, program};

/// What an address answers to these bytes, until it closes or is silent for two seconds.
fn ask(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address.parse::<SocketAddr>().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.write_all(bytes).unwrap();
    let (mut out, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        out.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&out).into_owned()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
const ROUTE: &str = "routes: [ { match: { path: / }, respond: { body: served } } ]\n";

/// A file with these listeners, run until it ends.
fn run(yaml: &str, arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.yaml");
    fs::write(&file, format!("pingora: {{ upgrade_sock: {}/sock }}\n{yaml}{ROUTE}", dir.path().display())).unwrap();
    Command::new(BINARY).args(arguments).arg("-c").arg(&file).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_connection_has_the_settings_of_the_listener_that_accepted_it() {
    let certs = Certs::new();
    certs.issue("a", "a.example", &["a.example"]);
    let plain = "{ address: \"0.0.0.0:{port}\" }";
    let tls =
        format!("tls: {{ certificates: [ {{ {} }} ], mtls: {{ ca: {} }} }}", certs.yaml("a"), certs.path("ca.pem"));
    for address in ["[::1]", "[::]"] {
        let secret = format!("{{ address: \"{address}:{{port}}\", {tls} }}");
        for listeners in [[plain, secret.as_str()].join(", "), [secret.as_str(), plain].join(", ")] {
            let gw = Gateway::start(&format!("listeners: [ {listeners} ]\n{ROUTE}"));
            assert!(ask(&format!("127.0.0.1:{}", gw.port), GET).contains("served"), "{listeners}");
            let answer = ask(&format!("[::1]:{}", gw.port), GET);
            assert!(answer.contains("this port speaks TLS") && !answer.contains("served"), "{listeners}: {answer}");
        }
    }
}

#[test]
fn an_ipv6_wildcard_alone_serves_ipv4_too() {
    let gw = Gateway::start(&format!("listeners: [ {{ address: \"[::]:{{port}}\" }} ]\n{ROUTE}"));
    for host in ["127.0.0.1", "[::1]"] {
        assert!(ask(&format!("{host}:{}", gw.port), GET).contains("served"), "{host}");
    }
}

#[test]
fn listeners_that_cannot_be_there_together_end_the_start() {
    let (port, admin) = (free_port(), free_port());
    let mapped = run(
        &format!(
            "listeners: [ {{ address: \"127.0.0.1:{port}\" }}, {{ address: \"[::ffff:127.0.0.1]:{port}\" }} ]\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\n"
        ),
        &["-t"],
    );
    assert_eq!(mapped.status.code(), Some(78), "{mapped:?}");
    assert!(
        String::from_utf8_lossy(&mapped.stderr).contains("is taken already (by listeners[0].address)"),
        "{mapped:?}"
    );
    // Not this machine's (TEST-NET-1), and taken: both are said.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let both = run(
        &format!(
            "listeners: [ {{ address: \"127.0.0.1:{port}\" }}, {{ address: \"192.0.2.1:{port}\" }} ]\nadmin: {{ address: \"{taken}\" }}\n"
        ),
        &[],
    );
    let errors = String::from_utf8_lossy(&both.stderr).into_owned();
    assert_eq!(both.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains(&format!("cannot listen on 192.0.2.1:{port}: this machine has no such address")),
        "{errors}"
    );
    assert!(errors.contains(&format!("cannot listen on {taken}: another process has it")), "{errors}");
    assert!(!errors.contains("listening on"), "{errors}");
}

#[test]
fn a_route_is_there_on_its_listeners_only() {
    let certs = Certs::new();
    certs.issue("a", "a.example", &["a.example"]);
    certs.issue("client", "client", &[]);
    let tls = free_port();
    let gw = Gateway::start(&format!(
        "listeners:\n  - {{ name: public, address: \"127.0.0.1:{{port}}\" }}\n  - {{ name: private, address: \"127.0.0.1:{tls}\", tls: {{ certificates: [ {{ {} }} ], mtls: {{ ca: {} }} }} }}\nroutes:\n  - {{ match: {{ path: /admin/* }}, listeners: private, respond: {{ body: secret }} }}\n  - {{ match: {{ path: /shared }}, listeners: [ public, private ], respond: {{ body: both }} }}\n  - {{ match: {{ path: /next/* }}, listeners: [ private ], respond: {{ body: inner }} }}\n  - {{ match: {{ path: /next/* }}, respond: {{ body: outer }} }}\n",
        certs.yaml("a"),
        certs.path("ca.pem")
    ));
    gw.get("/admin/x").expect(404).says("no route leads there");
    gw.request("POST", "/admin/x").expect(404);
    gw.get("/admin/x").header("Host", "a.example").expect(404);
    gw.get("/shared").expect(200).says("both");
    gw.get("/next/x").expect(200).says("outer");
    let (curl, resolve) = (program("curl", "curl"), format!("a.example:{tls}:127.0.0.1"));
    let inside = |path: &str, more: &[&str]| {
        let output = Command::new(&curl)
            .args(["-s", "--cacert", &certs.path("ca.pem"), "--resolve", &resolve])
            .args(more)
            .arg(format!("https://a.example:{tls}{path}"))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (cert, key) = (certs.path("client.pem"), certs.path("client.key"));
    let shown = ["--cert", cert.as_str(), "--key", key.as_str()];
    for (path, body) in [("/admin/x", "secret"), ("/shared", "both"), ("/next/x", "inner")] {
        assert_eq!(inside(path, &shown), body);
        assert_eq!(inside(path, &[&shown[..], &["--http1.1"]].concat()), body);
        assert_eq!(inside(path, &[]), "", "no certificate, no answer");
    }
}

#[test]
fn listeners_of_routes_and_tests_are_checked() {
    let listeners = "listeners:\n  - { name: public, address: \"127.0.0.1:1\" }\n  - { name: private, address: \"127.0.0.1:2\" }\nadmin: { enabled: false }\n";
    let check = |rest: &str| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.yaml");
        fs::write(&file, format!("{listeners}{rest}")).unwrap();
        let output = Command::new(BINARY).arg("-t").arg("-c").arg(&file).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let bound = |name: &str| format!("  - {{ match: {{ path: /a }}, listeners: {name}, respond: {{}} }}\n");
    for (routes, tests, problem) in [
        (bound("publik"), "", "routes[0].listeners: there is no listener 'publik' (did you mean 'public'?)"),
        (bound("[]"), "", "routes[0].listeners: a route that is there on no listener"),
        (bound("public") + &bound("[public]"), "", "routes[1]: never reached: routes[0]"),
        (
            bound("private"),
            "tests:\n  - { request: GET /a, listener: privat, expect: { status: 200 } }\n",
            "there is no listener 'privat' (did you mean 'private'?)",
        ),
        (
            bound("private"),
            "tests:\n  - { request: GET /a, expect: { status: 200 } }\n",
            "expected status 200, got 404",
        ),
    ] {
        let (code, said) = check(&format!("routes:\n{routes}{tests}"));
        assert_eq!(code, 78, "{said}");
        assert!(said.contains(problem), "'{problem}' is not in: {said}");
    }
    let (code, said) = check(&format!(
        "routes:\n{}{}  - {{ match: {{ path: /a }}, respond: {{ status: 204 }} }}\ntests:\n  - {{ request: GET /a, listener: private, expect: {{ status: 200 }} }}\n",
        bound("private"),
        bound("public")
    ));
    assert_eq!(code, 0, "{said}");
    let twice = listeners.replace("private", "public") + &format!("routes:\n{}", bound("public"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.yaml");
    fs::write(&file, twice).unwrap();
    let output = Command::new(BINARY).arg("-t").arg("-c").arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("listeners[1].name: 'public' is the name of listeners[0] already"), "{said}");
}

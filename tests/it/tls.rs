//! TLS to clients, seen by OpenSSL, curl and sslyze.

use std::{
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use rcgen::{DnType, SanType};

use crate::harness::{Certs, Gateway, Origin, eventually, free_port, program, raw_backend, read_head, tool};

/// A gateway with one TLS listener; `tls` is the inside of its `tls:`.
fn gateway(origin: &Origin, tls: &str, filters: &str) -> Gateway {
    before(&origin.url(), tls, filters)
}

/// The same, before a backend at this address.
fn before(url: &str, tls: &str, filters: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", tls: {{ {tls} }} }} ]\nservices:\n  main: {{ urls: [\"{url}\"] }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n    filters: [ {filters} ]\n"
    ))
}

/// What `openssl s_client` says of a handshake.
fn s_client(port: u16, args: &[&str]) -> String {
    let output = Command::new(program("openssl", "openssl"))
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}")])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Status, HTTP version and exit status of a request by curl.
fn curl(port: u16, certs: &Certs, args: &[&str]) -> (String, Option<i32>) {
    let output = Command::new(program("curl", "curl"))
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--cacert", &certs.path("ca.pem")])
        .args(["--resolve", &format!("a.example:{port}:127.0.0.1")])
        .args(args)
        .arg(format!("https://a.example:{port}/"))
        .output()
        .unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

#[test]
fn certificates_are_chosen_by_name() {
    let (certs, origin) = (Certs::new(), Origin::start("o"));
    certs.issue("a", "first", &["a.example"]);
    certs.issue("b", "wildcard", &["*.b.example"]);
    certs.issue("c", "named", &["unused.example"]);
    let list = format!(
        "certificates: [ {{ {} }}, {{ {} }}, {{ {}, names: [c.example] }} ]",
        certs.yaml("a"),
        certs.yaml("b"),
        certs.yaml("c")
    );
    let gw = gateway(&origin, &list, "");
    for (name, subject) in [
        ("a.example", "first"),
        ("A.EXAMPLE", "first"),
        ("x.b.example", "wildcard"),
        ("c.example", "named"),
        ("y.x.b.example", "first"),
        ("b.example", "first"),
        ("unused.example", "first"),
    ] {
        let said = s_client(gw.port, &["-servername", name]);
        assert!(said.contains(&format!("CN = {subject}")) || said.contains(&format!("CN={subject}")), "{name}: {said}");
    }
    assert!(s_client(gw.port, &["-noservername"]).contains("first"));
    assert_eq!(curl(gw.port, &certs, &[]), ("200 2".into(), Some(0)));
    assert_eq!(curl(gw.port, &certs, &["--http1.1"]), ("200 1.1".into(), Some(0)));
    assert_eq!(origin.last().headers["x-forwarded-proto"], "https");
    let ends = gw.metric("gateway_certificate_expiry_timestamp_seconds{name=\"a.example\"}").unwrap();
    assert!(ends > 1_700_000_000.0);
}

#[test]
fn old_versions_are_refused_and_protocols_agreed() {
    let (certs, origin) = (Certs::new(), Origin::start("o"));
    certs.issue("a", "a", &["a.example"]);
    let both = gateway(&origin, &format!("certificates: [ {{ {} }} ]", certs.yaml("a")), "");
    assert!(s_client(both.port, &["-tls1_2"]).contains("Protocol  : TLSv1.2"));
    assert!(s_client(both.port, &["-tls1_3"]).contains("TLSv1.3"));
    assert!(!s_client(both.port, &["-tls1_1", "-cipher", "ALL@SECLEVEL=0"]).contains("Cipher is ECDHE"));
    assert!(s_client(both.port, &["-alpn", "http/1.1,h2"]).contains("ALPN protocol: h2"));
    let new = format!("certificates: [ {{ {} }} ], min_version: 1.3, alpn: [http/1.1]", certs.yaml("a"));
    let new = gateway(&origin, &new, "");
    assert!(s_client(new.port, &["-tls1_2"]).contains("alert protocol version"));
    assert_eq!(curl(new.port, &certs, &[]), ("200 1.1".into(), Some(0)));
    eventually("refused handshakes are counted", || {
        new.metric("gateway_connections_refused_total{reason=\"tls_handshake\"}").is_some_and(|count| count >= 1.0)
    });
}

#[test]
fn changed_files_are_taken_up_while_serving() {
    let (certs, origin) = (Certs::new(), Origin::start("o"));
    certs.issue("a", "old", &["a.example"]);
    let gw = gateway(&origin, &format!("certificates: [ {{ {} }} ]", certs.yaml("a")), "");
    assert!(s_client(gw.port, &[]).contains("old"));
    std::fs::write(certs.dir().join("a.pem"), "nonsense").unwrap();
    eventually("the broken file is reported", || gw.errors().contains("the one that was read before stays"));
    assert!(s_client(gw.port, &[]).contains("old"), "what cannot be read changes nothing");
    certs.issue("a", "new", &["a.example"]);
    eventually("the new certificate is shown", || s_client(gw.port, &[]).contains("new"));
    assert_eq!(curl(gw.port, &certs, &[]).0, "200 2");
    let end = |name: &str| gw.metric(&format!("gateway_certificate_expiry_timestamp_seconds{{name=\"{name}\"}}"));
    certs.issue("a", "newer", &["b.example"]);
    eventually("the new name is shown", || end("b.example").is_some());
    assert_eq!(end("a.example"), None, "the old one is gone");
}

#[test]
fn client_certificates_are_asked_for_and_filters_know_them() {
    let (certs, others, origin) = (Certs::new(), Certs::new(), Origin::start("o"));
    certs.issue("a", "a", &["a.example"]);
    certs.issue("billing", "billing", &["spiffe://acme/billing"]);
    others.issue("billing", "billing", &[]);
    let (cert, key) = (certs.path("billing.pem"), certs.path("billing.key"));
    let own = ["--cert", cert.as_str(), "--key", key.as_str()];
    let tls = |mode| {
        format!("certificates: [ {{ {} }} ], mtls: {{ ca: {}, mode: {mode} }}", certs.yaml("a"), certs.path("ca.pem"))
    };

    let required = gateway(&origin, &tls("required"), "{ client_cert: { allow: [\"spiffe://acme/billing\"] } }");
    assert_eq!(curl(required.port, &certs, &own).0, "200 2");
    assert_eq!(origin.last().headers["x-auth-subject"], "spiffe://acme/billing");
    assert_eq!(required.log(1)[0]["identity"], "spiffe://acme/billing");
    assert_ne!(curl(required.port, &certs, &[]).1, Some(0), "no certificate, no handshake");
    let (cert, key) = (others.path("billing.pem"), others.path("billing.key"));
    let foreign = ["--cert", cert.as_str(), "--key", key.as_str()];
    assert_ne!(curl(required.port, &certs, &foreign).1, Some(0), "another authority's");

    let optional = gateway(&origin, &tls("optional"), "{ client_cert: { allow: [nobody] } }");
    assert_eq!(curl(optional.port, &certs, &[]).0, "403 2");
    assert_eq!(curl(optional.port, &certs, &own).0, "403 2", "not on the list");
    // A certificate that may not pass is a wrong credential beside a good one, wherever it stands.
    let basic = format!("basic: {{ {}, identity_header: X-Name }}", crate::basic::users());
    let refused = "client_cert: { allow: [nobody] }";
    for members in [format!("{refused}, {basic}"), format!("{basic}, {refused}")] {
        let either = gateway(&origin, &tls("optional"), &format!("{{ any_of: [ {members} ] }}"));
        let named = ["-u", "bob:myPassword"];
        assert_eq!(curl(either.port, &certs, &named).0, "200 2");
        assert_eq!(curl(either.port, &certs, &[&own[..], &named[..]].concat()).0, "403 2", "{members}");
    }
    let anybody = gateway(&origin, &tls("optional"), "");
    assert_eq!(curl(anybody.port, &certs, &[]).0, "200 2");
}

#[test]
fn a_certificate_has_all_of_its_names_and_none_of_another_s() {
    let (certs, origin) = (Certs::new(), Origin::start("o"));
    certs.issue("a", "a", &["a.example"]);
    let tls = format!("certificates: [ {{ {} }} ], mtls: {{ ca: {} }}", certs.yaml("a"), certs.path("ca.pem"));
    let subject = "O=Acme, CN=spiffe://acme/billing";
    let text = || subject.try_into().unwrap();
    certs.issue_exactly("dns", &[(DnType::CommonName, "d")], vec![SanType::DnsName(text())]);
    certs.issue_exactly("mail", &[(DnType::CommonName, "m")], vec![SanType::Rfc822Name(text())]);
    certs.issue_exactly("uri", &[(DnType::CommonName, "u")], vec![SanType::URI(text())]);
    let whole = [(DnType::OrganizationName, "Acme"), (DnType::CommonName, "spiffe://acme/billing")];
    certs.issue_exactly("whole", &whole, Vec::new());
    certs.issue("both", "billing", &["first.internal", "billing.internal"]);
    let names = ["dns", "mail", "uri", "whole", "both"];
    let status = |gw: &Gateway, name: &str| {
        let (cert, key) = (certs.path(&format!("{name}.pem")), certs.path(&format!("{name}.key")));
        curl(gw.port, &certs, &["--cert", &cert, "--key", &key]).0
    };
    let allow = gateway(&origin, &tls, &format!("{{ client_cert: {{ allow: [\"{subject}\"] }} }}"));
    let passed: Vec<_> = names.into_iter().filter(|name| status(&allow, name) == "200 2").collect();
    assert_eq!(passed, ["whole"]);
    for name in ["first.internal", "billing.internal", "billing", "CN=billing"] {
        let deny = gateway(&origin, &tls, &format!("client_cert, {{ acl: {{ deny: {{ subjects: [\"{name}\"] }} }} }}"));
        let refused: Vec<_> = names.into_iter().filter(|name| status(&deny, name) == "403 2").collect();
        assert_eq!(refused, ["both"], "{name}");
        let allow =
            gateway(&origin, &tls, &format!("client_cert, {{ acl: {{ allow: {{ subjects: [\"{name}\"] }} }} }}"));
        let passed: Vec<_> = names.into_iter().filter(|name| status(&allow, name) == "200 2").collect();
        assert_eq!(passed, ["both"], "{name}");
    }
}

#[test]
fn a_certificate_whose_name_nobody_could_be_told_names_nobody() {
    let (certs, origin) = (Certs::new(), Origin::start("o"));
    certs.issue("a", "a", &["a.example"]);
    let tls = format!("certificates: [ {{ {} }} ], mtls: {{ ca: {} }}", certs.yaml("a"), certs.path("ca.pem"));
    certs.issue_exactly("control", &[(DnType::CommonName, "bill\ning")], Vec::new());
    certs.issue_exactly("empty", &[], Vec::new());
    certs.issue_exactly("blank", &[(DnType::CommonName, "")], vec![SanType::DnsName("".try_into().unwrap())]);
    certs.issue_exactly("good", &[(DnType::CommonName, "#0c01")], Vec::new());
    let gw = gateway(&origin, &tls, "client_cert, acl");
    let status = |name: &str| {
        let (cert, key) = (certs.path(&format!("{name}.pem")), certs.path(&format!("{name}.key")));
        curl(gw.port, &certs, &["--cert", &cert, "--key", &key]).0
    };
    for name in ["control", "empty", "blank"] {
        assert_eq!(status(name), "403 2", "{name}");
    }
    assert!(gw.log(3).iter().all(|line| line["reason"] == "certificate_not_allowed" && line["by"] == "client_cert"));
    assert!(!gw.errors().contains("WARN"), "{}", gw.errors());
    assert_eq!(status("good"), "200 2");
    assert_eq!(origin.last().headers["x-auth-subject"], "\\#0c01");
}

/// Mozilla's "intermediate" recommendation, checked by sslyze; it cannot know our authority.
#[test]
fn the_defaults_are_mozillas_intermediate() {
    let (certs, origin) = (Certs::new(), Origin::start("o"));
    certs.issue("a", "a.example", &["a.example"]);
    let gw = gateway(&origin, &format!("certificates: [ {{ {} }} ]", certs.yaml("a")), "");
    let output = Command::new(tool("sslyze"))
        .args(["--mozilla_config=intermediate", &format!("127.0.0.1:{}", gw.port)])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, verdict) = said.split_once("COMPLIANCE AGAINST").unwrap_or_else(|| panic!("{said}"));
    let findings: Vec<&str> = verdict.lines().map(str::trim).filter(|line| line.starts_with("* ")).collect();
    assert_eq!(findings.len(), 1, "{verdict}");
    assert!(findings[0].starts_with("* certificate_path_validation"), "{verdict}");
}

#[test]
fn a_handshake_has_a_time_limit() {
    let (certs, origin) = (Certs::new(), Origin::start("o"));
    certs.issue("a", "a", &["a.example"]);
    let gw = Gateway::start(&format!(
        "limits: {{ head: 1s }}\nlisteners: [ {{ address: \"127.0.0.1:{{port}}\", tls: {{ certificates: [ {{ {} }} ] }} }} ]\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        certs.yaml("a"),
        origin.url()
    ));
    let mut silent = std::net::TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    silent.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(std::io::Read::read(&mut silent, &mut [0; 64]).unwrap(), 0, "closed");
    assert!(begun.elapsed() < std::time::Duration::from_secs(3), "{:?}", begun.elapsed());
    let reason = "gateway_connections_refused_total{reason=\"tls_handshake_timeout\"}";
    eventually("it is counted", || gw.metric(reason) == Some(1.0));
}

#[test]
fn the_wrong_protocol_is_told_at_once() {
    let (certs, origin) = (Certs::new(), Origin::start("o"));
    certs.issue("a", "first", &["a.example"]);
    let gw = gateway(&origin, &format!("certificates: [ {{ {} }} ]", certs.yaml("a")), "");
    gw.get("/").expect(400).says("use https");
    let gw = Gateway::start(&format!(
        "services: {{ main: {{ urls: [\"{}\"] }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main }} ]\n",
        origin.url()
    ));
    let begun = std::time::Instant::now();
    let said = gw.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert!(said.starts_with("HTTP/1.1 400") && said.contains("use http"), "{said}");
    let said = gw.raw(b"\x01\x00");
    assert!(said.starts_with("HTTP/1.1 400") && said.contains("begins with a method"), "{said}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(4), "long before the head's limit");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let (origin, certs) = (Origin::start("o"), Certs::new());
    certs.issue("a", "a", &["a.example"]);
    let open = |mode| std::fs::set_permissions(certs.path("a.key"), std::fs::Permissions::from_mode(mode)).unwrap();
    let file = certs.dir().join("t.yaml");
    let yaml = format!(
        "listeners: [ {{ address: \"127.0.0.1:1\", tls: {{ certificates: [ {{ {own} }} ] }} }} ]\nadmin: {{ enabled: false }}\nservices:\n  main: {{ urls: [\"https://127.0.0.1:1\"], tls: {{ {own} }} }}\nroutes:\n  - {{ match: {{ path: / }}, service: main }}\n",
        own = certs.yaml("a")
    );
    std::fs::write(&file, yaml).unwrap();
    let check = || Command::new(crate::harness::BINARY).arg("-t").arg("-c").arg(&file).output().unwrap();
    open(0o640);
    let output = check();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    for place in ["listeners[0].tls.certificates[0].key: ", "services.main.tls.key: "] {
        assert!(said.contains(place), "{said}");
    }
    assert_eq!(said.matches("a.key' can be read by others (mode 0640): chmod 600 it").count(), 2, "{said}");
    open(0o400);
    assert!(check().status.success());
    // Nor is one taken up while serving.
    let gw = gateway(&origin, &format!("certificates: [ {{ {} }} ]", certs.yaml("a")), "");
    certs.issue("a", "a", &["a.example"]);
    open(0o644);
    // Whenever it looks: what it sees last is a changed certificate with an open key.
    std::fs::write(certs.path("a.pem"), std::fs::read(certs.path("a.pem")).unwrap()).unwrap();
    eventually("it is said", || {
        let said = gw.errors();
        said.contains("the one that was read before stays") && said.contains("can be read by others")
    });
}

#[test]
fn wrong_files_are_told_by_place() {
    let certs = Certs::new();
    certs.issue("a", "a", &["a.example"]);
    certs.issue("b", "b", &["b.example"]);
    let yaml = format!(
        "listeners:\n  - address: 127.0.0.1:{port}\n    tls:\n      certificates:\n        - {{ cert: /nowhere.pem, key: /nowhere.key }}\n        - {{ cert: {a}, key: {b} }}\n      mtls: {{ ca: {b} }}\n  - {{ address: 127.0.0.1:{other}, tls: {{ certificates: [] }} }}\n  - {{ address: 127.0.0.1:{third}, h2c: true, tls: {{ certificates: [ {{ {good} }} ] }} }}\nservices:\n  main: {{ urls: [\"https://127.0.0.1:1\"], tls: {{ ca: /nowhere.pem, cert: {a} }} }}\nroutes:\n  - {{ match: {{ path: / }}, service: main }}\n",
        port = free_port(),
        other = free_port(),
        third = free_port(),
        a = certs.path("a.pem"),
        b = certs.path("b.key"),
        good = certs.yaml("a"),
    );
    let file = certs.dir().join("t.yaml");
    std::fs::write(&file, yaml).unwrap();
    let output = Command::new(crate::harness::BINARY).arg("-t").arg("-c").arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    for part in [
        "t.yaml:5:19: listeners[0].tls.certificates[0].cert: cannot read '/nowhere.pem'",
        "listeners[0].tls.certificates[1].key: ",
        "do not belong together",
        "listeners[0].tls.mtls.ca: ",
        "listeners[1].tls.certificates: TLS needs at least one certificate",
        "listeners[2].h2c: h2c is HTTP/2 without TLS",
        "services.main.tls.ca: cannot read '/nowhere.pem'",
        "services.main.tls.cert: a certificate needs its 'key'",
    ] {
        assert!(said.contains(part), "'{part}' is not in: {said}");
    }
}

#[test]
fn what_is_wrong_with_a_pem_file_is_said_in_words_and_without_the_key() {
    let certs = Certs::new();
    certs.issue("a", "a", &["a.example"]);
    let write = |name: &str, text: &str| {
        std::fs::write(certs.dir().join(name), text).unwrap();
        std::fs::set_permissions(certs.dir().join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
        certs.path(name)
    };
    let secret = "c2VjcmV0IHNlY3JldCBzZWNyZXQ=";
    let strange = write("strange.pem", "-----BEGIN CERTIFICATE RECIPE-----\nAAAA\n");
    // Whatever has taken the line ends away.
    let flat = write("flat.key", &format!("-----BEGIN PRIVATE KEY-----{secret}-----END PRIVATE KEY-----"));
    let yaml = format!(
        "listeners:\n  - address: 127.0.0.1:{port}\n    tls: {{ certificates: [ {{ cert: {a}, key: {flat} }} ], mtls: {{ ca: {strange} }} }}\nservices:\n  main: {{ urls: [\"https://127.0.0.1:1\"], tls: {{ ca: {strange}, cert: {a}, key: {flat} }} }}\nroutes:\n  - {{ match: {{ path: / }}, service: main }}\n",
        port = free_port(),
        a = certs.path("a.pem"),
    );
    let file = write("t.yaml", &yaml);
    let output = Command::new(crate::harness::binary()).arg("-t").arg("-c").arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert_eq!(said.matches("strange.pem': the section 'CERTIFICATE RECIPE' has no end").count(), 2, "{said}");
    assert_eq!(said.matches("flat.key': the section 'PRIVATE KEY' has no end").count(), 2, "{said}");
    let bytes = secret.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    assert!(!said.contains(secret) && !said.contains(&bytes), "{said}");
}

#[test]
fn changed_authorities_and_each_certificate_for_itself_are_taken_up() {
    let (certs, others, origin) = (Certs::new(), Certs::new(), Origin::start("o"));
    certs.issue("a", "a", &["a.example"]);
    certs.issue("b", "first", &["b.example"]);
    certs.issue("client", "client", &["client.example"]);
    others.issue("client", "client", &["client.example"]);
    std::fs::copy(certs.path("ca.pem"), certs.path("trusted.pem")).unwrap();
    let gw = gateway(
        &origin,
        &format!(
            "certificates: [ {{ {} }}, {{ {} }} ], mtls: {{ ca: {} }}",
            certs.yaml("a"),
            certs.yaml("b"),
            certs.path("trusted.pem")
        ),
        "",
    );
    let status = |of: &Certs| {
        let (cert, key) = (of.path("client.pem"), of.path("client.key"));
        curl(gw.port, &certs, &["--cert", &cert, "--key", &key]).0
    };
    assert_eq!((&*status(&certs), &*status(&others)), ("200 2", "000 0"));
    // One of two is broken, and the other is renewed.
    std::fs::write(certs.path("a.pem"), "broken").unwrap();
    certs.issue("b", "second", &["b.example"]);
    std::fs::copy(others.path("ca.pem"), certs.path("trusted.pem")).unwrap();
    let named = |name: &str| s_client(gw.port, &["-servername", name]);
    eventually("the other certificate is taken up", || named("b.example").contains("second"));
    eventually("the other authority is taken up", || status(&others) == "200 2");
    assert_eq!(status(&certs), "000 0", "it is not trusted any more");
    std::fs::write(certs.path("trusted.pem"), "broken").unwrap();
    eventually("a broken file is said", || gw.errors().contains("authorities of clients: '"));
    assert_eq!(status(&others), "200 2");
    let errors = gw.errors();
    assert_eq!(errors.matches("the one that was read before stays").count(), 1, "{errors}");
    assert_eq!(errors.matches("those that were read before stay").count(), 1, "{errors}");
}

/// What `openssl s_client` says of a handshake and of the answer to one request; the connection is closed after it.
fn ask_once(port: u16, args: &[&str]) -> String {
    let mut client = Command::new(program("openssl", "openssl"))
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-ign_eof"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A handshake that has failed is told below.
    let _ = client.stdin.as_mut().unwrap().write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    let output = client.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn no_session_outlives_the_certificate_that_began_it() {
    let (certs, origin) = (Certs::new(), Origin::start("o"));
    certs.issue("a", "a", &["a.example"]);
    let tls = |mode| {
        format!("certificates: [ {{ {} }} ], mtls: {{ ca: {}, mode: {mode} }}", certs.yaml("a"), certs.path("ca.pem"))
    };
    let required = gateway(&origin, &tls("required"), "");
    let optional = gateway(&origin, &tls("optional"), "client_cert");
    let end = SystemTime::now() + Duration::from_secs(5);
    certs.issue_until("client", "client", &["client.example"], end);
    let (cert, key) = (certs.path("client.pem"), certs.path("client.key"));
    let gateways = [("required", required.port), ("optional", optional.port)];
    let session = |mode: &str, version: &str| certs.path(&format!("{mode}{version}"));
    for (mode, port) in gateways {
        for version in ["-tls1_2", "-tls1_3"] {
            let file = session(mode, version);
            let said = ask_once(port, &[version, "-cert", &cert, "-key", &key, "-sess_out", &file]);
            assert!(said.contains("HTTP/1.1 200") && said.contains("New, TLS"), "{mode} {version}: {said}");
            let said = ask_once(port, &[version, "-sess_in", &file, "-sess_out", &file]);
            assert!(said.contains("HTTP/1.1 200") && said.contains("Reused, TLS"), "{mode} {version}: {said}");
        }
    }
    std::thread::sleep(end.duration_since(SystemTime::now()).unwrap_or_default() + Duration::from_millis(1100));
    for (mode, port) in gateways {
        for version in ["-tls1_2", "-tls1_3"] {
            let file = session(mode, version);
            let said = ask_once(port, &[version, "-sess_in", &file]);
            assert!(!said.contains("Reused, TLS") && !said.contains("HTTP/1.1 200"), "{mode} {version}: {said}");
            if mode == "optional" {
                assert!(said.contains("HTTP/1.1 403"), "{version}: {said}");
            }
            // Whoever has a certificate again is let in, whatever ticket it brings.
            certs.issue("renewed", "client", &["client.example"]);
            let (cert, key) = (certs.path("renewed.pem"), certs.path("renewed.key"));
            let said = ask_once(port, &[version, "-cert", &cert, "-key", &key, "-sess_in", &file]);
            assert!(said.contains("HTTP/1.1 200"), "{mode} {version}: {said}");
        }
    }
}

#[test]
fn a_connection_does_not_outlive_its_certificate() {
    let (certs, origin) = (Certs::new(), Origin::start("o"));
    certs.issue("a", "a", &["a.example"]);
    let mtls = format!("certificates: [ {{ {} }} ], mtls: {{ ca: {} }}", certs.yaml("a"), certs.path("ca.pem"));
    let gw = gateway(&origin, &mtls, "client_cert");
    let switches = raw_backend(|mut stream| {
        read_head(&mut stream);
        let _ =
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    let tunnels = before(&format!("http://{switches}"), &mtls, "client_cert");
    for (alpn, gw) in [("http/1.1", &gw), ("h2", &gw), ("http/1.1", &tunnels)] {
        let end = SystemTime::now() + Duration::from_secs(3);
        certs.issue_until("client", "client", &["client.example"], end);
        let (cert, key) = (certs.path("client.pem"), certs.path("client.key"));
        let mut client = Command::new(program("openssl", "openssl"))
            .args(["s_client", "-connect", &format!("127.0.0.1:{}", gw.port), "-quiet", "-alpn", alpn])
            .args(["-cert", &cert, "-key", &key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let request: &[u8] = match alpn {
            "h2" => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            _ => b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        };
        client.stdin.as_mut().unwrap().write_all(request).unwrap();
        let mut said = Vec::new();
        // It would be kept for a minute.
        client.stdout.take().unwrap().read_to_end(&mut said).unwrap();
        let now = SystemTime::now();
        assert!(now > end && now < end + Duration::from_secs(9), "{alpn}");
        let status: &[u8] = if gw.port == tunnels.port { b"HTTP/1.1 101" } else { b"HTTP/1.1 200" };
        assert!(alpn == "h2" || said.starts_with(status), "{alpn}: {}", String::from_utf8_lossy(&said));
        let _ = client.kill();
        let _ = client.wait();
    }
}

#[test]
fn nor_does_a_tunnel_whose_client_takes_nothing() {
    let certs = Certs::new();
    certs.issue("a", "a", &["a.example"]);
    let mtls = format!("certificates: [ {{ {} }} ], mtls: {{ ca: {} }}", certs.yaml("a"), certs.path("ca.pem"));
    let floods = raw_backend(|mut stream| {
        read_head(&mut stream);
        let _ =
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
        while stream.write_all(&[0; 1 << 13]).is_ok() {}
    });
    let gw = before(&format!("http://{floods}"), &mtls, "client_cert");
    let end = SystemTime::now() + Duration::from_secs(3);
    certs.issue_until("client", "client", &["client.example"], end);
    let (cert, key) = (certs.path("client.pem"), certs.path("client.key"));
    let mut client = Command::new(program("openssl", "openssl"))
        .args(["s_client", "-connect", &format!("127.0.0.1:{}", gw.port), "-quiet", "-cert", &cert, "-key", &key])
        .stdin(Stdio::piped())
        // A pipe that nobody reads.
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    client.stdin.as_mut().unwrap().write_all(request).unwrap();
    eventually("it is open", || gw.metric("gateway_requests_in_flight") == Some(1.0));
    std::thread::sleep(end.duration_since(SystemTime::now()).unwrap_or_default() + Duration::from_secs(2));
    eventually("it is over", || gw.metric("gateway_requests_in_flight") == Some(0.0));
    let line = &gw.log(1)[0];
    assert_eq!((&line["status"], &line["reason"]), (&101.into(), &"certificate_ended".into()), "{line}");
    let failures = "gateway_upstream_failures_total{reason=\"certificate_ended\",service=\"main\"}";
    assert!(gw.metric(failures).unwrap_or_default() == 0.0, "the backend has not failed");
    let _ = client.kill();
    let _ = client.wait();
}

#[test]
fn nor_does_a_tunnel_of_a_process_that_leaves() {
    let certs = Certs::new();
    certs.issue("a", "a", &["a.example"]);
    let switches = raw_backend(|mut stream| {
        read_head(&mut stream);
        let _ =
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    let mut gw = Gateway::start(&format!(
        "pingora: {{ grace_period_seconds: 30 }}\nlisteners: [ {{ address: \"127.0.0.1:{{port}}\", tls: {{ certificates: [ {{ {} }} ], mtls: {{ ca: {} }} }} }} ]\nservices: {{ main: {{ urls: [\"http://{switches}\"] }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main, filters: [ client_cert ] }} ]\n",
        certs.yaml("a"),
        certs.path("ca.pem")
    ));
    let end = SystemTime::now() + Duration::from_secs(6);
    certs.issue_until("client", "client", &["client.example"], end);
    let (cert, key) = (certs.path("client.pem"), certs.path("client.key"));
    let mut client = Command::new(program("openssl", "openssl"))
        .args(["s_client", "-connect", &format!("127.0.0.1:{}", gw.port), "-quiet", "-cert", &cert, "-key", &key])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    client.stdin.as_mut().unwrap().write_all(request).unwrap();
    eventually("it is open", || gw.metric("gateway_requests_in_flight") == Some(1.0));
    let mut old = gw.upgrade();
    let mut said = Vec::new();
    client.stdout.take().unwrap().read_to_end(&mut said).unwrap();
    let now = SystemTime::now();
    assert!(now > end && now < end + Duration::from_secs(5), "{:?}", now.duration_since(end));
    let _ = client.kill();
    let _ = client.wait();
    assert!(old.wait().unwrap().success());
}

//! The configurations in `docs/examples` do what their comments say.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use serde_json::json;

use crate::{
    auth::{SECRET, hs256, now, sha256},
    harness::{Certs, Gateway, H2Origin, Origin, Request, eventually, free_port, program, raw_backend, read_head},
};

/// Starts an example with these values in the place of its variables' defaults.
fn example(name: &str, values: &[(&str, &str)]) -> Gateway {
    example_with(name, values, &[])
}

/// The same with further texts replaced.
fn example_with(name: &str, values: &[(&str, &str)], others: &[(&str, &str)]) -> Gateway {
    let mut text = fs::read_to_string(format!("docs/examples/{name}.yaml")).unwrap();
    for (other, value) in others {
        assert!(text.contains(other), "{name} has no {other}");
        text = text.replace(other, value);
    }
    for (variable, value) in values {
        let begin = format!("${{{variable}:-");
        let (before, after) = text.split_once(&begin).unwrap_or_else(|| panic!("{name} has no {variable}"));
        let (_, after) = after.split_once('}').unwrap();
        text = [before, value, after].concat();
    }
    assert!(!text.contains(":-http"), "not all backends are replaced: {text}");
    Gateway::start(&text.replace("0.0.0.0:", "127.0.0.1:").replace("${GATEWAY_PORT:-8080}", "{port}"))
}

fn certificate(name: &str) -> (Certs, String, String) {
    let certs = Certs::new();
    certs.issue("own", name, &[name]);
    let (cert, key) = (certs.path("own.pem"), certs.path("own.key"));
    (certs, cert, key)
}

/// What curl prints of a request to `host` at the port: the head and the body.
fn curl(certs: &Certs, host: &str, port: u16, path: &str, more: &[&str]) -> String {
    let output = Command::new(program("curl", "curl"))
        .args(["-sS", "-i", "-N", "-m", "5", "--cacert", &certs.path("ca.pem")])
        .args(["--resolve", &format!("{host}:{port}:127.0.0.1")])
        .args(more)
        .arg(format!("https://{host}:{port}{path}"))
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[test]
fn a_single_page_application_and_its_api() {
    let (files, api) = (Origin::start("files"), Origin::start("api"));
    let (certs, cert, key) = certificate("shop.example");
    let plain = free_port().to_string();
    let gw = example(
        "spa-and-api",
        &[
            ("HTTPS_PORT", "{port}"),
            ("TLS_CERT", &cert),
            ("TLS_KEY", &key),
            ("HTTP_PORT", &plain),
            ("FILES_URL", &files.url()),
            ("API_URL", &api.url()),
        ],
    );
    let page = curl(&certs, "shop.example", gw.port, "/orders/7", &[]);
    assert!(page.ends_with("files") && page.to_lowercase().contains("strict-transport-security: max-age"), "{page}");
    let asked = curl(&certs, "shop.example", gw.port, "/api/orders/7", &["-H", "Origin: https://partner.example"]);
    assert!(asked.ends_with("api"), "{asked}");
    assert!(asked.to_lowercase().contains("access-control-allow-origin: https://partner.example"), "{asked}");
    assert_eq!(api.last().uri.path(), "/orders/7");
    let preflight =
        ["-X", "OPTIONS", "-H", "Origin: https://partner.example", "-H", "Access-Control-Request-Method: PUT"];
    let allowed = curl(&certs, "shop.example", gw.port, "/api/x", &preflight);
    assert!(status(&allowed) == "204" && allowed.to_lowercase().contains("access-control-allow-methods"), "{allowed}");
    let foreign = ["-X", "OPTIONS", "-H", "Origin: https://evil.example", "-H", "Access-Control-Request-Method: PUT"];
    assert!(!curl(&certs, "shop.example", gw.port, "/api/x", &foreign).to_lowercase().contains("allow-origin"));
    let moved = Request::new("GET", format!("http://127.0.0.1:{plain}/a?b=c")).header("Host", "shop.example");
    assert_eq!(moved.expect(308).get("location"), "https://shop.example/a?b=c");
}

#[test]
fn a_public_api_with_keys_and_tokens() {
    let (catalogue, accounts) = (Origin::start("catalogue"), Origin::start("accounts"));
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let values = [
        ("ACME_SHA256", sha256("key-of-acme")),
        ("GLOBEX_SHA256", sha256("key-of-globex")),
        ("CATALOGUE_URL", catalogue.url()),
        ("ACCOUNTS_URL", accounts.url()),
    ];
    let values: Vec<_> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // A test's processes share their environment: the secret comes from a file instead.
    let gw =
        example_with("public-api", &values, &[("{ env: JWT_SECRET }", &format!("{{ file: {} }}", secret.display()))]);
    gw.get("/v1/docs/index.html").expect(200).says("catalogue");
    gw.get("/v1/items").expect(401).problem();
    gw.get("/v1/items").key("key-of-globex").expect(200).says("catalogue");
    assert_eq!(catalogue.last().headers["x-consumer-id"], "globex");
    gw.request("POST", "/v1/items").key("key-of-globex").expect(403).problem();
    gw.request("POST", "/v1/items").key("key-of-acme").expect(200);
    gw.get("/v1/me/orders").key("key-of-acme").expect(401);
    let claims = json!({ "sub": "ann", "iss": "https://id.example", "aud": "api", "exp": now() + 60, "role": "admin" });
    gw.get("/v1/me/orders").bearer(&hs256(&claims)).expect(200).says("accounts");
    let seen = accounts.last().headers;
    assert_eq!((&seen["x-auth-subject"], &seen["x-role"]), (&"ann".parse().unwrap(), &"admin".parse().unwrap()));
    let limited = (0..30).map(|_| gw.request("DELETE", "/v1/items/1").key("key-of-acme").send().status);
    assert!(limited.collect::<Vec<_>>().contains(&429), "ten at once, then five a second");
}

#[test]
fn two_releases_side_by_side() {
    let (blue, green) = (Origin::start("blue"), Origin::start("green"));
    let mut dies = Origin::start("dies");
    let gw = example(
        "blue-green",
        &[
            ("BLUE_1", &blue.url()),
            ("BLUE_2", &dies.url()),
            ("GREEN_1", &green.url()),
            ("GREEN_2", &green.url().replace("127.0.0.1", "localhost")),
        ],
    );
    gw.get("/").header("X-Release", "green").expect(200).says("green");
    let answers: Vec<String> = (0..200).map(|_| gw.get("/").expect(200).body).collect();
    let share = answers.iter().filter(|body| *body == "green").count();
    assert!((5..=45).contains(&share), "a tenth of 200: {share}");
    dies.kill();
    (0..50).for_each(|_| drop(gw.get("/").expect(200)));
    eventually("the checks notice it", || gw.admin("/gateway/stats").expect(200).body.contains("\"healthy\":false"));
    green.fail_health(true);
    gw.get("/status/503").header("X-Release", "green").send();
    for _ in 0..8 {
        gw.get("/status/503").header("X-Release", "green").send();
    }
    let open = |gw: &Gateway| gw.metric("gateway_circuit_breaker_state{backend=\"\",service=\"green\"}") == Some(1.0);
    assert!(open(&gw), "{}", gw.admin("/metrics").expect(200).body);
    gw.get("/").header("X-Release", "green").expect(503).problem();
}

#[test]
fn websocket_and_grpc_behind_one_listener() {
    let chat = raw_backend(|mut stream| {
        use std::io::Write as _;
        let head = read_head(&mut stream).to_lowercase();
        assert!(head.contains("upgrade: websocket"), "{head}");
        let _ = stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi\x88\x00",
        );
    });
    let greeter = H2Origin::start(|request, mut respond| {
        assert_eq!(request.headers()["content-type"], "application/grpc");
        let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut body = respond.send_response(head, false).unwrap();
        body.send_data(bytes::Bytes::from_static(b"\0\0\0\0\x05hello"), false).unwrap();
        let trailers = [("grpc-status", "0")].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        body.send_trailers(trailers.into_iter().collect()).unwrap();
    });
    let (certs, cert, key) = certificate("rpc.example");
    let gw = example(
        "websocket-and-grpc",
        &[
            ("HTTPS_PORT", "{port}"),
            ("TLS_CERT", &cert),
            ("TLS_KEY", &key),
            ("CHAT_URL", &format!("http://{chat}")),
            ("GREETER_URL", &greeter.url()),
        ],
    );
    let upgrade = [
        "--http1.1",
        "-H",
        "Connection: Upgrade",
        "-H",
        "Upgrade: websocket",
        "-H",
        "Sec-WebSocket-Version: 13",
        "-H",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ];
    let talk = curl(&certs, "rpc.example", gw.port, "/chat/room", &upgrade);
    assert!(status(&talk) == "101" && talk.contains("hi"), "{talk}");
    let call = [
        "--http2",
        "-X",
        "POST",
        "-H",
        "Content-Type: application/grpc",
        "-H",
        "TE: trailers",
        "--data-binary",
        "hello",
    ];
    let said = curl(&certs, "rpc.example", gw.port, "/helloworld.Greeter/SayHello", &call);
    assert!(said.starts_with("HTTP/2 200") && said.contains("hello") && said.contains("grpc-status: 0"), "{said}");
    // Without a body: curl 7.88 takes an answer that comes before it has sent one for a broken stream.
    let unknown = curl(&certs, "rpc.example", gw.port, "/other.Service/Call", &call[..call.len() - 2]);
    assert!(unknown.contains("grpc-status: 12"), "{unknown}");
}

#[test]
fn a_configuration_of_nginx() {
    let (one, two, web) = (Origin::start("one"), Origin::start("two"), Origin::start("web"));
    let (certs, cert, key) = certificate("shop.example");
    let plain = free_port().to_string();
    let gw = example(
        "from-nginx",
        &[
            ("HTTPS_PORT", "{port}"),
            ("HTTP_PORT", &plain),
            ("TLS_CERT", &cert),
            ("TLS_KEY", &key),
            ("API_1", &one.url()),
            ("API_2", &two.url()),
            ("WEB_URL", &web.url()),
        ],
    );
    let ask = |path: &str| curl(&certs, "shop.example", gw.port, path, &[]);
    let answer = ask("/api/users?page=2");
    assert!(answer.ends_with("one") || answer.ends_with("two"), "{answer}");
    let seen = [one.seen(), two.seen()].concat();
    let seen = seen.iter().find(|seen| seen.uri == "/users?page=2").expect("the prefix is gone, the query is there");
    assert!(seen.headers["host"].to_str().unwrap().starts_with("shop.example"));
    assert_eq!(seen.headers["x-forwarded-proto"], "https");
    assert!(ask("/").ends_with("web") && status(&ask("/admin/")) == "403" && ask("/healthz").ends_with("ok\n"));
    // At once: one after the other, they may take as long as the limit grants.
    let limited = std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..16).map(|_| scope.spawn(|| (0..5).any(|_| status(&ask("/api/x")) == "429"))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).filter(|limited| *limited).count()
    });
    assert!(limited > 0, "80 requests, and none is refused");
    let moved = Request::new("GET", format!("http://127.0.0.1:{plain}/a?b=c")).header("Host", "shop.example");
    assert_eq!(moved.expect(301).get("location"), "https://shop.example/a?b=c");
}

#[test]
fn configurations_of_traefik_kong_and_envoy() {
    let (one, two) = (Origin::start("one"), Origin::start("two"));
    let gw = example("from-traefik", &[("API_1", &one.url()), ("API_2", &two.url())]);
    let answer = gw.get("/v1/users").header("Host", "api.example").expect(200);
    assert!(answer.get("set-cookie").starts_with("srv="), "{}", answer.get("set-cookie"));
    gw.get("/v1/users").expect(404);

    let gw = example("from-kong", &[("ORDERS_URL", &one.url())]);
    gw.get("/orders/7").expect(401);
    gw.get("/orders/7").header("apikey", "secret-of-acme").expect(200).says("one");
    assert!(!one.last().headers.contains_key("apikey"));
    gw.request("DELETE", "/orders/7").expect(405);

    let gw = example("from-envoy", &[("OLD_URL", &one.url()), ("NEW_URL", &two.url())]);
    gw.get("/cart").header("Host", "shop.example").expect(200).says("one");
    assert_eq!(one.last().uri.path(), "/shop/cart");
    let found: Vec<String> =
        (0..200).map(|_| gw.get("/search?q=a").header("Host", "shop.example").expect(200).body).collect();
    assert!(found.iter().any(|body| body == "two"), "a tenth goes to the new cluster");
}

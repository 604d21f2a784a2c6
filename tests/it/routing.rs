//! Which route a request takes, and what the backend sees of it.

use crate::harness::{Gateway, Origin};

fn two_services() -> (Origin, Origin, Gateway) {
    let (users, products) = (Origin::start("users"), Origin::start("products"));
    let yaml = format!(
        r#"
services:
  users: {{ urls: ["{}"] }}
  products: {{ urls: ["{}"] }}
routes:
  - match: {{ path: /users/* }}
    service: users
  - match: {{ path: /products/* }}
    service: products
  - match: {{ path: /products/*, host: "*.shop.example" }}
    service: users
  - match: {{ path: "/orders/{{id}}", method: [GET, PUT] }}
    service: products
    rewrite: /v2/{{id}}/order
  - match: {{ path: /api/* }}
    service: users
    strip_prefix: /api
    host: internal.example
  - match: {{ path: /beta, headers: {{ X-Beta: "1" }} }}
    service: products
  - match: {{ path: /beta }}
    service: users
  - match: {{ path: /old/* }}
    redirect: {{ to: "https://new.example/{{rest}}{{query}}", status: 301 }}
  - match: {{ path: /robots.txt }}
    respond: {{ body: "User-agent: *\n", headers: {{ X-Robots: "yes" }} }}
"#,
        users.url(),
        products.url()
    );
    let gateway = Gateway::start(&yaml);
    (users, products, gateway)
}

#[test]
fn the_most_specific_route_wins() {
    let (_users, _products, gw) = two_services();
    gw.get("/users/7").expect(200).says("users");
    gw.get("/users").expect(200).says("users");
    gw.get("/products/7").expect(200).says("products");
    gw.get("/products/7").header("Host", "a.shop.example").expect(200).says("users");
    gw.get("/beta").expect(200).says("users");
    gw.get("/beta").header("X-Beta", "1").expect(200).says("products");
}

#[test]
fn paths_and_hosts_change_on_the_way() {
    let (users, products, gw) = two_services();
    gw.get("/orders/7?a=b").expect(200);
    assert_eq!(products.last().uri.to_string(), "/v2/7/order?a=b");
    gw.get("/api/x/y").expect(200);
    assert_eq!(users.last().uri.path(), "/x/y");
    assert_eq!(users.last().headers["host"], "internal.example");
    assert_eq!(users.last().headers["x-forwarded-host"], format!("127.0.0.1:{}", gw.port));
}

#[test]
fn the_backend_sees_the_normalised_path() {
    let (users, _products, gw) = two_services();
    for spelling in ["/users//7", "/users/./7", "/x/../users/7", "/%75sers/7", "/users/x/%2e%2e/7"] {
        let answer = gw.raw(format!("GET {spelling} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200"), "{spelling}: {answer}");
        assert_eq!(users.last().uri.path(), "/users/7", "{spelling}");
    }
}

#[test]
fn redirects_and_fixed_answers_need_no_backend() {
    let (users, _products, gw) = two_services();
    gw.get("/old/a/b?c=d").expect(301).has("location", "https://new.example/a/b?c=d");
    gw.get("/robots.txt")
        .expect(200)
        .has("x-robots", "yes")
        .has("content-type", "text/plain; charset=utf-8")
        .says("User-agent");
    let head = gw.request("HEAD", "/robots.txt").expect(200).has("content-length", "14");
    assert_eq!(head.body, "");
    assert!(users.seen().is_empty());
}

#[test]
fn what_no_route_takes_is_a_problem() {
    let (_users, _products, gw) = two_services();
    gw.get("/nowhere").expect(404).problem();
    gw.request("DELETE", "/orders/7").expect(405).has("allow", "GET, HEAD, PUT").problem();
}

#[test]
fn bodies_and_answers_pass_unchanged() {
    let (users, _products, gw) = two_services();
    let body: Vec<u8> = (0..100_000u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    gw.request("POST", "/users/upload").body(&body).expect(200);
    assert_eq!(users.last().method, "POST");
    assert_eq!(users.last().body, body);
    gw.get("/users/../users").expect(200);
    gw.get("/api/status/418").expect(418);
}

#[test]
fn a_redirect_to_the_host_of_a_request_needs_one() {
    let gw = Gateway::start(
        "routes:\n  - { match: { path: /there/* }, redirect: { to: \"https://b.example/{rest}\" } }\n  - { match: { path: /* }, redirect: { to: \"https://{host}/{rest}\" } }\n",
    );
    let ask = |path: &str, host: &str| gw.raw(format!("GET {path} HTTP/1.0\r\n{host}\r\n").as_bytes());
    let said = ask("/a/b", "");
    assert!(said.contains(" 400 ") && said.contains("this request cannot be redirected"), "{said}");
    let said = ask("/a/b", "Host: a.example\r\n");
    assert!(said.to_lowercase().contains("location: https://a.example/a/b\r\n"), "{said}");
    let said = ask("/there/c", "");
    assert!(said.to_lowercase().contains("location: https://b.example/c\r\n"), "{said}");
}

//! What can be tried: at the start in the terminal, and at `/`.

use std::fmt::Write as _;

use super::ports::Ports;

/// Commands and what they show; `GATEWAY` and `ADMIN` stand for addresses.
const TRIES: [(&str, &str); 5] = [
    ("curl -i http://GATEWAY/users", "routing; again: the next backend answers"),
    ("curl -i http://GATEWAY/reports", "401: this route wants an API key"),
    ("curl -i -H 'X-API-KEY: demo-key' http://GATEWAY/reports", "200: with the key (a slow backend)"),
    (
        "for i in $(seq 25); do curl -s -o /dev/null -w '%{http_code} ' http://GATEWAY/limited; done; echo",
        "20 x 200, then 429",
    ),
    ("curl -s http://ADMIN/metrics | grep gateway_requests_total", "what happened"),
];

/// The way there and back again.
const FAILURE: [(&str, &str); 3] = [
    ("curl -X POST http://GATEWAY/users/fail", "one backend fails its health checks; /users goes on"),
    ("curl -s http://ADMIN/gateway/stats", "why it is down, and since when"),
    ("curl -X POST http://GATEWAY/users/heal", "it is well again"),
];

/// The pages that a browser can follow.
const LINKS: [(&str, &str); 5] = [
    ("http://GATEWAY/users", "routing; again: the next backend answers"),
    ("http://GATEWAY/reports", "401: this route wants an API key"),
    ("http://GATEWAY/limited", "20 times, then 429 until a second has passed"),
    ("http://ADMIN/gateway/stats", "services, backends, routes, counts"),
    ("http://ADMIN/", "the admin pages"),
];

fn with_ports(text: &str, ports: Ports) -> String {
    text.replace("GATEWAY", &format!("127.0.0.1:{}", ports.gateway))
        .replace("ADMIN", &format!("127.0.0.1:{}", ports.admin))
}

/// For a terminal.
pub(super) fn text(ports: Ports) -> String {
    let mut text = "Tollgate demo: gateway on http://GATEWAY, admin on http://ADMIN. Stop it with Ctrl-C.\n\nTry, in another terminal:\n".to_owned();
    for (command, what) in TRIES {
        let _ = writeln!(text, "  {command:<69} # {what}");
    }
    text.push_str("\nWhen a backend fails:\n");
    for (command, what) in FAILURE {
        let _ = writeln!(text, "  - {command:<67} # {what}");
    }
    text.push_str("\nThe configuration: tollgate demo --print. All by itself: tollgate demo --tour.\n");
    with_ports(&text, ports)
}

/// For a browser.
pub(super) fn html(ports: Ports) -> String {
    let mut text = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Tollgate demo</title>\n<style>body { font: 16px sans-serif; margin: 2em } li { margin: 0.4em } code { background: #eee; padding: 0.1em 0.3em }</style>\n<h1>Tollgate demo</h1>\n<p>Three small backends, and the gateway in front of them. <code>tollgate demo --print</code> prints its configuration.</p>\n<ul>\n".to_owned();
    for (link, what) in LINKS {
        let _ = writeln!(text, "<li><a href=\"{link}\">{link}</a>: {what}</li>");
    }
    text.push_str("</ul>\n<p>In a terminal:</p>\n<ul>\n");
    for (command, what) in TRIES.into_iter().chain(FAILURE) {
        let _ = writeln!(text, "<li><code>{}</code>: {what}</li>", command.replace('&', "&amp;").replace('<', "&lt;"));
    }
    text.push_str("</ul>\n</html>\n");
    with_ports(&text, ports)
}

//! `/`: what there is on this listener, for a browser and for a terminal.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::answer::Answer;
use crate::message::reply::{Reply, ReplyBody};

/// Every page, with what it is for.
const PAGES: [(&str, &str); 11] = [
    ("/health/live", "200 as long as the process answers at all"),
    ("/health/ready", "200 when it wants traffic, else 503 with the services that have no healthy backend"),
    ("/health", "the same as /health/ready"),
    ("/gateway/health", "the same as /health/ready"),
    ("/gateway/stats", "JSON: services, backends and why each is up or down, routes, counts"),
    ("/metrics", "metrics for Prometheus"),
    ("/gateway/metrics", "the same as /metrics"),
    ("/api/v1/cache", "JSON: what the cache keeps, what it has done, the largest answers"),
    (super::cache::PURGE, "POST: throws answers away; JSON with one of url, prefix, tag, all, and soft"),
    (super::jwks::PATH, "JSON: key sets that are fetched, their keys, ages and failures"),
    ("/", "this page"),
];

const TITLE: &str = concat!("Tollgate ", env!("CARGO_PKG_VERSION"), ": admin pages");

/// The list, as HTML for whoever asks for that by name (browsers do), else as text.
pub(super) async fn page(headers: HeaderMap) -> Answer {
    let wants_html = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("text/html"));
    let (media, text) = if headers.get_all(header::ACCEPT).iter().any(wants_html) {
        ("text/html; charset=utf-8", html())
    } else {
        ("text/plain; charset=utf-8", plain())
    };
    let body = ReplyBody::Bytes(HeaderValue::from_static(media), text.into());
    Answer(Reply { body, ..Reply::empty(StatusCode::OK) })
}

fn plain() -> String {
    let mut text = format!("{TITLE}\n\n");
    for (path, what) in PAGES {
        let _ = writeln!(text, "{path:<19} {what}");
    }
    text
}

fn html() -> String {
    let mut rows = String::new();
    for (path, what) in PAGES {
        // A link is read, which some pages are not for.
        let link = if what.starts_with("POST") { path.to_owned() } else { format!("<a href=\"{path}\">{path}</a>") };
        let _ = writeln!(rows, "<tr><td>{link}</td><td>{what}</td></tr>");
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{TITLE}</title>\n<style>body {{ font: 16px sans-serif; margin: 2em }} td {{ padding: 0.2em 1em 0.2em 0 }}</style>\n<h1>{TITLE}</h1>\n<table>\n{rows}</table>\n</html>\n"
    )
}

//! What is wrong with a service that no single key shows.

use std::time::Duration;

use super::service::{HealthCheckConfig, ServiceConfig};
use crate::{
    units::{Problems, Span, Statuses},
    yaml::{Node, Value},
};

/// Checks `config`, which stands at `node`.
pub(crate) fn validate(config: &ServiceConfig, node: &Node, problems: &mut Problems) {
    urls(config, node, problems);
    config.retry.validate(node.at("retry"), problems);
    if let Some(breaker) = &config.circuit_breaker {
        breaker.validate(node.at("circuit_breaker"), problems);
    }
    if let Some(limits) = &config.in_flight {
        limits.validate(node.at("in_flight"), problems);
    }
    if config.retry_budget.window.0 < Duration::from_secs(1) {
        let message = format!("{} is too short: at least 1s", config.retry_budget.window);
        problems.push(node.at("retry_budget.window").place().problem(message));
    }
    let at_least = |problems: &mut Problems, key: &str, span: Span, least: Span| {
        if span < least {
            problems.push(node.at(key).place().problem(format!("{span} is too short: at least {least}")));
        }
    };
    if let Some(total) = config.timeouts.total {
        at_least(problems, "timeouts.total", total, Span(Duration::from_millis(1)));
    }
    if let Some(ttl) = config.sticky.as_ref().and_then(|sticky| sticky.ttl) {
        at_least(problems, "sticky.ttl", ttl, Span(Duration::from_secs(1)));
    }
    if let Some(sticky) = &config.sticky {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if sticky.cookie.is_empty() || !sticky.cookie.bytes().all(token) {
            let message = format!("'{}' is not a cookie's name", sticky.cookie);
            problems.push(node.at("sticky.cookie").place().problem(message));
        }
    }
    if let Some(check) = &config.health_check {
        health_check(check, node.at("health_check"), problems);
    }
}

fn urls(config: &ServiceConfig, node: &Node, problems: &mut Problems) {
    let is_empty = |urls: &Node| matches!(urls.value(), Value::Seq(items) if items.is_empty());
    if config.urls.is_empty() && config.discovery.file.is_none() {
        match node.get("urls") {
            Some(urls) if is_empty(urls) => {
                problems.push(urls.place().problem("a service needs at least one backend"));
            }
            Some(_) => {}
            None => problems.push(node.place().problem("key 'urls' is missing")),
        }
    }
    let discovery = &config.discovery;
    if discovery.every.0 < Duration::from_secs(1) {
        let message = format!("{} is too short: at least 1s", discovery.every);
        problems.push(node.at("discovery.every").place().problem(message));
    }
    if let Some(resolver) = &discovery.resolver
        && resolver.parse::<std::net::SocketAddr>().is_err()
    {
        let message = format!("'{resolver}' is not an address with a port: write it like 127.0.0.1:53");
        problems.push(node.at("discovery.resolver").place().problem(message));
    }
    for url in
        config.urls.iter().filter(|url| discovery.dns == crate::upstream::lookup::Dns::Srv && url.address().is_some())
    {
        problems.push(url.place.problem("an address has no SRV records: write the service's name"));
    }
    for (i, url) in config.urls.iter().enumerate() {
        let same = |other: &&crate::yaml::Spanned<crate::upstream::url::BackendUrl>| {
            other.host == url.host && other.port == url.port
        };
        if let Some(first) = config.urls[..i].iter().find(same) {
            let message = format!(
                "'{}' is listed twice (first as {}): give one a weight instead",
                url.authority(),
                first.place.path
            );
            problems.push(url.place.problem(message));
        }
    }
}

fn health_check(check: &HealthCheckConfig, node: &Node, problems: &mut Problems) {
    let mut wrong = |key: &str, message: String| problems.push(node.at(key).place().problem(message));
    if let Some(path) = check.path.as_ref().filter(|path| !path.starts_with('/') || path.parse::<http::Uri>().is_err())
    {
        wrong("path", format!("'{path}' is not a path: it begins with a slash"));
    }
    for (key, value) in [("healthy_after", check.healthy_after), ("unhealthy_after", check.unhealthy_after)] {
        if value == 0 {
            wrong(key, "0 checks prove nothing: at least 1".to_owned());
        }
    }
    for (key, span) in [("every", check.every), ("timeout", check.timeout)] {
        if span.0 < Duration::from_millis(10) {
            wrong(key, format!("{span} is too short: at least 10ms"));
        }
    }
    if check.expect.is_empty() || !check.expect.iter().all(Statuses::exist) {
        wrong("expect", "expected statuses from 100 to 599, at least one".to_owned());
    }
}

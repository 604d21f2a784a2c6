//! `tests:` in the YAML: requests with their expected outcome, decided by the code that serves, without a socket.
//!
//! Each test begins with fresh limits. Tests are requests, not conversations: a backend's answer is not part of them.

use std::{net::IpAddr, time::Duration};

use http::{HeaderName, HeaderValue, Uri, Version, header};
use pingora::http::RequestHeader;

use super::test_config::{Expect, TestConfig, TestOutcome};
use crate::{
    clock::Now,
    config::{cache_trial, listener_names::numbered, scratch::scratch},
    downstream::ListenerConfig,
    filter::{Registry, State},
    routing::decide::{Decision, decide},
    runtime::Runtime,
    units::Problems,
    yaml::{Short, Spanned},
};

/// The time from one test to the next: longer than any limit needs to win back what one request has taken.
const APART: Duration = Duration::from_secs(40 * 86_400);

/// So many tests with one runtime: the clocks of limits end after some 36 years.
const TURNS: usize = 200;

/// Runs every test; what fails goes to `problems`, at the test's own place.
pub(crate) fn run(
    tests: &[Spanned<TestConfig>],
    listeners: &[Spanned<Short<ListenerConfig>>],
    text: &str,
    registry: &Registry,
    problems: &mut Problems,
) {
    if tests.is_empty() {
        return;
    }
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(executor) = executor else { return };
    let mut shared = None;
    for (number, test) in tests.iter().enumerate() {
        let (head, listener) = match prepared(test, listeners) {
            Ok(prepared) => prepared,
            Err(message) => {
                problems.push(test.place.problem(message));
                continue;
            }
        };
        // One runtime for many tests, each of them weeks after the one before: what a limit has counted is forgotten by
        // then, and to read and build the whole file for each would take as long as there are tests in it.
        let turn = u32::try_from(number % TURNS).unwrap_or(0);
        if turn == 0 || shared.is_none() {
            shared = scratch(text, registry);
        }
        let Some(runtime) = &shared else { return };
        let now = Now::read();
        let now = Now { since_start: now.since_start + APART * turn, ..now };
        let outcome = executor.block_on(outcome(runtime, head, listener, test, now));
        for message in test.expect.differences(&outcome) {
            problems.push(test.place.problem(format!("'{}': {message}", test.request)));
        }
    }
}

/// What is wrong with the tests themselves, whatever they are tests of. Of those in which something has been `found` to be
/// wrong already, nothing more is said; and of listeners' names only when all listeners could be read.
pub(crate) fn check(
    tests: &[Spanned<TestConfig>],
    listeners: &[Spanned<Short<ListenerConfig>>],
    found: &Problems,
    problems: &mut Problems,
) {
    let listeners_known = !found.has_below("listeners");
    let readable = |test: &&Spanned<TestConfig>| !found.has_below(&test.place.path);
    for test in tests.iter().filter(readable).filter(|test| listeners_known || test.listener.is_none()) {
        if let Err(message) = prepared(test, listeners) {
            problems.push(test.place.problem(message));
        }
    }
}

/// The request of a test, and the number of the listener that it comes in by.
fn prepared(test: &TestConfig, listeners: &[Spanned<Short<ListenerConfig>>]) -> Result<(RequestHeader, usize), String> {
    if test.expect == Expect::default() {
        let known = "route, service, path, status, refused_by or cache";
        return Err(format!("'expect' names nothing: say what must come of it ({known})"));
    }
    if test.expect.cache.is_none() && (test.answer.is_some() || test.expect.cache_detail.is_some()) {
        return Err("'answer' and 'cache_detail' have no effect without 'cache' in 'expect': add it".to_owned());
    }
    test.answer.as_ref().map_or(Ok(()), |answer| cache_trial::head(answer).map(drop))?;
    let listener = test.listener.as_deref().map_or(Ok(0), |name| numbered(listeners, name));
    request(test).and_then(|head| Ok((head, listener?)))
}

fn request(test: &TestConfig) -> Result<RequestHeader, String> {
    let wrong =
        || format!("'{}' is not a request: write it like GET /users or GET http://api.example/users", test.request);
    let (method, target) = test.request.split_once(' ').ok_or_else(wrong)?;
    let uri: Uri = target.trim().parse().map_err(|_| wrong())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut head = RequestHeader::build(method, path.as_bytes(), None).map_err(|_| wrong())?;
    head.set_version(Version::HTTP_11);
    let host = uri.authority().map_or("localhost", http::uri::Authority::as_str);
    head.insert_header(header::HOST, host).map_err(|_| wrong())?;
    for (name, value) in &test.headers {
        match (name.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => head.insert_header(name, value).map_err(|e| e.to_string())?,
            _ => return Err(format!("'{name}' is not a header name with a value that headers can carry")),
        }
    }
    Ok(head)
}

async fn outcome(
    runtime: &Runtime,
    mut head: RequestHeader,
    listener: usize,
    test: &TestConfig,
    now: Now,
) -> TestOutcome {
    let peer = test.client.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let origin = runtime.trusted.origin(peer, false, &head.headers);
    let mut state = State::new(origin.client);
    state.listener = listener;
    match decide(&runtime.router, &runtime.limits, &mut head, &mut state, now).await {
        Decision::Forward(route, target, path) => TestOutcome {
            // Chance must not decide a test: any service that the request may come to will do.
            service: test
                .expect
                .service
                .clone()
                .filter(|wanted| route.forward().is_some_and(|forward| forward.may_reach(wanted)))
                .or_else(|| Some(target.service.name.to_string())),
            route: Some(route.id.to_string()),
            path: Some(path.sent().unwrap_or(head.uri.path()).to_owned()),
            cache: route.cache.as_deref().and_then(|plan| {
                let answer = test.answer.clone().unwrap_or_default();
                cache_trial::verdict(plan, &head, &state.identities, &runtime.reserved, &answer, now)
            }),
            ..TestOutcome::default()
        },
        Decision::Reply { route, reply, by } => TestOutcome {
            route: route.map(|route| route.id.to_string()),
            status: Some(reply.status.as_u16()),
            refused_by: by.filter().map(str::to_owned),
            ..TestOutcome::default()
        },
    }
}

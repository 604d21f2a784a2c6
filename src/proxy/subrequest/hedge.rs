//! Hedged requests: when an answer is late, the same request goes to another backend too, and the first good answer is
//! taken. Pingora proxies to one backend at a time, so these requests are sent by the gateway itself; only idempotent
//! ones without a body are, and each second attempt comes out of the retry budget.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Version};
use pingora::{connectors::http::Connector, http::RequestHeader, proxy::Session};

use super::{attempt, deliver::deliver, mirror};
use crate::{
    clock::Now,
    message::reason::Reason,
    proxy::{
        attempts::{Attempts, Phase},
        context::Context,
        error, failure,
        kind::RequestKind,
        retry,
        upstream_request::{self, X_ATTEMPTS},
        waiting::left,
    },
    runtime::Shared,
    upstream::{
        AttemptOutcome, Backend, FailureKind, Service,
        choice::{Choice, Chosen},
        exchange::{self, Answer, Failure},
    },
};

/// One attempt of a race. One that is dropped before it has settled was cut off, or never sent.
struct HedgeAttempt {
    service: Arc<Service>,
    chosen: Option<Chosen>,
    began: Instant,
    sent: bool,
}

impl HedgeAttempt {
    fn record_outcome(&mut self, outcome: AttemptOutcome) {
        if let Some(Chosen { backend, tickets, .. }) = self.chosen.take() {
            self.service.resilience.record_outcome(
                &backend,
                tickets,
                Now::monotonic(),
                Some(self.began.elapsed()),
                outcome,
            );
        }
    }
}

impl Drop for HedgeAttempt {
    fn drop(&mut self) {
        if self.sent {
            return self.record_outcome(AttemptOutcome::Unknown);
        }
        if let Some(Chosen { backend, tickets, .. }) = self.chosen.take() {
            self.service.resilience.give_back(&backend, tickets);
        }
    }
}

/// How an attempt came out.
struct HedgeResult {
    runner: HedgeAttempt,
    result: Result<Answer, Failure>,
    /// It ended when the time for the whole request did.
    late: bool,
}

impl HedgeResult {
    /// An answer that is worth taking while another one may still come.
    fn is_good(&self) -> bool {
        self.result.as_ref().is_ok_and(|answer| !answer.head.status.is_server_error())
    }

    /// It is taken: from here on the request's attempt is this one.
    fn take(self, attempts: &mut Attempts) -> Result<Answer, Failure> {
        let Self { mut runner, result, .. } = self;
        if let Some(backend) = runner.backend() {
            attempts.note_taken(backend.address);
        }
        attempts.connect = match &result {
            Ok(answer) => Some(answer.connect),
            Err(failure) => failure.connect,
        };
        (attempts.began, attempts.phase) = (Some(runner.began), Phase::Sent);
        if let Some(Chosen { backend, place, tickets }) = runner.chosen.take() {
            (attempts.backend, attempts.place, attempts.tickets) = (Some(backend), Some(place), Some(tickets));
        }
        result
    }

    /// It is not taken: what it came to is booked all the same.
    fn lose(mut self) {
        let outcome = match &self.result {
            Ok(answer) => AttemptOutcome::Answered(answer.head.status.as_u16()),
            Err(failure) => failure.outcome(self.late),
        };
        self.runner.record_outcome(outcome);
    }
}

/// What the attempts of one request have in common.
struct HedgeContext<'a> {
    connector: &'a Connector,
    service: &'a Arc<Service>,
    /// As it came: backends are chosen by what the client sent, as on the ordinary way.
    asked: &'a RequestHeader,
    /// As backends get it.
    head: &'a RequestHeader,
    client: std::net::IpAddr,
    deadline: Option<Instant>,
    /// Whose time it is that ends then.
    out_of_time: Reason,
}

impl HedgeContext<'_> {
    /// A place at a backend that has not been tried.
    fn begin(&self, tried: &[SocketAddr]) -> Option<HedgeAttempt> {
        let choice = Choice::new(self.asked, self.client, tried, Now::monotonic());
        let chosen = self.service.choose(&choice).ok()?;
        let runner =
            HedgeAttempt { service: self.service.clone(), chosen: Some(chosen), began: Instant::now(), sent: false };
        // The same backend again would be no hedge.
        (!tried.contains(&runner.backend()?.address)).then_some(runner)
    }

    async fn run(&self, mut runner: HedgeAttempt, number: u32) -> Option<HedgeResult> {
        runner.sent = true;
        let remaining = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let peer = runner.chosen.as_ref()?.backend.peer(remaining, false);
        let mut head = self.head.clone();
        head.insert_header(X_ATTEMPTS, HeaderValue::from(number)).ok()?;
        self.service.sign(&mut head, runner.backend()?).ok()?;
        let result = exchange::try_send(self.connector, peer, head, Bytes::new()).await;
        let late = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        attempt::note(self.service, runner.backend()?, &result, late.then_some(self.out_of_time));
        Some(HedgeResult { runner, result, late })
    }
}

impl HedgeAttempt {
    fn backend(&self) -> Option<&Arc<Backend>> {
        self.chosen.as_ref().map(|chosen| &chosen.backend)
    }
}

/// Runs one attempt, and a second one when the first is late. Answers the better one. What has begun is noted in
/// `attempts` at once: the client may leave at any time.
async fn race(
    session: &mut Session,
    race: &HedgeContext<'_>,
    after: Duration,
    attempts: &mut Attempts,
) -> pingora::Result<Option<HedgeResult>> {
    let Some(runner) = race.begin(&[]) else { return Ok(None) };
    attempts.note_begun(runner.backend());
    let tried: Vec<SocketAddr> = runner.backend().map(|backend| backend.address).into_iter().collect();
    let mut first = pin!(race.run(runner, 1));
    tokio::select! {
        biased;
        done = &mut first => return Ok(done),
        gone = left(session) => return Err(gone),
        () = tokio::time::sleep(after) => {}
    }
    // The budget pays for what is sent, so a place is looked for first.
    let second = race.begin(&tried).filter(|_| race.service.resilience.may_retry(Now::monotonic()));
    let Some(second) = second else {
        return tokio::select! {
            done = first => Ok(done),
            gone = left(session) => Err(gone),
        };
    };
    race.service.metrics.hedges.inc();
    attempts.note_begun(second.backend());
    let mut second = pin!(race.run(second, 2));
    let (done, first_is_done) = tokio::select! {
        done = &mut first => (done, true),
        done = &mut second => (done, false),
        gone = left(session) => return Err(gone),
    };
    if done.as_ref().is_some_and(HedgeResult::is_good) {
        return Ok(done);
    }
    let other = tokio::select! {
        other = first, if !first_is_done => other,
        other = second, if first_is_done => other,
        gone = left(session) => return Err(gone),
    };
    let (better, worse) =
        if other.as_ref().is_some_and(|run| run.result.is_ok()) { (other, done) } else { (done, other) };
    let Some(better) = better else { return Ok(worse) };
    if let Some(worse) = worse {
        worse.lose();
    }
    Ok(Some(better))
}

/// True for a request that may be hedged.
fn may_hedge(session: &mut Session, context: &Context) -> bool {
    let head = session.req_header();
    retry::idempotent(&head.method)
        && head.version != Version::HTTP_10
        && context.kind == RequestKind::Ordinary
        && session.is_body_empty()
}

/// Sends a request to a service that hedges. True when it has been answered; false when it goes the ordinary way.
pub(crate) async fn run(shared: &Shared, session: &mut Session, context: &mut Context) -> pingora::Result<bool> {
    let (Some(service), Some(route)) = (context.service(), context.route.clone()) else { return Ok(false) };
    let Some(after) = service.resilience.hedge_after(context.now.since_start) else { return Ok(false) };
    let Some(connector) = shared.connector() else { return Ok(false) };
    if !may_hedge(session, context) {
        return Ok(false);
    }
    // The ordinary way would see its body pass; there is none.
    mirror::take(shared, session.req_header(), None, true, context);
    let mut head = match upstream_request::alone(session.req_header(), 0, context, &route) {
        Ok(head) => head,
        Err(why) => return error::unsendable(context, why),
    };
    if let Some(cached) = &mut context.cached {
        cached.prepare(&mut head)?;
    }
    // A copy: the session is busy with looking after the client.
    let asked = session.req_header().clone();
    context.attempts.count_once(&service, context.now.since_start);
    let (client, deadline) = (context.state.client, context.deadline);
    if let Some(deadlines) = context.deadlines() {
        deadlines.end_by(context.last_call());
    }
    let out_of_time = context.out_of_time();
    let terms = HedgeContext {
        connector: &connector,
        service: &service,
        asked: &asked,
        head: &head,
        client,
        deadline,
        out_of_time,
    };
    let run = Box::pin(race(session, &terms, after, &mut context.attempts)).await?;
    let Some(run) = run else { return Ok(false) };
    take_up(shared, session, context, &service, &connector, run).await
}

/// Hands on what was won. True when the client has been answered; false when the request goes the ordinary way after all.
async fn take_up(
    shared: &Shared,
    session: &mut Session,
    context: &mut Context,
    service: &Service,
    connector: &Connector,
    run: HedgeResult,
) -> pingora::Result<bool> {
    let late = run.late;
    match run.take(&mut context.attempts) {
        Ok(answer) => {
            // An answer that is to be tried again is: by the ordinary way.
            if retry::answered(session, context, service, &answer.head).is_err() {
                let status = context.attempts.discarded.take().unwrap_or_default();
                context.attempts.record_outcome(service, AttemptOutcome::Answered(status));
                context.attempts.note_failed();
                return Ok(false);
            }
            let delivered = deliver(shared, session, context, answer, connector).await;
            if let Err(e) = &delivered {
                if FailureKind::of(e).is_some() {
                    service.metrics.failure(failure::reason(e, context));
                }
                // The client has seen its head: nothing is repeated.
                retry::broke(session, context, service, e, false);
            }
            delivered.map(|()| true)
        }
        Err(failure) => {
            context.attempts.record_outcome(service, failure.outcome(late));
            context.attempts.note_failed();
            let again = failure.is_stale() && retry::free_repeat(session, context)
                || retry::again(session, context, service, failure.failure());
            if again { Ok(false) } else { Err(failure.error) }
        }
    }
}

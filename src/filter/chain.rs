//! The chain: a route's steps in their order, and what happens when one cannot do its work.

use std::{fmt, future::poll_fn, panic::AssertUnwindSafe, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use prometheus::IntCounter;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Body, Exchange, Fault, Filter, Flow, RequestOutcome, State};
use crate::{
    clock::Now,
    message::{reason::Reason, reply::Reply},
    telemetry::Lazy,
};

/// What becomes of a request when a step fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFault {
    /// Answer 503: the default, for a step may be there to protect something.
    #[default]
    Refuse,
    /// Skip this step, and this step only.
    Pass,
}

/// One step with its fault policy.
pub struct Step {
    /// The name in the YAML.
    pub name: &'static str,
    /// The filter.
    pub filter: Arc<dyn Filter>,
    /// What to do when it fails.
    pub on_fault: OnFault,
    /// Its counters.
    pub metrics: StepMetrics,
}

/// Counters of a step.
#[derive(Debug, Clone)]
pub struct StepMetrics {
    /// Requests it answered.
    pub refusals: Lazy<IntCounter>,
    /// Times it failed.
    pub faults: Lazy<IntCounter>,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on_fault={:?} {:?}", self.name, self.on_fault, self.filter)
    }
}

/// A request that a step answered.
#[derive(Debug)]
pub struct Refusal {
    /// The answer.
    pub reply: Box<Reply>,
    /// The step's name.
    pub by: &'static str,
}

/// A route's steps.
#[derive(Debug, Default)]
pub struct Chain {
    steps: Box<[Step]>,
    request_body: bool,
    response_body: bool,
}

impl Chain {
    /// A chain of `steps`.
    pub fn new(steps: Vec<Step>) -> Self {
        let wants = |either: [Body; 2]| steps.iter().any(|step| either.contains(&step.filter.body()));
        let (request_body, response_body) = (wants([Body::Request, Body::Both]), wants([Body::Response, Body::Both]));
        Self { steps: steps.into(), request_body, response_body }
    }

    /// The names of the steps, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.steps.iter().map(|step| step.name)
    }

    /// The filters of its steps.
    pub fn filters(&self) -> impl Iterator<Item = &Arc<dyn Filter>> {
        self.steps.iter().map(|step| &step.filter)
    }

    /// The fields by which its steps tell backends who the client is.
    pub fn tells_backends(&self) -> impl Iterator<Item = HeaderName> + '_ {
        self.steps.iter().flat_map(|step| step.filter.tells_backends())
    }

    /// Names that its steps may tell backends, as far as they are known.
    pub fn known_names(&self) -> impl Iterator<Item = (HeaderName, String)> + '_ {
        self.steps.iter().flat_map(|step| step.filter.known_names())
    }

    /// Runs the request phase. `Some` when a step answered the request.
    pub async fn request(&self, exchange: &mut Exchange<'_>) -> Option<Refusal> {
        for step in &self.steps {
            exchange.state.entered += 1;
            let flow = match ask(&*step.filter, exchange).await {
                Ok(flow) => flow,
                Err(fault) => step.apply_policy(&fault),
            };
            if let Flow::Reply(reply) = flow {
                step.metrics.refusals.inc();
                return Some(Refusal { reply, by: step.name });
            }
        }
        None
    }

    /// Edits the head that goes to the backend.
    ///
    /// # Errors
    /// The refusal, when a step that may not be skipped failed. The steps after it have run all the same.
    pub fn upstream(&self, head: &mut RequestHeader, state: &State) -> Result<(), Box<Refusal>> {
        let mut refused = None;
        for step in &self.steps {
            if let Err(fault) = step.filter.upstream(head, state)
                && let Flow::Reply(reply) = step.apply_policy(&fault)
            {
                refused.get_or_insert(Box::new(Refusal { reply, by: step.name }));
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Edits the head of the answer, last step first. A step that fails here is counted and skipped: the answer is
    /// on its way, and what the other steps do to it (security headers among them) must still be done.
    pub fn response(&self, head: &mut ResponseHeader, state: &mut State) {
        for step in self.entered(state.entered) {
            if let Err(fault) = step.filter.response(head, state) {
                step.note(&fault);
            }
        }
    }

    /// Tells every step that began how it ended.
    pub fn log(&self, state: &State, outcome: &RequestOutcome) {
        for step in self.entered(state.entered) {
            // A step that panics while it takes notes must not cost the others theirs.
            let noted = std::panic::catch_unwind(AssertUnwindSafe(|| step.filter.log(state, outcome)));
            if noted.is_err() {
                step.metrics.faults.inc();
            }
        }
    }

    /// True when some step looks at request bodies.
    pub fn wants_request_body(&self) -> bool {
        self.request_body
    }

    /// True when some step looks at answers' bodies.
    pub fn wants_response_body(&self) -> bool {
        self.response_body
    }

    /// Shows a chunk of the request's body to the steps. `Some` when one of them stops the request.
    pub fn request_chunk(&self, chunk: &mut Option<Bytes>, end: bool, state: &mut State) -> Option<Refusal> {
        for step in &self.steps {
            let flow = match step.filter.request_body(chunk, end, state) {
                Ok(flow) => flow,
                Err(fault) => step.apply_policy(&fault),
            };
            if let Flow::Reply(reply) = flow {
                step.metrics.refusals.inc();
                return Some(Refusal { reply, by: step.name });
            }
        }
        None
    }

    /// Shows a chunk of the answer's body to the steps, last step first.
    pub fn response_chunk(&self, chunk: &mut Option<Bytes>, end: bool, state: &mut State) {
        for step in self.entered(state.entered) {
            if let Err(fault) = step.filter.response_body(chunk, end, state) {
                step.note(&fault);
            }
        }
    }

    fn entered(&self, count: usize) -> impl Iterator<Item = &Step> {
        self.steps.iter().take(count).rev()
    }
}

/// Asks a filter. When it has waited for something, those behind it count and compare by the time at which they are asked.
pub(super) async fn ask(filter: &dyn Filter, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
    let (mut waited, mut asked) = (false, filter.request(exchange));
    let answered = poll_fn(|context| {
        let poll = asked.as_mut().poll(context);
        waited |= poll.is_pending();
        poll
    });
    let answered = answered.await;
    drop(asked);
    if waited {
        exchange.now = Now::read();
    }
    answered
}

impl Step {
    fn note(&self, fault: &Fault) {
        self.metrics.faults.inc();
        log::warn!("filter {}: {fault}", self.name);
    }

    fn apply_policy(&self, fault: &Fault) -> Flow {
        self.note(fault);
        match self.on_fault {
            OnFault::Pass => Flow::Next,
            OnFault::Refuse => {
                let detail = "a step that this request depends on is not available";
                Reply::problem(StatusCode::SERVICE_UNAVAILABLE, detail)
                    .because(Reason::FilterFailed)
                    .retry_after(std::time::Duration::from_secs(1))
                    .into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::unnecessary_wraps, reason = "tests; one signature for every script")]

    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::*;
    use crate::{clock::Now, filter::FilterMetrics};

    /// Writes down what is called; fails or refuses when told to.
    #[derive(Debug)]
    struct Probe {
        name: &'static str,
        log: Arc<Mutex<Vec<String>>>,
        request: fn() -> Result<Flow, Fault>,
    }

    #[async_trait]
    impl Filter for Probe {
        async fn request(&self, _: &mut Exchange<'_>) -> Result<Flow, Fault> {
            self.log.lock().push(format!("{}.request", self.name));
            (self.request)()
        }

        fn response(&self, _: &mut ResponseHeader, _: &mut State) -> Result<(), Fault> {
            self.log.lock().push(format!("{}.response", self.name));
            Err(Fault("always fails here".into()))
        }

        fn log(&self, _: &State, _: &RequestOutcome) {
            self.log.lock().push(format!("{}.log", self.name));
        }
    }

    type Script = (&'static str, OnFault, fn() -> Result<Flow, Fault>);

    async fn run(script: Vec<Script>) -> (Option<u16>, Vec<String>) {
        let (log, metrics) = (Arc::new(Mutex::new(Vec::new())), FilterMetrics::new(&prometheus::Registry::new()));
        let steps = script.into_iter().map(|(name, on_fault, request)| Step {
            name,
            filter: Arc::new(Probe { name, log: log.clone(), request }),
            on_fault,
            metrics: StepMetrics { refusals: metrics.refusals("r", name), faults: metrics.faults("r", name) },
        });
        let chain = Chain::new(steps.collect());
        let head = RequestHeader::build("GET", b"/", None).unwrap();
        let mut state = State::default();
        let refusal = chain.request(&mut Exchange::new(&head, &mut state, Now::read())).await;
        chain.response(&mut ResponseHeader::build(200, None).unwrap(), &mut state);
        chain.log(&state, &RequestOutcome { status: 200, duration: std::time::Duration::ZERO, sent: 0 });
        let calls = log.lock().clone();
        (refusal.map(|r| r.reply.status.as_u16()), calls)
    }

    fn next() -> Result<Flow, Fault> {
        Ok(Flow::Next)
    }

    fn refuse() -> Result<Flow, Fault> {
        Ok(Reply::empty(StatusCode::FORBIDDEN).into())
    }

    fn fail() -> Result<Flow, Fault> {
        Err(Fault("store is down".into()))
    }

    #[tokio::test]
    async fn response_and_log_run_in_reverse_for_steps_that_began() {
        let (status, calls) =
            run(vec![("a", OnFault::Refuse, next), ("b", OnFault::Refuse, refuse), ("c", OnFault::Refuse, next)]).await;
        assert_eq!(status, Some(403));
        assert_eq!(calls, ["a.request", "b.request", "b.response", "a.response", "b.log", "a.log"]);
    }

    #[tokio::test]
    async fn a_fault_that_may_pass_skips_only_its_own_step() {
        let (status, calls) = run(vec![("a", OnFault::Pass, fail), ("auth", OnFault::Refuse, refuse)]).await;
        assert_eq!((status, calls[1].as_str()), (Some(403), "auth.request"));
    }

    #[tokio::test]
    async fn a_fault_refuses_by_default() {
        let (status, calls) = run(vec![("a", OnFault::Refuse, fail), ("b", OnFault::Refuse, next)]).await;
        assert_eq!((status, calls.contains(&"b.request".to_owned())), (Some(503), false));
    }
}

//! What the hooks of one request hand to one another.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use http::{StatusCode, Version};
use pingora::http::RequestHeader;

use crate::{
    clock::Now,
    downstream::{ConnectionInfo, Lateness, StreamDeadlines},
    filter::State,
    message::{
        forwarded::Origin, grpc, method_class::MethodClass, reason::Reason, reply::Reply, source::ResponseSource,
    },
    proxy::{
        attempts::Attempts, cached::request::Cached, kept_head::KeptHead, kind::RequestKind,
        subrequest::mirror_body::MirrorBody,
    },
    routing::{decide::ForwardedPath, destination::Destination, route::Route},
    runtime::{Runtime, Shared},
    upstream::{Permit, Service},
};

/// One request's data.
#[derive(Debug)]
pub(crate) struct Context {
    /// The configuration that the request began with; it keeps to it to its end.
    pub(super) runtime: Arc<Runtime>,
    /// Where it is counted and logged.
    pub(super) shared: Arc<Shared>,
    /// When its head had been read.
    pub start: Instant,
    /// The same for filters.
    pub now: Now,
    /// What filters see.
    pub state: State,
    /// The address at the other end of the connection.
    pub peer: IpAddr,
    /// Where it came from.
    pub origin: Origin,
    /// The connection that it came over.
    pub info: Option<Arc<ConnectionInfo>>,
    /// Its route, pinned.
    pub route: Option<Arc<Route>>,
    /// The service that it goes to.
    pub target: Option<Arc<Destination>>,
    /// When it must have been answered.
    pub deadline: Option<Instant>,
    /// How long it has waited for a place, or between attempts: time in which nothing was asked of the client.
    pub held: Duration,
    /// Its permits under `in_flight` of its route and its service.
    pub permits: [Option<Permit>; 2],
    /// The client sends its body when it is told to, and has not been.
    pub uninvited: bool,
    /// A copy for another service, in the making.
    pub copy: MirrorBody,
    /// What kind of request it is.
    pub kind: RequestKind,
    /// What the client spoke.
    pub version: Version,
    /// Its method, as a label.
    pub method: MethodClass,
    /// Its path.
    pub path: ForwardedPath,
    /// Attempts at backends.
    pub attempts: Attempts,
    /// An answer that a hook decided on and could not send itself.
    pub refusal: Option<(Box<Reply>, ResponseSource)>,
    /// Who made the status.
    pub answered_by: ResponseSource,
    /// The status that an answer of gRPC stands for: on the wire it is 200.
    pub http_status_before_grpc: Option<StatusCode>,
    /// Why it was refused, or failed.
    pub reason: Option<Reason>,
    /// It is the gRPC client's own word that bounds the time for all attempts.
    pub own_deadline: bool,
    /// What went wrong between us and the backend or the client, in one word.
    pub error: Option<String>,
    /// How a call of gRPC ended, as its backend says.
    pub grpc_status: Option<u32>,
    /// What a log line tells of its head, when it may have to be written without one.
    pub kept: Option<KeptHead>,
    /// The status of an answer that went towards the client.
    pub written: Option<StatusCode>,
    /// Bytes of the answer's body that went towards the client.
    pub sent: u64,
    /// What the cache has to do with it.
    pub cached: Option<Box<Cached>>,
    /// It has been counted and logged.
    pub recorded: bool,
}

impl Context {
    pub(super) fn new(runtime: Arc<Runtime>, shared: Arc<Shared>) -> Self {
        shared.metrics.requests.in_flight.inc();
        let (nowhere, start) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), Instant::now());
        Self {
            runtime,
            shared,
            start,
            now: Now::read_at(start),
            state: State::default(),
            peer: nowhere,
            origin: Origin { client: nowhere, trusted: false, secure: false },
            info: None,
            route: None,
            target: None,
            deadline: None,
            held: Duration::ZERO,
            permits: [None, None],
            uninvited: false,
            copy: MirrorBody::Not,
            kind: RequestKind::Ordinary,
            version: Version::HTTP_11,
            method: MethodClass::of(""),
            path: ForwardedPath::default(),
            attempts: Attempts::default(),
            refusal: None,
            answered_by: ResponseSource::Nobody,
            http_status_before_grpc: None,
            reason: None,
            own_deadline: false,
            error: None,
            grpc_status: None,
            kept: None,
            written: None,
            sent: 0,
            cached: None,
            recorded: false,
        }
    }

    /// What is left of the time for all attempts; `None` without a limit.
    pub(super) fn remaining(&self) -> Option<Duration> {
        Some(self.deadline?.saturating_duration_since(Instant::now()))
    }

    /// Whose time it is that is over.
    pub(super) fn out_of_time(&self) -> Reason {
        if self.own_deadline { Reason::GrpcDeadline } else { Reason::TotalTimeout }
    }

    /// When an attempt whose reads Pingora bounds must have ended: its limit is one for each read, so that an answer which
    /// comes by and by would take any time. Where both hold, Pingora's comes first.
    pub(super) fn last_call(&self) -> Option<Instant> {
        self.deadline?.checked_add(Duration::from_millis(50))
    }

    /// What took too long, when the connection ends because of that.
    pub(super) fn late(&self) -> Option<Lateness> {
        self.info.as_ref()?.deadlines.late()
    }

    /// True for a tunnel that ends because its client's certificate has ended.
    pub(super) fn is_over(&self) -> bool {
        self.info.as_ref().is_some_and(|info| info.is_over())
    }

    /// True when it is the client that has not sent its request in time: it has not ended, and most of the time was its own.
    pub(super) fn is_slow(&self) -> bool {
        let held = self.held + self.deadlines().map_or(Duration::ZERO, StreamDeadlines::blocked_now);
        self.attempts.is_sending() && !self.uninvited && held < self.start.elapsed() / 2
    }

    /// Something was found to be wrong with the request while it came.
    pub(super) fn is_malformed(&self) -> bool {
        self.info.as_ref().is_some_and(|info| info.fault().is_some())
    }

    /// What bounds the waiting on the client's side.
    pub(super) fn deadlines(&self) -> Option<&StreamDeadlines> {
        self.info.as_ref().map(|info| &info.deadlines)
    }

    /// It goes to a backend of `target`.
    pub(super) fn forward_to(
        &mut self,
        route: Arc<Route>,
        target: Arc<Destination>,
        path: ForwardedPath,
        head: &RequestHeader,
    ) {
        let service = &target.service;
        let total = service.timeouts().total.map(|total| total.0);
        // Of a request that is not gRPC it means nothing, and anybody can send it.
        let own = if self.kind == RequestKind::Grpc { grpc::timeout(&head.headers) } else { None };
        let limit = [total, own].into_iter().flatten().min();
        self.own_deadline = own.is_some() && limit == own;
        self.deadline = limit.and_then(|limit| self.start.checked_add(limit));
        if self.kind == RequestKind::Grpc
            && let Some(deadlines) = self.deadlines()
        {
            // Its client may be silent, so it need not grant room for answers either.
            deadlines.limit_writes(Some(service.timeouts().idle.0), 0);
        }
        self.attempts.may_repeat = route.retry.as_ref().unwrap_or(service.retry()).max_attempts > 1;
        self.kept = Some(KeptHead::of(head));
        (self.route, self.target, self.path) = (Some(route), Some(target), path);
    }

    /// Calls `with` with the service that it goes to, if any; without touching the count of its owners, which all
    /// threads share.
    pub(super) fn at_service<R>(&mut self, with: impl FnOnce(&Service, &mut Self) -> R) -> Option<R> {
        let target = self.target.take()?;
        let result = with(&target.service, self);
        self.target = Some(target);
        Some(result)
    }

    /// The service that it goes to.
    pub(super) fn service(&self) -> Option<Arc<Service>> {
        self.target.as_ref().map(|target| target.service.clone())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.shared.metrics.requests.in_flight.dec();
    }
}

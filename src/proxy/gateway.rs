//! The hooks that Pingora calls, in its order. Each delegates; the thinking is elsewhere.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pingora::{
    Error, ErrorType, Result,
    http::{RequestHeader, ResponseHeader},
    modules::http::HttpModules,
    prelude::HttpPeer,
    protocols::Digest,
};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use super::{
    body,
    context::Context,
    error, failure, keep_alive, logging,
    reply::{give, respond},
    request, retry,
    subrequest::mirror,
    upstream_request,
};
use crate::{
    downstream::ConnectionInfo,
    message::{
        grpc, hop_by_hop,
        reason::Reason,
        replies::{self, malformed},
        reply::Reply,
        source::ResponseSource,
    },
    proxy::{
        cached::{
            arrival,
            look::{Found, look},
        },
        kind::RequestKind,
        response,
        subrequest::hedge,
        tracked::Tracked,
        upstream_peer::{self, Stop},
        waiting,
    },
    routing::decide::{Decision, decide},
    runtime::Live,
    upstream::{AttemptOutcome, FailureKind, failure_kind, response::unframe},
};

/// Connecting to a backend has ended; without a `reason` if there is a connection.
fn note_connecting(context: &Context, reason: Option<Reason>, error: &dyn std::fmt::Display) {
    let (Some(target), Some(backend)) = (&context.target, &context.attempts.backend) else { return };
    if let Some(reason) = reason {
        target.service.metrics.failure(reason);
        if matches!(reason, Reason::TotalTimeout | Reason::GrpcDeadline | Reason::LocalResources) {
            // That says nothing about the backend.
            return;
        }
    }
    target.service.note_connecting(backend, reason, error);
}

/// The backend has said something: coding, or a client that does not read, may keep it back.
fn note_backend(context: &Context) {
    if let Some(deadlines) = context.deadlines() {
        deadlines.note_backend();
    }
}

/// The gateway, as Pingora sees it.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    pub(super) live: Arc<Live>,
}

impl Gateway {
    /// A gateway that serves whatever `live` holds.
    pub(crate) fn new(live: Arc<Live>) -> Self {
        Self { live }
    }

    /// Decides on a request that has been met: the answer, or nothing when it goes to a backend.
    pub(super) async fn decide(
        &self,
        head: &mut RequestHeader,
        context: &mut Context,
    ) -> Option<(Reply, ResponseSource)> {
        if let Some(reason) = context.info.as_ref().and_then(|info| info.fault()) {
            return Some((malformed(reason).closing(), ResponseSource::Gateway));
        }
        if context.runtime.publish
            && let Some(page) = self.live.shared.page.get()
            && let Some(reply) = page(head.uri.path())
        {
            let reply = replies::read_only(&head.method).unwrap_or(reply);
            return Some((reply, ResponseSource::Gateway));
        }
        let Context { runtime, state, now, .. } = context;
        match decide(&runtime.router, &runtime.limits, head, state, *now).await {
            Decision::Forward(route, target, path) => {
                context.forward_to(route, target, path, head);
                None
            }
            Decision::Reply { route, reply, by } => {
                context.route = route;
                Some((*reply, by))
            }
        }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Tracked;

    fn new_ctx(&self) -> Tracked {
        Tracked::new(Context::new(self.live.load_full(), self.live.shared.clone()))
    }

    fn init_downstream_modules(&self, _: &mut HttpModules) {
        // Each costs every request a box: `compression.rs` gives one to those that need it.
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Tracked) -> Result<bool> {
        if let Some(found) = ConnectionInfo::of(session).and_then(|info| info.take_found::<Tracked>()) {
            // It was decided on before it had a session.
            *context = *found;
            request::bound(session, context);
        } else {
            request::receive(&self.live.shared, session, context);
            if let Some((reply, by)) = self.decide(session.req_header_mut(), context).await {
                body::judge(&self.live.shared, session, by, context).await?;
                return respond(session, context, reply, by).await.map(|()| true);
            }
            let body = !session.is_body_empty();
            match look(&self.live.shared, session.req_header(), body, context).await {
                Found::Nothing => {}
                Found::Answer(served) => return give(session, context, *served).await.map(|()| true),
                Found::Refused(reply) => {
                    return respond(session, context, *reply, ResponseSource::Cache).await.map(|()| true);
                }
            }
        }
        if let Some(busy) = waiting::take_permits(session, context).await? {
            return respond(session, context, busy, ResponseSource::Gateway).await.map(|()| true);
        }
        mirror::begin(context);
        if context.target.as_ref().is_some_and(|target| target.service.resilience.hedges()) {
            // Boxed: requests that are not hedged must not carry two attempts' memory around.
            return Box::pin(hedge::run(&self.live.shared, session, context)).await;
        }
        Ok(false)
    }

    async fn upstream_peer(&self, session: &mut Session, context: &mut Tracked) -> Result<Box<HttpPeer>> {
        let Some(service) = context.service() else {
            return Error::e_explain(ErrorType::InternalError, "a request without a service");
        };
        match upstream_peer::next(&self.live.shared, session, context, &service).await {
            Ok(peer) => Ok(peer),
            Err(Stop::Reply(reply)) => error::refuse(context, *reply, ResponseSource::Gateway),
            Err(Stop::Left(error)) => Err(error),
        }
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        reused: bool,
        _: &HttpPeer,
        _: std::os::unix::io::RawFd,
        _: Option<&Digest>,
        context: &mut Tracked,
    ) -> Result<()> {
        let context = &mut **context;
        context.attempts.connect = context.attempts.began.map(|began| began.elapsed());
        // Meanwhile nothing was read of the client's body.
        context.held += context.attempts.connect.unwrap_or_default();
        if !reused {
            note_connecting(context, None, &"");
        }
        upstream_peer::connected(context);
        Ok(())
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        context: &mut Tracked,
        error: Box<Error>,
    ) -> Box<Error> {
        let (mut error, context) = (error, &mut **context);
        context.held += context.attempts.began.map_or(Duration::ZERO, |began| began.elapsed());
        if context.kind == RequestKind::Upgrade
            && let Some(true) = context.at_service(|service, context| retry::no_http1(context, service, &error))
        {
            error.set_retry(true);
            return error;
        }
        note_connecting(context, Some(failure::reason(&error, context)), &failure_kind::Cause(&error));
        let again = context.at_service(|service, context| retry::not_connected(session, context, service, &error));
        error.set_retry(again.unwrap_or(false));
        error
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        context: &mut Tracked,
        reused: bool,
    ) -> Box<Error> {
        if let Some(deadlines) = context.deadlines() {
            deadlines.watch(false);
        }
        if session.was_upgraded() {
            // How another protocol's conversation ends says nothing about the backend: either side may break it off.
            context.at_service(|service, context| context.attempts.record_outcome(service, AttemptOutcome::Unknown));
            return error;
        }
        // What was found to be late on the client's side was the backend's to say.
        let mut error = match context.late() {
            Some(_) => Error::explain(ErrorType::ReadTimedout, "the backend did not go on").into_up(),
            None => error,
        };
        let reason = failure::reason(&error, context);
        let again = context.at_service(|service, context| {
            let failed = FailureKind::of(&error).is_some() || reason == Reason::LocalResources;
            if context.attempts.discarded.is_none() && failed {
                service.metrics.failure(reason);
            }
            retry::broke(session, context, service, &error, reused)
        });
        error.set_retry(again.unwrap_or(false));
        error
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        context: &mut Tracked,
    ) -> Result<()> {
        note_backend(context);
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            unframe(head);
            hop_by_hop::strip_interim(head);
            // It is no answer: the rest of the body is still wanted, and the connection stays.
            keep_alive::end_if_unread(session, false);
            if head.status == StatusCode::CONTINUE {
                body::invite(session, context);
            }
            return Ok(());
        }
        keep_alive::end_if_unread(session, true);
        response::begin(head, context)?;
        context.at_service(|service, context| retry::answered(session, context, service, head)).unwrap_or(Ok(()))?;
        arrival::head(&self.live.shared, session.req_header(), head, context);
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        context: &mut Tracked,
    ) -> Result<Option<Duration>> {
        note_backend(context);
        arrival::body(&self.live.shared, session.req_header(), body.as_ref(), end, context);
        Ok(None)
    }

    fn upstream_response_trailer_filter(
        &self,
        _: &mut Session,
        trailers: &mut HeaderMap,
        context: &mut Tracked,
    ) -> Result<()> {
        context.grpc_status = grpc::said(trailers).or(context.grpc_status);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        context: &mut Tracked,
    ) -> Result<()> {
        upstream_request::keep_te(session.req_header(), head)?;
        if context.uninvited {
            body::invite_for_http2(session, head, context).await?;
        }
        let Some(route) = context.route.clone() else { return Ok(()) };
        upstream_request::prepare(head, context, &route).or_else(|why| error::unsendable(context, why))?;
        context.cached.as_mut().map_or(Ok(()), |cached| cached.prepare(head))?;
        let signed = upstream_request::sign(head, session.req_header(), context, &route);
        signed.or_else(|why| error::unsendable(context, why))
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        context: &mut Tracked,
    ) -> Result<()> {
        body::pass(&self.live.shared, session, body, end, context)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        context: &mut Tracked,
    ) -> Result<()> {
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        response::head(&self.live.shared, session, head, context)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        context: &mut Tracked,
    ) -> Result<Option<std::time::Duration>> {
        response::body(session, body, end, context).map(|()| None)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Tracked) -> FailToProxy {
        error::answer(session, error, context).await
    }

    fn suppress_error_log(&self, _: &Session, _: &Tracked, _: &Error) -> bool {
        // The access log has a line for it, with the status, who made it, and the error in a word.
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Tracked) {
        logging::record(&self.live.shared, session, error, context);
    }
}

//! Requests of one connection, one after the other: each head is read, a session is made for it, and what is left of the
//! connection afterwards serves the next one.

use std::{pin::Pin, sync::Arc, time::Duration};

use pingora::{
    apps::HttpServerApp,
    protocols::{UniqueID as _, http::ServerSession},
    server::ShutdownWatch,
};
use tokio::{
    io::AsyncWriteExt as _,
    sync::watch,
    time::{Instant, Sleep},
};

use super::{
    ConnectionInfo,
    exchange::ExchangeWatch,
    h1::{self, Http1Session},
    head_reader::{BufferedRequest, HeadFacts, Protocols, ReadOutcome},
    host::{DirectAnswers, Host, Rejection},
    linger::linger,
    stream::{DownstreamStream, LeftOver},
    transport::Transport,
};
use crate::message::{
    chunked::RemainingRequest,
    framing::Body,
    replies,
    reply::{Reply, ReplyBody},
    reply_wire,
    request_id::RequestId,
};

/// What the requests of a listener's connections are served with.
pub(super) struct Requests<'l, A> {
    pub(super) app: &'l Arc<A>,
    pub(super) host: &'l dyn Host,
    /// Answers without a session.
    pub(super) direct: Option<&'l dyn DirectAnswers>,
    pub(super) closing: &'l watch::Sender<bool>,
}

/// What a request has left of its connection.
enum Left<T: Transport> {
    /// All of it.
    Whole(Box<DownstreamStream<T>>),
    /// What its session did when it was dropped.
    Rest(Box<LeftOver<T>>),
}

/// What the session of a request has handed back, or left when it was dropped.
fn left_over<T: Transport>(info: &ConnectionInfo) -> Option<Left<T>> {
    match info.take_left_over()?.downcast() {
        Ok(stream) => Some(Left::Whole(stream)),
        Err(other) => other.downcast().ok().map(Left::Rest),
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Requests<'_, A> {
    /// Serves request after request; `trusted`: the connection comes from a proxy whose word is taken.
    pub(super) async fn serve<T: Transport>(
        &self,
        stream: Box<DownstreamStream<T>>,
        protocols: Protocols,
        trusted: bool,
    ) {
        let (shutdown, mut closing) = (self.closing.subscribe(), self.closing.subscribe());
        // Both are made once for all requests of a connection: to enter a timer and a waiter anew for each costs more.
        tokio::pin! {
            let idle = tokio::time::sleep(Duration::ZERO);
            let leaving = closing.wait_for(|closing| *closing);
        }
        let mut watch = ExchangeWatch::new(stream.info().clone());
        let (mut stream, mut protocols, mut served) = (stream, protocols, 0);
        loop {
            let (head, request) = match self.read_request(&mut stream, protocols, idle.as_mut(), leaving.as_mut()).await
            {
                ReadOutcome::Head(head, request) => (head, request),
                ReadOutcome::H2(bytes) => return self.serve_h2(stream, bytes, trusted, &shutdown).await,
                ReadOutcome::Refused(reply) => return Box::pin(self.refuse(&mut stream, *reply)).await,
                ReadOutcome::Nobody => return,
            };
            stream.info().serve_over(stream.id());
            let info = stream.info().clone();
            let outcome = if head.upgrade {
                self.upgrade(stream, request, served, &mut watch, &shutdown).await
            } else {
                self.exchange(stream, head, request, served, &mut watch, &shutdown).await
            };
            stream = match outcome.or_else(|| left_over(&info)) {
                Some(Left::Whole(stream)) => stream,
                Some(Left::Rest(rest)) if rest.serves_on => Box::new(rest.resume(info)),
                // Boxed: its buffer would make every connection larger.
                Some(Left::Rest(mut rest)) => return Box::pin(linger(&mut rest.inner)).await,
                None => return,
            };
            if !stream.turn() {
                return;
            }
            (protocols, served) = (Protocols::Http1, served + 1);
        }
    }

    /// One request of HTTP/1 and its answer; hands back a connection that no session has seen.
    async fn exchange<T: Transport>(
        &self,
        mut stream: Box<DownstreamStream<T>>,
        facts: HeadFacts,
        mut request: BufferedRequest,
        served: u32,
        watch: &mut ExchangeWatch,
        shutdown: &ShutdownWatch,
    ) -> Option<Left<T>> {
        let body = request.bytes.split_off(facts.length);
        let head = std::mem::replace(&mut request.bytes, body);
        let rewound = stream.rewind(request);
        let head = rewound.and_then(|()| {
            h1::head::parse(head, facts.fields, self.host.header_names()).ok_or("the head could not be read")
        });
        let mut head = match head {
            Ok(head) => head,
            Err(reason) => {
                Box::pin(self.refuse(&mut stream, replies::malformed(reason))).await;
                return None;
            }
        };
        let info = stream.info().clone();
        info.begin(self.remaining(served) == Some(0) || !h1::outgoing::is_persistent(&head));
        if let (Some(direct), Body::Length(0)) = (self.direct, facts.body)
            && direct.answer(&mut head, &info, &mut *stream).await
        {
            if !info.closes() {
                return Some(Left::Whole(stream));
            }
            // What may still come is seen to when it is dropped.
            let _ = stream.shutdown().await;
            return None;
        }
        let session = ServerSession::new_custom(Box::new(Http1Session::new(stream, head, facts.body)));
        watch.run(self.app.process_new_http(session, shutdown)).await;
        info.forget_body();
        None
    }

    /// A request for an upgrade: Pingora's session, which knows tunnels, reads the head itself.
    async fn upgrade<T: Transport>(
        &self,
        mut stream: Box<DownstreamStream<T>>,
        request: BufferedRequest,
        served: u32,
        watch: &mut ExchangeWatch,
        shutdown: &ShutdownWatch,
    ) -> Option<Left<T>> {
        if let Err(reason) = stream.rewind(request) {
            Box::pin(self.refuse(&mut stream, replies::malformed(reason))).await;
            return None;
        }
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(Some(1));
        session.set_keepalive_reuses_remaining(self.remaining(served));
        let (same, _) = watch.run(self.app.process_new_http(session, shutdown)).await?.consume();
        // The HTTP layer hands back what it was given.
        Some(Left::Whole(same.into_any().downcast().ok()?))
    }

    /// HTTP/2, of which these bytes have come. To be boxed: a connection that speaks HTTP/1 must not carry its memory around.
    async fn serve_h2<T: Transport>(
        &self,
        mut stream: Box<DownstreamStream<T>>,
        bytes: Vec<u8>,
        trusted: bool,
        shutdown: &ShutdownWatch,
    ) {
        let preface = BufferedRequest { bytes, rest: RemainingRequest::Everything, next: Vec::new() };
        // Nothing of it can be wrong.
        if stream.rewind(preface).is_ok() {
            let (terms, cut) = (self.terms(trusted), self.host.cut());
            Box::pin(super::h2::serve(self.app, stream, terms, shutdown, cut)).await;
        }
    }

    /// How many requests a connection may serve after this one and `served` others; `None`: any number.
    fn remaining(&self, served: u32) -> Option<u32> {
        let limit = self.host.limits().requests_per_connection;
        (limit > 0).then(|| (limit - 1).saturating_sub(served))
    }

    /// What an HTTP/2 connection is granted; `trusted`: it comes from a proxy whose word is taken.
    fn terms(&self, trusted: bool) -> super::h2::Terms {
        let limits = self.host.limits();
        super::h2::Terms {
            options: super::h2::options(&limits),
            head: limits.head.0,
            stall: limits.stall.0,
            idle: limits.keepalive.0,
            requests: limits.requests_per_connection,
            trusted,
        }
    }

    /// Waits for a request, first for its beginning, then for the whole of its head.
    async fn read_request<T: Transport>(
        &self,
        stream: &mut DownstreamStream<T>,
        protocols: Protocols,
        mut idle: Pin<&mut Sleep>,
        leaving: Pin<&mut impl Future>,
    ) -> ReadOutcome {
        let limits = self.host.limits();
        idle.as_mut().reset(Instant::now() + limits.keepalive.0);
        let first = tokio::select! {
            // What has been sent is answered, whatever else has happened meanwhile.
            biased;
            first = std::future::poll_fn(|context| stream.poll_arrival(context)) => first,
            () = idle => return ReadOutcome::Nobody,
            _ = leaving => return ReadOutcome::Nobody,
        };
        match first {
            Ok(bytes) if !bytes.is_empty() => {
                let secure = stream.info().secure;
                super::head_reader::read(stream, bytes, &limits, protocols, secure).await
            }
            _ => ReadOutcome::Nobody,
        }
    }

    /// Answers a head that never became a request, and closes. To be boxed: its buffer would make every connection larger.
    pub(super) async fn refuse<T: Transport>(&self, stream: &mut DownstreamStream<T>, reply: Reply) {
        let (id, status) = (RequestId::fresh(), reply.status.as_u16());
        let detail = if let ReplyBody::Problem { detail, .. } = &reply.body { detail } else { "" };
        self.host.rejected(&Rejection {
            id: &id,
            client: stream.info().address(),
            status,
            detail,
            reason: reply.reason,
        });
        let answer = reply_wire::plain(reply, &id);
        let deliver = async {
            stream.write_all(&answer).await?;
            stream.flush().await
        };
        if let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(1), deliver).await {
            linger(stream).await;
        }
    }
}

//! HTTP/2 from clients: the connection, and a session of our own for each stream.
//!
//! Pingora's own session has no time limit for reading a body, answers what it does not take with an empty 400 of its
//! own, and takes `content-length: 0` for the end of a request whatever follows. Its proxy accepts any session that
//! implements a trait (`protocols::http::custom::server`), and that is what streams are given here.

mod answer_head;
mod frames;
mod room;
mod session;
mod stream;
mod stream_body;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, Connection},
};
use http::{HeaderMap, Request, Version, header, uri::Scheme};
use pingora::{
    apps::HttpServerApp,
    protocols::{
        Digest, GetSocketDigest as _, Ssl as _,
        http::{ServerSession, v2::server::default_h2_options},
    },
    server::ShutdownWatch,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use self::{frames::Timed, stream::StreamSession};
use super::{
    connection::ConnectionInfo, exchange::ExchangeWatch, limits::ClientLimits, stream::DownstreamStream,
    transport::Transport,
};
use crate::{
    message::framing::Framing,
    units::{CountPermit, Counter},
};

/// Streams that a client may open beyond twice its number, before it has read that there should be no more.
const MOST_UNAWARE: u64 = 1000;

/// The time in which a client takes note that its connection ends: it is to say so, and one that does not would keep it for ever.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a client may send on one stream before it is read: the protocol's own (RFC 9113 §6.9.2).
const STREAM_WINDOW: u32 = 65_535;

/// The most that a client may send on all streams of a connection before it is read.
const MOST_WINDOWS: u32 = 16 << 20;

/// What an HTTP/2 connection is granted.
#[derive(Debug)]
pub(crate) struct Terms {
    /// Settings and bounds of the protocol.
    pub(crate) options: Builder,
    /// A head must have come within this.
    pub(crate) head: Duration,
    /// The longest silence in a body, and of a client that does not read.
    pub(crate) stall: Duration,
    /// A connection without a stream is closed after this.
    pub(crate) idle: Duration,
    /// The client is asked to connect anew after so many streams; 0: never.
    pub(crate) requests: u32,
    /// A balancer in front has ended TLS, and may say `https` without it.
    pub(crate) trusted: bool,
}

/// Settings and bounds of the protocol under `limits`, for a connection that begins now.
pub(crate) fn options(limits: &ClientLimits) -> Builder {
    let size = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    let resets = usize::try_from(limits.h2_resets).unwrap_or(usize::MAX);
    let mut options = default_h2_options();
    // A stream that waits, with what it has sent, takes nothing away from its neighbours: there is a window for each.
    let windows = STREAM_WINDOW.saturating_mul(limits.h2_streams).min(MOST_WINDOWS);
    options
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(windows.max(STREAM_WINDOW))
        .max_concurrent_streams(limits.h2_streams)
        // One field is its name, its value and 32 bytes by RFC 9113 §6.5.2.
        .max_header_list_size(size(limits.header_size.0 + limits.uri.0 + 32 * limits.headers as u64))
        .max_concurrent_reset_streams(resets)
        .max_pending_accept_reset_streams(resets)
        .max_local_error_reset_streams(Some(resets));
    options
}

/// Streams under way; the connection idles when there is none.
#[derive(Default)]
struct Active {
    count: AtomicUsize,
    idle: Notify,
    /// The process ends what is under way.
    cut: Notify,
}

impl Counter for Active {
    fn count(&self) -> &AtomicUsize {
        &self.count
    }

    fn given_back(&self, left: usize) {
        if left == 0 {
            self.idle.notify_one();
        }
    }
}

impl Active {
    /// Resolves when there has been no stream for `time`; to be called anew after each stream.
    async fn rest(&self, time: Duration) {
        while self.count.load(Relaxed) > 0 {
            self.idle.notified().await;
        }
        tokio::time::sleep(time).await;
    }
}

/// Serves the streams of a connection until it ends.
pub(crate) async fn serve<A, T>(
    app: &Arc<A>,
    wire: Box<DownstreamStream<T>>,
    terms: Terms,
    shutdown: &ShutdownWatch,
    mut cut: watch::Receiver<bool>,
) where
    A: HttpServerApp + Send + Sync + 'static,
    T: Transport,
{
    let info = wire.info().clone();
    let (ssl_digest, socket_digest) = (wire.get_ssl_digest(), wire.get_socket_digest());
    let digest = Digest { ssl_digest, timing_digest: Vec::new(), proxy_digest: None, socket_digest };
    info.deadlines.limit_writes(Some(terms.stall), 0);
    let timed = Timed::new(wire, terms.head);
    let mut connection: Connection<_, Bytes> = match terms.options.handshake(timed).await {
        Ok(connection) => connection,
        Err(e) => return log::debug!("HTTP/2 with {}: {e}", info.peer),
    };
    let mut cut = std::pin::pin!(async { drop(cut.wait_for(|cut| *cut).await) });
    let mut told = false;
    let (active, mut leaving) = (Arc::new(Active::default()), shutdown.clone());
    let mut closing: Option<Instant> = None;
    let mut accepted_streams = 0;
    // Made once for all streams: to enter a waiter anew for each costs more.
    let mut left = std::pin::pin!(leaving.changed());
    loop {
        let accepted = tokio::select! {
            biased;
            // Streams that are on their way are still taken; the codec says when the connection has ended.
            _ = &mut left, if closing.is_none() => {
                connection.graceful_shutdown();
                closing = Some(Instant::now());
                continue;
            }
            () = &mut cut, if !told => {
                active.cut.notify_waiters();
                told = true;
                continue;
            }
            accepted = connection.accept() => accepted,
            () = active.rest(if closing.is_some() { FAREWELL } else { terms.idle }) => return,
        };
        let (request, mut respond) = match accepted {
            Some(Ok(stream)) => stream,
            Some(Err(e)) => return log::debug!("HTTP/2 with {}: {e}", info.peer),
            None => return,
        };
        if closing.is_some_and(|since| since.elapsed() > FAREWELL) {
            respond.send_reset(Reason::REFUSED_STREAM);
            continue;
        }
        accepted_streams += 1;
        let most = u64::from(terms.requests);
        if most > 0 && accepted_streams >= most {
            // It is no mistake to go on for a moment: the client has not read of it yet. One that never does is refused.
            if accepted_streams >= most * 2 + MOST_UNAWARE {
                respond.send_reset(Reason::REFUSED_STREAM);
                continue;
            }
            connection.graceful_shutdown();
        }
        let session = session(request, info.of_stream(respond), &digest, &terms);
        spawn(app.clone(), session, shutdown.clone(), active.clone(), terms.stall);
    }
}

/// Serves one stream in a task of its own, which counts among those that are active.
fn spawn<A: HttpServerApp + Send + Sync + 'static>(
    app: Arc<A>,
    session: StreamSession,
    shutdown: ShutdownWatch,
    active: Arc<Active>,
    stall: Duration,
) {
    let stream = CountPermit::take(active.clone());
    tokio::spawn(async move {
        exchange(app, session, &shutdown, &active, stall).await;
        drop(stream);
    });
}

/// Serves one stream.
async fn exchange<A: HttpServerApp + Send + Sync + 'static>(
    app: Arc<A>,
    session: StreamSession,
    shutdown: &ShutdownWatch,
    streams: &Active,
    stall: Duration,
) {
    let mut session = session;
    session.body.settle_empty(&session.info, stall).await;
    let mut watch = ExchangeWatch::new(session.info.clone());
    let served = watch.run(app.process_new_http(ServerSession::new_custom(Box::new(session)), shutdown));
    let mut served = std::pin::pin!(served);
    tokio::select! {
        biased;
        _ = &mut served => {}
        // It looks at its client once more, and finds that it has to end.
        () = streams.cut.notified() => drop(served.await),
    }
}

fn session(
    request: Request<RecvStream>,
    info: Arc<ConnectionInfo>,
    connection: &Digest,
    terms: &Terms,
) -> StreamSession {
    let (mut parts, body) = request.into_parts();
    // Room for what the backend is told beside it: it would be made in several steps otherwise.
    parts.headers.reserve(8);
    let scheme = parts.uri.scheme();
    let is = |scheme: &Scheme, name: &str| scheme.as_str().eq_ignore_ascii_case(name);
    let violation = if scheme.is_some_and(|scheme| !is(scheme, "http") && !is(scheme, "https")) {
        Some("the :scheme field is neither http nor https")
    } else if scheme.is_some_and(|scheme| is(scheme, "https")) && !info.secure && !terms.trusted {
        Some("this port does not speak TLS: use http")
    } else {
        violation(&parts.headers)
    };
    if let Some(reason) = violation {
        info.misread(reason);
    }
    let digest = Digest {
        ssl_digest: connection.ssl_digest.clone(),
        timing_digest: Vec::new(),
        proxy_digest: info.digest(),
        socket_digest: connection.socket_digest.clone(),
    };
    StreamSession::new(parts.into(), body, info, digest)
}

/// What makes a head malformed although its fields could be read (RFC 9113 §8.2.1, §8.2.2, §8.1.1).
fn violation(headers: &HeaderMap) -> Option<&'static str> {
    let padded = |value: &[u8]| matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
    if headers.values().any(|value| padded(value.as_bytes())) {
        return Some("a header field's value begins or ends with white space");
    }
    if headers.contains_key(header::CONNECTION) {
        return Some("HTTP/2 has no Transfer-Encoding and no Connection field");
    }
    Framing::of(headers).and_then(|framing| framing.body(Version::HTTP_2)).err()
}

//! Copies of requests to another service, whose answers are thrown away. Nobody waits for them: a copy is sent when the
//! request is complete, by a task of its own, and when too many copies are under way, further ones are not made.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use pingora::{connectors::http::Connector, http::RequestHeader};

use crate::{
    clock::Now,
    proxy::{
        context::Context,
        subrequest::{attempt, mirror_body::MirrorBody},
        upstream_request,
    },
    runtime::Shared,
    units::CountPermit,
    upstream::{
        Permit, Service,
        choice::{Choice, Chosen},
        concurrency::Busy,
    },
};

/// Copies of one route under way at once.
const MOST: usize = 256;

/// The most of an answer that is read, and for how long: only its end is of use, for the connection.
const MOST_READ: usize = 1 << 20;
const LONGEST_READ: Duration = Duration::from_secs(5);

/// Decides whether a request is copied.
pub(crate) fn begin(context: &mut Context) {
    let mirror = context.route.as_ref().and_then(|route| route.forward()).and_then(|forward| forward.mirror.as_ref());
    if mirror.is_some_and(|mirror| mirror.share >= 1.0 || fastrand::f64() < mirror.share) {
        context.copy = MirrorBody::Collecting(BytesMut::new());
    }
}

/// Takes the next part of a body along, and sends the copy when it is complete.
pub(crate) fn take(shared: &Shared, head: &RequestHeader, body: Option<&Bytes>, end: bool, context: &mut Context) {
    let MirrorBody::Collecting(collected) = &mut context.copy else { return };
    let Some(route) = context.route.clone() else { return };
    let Some(mirror) = route.forward().and_then(|forward| forward.mirror.as_ref()) else { return };
    if let Some(body) = body {
        collected.extend_from_slice(body);
    }
    if collected.len() > mirror.max_body {
        mirror.service.metrics.mirror_dropped.inc();
        context.copy = MirrorBody::Done;
        return;
    }
    if !end {
        return;
    }
    let body = std::mem::take(collected).freeze();
    context.copy = MirrorBody::Done;
    let Ok(copy) = upstream_request::alone(head, body.len(), context, &route) else { return };
    let service = mirror.service.clone();
    let place = CountPermit::within(mirror.under_way.clone(), MOST);
    let (Some(connector), Some(place), Ok(permit)) = (shared.connector(), place, permit(&service)) else {
        service.metrics.mirror_dropped.inc();
        return;
    };
    // By the request as it came, as on the ordinary way.
    let choice = Choice::new(head, context.state.client, &[], Now::monotonic());
    let Ok(chosen) = service.choose(&choice) else {
        service.metrics.mirror_dropped.inc();
        return;
    };
    tokio::spawn(async move {
        deliver(&connector, &service, chosen, copy, body).await;
        drop((place, permit));
    });
}

/// A place under `in_flight` of the service, if that has a limit; a copy does not wait for one.
fn permit(service: &Service) -> Result<Option<Permit>, Busy> {
    match service.resilience.concurrency() {
        Some(concurrency) => concurrency.try_enter().map(Some).ok_or(Busy::QueueFull),
        None => Ok(None),
    }
}

async fn deliver(connector: &Arc<Connector>, service: &Service, chosen: Chosen, head: RequestHeader, body: Bytes) {
    let Some(mut answer) = attempt::send_alone(connector, service, chosen, head, body).await else { return };
    // Read to the end, so that the connection can be used again; one that does not end soon is closed instead.
    let mut left = MOST_READ;
    let read = async {
        while let Ok(Some(part)) = answer.session.read_response_body().await {
            left = left.checked_sub(part.len())?;
        }
        Some(())
    };
    let whole = tokio::time::timeout(LONGEST_READ, read).await;
    if whole == Ok(Some(())) && answer.session.response_done() {
        answer.release(connector).await;
    }
}

//! Sends the requests of filters, over the connections of requests that the gateway sends by itself: they are kept, and shared by
//! all who ask the same service.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use pingora::{connectors::http::Connector, http::RequestHeader};

use super::{
    exchange::{self, Answer},
    failure_kind::summary,
    lone_peer::peer,
};
use crate::{
    clock::Now,
    filter::{Outbound, OutboundAnswer, OutboundTarget},
};

/// So many addresses of a name are tried.
const MOST_ADDRESSES: usize = 4;

/// So often a connection that was kept may turn out to be closed, before the request goes over a new one or fails.
const MOST_STALE: usize = 3;

/// So long the addresses of a name are good for; when it cannot be resolved again, those that were known stay.
const RESOLVED: Duration = Duration::from_secs(30);

/// So long a connection is kept without a request.
const KEPT: Duration = Duration::from_secs(60);

/// The sender of one configuration's filters.
pub(crate) struct OutboundSender {
    connector: Arc<OnceLock<Arc<Connector>>>,
    wanted: AtomicBool,
}

impl OutboundSender {
    /// Of the connector that there is, once there is one.
    pub(crate) fn new(connector: Arc<OnceLock<Arc<Connector>>>) -> Self {
        Self { connector, wanted: AtomicBool::new(false) }
    }

    /// Some filter wants to send something.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for OutboundSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutboundSender")
    }
}

#[async_trait]
impl Outbound for OutboundSender {
    fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    async fn ask(&self, target: &OutboundTarget, head: RequestHeader, most: usize) -> Result<OutboundAnswer, String> {
        let Some(connector) = self.connector.get() else { return Err("the gateway has just begun".to_owned()) };
        tokio::time::timeout(target.place.timeout, ask(connector, target, head, most))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {:?}", target.place.timeout)))
    }
}

async fn ask(
    connector: &Connector,
    target: &OutboundTarget,
    head: RequestHeader,
    most: usize,
) -> Result<OutboundAnswer, String> {
    let mut last = format!("'{}' has no address", target.place.host);
    for address in addresses(target).await? {
        for _ in 0..=MOST_STALE {
            match exchange::try_send(connector, peer(address, &target.place, Some(KEPT)), head.clone(), Bytes::new())
                .await
            {
                Ok(answer) => return read(connector, answer, most).await,
                // Whoever had kept the connection has closed it meanwhile: that says nothing of the service.
                Err(failure) if failure.reused => last = summary(&failure.error),
                Err(failure) if failure.connect.is_none() => {
                    last = summary(&failure.error);
                    put_last(target, address);
                    break;
                }
                Err(failure) => return Err(summary(&failure.error)),
            }
        }
    }
    Err(last)
}

/// The addresses of the service, as they are known.
async fn addresses(target: &OutboundTarget) -> Result<Vec<SocketAddr>, String> {
    let now = Now::monotonic();
    let known = target.addresses.0.lock().clone();
    if let Some((addresses, found)) = &known
        && now.saturating_sub(*found) < RESOLVED
    {
        return Ok(addresses.clone());
    }
    match tokio::net::lookup_host((target.place.host.as_str(), target.place.port)).await {
        Ok(found) => {
            let addresses: Vec<SocketAddr> = found.take(MOST_ADDRESSES).collect();
            *target.addresses.0.lock() = Some((addresses.clone(), now));
            Ok(addresses)
        }
        Err(e) => match known {
            Some((addresses, _)) => Ok(addresses),
            None => Err(format!("'{}' cannot be resolved: {e}", target.place.host)),
        },
    }
}

/// An address that cannot be reached is tried after the others from now on.
fn put_last(target: &OutboundTarget, address: SocketAddr) {
    if let Some((addresses, _)) = &mut *target.addresses.0.lock() {
        addresses.sort_by_key(|known| *known == address);
    }
}

async fn read(connector: &Connector, mut answer: Answer, most: usize) -> Result<OutboundAnswer, String> {
    let mut body = BytesMut::new();
    while let Some(part) = answer.session.read_response_body().await.map_err(|e| summary(&e))? {
        if body.len() + part.len() > most {
            // What is left of it is not waited for: the connection ends here.
            return Ok(OutboundAnswer { head: answer.head, body: None });
        }
        body.extend_from_slice(&part);
    }
    let head = answer.head.clone();
    if answer.session.response_done() {
        answer.release(connector).await;
    }
    Ok(OutboundAnswer { head, body: Some(body.freeze()) })
}

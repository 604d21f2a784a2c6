//! Following the answer to another request while it comes.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use http::HeaderMap;
use pingora::{Error, ErrorType, Result};
use tokio::sync::watch;

use crate::{
    cache::{
        key::Key,
        reuse::{self, Asked, Reuse},
    },
    clock::Now,
    runtime::{
        Shared,
        flights::Landing,
        underway::{BrokenOff, Follower, Underway},
    },
};

/// What came of waiting for the fetch of another request.
pub(super) enum Waited {
    /// Its answer has been stored.
    Stored,
    /// Its answer comes, and is one to this request, too.
    Follows(Follower),
    /// Its answer comes, and has been purged.
    Purged(Arc<Underway>),
    /// Nothing.
    InVain,
}

/// Waits for the fetch of another request, whose answer is followed if it is one to this request, too.
pub(super) async fn wait(
    landing: watch::Receiver<Landing>,
    until: tokio::time::Instant,
    (shared, key, asked, request): (&Shared, &Key, &Asked, &HeaderMap),
) -> Waited {
    let (mut landing, mut passed) = (landing, false);
    loop {
        let is_news = |landing: &Landing| match landing {
            Landing::Flying => false,
            Landing::Open(_) => !passed,
            Landing::Stored | Landing::NotStored => true,
        };
        let landed = match tokio::time::timeout_at(until, landing.wait_for(is_news)).await {
            Ok(Ok(landed)) => landed.clone(),
            _ => return Waited::InVain,
        };
        match landed {
            Landing::Open(underway) => {
                if shared.cache.memory().has_purged_entry(key, &underway.head, underway.ticket) {
                    return Waited::Purged(underway);
                }
                match follow(&underway, asked, request) {
                    Some(follower) => return Waited::Follows(follower),
                    None => passed = true,
                }
            }
            Landing::Stored => return Waited::Stored,
            Landing::Flying | Landing::NotStored => return Waited::InVain,
        }
    }
}

/// Follows an answer that would be given, were it stored already, to the request with these fields.
fn follow(underway: &Arc<Underway>, asked: &Asked, request: &HeaderMap) -> Option<Follower> {
    let entry = &underway.head;
    let fits = entry.selection.matches(request, &entry.headers)
        && matches!(reuse::decide(entry, asked, Now::read()), Reuse::Fresh);
    if fits { underway.follow() } else { None }
}

/// What has come of what is followed and has not been given yet; nothing when that is all for now.
///
/// # Errors
/// It has broken off.
pub(crate) fn next(follower: &mut Follower) -> Result<Option<Bytes>> {
    let broken = |BrokenOff| Error::explain(ErrorType::ReadError, "what is followed has broken off").into_up();
    follower.now().map_err(broken)
}

/// Waits for more of what is followed, until `deadline`.
///
/// # Errors
/// The time is over.
pub(crate) async fn more(follower: &mut Follower, deadline: Option<Instant>) -> Result<()> {
    let Some(deadline) = deadline else {
        follower.wait().await;
        return Ok(());
    };
    let late = |_| Error::explain(ErrorType::ReadTimedout, "total time is over").into_up();
    tokio::time::timeout_at(deadline.into(), follower.wait()).await.map_err(late)
}

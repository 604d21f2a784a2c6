//! All admin pages: each file brings its own, here they are one router.

use std::sync::Arc;

use axum::{Router, routing::get};
use http::{StatusCode, Uri};

use super::{answer::Answer, cache, index, jwks, metrics, stats, status};
use crate::{message::reply::Reply, runtime::Live};

/// The pages of the admin listener. Handlers get what serves now as their state.
pub(super) fn router(live: &Arc<Live>) -> Router {
    Router::new()
        .route("/", get(index::page))
        .merge(status::router())
        .merge(metrics::router())
        .merge(cache::router())
        .merge(jwks::router())
        .fallback(|| async { Answer(Reply::problem(StatusCode::NOT_FOUND, "there is no such admin page")) })
        .method_not_allowed_fallback(|uri: Uri| async move {
            let purges = uri.path() == cache::PURGE;
            let detail = if purges { "this page takes POST alone" } else { "this page can only be read" };
            Answer(Reply::problem(StatusCode::METHOD_NOT_ALLOWED, detail))
        })
        .with_state(live.clone())
}

/// The page for `/gateway/*` on an ordinary listener; `None` for every other path.
pub fn published(live: &Live, path: &str) -> Option<Reply> {
    match path {
        "/gateway/health" => Some(status::ready_reply(live)),
        "/gateway/stats" => Some(stats::stats_reply(live)),
        "/gateway/metrics" => Some(metrics::reply(live)),
        _ => None,
    }
}

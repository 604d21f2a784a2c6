//! An axum service whose clients are limited by address, without a gateway: the limiter is a crate of its own.
//!
//! `cargo run --example axum_limit`, and then `curl -i http://127.0.0.1:3000/` a few times.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{HeaderValue, Request, Response, StatusCode, header},
    routing::get,
};
use tokio::net::TcpListener;
use tollgate_limit::{Quota, RateLimitLayer, RateLimiter, Verdict};

/// One request a second for each address, three at once.
fn service() -> Result<Router, tollgate_limit::InvalidQuota> {
    let limiter = RateLimiter::new(Quota::new(1, Duration::from_secs(1), 3)?, 10_000);
    let layer = RateLimitLayer::new(Arc::new(limiter), address, too_many);
    Ok(Router::new().route("/", get(|| async { "hello\n" })).layer(layer))
}

fn address(request: &Request<Body>) -> Option<String> {
    let ConnectInfo(address) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
    Some(address.ip().to_string())
}

fn too_many(_: &Request<Body>, verdict: Verdict) -> Response<Body> {
    // Whole seconds, rounded up: a client that waits so long finds its turn.
    let wait = verdict.retry.unwrap_or_default().as_secs_f64().ceil();
    let mut answer = Response::new(Body::from("too many requests\n"));
    *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    if let Ok(wait) = HeaderValue::try_from(format!("{wait}")) {
        answer.headers_mut().insert(header::RETRY_AFTER, wait);
    }
    answer
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, service()?.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_fourth_request_at_once_is_one_too_many() -> Result<(), Box<dyn std::error::Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        tokio::spawn(async move {
            axum::serve(listener, service().ok()?.into_make_service_with_connect_info::<SocketAddr>()).await.ok()
        });
        let statuses = tokio::task::spawn_blocking(move || {
            let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
            let ask = |_| agent.get(&url).call().map(|answer| (answer.status().as_u16(), answer.headers().len()));
            (0..4).map(ask).collect::<Result<Vec<_>, _>>()
        });
        let statuses = statuses.await??;
        assert_eq!(statuses.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 200, 200, 429]);
        Ok(())
    }
}

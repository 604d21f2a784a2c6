//! A layer for services of `tower`: requests of whoever has asked too often are answered without the service.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{RateLimiter, Verdict};

/// Limits a service. `caller` says whose a request is (`None`: it is not limited), `refuse` makes the answer to one too many.
///
/// It adds nothing to what the service answers, and asks the limiter once for each request: constant time, no lock, no task.
/// `examples/axum_limit.rs` of the gateway limits an axum service by the address of the client.
#[derive(Debug)]
pub struct RateLimitLayer<C, R> {
    limiter: Arc<RateLimiter>,
    caller: C,
    refuse: R,
}

impl<C: Clone, R: Clone> Clone for RateLimitLayer<C, R> {
    fn clone(&self) -> Self {
        Self { limiter: self.limiter.clone(), caller: self.caller.clone(), refuse: self.refuse.clone() }
    }
}

impl<C, R> RateLimitLayer<C, R> {
    /// A layer by this limiter; clones share its buckets.
    pub fn new(limiter: Arc<RateLimiter>, caller: C, refuse: R) -> Self {
        Self { limiter, caller, refuse }
    }
}

impl<S, C: Clone, R: Clone> Layer<S> for RateLimitLayer<C, R> {
    type Service = RateLimited<S, C, R>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimited { inner, layer: self.clone() }
    }
}

/// A service that is limited.
#[derive(Debug)]
pub struct RateLimited<S, C, R> {
    inner: S,
    layer: RateLimitLayer<C, R>,
}

impl<S: Clone, C: Clone, R: Clone> Clone for RateLimited<S, C, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S, Q, C, R> Service<Q> for RateLimited<S, C, R>
where
    S: Service<Q>,
    C: Fn(&Q) -> Option<String>,
    R: Fn(&Q, Verdict) -> S::Response,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Limited<S::Future, S::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Q) -> Self::Future {
        let layer = &self.layer;
        let verdict = (layer.caller)(&request).map(|caller| layer.limiter.check(&caller, 1));
        match verdict.filter(|verdict| !verdict.allowed()) {
            Some(verdict) => Limited { refused: Some((layer.refuse)(&request, verdict)), inner: None },
            None => Limited { refused: None, inner: Some(self.inner.call(request)) },
        }
    }
}

pin_project! {
    /// The answer of the service, or the refusal.
    #[derive(Debug)]
    pub struct Limited<F, A> {
        refused: Option<A>,
        #[pin]
        inner: Option<F>,
    }
}

impl<F, A, E> Future for Limited<F, A>
where
    F: Future<Output = Result<A, E>>,
{
    type Output = Result<A, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut own = self.project();
        match own.inner.as_mut().as_pin_mut() {
            Some(inner) => {
                let answer = ready!(inner.poll(context));
                own.inner.set(None);
                Poll::Ready(answer)
            }
            // After its end a future is not to be polled.
            None => own.refused.take().map_or(Poll::Pending, |refused| Poll::Ready(Ok(refused))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::{convert::Infallible, time::Duration};

    use tower::{ServiceExt as _, service_fn};

    use super::*;
    use crate::Quota;

    #[tokio::test]
    async fn whoever_asks_too_often_is_answered_without_the_service() {
        let limiter = RateLimiter::new(Quota::new(1, Duration::from_secs(60), 2).unwrap(), 10);
        let caller = |request: &&str| (!request.is_empty()).then(|| (*request).to_owned());
        let refuse = |_: &&str, verdict: Verdict| format!("wait {}", verdict.retry.unwrap().as_secs());
        let layer = RateLimitLayer::new(Arc::new(limiter), caller, refuse);
        let inner = service_fn(|request: &'static str| async move { Ok::<_, Infallible>(format!("hello {request}")) });
        let service = layer.layer(inner);
        let mut answers = Vec::new();
        for request in ["ann", "ann", "ann", "bob", "", "", ""] {
            // Clones have the same buckets.
            answers.push(service.clone().oneshot(request).await.unwrap());
        }
        assert_eq!(answers, ["hello ann", "hello ann", "wait 59", "hello bob", "hello ", "hello ", "hello "]);
    }
}

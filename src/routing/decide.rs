//! What happens to a request, decided without a connection: the hooks and the configuration's own `tests:` both ask
//! here, so what a test says is what traffic gets.

use std::sync::Arc;

use http::StatusCode;
use pingora::http::RequestHeader;

use super::{
    action::{self, Action},
    destination::Destination,
    pattern::PathPattern,
    readings,
    route::Route,
    router::{Pick, RouteInput, Router},
};
use crate::{
    clock::Now,
    downstream::{limits::ClientLimits, validate},
    filter::{Exchange, State},
    message::{hops, host::host_of, reason::Reason, replies, reply::Reply, source::ResponseSource},
};

/// Paths of a request that goes to a backend, where they are not the one that its head has for routes to compare.
#[derive(Debug, Clone, Default)]
pub struct ForwardedPath {
    /// As the client has spelled it.
    pub spelled: Option<String>,
    /// What a rewrite made of that.
    pub rewritten: Option<String>,
}

impl ForwardedPath {
    /// As the backend gets it.
    pub fn sent(&self) -> Option<&str> {
        self.rewritten.as_deref().or(self.spelled.as_deref())
    }
}

/// The decision.
#[derive(Debug)]
pub enum Decision {
    /// To a backend of this service.
    Forward(Arc<Route>, Arc<Destination>, ForwardedPath),
    /// An answer of the gateway's own.
    Reply {
        /// The route, when there was one.
        route: Option<Arc<Route>>,
        /// The answer.
        reply: Box<Reply>,
        /// Who made it.
        by: ResponseSource,
    },
}

impl Decision {
    fn own(reply: Reply, route: Option<Arc<Route>>) -> Self {
        Self::Reply { route, reply: Box::new(reply), by: ResponseSource::Gateway }
    }
}

/// Decides on a request; `head` gets its normalised path.
pub async fn decide(
    router: &Router<Arc<Route>>,
    limits: &ClientLimits,
    head: &mut RequestHeader,
    state: &mut State,
    now: Now,
) -> Decision {
    let mut admitted = match validate::validate_request(head, limits) {
        Ok(admitted) => admitted,
        Err(reply) => return Decision::own(reply, None),
    };
    state.original = admitted.original.take();
    let subject = RouteInput {
        host: host_of(head),
        path: head.uri.path(),
        method: &head.method,
        headers: &head.headers,
        listener: state.listener,
    };
    let (route, pattern) = match router.pick(&subject) {
        Pick::Route(route, pattern) => (route, pattern),
        Pick::Method(methods) => return Decision::own(replies::method_not_allowed(hops::allow(methods)), None),
        Pick::Nothing => {
            return Decision::own(
                Reply::problem(StatusCode::NOT_FOUND, "no route leads there").because(Reason::NoRoute),
                None,
            );
        }
    };
    if admitted.suspect
        && let Err(reply) = readings::agree(router, &subject, route, pattern, route.encoded_slashes)
    {
        return Decision::own(reply, Some(route.clone()));
    }
    let route = route.clone();
    let refused = route.chain.request(&mut Exchange::new(head, state, now)).await;
    if let Some(refusal) = refused {
        return Decision::Reply { route: Some(route), reply: refusal.reply, by: ResponseSource::Filter(refusal.by) };
    }
    act(route, pattern, head, admitted.sent)
}

/// What the route does with a request that its filters have let pass; `sent` is its path as the client has spelled it, where
/// that is another one.
fn act(route: Arc<Route>, pattern: &PathPattern, head: &RequestHeader, sent: Option<String>) -> Decision {
    let path = sent.as_deref().unwrap_or(head.uri.path());
    match &route.action {
        Action::Forward(forward) => {
            if let Some(reply) = hops::last(head, &route.methods) {
                return Decision::own(reply, Some(route));
            }
            let Some(target) = forward.pick(&head.headers).cloned() else {
                let reply = Reply::problem(StatusCode::SERVICE_UNAVAILABLE, "this route leads nowhere")
                    .because(Reason::NoDestination);
                return Decision::own(reply, Some(route));
            };
            let rewritten = route.rewrite.as_ref().and_then(|rewrite| rewrite.apply(pattern, path));
            Decision::Forward(route, target, ForwardedPath { spelled: sent, rewritten })
        }
        Action::Redirect(status, to) => {
            let reply = action::location(*status, to, pattern, head, path);
            Decision::own(reply, Some(route))
        }
        Action::Respond(reply) => {
            let reply = Reply::clone(reply);
            Decision::own(reply, Some(route))
        }
    }
}

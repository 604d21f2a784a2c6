//! The head that a backend gets.

use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use pingora::{Error, ErrorType, http::RequestHeader};

use super::context::Context;
use crate::{
    filter::Refusal,
    message::{edit::Edit as _, fields, forwarded, hop_by_hop, hops, reason::Reason, reply::Reply},
    routing::route::Route,
    upstream::signer::Unsigned,
};

/// Why a head cannot be sent.
pub(crate) enum Unsendable {
    /// A step of the chain says no.
    Refused(Box<Refusal>),
    /// It has something that no signature can cover.
    Unsignable(Box<Reply>),
    /// It cannot be built.
    Broken(Box<Error>),
}

impl From<Box<Error>> for Unsendable {
    fn from(error: Box<Error>) -> Self {
        Self::Broken(error)
    }
}

/// Changes a client's head into the one that goes to the backend of this attempt.
pub(crate) fn prepare(head: &mut RequestHeader, context: &Context, route: &Route) -> Result<(), Unsendable> {
    if let Some(path) = context.path.sent() {
        let target = match head.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        let target = target.parse::<http::uri::PathAndQuery>();
        let target = target.map_err(|e| Error::because(ErrorType::InternalError, "rewritten path", e))?;
        head.set_uri(http::Uri::from(target));
    }
    let known = context.info.as_ref().map(|info| info.address_text());
    let authority = head.uri.authority().cloned();
    head.edit(|fields| -> pingora::Result<()> {
        forwarded::tell_backend(fields, authority.as_ref(), context.peer, known, context.origin)?;
        if route.via {
            hops::add_via(fields, context.version)?;
        }
        if context.attempts.may_repeat {
            let number = match context.attempts.count {
                // Nearly always, and then without an allocation.
                1 => HeaderValue::from_static("1"),
                number => HeaderValue::from(number),
            };
            fields.insert(X_ATTEMPTS, number)?;
        }
        if let Some(host) = &route.host {
            fields.insert(header::HOST, host.clone())?;
        } else if fields.all().get(header::HOST).map_or(authority.is_none(), HeaderValue::is_empty)
            && let Some(host) = context.attempts.backend.as_ref().and_then(|backend| backend.host())
        {
            // HTTP/1.0 has requests without `Host`; HTTP/1.1, as which they go on, has not, and many a backend refuses one
            // that is empty.
            fields.insert(header::HOST, host)?;
        }
        Ok(())
    })?;
    hops::count_down(head)?;
    route.chain.upstream(head, &context.state).map_err(Unsendable::Refused)
}

/// Signs a head that nothing changes any more, if the service's are signed; it was made of the client's `original`.
pub(crate) fn sign(
    head: &mut RequestHeader,
    original: &RequestHeader,
    context: &Context,
    route: &Route,
) -> Result<(), Unsendable> {
    let (Some(target), Some(backend)) = (&context.target, &context.attempts.backend) else { return Ok(()) };
    target.service.sign(head, backend).map_err(|why| match why {
        Unsigned::Field(name) => unsignable(&name, head, original, route),
        Unsigned::Broken(error) => Unsendable::Broken(error),
    })
}

/// Why a request is not sent on whose field of this name cannot be covered: by whoever has set it.
fn unsignable(name: &HeaderName, head: &RequestHeader, original: &RequestHeader, route: &Route) -> Unsendable {
    let detail = format!("'{name}' has bytes beyond ASCII, which the gateway cannot sign for the service");
    let (status, reason) = if head.headers.get_all(name) == original.headers.get_all(name) {
        (StatusCode::BAD_REQUEST, Reason::FieldUnsignable)
    } else if route.chain.tells_backends().any(|told| told == *name) {
        (StatusCode::FORBIDDEN, Reason::IdentityUnsignable)
    } else {
        // The settings say so.
        return Unsendable::Broken(Error::explain(ErrorType::InternalError, detail));
    };
    Unsendable::Unsignable(Box::new(Reply::problem(status, detail).because(reason)))
}

/// gRPC servers want `te: trailers`, which HTTP/2 allows (RFC 9113 §8.2.2); Pingora takes the field off streams that are
/// not its own.
pub(crate) fn keep_te(client: &RequestHeader, head: &mut RequestHeader) -> pingora::Result<()> {
    if head.version == Version::HTTP_2
        && client.version == Version::HTTP_2
        && fields::has(&client.headers, &header::TE, |coding| coding.eq_ignore_ascii_case(b"trailers"))
    {
        head.insert_header(header::TE, HeaderValue::from_static("trailers"))?;
    }
    Ok(())
}

/// A head of its own, for a request that the gateway sends by itself: without what was meant for the client's
/// connection, as HTTP/1.1, with a body of this `length`.
pub(crate) fn alone(
    original: &RequestHeader,
    length: usize,
    context: &Context,
    route: &Route,
) -> Result<RequestHeader, Unsendable> {
    let mut head = original.clone();
    hop_by_hop::strip_request(&mut head);
    if let (None, Some(authority)) = (head.headers.get(header::HOST), head.uri.authority()) {
        let host = HeaderValue::try_from(authority.as_str());
        let host = host.map_err(|e| Error::because(ErrorType::InternalError, "authority", e))?;
        head.insert_header(header::HOST, host)?;
    }
    let target = head.uri.path_and_query().cloned().unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    head.set_uri(http::Uri::from(target));
    head.set_version(Version::HTTP_11);
    if length > 0 || matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
        head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(length))?;
    } else {
        head.remove_header(&header::CONTENT_LENGTH);
    }
    prepare(&mut head, context, route)?;
    Ok(head)
}

/// Tells a backend which attempt this is.
pub(crate) const X_ATTEMPTS: HeaderName = HeaderName::from_static("x-attempts");

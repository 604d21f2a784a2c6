//! Whether an answer may be kept, and on what terms (RFC 9111 §3).

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::{
    directives::{RequestDirectives, ResponseDirectives, Scope},
    freshness::{Answer, Basis, Times, initial_age, lifetime},
    policy::{CookieRule, Policy, SetCookieRule},
    refusal::Refusal,
    tags,
    targeted::{self, TOLLGATE_CACHE_CONTROL},
    vary,
};
use crate::message::hop_by_hop::nominated;

/// An answer, and what it is the answer to.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The method of the request.
    pub method: &'a Method,
    /// The fields of the request, as the client sent them.
    pub request: &'a HeaderMap,
    /// The request has a query.
    pub has_query: bool,
    /// The key holds an identity, or the request's `Authorization`: nobody else is given the entry.
    pub one_client: bool,
    /// The status of the answer.
    pub status: StatusCode,
    /// The fields of the answer, as the backend sent them.
    pub response: &'a HeaderMap,
    /// When it was asked for, and came.
    pub times: Times,
}

/// On what terms an answer is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// It is fresh while it is not older than this.
    pub lifetime: Duration,
    /// What the lifetime was taken from.
    pub basis: Basis,
    /// How old it was when it came.
    pub initial_age: Duration,
    /// Never without asking the backend (`no-cache`).
    pub always_validate: bool,
    /// Beyond its lifetime it may be given while a new one is fetched, for so long.
    pub stale_while_revalidate: Duration,
    /// Beyond its lifetime it may be given in place of a 500, 502, 503 or 504, for so long.
    pub stale_if_error: Duration,
    /// Beyond its lifetime it may be given while no backend can be reached, for so long.
    pub stale_if_unreachable: Duration,
    /// Beyond its lifetime it must not be given without asking, whatever the client says.
    pub forbids_stale: bool,
}

/// The statuses that this cache understands (RFC 9111 §3): what they ask of caches is done here.
const UNDERSTOOD: [u16; 17] = [200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 403, 404, 405, 410, 414, 451, 501];

/// The terms on which an answer may be kept, decided by its head alone.
///
/// # Errors
/// Why it must not be.
pub fn terms(candidate: &Candidate<'_>, policy: &Policy) -> Result<Terms, Refusal> {
    let said = targeted::read(candidate.response);
    status(candidate)?;
    if policy.client_directives && RequestDirectives::of(candidate.request).no_store {
        return Err(Refusal::RequestNoStore);
    }
    let answer = Answer {
        status: candidate.status,
        headers: candidate.response,
        directives: &said,
        answered: candidate.times.answered.unix,
        has_query: candidate.has_query,
    };
    let (lifetime, basis) = lifetime(&answer, policy);
    directives(candidate, &said, basis)?;
    credentials(candidate, &said, policy, basis)?;
    vary::check(candidate.request, candidate.response)?;
    tags::check(candidate.response)?;
    if content_length(candidate.response).is_some_and(|length| length > policy.max_object as u64) {
        return Err(Refusal::TooLarge);
    }
    let initial_age = initial_age(candidate.response, &candidate.times);
    // What the operator says holds from when it came: how old a backend says that it is does not count.
    let initial_age = if basis == Basis::Override { Duration::ZERO } else { initial_age };
    let terms = Terms::new(&said, policy, (lifetime, basis), initial_age);
    useful(&terms, &said, candidate)?;
    Ok(terms)
}

fn status(candidate: &Candidate<'_>) -> Result<(), Refusal> {
    if candidate.method != Method::GET {
        return Err(Refusal::Method);
    }
    match candidate.status.as_u16() {
        206 => Err(Refusal::Partial),
        304 => Err(Refusal::Status),
        200..=599 => Ok(()),
        _ => Err(Refusal::Status),
    }
}

fn directives(candidate: &Candidate<'_>, said: &ResponseDirectives, basis: Basis) -> Result<(), Refusal> {
    let overridden = basis == Basis::Override;
    if said.must_understand && !overridden {
        // Then `no-store` is for caches that do not know `must-understand` (RFC 9111 §5.2.2.3).
        if !UNDERSTOOD.contains(&candidate.status.as_u16()) {
            return Err(Refusal::NotUnderstood);
        }
    } else if said.no_store && !overridden {
        return Err(Refusal::NoStore);
    }
    // Against `private`, the operator's word holds only where nobody else is given the answer.
    if said.private == Some(Scope::Everything) && !(overridden && candidate.one_client) {
        return Err(Refusal::Private);
    }
    Ok(())
}

fn credentials(
    candidate: &Candidate<'_>,
    said: &ResponseDirectives,
    policy: &Policy,
    basis: Basis,
) -> Result<(), Refusal> {
    let for_all = said.public || said.s_maxage.is_some() || said.must_revalidate;
    if candidate.request.contains_key(header::AUTHORIZATION) && !for_all && !policy.authorized {
        return Err(Refusal::Authorization);
    }
    if candidate.response.contains_key(header::SET_COOKIE)
        && policy.set_cookie == SetCookieRule::Refuse
        && !is_dropped(said, &header::SET_COOKIE)
    {
        return Err(Refusal::SetCookie);
    }
    let cookies_count = policy.cookies == CookieRule::Refuse && !basis.is_said() && basis != Basis::Nothing;
    if cookies_count && candidate.request.contains_key(header::COOKIE) {
        return Err(Refusal::Cookie);
    }
    Ok(())
}

/// Nothing is kept that will never be given to anybody.
fn useful(terms: &Terms, said: &ResponseDirectives, candidate: &Candidate<'_>) -> Result<(), Refusal> {
    if terms.basis == Basis::Nothing && said.no_cache.is_none() {
        return Err(Refusal::NoLifetime);
    }
    let validators = [header::ETAG, header::LAST_MODIFIED];
    let can_be_validated = validators.iter().any(|field| candidate.response.contains_key(field));
    let fresh = terms.initial_age < terms.lifetime && !terms.always_validate;
    let stale = terms.stale_while_revalidate.max(terms.stale_if_error);
    let later = terms.initial_age < terms.lifetime.saturating_add(stale) && !stale.is_zero();
    if fresh || later || can_be_validated { Ok(()) } else { Err(Refusal::Stale) }
}

impl Terms {
    fn new(
        said: &ResponseDirectives,
        policy: &Policy,
        (lifetime, basis): (Duration, Basis),
        initial_age: Duration,
    ) -> Self {
        let overridden = basis == Basis::Override;
        let always_validate = said.no_cache == Some(Scope::Everything) && !overridden;
        let forbids_stale = said.forbids_stale() && !overridden;
        // `s-maxage` forbids it only where nothing is said about it: who says both means both.
        let never = always_validate || ((said.must_revalidate || said.proxy_revalidate) && !overridden);
        let stale = |said: Option<u64>, default: Duration| match said.filter(|_| !overridden) {
            _ if never => Duration::ZERO,
            Some(seconds) => Duration::from_secs(seconds),
            None if forbids_stale => Duration::ZERO,
            None => default,
        };
        let stale_if_error = stale(said.stale_if_error, policy.stale_if_error);
        let unreachable = stale(said.stale_if_error, policy.stale_if_unreachable);
        let allowed = !never && !forbids_stale;
        Self {
            lifetime,
            basis,
            initial_age,
            always_validate,
            stale_while_revalidate: stale(said.stale_while_revalidate, policy.stale_while_revalidate),
            stale_if_error,
            stale_if_unreachable: unreachable.max(if allowed { policy.stale_if_unreachable } else { Duration::ZERO }),
            forbids_stale: forbids_stale || always_validate,
        }
    }
}

/// True when `private` or `no-cache` names the field: it is not kept.
fn is_dropped(said: &ResponseDirectives, field: &HeaderName) -> bool {
    [&said.private, &said.no_cache].into_iter().flatten().any(|scope| match scope {
        Scope::Fields(names) => names.contains(field),
        Scope::Everything => false,
    })
}

/// `Content-Length`, if it is a number.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What is never kept: fields of one connection, of proxies (RFC 9111 §3.1), and what this cache says itself.
fn is_never_kept(field: &HeaderName) -> bool {
    static NEVER: [HeaderName; 12] = [
        header::AGE,
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        HeaderName::from_static("proxy-authentication-info"),
        TOLLGATE_CACHE_CONTROL,
    ];
    NEVER.contains(field)
}

/// The fields of an answer that are kept (RFC 9111 §3.1), in the backend's order.
pub fn kept_fields(response: &HeaderMap, policy: &Policy) -> HeaderMap {
    let said = targeted::read(response);
    let nominated = nominated(response);
    let mut kept = HeaderMap::with_capacity(response.keys_len() + 1);
    for (name, value) in response {
        let cookie = *name == header::SET_COOKIE && policy.set_cookie != SetCookieRule::Keep;
        if !is_never_kept(name) && !nominated.contains(name) && !is_dropped(&said, name) && !cookie {
            kept.append(name, value.clone());
        }
    }
    kept
}

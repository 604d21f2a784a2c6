//! Whether an answer may be kept, and on what terms (RFC 9111 §3).

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::{
    directives::{RequestDirectives, ResponseDirectives, Scope},
    freshness::{Answer, Basis, Times, initial_age, lifetime},
    policy::{CookieRule, Policy, SetCookieRule},
    refusal::Refusal,
    tags,
    targeted::TOLLGATE_CACHE_CONTROL,
    vary,
};
use crate::message::{hop_by_hop::nominated, reserved::ReservedHeaders};

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
    /// Fields that only the gateway tells backends.
    pub reserved: &'a ReservedHeaders,
}

impl Candidate<'_> {
    /// True when the request has credentials of which nothing is in the key: what it is answered may be about these alone.
    pub fn is_personal(&self) -> bool {
        !self.one_client && [header::AUTHORIZATION, header::COOKIE].iter().any(|field| self.request.contains_key(field))
    }
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
    /// The backend says that it is good for a while, or `public`: it is for requests with credentials too. Otherwise it is
    /// neither made of them nor given to them.
    pub for_credentials: bool,
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

/// The terms on which an answer may be kept, decided by its head alone, which says this.
///
/// # Errors
/// Why it must not be.
pub(super) fn terms(candidate: &Candidate<'_>, said: &ResponseDirectives, policy: &Policy) -> Result<Terms, Refusal> {
    status(candidate)?;
    if policy.client_directives && RequestDirectives::of(candidate.request).no_store {
        return Err(Refusal::RequestNoStore);
    }
    let answer = Answer {
        status: candidate.status,
        headers: candidate.response,
        directives: said,
        answered: candidate.times.answered.unix,
        has_query: candidate.has_query,
    };
    let (lifetime, basis) = lifetime(&answer, policy);
    directives(candidate, said, basis)?;
    let for_credentials = said.public || (basis.is_said() && !lifetime.is_zero() && said.no_cache.is_none());
    credentials(candidate, said, policy, for_credentials)?;
    vary::check(candidate.request, candidate.response, candidate.reserved)?;
    tags::check(candidate.response)?;
    if content_length(candidate.response).is_some_and(|length| length > policy.max_object as u64) {
        return Err(Refusal::TooLarge);
    }
    let initial_age = initial_age(candidate.response, &candidate.times);
    // What the operator says holds from when it came: how old a backend says that it is does not count.
    let initial_age = if basis == Basis::Override { Duration::ZERO } else { initial_age };
    let terms = Terms { for_credentials, ..Terms::new(said, policy, (lifetime, basis), initial_age) };
    useful(&terms, said, candidate)?;
    Ok(terms)
}

/// True for a complete answer that has only fields that are kept.
pub fn may_be_kept(status: u16, fields: &HeaderMap, body: u64) -> bool {
    let length = content_length(fields).filter(|_| status != StatusCode::NO_CONTENT.as_u16());
    matches!(status, 200..=205 | 207..=303 | 305..=599)
        && length.is_none_or(|length| length == body)
        && !fields.keys().any(is_never_kept)
}

/// True when such an answer is refused because of the values that this request had in the fields that `Vary` names: the same answer to
/// another request may be kept. (Those with credentials wait for one another alone.)
pub fn is_about_asker(refusal: Refusal, candidate: &Candidate<'_>) -> bool {
    matches!(refusal, Refusal::VaryAny | Refusal::VaryTooLarge)
        && vary::check(&HeaderMap::new(), candidate.response, candidate.reserved).is_ok()
}

/// True when an answer with this status says what the backend has now: an error says nothing of what is stored, nor does it that
/// the request is wrong, or one too many.
pub fn is_news(status: StatusCode) -> bool {
    !matches!(status.as_u16(), 400 | 408 | 413..=417 | 429 | 431 | 500..)
}

/// True when an answer that is refused says that what was stored for the same request is no longer what the backend has: it has to
/// go. What only whoever asks is told, because of credentials or conditions, says nothing of that; nor does it that somebody's
/// credentials are wrong, or lead elsewhere.
pub fn takes_back(refusal: Refusal, candidate: &Candidate<'_>) -> bool {
    let about_credentials = matches!(candidate.status.as_u16(), 300..=399 | 401 | 403 | 407);
    if about_credentials && candidate.is_personal() {
        return false;
    }
    let personal = matches!(refusal, Refusal::RequestNoStore | Refusal::Authorization | Refusal::Cookie);
    let partial = matches!(refusal, Refusal::Method | Refusal::Status | Refusal::Partial | Refusal::Incomplete);
    is_news(candidate.status) && !personal && !partial && !is_about_asker(refusal, candidate)
}

fn status(candidate: &Candidate<'_>) -> Result<(), Refusal> {
    if candidate.method != Method::GET {
        return Err(Refusal::Method);
    }
    match candidate.status.as_u16() {
        // Nobody is answered so without a range or a condition, in whatever spelling (`If_Match`) the backend takes it for one.
        206 | 412 | 416 => Err(Refusal::Partial),
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
    for_credentials: bool,
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
    let cookies_count = policy.cookies == CookieRule::Refuse && !for_credentials;
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
    let fresh = terms.initial_age < terms.lifetime && !terms.always_validate;
    let stale = terms.stale_while_revalidate.max(terms.stale_if_error);
    let later = terms.initial_age < terms.lifetime.saturating_add(stale) && !stale.is_zero();
    let can_be_validated =
        || [header::ETAG, header::LAST_MODIFIED].iter().any(|field| candidate.response.contains_key(field));
    if fresh || later || can_be_validated() { Ok(()) } else { Err(Refusal::Stale) }
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
            for_credentials: false,
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
pub(super) fn kept_fields(response: &HeaderMap, said: &ResponseDirectives, policy: &Policy) -> HeaderMap {
    let nominated = nominated(response);
    let mut kept = HeaderMap::with_capacity(response.keys_len() + 1);
    for (name, value) in response {
        let cookie = *name == header::SET_COOKIE && policy.set_cookie != SetCookieRule::Keep;
        if !is_never_kept(name) && !nominated.contains(name) && !is_dropped(said, name) && !cookie {
            kept.append(name, value.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::{super::test_entry::Made, *};

    #[test]
    fn statuses_and_methods() {
        for status in [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599] {
            assert!(Made::saying("max-age=9").status(status).terms().is_ok(), "{status}");
        }
        for (status, refusal) in [
            (100, Refusal::Status),
            (101, Refusal::Status),
            (103, Refusal::Status),
            (206, Refusal::Partial),
            (412, Refusal::Partial),
            (416, Refusal::Partial),
            (304, Refusal::Status),
            (600, Refusal::Status),
        ] {
            assert_eq!(Made::saying("max-age=9").status(status).terms(), Err(refusal), "{status}");
        }
        for method in [Method::HEAD, Method::POST, Method::OPTIONS] {
            let made = Made { method, ..Made::saying("public, max-age=9") };
            assert_eq!(made.terms(), Err(Refusal::Method));
        }
    }

    #[test]
    fn what_takes_an_answer_back() {
        let taken = |made: Made| takes_back(made.terms().unwrap_err(), &made.candidate());
        for status in [200, 301, 401, 403, 404, 410, 451] {
            for said in ["no-store", "private", "max-age=0", ""] {
                assert!(taken(Made::saying(said).status(status)), "{status} {said}");
            }
        }
        for status in [206, 304, 400, 408, 413, 429, 431, 500, 502, 503, 504] {
            assert!(!taken(Made::saying("no-store").status(status)), "{status}");
        }
        assert!(taken(Made::saying("max-age=9").with("set-cookie", "a=b")));
        assert!(taken(Made::saying("max-age=9").with("content-length", "99999999")));
        assert!(taken(Made::saying("max-age=9").with("vary", "*")));
        assert!(!taken(Made::saying("max-age=9").with("vary", "foo").asked_with("foo", &"x".repeat(99_999))));
        assert!(!taken(Made::saying("max-age=9").asked_with("authorization", "x")));
        assert!(!taken(Made::under("{ttl: 9s}").asked_with("cookie", "x")));
        assert!(!taken(Made::saying("no-store").asked_with("cache-control", "no-store")));
        // That it has a cookie is not why it is refused.
        assert!(taken(Made::saying("no-store").asked_with("cookie", "x")));
    }

    #[test]
    fn what_backends_forbid() {
        for (said, refusal) in [
            ("no-store", Refusal::NoStore),
            ("max-age=9, No-StOrE", Refusal::NoStore),
            ("private, max-age=9", Refusal::Private),
            ("max-age=9, must-understand", Refusal::NotUnderstood),
            ("", Refusal::NoLifetime),
            ("public", Refusal::NoLifetime),
            ("max-age=0", Refusal::Stale),
            ("no-cache", Refusal::Stale),
            ("no-cache, max-age=9", Refusal::Stale),
            ("max-age=-1", Refusal::Stale),
        ] {
            let status = if said.contains("understand") { 599 } else { 200 };
            assert_eq!(Made::saying(said).status(status).terms(), Err(refusal), "{said}");
        }
        assert!(Made::saying("max-age=9, no-store, must-understand").terms().is_ok());
        // What can be validated is worth keeping, if anything at all is said about it.
        for said in ["no-cache", "max-age=0", "no-cache, max-age=9"] {
            assert!(Made::saying(said).with("etag", "\"a\"").terms().is_ok(), "{said}");
            assert!(Made::saying(said).with("last-modified", "@-9").terms().is_ok(), "{said}");
        }
        assert_eq!(Made::saying("").with("etag", "\"a\"").terms(), Err(Refusal::NoLifetime));
        assert_eq!(Made::saying("max-age=9").with("age", "10").terms(), Err(Refusal::Stale));
        assert!(Made::saying("max-age=9, stale-while-revalidate=9").with("age", "10").terms().is_ok());
        assert_eq!(Made::saying("max-age=9").with("content-length", "99999999").terms(), Err(Refusal::TooLarge));
        let cdn = Made::saying("no-store").with("cdn-cache-control", "max-age=9");
        assert!(cdn.terms().is_ok());
        assert_eq!(Made::saying("max-age=9").with("cdn-cache-control", "private").terms(), Err(Refusal::Private));
    }

    #[test]
    fn what_belongs_to_one_client() {
        let authorized = |said: &str| Made::saying(said).asked_with("authorization", "x").terms().err();
        assert_eq!(authorized("max-age=9"), Some(Refusal::Authorization));
        assert_eq!(authorized("max-age=9, proxy-revalidate"), Some(Refusal::Authorization));
        for said in ["max-age=9, public", "s-maxage=9", "max-age=9, must-revalidate"] {
            assert_eq!(authorized(said), None, "{said}");
        }
        let allowed = Made::under("{authorized: true}").with("cache-control", "max-age=9");
        assert!(allowed.asked_with("authorization", "x").terms().is_ok());

        let cookie = |yaml: &str, said: &str| Made::under(yaml).with("cache-control", said).with("set-cookie", "a=b");
        assert_eq!(cookie("{}", "max-age=9, public").terms(), Err(Refusal::SetCookie));
        for (yaml, said, kept) in [
            ("{}", "max-age=9, no-cache=\"set-cookie\"", false),
            ("{}", "max-age=9, private=\"Set-Cookie\"", false),
            ("{set_cookie: strip}", "max-age=9", false),
            ("{set_cookie: keep}", "max-age=9", true),
        ] {
            assert_eq!(cookie(yaml, said).entry().headers.contains_key("set-cookie"), kept, "{yaml} {said}");
        }

        assert_eq!(Made::ttl().asked_with("cookie", "a=b").terms(), Err(Refusal::Cookie));
        for said in ["max-age=9", "no-cache, public", "max-age=0, public"] {
            let made = Made::saying(said).with("etag", "\"a\"").asked_with("cookie", "a=b");
            assert!(made.terms().is_ok_and(|terms| terms.for_credentials), "{said}");
        }
        // Whoever checks for one user whether it is good still may not have looked whose it is.
        for said in ["no-cache", "max-age=0", "no-cache, max-age=9"] {
            let made = Made::saying(said).with("etag", "\"a\"");
            assert!(made.terms().is_ok_and(|terms| !terms.for_credentials), "{said}");
            assert_eq!(made.asked_with("cookie", "a=b").terms(), Err(Refusal::Cookie), "{said}");
        }
        assert!(Made::under("{ttl: 5m, cookies: ignore}").asked_with("cookie", "a=b").terms().is_ok());
    }

    #[test]
    fn what_the_operator_overrides() {
        let over = |said: &str| Made::under("{ttl: 5m, origin: override}").with("cache-control", said);
        for said in ["no-store", "no-cache", "max-age=0, must-revalidate", "s-maxage=1"] {
            let terms = over(said).with("age", "999").terms().unwrap();
            assert_eq!((terms.lifetime.as_secs(), terms.initial_age), (300, Duration::ZERO), "{said}");
            assert!(!terms.always_validate && !terms.forbids_stale, "{said}");
        }
        assert_eq!(over("private").terms(), Err(Refusal::Private));
        assert!(Made { one_client: true, ..over("private") }.terms().is_ok());
        assert_eq!(Made { one_client: true, ..Made::saying("private, max-age=9") }.terms(), Err(Refusal::Private));
        assert_eq!(over("no-store").with("set-cookie", "a=b").terms(), Err(Refusal::SetCookie));
    }

    #[test]
    fn what_clients_forbid() {
        let asked = |yaml: &str| {
            Made::under(yaml).with("cache-control", "max-age=9").asked_with("cache-control", "no-store").terms()
        };
        assert_eq!(asked("{}"), Err(Refusal::RequestNoStore));
        assert!(asked("{client_directives: false}").is_ok());
    }

    #[test]
    fn fields_that_are_kept() {
        let made = Made::saying("max-age=9, private=\"x-one\", no-cache=\"x-two\"");
        let left_out = [
            ("connection", "a, b, keep-alive"),
            ("a", "1"),
            ("b", "2"),
            ("keep-alive", "x"),
            ("proxy-authenticate", "x"),
            ("proxy-authentication-info", "x"),
            ("proxy-authorization", "x"),
            ("proxy-connection", "x"),
            ("te", "x"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "x"),
            ("age", "1"),
            ("x-one", "1"),
            ("x-two", "1"),
            ("tollgate-cache-control", "max-age=9, private=\"x-one\", no-cache=\"x-two\""),
        ];
        let kept = [("c", "3"), ("c", "4"), ("content-md5", "x"), ("cdn-cache-control", "foo"), ("set-cookie2", "a=b")];
        let made = left_out.iter().chain(&kept).fold(made, |made, (name, value)| made.with(name, value));
        let entry = made.entry();
        for (name, _) in left_out {
            assert!(!entry.headers.contains_key(name), "{name}");
        }
        for (name, value) in kept {
            assert!(entry.headers.get_all(name).iter().any(|known| known == value), "{name}");
        }
        assert_eq!(entry.headers["date"], Made::value("@0"));
        assert_eq!(Made::saying("max-age=9").with("date", "@-3").entry().headers["date"], Made::value("@-3"));
    }

    #[test]
    fn a_truncated_answer_is_not_kept() {
        let made = Made::saying("max-age=9").with("content-length", "11");
        assert_eq!(made.try_entry().err(), Some(Refusal::Incomplete));
        assert!(Made::saying("max-age=9").with("content-length", "10").try_entry().is_ok());
        assert_eq!(
            Made { body: vec![0; 99], ..Made::under("{ttl: 1m, max_object: 98}") }.try_entry().err(),
            Some(Refusal::TooLarge)
        );
    }

    proptest! {
        #[test]
        fn no_store_and_private_are_never_kept(more in "[a-z=0-9, \"-]{0,30}", status in 200u16..600) {
            for word in ["no-store", "private"] {
                // What stands before cannot hide it, unless it is in quotes or says that the word is understood.
                let made = Made::saying(&format!("{word}, {more}")).status(status).with("etag", "\"x\"");
                prop_assert!(more.contains("must-understand") || made.terms().is_err(), "{}", more);
            }
        }

        #[test]
        fn ages_and_lifetimes_never_underflow(said in "(max-age|s-maxage|stale-if-error)=[0-9]{0,12}", age in "[0-9]{0,12}", date in -9_999_999_999i64..9_999_999_999, at in 0u64..u64::MAX / 2_000_000) {
            let made = Made::saying(&said).with("age", &age).with("date", &format!("@{date}")).with("etag", "\"x\"");
            if let Ok(entry) = made.try_entry() {
                let now = crate::clock::Now { since_start: Duration::from_secs(at), unix: at };
                prop_assert!(entry.age(now) >= entry.terms.initial_age);
                prop_assert!(entry.stale_for(now).is_none() == (entry.fresh_for(now) > Duration::ZERO));
            }
        }
    }
}

//! What an answer without a body says about a stored one: a 304 to our own condition (RFC 9111 §4.3.4), or the answer to a
//! HEAD (§4.3.5).

use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::{
    conditional::weakly_same,
    date,
    draft::Draft,
    entry::Entry,
    policy::{Policy, SetCookieRule},
    refusal::Refusal,
    storable::{Candidate, content_length},
    targeted::TOLLGATE_CACHE_CONTROL,
};
use crate::message::fields::single;

/// What becomes of the entry.
#[derive(Debug)]
pub enum Refreshed {
    /// This one takes its place, with the same body.
    Updated(Box<Entry>),
    /// It may be given to this request, and no longer be kept.
    Gone(Refusal),
    /// It is not what the backend has now: it must not be given, and goes.
    Other,
    /// Nothing is said about it.
    Untouched,
}

/// What a 304 says about the entry that the backend was asked about.
pub fn by_304(entry: &Entry, news: &Candidate<'_>, policy: &Policy) -> Refreshed {
    if news.status != StatusCode::NOT_MODIFIED {
        return Refreshed::Untouched;
    }
    // It was asked about this entry alone: whatever tag the answer has, it is about this one, which keeps its own.
    merge(entry, news, policy)
}

/// What the answer to a HEAD says about the entry of the same request as a GET.
pub fn by_head(entry: &Entry, news: &Candidate<'_>, policy: &Policy) -> Refreshed {
    if news.status != StatusCode::OK || entry.status != StatusCode::OK {
        return Refreshed::Untouched;
    }
    let length = content_length(news.response);
    if !is_about(entry, news.response) || length.is_some_and(|length| length != entry.body.len() as u64) {
        return Refreshed::Other;
    }
    // Without a validator, nothing says that the body has not changed.
    let validators = [header::ETAG, header::LAST_MODIFIED];
    if validators.iter().any(|field| news.response.contains_key(field)) {
        merge(entry, news, policy)
    } else {
        Refreshed::Untouched
    }
}

/// True when no validator that both have differs.
fn is_about(entry: &Entry, response: &HeaderMap) -> bool {
    let both = |field: HeaderName| Some((single(&entry.headers, &field)?, single(response, &field)?));
    if let Some((stored, new)) = both(header::ETAG) {
        return weakly_same(stored.as_bytes(), new.as_bytes());
    }
    both(header::LAST_MODIFIED).is_none_or(|(stored, new)| stored == new)
}

/// Fields that say how long an answer is good.
static OF_FRESHNESS: [HeaderName; 6] = [
    header::DATE,
    header::AGE,
    header::EXPIRES,
    header::CACHE_CONTROL,
    HeaderName::from_static("cdn-cache-control"),
    TOLLGATE_CACHE_CONTROL,
];

/// Fields that say what the stored body is, and do not change with it (RFC 9111 §3.2).
static OF_THE_BODY: [HeaderName; 4] =
    [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE, HeaderName::from_static("content-md5")];

fn merge(entry: &Entry, news: &Candidate<'_>, policy: &Policy) -> Refreshed {
    let mut fields = entry.headers.clone();
    // When it was made is said anew, and be it by our own clock.
    fields.insert(header::DATE, date::format(news.times.answered.unix));
    // Of an answer to one client's credentials, only how long it is good is for the others too.
    let personal = news.is_personal();
    let mut last = None;
    for (name, value) in news.response.iter().filter(|(name, _)| !personal || OF_FRESHNESS.contains(name)) {
        let cookie = *name == header::SET_COOKIE && policy.set_cookie != SetCookieRule::Keep;
        let tagged = *name == header::ETAG && entry.headers.contains_key(header::ETAG);
        if OF_THE_BODY.contains(name) || cookie || tagged {
            continue;
        }
        // The lines of one field come one after another, and take the place of all that were there.
        if last == Some(name) {
            fields.append(name, value.clone());
        } else {
            fields.insert(name, value.clone());
        }
        last = Some(name);
    }
    // Whose request it was by which this was found out says nothing about whom the body is for.
    let mut request = news.request.clone();
    request.remove(header::AUTHORIZATION);
    request.remove(header::COOKIE);
    let candidate =
        Candidate { method: &Method::GET, request: &request, status: entry.status, response: &fields, ..*news };
    let made = Draft::selected_by(&candidate, news.request, policy);
    match made.and_then(|draft| draft.with(entry.body.clone())) {
        Ok(entry) => Refreshed::Updated(Box::new(entry)),
        // What the client forbids to keep is what it was told; the entry was there before.
        Err(Refusal::RequestNoStore) => Refreshed::Untouched,
        Err(refusal) => Refreshed::Gone(refusal),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use super::{
        super::{freshness::Times, test_entry::Made},
        *,
    };

    /// 100 seconds after the entry was stored, this came.
    fn news(made: &Made) -> Candidate<'_> {
        let times = Times { asked: Made::later(100), answered: Made::later(100) };
        Candidate { times, ..made.candidate() }
    }

    fn stored() -> Made {
        Made::saying("max-age=9").with("etag", "\"a\"").with("x", "1").with("x", "2").with("y", "1").with("date", "@0")
    }

    #[test]
    fn a_304_makes_it_fresh_and_updates_its_fields() {
        let entry = stored().with("content-type", "text/plain").with("content-length", "10").entry();
        let answer = Made::saying("max-age=60").status(304).with("x", "3").with("x", "4").with("z", "5");
        let answer = answer.with("content-length", "0").with("content-encoding", "gzip").with("connection", "z");
        let answer = answer.with("set-cookie", "a=b").with("keep-alive", "x");
        let Refreshed::Updated(new) = by_304(&entry, &news(&answer), &answer.policy) else { panic!("not updated") };
        assert_eq!(new.terms.lifetime, Duration::from_secs(60));
        assert_eq!((new.age(Made::later(103)).as_secs(), new.stale_for(Made::later(103))), (3, None));
        let lines = |name: &str| new.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((lines("x"), lines("y"), lines("content-length")), (vec!["3", "4"], vec!["1"], vec!["10"]));
        for absent in ["z", "content-encoding", "connection", "set-cookie", "keep-alive"] {
            assert!(!new.headers.contains_key(absent), "{absent}");
        }
        assert_eq!(new.headers["date"], Made::value("@100"));
        assert_eq!(new.headers["content-type"], "text/plain");
        assert_eq!(new.body.parts().concat(), b"0123456789");
    }

    #[test]
    fn what_a_304_says() {
        let entry = stored().entry();
        let said = |made: Made| by_304(&entry, &news(&made), &made.policy);
        let not_modified = |said: &str| Made::saying(said).status(304);
        assert!(matches!(said(not_modified("").with("etag", "W/\"a\"")), Refreshed::Updated(_)));
        let Refreshed::Updated(other) = said(not_modified("").with("etag", "\"b\"")) else { panic!("it is good") };
        assert_eq!(other.headers["etag"], entry.headers["etag"]);
        assert!(matches!(said(not_modified("no-store")), Refreshed::Gone(Refusal::NoStore)));
        assert!(matches!(said(not_modified("private")), Refreshed::Gone(Refusal::Private)));
        assert!(matches!(said(not_modified("").asked_with("cache-control", "no-store")), Refreshed::Untouched));
        // The answer is not about whoever asked.
        let asked = not_modified("").asked_with("authorization", "x").asked_with("cookie", "a=b");
        assert!(matches!(said(asked), Refreshed::Updated(_)));
        // A date that was not said anew is that of now, or nothing would ever be fresh again.
        let Refreshed::Updated(new) = said(not_modified("")) else { panic!("not updated") };
        assert_eq!(new.terms.initial_age, Duration::ZERO);
        // An age that is said counts.
        let Refreshed::Updated(new) = said(not_modified("").with("age", "5")) else { panic!("not updated") };
        assert_eq!(new.terms.initial_age.as_secs(), 5);
        assert!(matches!(said(not_modified("").status(200)), Refreshed::Untouched));
    }

    #[test]
    fn what_the_answer_to_a_head_says() {
        let entry = stored().with("last-modified", "@-50").entry();
        let said = |made: Made| by_head(&entry, &news(&made), &made.policy);
        let head = || Made::saying("max-age=60");
        assert!(matches!(said(head().with("etag", "\"a\"")), Refreshed::Updated(_)));
        assert!(matches!(
            said(head().with("last-modified", "@-50").with("content-length", "10")),
            Refreshed::Updated(_)
        ));
        assert!(matches!(said(head().with("etag", "\"b\"")), Refreshed::Other));
        assert!(matches!(said(head().with("last-modified", "@-5")), Refreshed::Other));
        assert!(matches!(said(head().with("etag", "\"a\"").with("content-length", "11")), Refreshed::Other));
        assert!(matches!(said(head()), Refreshed::Untouched));
        assert!(matches!(said(head().status(410)), Refreshed::Untouched));
    }
}

//! What the cache of a route would do with a test's request, and with the answer that the test names.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora::http::RequestHeader;

use super::test_config::AnswerConfig;
use crate::{
    auth::Identities,
    cache::{
        shared::CachePlan,
        trial::{Trial, Verdict},
    },
    clock::Now,
    message::reserved::ReservedHeaders,
};

/// The head of an answer.
///
/// # Errors
/// What is wrong with it.
pub(super) fn head(answer: &AnswerConfig) -> Result<(StatusCode, HeaderMap), String> {
    let status = StatusCode::from_u16(answer.status);
    let status = status.map_err(|_| format!("'{}' is not a status from 100 to 999", answer.status))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &answer.headers {
        match (name.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => drop(headers.append(name, value)),
            _ => return Err(format!("'{name}' is not a header name with a value that headers can carry")),
        }
    }
    Ok((status, headers))
}

/// What would come of them.
pub(super) fn verdict(
    plan: &CachePlan,
    request: &RequestHeader,
    identities: &Identities,
    reserved: &ReservedHeaders,
    answer: &AnswerConfig,
    now: Now,
) -> Option<Verdict> {
    let (status, response) = head(answer).ok()?;
    let policy = &plan.policy;
    let authorized = policy.authorized && request.headers.contains_key(header::AUTHORIZATION);
    let trial = Trial {
        method: &request.method,
        request: &request.headers,
        query: request.uri.query(),
        one_client: !policy.shared
            && (identities.iter().next().is_some() || identities.unnamed().is_some() || authorized),
        status,
        response: &response,
        body: answer.body.as_bytes(),
        reserved,
    };
    Some(trial.under(policy, now))
}

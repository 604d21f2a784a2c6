//! Trailers of requests: looked at for what must not be in them. They go nowhere.

use h2::RecvStream;
use pingora::{Error, ErrorType, OrErr as _, Result};

use crate::{downstream::ConnectionInfo, message::request_head::is_no_trailer};

const MISPLACED: &str = "there is a field in the trailers that does not belong there";

/// To be called at the end of a body, when nothing is left to wait for.
///
/// # Errors
/// A field frames or describes the message, and came too late for that (RFC 9110 §6.5.1): the request is malformed.
pub(super) async fn check(body: &mut RecvStream, info: &ConnectionInfo) -> Result<()> {
    let trailers = body.trailers().await.or_err(ErrorType::ReadError, "while reading a request's trailers")?;
    if trailers.is_some_and(|fields| fields.keys().any(|name| is_no_trailer(name.as_str().as_bytes()))) {
        info.misread(MISPLACED);
        return Error::e_explain(ErrorType::ReadError, MISPLACED);
    }
    Ok(())
}

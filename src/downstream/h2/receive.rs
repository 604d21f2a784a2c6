//! What comes of a request's body, and after it. Trailers are looked at for what must not be in them; they go nowhere.

use bytes::Bytes;
use h2::{Reason, RecvStream};
use pingora::{Error, ErrorType, OrErr as _, Result};

use crate::{downstream::connection::ConnectionInfo, message::request_head::is_no_trailer};

/// What is wrong with a body that its `Content-Length` does not fit (RFC 9113 §8.1.1).
pub(super) const LENGTH: &str = "the body is not as long as its Content-Length says";

const MISPLACED: &str = "there is a field in the trailers that does not belong there";

/// What the next frame brings.
pub(super) async fn receive(body: &mut RecvStream, info: &ConnectionInfo) -> Result<Option<Bytes>> {
    let data = body.data().await.transpose();
    if data.as_ref().is_err_and(|e| e.is_library() && e.reason() == Some(Reason::PROTOCOL_ERROR)) {
        info.misread(LENGTH);
    }
    let data = data.or_err(ErrorType::ReadError, "while reading a request's body")?;
    if data.is_none() {
        // Nothing is left to wait for: this is not dropped in the middle.
        check_trailers(body, info).await?;
    }
    Ok(data)
}

/// A field that frames or describes the message came too late for that (RFC 9110 §6.5.1): the request is malformed.
async fn check_trailers(body: &mut RecvStream, info: &ConnectionInfo) -> Result<()> {
    let trailers = body.trailers().await.or_err(ErrorType::ReadError, "while reading a request's trailers")?;
    if trailers.is_some_and(|fields| fields.keys().any(|name| is_no_trailer(name.as_str().as_bytes()))) {
        info.misread(MISPLACED);
        return Error::e_explain(ErrorType::ReadError, MISPLACED);
    }
    Ok(())
}

//! Replies as answers of axum's handlers.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

use crate::message::reply::{Reply, ReplyBody};

/// A reply that a handler may return.
pub(super) struct Answer(pub(super) Reply);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let (media, body) = match self.0.body {
            ReplyBody::Empty => (None, Bytes::new()),
            ReplyBody::Bytes(media, bytes) => (Some(media), bytes),
            ReplyBody::Problem { detail, .. } => {
                let status = self.0.status;
                let title = status.canonical_reason().unwrap_or("Error");
                let value = serde_json::json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
                (Some(HeaderValue::from_static("application/problem+json")), value.to_string().into())
            }
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.0.status;
        response.headers_mut().extend(media.map(|media| (header::CONTENT_TYPE, media)));
        response
    }
}

/// A reply of JSON, with an end of line for people at a terminal.
pub(super) fn json_reply(status: StatusCode, value: &Value) -> Reply {
    let mut text = value.to_string();
    text.push('\n');
    let body = ReplyBody::Bytes(HeaderValue::from_static("application/json"), Bytes::from(text));
    Reply { body, ..Reply::empty(status) }
}

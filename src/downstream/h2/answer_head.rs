//! The head of an answer as HTTP/2 has it.

use http::header;
use pingora::{Result, http::ResponseHeader, protocols::http::date::get_cached_date};

use crate::message::{fields, hop_by_hop::NOT_IN_HTTP2};

/// Takes out what belongs to a connection of HTTP/1 (RFC 9113 §8.2.2); a final one says when it was made.
pub(super) fn translate(head: &mut ResponseHeader) -> Result<()> {
    let present = fields::present(&head.headers, &NOT_IN_HTTP2);
    for (name, _) in NOT_IN_HTTP2.iter().zip(present).filter(|(_, there)| *there) {
        head.remove_header(name);
    }
    // The origin's own is kept (RFC 9110 §6.6.1).
    if !head.status.is_informational() && !head.headers.contains_key(header::DATE) {
        head.insert_header(header::DATE, get_cached_date())?;
    }
    Ok(())
}

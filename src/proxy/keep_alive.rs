//! Whether the client's connection serves on after a request: Pingora's session of HTTP/1 has that to itself, ours
//! (`downstream/h1`) asks what is known of the connection. Streams of HTTP/2 have nothing to do with it.

use pingora::proxy::Session;

use crate::downstream::ConnectionInfo;

/// The connection ends after this answer.
pub(super) fn end(session: &mut Session) {
    session.set_keepalive(None);
    if let Some(info) = ConnectionInfo::of(session) {
        info.close_after_this();
    }
}

/// The connection serves on, if nothing happens to the contrary; it may be silent for so many seconds.
pub(super) fn serve_on(session: &mut Session, silence: u64) {
    if session.get_keepalive().is_some() {
        session.set_keepalive(Some(silence));
    }
}

/// True when the connection, one of HTTP/1, serves on.
pub(super) fn serves_on(session: &Session) -> bool {
    if session.as_downstream().is_custom() {
        ConnectionInfo::of(session).is_some_and(|info| !info.is_multiplexed() && !info.closes())
    } else {
        session.get_keepalive().is_some()
    }
}

/// Whether it ends after an answer that begins before the request has been read.
pub(super) fn end_if_unread(session: &mut Session, ends: bool) {
    session.as_downstream_mut().set_close_on_response_before_downstream_finish(ends);
    if let Some(info) = ConnectionInfo::of(session) {
        info.close_if_unread(ends);
    }
}

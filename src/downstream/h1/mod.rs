//! HTTP/1 towards clients. Pingora has a session for it, too, and reads and validates each head a second time, keeps the case
//! of every name beside it, and copies each body once more. This one takes the head that has been read strictly
//! (`head_reader.rs`) and writes an answer at once. It stands on the seam that Pingora has for protocols of others
//! (`protocols::http::custom`), as `h2` does; requests for an upgrade keep Pingora's session, which knows tunnels.

pub(crate) mod head;
pub(crate) mod outgoing;
mod request_body;
mod session;
pub(super) mod stream_session;

pub(super) use self::stream_session::Http1Session;

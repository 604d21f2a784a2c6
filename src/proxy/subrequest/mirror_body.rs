//! The body of a request that is being copied for another service.

use bytes::BytesMut;

/// The body of a request that is being copied.
#[derive(Debug, Default)]
pub(crate) enum MirrorBody {
    /// Not yet decided, or it is not copied.
    #[default]
    Not,
    /// What has come so far.
    Collecting(BytesMut),
    /// It was sent, or is too large.
    Done,
}

impl MirrorBody {
    /// The body comes once more, for another attempt.
    pub(crate) fn begin_again(&mut self) {
        if let Self::Collecting(collected) = self {
            collected.clear();
        }
    }
}

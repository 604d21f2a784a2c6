//! What a sticky cookie calls a backend.

use std::fmt;

/// What a cookie calls a backend.
pub(crate) struct Token(pub(super) String);

// Another one in every process: it is no setting.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

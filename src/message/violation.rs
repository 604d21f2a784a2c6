//! What is wrong with a message.

/// Why a message is refused, in words for whoever sent it.
pub(crate) type Violation = &'static str;

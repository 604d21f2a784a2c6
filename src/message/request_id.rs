//! The name of a request.

use std::{fmt, sync::Arc};

/// The name of a request in logs, problems and headers.
#[derive(Debug, Clone)]
pub enum RequestId {
    /// Made here; written out only when somebody asks.
    Own(u128),
    /// The client's, checked by the `request_id` filter.
    Given(Arc<str>),
}

impl RequestId {
    /// A new one. Random, not secret: it names, it does not protect.
    pub fn fresh() -> Self {
        Self::Own(fastrand::u128(..))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(number) => write!(f, "{number:032x}"),
            Self::Given(text) => f.write_str(text),
        }
    }
}

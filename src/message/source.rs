//! Who made the status that the client saw.

/// Who made the status that the client saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResponseSource {
    /// Nobody: the client went away first.
    #[default]
    Nobody,
    /// The backend.
    Upstream,
    /// The gateway itself: no route, no backend, a redirect.
    Gateway,
    /// The cache, without asking a backend.
    Cache,
    /// A step of the chain.
    Filter(&'static str),
}

impl ResponseSource {
    /// The step of the chain, when it was one.
    pub fn filter(self) -> Option<&'static str> {
        match self {
            Self::Filter(name) => Some(name),
            Self::Nobody | Self::Upstream | Self::Gateway | Self::Cache => None,
        }
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Nobody => "client",
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
            Self::Cache => "cache",
            Self::Filter(name) => name,
        }
    }
}

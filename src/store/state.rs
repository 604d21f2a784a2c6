//! How the store is, in a word.

/// How the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreState {
    /// No attempt to reach it has ended yet.
    Connecting,
    /// It answers.
    Up,
    /// It does not, and nobody asks.
    Down,
}

impl StoreState {
    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

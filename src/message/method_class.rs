//! Methods as a closed set, for labels and tables.

/// Methods as a label: the known ones, everything else as `OTHER`, so that a client cannot invent label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodClass(usize);

const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "OTHER"];

impl MethodClass {
    /// How many there are.
    pub const COUNT: usize = METHODS.len();

    /// The class of `method`.
    pub fn of(method: &str) -> Self {
        Self(METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1))
    }

    /// The label value.
    pub fn label(self) -> &'static str {
        METHODS[self.0]
    }

    /// Its place among all of them.
    pub fn index(self) -> usize {
        self.0
    }
}

//! Why a node could not be typed, and which one.

use std::fmt;

use serde::de;

use super::{Location, Node};
use crate::units::suggest::unknown;

/// Why a node could not be typed.
#[derive(Debug)]
pub(crate) struct ReadError {
    pub(crate) message: String,
    /// The node to set aside.
    pub(crate) culprit: Option<Node>,
    /// Where to point, when not at the culprit itself.
    pub(crate) place: Option<Location>,
    /// Follows from a mistake that has been reported.
    pub(crate) consequence: bool,
    pub(super) missing: Option<&'static str>,
}

impl ReadError {
    pub(super) fn at(mut self, node: &Node) -> Self {
        self.culprit.get_or_insert_with(|| node.clone());
        self
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), culprit: None, place: None, consequence: false, missing: None }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(unknown("unknown key", field, expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(unknown("unknown value", variant, expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { missing: Some(field), ..Self::custom(format!("key '{field}' is missing")) }
    }
}

//! TODO-DOC

pub(crate) mod resilience;
pub(crate) mod service;
pub(crate) mod validate;

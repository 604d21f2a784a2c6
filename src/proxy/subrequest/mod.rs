//! TODO-DOC

pub(crate) mod hedge;
pub(crate) mod mirror;

//! TODO-DOC

pub(crate) mod hedge;
pub(crate) mod mirror;
pub(crate) mod mirror_body;

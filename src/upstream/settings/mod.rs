//! `services:` of the configuration: one file for each block of settings.

pub(crate) mod resilience;
pub(crate) mod service;
pub(crate) mod sign;
pub(crate) mod validate;

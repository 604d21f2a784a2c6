//! The cache on the way of a request: looked at after the chain (`look.rs`), filled and corrected by answers of backends
//! (`arrival.rs`), and given to clients (`serve.rs`), to those who wait while it comes (`follow.rs`). What may be kept and for whom is `cache/`'s.

pub(super) mod arrival;
pub(super) mod follow;
mod identity;
mod instead;
mod keep;
pub(super) mod look;
mod refetch;
pub(super) mod request;
pub(super) mod serve;

//! Values that every other room speaks in.
//!
//! Nothing here knows HTTP, Pingora or a clock.

mod cidr;
mod counted;
mod file;
mod file_ref;
mod fingerprint;
mod measure;
mod permit;
mod problem;
mod secret;
mod sha256;
mod share;
mod statuses;
pub(crate) mod suggest;
mod task;

pub use cidr::Cidr;
pub(crate) use counted::counted;
pub use file::{read_file, read_text};
pub use file_ref::FileRef;
pub(crate) use fingerprint::fingerprint;
pub use measure::{Rate, Size, Span};
pub(crate) use permit::{CountPermit, Counter};
pub use problem::{Problem, Problems};
pub use secret::{Secret, SecretRef, private};
pub use sha256::{Sha256, sha256};
pub use share::Share;
pub use statuses::Statuses;
pub use suggest::nearest;
pub(crate) use task::OwnedTask;

//! Values that every other room speaks in.
//!
//! Nothing here knows HTTP, Pingora or a clock.

mod cidr;
mod file;
mod measure;
mod permit;
mod problem;
mod secret;
mod share;
pub(crate) mod suggest;

pub use cidr::Cidr;
pub use file::{read_file, read_text};
pub use measure::{Rate, Size, Span};
pub(crate) use permit::{CountPermit, Counter};
pub use problem::{Problem, Problems};
pub use secret::{Secret, SecretRef, private};
pub use share::Share;
pub use suggest::nearest;

//! The tree that YAML becomes before it is typed: every node knows its line, its column and its key path, so that
//! whoever finds a mistake, at whatever depth and however late, can say where it is.
//!
//! `text -> parse -> Node -> read::<T>`: serde's derive does the typing, but stops at its first error; [`read`]
//! reports that error, sets the offending node aside and reads again, until nothing is wrong or nothing is left.

mod de;
mod hint;
pub(crate) mod node;
mod parse;
mod read;
mod read_error;
pub(crate) mod set_aside;
mod short;
mod spanned;

pub(crate) use self::node::{Location, Node, Value};
pub(crate) use self::short::{FromShort, Short};
pub(crate) use self::spanned::Spanned;
pub(crate) use self::{
    parse::{UNSET, parse},
    read::read,
};

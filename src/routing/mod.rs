//! Where a request goes, and what happens on the way: routes, the router that finds one, what it does to the path, and the
//! decision that hooks and the configuration's own `tests:` both ask for. No connection is needed for any of it.

pub(crate) mod action;
pub(crate) mod decide;
#[cfg(any(test, fuzzing))]
pub(crate) mod decoders;
pub(crate) mod destination;
pub(crate) mod metrics;
pub(crate) mod pattern;
pub(crate) mod readings;
pub(crate) mod route;
pub(crate) mod router;
pub(crate) mod shadow;
pub(crate) mod template;

pub use self::{
    decide::{Decision, decide},
    router::{ListenerSet, Matcher, RouteInput, Router},
};

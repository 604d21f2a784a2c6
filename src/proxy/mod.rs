//! Floor 6: the thin layer between Pingora and everything else.
//!
//! `gateway.rs` holds the hooks, each a delegation of a few lines; the other rooms hold one idea each.

pub(crate) mod access;
pub(crate) mod action;
pub(crate) mod arrival;
pub(crate) mod attempt;
pub(crate) mod context;
pub(crate) mod decide;
#[cfg(any(test, fuzzing))]
pub(crate) mod decoders;
pub(crate) mod door;
pub(crate) mod exchange;
pub(crate) mod failure;
pub(crate) mod finish;
pub(crate) mod forward;
#[cfg(fuzzing)]
pub mod fuzzing;
pub(crate) mod gateway;
pub(crate) mod head;
pub(crate) mod hedge;
pub(crate) mod incoming;
pub(crate) mod mirror;
pub(crate) mod outgoing;
pub(crate) mod pace;
pub(crate) mod pattern;
pub(crate) mod readings;
pub(crate) mod respond;
pub(crate) mod route;
pub(crate) mod router;
pub(crate) mod runtime;
pub(crate) mod service;
pub(crate) mod shadow;
pub(crate) mod tls;
pub(crate) mod waiting;

pub use crate::message::forwarded::{Origin, TrustedProxies};
pub use crate::message::path::{PathError, normalise};
pub use crate::message::reserved::ReservedHeaders;
pub use crate::message::source::Author;
pub use access::{AccessConfig, AccessFormat};
pub use action::{Action, RedirectConfig, RespondConfig, Rewrite};
pub use decide::{Decision, decide};
pub use door::{Door, Link, Listener, ListenerConfig};
pub use forward::{CanaryConfig, Forward, ForwardKeys, Known, Mirror, MirrorConfig, SplitConfig, Target};
pub use gateway::Gateway;
pub use head::{HeadLimits, check_head};
pub use pattern::PathPattern;
pub use readings::{EncodedSlashes, PathsConfig};
pub use route::{Matches, Route, RouteConfig};
pub use router::{ListenerSet, Matcher, Pick, Router, Subject};
pub use runtime::{Page, Runtime, Shared};
pub use service::{
    AdaptiveConfig, AllUnhealthy, Backend, BackendScheme, BackendUrl, BackoffConfig, Balance, BreakerConfig,
    BudgetConfig, Choice, Chosen, DiscoveryConfig, Dns, EjectionConfig, Gate, GateConfig, HashBy, HealthCheckConfig,
    HedgeAfter, HedgeConfig, InFlightConfig, Leave, NoBackend, Outcome, Pass, Place, RetryConfig, Service,
    ServiceConfig, StickyConfig, Timeouts, Trouble, UpstreamTls,
};
pub use shadow::Shadows;
pub use tls::{Alpn, CertificateConfig, Certificates, MtlsConfig, MtlsMode, TlsConfig, TlsFront, TlsVersion};

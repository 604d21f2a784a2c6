//! Floor 6: the thin layer between Pingora and everything else.
//!
//! `gateway.rs` holds the hooks, each a delegation of a few lines; the other rooms hold one idea each.

mod access;
mod action;
mod arrival;
mod attempt;
mod byte_class;
mod client;
mod context;
mod decide;
#[cfg(any(test, fuzzing))]
mod decoders;
mod door;
mod exchange;
mod failure;
mod finish;
mod forward;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gateway;
mod grpc;
mod head;
mod hedge;
mod hops;
mod incoming;
mod list;
mod mirror;
mod outgoing;
mod pace;
mod path;
mod pattern;
mod readings;
mod reserved;
mod respond;
mod route;
mod router;
mod runtime;
mod service;
mod shadow;
mod strict;
mod target;
mod tls;

pub use access::{AccessConfig, AccessFormat};
pub use action::{Action, RedirectConfig, RespondConfig, Rewrite};
pub use client::{Origin, TrustedProxies};
pub use context::Author;
pub use decide::{Decision, decide};
pub use door::{Door, Link, Listener, ListenerConfig};
pub use forward::{CanaryConfig, Forward, ForwardKeys, Known, Mirror, MirrorConfig, SplitConfig, Target};
pub use gateway::Gateway;
pub use head::{HeadLimits, check_head};
pub use path::{PathError, normalise};
pub use pattern::PathPattern;
pub use readings::{EncodedSlashes, PathsConfig};
pub use reserved::ReservedHeaders;
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

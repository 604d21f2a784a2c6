//! Choosing among backends, a file for each way. What stands in the list below is compiled and may be named in YAML: a new
//! way is its file and one line.
//!
//! Round robin, random and ketama hashing are Pingora's; it has neither least-connections nor a choice by latency. Its
//! balancer keeps a list of backends of its own, which must be told of changes.

mod chance;
pub(crate) mod pingora;

use std::{fmt, sync::Arc};

use pingora_load_balancing::Backends;
use schemars::JsonSchema;
use serde::Deserialize;

use self::pingora::Bookkeeping;
use super::{backend::Backend, backend_list::BackendList, choice::Choice};

/// Which backends may be chosen.
pub(crate) type Accept<'a> = dyn Fn(&Backend) -> bool + 'a;

/// A way of choosing the backend of the next attempt.
pub(crate) trait Balancer: Send + Sync {
    /// Pingora's side of it, where Pingora chooses.
    fn books(&self) -> Option<&dyn Bookkeeping> {
        None
    }

    /// True when it decides by latency.
    fn wants_latency(&self) -> bool {
        false
    }

    /// The next backend of `all`, among those that `accept` takes.
    fn choose(&self, all: &BackendList, choice: &Choice<'_>, accept: &Accept<'_>) -> Option<Arc<Backend>>;
}

impl fmt::Debug for dyn Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Balancer")
    }
}

macro_rules! balancers {
    ($($(#[$doc:meta])* $file:ident::$balancer:ident $(($by:ident: $settings:ident))?,)*) => {
        $(pub(crate) mod $file;)*

        /// How a backend is chosen among the healthy ones.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Balance {
            $($(#[$doc])* $balancer $(($file::$settings))?,)*
        }

        impl Balance {
            /// The balancer over these backends.
            pub(crate) fn build(&self, backends: Backends) -> Box<dyn Balancer> {
                match self {
                    $(Self::$balancer $(($by))? => Box::new($file::$balancer::new(backends $(, $by.clone())?)),)*
                }
            }
        }
    };
}

balancers! {
    /// Each in turn, by weight.
    #[default]
    round_robin::RoundRobin,
    /// By chance, by weight.
    random::Random,
    /// The one with the fewest requests under way, relative to its weight.
    least_connections::LeastConnections,
    /// Of two drawn by chance, the one with the lower latency times requests under way.
    p2c_ewma::P2cEwma,
    /// The same one for the same key (ketama): `consistent_hash: client_ip | header:NAME | cookie:NAME | path`.
    consistent_hash::ConsistentHash(by: HashBy),
}

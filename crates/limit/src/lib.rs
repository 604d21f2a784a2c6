//! Rate limits as arithmetic: a key and a cost go in, a [`Verdict`] comes out.
//!
//! [`RateLimiter`] is what most programs want: `allow`, and with the feature `tokio` `wait`; with the feature `tower` there is a layer
//! for services. It stands on parts that can be used alone: [`Quota`] says how much is allowed, [`decide`] is the pure decision, [`Table`] applies it to many keys in bounded memory, and
//! [`SlidingWindow`] and [`CalendarQuota`] are two other ways to count that a table can apply, [`LocalSet`] takes of several limits all or none, and
//! [`KeyHasher`] turns "this client on that route" into the `u64` that a table wants. Nothing here reads a clock, does I/O or
//! knows HTTP: the caller passes `now`, as the time since any fixed start, and says what to do with a refusal.
//!
//! A request that is refused consumes nothing, so a client that keeps hammering is served again as soon as one that waits.
//!
//! ```
//! use std::time::Duration;
//! use tollgate_limit::{KeyHasher, Quota, Table};
//!
//! // 100 requests a second on average, at most 3 of them at once, for some ten thousand clients.
//! let quota = Quota::new(100, Duration::from_secs(1), 3)?;
//! let table = Table::new(quota, 10_000);
//! let alice = KeyHasher::new().key("route:/users").with("alice").finish();
//!
//! let start = Duration::ZERO;
//! assert_eq!(table.take(alice, 1, start).remaining, 2);
//! assert_eq!(table.take(alice, 2, start).remaining, 0);
//!
//! let refused = table.take(alice, 1, start);
//! assert_eq!(refused.retry, Some(Duration::from_millis(10)));
//! assert!(table.take(alice, 1, start + Duration::from_millis(10)).allowed());
//! # Ok::<(), tollgate_limit::InvalidQuota>(())
//! ```

mod calendar;
mod gcra;
mod key;
#[cfg(feature = "tower")]
mod layer;
mod lease;
mod limiter;
mod policy;
mod rate_limiter;
mod set;
mod shared_quota;
mod table;
mod tables;
mod window;

pub use calendar::{CalendarPeriod, CalendarQuota};
pub use gcra::{InvalidQuota, Quota, Tat, Verdict, decide};
pub use key::{Key, KeyBytes, KeyHasher, KeyParts, KeySink, PartKind};
#[cfg(feature = "tower")]
pub use layer::{Limited, RateLimitLayer, RateLimited};
pub use lease::{Answer, Ask, HOLD, IDLE, Lease, LeaseStep, largest};
pub use limiter::{Limiter, LocalLimiter, StoreDown, Take};
pub use policy::{Moment, Policy};
pub use rate_limiter::{RateLimiter, TooLate};
pub use set::{AnyTable, Decision, LocalSet, Locks, Origin, take_all};
pub use shared_quota::SharedQuota;
pub use table::Table;
pub use tables::{Tables, TablesDraft};
pub use window::{SlidingWindow, WindowView};

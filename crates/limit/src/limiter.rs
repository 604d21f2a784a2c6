//! One quota, wherever it is counted: in this process ([`LocalLimiter`]), or in a store that several share.
//!
//! Whoever asks names the parts of its key and gets a verdict, at once or later. A local count hashes the parts; a
//! shared one needs them as bytes. The answer is an enum and no async method, because the local one is on the path of
//! every request, and a boxed future would be an allocation for each.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use super::{Decision, KeyHasher, KeyParts, Moment, Policy, Quota, Table};

/// Takes tokens from the quota of a key.
pub trait Limiter: fmt::Debug + Send + Sync {
    /// Takes `cost` tokens from the bucket of the key that `parts` write.
    fn take(&self, parts: &dyn KeyParts, cost: u32, now: Moment) -> Take;
}

/// A verdict, or the way to it.
pub enum Take {
    /// It is known.
    Now(Decision),
    /// A store is being asked. It has its own time limit.
    Later(Pin<Box<dyn Future<Output = Result<Decision, StoreDown>> + Send>>),
}

/// The store that counts does not answer, or not in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreDown(pub String);

impl fmt::Display for StoreDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store of limits is not available: {}", self.0)
    }
}

impl std::error::Error for StoreDown {}

/// Counts in this process, in bounded memory.
pub struct LocalLimiter<P = Quota> {
    table: Arc<Table<P>>,
    hasher: KeyHasher,
}

impl<P: Policy> LocalLimiter<P> {
    /// Counts in `table`, by what `hasher` makes of keys.
    pub fn new(table: Arc<Table<P>>, hasher: KeyHasher) -> Self {
        Self { table, hasher }
    }
}

// Seeds are left out, for whoever knows them can choose keys that share another client's bucket; and so is what has been
// counted, which is no setting.
impl<P: Policy> fmt::Debug for LocalLimiter<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalLimiter")
            .field("quota", self.table.quota())
            .field("capacity", &self.table.capacity())
            .field("ipv6_prefix", &self.hasher.ipv6_bits())
            .finish()
    }
}

impl<P: Policy> Limiter for LocalLimiter<P> {
    #[inline]
    fn take(&self, parts: &dyn KeyParts, cost: u32, now: Moment) -> Take {
        let mut key = self.hasher.key("");
        parts.write(&mut key);
        Take::Now(self.table.take_at(key.finish(), cost, now).into())
    }
}

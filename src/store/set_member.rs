//! One of several limits that gateways keep together.

use std::time::Duration;

use crate::limit::{AnyTable, SharedQuota, Verdict};

/// One of the limits of a set.
pub(super) struct Member {
    /// What passes here, also by the store's word.
    pub(super) table: AnyTable,
    /// A bucket as the store reckons with it.
    pub(super) bucket: Option<SharedQuota>,
    /// The last part of its key in the store.
    pub(super) suffix: String,
}

impl Member {
    /// The words for what the script has answered of it: how long to wait, and three numbers.
    pub(super) fn verdict(&self, numbers: &[u64]) -> Verdict {
        let &[wait, a, b, c] = numbers else {
            return Verdict { limit: self.table.most(), remaining: 0, reset: Duration::ZERO, retry: None };
        };
        let (wait, narrow) = (Duration::from_micros(wait), |wide: u64| u32::try_from(wide).unwrap_or(u32::MAX));
        let retry = (!wait.is_zero()).then_some(wait);
        match (&self.table, self.bucket) {
            (AnyTable::Window(table), _) => {
                table.quota().seen(narrow(b), narrow(a), Duration::from_micros(c)).verdict(retry)
            }
            (AnyTable::Calendar(table), _) => {
                table.quota().verdict_in(narrow(a), Duration::from_micros(c), retry.is_some())
            }
            (AnyTable::Bucket(_), bucket) => bucket.unwrap_or(SharedQuota::NOTHING).verdict(a, 0, retry),
        }
    }
}

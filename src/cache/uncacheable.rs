//! Keys whose last answer was not kept: nobody waits for the fetch of another one there, for it would be in vain.

use std::time::Duration;

use quick_cache::sync::Cache;

use super::{key::Key, refusal::Refusal};

/// So long a key is remembered.
const REMEMBERED: Duration = Duration::from_secs(10);

/// A bounded memory of such keys. Two keys with one hash cost a fetch that could have been shared, and nothing else.
#[derive(Debug)]
pub struct Uncacheable(Cache<u128, Duration>);

impl Uncacheable {
    /// Room for `most` keys.
    pub fn new(most: usize) -> Self {
        Self(Cache::new(most))
    }

    /// Remembers that the answer to this key was not kept. `now` is the time since the process began.
    pub fn add(&self, key: &Key, refusal: Refusal, now: Duration) {
        // These were about that one request, or that one moment. Where a credential is why, others with one come.
        let passing = [Refusal::RequestNoStore, Refusal::Purged, Refusal::Incomplete];
        if !passing.contains(&refusal) {
            self.0.insert(key.hash(), now.saturating_add(REMEMBERED));
        }
    }

    /// Forgets a key: its answer was kept.
    pub fn forget(&self, key: &Key) {
        self.0.remove(&key.hash());
    }

    /// True when an answer to this key was not kept a short while ago.
    pub fn has(&self, key: &Key, now: Duration) -> bool {
        self.0.get(&key.hash()).is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_a_while() {
        let (known, start) = (Uncacheable::new(100), Duration::from_secs(5));
        let (key, other) = (Key::hashed(1), Key::hashed(2));
        known.add(&key, Refusal::Private, start);
        known.add(&other, Refusal::Purged, start);
        let last = (start + REMEMBERED).saturating_sub(Duration::from_nanos(1));
        assert!(known.has(&key, start) && known.has(&key, last) && !known.has(&other, start));
        assert!(!known.has(&key, start + REMEMBERED));
        known.forget(&key);
        assert!(!known.has(&key, start));
        for number in 0..10_000 {
            known.add(&Key::hashed(number), Refusal::Private, start);
        }
        assert!(known.0.len() <= 100);
    }
}

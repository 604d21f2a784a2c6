//! What is known of the names among a service's URLs. Each is looked up by itself: a name whose server does not answer
//! keeps the others waiting for nothing, what is found is used at once, and a name that cannot be resolved keeps the
//! addresses it had.

use std::{fmt, net::SocketAddr, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{discovery::Lookup, url::BackendUrl};

/// The shortest time between two looks at a name, whatever its time to live; and the first pause after a failure.
const SOON: Duration = Duration::from_secs(1);

/// A backend that a URL stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The URL in the YAML, or in the file.
    pub(crate) source: BackendUrl,
    /// The backend's own: an SRV record names host and port.
    pub(crate) url: BackendUrl,
    pub(crate) address: SocketAddr,
}

/// One name with what is known of it.
struct Name {
    url: BackendUrl,
    found: Vec<Found>,
    /// When to look again.
    due: Instant,
    /// Somebody is looking.
    looking: bool,
    /// It has been looked up, with or without success.
    looked: bool,
    /// Looks in a row that failed.
    failures: u32,
}

/// The names of a service.
pub(crate) struct Names {
    /// The longest time between two looks.
    every: Duration,
    names: Mutex<Vec<Name>>,
}

// What has been found is no setting.
impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("every", &self.every).finish_non_exhaustive()
    }
}

impl Names {
    /// No names; `every` is the longest time between two looks at one.
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, names: Mutex::default() }
    }

    /// Knows the names among `urls`, and no others. What `before` has found of them holds until they have been looked up.
    pub(crate) fn follow(&self, urls: &[BackendUrl], before: Option<&Self>) {
        let mut names = self.names.lock();
        names.retain(|name| urls.contains(&name.url));
        for url in urls.iter().filter(|url| url.address().is_none()) {
            if names.iter().any(|name| name.url == *url) {
                continue;
            }
            let found = before.map(|before| before.of(url)).unwrap_or_default();
            let url = url.clone();
            names.push(Name { url, found, due: Instant::now(), looking: false, looked: false, failures: 0 });
        }
    }

    /// The backends that a name stands for, by the last look that succeeded.
    pub(crate) fn of(&self, url: &BackendUrl) -> Vec<Found> {
        let names = self.names.lock();
        names.iter().find(|name| name.url == *url).map(|name| name.found.clone()).unwrap_or_default()
    }

    /// The names that are due at `now`; whoever asks looks them up.
    pub(crate) fn take_due(&self, now: Instant) -> Vec<BackendUrl> {
        let mut names = self.names.lock();
        let due = names.iter_mut().filter(|name| !name.looking && name.due <= now);
        due.map(|name| {
            name.looking = true;
            name.url.clone()
        })
        .collect()
    }

    /// Nobody is looking any more.
    pub(crate) fn give_back(&self) {
        self.names.lock().iter_mut().for_each(|name| name.looking = false);
    }

    /// When the next name is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.names.lock().iter().filter(|name| !name.looking).map(|name| name.due).min()
    }

    /// True when each has been looked up; with `success`, when each has been found, too.
    pub(crate) fn all_looked_up(&self, success: bool) -> bool {
        self.names.lock().iter().all(|name| name.looked && !(success && name.failures > 0))
    }

    /// Takes in what a look at `url` has come to. Answers what there is to say about it: changes only.
    pub(crate) fn learn(&self, url: &BackendUrl, result: Result<Lookup, String>, now: Instant) -> Option<String> {
        let mut names = self.names.lock();
        let name = names.iter_mut().find(|name| name.url == *url)?;
        (name.looking, name.looked) = (false, true);
        match result {
            Ok(Lookup { found, until }) => {
                let found = found.into_iter().map(|(of, address)| Found { source: url.clone(), url: of, address });
                name.found = found.collect();
                name.due = until.map_or(now + self.every, |until| until.min(now + self.every)).max(now + SOON);
                let again = std::mem::take(&mut name.failures) > 0;
                again.then(|| format!("'{}' can be resolved again", url.host))
            }
            Err(reason) => {
                // A server that is busy for a moment must not be felt for as long as names are good for.
                name.due = now + (SOON * 2u32.saturating_pow(name.failures)).min(self.every);
                name.failures += 1;
                (name.failures == 1).then(|| format!("cannot resolve '{}': {reason}", url.host))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_failure_is_tried_again_soon_and_said_once() {
        let url: BackendUrl = "http://a.test:80".parse().unwrap();
        let names = Names::new(seconds(30));
        names.follow(std::slice::from_ref(&url), None);
        let now = Instant::now();
        assert_eq!(names.take_due(now), std::slice::from_ref(&url));
        assert!(names.take_due(now).is_empty(), "somebody looks already");
        let address: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let good = |ttl| Ok(Lookup { found: vec![(url.clone(), address)], until: Some(now + seconds(ttl)) });
        assert!(names.learn(&url, good(5), now).is_none());
        assert_eq!(names.next(), Some(now + seconds(5)), "its time to live");
        assert!(names.learn(&url, Err("no".to_owned()), now).unwrap().contains("cannot resolve 'a.test'"));
        let mut pauses = Vec::new();
        for _ in 0..6 {
            pauses.push((names.next().unwrap() - now).as_secs());
            assert!(names.learn(&url, Err("no".to_owned()), now).is_none());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30]);
        assert_eq!(names.of(&url).len(), 1, "it keeps what it had");
        assert!(names.all_looked_up(false) && !names.all_looked_up(true));
        assert!(names.learn(&url, good(0), now).unwrap().contains("again"));
        assert_eq!(names.next(), Some(now + SOON));
        let next = Names::new(seconds(30));
        next.follow(std::slice::from_ref(&url), Some(&names));
        assert_eq!(next.of(&url), names.of(&url));
    }
}

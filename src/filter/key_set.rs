//! Key sets that issuers publish (RFC 7517), by URL: what is known of each, for as long as the process lives.
//!
//! Who uses a set reads it without a lock and never waits for a fetch that is only due by age. A task of the runtime fetches
//! (`runtime/key_refresh.rs`); it asks here when, and hands in what came of it. The last good set is kept whatever happens
//! afterwards. A configuration is built against a [`KeySetsDraft`]: sets that stay as they are go on, and one whose times have
//! changed begins with the keys that are known.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::HttpPlace;
use crate::{
    auth::{Digest, KeyError, Keyset, Refresh, RefreshTimes},
    clock::Now,
    units::CountPermit,
};

/// So many requests may wait for one fetch; more would be a way to keep connections busy at no cost.
const MOST_WAITING: usize = 1024;

/// Where a set is, and when it is fetched.
#[derive(Debug, Clone)]
pub struct KeySetSource {
    /// Where it is.
    pub place: HttpPlace,
    /// When it is fetched.
    pub times: RefreshTimes,
}

impl KeySetSource {
    fn is_same(&self, other: &Self) -> bool {
        self.place.is_same(&other.place) && self.place.timeout == other.place.timeout && self.times == other.times
    }
}

/// The keys of a set at some time.
#[derive(Clone, Default)]
pub struct Known {
    /// The keys.
    pub keys: Keyset,
    /// When they were last confirmed; `None` before the first fetch.
    pub at: Option<Duration>,
    /// Tells one document from another.
    digest: Option<Digest>,
}

/// What there is to tell of the last fetches.
#[derive(Clone, Default)]
pub struct Fetches {
    /// Since when fetches fail, and why the last one did; in words without anything of the answer.
    pub failing: Option<(Duration, String)>,
    /// How many there were.
    pub all: u64,
    /// How many of them failed.
    pub failed: u64,
}

/// A key set.
pub struct KeySet {
    /// Where it is.
    pub source: KeySetSource,
    known: ArcSwap<Known>,
    /// Counts changes of the keys.
    generation: AtomicU64,
    refresh: Mutex<Refresh>,
    fetches: Mutex<Fetches>,
    wake: Notify,
    /// Counts fetches that have ended.
    ended: watch::Sender<u64>,
    waiting: AtomicUsize,
}

impl KeySet {
    fn new(source: KeySetSource, before: Option<&Self>) -> Self {
        let known = before.map(|before| before.known.load_full()).filter(|known| known.at.is_some());
        let refresh = if known.is_some() { Refresh::of_known() } else { Refresh::default() };
        Self {
            source,
            known: ArcSwap::new(known.unwrap_or_default()),
            generation: AtomicU64::new(0),
            refresh: Mutex::new(refresh),
            fetches: Mutex::default(),
            wake: Notify::new(),
            ended: watch::Sender::new(0),
            waiting: AtomicUsize::new(0),
        }
    }

    /// What is known of it.
    pub fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }

    /// True once there are keys.
    pub fn is_loaded(&self) -> bool {
        self.known.load().at.is_some()
    }

    /// Changes whenever the keys do. Read it before the keys: then newer ones are noticed later, and never missed.
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// What there is to tell of fetches.
    pub fn fetches(&self) -> Fetches {
        self.fetches.lock().clone()
    }

    /// When the next fetch should begin.
    pub fn due(&self) -> Duration {
        self.refresh.lock().due(&self.source.times)
    }

    /// Waits until somebody wants it earlier.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// A token names a key that is not there: has the set fetched, unless it has just been, and waits for that.
    pub async fn look_again(&self, now: Duration) {
        let mut ended = self.ended.subscribe();
        let soon = self.refresh.lock().want(&self.source.times, now);
        self.wake.notify_one();
        if soon && let Some(_place) = CountPermit::within(&self.waiting, MOST_WAITING) {
            let _ = tokio::time::timeout(self.source.place.timeout, ended.changed()).await;
        }
    }

    /// A fetch begins; it ends when this is dropped, however that comes about.
    pub fn begin(&self, now: Duration) -> Fetching<'_> {
        self.refresh.lock().begin(now);
        Fetching { set: self, ended: false }
    }

    fn learn(&self, document: &[u8]) -> Result<bool, KeyError> {
        let digest = Digest::of(document);
        let now = Some(Now::monotonic());
        let known = self.known.load();
        // Verified tokens are forgotten when keys change, so they change only when they do.
        if known.digest == Some(digest) {
            self.known.store(Arc::new(Known { at: now, ..Known::clone(&known) }));
            return Ok(false);
        }
        let keys = Keyset::published(document)?;
        self.known.store(Arc::new(Known { keys, at: now, digest: Some(digest) }));
        self.generation.fetch_add(1, Relaxed);
        Ok(true)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What has been fetched is no setting.
        self.source.fmt(f)
    }
}

/// A fetch that is running.
pub struct Fetching<'a> {
    set: &'a KeySet,
    ended: bool,
}

impl Fetching<'_> {
    /// It has ended: with a document and the age that it may reach, or with the reason why there is none.
    ///
    /// # Errors
    /// Why there are no new keys.
    pub fn end(mut self, result: Result<(&[u8], Option<Duration>), String>) -> Result<bool, String> {
        let set = self.set;
        let learnt = result.and_then(|(document, age)| Ok((set.learn(document).map_err(|e| e.to_string())?, age)));
        let now = Now::monotonic();
        {
            let (mut refresh, mut fetches) = (set.refresh.lock(), set.fetches.lock());
            fetches.all += 1;
            match &learnt {
                Ok((_, age)) => {
                    refresh.succeeded(&set.source.times, *age, now);
                    fetches.failing = None;
                }
                Err(reason) => {
                    refresh.failed(&set.source.times, now);
                    let since = fetches.failing.take().map_or(now, |(since, _)| since);
                    fetches.failing = Some((since, reason.clone()));
                    fetches.failed += 1;
                }
            }
        }
        self.ended = true;
        set.ended.send_modify(|count| *count += 1);
        learnt.map(|(changed, _)| changed)
    }
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.set.refresh.lock().abandoned();
            self.set.ended.send_modify(|count| *count += 1);
        }
    }
}

/// The key sets of the configuration that serves.
#[derive(Debug, Default)]
pub struct KeySets(Mutex<Vec<Arc<KeySet>>>);

impl KeySets {
    /// What a configuration under construction takes its sets from.
    pub fn draft(self: &Arc<Self>) -> KeySetsDraft {
        KeySetsDraft { live: self.clone(), asked: Mutex::default() }
    }

    /// Makes the sets that were asked for the whole of them.
    pub fn commit(&self, draft: &KeySetsDraft) {
        *self.0.lock() = draft.all();
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<KeySet>> {
        self.0.lock().clone()
    }
}

/// The key sets of a configuration that does not serve yet.
#[derive(Debug)]
pub struct KeySetsDraft {
    live: Arc<KeySets>,
    asked: Mutex<Vec<Arc<KeySet>>>,
}

impl KeySetsDraft {
    /// The set from there: the one that is alive if it is fetched in the same way, else a new one with the keys of that.
    pub fn get(&self, source: KeySetSource) -> Arc<KeySet> {
        let mut asked = self.asked.lock();
        if let Some(set) = asked.iter().find(|set| set.source.is_same(&source)) {
            return set.clone();
        }
        let live = self.live.all();
        let same = live.iter().find(|set| set.source.is_same(&source)).cloned();
        let set = same.unwrap_or_else(|| {
            // The youngest keys, should there be several.
            let before = live.iter().filter(|set| set.source.place.is_same(&source.place));
            let before = before.max_by_key(|set| set.known.load().at);
            Arc::new(KeySet::new(source, before.map(AsRef::as_ref)))
        });
        asked.push(set.clone());
        set
    }

    /// All that were asked for.
    pub fn all(&self) -> Vec<Arc<KeySet>> {
        self.asked.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const SET: &[u8] =
        br#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    fn source(host: &str, timeout: u64) -> KeySetSource {
        let s = Duration::from_secs;
        let times = RefreshTimes { fixed: None, bounds: (s(300), s(86_400)), cooldown: s(30) };
        let place = HttpPlace::new(&format!("https://{host}/jwks?secret=1"), None, s(timeout)).unwrap();
        KeySetSource { place, times }
    }

    #[test]
    fn a_reload_keeps_the_keys_of_the_same_place() {
        let sets = Arc::<KeySets>::default();
        let first = sets.draft();
        let set = first.get(source("a", 5));
        assert!(Arc::ptr_eq(&set, &first.get(source("a", 5))), "two routes share it");
        sets.commit(&first);
        set.begin(Duration::ZERO).end(Ok((SET, None))).unwrap();
        let second = sets.draft();
        assert!(Arc::ptr_eq(&set, &second.get(source("a", 5))));
        let slower = second.get(source("a", 6));
        assert!(!Arc::ptr_eq(&set, &slower) && slower.is_loaded(), "other times, the same keys");
        assert!(!second.get(source("b", 5)).is_loaded());
        let mut other = source("a", 5);
        other.place.stamp = 1;
        assert!(!second.get(other).is_loaded(), "from somebody else");
    }

    #[test]
    fn rubbish_leaves_the_keys_and_the_same_document_is_no_change() {
        let set = KeySet::new(source("a", 5), None);
        let end = |result| set.begin(Duration::ZERO).end(result);
        assert_eq!(end(Ok((SET, None))), Ok(true));
        assert_eq!(end(Ok((SET, None))), Ok(false));
        for rubbish in [
            &b"<html>"[..],
            b"{}",
            b"[]",
            br#"{"keys":[]}"#,
            br#"{"keys":[{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}]}"#,
        ] {
            assert!(end(Ok((rubbish, None))).is_err());
        }
        assert!(end(Err("no way leads there".to_owned())).is_err());
        assert_eq!((set.generation(), set.known().keys.len()), (1, 1));
        let fetches = set.fetches();
        assert_eq!((fetches.all, fetches.failed, fetches.failing.unwrap().1.as_str()), (8, 6, "no way leads there"));
    }

    #[test]
    fn a_name_holds_no_query() {
        assert_eq!(source("[::1]", 5).place.name(), "https://[::1]/jwks");
        assert!(!format!("{:?}", source("a", 5)).contains("secret"));
    }

    #[tokio::test]
    async fn who_waits_is_told_when_the_fetch_ends_however_it_ends() {
        let set = Arc::new(KeySet::new(source("a", 5), None));
        let waiting = {
            let set = set.clone();
            tokio::spawn(async move { set.look_again(Duration::ZERO).await })
        };
        set.woken().await;
        drop(set.begin(Duration::ZERO));
        tokio::time::timeout(Duration::from_secs(4), waiting).await.unwrap().unwrap();
        assert_eq!(set.waiting.load(Relaxed), 0);
        // In the cool-down nobody waits.
        set.begin(Duration::ZERO).end(Ok((SET, None))).unwrap();
        tokio::time::timeout(Duration::from_secs(1), set.look_again(Duration::from_secs(1))).await.unwrap();
    }
}

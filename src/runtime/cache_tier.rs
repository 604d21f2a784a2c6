//! Answers that gateways keep together, behind the memory of each: what one has fetched, the others need not.
//!
//! Purges are numbered, for all gateways; each learns of the others' within a second. An answer says which purge was the
//! last when it was asked for, and whoever finds it looks whether a later one was about it. Where that is not known for certain it
//! is not given: after Redis has lost its numbers, after a gateway has missed too many, and before it has heard of any.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use http::HeaderMap;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, timeout},
};

pub use super::heard::TierTicket;
use super::{
    heard::{Heard, NODE, STAMP},
    untold::Untold,
};
use crate::{
    cache::{
        entry::Entry,
        held::Held,
        key::Key,
        metrics::TierMetrics,
        purge::{Manner, Purge},
        query::QueryRule,
        shared::Cache,
        stored_form::{self, Stored},
        tier_config::TierConfig,
    },
    clock::Now,
    store::{NoAnswer, RedisSettings, SharedAnswers},
    units::CountPermit,
};

/// Time from one look at the others' purges to the next.
const BEAT: Duration = Duration::from_secs(1);

/// So many answers are on their way to the store at a time; more are left out.
const WRITES: usize = 64;

/// The answers that gateways keep together.
pub struct CacheTier {
    answers: Arc<SharedAnswers>,
    redis: RedisSettings,
    config: TierConfig,
    /// Gateways with other services keep other answers.
    realm: u64,
    /// Which parts of queries count here: what is purged is kept under those.
    rules: Vec<QueryRule>,
    /// Who this process is, among gateways.
    node: [u8; NODE],
    heard: Mutex<Heard>,
    /// There is something to tell.
    told: Notify,
    /// There is, or no longer.
    changed: Notify,
    writes: Arc<AtomicUsize>,
    metrics: Arc<TierMetrics>,
}

impl CacheTier {
    /// Those of `realm` in `redis`: the one before, when that is no other. Nothing is asked before
    /// [`CacheTier::run_background`].
    pub fn build(
        redis: &RedisSettings,
        config: TierConfig,
        realm: u64,
        rules: &[QueryRule],
        metrics: &Arc<TierMetrics>,
        before: Option<Arc<Self>>,
    ) -> Arc<Self> {
        let before = before.filter(|before| before.redis == *redis);
        let is_same = |before: &&Arc<Self>| before.config == config && before.realm == realm && before.rules == rules;
        if let Some(before) = before.as_ref().filter(is_same) {
            return before.clone();
        }
        Arc::new(Self {
            answers: SharedAnswers::new(redis.clone(), config.timeout.0),
            redis: redis.clone(),
            config,
            realm,
            rules: rules.to_vec(),
            node: fastrand::u64(..).to_le_bytes(),
            // What it has heard there is true still.
            heard: Mutex::new(before.map(|before| before.heard.lock().clone()).unwrap_or_default()),
            told: Notify::new(),
            changed: Notify::new(),
            writes: Arc::default(),
            metrics: metrics.clone(),
        })
    }

    /// Equal for those in one Redis, where gateways hear of one another's purges.
    pub fn redis_name(&self) -> u64 {
        self.redis.name()
    }

    /// True while answers are looked for there.
    pub fn is_up(&self) -> bool {
        self.answers.is_up()
    }

    /// To be taken before a backend is asked, and handed back with the answer; `None` while there is nowhere to keep it.
    pub fn ticket(&self) -> Option<TierTicket> {
        let heard = self.heard.lock();
        self.is_up().then(|| heard.stamp()).flatten()
    }

    /// The answer to a request with these fields, if one is kept there and may be given; its body is counted in `held`.
    pub async fn find(&self, key: &Key, request: &HeaderMap, held: &Held) -> Option<Entry> {
        if !self.is_up() {
            return None;
        }
        // One bound for both calls that an answer with `Vary` takes.
        let asked = timeout(self.config.timeout.0, self.ask(key, request, held)).await;
        match asked.unwrap_or(Err(NoAnswer::Late)) {
            Ok(found) => {
                self.metrics.read(if found.is_some() { "hit" } else { "miss" });
                found
            }
            Err(reason) => {
                self.metrics.read(word(reason));
                None
            }
        }
    }

    async fn ask(&self, key: &Key, request: &HeaderMap, held: &Held) -> Result<Option<Entry>, NoAnswer> {
        let (name, now) = (key.name(self.realm), Now::read());
        let (mut found, mut variant) = (self.answers.get(&name, "").await?, String::new());
        if !found.vary.is_empty() {
            let Some(wanted) = stored_form::wanted(&found.vary, request) else { return Ok(None) };
            (found, variant) = (self.answers.get(&name, &wanted).await?, wanted);
        }
        let Some((bytes, kept)) = found.entry else { return Ok(None) };
        let Some((stamp, bytes)) = bytes.split_first_chunk::<STAMP>() else { return Ok(None) };
        let about: [&[u8]; 3] = [name.as_bytes(), variant.as_bytes(), stamp];
        let stored = Stored { bytes, about: &about, kept };
        let entry = stored_form::read(&stored, request, now, held).filter(|entry| entry.selection.name() == variant);
        Ok(entry.filter(|entry| self.heard.lock().lets_pass(&TierTicket(*stamp), key.url(), &entry.tags)))
    }

    /// Keeps an answer there, if it is of use to others; nobody waits for that.
    pub fn keep(&self, key: &Key, entry: &Arc<Entry>, ticket: Option<&TierTicket>) {
        let now = Now::read();
        let ttl = stored_form::useful_for(entry, now).min(self.config.ttl.0);
        let Some(ticket) = ticket.filter(|_| ttl > Duration::ZERO && self.is_up()) else { return };
        if entry.body.len() as u64 > self.config.max_object.0 {
            return;
        }
        let Some(permit) = CountPermit::within(self.writes.clone(), WRITES) else {
            return self.metrics.wrote("busy");
        };
        let (answers, metrics, name) = (self.answers.clone(), self.metrics.clone(), key.name(self.realm));
        let (entry, ticket) = (entry.clone(), ticket.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let (vary, variant) = stored_form::variant(&entry.selection);
            let about: [&[u8]; 3] = [name.as_bytes(), variant.as_bytes(), &ticket.0];
            let Some(bytes) = stored_form::write(&entry, now, &about) else { return };
            let bytes = [&ticket.0[..], &bytes].concat();
            let put = answers.put(&name, &vary, &variant, &bytes, ttl).await;
            metrics.wrote(put.map_or_else(word, |()| "ok"));
        });
    }

    /// A purge here, which the other gateways are told of.
    pub fn purge(&self, purge: &Purge, manner: Manner) {
        self.heard.lock().add(purge, manner);
        self.told.notify_one();
        self.changed.notify_one();
    }

    /// Keeps a connection, and tells and hears of purges, which `cache` follows; `untold` is told while there are some that others
    /// have not heard of.
    pub async fn run_background(&self, cache: &Cache, untold: &Untold) {
        // A configuration before this one had another store, or none, and has not told of all.
        if untold.is_noted() && !self.heard.lock().has_untold() {
            self.purge_all(cache);
        }
        // Before anything is looked for.
        self.take_over(cache, untold).await;
        tokio::join!(self.talk(cache), self.keep_word(cache, untold));
    }

    async fn talk(&self, cache: &Cache) {
        loop {
            match self.hear(cache).await {
                Ok(()) => self.answers.open(),
                Err(reason) => self.answers.close(&reason),
            }
            self.changed.notify_one();
            self.metrics.up.set(i64::from(self.is_up()));
            tokio::select! {
                () = tokio::time::sleep(BEAT) => {}
                // Those that come together are told together.
                () = self.told.notified() => tokio::time::sleep(BEAT / 50).await,
            }
        }
    }

    /// Waits, for a moment at most, until what others have not been told of outlives this process.
    pub async fn note(&self, untold: &Untold) {
        if self.heard.lock().has_untold() {
            let _ = timeout(BEAT, untold.note()).await;
        }
    }

    /// Keeps the word while there is something to tell, and looks for those that others have left.
    async fn keep_word(&self, cache: &Cache, untold: &Untold) {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let beat = tokio::select! {
                _ = beats.tick() => true,
                () = self.changed.notified() => false,
            };
            if beat {
                self.take_over(cache, untold).await;
            }
            // In this order: what comes to be told after the look is not forgotten.
            let noted = untold.noted();
            let has_untold = self.heard.lock().has_untold();
            match (has_untold, untold.is_noted()) {
                // Somebody may have deleted it.
                (true, there) if beat || !there => untold.note().await,
                (false, true) => untold.forget(noted).await,
                _ => {}
            }
        }
    }

    /// It is not known what a process that is gone has purged: everything is, here too, and everybody is told so.
    async fn take_over(&self, cache: &Cache, untold: &Untold) {
        if untold.take_over().await {
            log::warn!(
                "cache: a process that is gone has left purges that no other gateway was told of: all that is kept, here and in redis, is purged"
            );
            self.purge_all(cache);
        }
    }

    /// Everything that is kept, everywhere.
    fn purge_all(&self, cache: &Cache) {
        self.heard.lock().add(&Purge::All, Manner::Hard);
        cache.purge(&Purge::All, Manner::Hard, Now::read());
    }

    async fn hear(&self, cache: &Cache) -> Result<(), String> {
        self.answers.connect().await?;
        let (epoch, number, records) = {
            let mut heard = self.heard.lock();
            heard.begin_to_tell();
            let records: Vec<Vec<u8>> = heard.telling.iter().map(|(purge, how)| self.record(purge, *how)).collect();
            (heard.epoch.clone(), heard.number, records)
        };
        let asked = Now::monotonic();
        let purges = self.answers.purges(&epoch, number, &records).await?;
        let first = epoch.is_empty();
        let (news, anew) = self.heard.lock().hear(purges, self.node, &self.rules, asked);
        if anew && !first {
            log::warn!(
                "cache: redis has begun anew, or too many purges were missed: memory is emptied, and what is kept in redis is not used"
            );
        }
        let now = Now::read();
        for (purge, manner) in news {
            cache.purge(&purge, manner, now);
        }
        Ok(())
    }

    fn record(&self, purge: &Purge, manner: Manner) -> Vec<u8> {
        [&self.node[..], &purge.short().write(manner)].concat()
    }
}

fn word(reason: NoAnswer) -> &'static str {
    match reason {
        NoAnswer::Down => "down",
        NoAnswer::Late => "timeout",
        NoAnswer::Error => "error",
    }
}

// Whether it answers is no setting.
impl fmt::Debug for CacheTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheTier({:?}, {:?}, {:x})", self.redis, self.config, self.realm)
    }
}

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
use tokio::sync::Notify;

use super::untold::Untold;
use crate::{
    cache::{
        entry::Entry,
        held::Held,
        key::Key,
        metrics::TierMetrics,
        purge::{Manner, Purge},
        purged::Purged,
        query::QueryRule,
        shared::Cache,
        stored_form::{self, Stored},
        tier_config::TierConfig,
    },
    clock::Now,
    store::{NoAnswer, Purges, RedisSettings, SharedAnswers},
    units::CountPermit,
};

/// Time from one look at the others' purges to the next.
const BEAT: Duration = Duration::from_secs(1);

/// Who has not heard of purges for so long gives nothing: three looks.
const DEAF: Duration = Duration::from_secs(3);

/// So many answers are on their way to the store at a time; more are left out.
const WRITES: usize = 64;

/// So many purges wait to be told; more become one of everything.
const WAITING: usize = 1024;

/// Each answer begins with the epoch, so many characters, and the number of a purge.
const EPOCH: usize = 16;
const STAMP: usize = EPOCH + size_of::<u64>();

/// Each purge begins with who has made it.
const NODE: usize = size_of::<u64>();

/// What had been purged when an answer was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierTicket([u8; STAMP]);

/// What is known of purges.
#[derive(Debug, Clone, Default)]
struct Heard {
    epoch: String,
    number: u64,
    table: Purged,
    /// When that was, last.
    at: Option<Duration>,
    /// Our own that nobody has been told of, and those that are being told.
    waiting: Vec<(Purge, Manner)>,
    telling: Vec<(Purge, Manner)>,
}

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
    told: Notify,
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
            writes: Arc::default(),
            metrics: metrics.clone(),
        })
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
        let asked = tokio::time::timeout(self.config.timeout.0, self.ask(key, request, held)).await;
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
        let mut heard = self.heard.lock();
        if heard.waiting.len() >= WAITING {
            heard.waiting.clear();
            heard.waiting.push((Purge::All, Manner::Hard));
        } else if !heard.waiting.contains(&(purge.clone(), manner)) {
            heard.waiting.push((purge.clone(), manner));
        }
        drop(heard);
        self.told.notify_one();
    }

    /// Keeps a connection, and tells and hears of purges, which `cache` follows; `untold` is told while there are some that others
    /// have not heard of.
    pub async fn run_background(&self, cache: &Cache, untold: &Untold) {
        // A configuration before this one had another store, or none, and has not told of all.
        if untold.is_noted() && !self.heard.lock().has_untold() {
            self.heard.lock().waiting.push((Purge::All, Manner::Hard));
        }
        loop {
            // Before anything is looked for: it is no longer known what a process that is gone has purged.
            if untold.take_over().await {
                log::warn!(
                    "cache: a process that is gone has left purges that no other gateway was told of: all that is kept in redis is purged"
                );
                self.heard.lock().waiting.push((Purge::All, Manner::Hard));
            }
            if self.heard.lock().has_untold() {
                untold.note().await;
            }
            match self.hear(cache).await {
                Ok(()) => self.answers.open(),
                Err(reason) => self.answers.close(&reason),
            }
            if !self.heard.lock().has_untold() {
                untold.forget().await;
            }
            self.metrics.up.set(i64::from(self.is_up()));
            tokio::select! {
                () = tokio::time::sleep(BEAT) => {}
                () = self.told.notified() => {
                    untold.note().await;
                    // Those that come together are told together.
                    tokio::time::sleep(BEAT / 50).await;
                }
            }
        }
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

impl Heard {
    fn stamp(&self) -> Option<TierTicket> {
        let epoch: [u8; EPOCH] = self.epoch.as_bytes().try_into().ok()?;
        let mut stamp = [0; STAMP];
        let (first, last) = stamp.split_at_mut(EPOCH);
        first.copy_from_slice(&epoch);
        last.copy_from_slice(&self.number.to_le_bytes());
        Some(TierTicket(stamp))
    }

    /// True when no purge that came after this ticket is about such an answer.
    fn lets_pass(&self, ticket: &TierTicket, url: &str, tags: &[Arc<[u8]>]) -> bool {
        let (epoch, number) = ticket.0.split_at(EPOCH);
        let Ok(number) = number.try_into().map(u64::from_le_bytes) else { return false };
        let deaf = self.at.is_none_or(|at| Now::monotonic().saturating_sub(at) > DEAF);
        !deaf
            && epoch == self.epoch.as_bytes()
            && !self.table.was(number, url, tags)
            && !self.waiting.iter().chain(&self.telling).any(|(purge, _)| purge.is_about(url, tags))
    }

    /// True when there are purges of ours that others may not have heard of.
    fn has_untold(&self) -> bool {
        !(self.waiting.is_empty() && self.telling.is_empty())
    }

    /// What waits is told, with what has been told in vain.
    fn begin_to_tell(&mut self) {
        self.telling.append(&mut self.waiting);
        if self.telling.len() > WAITING {
            self.telling = vec![(Purge::All, Manner::Hard)];
        }
    }

    /// Takes in what the store has said; gives back what is new here and not of this `node`, under each of these rules, and
    /// whether it may be anything.
    fn hear(
        &mut self,
        purges: Purges,
        node: [u8; NODE],
        rules: &[QueryRule],
        at: Duration,
    ) -> (Vec<(Purge, Manner)>, bool) {
        self.at = Some(at);
        self.telling.clear();
        let known = purges.since.filter(|since| {
            purges.epoch == self.epoch && self.number.saturating_add(since.len() as u64) == purges.number
        });
        (self.epoch, self.number) = (purges.epoch, purges.number);
        let Some(since) = known else {
            // What was purged meanwhile is not known: it may have been anything.
            self.table.begin_at(self.number);
            return (vec![(Purge::All, Manner::Hard)], true);
        };
        let mut news = Vec::new();
        for record in &since {
            let (by, record) = record.split_at(NODE.min(record.len()));
            let (purge, manner) = Purge::read(record);
            let all = purge.by_rules(rules);
            self.table.add_all(&all);
            if by != node {
                news.extend(all.into_iter().map(|purge| (purge, manner)));
            }
        }
        (news, false)
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const NODE_A: [u8; NODE] = [1; NODE];
    const NODE_B: [u8; NODE] = [2; NODE];
    const EPOCH_A: &str = "aaaaaaaaaaaaaaaa";

    fn said(epoch: &str, number: u64, since: Option<&[([u8; NODE], &str)]>) -> Purges {
        let record =
            |(node, url): &([u8; NODE], &str)| [&node[..], &Purge::Url((*url).to_owned()).write(Manner::Hard)].concat();
        Purges { epoch: epoch.to_owned(), number, since: since.map(|since| since.iter().map(record).collect()) }
    }

    fn hear(heard: &mut Heard, purges: Purges) -> Vec<Purge> {
        heard.hear(purges, NODE_A, &[], Now::monotonic()).0.into_iter().map(|(purge, _)| purge).collect()
    }

    #[test]
    fn an_answer_is_given_unless_something_about_it_was_purged_since() {
        let mut heard = Heard::default();
        assert_eq!(heard.stamp(), None, "nobody has been heard");
        assert_eq!(hear(&mut heard, said(EPOCH_A, 7, None)), [Purge::All], "what there was is not known");
        let ticket = heard.stamp().unwrap();
        assert!(heard.lets_pass(&ticket, "http://a/x", &[]));
        let purges = said(EPOCH_A, 9, Some(&[(NODE_A, "http://a/x"), (NODE_B, "http://a/y")]));
        assert_eq!(hear(&mut heard, purges), [Purge::Url("http://a/y".to_owned())], "its own it has carried out");
        for (url, passes) in [("http://a/x", false), ("http://a/y", false), ("http://a/z", true)] {
            assert_eq!(heard.lets_pass(&ticket, url, &[]), passes, "{url}");
        }
        assert!(heard.lets_pass(&heard.stamp().unwrap(), "http://a/x", &[]), "asked for afterwards");
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut heard = Heard::default();
        for n in 0..WAITING {
            heard.waiting.push((Purge::Url(n.to_string()), Manner::Soft));
        }
        heard.begin_to_tell();
        assert!(heard.telling.len() == WAITING && heard.waiting.is_empty());
        heard.waiting.push((Purge::Tag(b"t".to_vec()), Manner::Soft));
        heard.begin_to_tell();
        assert_eq!(heard.telling, [(Purge::All, Manner::Hard)]);
    }

    #[test]
    fn what_is_not_known_for_certain_is_not_given() {
        let mut heard = Heard::default();
        hear(&mut heard, said(EPOCH_A, 7, None));
        let ticket = heard.stamp().unwrap();
        let mut deaf = heard.clone();
        deaf.at = None;
        assert!(!deaf.lets_pass(&ticket, "u", &[]));
        let mut waiting = heard.clone();
        waiting.waiting.push((Purge::Url("u".to_owned()), Manner::Hard));
        assert!(!waiting.lets_pass(&ticket, "u", &[]) && waiting.lets_pass(&ticket, "v", &[]));
        for lost in [said("bbbbbbbbbbbbbbbb", 7, Some(&[])), said(EPOCH_A, 9, None), said(EPOCH_A, 9, Some(&[]))] {
            let mut heard = heard.clone();
            assert_eq!(hear(&mut heard, lost), [Purge::All]);
            assert!(!heard.lets_pass(&ticket, "u", &[]));
            assert!(heard.lets_pass(&heard.stamp().unwrap(), "u", &[]));
        }
    }
}

//! A limit that several gateways keep together, counted in Redis: by one call a request, or by tokens taken ahead.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use quick_cache::sync::Cache;
use tokio::time::timeout;

use super::{
    cell::{Cell, Debt},
    connection::TAKE,
    digest::{self, Keys},
    failure::Concern,
    policy::{OnStoreDown, SharedLimits},
    redis::{RedisStore, microseconds},
    share::Share,
    telling::{self, Tells},
};
use crate::{
    clock::Now,
    limit::{
        Answer, Ask, Decision, HOLD, IDLE, InvalidQuota, KeyHasher, KeyParts, LeaseStep, Limiter, Moment, Origin,
        SharedQuota, StoreDown, Take, Verdict, largest,
    },
    units::{CountPermit, fingerprint},
};

/// A key that is broken is asked for again after this.
const BROKEN: Duration = Duration::from_secs(1);

/// A limit that several gateways keep together.
#[derive(Clone)]
pub struct SharedLimiter(Arc<Inner>);

struct Inner {
    limits: SharedLimits,
    quota: SharedQuota,
    store: Arc<RedisStore>,
    /// The last part of every key: the limit's name and what it allows. One that is changed begins anew.
    suffix: String,
    share: Share,
    /// Of every client of whom something has passed here, also without the store.
    cells: Cache<u128, Arc<Cell>>,
    hasher: KeyHasher,
}

impl SharedLimiter {
    /// A limit that `store` counts.
    ///
    /// # Errors
    /// The store cannot reckon with this quota.
    pub fn new(limits: SharedLimits, store: Arc<RedisStore>) -> Result<Self, InvalidQuota> {
        let (quota, hasher) = (SharedQuota::new(&limits.quota)?, KeyHasher::new().ipv6_prefix(limits.ipv6_prefix));
        let name =
            format!("{}|{}/{:?}|{}", limits.scope, limits.quota.count(), limits.quota.per(), limits.quota.burst());
        let suffix = format!("{:016x}", fingerprint(&name));
        Ok(Self(Arc::new(Inner {
            quota,
            store,
            suffix,
            share: Share::new(limits.quota, limits.capacity),
            cells: Cache::new(limits.capacity),
            hasher,
            limits,
        })))
    }

    /// Tells the store what has passed here, each time that it comes back.
    pub fn keep_told(&self) -> impl Future<Output = ()> + Send + use<> {
        telling::keep_told(self.0.clone())
    }
}

impl fmt::Debug for SharedLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedLimiter").field("limits", &self.0.limits).field("store", &self.0.store).finish()
    }
}

impl Limiter for SharedLimiter {
    fn take(&self, parts: &dyn KeyParts, cost: u32, now: Moment) -> Take {
        let (inner, now) = (&self.0, now.since_start);
        let keys = inner.keys(parts);
        if !inner.store.has_begun() {
            // A configuration's own tests: nothing is shared, nobody is asked.
            return Take::Now(inner.share.take(keys.local, cost, 1, now).into());
        }
        if !inner.store.is_up() {
            return inner.clone().without_store(keys, cost, now);
        }
        if inner.limits.strict { inner.clone().strict(keys, cost, now) } else { inner.clone().lease(keys, cost, now) }
    }
}

impl Inner {
    fn keys(&self, parts: &dyn KeyParts) -> Keys {
        Keys::new(digest::of(parts, self.limits.ipv6_prefix), &self.hasher)
    }

    fn decide_alone(&self, keys: Keys, cost: u32, now: Duration) -> Result<Decision, StoreDown> {
        let policy = self.limits.on_store_down;
        self.store.metrics().without(policy.label());
        match policy {
            OnStoreDown::LocalShare => {
                let decision = Decision::from(self.share.take(keys.local, cost, self.store.gateways(), now)).alone();
                if decision.verdict.allowed() {
                    // The store must be told of it.
                    self.cell(keys);
                }
                Ok(decision)
            }
            OnStoreDown::Allow | OnStoreDown::Deny => Err(StoreDown("it does not answer".to_owned())),
        }
    }

    fn without_store(&self, keys: Keys, cost: u32, now: Duration) -> Take {
        match self.decide_alone(keys, cost, now) {
            Ok(decision) => Take::Now(decision),
            Err(down) => Take::Later(Box::pin(std::future::ready(Err(down)))),
        }
    }

    /// Has let pass what the store granted: so much less is left of the share here.
    fn charge(&self, keys: Keys, cost: u32, now: Duration) {
        self.share.charge(keys.local, cost, self.store.gateways(), now);
    }

    /// What has passed here and the store does not know of, the first time that it is asked in its generation.
    fn debt<'c>(&self, keys: Keys, cell: &'c Cell, generation: u64, now: Duration) -> Debt<'c> {
        let gateways = self.store.gateways();
        let recent = now.saturating_sub(self.store.since()) < self.share.refill(gateways);
        // Noted in any case: what the store lets pass from now on is no debt.
        if cell.told.swap(generation, Relaxed) == generation || !recent {
            return Debt { tokens: 0, told: None };
        }
        Debt { tokens: self.share.used(keys.local, gateways, now), told: Some(&cell.told) }
    }

    fn cell(&self, keys: Keys) -> Arc<Cell> {
        let made: Result<_, std::convert::Infallible> =
            self.cells.get_or_insert_with(&keys.shared, || Ok(Arc::default()));
        match made {
            Ok(cell) => cell,
            Err(never) => match never {},
        }
    }

    /// Asks the bucket.
    async fn ask(&self, keys: Keys, ask: Ask, debt: u32, node: &str) -> Result<Answer, Concern> {
        let SharedQuota { token, rate, full, .. } = self.quota;
        let divisor = if node.is_empty() { 1 } else { self.store.gateways().saturating_mul(2) };
        let name = keys.name(&self.suffix);
        let mut script = TAKE.key(&name);
        script.arg(token).arg(rate).arg(full);
        script.arg(ask.least).arg(ask.want).arg(ask.left).arg(ask.back).arg(debt).arg(divisor);
        script.arg(node).arg(self.store.next_call()).arg(microseconds(HOLD));
        script.arg(microseconds(Now::monotonic().saturating_sub(ask.spent)));
        let (granted, deficit, wait, others): (u32, u64, u64, u32) =
            self.store.call(&script, ask.generation).await.inspect_err(|concern| {
                if *concern == Concern::Key {
                    self.store.complaints.about(&name);
                }
            })?;
        Ok(Answer { granted, deficit, wait: Duration::from_micros(wait), others })
    }

    fn strict(self: Arc<Self>, keys: Keys, cost: u32, now: Duration) -> Take {
        if cost > self.limits.quota.burst() {
            let verdict = self.quota.verdict(0, 0, Some(Verdict::NEVER));
            return Take::Now(verdict.into());
        }
        Take::Later(Box::pin(async move {
            let (generation, cell) = (self.store.generation(), self.cell(keys));
            let debt = self.debt(keys, &cell, generation, now);
            let ask = Ask { least: cost, want: cost, left: 0, back: 0, spent: now, generation };
            match self.ask(keys, ask, debt.tokens, "").await {
                Ok(answer) => {
                    debt.paid();
                    let refused = (answer.granted < cost).then_some(answer.again().max(Duration::from_micros(1)));
                    if refused.is_none() {
                        self.charge(keys, cost, now);
                    }
                    Ok(self.quota.verdict(answer.deficit, 0, refused).into())
                }
                Err(_) => self.decide_alone(keys, cost, now),
            }
        }))
    }

    fn lease(self: Arc<Self>, keys: Keys, cost: u32, now: Duration) -> Take {
        if cost > self.limits.quota.burst() {
            return Take::Now(self.quota.verdict(0, 0, Some(Verdict::NEVER)).into());
        }
        let cell = self.cell(keys);
        if cell.is_broken(now) {
            return self.without_store(keys, cost, now);
        }
        match self.step(keys, &cell, cost, now) {
            Some(decision) => Take::Now(decision),
            None => Take::Later(Box::pin(async move {
                let limit = self.store.settings().timeout();
                match timeout(limit, self.wait(keys, &cell, cost)).await {
                    Ok(Some(decision)) => Ok(decision),
                    Ok(None) | Err(_) => self.decide_alone(keys, cost, Now::monotonic()),
                }
            })),
        }
    }

    /// Decides, if what is known here is enough; asks, if that is due.
    fn step(self: &Arc<Self>, keys: Keys, cell: &Arc<Cell>, cost: u32, now: Duration) -> Option<Decision> {
        let (generation, waiting) = (self.store.generation(), cell.waiting.load(Relaxed));
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        let most = largest(self.limits.quota.burst());
        let (ask, decision): (_, Option<Decision>) = {
            let mut lease = cell.lease.lock();
            match lease.take(cost, waiting, most, generation, now) {
                LeaseStep::Pass(ask) => (ask, Some(lease.verdict(&self.quota, None, now).into())),
                LeaseStep::Refuse(wait) => {
                    let wait = wait.max(Duration::from_micros(1));
                    let decision = Decision::from(lease.verdict(&self.quota, Some(wait), now));
                    let origin = if lease.is_withheld() { Origin::Withheld } else { Origin::Counted };
                    (None, Some(Decision { origin, ..decision }))
                }
                LeaseStep::Ask(ask) => (Some(ask), None),
                LeaseStep::Wait => (None, None),
            }
        };
        if decision.is_some_and(|decision| decision.verdict.allowed()) {
            self.charge(keys, cost, now);
        }
        if let Some(ask) = ask {
            // Its own task: the client that began it may leave.
            tokio::spawn(self.clone().fill(keys, cell.clone(), ask));
        }
        decision
    }

    /// Asks, until the request is decided; `None`: the store does not answer any more.
    async fn wait(self: &Arc<Self>, keys: Keys, cell: &Arc<Cell>, cost: u32) -> Option<Decision> {
        let _waiting = CountPermit::take(&cell.waiting);
        loop {
            let changed = cell.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = Now::monotonic();
            if !self.store.is_up() || cell.is_broken(now) {
                return None;
            }
            if let Some(decision) = self.step(keys, cell, cost, now) {
                return Some(decision);
            }
            changed.await;
        }
    }

    /// Asks for more, and tells those who wait.
    async fn fill(self: Arc<Self>, keys: Keys, cell: Arc<Cell>, ask: Ask) {
        let sent = Now::monotonic();
        let debt = self.debt(keys, &cell, ask.generation, sent);
        let answer = self.ask(keys, ask, debt.tokens, self.store.node()).await;
        if matches!(answer, Err(Concern::Key)) {
            // Whoever waits would only ask again.
            cell.broken.store(microseconds(Now::monotonic() + BROKEN), Relaxed);
        }
        let answer = answer.ok();
        if answer.is_some() {
            debt.paid();
        } else {
            drop(debt);
        }
        let most = largest(self.limits.quota.burst());
        cell.lease.lock().answered(ask, answer, most, sent, Now::monotonic());
        cell.changed.notify_waiters();
        if answer.is_some_and(|answer| answer.granted > 1) && !cell.watched.swap(true, Relaxed) {
            tokio::spawn(self.watch(keys, cell));
        }
    }

    /// Gives back what nobody uses.
    async fn watch(self: Arc<Self>, keys: Keys, cell: Arc<Cell>) {
        loop {
            tokio::time::sleep(IDLE).await;
            let idle = cell.lease.lock().idle(self.store.generation(), Now::monotonic());
            match idle {
                Ok(None) => {}
                Ok(Some(ask)) => {
                    // What is taken from now on is another one's to give back.
                    cell.watched.store(false, Relaxed);
                    let sent = Now::monotonic();
                    let answer = self.ask(keys, ask, 0, self.store.node()).await.ok();
                    let most = largest(self.limits.quota.burst());
                    cell.lease.lock().answered(ask, answer, most, sent, Now::monotonic());
                    cell.changed.notify_waiters();
                    return;
                }
                Err(()) => return cell.watched.store(false, Relaxed),
            }
        }
    }
}

impl Tells for Inner {
    fn store(&self) -> &RedisStore {
        &self.store
    }

    fn clients(&self) -> Vec<u128> {
        self.cells.iter().map(|(client, _)| client).collect()
    }

    fn counts(&self, client: u128, now: Moment) -> bool {
        let local = Keys::new(client, &self.hasher).local;
        self.share.used(local, self.store.gateways(), now.since_start) > 0
    }

    async fn tell(&self, client: u128, generation: u64, now: Moment) -> Result<(), Concern> {
        let (keys, now) = (Keys::new(client, &self.hasher), now.since_start);
        let Some(cell) = self.cells.get(&client) else { return Ok(()) };
        let debt = self.debt(keys, &cell, generation, now);
        if debt.tokens > 0 {
            let nothing = Ask { least: 0, want: 0, left: 0, back: 0, spent: now, generation };
            self.ask(keys, nothing, debt.tokens, "").await?;
        }
        debt.paid();
        Ok(())
    }
}

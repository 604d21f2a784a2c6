//! Several limits that gateways keep together, all taken or none, by one call a request; also one sliding window or one quota of
//! the calendar alone.
//!
//! What passes in a window or a period is counted in the store by gateway, and here too. When the store comes back, empty or not,
//! each gateway tells it what it has let pass itself; that is a total and no difference, so that nothing counts twice.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use quick_cache::sync::Cache;
use redis::ScriptInvocation;

use super::{
    cell::Debt,
    connection::TAKE_ALL,
    digest::{self, Keys},
    failure::Concern,
    policy::{OnStoreDown, SharedSettings},
    redis::RedisStore,
    set_member::Member,
    share::ShareClock,
    telling::{self, Tells},
};
use crate::{
    clock::Now,
    limit::{
        AnyTable, CalendarQuota, Decision, InvalidQuota, KeyHasher, KeyParts, Limiter, Locks, Moment, SharedQuota,
        StoreDown, Take, Verdict, take_all,
    },
    units::fingerprint,
};

/// Limits that several gateways keep together.
#[derive(Clone)]
pub struct SharedSet(Arc<Limits>);

struct Limits {
    settings: SharedSettings,
    members: Vec<Member>,
    /// The same tables.
    tables: Vec<AnyTable>,
    store: Arc<RedisStore>,
    clock: ShareClock,
    /// Between the calendar's clock and the other one, when this began: windows follow it, so that gateways' windows are the same.
    apart: Duration,
    locks: Locks,
    /// Of whom something has passed here, also without the store; and the generation whose store has been told what of buckets.
    clients: Cache<u128, Arc<AtomicU64>>,
    hasher: KeyHasher,
    /// Something has been decided without the store.
    alone: AtomicBool,
    /// The generation in which every bucket is full again that had something to tell.
    over: AtomicU64,
}

impl SharedSet {
    /// Tells the store what has passed here, each time that it comes back.
    pub fn keep_told(&self) -> impl Future<Output = ()> + Send + use<> {
        telling::keep_told(self.0.clone())
    }

    /// Limits that `store` counts; `tables` are theirs in this process, and nobody else's.
    ///
    /// # Errors
    /// The store cannot reckon with a quota.
    pub fn new(settings: SharedSettings, tables: Vec<AnyTable>, store: Arc<RedisStore>) -> Result<Self, InvalidQuota> {
        let member = |(place, table): (usize, &AnyTable)| -> Result<Member, InvalidQuota> {
            let (bucket, says) = match table {
                AnyTable::Bucket(table) => {
                    let quota = table.quota();
                    let says = format!("{}/{:?}|{}", quota.count(), quota.per(), quota.burst());
                    (Some(SharedQuota::new(quota)?), says)
                }
                AnyTable::Window(table) => {
                    (None, format!("window {}/{:?}", table.quota().count(), table.quota().per()))
                }
                AnyTable::Calendar(table) => {
                    (None, format!("{}/{}", table.quota().count(), table.quota().per().name()))
                }
            };
            let suffix = format!("{:016x}", fingerprint(&format!("{}#{place}|{says}", settings.scope)));
            Ok(Member { table: table.clone(), bucket, suffix })
        };
        Ok(Self(Arc::new(Limits {
            members: tables.iter().enumerate().map(member).collect::<Result<_, _>>()?,
            tables,
            store,
            clock: ShareClock::default(),
            apart: Now::calendar().saturating_sub(Now::monotonic()),
            locks: Locks::default(),
            clients: Cache::new(settings.capacity),
            hasher: KeyHasher::new(),
            alone: AtomicBool::new(false),
            over: AtomicU64::new(0),
            settings,
        })))
    }
}

impl fmt::Debug for SharedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        list.entry(&self.0.settings).entry(&self.0.store);
        for member in &self.0.members {
            list.entry(&member.suffix);
        }
        list.finish()
    }
}

impl Limiter for SharedSet {
    fn take(&self, parts: &dyn KeyParts, cost: u32, now: Moment) -> Take {
        let inner = &self.0;
        let keys = inner.keys(parts);
        if !inner.store.has_begun() {
            // A configuration's own tests: nothing is shared, nobody is asked.
            return Take::Now(inner.share(keys, cost, 1, now));
        }
        let inner = inner.clone();
        if !inner.store.is_up() {
            return match inner.decide_alone(keys, cost, now) {
                Ok(decision) => Take::Now(decision),
                Err(down) => Take::Later(Box::pin(std::future::ready(Err(down)))),
            };
        }
        Take::Later(Box::pin(async move {
            match inner.ask(keys, cost, now).await {
                Ok(decision) => Ok(decision),
                Err(_) => inner.decide_alone(keys, cost, now),
            }
        }))
    }
}

impl Limits {
    fn keys(&self, parts: &dyn KeyParts) -> Keys {
        Keys::new(digest::of(parts, self.settings.ipv6_prefix), &self.hasher)
    }

    /// Of this client something has passed here, or is about to.
    fn remember(&self, keys: Keys) -> Arc<AtomicU64> {
        let made: Result<_, std::convert::Infallible> =
            self.clients.get_or_insert_with(&keys.shared, || Ok(Arc::default()));
        match made {
            Ok(told) => told,
            Err(never) => match never {},
        }
    }

    /// The time for a table: of buckets it runs slower where the rate is divided, and windows begin with the calendar's.
    fn moment(&self, table: &AnyTable, gateways: u32, now: Moment) -> Moment {
        let since_start = match table {
            AnyTable::Bucket(_) => self.clock.time(gateways, now.since_start),
            AnyTable::Window(table) => now.since_start + Self::into(self.apart, table.quota().per()),
            AnyTable::Calendar(_) => now.since_start,
        };
        Moment { since_start, ..now }
    }

    /// How far `time` is in a window of this length.
    fn into(time: Duration, per: Duration) -> Duration {
        let nanos = time.as_nanos() % per.as_nanos().max(1);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }

    /// Decides by this gateway's part of every limit.
    fn share(&self, keys: Keys, cost: u32, gateways: u32, now: Moment) -> Decision {
        let gateways = gateways.max(1);
        let most = |table: &AnyTable| (table.most() / gateways).max(1);
        let part = |table: &AnyTable| (most(table), self.moment(table, gateways, now));
        let open = Verdict { limit: u32::MAX, remaining: u32::MAX, reset: Duration::ZERO, retry: None };
        let all = take_all(&self.tables, &self.locks, keys.local, cost, part);
        let Some((Decision { verdict, of, .. }, table)) = all.and_then(|all| Some((all, self.tables.get(all.of)?)))
        else {
            return open.into();
        };
        let slower = if matches!(table, AnyTable::Bucket(_)) { gateways } else { 1 };
        let real = |time: Duration| time.saturating_mul(slower);
        let verdict = Verdict {
            limit: most(table),
            remaining: verdict.remaining.saturating_sub(table.most() - most(table)),
            reset: real(verdict.reset),
            retry: verdict.retry.map(real),
        };
        Decision { of, ..verdict.into() }
    }

    fn decide_alone(&self, keys: Keys, cost: u32, now: Moment) -> Result<Decision, StoreDown> {
        let policy = self.settings.on_store_down;
        self.store.metrics().without(policy.label());
        match policy {
            OnStoreDown::LocalShare => {
                self.alone.store(true, Relaxed);
                let decision = self.share(keys, cost, self.store.gateways(), now).alone();
                if decision.verdict.allowed() {
                    // The store must be told of it.
                    self.remember(keys);
                }
                Ok(decision)
            }
            OnStoreDown::Allow | OnStoreDown::Deny => Err(StoreDown("it does not answer".to_owned())),
        }
    }

    /// Six arguments for each limit, as the script reads them.
    fn arguments(
        &self,
        member: &Member,
        keys: Keys,
        (debts, tells): (bool, bool),
        now: Moment,
    ) -> (&'static str, [u64; 5]) {
        let gateways = self.store.gateways().max(1);
        match &member.table {
            AnyTable::Bucket(table) => {
                let SharedQuota { token, rate, full, .. } = member.bucket.unwrap_or(SharedQuota::NOTHING);
                let time = self.clock.time(gateways, now.since_start);
                let used = || table.quota().burst() - table.look(keys.local, 0, 0, time).remaining;
                ("bucket", [token, rate, full, if debts { used().into() } else { 0 }, 0])
            }
            AnyTable::Window(table) => {
                let window = table.quota();
                let (number, current, previous) = window.read(table.state(keys.local));
                let before = u64::try_from(self.apart.as_nanos() / window.per().as_nanos().max(1)).unwrap_or(0);
                let number = if tells { number + before } else { 0 };
                let length = u64::try_from(window.per().as_micros()).unwrap_or(u64::MAX);
                ("window", [length, window.count().into(), number, current, previous])
            }
            AnyTable::Calendar(table) => {
                let (number, used) = CalendarQuota::read(table.state(keys.local));
                let quota = table.quota();
                (quota.per().name(), [0, quota.count().into(), if tells { number } else { 0 }, used.into(), 0])
            }
        }
    }

    /// What of buckets has passed here and the store does not know of, the first time that it is asked in its generation.
    fn debt(told: &AtomicU64, generation: u64) -> Option<Debt<'_>> {
        (told.swap(generation, Relaxed) != generation).then(|| Debt { tokens: 0, told: Some(told) })
    }

    /// Until every bucket is full again after the store has come back.
    fn is_recent(&self, now: Moment) -> bool {
        let refill = |table: &AnyTable| match table {
            AnyTable::Bucket(table) => table.quota().refill(),
            _ => Duration::ZERO,
        };
        // It does not begin again when there are more gateways: what the store has let pass since then is no debt.
        let generation = self.store.generation();
        if self.over.load(Relaxed) == generation {
            return false;
        }
        let gateways = self.store.gateways().max(1);
        let longest = self.tables.iter().map(refill).max().unwrap_or_default().saturating_mul(gateways);
        let is_recent = now.since_start.saturating_sub(self.store.since()) < longest;
        if !is_recent {
            self.over.store(generation, Relaxed);
        }
        is_recent
    }

    fn script(&self, keys: Keys, cost: u32, tells: (bool, bool), now: Moment) -> ScriptInvocation<'static> {
        let mut script = TAKE_ALL.prepare_invoke();
        script.arg(self.store.node()).arg(cost);
        for member in &self.members {
            let (kind, numbers) = self.arguments(member, keys, tells, now);
            script.key(keys.name(&member.suffix)).arg(kind);
            for number in numbers {
                script.arg(number);
            }
        }
        script
    }

    /// Asks the store.
    async fn ask(&self, keys: Keys, cost: u32, now: Moment) -> Result<Decision, Concern> {
        if let Some((of, table)) = self.tables.iter().enumerate().find(|(_, table)| cost > table.most()) {
            let verdict = Verdict { retry: Some(Verdict::NEVER), ..table.look(keys.local, 0, 0, now) };
            return Ok(Decision { of, ..verdict.into() });
        }
        let generation = self.store.generation();
        let told = self.is_recent(now).then(|| self.remember(keys));
        let debt = told.as_deref().and_then(|told| Self::debt(told, generation));
        let tells = (debt.is_some(), generation > 1 || self.alone.load(Relaxed));
        let script = self.script(keys, cost, tells, now);
        let answer: Vec<u64> = self.store.call(&script, generation).await.inspect_err(|concern| {
            if *concern == Concern::Key {
                self.store.complaints.about(&keys.name("*"));
            }
        })?;
        if let Some(debt) = debt {
            debt.paid();
        }
        let passes = answer.first() == Some(&1);
        if passes {
            if told.is_none() {
                self.remember(keys);
            }
            for member in &self.members {
                let moment = self.moment(&member.table, self.store.gateways().max(1), now);
                member.table.take(keys.local, cost, member.table.most(), moment);
            }
        }
        let verdicts = self.members.iter().zip(answer.get(1..).unwrap_or_default().chunks_exact(4));
        Decision::of_all(verdicts.map(|(member, numbers)| member.verdict(numbers))).ok_or(Concern::Key)
    }
}

impl Tells for Limits {
    fn store(&self) -> &RedisStore {
        &self.store
    }

    fn clients(&self) -> Vec<u128> {
        self.clients.iter().map(|(client, _)| client).collect()
    }

    fn counts(&self, client: u128, now: Moment) -> bool {
        let (local, gateways) = (Keys::new(client, &self.hasher).local, self.store.gateways().max(1));
        self.tables.iter().any(|table| {
            let seen = table.look(local, 0, table.most(), self.moment(table, gateways, now));
            seen.remaining < seen.limit
        })
    }

    async fn tell(&self, client: u128, generation: u64, now: Moment) -> Result<(), Concern> {
        let told = self.clients.get(&client).filter(|_| self.is_recent(now));
        let debt = told.as_deref().and_then(|told| Self::debt(told, generation));
        let script = self.script(Keys::new(client, &self.hasher), 0, (debt.is_some(), true), now);
        self.store.call::<Vec<u64>>(&script, generation).await?;
        if let Some(debt) = debt {
            debt.paid();
        }
        Ok(())
    }
}

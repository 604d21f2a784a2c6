//! Several limits that gateways keep together, all taken or none, by one call a request; also one sliding window or one quota of
//! the calendar alone.
//!
//! What passes in a window or a period is counted in the store by gateway, and here too. When the store comes back, empty or not,
//! each gateway tells it what it has let pass itself; that is a total and no difference, so that nothing counts twice.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use quick_cache::sync::Cache;
use redis::ScriptInvocation;

use super::{
    cell::{Cell, Debt},
    connection::TAKE_ALL,
    digest,
    failure::Concern,
    policy::{OnStoreDown, SharedSettings},
    redis::RedisStore,
    set_member::Member,
    share::ShareClock,
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
    cells: Cache<u128, Arc<Cell>>,
    /// Who has passed, where a limit counts for longer than an outage may last.
    clients: Cache<u128, ()>,
    hasher: KeyHasher,
    /// Something has been decided without the store.
    alone: AtomicBool,
}

/// A client's key, in Redis and in the tables of this process.
#[derive(Clone, Copy)]
struct Keys {
    shared: u128,
    local: u64,
}

impl SharedSet {
    /// Tells the store what has passed here, each time that it comes back; `None` where nobody would miss it.
    pub fn keep_told(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let (limits, counts) = (self.0.clone(), self.0.counts_long());
        counts.then_some(async move {
            let mut told = limits.store.generation();
            loop {
                let returned = limits.store.returned();
                tokio::pin!(returned);
                returned.as_mut().enable();
                let generation = limits.store.generation();
                if generation != told && limits.store.is_up() {
                    limits.tell_all().await;
                    told = generation;
                }
                returned.await;
            }
        })
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
            cells: Cache::new(settings.capacity),
            clients: Cache::new(settings.capacity),
            hasher: KeyHasher::new(),
            alone: AtomicBool::new(false),
            settings,
        })))
    }
}

/// So many clients are told of at a time.
const AT_ONCE: usize = 64;

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
        self.keys_of(digest::of(parts, self.settings.ipv6_prefix))
    }

    fn keys_of(&self, shared: u128) -> Keys {
        // The tables' own keys must not be foreseeable; the lower half is as good as all of it.
        let low = u64::try_from(shared & u128::from(u64::MAX)).unwrap_or(0);
        Keys { shared, local: self.hasher.key("").number(low).finish() }
    }

    /// One of them is no bucket, which would be full again soon.
    fn counts_long(&self) -> bool {
        self.tables.iter().any(|table| !matches!(table, AnyTable::Bucket(_)))
    }

    fn name(keys: Keys, member: &Member) -> String {
        format!("tollgate:{{{:032x}}}:{}", keys.shared, member.suffix)
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
                Ok(self.share(keys, cost, self.store.gateways(), now).alone())
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

    /// What has passed here and the store does not know of, the first time that it is asked in its generation.
    fn debt(cell: Option<&Arc<Cell>>, generation: u64) -> Option<Debt<'_>> {
        let cell = cell?;
        (cell.told.swap(generation, Relaxed) != generation).then(|| Debt { tokens: 0, told: Some(&cell.told) })
    }

    /// Until every bucket is full again after the store has come back.
    fn is_recent(&self, now: Moment) -> bool {
        let refill = |table: &AnyTable| match table {
            AnyTable::Bucket(table) => table.quota().refill(),
            _ => Duration::ZERO,
        };
        let longest = self.tables.iter().map(refill).max().unwrap_or_default().saturating_mul(self.clock.gateways());
        now.since_start.saturating_sub(self.store.since()) < longest
    }

    fn script(&self, keys: Keys, cost: u32, tells: (bool, bool), now: Moment) -> ScriptInvocation<'static> {
        let mut script = TAKE_ALL.prepare_invoke();
        script.arg(self.store.node()).arg(cost);
        for member in &self.members {
            let (kind, numbers) = self.arguments(member, keys, tells, now);
            script.key(Self::name(keys, member)).arg(kind);
            for number in numbers {
                script.arg(number);
            }
        }
        script
    }

    /// Tells the store what has passed here, of every client that it may have forgotten: the others may be asked for them first.
    async fn tell_all(&self) {
        let generation = self.store.generation();
        let clients: Vec<u128> = self.clients.iter().map(|(client, ())| client).collect();
        for some in clients.chunks(AT_ONCE) {
            let now = Now::read();
            let now = Moment { since_start: now.since_start, unix: Duration::from_secs(now.unix) };
            let scripts: Vec<_> =
                some.iter().map(|client| self.script(self.keys_of(*client), 0, (false, true), now)).collect();
            let calls = scripts.iter().map(|script| self.store.call::<Vec<u64>>(script, generation));
            futures_util::future::join_all(calls).await;
        }
    }

    /// Asks the store.
    async fn ask(&self, keys: Keys, cost: u32, now: Moment) -> Result<Decision, Concern> {
        if let Some((of, table)) = self.tables.iter().enumerate().find(|(_, table)| cost > table.most()) {
            let verdict = Verdict { retry: Some(Verdict::NEVER), ..table.look(keys.local, 0, 0, now) };
            return Ok(Decision { of, ..verdict.into() });
        }
        let generation = self.store.generation();
        let made: Option<Result<_, std::convert::Infallible>> =
            self.is_recent(now).then(|| self.cells.get_or_insert_with(&keys.shared, || Ok(Arc::default())));
        let cell = made.and_then(Result::ok);
        let debt = Self::debt(cell.as_ref(), generation);
        let tells = (debt.is_some(), generation > 1 || self.alone.load(Relaxed));
        let script = self.script(keys, cost, tells, now);
        let answer: Vec<u64> = self.store.call(&script, generation).await.inspect_err(|concern| {
            if *concern == Concern::Key {
                self.store.complaints.about(&format!("tollgate:{{{:032x}}}:*", keys.shared));
            }
        })?;
        if let Some(debt) = debt {
            debt.paid();
        }
        let passes = answer.first() == Some(&1);
        if passes {
            if self.counts_long() && self.clients.get(&keys.shared).is_none() {
                self.clients.insert(keys.shared, ());
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

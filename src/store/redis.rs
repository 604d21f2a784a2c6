//! The store of this process: one connection, looked after in the background, and whether it answers.
//!
//! A request asks only while the store is known to answer. After [`FAILURES`] calls in a row that failed nobody asks any more, and if
//! they were merely late, when none was answered for a whole time limit either: a pause of the store fails many calls at once; after [`PAUSE`] the background task makes a new connection and asks for itself, and when that is answered
//! requests ask again. So no request is ever the one that finds out.
//!
//! Each time counts as a new *generation*: the store may have lost what it knew, and what it does not know of has passed meanwhile.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::{Script, ScriptInvocation};
use tokio::{
    sync::{Notify, Semaphore},
    time::timeout,
};

use super::{
    connection::Connection,
    failure::{Complaints, Concern, Failure, told},
    metrics::StoreMetrics,
    missed::MissedNonces,
    settings::RedisSettings,
    state::StoreState,
};
use crate::clock::Now;

/// So many failures in a row are no accident.
const FAILURES: u32 = 3;

/// Time from one attempt to reach a store that does not answer to the next.
const PAUSE: Duration = Duration::from_millis(500);

/// Time from one announcement of this gateway to the next.
const BEAT: Duration = Duration::from_secs(1);

/// A gateway that has not announced itself for so long is gone.
const LATELY: Duration = Duration::from_secs(5);

/// The background task can wait longer than a request: a store that is merely slow is not gone for it.
const PATIENCE: Duration = Duration::from_millis(500);

/// The list of gateways.
const GATEWAYS: &str = "tollgate:{gateways}";

/// A Redis that gateways share.
pub struct RedisStore {
    settings: RedisSettings,
    metrics: Arc<StoreMetrics>,
    /// Who this process is, among gateways: another one with every start.
    node: String,
    connection: ArcSwapOption<Connection>,
    /// Somebody looks after it. A configuration that only its own tests use has nobody.
    begun: AtomicBool,
    settled: AtomicBool,
    up: AtomicBool,
    failures: AtomicU32,
    /// When the first of them was, in microseconds.
    failing: AtomicU64,
    generation: AtomicU64,
    /// When this generation began, in microseconds.
    since: AtomicU64,
    gateways: AtomicU32,
    /// When there were so many last.
    counted: Mutex<Duration>,
    /// Numbers for calls.
    calls: AtomicU64,
    lost: Notify,
    returned: Notify,
    changed: Mutex<Option<(Duration, String)>>,
    pub(super) complaints: Complaints,
    pub(super) missed: MissedNonces,
    /// Whose turn it is to tell what has passed.
    pub(super) telling: Semaphore,
    announce: Script,
}

impl RedisStore {
    /// The store that `settings` name. Nothing is asked of it before [`RedisStore::run_background`].
    pub fn new(settings: RedisSettings, metrics: Arc<StoreMetrics>) -> Arc<Self> {
        Arc::new(Self {
            settings,
            metrics,
            node: format!("{:016x}", fastrand::u64(..)),
            connection: ArcSwapOption::empty(),
            begun: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            up: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            failing: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            since: AtomicU64::new(0),
            gateways: AtomicU32::new(1),
            counted: Mutex::default(),
            calls: AtomicU64::new(0),
            lost: Notify::new(),
            returned: Notify::new(),
            changed: Mutex::new(None),
            complaints: Complaints::default(),
            missed: MissedNonces::default(),
            telling: Semaphore::new(1),
            announce: Script::new(include_str!("announce.lua")),
        })
    }

    /// What it was made of.
    pub fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    /// How it is.
    pub fn state(&self) -> StoreState {
        match (self.is_up(), self.settled.load(Relaxed)) {
            (true, _) => StoreState::Up,
            (false, true) => StoreState::Down,
            (false, false) => StoreState::Connecting,
        }
    }

    /// When its state changed last, and why.
    pub fn changed(&self) -> Option<(Duration, String)> {
        self.changed.lock().clone()
    }

    /// True when the first attempt to reach it has ended, however it did.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Relaxed)
    }

    /// How many gateways it has seen lately, this one among them.
    pub fn gateways(&self) -> u32 {
        self.gateways.load(Relaxed)
    }

    /// Requests may ask it.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Acquire)
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Relaxed)
    }

    /// Which time it is that the store answers.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    pub(super) fn since(&self) -> Duration {
        Duration::from_micros(self.since.load(Acquire))
    }

    pub(super) fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// A number that is larger than those before.
    pub(super) fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Relaxed) + 1
    }

    /// Runs a script, within the time that a request has for it.
    ///
    /// # Errors
    /// The store does not answer, or is known not to.
    pub(super) async fn call<T: redis::FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
        generation: u64,
    ) -> Result<T, Concern> {
        let connection = self.connection.load_full().filter(|_| self.is_up());
        let Some(connection) = connection else { return Err(Concern::Store) };
        match self.ask(&connection, script, self.settings.timeout).await {
            Ok(answer) => {
                // Read first: this line is in every processor's cache, as long as nobody writes to it.
                if self.failures.load(Relaxed) != 0 {
                    self.failures.store(0, Relaxed);
                }
                Ok(answer)
            }
            Err(failure) => {
                // What an older connection was asked says nothing of this one.
                if self.generation() == generation && self.is_lost(&failure) {
                    self.down(&failure.reason);
                }
                Err(failure.concern)
            }
        }
    }

    /// One more failure: whether it was one too many.
    fn is_lost(&self, failure: &Failure) -> bool {
        if failure.concern == Concern::Key {
            return false;
        }
        let now = microseconds(Now::monotonic());
        let count = self.failures.fetch_add(1, Relaxed) + 1;
        if count == 1 {
            self.failing.store(now, Relaxed);
        }
        let long = now.saturating_sub(self.failing.load(Relaxed)) >= microseconds(self.settings.timeout);
        count >= FAILURES && (long || failure.concern != Concern::Late)
    }

    async fn ask<T: redis::FromRedisValue>(
        &self,
        connection: &Connection,
        script: &ScriptInvocation<'_>,
        limit: Duration,
    ) -> Result<T, Failure> {
        let (begun, mut connection) = (Instant::now(), connection.clone());
        match timeout(limit, script.invoke_async(&mut connection)).await {
            Ok(Ok(answer)) => {
                self.metrics.answered(begun.elapsed());
                Ok(answer)
            }
            Ok(Err(e)) => {
                self.metrics.failed("error");
                Err(Failure::new(&e))
            }
            Err(_) => {
                self.metrics.failed("timeout");
                Err(Failure { reason: format!("no answer within {limit:?}"), concern: Concern::Late })
            }
        }
    }

    /// From now on nobody asks.
    fn down(&self, reason: &str) {
        let (was_up, was_settled) = (self.up.swap(false, Release), self.settled.swap(true, Relaxed));
        self.metrics.up.set(0);
        if was_up || !was_settled {
            log::warn!("redis: not available, limits do without it: {reason}");
            *self.changed.lock() = Some((Now::monotonic(), reason.to_owned()));
            self.lost.notify_one();
        }
    }

    fn up(&self, connection: Connection) {
        self.connection.store(Some(Arc::new(connection)));
        self.failures.store(0, Relaxed);
        self.since.store(microseconds(Now::monotonic()), Release);
        self.generation.fetch_add(1, Release);
        self.up.store(true, Release);
        self.metrics.up.set(1);
        log::info!("redis: available, with {} gateways", self.gateways());
        *self.changed.lock() = Some((Now::monotonic(), "it answers".to_owned()));
        self.settled.store(true, Relaxed);
        self.returned.notify_waiters();
    }

    /// Ends when it answers again.
    pub(super) fn returned(&self) -> tokio::sync::futures::Notified<'_> {
        self.returned.notified()
    }

    /// Says that this gateway is there, and learns how many there are.
    async fn announce(&self, connection: &Connection) -> Result<(), String> {
        let mut script = self.announce.prepare_invoke();
        script.key(GATEWAYS).arg(&self.node).arg(u64::try_from(LATELY.as_millis()).unwrap_or(u64::MAX));
        let limit = PATIENCE.max(self.settings.timeout);
        let count: u32 = self.ask(connection, &script, limit).await.map_err(|failure| failure.reason)?;
        self.count_gateways(count.max(1), Now::monotonic());
        Ok(())
    }

    async fn tell_missed(&self, connection: &Connection) -> Result<(), String> {
        let ask = |script| async move { self.ask(connection, &script, PATIENCE.max(self.settings.timeout)).await };
        self.missed.tell(ask).await.map_err(|failure| failure.reason)
    }

    /// A store that has begun anew knows one gateway, and then the others: fewer are believed in only after a while.
    fn count_gateways(&self, count: u32, now: Duration) {
        let mut counted = self.counted.lock();
        if count >= self.gateways() || now.saturating_sub(*counted) >= LATELY {
            self.gateways.store(count, Relaxed);
            self.metrics.gateways.set(i64::from(count));
            *counted = now;
        }
    }

    /// Keeps a connection, and finds out whether the store answers.
    pub async fn run_background(&self) {
        self.begun.store(true, Relaxed);
        loop {
            if let Err(reason) = self.serve().await {
                self.down(&reason);
                self.connection.store(None);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Serves with one connection, until it is lost.
    async fn serve(&self) -> Result<(), String> {
        // Names may take their time to be looked up, and a Sentinel to be asked.
        let opened = timeout(4 * PATIENCE, Connection::open(&self.settings)).await;
        let connection = opened.map_err(|_| "no connection in time".to_owned())?.map_err(|e| told(&e))?;
        // Whoever it does not know yet may have been away as long as it has.
        *self.counted.lock() = Now::monotonic();
        self.announce(&connection).await?;
        self.tell_missed(&connection).await?;
        self.up(connection.clone());
        loop {
            self.tell_missed(&connection).await?;
            tokio::select! {
                () = tokio::time::sleep(BEAT) => {}
                () = self.lost.notified() => {}
            }
            if !self.is_up() {
                self.connection.store(None);
                return Ok(());
            }
            self.announce(&connection).await?;
        }
    }
}

pub(super) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

// Whether it answers is no setting: a configuration must look the same before and after traffic.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisStore").field(&self.settings).finish()
    }
}

//! Answers that gateways keep together in Redis, as bytes, and the purges that all of them are to follow.
//!
//! A connection of its own: a large answer must not make a limit wait. Who uses it never waits for a store that does not answer:
//! calls have a time limit, and after a few failures in a row there are none until the background task has been answered again.

use std::{
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{
            AtomicBool, AtomicU32,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use redis::{FromRedisValue, Script, ScriptInvocation};
use tokio::time::timeout;

use super::{
    connection::Connection,
    failure::{Complaints, told},
    settings::RedisSettings,
};

static GET: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("cache_get.lua")));
static PUT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("cache_put.lua")));
static PURGES: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("cache_purges.lua")));

/// So many failures in a row are no accident.
const FAILURES: u32 = 3;

/// The background task can wait longer than a request.
const PATIENCE: Duration = Duration::from_secs(2);

/// So many purges are remembered: whoever has not asked for longer takes all answers for purged.
const LOG: usize = 8192;

const STATE: &str = "tollgate:{cache}:state";
const LOGGED: &str = "tollgate:{cache}:purges";

/// What was found under a name.
#[derive(Debug)]
pub struct Found {
    /// The fields by which variants are told apart; empty for an answer to all requests.
    pub vary: String,
    /// The answer, and for how long it has been kept there.
    pub entry: Option<(Vec<u8>, Duration)>,
}

/// The purges that there are.
#[derive(Debug)]
pub struct Purges {
    /// Another one whenever the numbers begin anew.
    pub epoch: String,
    /// The number of the last purge.
    pub number: u64,
    /// Those after the number that was known; `None` when they are not all known any more.
    pub since: Option<Vec<Vec<u8>>>,
}

/// Why there is no answer of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// It is known not to answer.
    Down,
    /// It did not, in time.
    Late,
    /// It answered with an error.
    Error,
}

/// Answers that gateways keep together.
pub struct SharedAnswers {
    settings: RedisSettings,
    timeout: Duration,
    connection: ArcSwapOption<Connection>,
    up: AtomicBool,
    failures: AtomicU32,
    complaints: Complaints,
}

impl SharedAnswers {
    /// Those in the store of `settings`. A request waits for `timeout` at most.
    pub fn new(settings: RedisSettings, timeout: Duration) -> Arc<Self> {
        let (connection, up, failures) = (ArcSwapOption::empty(), AtomicBool::new(false), AtomicU32::new(0));
        Arc::new(Self { settings, timeout, connection, up, failures, complaints: Complaints::default() })
    }

    /// True while requests ask.
    pub fn is_up(&self) -> bool {
        self.up.load(Acquire)
    }

    /// Looks for a variant of what has this name.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn get(&self, name: &str, variant: &str) -> Result<Found, NoAnswer> {
        let name = format!("tollgate:{{{name}}}:answer");
        let mut script = GET.key(&name);
        script.arg(variant);
        let (vary, entry, kept): (Option<String>, Option<Vec<u8>>, Option<u64>) = self.ask(&script).await?;
        let entry = entry.zip(kept).map(|(entry, kept)| (entry, Duration::from_millis(kept)));
        Ok(Found { vary: vary.unwrap_or_default(), entry })
    }

    /// Keeps a variant of what has this name.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn put(
        &self,
        name: &str,
        vary: &str,
        variant: &str,
        entry: &[u8],
        ttl: Duration,
    ) -> Result<(), NoAnswer> {
        /// As many variants of one name as in memory.
        const VARIANTS: u32 = 32;
        let name = format!("tollgate:{{{name}}}:answer");
        let mut script = PUT.key(&name);
        script.arg(vary).arg(variant).arg(entry).arg(milliseconds(ttl)).arg(VARIANTS);
        self.ask::<u8>(&script).await.map(drop)
    }

    async fn ask<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, NoAnswer> {
        let connection = self.connection.load_full().filter(|_| self.is_up()).ok_or(NoAnswer::Down)?;
        let mut connection = (*connection).clone();
        let failed = match timeout(self.timeout, script.invoke_async(&mut connection)).await {
            Ok(Ok(answer)) => {
                if self.failures.load(Relaxed) != 0 {
                    self.failures.store(0, Relaxed);
                }
                return Ok(answer);
            }
            // Whatever it says, it answers: it may be full, and what is there can be read all the same.
            Ok(Err(e)) if e.code().is_some() => {
                if self.complaints.due() {
                    log::warn!("cache: redis refuses what it is asked for: {}", told(&e));
                }
                return Err(NoAnswer::Error);
            }
            Ok(Err(_)) => NoAnswer::Error,
            Err(_) => NoAnswer::Late,
        };
        if self.failures.fetch_add(1, Relaxed) + 1 >= FAILURES {
            self.close("several calls in a row were not answered");
        }
        Err(failed)
    }

    /// Connects, if there is no connection that answers. Requests do not ask before [`SharedAnswers::open`].
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(&self) -> Result<(), String> {
        if self.connection.load().is_some() && self.is_up() {
            return Ok(());
        }
        let opened = timeout(PATIENCE, Connection::open(&self.settings)).await;
        let mut connection = opened.map_err(|_| "no connection in time".to_owned())?.map_err(|e| told(&e))?;
        for script in [&GET, &PUT, &PURGES] {
            let loaded = timeout(PATIENCE, script.load_async(&mut connection)).await;
            loaded.map_err(|_| "no answer in time".to_owned())?.map_err(|e| told(&e))?;
        }
        self.connection.store(Some(Arc::new(connection)));
        Ok(())
    }

    /// From now on requests ask.
    pub fn open(&self) {
        self.failures.store(0, Relaxed);
        if !self.up.swap(true, Release) {
            log::info!("cache: redis is available");
        }
    }

    /// From now on none does.
    pub fn close(&self, reason: &str) {
        if self.up.swap(false, Release) {
            log::warn!("cache: redis is not available, answers are kept in memory alone: {reason}");
        }
        self.connection.store(None);
    }

    /// Tells all gateways of `new` purges, and learns of theirs after the one of this `number` in this `epoch`.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn purges(&self, epoch: &str, number: u64, new: &[Vec<u8>]) -> Result<Purges, String> {
        let connection = self.connection.load_full().ok_or("there is no connection")?;
        let mut connection = (*connection).clone();
        let mut script = PURGES.key(STATE);
        script.key(LOGGED).arg(format!("{:016x}", fastrand::u64(..))).arg(epoch).arg(number);
        script.arg(LOG);
        for purge in new {
            script.arg(purge.as_slice());
        }
        let asked = timeout(PATIENCE, script.invoke_async(&mut connection)).await;
        let answer: (String, u64, u8, Vec<Vec<u8>>) =
            asked.map_err(|_| "no answer in time".to_owned())?.map_err(|e| told(&e))?;
        let (epoch, number, complete, since) = answer;
        Ok(Purges { epoch, number, since: (complete == 1).then_some(since) })
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

// Whether it answers is no setting.
impl fmt::Debug for SharedAnswers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedAnswers({:?}, {:?})", self.settings, self.timeout)
    }
}

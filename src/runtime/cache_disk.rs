//! Answers on disk, behind memory: what that pushes out is written to files, and read again when somebody asks for it. Nobody who
//! serves waits for a disk longer than it is told to; one that fails is left alone for a while.

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::HeaderMap;
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use super::{
    disk_answer,
    disk_files::{self, Folder},
    disk_left::{self, Mark},
};
use crate::{
    cache::{
        disk::{Disk, Spot},
        disk_config::DiskConfig,
        entry::Entry,
        key::{Key, Keys},
        memory::Memory,
        metrics::DiskMetrics,
        overflow::Sink,
        shared::Cache,
        variants::Variants,
    },
    clock::Now,
    units::CountPermit,
};

/// So many keys wait to be written; more are dropped.
const WAITING: usize = 64;
/// So many files are read at a time; more are left out.
const READS: usize = 64;
/// A file that takes longer to write is a failure, and nothing is tried until it is written.
const LONGEST_WRITE: Duration = Duration::from_secs(5);
/// So many failures one after another, and nothing is tried for a while.
const FAILURES: u32 = 3;
/// For so long.
const PAUSE: Duration = Duration::from_secs(10);
/// Nor is anything tried while so many reads hang.
const HUNG: usize = 3;
/// Time from one look to the next at what is to be removed.
const BEAT: Duration = Duration::from_secs(1);
/// What fails is told of once in this time.
const TELLING: Duration = Duration::from_secs(60);
/// Time from one look to the next for what other processes have left.
const SWEEP: Duration = Duration::from_secs(60);

/// What memory has pushed out, and when that was as far as purges are concerned.
struct Pushed {
    variants: Arc<Variants>,
    ticket: u64,
}

/// Answers on disk.
pub struct CacheDisk {
    /// What is where.
    pub known: Arc<Disk>,
    config: DiskConfig,
    folder: OnceLock<Arc<Folder>>,
    queue: mpsc::Sender<Pushed>,
    pushed: Mutex<Option<mpsc::Receiver<Pushed>>>,
    reads: Arc<AtomicUsize>,
    /// Reads that nobody waits for any more, and that have not come to an end.
    hung: Arc<AtomicUsize>,
    failures: AtomicU32,
    paused: AtomicBool,
    told: Mutex<Option<Duration>>,
    metrics: Arc<DiskMetrics>,
}

impl CacheDisk {
    /// Those of this configuration: the ones before, when that is no other. No file is touched before
    /// [`CacheDisk::run_background`].
    pub fn build(config: &DiskConfig, metrics: &Arc<DiskMetrics>, before: Option<Arc<Self>>) -> Arc<Self> {
        if let Some(before) = before.filter(|before| before.config == *config) {
            return before;
        }
        let (queue, pushed) = mpsc::channel(WAITING);
        Arc::new(Self {
            known: Arc::new(Disk::new(config.size.0, config.files)),
            config: config.clone(),
            folder: OnceLock::new(),
            queue,
            pushed: Mutex::new(Some(pushed)),
            reads: Arc::default(),
            hung: Arc::default(),
            failures: AtomicU32::new(0),
            paused: AtomicBool::new(false),
            told: Mutex::default(),
            metrics: metrics.clone(),
        })
    }

    /// Takes what memory pushes out, unless too much waits already.
    pub fn sink(&self) -> Box<Sink> {
        let (queue, known) = (self.queue.clone(), self.known.clone());
        Box::new(move |variants| {
            let _ = queue.try_send(Pushed { variants: variants.clone(), ticket: known.ticket() });
        })
    }

    /// True while files are read and written: not while too many reads hang.
    pub fn is_up(&self) -> bool {
        self.folder.get().is_some() && !self.paused.load(Relaxed) && self.hung.load(Relaxed) < HUNG
    }

    /// The answer in this place, to a request with these fields, if it is there still and can be read in time.
    pub async fn read(&self, key: &Key, spot: Arc<Spot>, request: &HeaderMap, cache: &Cache) -> Option<Entry> {
        let folder = self.folder.get().filter(|_| self.is_up())?.clone();
        let permit = CountPermit::within(self.reads.clone(), READS);
        let mut room = cache.room();
        let fits = room.grow(usize::try_from(spot.bytes).unwrap_or(usize::MAX));
        let Some(permit) = permit.filter(|_| fits) else {
            self.metrics.read("busy");
            return None;
        };
        let (own, held, request) = (key.clone(), cache.held().clone(), request.clone());
        let (what, now) = (spot.clone(), Now::read());
        let mut reading = spawn_blocking(move || {
            let _until_it_is_read = permit;
            disk_answer::read(&folder, &own, &what, &request, now, &held)
        });
        let found = timeout(self.config.timeout.0, &mut reading).await;
        drop(room);
        if found.is_err() {
            self.wait_for(reading);
        }
        let result = match &found {
            Err(_) => "timeout",
            Ok(Err(_) | Ok(Err(_))) => "error",
            Ok(Ok(Ok(None))) => "altered",
            Ok(Ok(Ok(Some(_)))) => "ok",
        };
        self.metrics.read(result);
        match found {
            Ok(Ok(Ok(Some(entry)))) => {
                self.failures.store(0, Relaxed);
                return Some(entry);
            }
            Err(_) => self.failed(&"it was not read in time"),
            Ok(Ok(Err(e))) => {
                self.known.forget(key, &spot.selection);
                self.failed(&e);
            }
            Ok(Ok(Ok(None)) | Err(_)) => self.known.forget(key, &spot.selection),
        }
        None
    }

    /// Where its files are, when there may be some.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.get().map(|folder| folder.path())
    }

    /// Takes over a file out of the folder of the process before, which keeps it; false when it has no place (`Disk::add`).
    ///
    /// # Errors
    /// It is not there any more, or cannot be linked to.
    pub fn take_over(&self, from: &Path, key: &Key, spot: Spot, ticket: u64) -> io::Result<bool> {
        let folder = self.folder.get().filter(|_| self.is_up()).ok_or(io::ErrorKind::NotConnected)?;
        folder.link(from, spot.number)?;
        Ok(self.known.add(key, spot, ticket))
    }

    /// Counts a read that hangs, until it ends.
    fn wait_for<T: Send + 'static>(&self, reading: JoinHandle<T>) {
        let hung = CountPermit::take(self.hung.clone());
        tokio::spawn(async move {
            let _ = reading.await;
            drop(hung);
        });
    }

    /// Something did not work: said once in a while, and after some of them nothing is tried for a time.
    fn failed(&self, why: &dyn fmt::Display) {
        if self.failures.fetch_add(1, Relaxed) + 1 >= FAILURES {
            self.pause();
        }
        let (now, mut told) = (Now::monotonic(), self.told.lock());
        if told.is_none_or(|told| now.saturating_sub(told) >= TELLING) {
            *told = Some(now);
            log::warn!("cache: answers on disk: {}: {why}", self.config.path.display());
        }
    }

    fn pause(&self) {
        self.paused.store(true, Relaxed);
        self.metrics.up.set(0);
    }

    /// The process ends, and its files go.
    pub fn end(&self) {
        self.paused.store(true, Relaxed);
        if let Some(folder) = self.folder.get() {
            folder.clear();
        }
    }

    /// The process ends, and leaves its files to the next one, and what is in memory, too. `announce` makes it known that this number was
    /// left.
    pub fn leave(&self, mark: &Mark, memory: &Memory, announce: impl FnOnce(u64) -> io::Result<()>) {
        self.paused.store(true, Relaxed);
        let (Some(folder), number) = (self.folder.get(), fastrand::u64(..)) else { return };
        let left = disk_left::leave(folder, &self.known, memory, mark, number).and_then(|()| announce(number));
        if let Err(e) = left {
            log::warn!(
                "cache: the answers on disk are not left to the next process: {}: {e}",
                self.config.path.display()
            );
            folder.clear();
        }
    }

    /// Makes the folder, writes what memory pushes out, and removes files that nobody finds any more.
    pub async fn run_background(&self, keys: &Keys, mark: &(dyn Fn() -> Option<Mark> + Sync)) {
        let Some(mut pushed) = self.pushed.lock().take() else { return };
        let (mut swept, mut again, mut sweeping) = (None::<Duration>, None::<Duration>, None);
        loop {
            let now = Now::monotonic();
            let often = if self.folder.get().is_some() { SWEEP } else { PAUSE };
            if swept.is_none_or(|swept| now.saturating_sub(swept) >= often) {
                swept = Some(now);
                self.make().await;
                if sweeping.as_ref().is_none_or(JoinHandle::is_finished) {
                    sweeping = Some(self.sweep(keys.clone(), mark()));
                }
            }
            if self.paused.load(Relaxed) {
                let until = *again.get_or_insert(now.saturating_add(PAUSE));
                if now >= until {
                    again = None;
                    self.failures.store(0, Relaxed);
                    self.paused.store(false, Relaxed);
                }
            }
            self.metrics.up.set(i64::from(self.is_up()));
            tokio::select! {
                one = pushed.recv() => if let Some(one) = one { self.write(one).await },
                () = tokio::time::sleep(BEAT) => {}
            }
            self.remove().await;
            self.metrics.take(self.known.stats());
        }
    }

    /// Makes the folder unless there is one, and sees to its lock.
    async fn make(&self) {
        let (path, there) = (self.config.path.clone(), self.folder.get().cloned());
        let made = spawn_blocking(move || match there {
            Some(folder) => folder.keep_lock().map(|()| folder),
            None => Folder::make(&path).map(Arc::new),
        });
        match made.await {
            Ok(Ok(folder)) => drop(self.folder.set(folder)),
            Ok(Err(e)) => self.failed(&e),
            Err(_) => {}
        }
    }

    /// Takes over or removes what other processes have left: aside, for there may be much of it.
    fn sweep(&self, keys: Keys, mark: Option<Mark>) -> JoinHandle<()> {
        let (path, folder, known) = (self.config.path.clone(), self.folder.get().cloned(), self.known.clone());
        spawn_blocking(move || {
            disk_files::sweep(&path, |left| disk_left::look(left, folder.as_deref(), &known, &keys, mark.as_ref()));
        })
    }

    async fn write(&self, pushed: Pushed) {
        let key = &pushed.variants.key;
        // The newest last: of several that a request may be given, the one that comes to be first is.
        for entry in pushed.variants.entries().iter().rev() {
            let now = Now::read();
            if !disk_answer::is_worth_it(key, entry, now) || self.known.has(key, &entry.selection) {
                continue;
            }
            let Some(folder) = self.folder.get().filter(|_| self.is_up()).cloned() else {
                self.metrics.wrote("down");
                continue;
            };
            let (own, what) = (key.clone(), entry.clone());
            let mut writing = spawn_blocking(move || disk_answer::write(&folder, &own, &what, now));
            let in_time = timeout(LONGEST_WRITE, &mut writing).await;
            if in_time.is_err() {
                self.failed(&"it was not written in time");
                self.pause();
            }
            let written = match in_time {
                Ok(written) => written,
                Err(_) => writing.await,
            };
            match written {
                Ok(Ok(Some(file))) => {
                    self.failures.store(0, Relaxed);
                    self.metrics.wrote("ok");
                    self.known.add(key, disk_answer::spot(entry, file), pushed.ticket);
                }
                Ok(Err(e)) => {
                    self.metrics.wrote("error");
                    self.failed(&e);
                }
                Ok(Ok(None)) | Err(_) => {}
            }
        }
    }

    async fn remove(&self) {
        let gone = self.known.gone();
        if let Some(folder) = self.folder.get().filter(|_| !gone.is_empty()).cloned() {
            let _ = spawn_blocking(move || folder.remove(&gone)).await;
        }
    }
}

impl fmt::Debug for CacheDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheDisk({:?})", self.config)
    }
}

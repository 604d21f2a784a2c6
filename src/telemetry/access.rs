//! The access log's plumbing: request threads append finished lines to memory, one thread writes them out.
//!
//! The problem: a write per request costs a system call and can block on a disk. Here a request takes a short,
//! nearly always uncontended lock (one of several, by thread), appends its line to a buffer and goes on; the writer
//! wakes at most every 25 ms, swaps the buffers and writes them. A full buffer drops the line and counts it: the log
//! never slows a request. What it does not do: rotate files (`SIGUSR1` reopens them, as logrotate expects).

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use schemars::JsonSchema;
use serde::Deserialize;

/// Where access log lines go.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Output {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to a file, which is opened anew on SIGUSR1.
    File(PathBuf),
}

/// How long lines may wait for company before they are written.
const COALESCE: Duration = Duration::from_millis(25);
const SHARDS: usize = 8;

/// A running access log. Dropping it writes what is left.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    shards: [Mutex<Vec<u8>>; SHARDS],
    /// Bytes one shard may hold.
    limit: usize,
    dropped: AtomicU64,
    waiting: Mutex<bool>,
    wake: Condvar,
    stop: AtomicBool,
    reopen: AtomicBool,
}

impl AccessLog {
    /// Opens the output and starts the writer. `queue` bounds the bytes that wait to be written.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread cannot be started.
    pub fn start(output: Output, queue: usize) -> io::Result<Self> {
        let sink = Sink::open(&output)?;
        let shared = Arc::new(Shared {
            shards: std::array::from_fn(|_| Mutex::new(Vec::new())),
            limit: queue.div_ceil(SHARDS),
            dropped: AtomicU64::new(0),
            waiting: Mutex::new(false),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
        });
        let writer = {
            let shared = shared.clone();
            std::thread::Builder::new().name("access-log".into()).spawn(move || shared.write_loop(sink, &output))?
        };
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Lets `format` append one line (without its newline) to the buffer.
    pub fn line(&self, format: impl FnOnce(&mut Vec<u8>)) {
        let mut buffer = self.shared.shards[shard()].lock();
        if buffer.len() >= self.shared.limit {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let first = buffer.is_empty();
        format(&mut buffer);
        buffer.push(b'\n');
        drop(buffer);
        if first {
            // Only the first line into an empty buffer pays for a wake-up.
            *self.shared.waiting.lock() = true;
            self.shared.wake.notify_one();
        }
    }

    /// Lines dropped because the queue was full or the output refused them.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Opens the file anew at the next write (SIGUSR1, after logrotate moved it).
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
        *self.shared.waiting.lock() = true;
        self.shared.wake.notify_one();
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        *self.shared.waiting.lock() = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn write_loop(&self, mut sink: Sink, output: &Output) {
        let mut spare = Vec::new();
        loop {
            let stop = self.stop.load(Ordering::Relaxed);
            if self.reopen.swap(false, Ordering::Relaxed) {
                match Sink::open(output) {
                    Ok(fresh) => sink = fresh,
                    Err(e) => log::error!("access log: cannot reopen {output:?}: {e}; writing on to the old file"),
                }
            }
            for shard in &self.shards {
                std::mem::swap(&mut *shard.lock(), &mut spare);
                if let Err(e) = sink.write(&spare) {
                    let lines = spare.iter().filter(|byte| **byte == b'\n').count() as u64;
                    self.dropped.fetch_add(lines, Ordering::Relaxed);
                    log::error!("access log: {lines} lines lost: {e}");
                }
                spare.clear();
            }
            if stop {
                return;
            }
            let mut waiting = self.waiting.lock();
            while !*waiting {
                self.wake.wait(&mut waiting);
            }
            *waiting = false;
            drop(waiting);
            if !self.stop.load(Ordering::Relaxed) {
                std::thread::sleep(COALESCE);
            }
        }
    }
}

enum Sink {
    Stdout,
    Stderr,
    File(File),
}

impl Sink {
    fn open(output: &Output) -> io::Result<Self> {
        Ok(match output {
            Output::Stdout => Self::Stdout,
            Output::Stderr => Self::Stderr,
            Output::File(path) => Self::File(OpenOptions::new().create(true).append(true).open(path)?),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            _ if bytes.is_empty() => Ok(()),
            Self::Stdout => io::stdout().lock().write_all(bytes).and_then(|()| io::stdout().flush()),
            Self::Stderr => io::stderr().lock().write_all(bytes),
            Self::File(file) => file.write_all(bytes),
        }
    }
}

/// The shard of this thread: threads are dealt out in turn, so that workers rarely share one.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
    MINE.with(|mine| *mine)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn writes_every_line_by_the_time_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::start(Output::File(path.clone()), 1 << 20).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|i| log.line(|out| write!(out, "line {i}").unwrap())));
            }
        });
        assert_eq!(log.dropped(), 0);
        drop(log);
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 400);
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let dir = tempfile::tempdir().unwrap();
        let log = AccessLog::start(Output::File(dir.path().join("access.log")), 0).unwrap();
        log.line(|out| out.extend_from_slice(b"no room"));
        assert_eq!(log.dropped(), 1);
    }

    #[test]
    fn reopens_after_the_file_was_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let log = AccessLog::start(Output::File(path.clone()), 1 << 20).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        log.reopen();
        while !path.exists() {
            std::thread::yield_now();
        }
        log.line(|out| out.extend_from_slice(b"after"));
        drop(log);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "after\n");
    }
}

//! The access log's plumbing: request threads append finished lines to memory, one thread writes them out.
//!
//! The problem: a write per request costs a system call and can block on a disk. Here a request takes a short,
//! nearly always uncontended lock (one of several, by thread), appends its line to a buffer and goes on; the writer
//! wakes at most every 25 ms, swaps the buffers and writes them. A full buffer drops the line and counts it: the log
//! never slows a request. The writer opens the output, too: lines wait in the buffers, also for the reader of a named
//! pipe. What it does not do: rotate files (`SIGUSR1` reopens them, as logrotate expects).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
};
use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;
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
/// How long the end of the process waits for lines to be written.
const LEAVE: Duration = Duration::from_secs(1);
/// Time between two looks whether a named pipe has a reader.
const READER: Duration = Duration::from_millis(250);
const SHARDS: usize = 8;

/// A running access log. Dropping it writes what is left, for as long as that is taken.
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
    dropped: IntCounter,
    waiting: Mutex<bool>,
    wake: Condvar,
    stop: AtomicBool,
    reopen: AtomicBool,
}

impl AccessLog {
    /// Starts the writer, which opens the output. `queue` bounds the bytes that wait to be written; `dropped` counts the lines
    /// that find no room, or that the output refuses. A file that cannot be
    /// opened is tried again when `reopen` is called; until then lines are dropped and counted.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(output: Output, queue: usize, dropped: IntCounter) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            shards: std::array::from_fn(|_| Mutex::new(Vec::new())),
            limit: queue.div_ceil(SHARDS),
            dropped,
            waiting: Mutex::new(false),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
        });
        let writer = {
            let shared = shared.clone();
            std::thread::Builder::new().name("access-log".into()).spawn(move || shared.write_loop(&output))?
        };
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Lets `format` append one line (without its newline) to the buffer.
    pub fn line(&self, format: impl FnOnce(&mut Vec<u8>)) {
        let mut buffer = self.shared.shards[shard()].lock();
        if buffer.len() >= self.shared.limit {
            self.shared.dropped.inc();
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
        let begun = Instant::now();
        // A reader that has stopped reading must not keep the process from leaving.
        while self.writer.as_ref().is_some_and(|writer| !writer.is_finished()) && begun.elapsed() < LEAVE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Shared {
    fn write_loop(&self, output: &Output) {
        let (mut sink, mut spare) = (Sink::default(), Vec::new());
        sink.open(output);
        loop {
            let stop = self.stop.load(Ordering::Relaxed);
            if self.reopen.swap(false, Ordering::Relaxed) {
                sink.reopen(output);
            }
            if !sink.awaits_reader(output) {
                self.write_all(&mut sink, output, &mut spare);
            }
            if stop {
                return;
            }
            self.sleep(sink.unread);
        }
    }

    /// Writes what is in the buffers, as long as there is somebody who takes it. `spare` is empty before and after.
    fn write_all(&self, sink: &mut Sink, output: &Output, spare: &mut Vec<u8>) {
        for _ in 0..SHARDS {
            let shard = &self.shards[sink.next];
            std::mem::swap(&mut *shard.lock(), spare);
            let Written { bytes, lost } = sink.write(spare, output);
            self.dropped.inc_by(lost);
            if sink.unread {
                // Before what has come meanwhile; it goes on here, maybe in the middle of a line.
                spare.drain(..bytes);
                let mut later = shard.lock();
                spare.append(&mut later);
                std::mem::swap(&mut *later, spare);
                return;
            }
            spare.clear();
            sink.next = (sink.next + 1) % SHARDS;
        }
    }

    /// Until there is something to do, or it is time to look for a reader.
    fn sleep(&self, unread: bool) {
        let mut waiting = self.waiting.lock();
        if unread {
            self.wake.wait_while_for(&mut waiting, |waiting| !*waiting, READER);
        } else {
            self.wake.wait_while(&mut waiting, |waiting| !*waiting);
        }
        *waiting = false;
        drop(waiting);
        if !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(COALESCE);
        }
    }
}

/// What has become of lines.
#[derive(Default)]
struct Written {
    bytes: usize,
    /// Lines that nobody will see.
    lost: u64,
}

/// Where lines go, and what has become of those before.
#[derive(Default)]
struct Sink {
    /// The buffer that is written next.
    next: usize,
    /// Nothing when it could not be opened. A named pipe stays open without a reader: so the next one gets what is in it.
    file: Option<File>,
    /// It is a named pipe that nobody reads, and lines wait.
    unread: bool,
    /// The last write failed, which has been said.
    broken: bool,
    /// Lines since then.
    lost: u64,
    /// The last line was not written to its end.
    midway: bool,
}

impl Sink {
    fn open(&mut self, output: &Output) {
        match open(output) {
            Ok(file) => self.file = Some(file),
            Err(e) if is_unread(output, &e) => {
                self.unread = true;
                log::warn!("access log: nobody reads {output:?}: lines wait in the queue until somebody does");
            }
            Err(e) => {
                log::error!("access log: cannot open {output:?}: {e}; requests are not logged until SIGUSR1 opens it");
            }
        }
    }

    /// True while lines have to wait.
    fn awaits_reader(&mut self, output: &Output) -> bool {
        if self.unread
            && let Ok(file) = open(output)
        {
            (self.file, self.unread) = (Some(file), false);
            log::info!("access log: {output:?} has a reader");
        }
        self.unread
    }

    fn reopen(&mut self, output: &Output) {
        match open(output) {
            Ok(file) => {
                (self.file, self.midway, self.unread) = (Some(file), false, false);
                log::info!("access log opened anew");
            }
            Err(e) if (self.unread || self.file.is_none()) && is_unread(output, &e) => self.unread = true,
            Err(e) if self.file.is_none() => {
                self.unread = false;
                log::error!("access log: cannot open {output:?}: {e}; requests are not logged");
            }
            Err(e) => log::error!("access log: cannot reopen {output:?}: {e}; writing on to the old file"),
        }
    }

    /// Writes lines, or finds that a named pipe has no reader any more. A failure is said once, and once when it is over.
    fn write(&mut self, bytes: &[u8], output: &Output) -> Written {
        if bytes.is_empty() {
            return Written::default();
        }
        let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let Some(file) = &self.file else { return Written { bytes: 0, lost: lines(bytes) } };
        let mut written = 0;
        // A line that has no end would take the next one with it.
        let ended = if self.midway { write(file, b"\n", &mut 0) } else { Ok(()) };
        let outcome = ended.and_then(|()| {
            self.midway = false;
            write(file, bytes, &mut written)
        });
        match outcome {
            Ok(()) if self.broken => {
                log::info!("access log: written again, {} lines were lost", self.lost);
                (self.broken, self.lost) = (false, 0);
                Written { bytes: written, lost: 0 }
            }
            Ok(()) => Written { bytes: written, lost: 0 },
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe && is_pipe(output) => {
                self.unread = true;
                log::warn!("access log: nobody reads {output:?} any more: lines wait in the queue until somebody does");
                Written { bytes: written, lost: 0 }
            }
            Err(e) => {
                self.midway |= written > 0 && bytes[written - 1] != b'\n';
                let lost = lines(&bytes[written..]);
                self.lost += lost;
                if !std::mem::replace(&mut self.broken, true) {
                    log::error!("access log: lines are lost: {e}; how many is said when it can be written again");
                }
                Written { bytes: written, lost }
            }
        }
    }
}

fn open(output: &Output) -> io::Result<File> {
    // Not by way of `io::stdout`, whose buffer would hide how much has been written.
    let own = |stream: BorrowedFd<'_>| stream.try_clone_to_owned().map(File::from);
    match output {
        Output::Stdout => own(io::stdout().as_fd()),
        Output::Stderr => own(io::stderr().as_fd()),
        Output::File(path) => {
            // A named pipe would be waited for until it has a reader.
            let mut options = OpenOptions::new();
            let file = options.create(true).append(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
            fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
            Ok(file)
        }
    }
}

/// Whether that is why it could not be opened (fifo(7)).
fn is_unread(output: &Output, e: &io::Error) -> bool {
    e.raw_os_error() == Some(Errno::ENXIO as i32) && is_pipe(output)
}

fn is_pipe(output: &Output) -> bool {
    let Output::File(path) = output else { return false };
    fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo())
}

/// Writes all of it, and counts in `written` how much of it has been.
fn write(mut file: &File, bytes: &[u8], written: &mut usize) -> io::Result<()> {
    while *written < bytes.len() {
        match file.write(&bytes[*written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(step) => *written += step,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
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

    fn counter() -> IntCounter {
        IntCounter::new("dropped", "dropped").unwrap()
    }

    #[test]
    fn writes_every_line_by_the_time_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let dropped = counter();
        let log = AccessLog::start(Output::File(path.clone()), 1 << 20, dropped.clone()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|i| log.line(|out| write!(out, "line {i}").unwrap())));
            }
        });
        assert_eq!(dropped.get(), 0);
        drop(log);
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 400);
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let dir = tempfile::tempdir().unwrap();
        let dropped = counter();
        let log = AccessLog::start(Output::File(dir.path().join("access.log")), 0, dropped.clone()).unwrap();
        log.line(|out| out.extend_from_slice(b"no room"));
        assert_eq!(dropped.get(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_opened_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("later/access.log");
        let dropped = counter();
        let log = AccessLog::start(Output::File(path.clone()), 1 << 20, dropped.clone()).unwrap();
        log.line(|out| out.extend_from_slice(b"lost"));
        while dropped.get() == 0 {
            std::thread::yield_now();
        }
        std::fs::create_dir(dir.path().join("later")).unwrap();
        log.reopen();
        while !path.exists() {
            std::thread::yield_now();
        }
        log.line(|out| out.extend_from_slice(b"kept"));
        drop(log);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "kept\n");
    }

    #[test]
    fn a_failure_is_remembered_until_it_is_over() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut sink = Sink { file: Some(full), ..Sink::default() };
        let lost = |sink: &mut Sink, bytes: &[u8]| sink.write(bytes, &Output::Stdout).lost;
        assert_eq!(lost(&mut sink, b"a\nb\n"), 2);
        assert_eq!(lost(&mut sink, b"c\n"), 1);
        assert!(sink.broken && sink.lost == 3);
        sink.file = Some(tempfile::tempfile().unwrap());
        assert_eq!(lost(&mut sink, b"d\n"), 0);
        assert!(!sink.broken && sink.lost == 0);
    }

    #[test]
    fn reopens_after_the_file_was_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let dropped = counter();
        let log = AccessLog::start(Output::File(path.clone()), 1 << 20, dropped.clone()).unwrap();
        while std::fs::rename(&path, &moved).is_err() {
            std::thread::yield_now();
        }
        log.reopen();
        while !path.exists() {
            std::thread::yield_now();
        }
        log.line(|out| out.extend_from_slice(b"after"));
        drop(log);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "after\n");
    }
}

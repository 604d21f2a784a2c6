//! What bounds the waiting while a request is under way and nothing is read or written: hooks set it, the stream that
//! the request came over looks at it whenever it is polled. One for each request: a connection's own over HTTP/1, one for
//! each stream over HTTP/2.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Which limit was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Lateness {
    /// Neither side said anything for too long.
    Silence = 1,
    /// The time for the whole answer is over.
    Deadline = 2,
    /// The backend has not taken what was sent for too long.
    Unread = 3,
}

impl Lateness {
    /// What happened, for an error.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Silence => "both sides were silent for too long",
            Self::Deadline => "the answer took too long",
            Self::Unread => "the backend did not read on",
        }
    }
}

/// The limits, and whether one was exceeded.
#[derive(Debug)]
pub(crate) struct StreamDeadlines {
    born: Instant,
    /// Milliseconds of silence in both directions after which it ends; 0: any.
    silence: AtomicU64,
    /// When silence began to count, in milliseconds from `born`.
    since: AtomicU64,
    /// Milliseconds from `born` until the answer must have ended; 0: it may take its time.
    deadline: AtomicU64,
    /// Milliseconds that a write may wait for the client; 0: any.
    stall: AtomicU64,
    /// Bytes that a client must read for each second that writes have waited for it; 0: any number.
    rate: AtomicU32,
    /// A [`Lateness`]; 0: none.
    late: AtomicU8,
    /// When something was read or written last, in milliseconds from `born`, while that counts.
    moved: AtomicU64,
    /// When a part of a body was handed to the backend, as long as the client has not been looked at since, in
    /// milliseconds from `born`; 0: it is the client that is waited for.
    handed_on: AtomicU64,
    /// Milliseconds in which the client was not looked at, because the backend did not take what had come.
    blocked: AtomicU64,
    /// Milliseconds that the backend may take nothing; 0: any.
    unread: AtomicU64,
    /// Milliseconds that writes have waited for the client to read.
    read_slowly: AtomicU64,
    /// A part of the answer waits for the client to read.
    writing: AtomicBool,
    /// The exchange as a whole is bounded (`exchange.rs`).
    watched: AtomicBool,
    /// The client is looked at: it was when the exchange was last asked to go on, after all else that was done then.
    looked: AtomicBool,
    /// The client went away while nobody looked.
    left: AtomicBool,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Default for StreamDeadlines {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            silence: AtomicU64::new(0),
            since: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            stall: AtomicU64::new(0),
            rate: AtomicU32::new(0),
            late: AtomicU8::new(0),
            moved: AtomicU64::new(0),
            handed_on: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            unread: AtomicU64::new(0),
            read_slowly: AtomicU64::new(0),
            writing: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            looked: AtomicBool::new(false),
            left: AtomicBool::new(false),
        }
    }
}

impl StreamDeadlines {
    /// From now on it ends when both directions have been silent for this long.
    pub(crate) fn limit_silence(&self, silence: Duration) {
        self.since.store(millis(self.born.elapsed()), Relaxed);
        self.silence.store(millis(silence), Relaxed);
    }

    /// Silence may last.
    pub(crate) fn allow_silence(&self) {
        self.silence.store(0, Relaxed);
    }

    /// The answer must have ended by then, even if its backend has fallen silent; `None`: whenever it will.
    pub(crate) fn end_by(&self, deadline: Option<Instant>) {
        let until = deadline.map_or(0, |deadline| millis(deadline.saturating_duration_since(self.born)));
        self.deadline.store(until, Relaxed);
    }

    /// How long a write may wait for the client to read; `None`: for ever. And how many bytes a second it must read while
    /// writes wait for it, once they have waited for `stall`; 0: any number.
    pub(crate) fn limit_writes(&self, stall: Option<Duration>, rate: u32) {
        self.stall.store(stall.map_or(0, millis), Relaxed);
        self.rate.store(rate, Relaxed);
    }

    /// Nothing is late, and nothing is under way that could be.
    pub(crate) fn reset(&self) {
        self.allow_silence();
        self.end_by(None);
        self.late.store(0, Relaxed);
        self.watch(false);
        self.limit_unread(None);
        self.client_is_asked();
        self.wait_for_reader(false);
        self.read_slowly.store(0, Relaxed);
        self.blocked.store(0, Relaxed);
    }

    /// True when movement must be noted.
    pub(crate) fn counts_movement(&self) -> bool {
        self.silence.load(Relaxed) != 0 || self.is_watched()
    }

    /// Something was read or written.
    pub(crate) fn note_movement(&self, at: Instant) {
        self.moved.store(millis(at.saturating_duration_since(self.born)), Relaxed);
    }

    /// The backend has said something, whatever becomes of it on the way to the client.
    pub(crate) fn note_backend(&self) {
        if self.counts_movement() {
            self.note_movement(Instant::now());
        }
    }

    /// A write has waited for the client to read for so long.
    pub(super) fn add_reading(&self, waited: Duration) {
        self.read_slowly.fetch_add(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How long writes of this request have waited for the client to read.
    pub(crate) fn read_slowly(&self) -> Duration {
        Duration::from_millis(self.read_slowly.load(Relaxed))
    }

    /// A write waits for the client to read, or no longer does: meanwhile it is the client that is waited for, and what
    /// bounds that is the limit of writes, if there is one.
    pub(super) fn wait_for_reader(&self, waits: bool) {
        if self.writing.load(Relaxed) != waits {
            // Silence begins to count anew.
            self.note_movement(Instant::now());
            self.writing.store(waits, Relaxed);
        }
    }

    /// The client is waited for, for as long as a write may take.
    fn waits_for_reader(&self) -> bool {
        self.writing.load(Relaxed) && self.stall.load(Relaxed) != 0
    }

    /// From now on the exchange as a whole is bounded, whatever it waits for; or it is not.
    pub(crate) fn watch(&self, watched: bool) {
        self.watched.store(watched, Relaxed);
    }

    /// The exchange as a whole is bounded.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Relaxed)
    }

    /// The backend may take nothing for so long of what has come of a body; `None`: for ever.
    pub(crate) fn limit_unread(&self, limit: Option<Duration>) {
        self.unread.store(limit.map_or(0, millis), Relaxed);
    }

    /// A part of a body goes to the backend.
    pub(crate) fn hand_on(&self) {
        self.handed_on.store(millis(self.born.elapsed()), Relaxed);
    }

    /// The client is looked at: what is waited for now is its doing.
    pub(crate) fn client_is_asked(&self) {
        self.looked.store(true, Relaxed);
        let since = self.handed_on.load(Relaxed);
        if since != 0 {
            self.handed_on.store(0, Relaxed);
            self.blocked.fetch_add(millis(self.born.elapsed()).saturating_sub(since), Relaxed);
        }
    }

    /// How long the client was not looked at since this was asked last, because the backend did not read.
    pub(crate) fn take_blocked(&self) -> Duration {
        Duration::from_millis(self.blocked.swap(0, Relaxed))
    }

    /// How long it has not been looked at by now, beside what was taken.
    pub(crate) fn blocked_now(&self) -> Duration {
        let since = self.handed_on.load(Relaxed);
        let running = if since == 0 { 0 } else { millis(self.born.elapsed()).saturating_sub(since) };
        Duration::from_millis(self.blocked.load(Relaxed) + running)
    }

    /// The client is not looked at: until it is, nothing is known of it.
    pub(crate) fn look_away(&self) {
        self.looked.store(false, Relaxed);
    }

    /// The client is looked at.
    pub(super) fn has_looked(&self) -> bool {
        self.looked.load(Relaxed)
    }

    /// When the exchange as a whole will be late, as far as is known.
    pub(super) fn whole_due(&self) -> Option<(Instant, Lateness)> {
        let after = |millis: u64| self.born.checked_add(Duration::from_millis(millis));
        let moved = self.moved.load(Relaxed);
        let due = after(moved).and_then(|moved| self.due(moved));
        let unread = match (self.unread.load(Relaxed), self.handed_on.load(Relaxed)) {
            (0, _) | (_, 0) => None,
            _ if self.waits_for_reader() => None,
            (limit, since) => after(since.max(moved).saturating_add(limit)).map(|due| (due, Lateness::Unread)),
        };
        [due, unread].into_iter().flatten().min_by_key(|(due, _)| *due)
    }

    /// The client has gone.
    pub(super) fn leave(&self) {
        self.left.store(true, Relaxed);
    }

    /// The client went away while nobody looked.
    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Relaxed)
    }

    /// The longest that a write may wait, when others of this request have `waited` and `written` bytes have gone out.
    pub(crate) fn write_limit(&self, waited: Duration, written: u64) -> Option<Duration> {
        let stall = Some(self.stall.load(Relaxed)).filter(|stall| *stall > 0).map(Duration::from_millis)?;
        let rate = u64::from(self.rate.load(Relaxed));
        // A client that reads a byte now and then must not hold a request, and all that it holds, for ever.
        let earned = written.saturating_mul(1000).checked_div(rate).map(Duration::from_millis);
        Some(earned.map_or(stall, |earned| stall.min(stall.saturating_add(earned).saturating_sub(waited))))
    }

    /// When it will be late, as far as is known; `moved`: the last read or write.
    pub(crate) fn due(&self, moved: Instant) -> Option<(Instant, Lateness)> {
        let after = |millis: u64| self.born.checked_add(Duration::from_millis(millis));
        let moved = after(self.moved.load(Relaxed)).map_or(moved, |noted| noted.max(moved));
        let silence = match self.silence.load(Relaxed) {
            0 => None,
            _ if self.waits_for_reader() => None,
            silence => {
                let from = after(self.since.load(Relaxed)).map_or(moved, |since| since.max(moved));
                from.checked_add(Duration::from_millis(silence)).map(|due| (due, Lateness::Silence))
            }
        };
        let deadline = match self.deadline.load(Relaxed) {
            0 => None,
            deadline => after(deadline).map(|due| (due, Lateness::Deadline)),
        };
        match (silence, deadline) {
            (Some(silence), Some(deadline)) => Some(if silence.0 < deadline.0 { silence } else { deadline }),
            (one, other) => one.or(other),
        }
    }

    /// It is late.
    pub(crate) fn expire(&self, lateness: Lateness) {
        self.late.store(lateness as u8, Relaxed);
    }

    /// Whether something took too long, and what.
    pub(crate) fn late(&self) -> Option<Lateness> {
        match self.late.load(Relaxed) {
            0 => None,
            1 => Some(Lateness::Silence),
            2 => Some(Lateness::Deadline),
            _ => Some(Lateness::Unread),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_earlier_limit_counts() {
        let deadlines = StreamDeadlines::default();
        let start = deadlines.born;
        assert_eq!(deadlines.due(start), None);
        deadlines.end_by(Some(start + 10 * S));
        assert_eq!(deadlines.due(start), Some((start + 10 * S, Lateness::Deadline)));
        deadlines.limit_silence(3 * S);
        // Silence counts from the moment it was limited, or from the last movement after that.
        let (due, lateness) = deadlines.due(start).unwrap_or((start, Lateness::Deadline));
        assert!(lateness == Lateness::Silence && due >= start + 3 * S && due < start + 4 * S);
        assert_eq!(deadlines.due(start + 2 * S), Some((start + 5 * S, Lateness::Silence)));
        assert_eq!(deadlines.due(start + 9 * S), Some((start + 10 * S, Lateness::Deadline)));
        deadlines.expire(Lateness::Silence);
        assert_eq!(deadlines.late(), Some(Lateness::Silence));
        deadlines.reset();
        assert_eq!((deadlines.late(), deadlines.due(start)), (None, None));
    }

    #[test]
    fn while_a_write_waits_for_the_client_nobody_else_is_silent() {
        let deadlines = StreamDeadlines::default();
        let start = deadlines.born;
        deadlines.limit_silence(3 * S);
        deadlines.limit_unread(Some(3 * S));
        deadlines.hand_on();
        deadlines.limit_writes(Some(30 * S), 0);
        deadlines.wait_for_reader(true);
        assert_eq!((deadlines.due(start), deadlines.whole_due()), (None, None));
        // A tunnel's writes have no limit of their own.
        deadlines.limit_writes(None, 0);
        assert!(deadlines.due(start).is_some());
        deadlines.limit_writes(Some(30 * S), 0);
        deadlines.wait_for_reader(false);
        assert!(deadlines.due(start).is_some());
        deadlines.note_movement(start + 10 * S);
        assert_eq!(deadlines.due(start), Some((start + 13 * S, Lateness::Silence)));
    }

    #[test]
    fn a_backend_may_take_nothing_for_so_long() {
        let deadlines = StreamDeadlines::default();
        deadlines.limit_unread(Some(3 * S));
        assert_eq!(deadlines.whole_due(), None, "nothing has been handed to it");
        deadlines.hand_on();
        assert!(matches!(deadlines.whole_due(), Some((due, Lateness::Unread)) if due > deadlines.born + 2 * S));
        // What the client is sent counts too: a backend may answer before it has read everything.
        deadlines.note_movement(deadlines.born + 10 * S);
        assert_eq!(deadlines.whole_due(), Some((deadlines.born + 13 * S, Lateness::Unread)));
        deadlines.client_is_asked();
        assert_eq!(deadlines.whole_due(), None);
        assert!(deadlines.take_blocked() < S && deadlines.take_blocked().is_zero());
    }
}

//! What bounds the waiting while a request is under way and nothing is read or written: hooks set it, the stream that
//! the request came over looks at it whenever it is polled. One for each request: a connection's own over HTTP/1, one for
//! each stream over HTTP/2.

use std::{
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
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
}

impl Lateness {
    /// What happened, for an error.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Silence => "both sides were silent for too long",
            Self::Deadline => "the answer took too long",
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
    }

    /// True when movement must be noted.
    pub(crate) fn counts_silence(&self) -> bool {
        self.silence.load(Relaxed) != 0
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
        let silence = match self.silence.load(Relaxed) {
            0 => None,
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
            _ => Some(Lateness::Deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_earlier_limit_counts() {
        let patience = StreamDeadlines::default();
        let start = patience.born;
        assert_eq!(patience.due(start), None);
        patience.end_by(Some(start + 10 * S));
        assert_eq!(patience.due(start), Some((start + 10 * S, Lateness::Deadline)));
        patience.limit_silence(3 * S);
        // Silence counts from the moment it was limited, or from the last movement after that.
        let (due, lateness) = patience.due(start).unwrap_or((start, Lateness::Deadline));
        assert!(lateness == Lateness::Silence && due >= start + 3 * S && due < start + 4 * S);
        assert_eq!(patience.due(start + 2 * S), Some((start + 5 * S, Lateness::Silence)));
        assert_eq!(patience.due(start + 9 * S), Some((start + 10 * S, Lateness::Deadline)));
        patience.expire(Lateness::Silence);
        assert_eq!(patience.late(), Some(Lateness::Silence));
        patience.reset();
        assert_eq!((patience.late(), patience.due(start)), (None, None));
    }
}

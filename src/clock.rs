//! The time, read in one place: `resilience`, `limit` and `auth` are handed it, and tests hand them any.

use std::{
    sync::LazyLock,
    time::{Duration, Instant, SystemTime},
};

/// The clock, read once per request and handed down: no filter reads it again.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic time since the process began.
    pub since_start: Duration,
    /// Seconds since 1970.
    pub unix: u64,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        Self::read_at(Instant::now())
    }

    /// Reads the calendar's clock; the other one has just said `instant`.
    pub fn read_at(instant: Instant) -> Self {
        Self { since_start: Self::monotonic_at(instant), unix: Self::calendar().as_secs() }
    }

    /// Reads the calendar's alone, to the nanosecond: time since 1970.
    pub fn calendar() -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    /// Reads the one that never goes back.
    pub fn monotonic() -> Duration {
        Self::monotonic_at(Instant::now())
    }

    /// What it said at `instant`.
    pub fn monotonic_at(instant: Instant) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        instant.saturating_duration_since(*START)
    }
}

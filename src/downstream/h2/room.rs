//! Waiting until the client grants room for more of an answer.

use std::time::{Duration, Instant};

use pingora::{Error, ErrorType, Result};

use crate::downstream::deadlines::StreamDeadlines;

/// How long a write may wait, by these limits.
pub(super) fn limit(limits: [Option<Duration>; 2]) -> Duration {
    limits.into_iter().flatten().min().unwrap_or(Duration::MAX)
}

/// What has been `written` at last, for which there was no room, and how long that has taken.
///
/// # Errors
/// It has taken longer than `limit`.
pub(super) async fn wait<T>(
    deadlines: &StreamDeadlines,
    limit: Duration,
    written: impl Future<Output = T>,
) -> (Duration, Result<T>) {
    let begun = Instant::now();
    deadlines.look_away();
    deadlines.wait_for_reader(true);
    let written = tokio::time::timeout(limit, written).await;
    deadlines.wait_for_reader(false);
    deadlines.add_reading(begun.elapsed());
    let late = |_| Error::explain(ErrorType::WriteTimedout, "the client does not read").into_down();
    (begun.elapsed(), written.map_err(late))
}

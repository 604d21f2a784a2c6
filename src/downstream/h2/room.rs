//! Waiting until the client grants room for more of an answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::SendStream;
use pingora::{Error, ErrorType, Result};

use crate::downstream::deadlines::StreamDeadlines;

/// How much room there is at last, and how long that has taken; `None` when the stream has ended.
///
/// # Errors
/// It has taken longer than `limit`.
pub(super) async fn wait(
    writer: &mut SendStream<Bytes>,
    deadlines: &StreamDeadlines,
    limit: Duration,
) -> (Duration, Result<Option<std::result::Result<usize, h2::Error>>>) {
    let begun = Instant::now();
    deadlines.look_away();
    deadlines.wait_for_reader(true);
    let room = tokio::time::timeout(limit, std::future::poll_fn(|context| writer.poll_capacity(context))).await;
    deadlines.wait_for_reader(false);
    deadlines.add_reading(begun.elapsed());
    let late = |_| Error::explain(ErrorType::WriteTimedout, "the client does not read").into_down();
    (begun.elapsed(), room.map_err(late))
}

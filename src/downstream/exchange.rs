//! The bounds of one exchange as a whole.
//!
//! Limits are looked at where the client is read from (`stream.rs`, `h2/stream.rs`), and Pingora does not read from it
//! while the backend takes nothing of a body (`proxy_h1.rs`: the pipe is full; `proxy_h2.rs`: no room in the window), nor
//! once a write to the backend has failed. So an exchange with a body, or one that may become a tunnel, is watched from
//! outside too: when Pingora does not look at the client, the limits, and whether the client is still there, are looked at
//! here. What is over is dropped; the context of the request sees to what is left to do (`proxy/tracked.rs`).

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::connection::ConnectionInfo;

/// How often it is looked whether a client that nobody reads from is still there.
const PAUSE: Duration = Duration::from_millis(500);

/// Pingora's own limit of a write to the backend comes first: an answer that is there already is taken then.
const LATER: Duration = Duration::from_millis(100);

/// Watches the exchanges of a connection, one after the other, or of one HTTP/2 stream.
pub(super) struct ExchangeWatch {
    info: Arc<ConnectionInfo>,
    /// Made for the first exchange that is watched, and kept for the others.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl ExchangeWatch {
    /// Of a connection, or of a stream.
    pub(super) fn new(info: Arc<ConnectionInfo>) -> Self {
        Self { info, alarm: None }
    }

    /// Runs an exchange; `None` when it has been dropped.
    pub(super) async fn run<T>(&mut self, exchange: Pin<Box<dyn Future<Output = Option<T>> + Send + '_>>) -> Option<T> {
        let mut exchange = exchange;
        std::future::poll_fn(move |context| {
            self.info.deadlines.look_away();
            if let Poll::Ready(done) = exchange.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            let deadlines = &self.info.deadlines;
            // Where the client is looked at, the limits are too, and no further timer is needed.
            let needed = deadlines.is_watched() && !deadlines.has_looked();
            if needed { self.poll_over(context).map(|()| None) } else { Poll::Pending }
        })
        .await
    }

    /// Ready when the exchange is to be dropped.
    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(PAUSE)));
        loop {
            ready!(alarm.as_mut().poll(context));
            let (now, deadlines) = (Instant::now(), &self.info.deadlines);
            let mut next = now + PAUSE;
            if let Some((due, lateness)) = deadlines.whole_due() {
                let due = Instant::from_std(due) + LATER;
                if due <= now {
                    deadlines.expire(lateness);
                    return Poll::Ready(());
                }
                next = next.min(due);
            }
            let tunnel = self.info.has_switched();
            let gone =
                if tunnel { self.info.is_broken() } else { self.info.is_reset(context) || self.info.has_hung_up() };
            if gone {
                deadlines.leave();
                return Poll::Ready(());
            }
            alarm.as_mut().reset(next);
        }
    }
}

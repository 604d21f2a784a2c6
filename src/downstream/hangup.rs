//! Whether a client has hung up, when nothing more is read of what it sent: the end of a connection cannot be read before
//! what stands in front of it. The kernel tells it all the same (`EPOLLRDHUP`), to a poll of its own: the run-time's tells
//! readers only. It is asked now and then, which is enough for what hardly any client does.

use std::{
    future::Future as _,
    io,
    os::fd::RawFd,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use mio::{Events, Interest, Token, event::Event, unix::SourceFd};
use tokio::time::{Instant, Sleep};

/// How often it is asked.
const PAUSE: Duration = Duration::from_millis(500);

/// True when the other side of the connection `descriptor` has hung up; with `both`, when nothing can be sent to it either.
pub(super) fn has_hung_up(descriptor: RawFd, both: bool) -> bool {
    let look = || {
        let (mut poll, mut events) = (mio::Poll::new()?, Events::with_capacity(1));
        poll.registry().register(&mut SourceFd(&descriptor), Token(0), Interest::READABLE)?;
        // It does not wait.
        poll.poll(&mut events, Some(Duration::ZERO))?;
        let gone = |event: &Event| event.is_error() || event.is_read_closed() && (!both || event.is_write_closed());
        io::Result::Ok(events.iter().any(gone))
    };
    look().unwrap_or(false)
}

/// Looks at one connection.
#[derive(Debug)]
pub(super) struct HangupWatch {
    poll: mio::Poll,
    alarm: Pin<Box<Sleep>>,
    gone: bool,
}

impl HangupWatch {
    /// Of the connection `descriptor`, which must outlive it.
    pub(super) fn new(descriptor: RawFd) -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        poll.registry().register(&mut SourceFd(&descriptor), Token(0), Interest::READABLE)?;
        Ok(Self { poll, alarm: Box::pin(tokio::time::sleep(PAUSE)), gone: false })
    }

    /// Ready when the other side has hung up.
    pub(super) fn poll_hangup(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut events = Events::with_capacity(1);
        while !self.gone {
            ready!(self.alarm.as_mut().poll(context));
            self.alarm.as_mut().reset(Instant::now() + PAUSE);
            // It does not wait.
            self.poll.poll(&mut events, Some(Duration::ZERO))?;
            // Each change is told once.
            self.gone = events.iter().any(|event| event.is_read_closed() || event.is_error());
        }
        Poll::Ready(Ok(()))
    }
}

//! An answer that others are given, too, while it comes: its own client must not hold it up, be it slow or gone. So it is not
//! the parts that come along which are written, but what the shared body has; and when that client does not read, the exchange
//! goes on without it as soon as there are others.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use pingora::{Error, ErrorType, Result};

/// A body that several are given while it comes.
pub(crate) trait SharedBody: fmt::Debug + Send + Sync {
    /// What has come from this place on, or some of it.
    fn from(&self, place: usize) -> Bytes;
    /// True when there will be no more of it than there is: it is not kept, and only those who bring it have the rest.
    fn has_broken_off(&self) -> bool;
    /// True once others are given it; else this task is woken when they are.
    fn is_shared(&self, context: &Context<'_>) -> bool;
    /// Its own client has gone: true when it comes to its end for the others. Else it will be given to nobody from now on.
    fn leave(&self) -> bool;
}

/// What its own client has been written of it.
#[derive(Debug)]
pub(super) struct Ahead {
    body: Arc<dyn SharedBody>,
    /// So much of it has come along.
    told: usize,
    /// Where `part` ends.
    at: usize,
    /// What is to be written next.
    part: Bytes,
    /// Its client gets no more.
    gone: bool,
    /// Why, until that has been said.
    why: Option<Box<Error>>,
}

impl Ahead {
    pub(super) fn of(body: Arc<dyn SharedBody>) -> Self {
        Self { body, told: 0, at: 0, part: Bytes::new(), gone: false, why: None }
    }

    /// True when its client has been written all that there is, and the rest is to be written as it comes along: as long as it is
    /// given to nobody else, there may be no room to keep it.
    pub(super) fn is_over(&self) -> bool {
        self.body.has_broken_off() && self.part.is_empty() && self.at == self.told
    }

    /// So many bytes more have come along.
    pub(super) fn tell(&mut self, bytes: usize) {
        self.told += bytes;
    }

    /// What is to be written next; empty when nothing is for now.
    pub(super) fn next(&mut self) -> &[u8] {
        if self.part.is_empty() && self.at < self.told {
            let mut part = self.body.from(self.at);
            part.truncate(self.told - self.at);
            self.at += part.len();
            self.part = part;
        }
        &self.part
    }

    /// Takes all of that, to be written; nothing when there is nothing for now, or the client gets no more.
    pub(super) fn take_next(&mut self) -> Option<Bytes> {
        let left = if self.gone { 0 } else { self.next().len() };
        (left > 0).then(|| self.take(left))
    }

    /// So much of that has been written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.part.advance(bytes.min(self.part.len()));
    }

    /// Takes so much of it, to be written.
    pub(super) fn take(&mut self, bytes: usize) -> Bytes {
        self.part.split_to(bytes.min(self.part.len()))
    }

    /// What becomes of an attempt to write: neither a client that does not read nor one that has gone keeps the answer from
    /// the others.
    pub(super) fn settle(&mut self, written: Poll<Result<()>>, context: &Context<'_>) -> Poll<Result<()>> {
        match written {
            Poll::Pending if self.body.is_shared(context) => Poll::Ready(Ok(())),
            Poll::Ready(Err(e)) => Poll::Ready(self.leave(e)),
            written => written,
        }
    }

    /// True when the answer goes on without its client, which has gone for this reason.
    pub(super) fn goes_on_without(&mut self, gone: &Error) -> bool {
        self.gone || self.leave(Error::explain(ErrorType::ConnectionClosed, gone.to_string())).is_ok()
    }

    /// The client gets no more for this reason, which ends the answer unless others are given it.
    pub(super) fn leave(&mut self, why: Box<Error>) -> Result<()> {
        if !self.body.leave() {
            return Err(why);
        }
        (self.part, self.gone) = (Bytes::new(), true);
        self.why.get_or_insert(why);
        Ok(())
    }

    /// True when its client gets no more.
    pub(super) fn is_lost(&self) -> bool {
        self.gone
    }

    /// Why its client did not get all of it, when that is so.
    pub(super) fn take_lost(&mut self) -> Result<()> {
        self.why.take().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::{sync::atomic::AtomicBool, sync::atomic::Ordering::Relaxed, task::Waker};

    use super::*;

    #[derive(Debug)]
    struct Fixed(&'static [u8], AtomicBool, AtomicBool);

    impl SharedBody for Fixed {
        fn from(&self, place: usize) -> Bytes {
            // In pieces of four bytes.
            Bytes::from_static(&self.0[place..(place / 4 * 4 + 4).min(self.0.len())])
        }

        fn has_broken_off(&self) -> bool {
            self.2.load(Relaxed)
        }

        fn is_shared(&self, _: &Context<'_>) -> bool {
            self.1.load(Relaxed)
        }

        fn leave(&self) -> bool {
            self.1.load(Relaxed)
        }
    }

    #[test]
    fn its_client_is_written_what_has_come_along_and_no_more() {
        let body = Arc::new(Fixed(b"abcdefghij", AtomicBool::new(false), AtomicBool::new(false)));
        let mut ahead = Ahead::of(body.clone());
        assert!(ahead.next().is_empty());
        ahead.tell(6);
        assert_eq!(ahead.next(), b"abcd");
        ahead.wrote(1);
        body.2.store(true, Relaxed);
        assert!(!ahead.is_over(), "it has not been written all that has come");
        assert_eq!(ahead.next(), b"bcd");
        ahead.wrote(3);
        assert_eq!(ahead.next(), b"ef");
        assert_eq!(ahead.take(9), "ef");
        assert!(ahead.next().is_empty() && ahead.is_over());
        let context = Context::from_waker(Waker::noop());
        let failed = || Error::explain(ErrorType::WriteError, "gone");
        assert!(ahead.settle(Poll::Pending, &context).is_pending(), "nobody else is given it");
        assert!(matches!(ahead.settle(Poll::Ready(Err(failed())), &context), Poll::Ready(Err(_))));
        assert!(!ahead.goes_on_without(&failed()));
        body.1.store(true, Relaxed);
        assert!(matches!(ahead.settle(Poll::Pending, &context), Poll::Ready(Ok(()))));
        ahead.take_lost().unwrap();
        assert!(matches!(ahead.settle(Poll::Ready(Err(failed())), &context), Poll::Ready(Ok(()))));
        assert!(ahead.is_lost() && ahead.take_lost().is_err() && ahead.is_lost());
    }
}

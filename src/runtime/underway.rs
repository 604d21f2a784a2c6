//! An answer that is being stored and given to others meanwhile: each is given what has come, and then the rest as it comes.
//! Only answers of which the length was said: there is room for all of it before the first one is let in, so that none of
//! them is left with half of it because the store is full.

use std::{
    ops::Range,
    sync::Arc,
    task::{Context, Waker},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    cache::{
        body::{Body, Filling},
        entry::Entry,
        memory::Ticket,
        shared::Room,
    },
    downstream::SharedBody,
};

/// An answer on its way.
#[derive(Debug)]
pub struct Underway {
    /// All of it but the body, of which it has the length only.
    pub head: Arc<Entry>,
    /// Taken before the backend was asked.
    pub ticket: Ticket,
    state: Mutex<State>,
    /// Changes when there is more, and when there will not be.
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    body: Stage,
    /// What it takes while it comes.
    room: Option<Room>,
    /// Others are given it: there is room for all of it.
    shared: bool,
    /// Its own client has gone before others were given it: it will not come to its end.
    left: bool,
    /// Whoever waits for others.
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Stage {
    Coming(Filling),
    Whole(Body),
    /// It has broken off: this is all that has come.
    Broken(Filling),
}

/// The end of the one who brings it. When it is dropped before the end, the answer has broken off.
#[derive(Debug)]
pub struct Bringer(Arc<Underway>);

/// The place of somebody who is given it as it comes.
#[derive(Debug)]
pub struct Follower {
    underway: Arc<Underway>,
    news: watch::Receiver<()>,
    /// What is left to give.
    left: Range<usize>,
}

/// The answer has broken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenOff;

impl Bringer {
    /// Of an answer with this head, of which so much has come.
    pub fn new(head: Entry, ticket: Ticket, body: Filling, room: Room) -> Self {
        let state = State { body: Stage::Coming(body), room: Some(room), shared: false, left: false, waker: None };
        let (head, state, news) = (Arc::new(head), Mutex::new(state), watch::Sender::new(()));
        Self(Arc::new(Underway { head, ticket, state, news }))
    }

    /// For those who are given it.
    pub fn underway(&self) -> &Arc<Underway> {
        &self.0
    }

    /// More of it has come; false when there is no room for it.
    pub fn extend(&self, part: &[u8]) -> bool {
        let mut state = self.0.state.lock();
        let State { body: Stage::Coming(body), room: Some(room), shared, .. } = &mut *state else { return false };
        if !*shared && !room.grow(part.len()) {
            return false;
        }
        body.extend(part);
        drop(state);
        self.0.news.send_replace(());
        true
    }

    /// How many bytes have come.
    pub fn came(&self) -> usize {
        self.0.state.lock().body.len()
    }

    /// All of it has come.
    pub fn finish(self) -> Body {
        let mut state = self.0.state.lock();
        let Stage::Coming(filling) = std::mem::replace(&mut state.body, Stage::Whole(Body::default())) else {
            return Body::default();
        };
        let body = filling.finish();
        (state.body, state.room) = (Stage::Whole(body.clone()), None);
        drop(state);
        self.0.news.send_replace(());
        body
    }
}

impl Drop for Bringer {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if !matches!(state.body, Stage::Coming(_)) {
            return;
        }
        if let Stage::Coming(filling) = std::mem::replace(&mut state.body, Stage::Whole(Body::default())) {
            (state.body, state.room) = (Stage::Broken(filling), None);
        }
        drop(state);
        self.0.news.send_replace(());
    }
}

impl Stage {
    fn len(&self) -> usize {
        match self {
            Self::Coming(body) | Self::Broken(body) => body.len(),
            Self::Whole(body) => body.len(),
        }
    }

    /// What has come from this place on, or some of it.
    fn from(&self, place: usize) -> Bytes {
        match self {
            Self::Coming(body) | Self::Broken(body) => body.from(place),
            Self::Whole(body) => body.from(place),
        }
    }
}

impl Underway {
    /// Lets somebody in who is given it as it comes; nobody, when it has broken off or there is no room for all of it.
    pub fn follow(self: &Arc<Self>) -> Option<Follower> {
        let mut state = self.state.lock();
        let State { body, room, shared, left, waker } = &mut *state;
        if *left || matches!(body, Stage::Broken(_)) {
            return None;
        }
        if let (false, Some(room)) = (*shared, room) {
            let rest = self.head.body.len().saturating_sub(body.len());
            if !room.has(rest as u64) {
                return None;
            }
            room.grow(rest);
            *shared = true;
            waker.take().into_iter().for_each(Waker::wake);
        }
        drop(state);
        let news = self.news.subscribe();
        Some(Follower { underway: self.clone(), news, left: 0..self.head.body.len() })
    }
}

impl SharedBody for Underway {
    fn from(&self, place: usize) -> Bytes {
        self.state.lock().body.from(place)
    }

    fn has_broken_off(&self) -> bool {
        matches!(self.state.lock().body, Stage::Broken(_))
    }

    fn is_shared(&self, context: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        if !state.shared {
            state.waker = Some(context.waker().clone());
        }
        state.shared
    }

    fn leave(&self) -> bool {
        let mut state = self.state.lock();
        state.left = !state.shared;
        state.shared
    }
}

impl Follower {
    /// All of the answer but its body.
    pub fn head(&self) -> &Arc<Entry> {
        &self.underway.head
    }

    /// Is given this part of the body only.
    #[must_use]
    pub fn only(self, part: Range<usize>) -> Self {
        Self { left: part, ..self }
    }

    /// What has come by now and has not been given yet, or some of it; nothing when that is all for now.
    ///
    /// # Errors
    /// It has broken off.
    pub fn now(&mut self) -> Result<Option<Bytes>, BrokenOff> {
        self.news.mark_unchanged();
        let state = self.underway.state.lock();
        let mut part = state.body.from(self.left.start);
        if part.is_empty() && !matches!(state.body, Stage::Coming(_)) {
            return Err(BrokenOff);
        }
        drop(state);
        part.truncate(self.left.len());
        self.left.start += part.len();
        Ok((!part.is_empty()).then_some(part))
    }

    /// Waits for more.
    pub async fn wait(&mut self) {
        // Whoever brings it is gone when this fails: what has become of it is told by `now`.
        let _ = self.news.changed().await;
    }

    /// True when all of it has been given.
    pub fn has_ended(&self) -> bool {
        self.left.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::task::Context;

    use super::*;
    use crate::cache::{shared::Cache, test_entry::Made};

    /// An answer on its way, of which this length was said.
    fn bringer(cache: &Cache, length: usize) -> Bringer {
        let mut head = Made::saying("max-age=60").entry();
        head.body = Body::to_come(length);
        Bringer::new(head, cache.memory().ticket(), Filling::new(Some(length as u64), cache.held()), cache.room())
    }

    fn all(follower: &mut Follower) -> Vec<u8> {
        let mut got = Vec::new();
        while let Ok(Some(part)) = follower.now() {
            got.extend_from_slice(&part);
        }
        got
    }

    #[test]
    fn whoever_follows_is_given_all_of_it_in_the_end() {
        let cache = Cache::default();
        let bringer = bringer(&cache, 10);
        assert!(bringer.extend(b"abc") && bringer.came() == 3);
        let (underway, context) = (bringer.underway().clone(), Context::from_waker(Waker::noop()));
        assert!(!underway.is_shared(&context));
        let (mut one, mut other) = (underway.follow().unwrap(), underway.follow().unwrap());
        assert!(underway.is_shared(&context) && all(&mut one) == b"abc" && !one.has_ended());
        assert!(bringer.extend(b"defghij"));
        assert!(all(&mut one) == b"defghij" && one.has_ended());
        assert_eq!(bringer.finish().parts().concat(), b"abcdefghij");
        assert!(all(&mut other) == b"abcdefghij" && other.has_ended());
        assert!(all(&mut underway.follow().unwrap()) == b"abcdefghij", "although it has come in full");
    }

    #[test]
    fn what_breaks_off_is_followed_no_longer() {
        let cache = Cache::default();
        let half = bringer(&cache, 10);
        half.extend(b"abc");
        let mut follower = half.underway().follow().unwrap();
        let underway = half.underway().clone();
        drop(half);
        assert!(underway.follow().is_none(), "nobody is let in");
        assert!(all(&mut follower) == b"abc" && follower.now() == Err(BrokenOff));
        let short = bringer(&cache, 10);
        short.extend(b"abc");
        let mut follower = short.underway().follow().unwrap();
        short.finish();
        assert!(all(&mut follower) == b"abc" && follower.now() == Err(BrokenOff), "it is shorter than was said");
    }

    #[test]
    fn nobody_is_let_in_unless_there_is_room_for_all_of_it() {
        let cache = Cache::default();
        cache.set_budget(1 << 20, false);
        let (one, other) = (bringer(&cache, 600 << 10), bringer(&cache, 600 << 10));
        assert!(one.extend(&[0; 100]) && other.extend(&[0; 100]));
        let gone = bringer(&cache, 10);
        assert!(!gone.underway().leave() && gone.underway().follow().is_none(), "it will not come to its end");
        let follower = one.underway().follow();
        assert!(one.underway().leave() && one.underway().follow().is_some(), "it does for the others");
        assert!(follower.is_some() && other.underway().follow().is_none());
        // It is there for the one, whoever else needs some.
        assert!(one.extend(&vec![0; 500 << 10]) && !other.extend(&vec![0; 500 << 10]));
        drop((one, other, follower));
        assert!(bringer(&cache, 600 << 10).underway().follow().is_some());
    }
}

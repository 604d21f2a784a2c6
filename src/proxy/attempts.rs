//! Attempts at backends: what is known of those of one request.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    clock::Now,
    upstream::{
        AttemptOutcome, Backend, BackendPermit, Service,
        choice::{Chosen, ProbeTickets},
    },
};

/// A repeat that costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum FreeRepeat {
    /// No attempt has run into a closed connection.
    #[default]
    Unused,
    /// The next attempt is the repeat.
    Due,
    /// There is none any more.
    Used,
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The request is being sent: before its end, how the attempt ends says nothing about the backend.
    Sending {
        /// The time between two reads from the backend is limited on the client's side, from the request's end on:
        /// Pingora would count it from the attempt's beginning, however long the client takes.
        bounded_here: bool,
    },
    /// The whole of the request has been sent.
    Sent,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Sending { bounded_here: false }
    }
}

/// Attempts at backends.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// How many were begun.
    pub count: u32,
    /// Backends that cannot be reached.
    pub tried: Vec<SocketAddr>,
    /// The backend of the running attempt.
    pub backend: Option<Arc<Backend>>,
    /// The place at it.
    pub place: Option<BackendPermit>,
    /// Its tickets; gone once the service has learnt how it ended.
    pub tickets: Option<ProbeTickets>,
    /// The backend of the next attempt, found before the answer of this one was thrown away.
    pub reserved: Option<Chosen>,
    /// The status of an answer that was thrown away for another attempt.
    pub discarded: Option<u16>,
    /// The status of an answer that has begun well: it is booked at its end, when it has not broken off.
    pub begun_well: Option<u16>,
    /// How far the running attempt is.
    pub phase: Phase,
    /// When a request with a body had been sent: the backend's time is counted from there.
    pub sent: Option<Instant>,
    /// It is the probe of a breaker, if nobody else is by the time it has been sent.
    pub suspended: bool,
    /// More than one attempt is allowed: backends are told which one they see.
    pub may_repeat: bool,
    /// The one repeat that costs nothing, after a kept connection that had been closed.
    pub free: FreeRepeat,
    /// The request has been counted for the retry budget.
    pub counted: bool,
    /// How long the request has waited for a place at its service.
    pub waited: Duration,
    /// When the running attempt began.
    pub began: Option<Instant>,
    /// How long connecting took.
    pub connect: Option<Duration>,
    /// When the service learnt how it ended: with the answer's head, if it went well.
    pub settled: Option<Instant>,
    /// When the answer's head came.
    pub first_byte: Option<Instant>,
}

impl Attempts {
    /// True while the client is still sending the body of its request.
    pub(crate) fn is_sending(&self) -> bool {
        self.phase == (Phase::Sending { bounded_here: true })
    }

    /// Counts the request for the retry budget, unless that has been done.
    pub(crate) fn count_once(&mut self, service: &Service, now: std::time::Duration) {
        if !std::mem::replace(&mut self.counted, true) {
            service.resilience.count_request(now);
        }
    }

    /// Begins an attempt at the backend that was chosen.
    pub(super) fn begin(&mut self, chosen: Chosen) {
        let Chosen { backend, place, tickets } = chosen;
        self.count += 1;
        (self.began, self.sent, self.suspended, self.begun_well) = (Some(Instant::now()), None, false, None);
        self.connect = None;
        (self.backend, self.place, self.tickets) = (Some(backend), Some(place), Some(tickets));
    }

    /// An attempt beside the one that may be running has begun: what is logged if the request ends now.
    pub(super) fn note_begun(&mut self, backend: Option<&Arc<Backend>>) {
        self.count += 1;
        self.tried.extend(self.backend.as_ref().map(|backend| backend.address));
        (self.backend, self.began) = (backend.cloned(), Some(Instant::now()));
    }

    /// Of the attempts that have begun the one at `taken` counts: every other backend has been tried.
    pub(super) fn note_taken(&mut self, taken: SocketAddr) {
        self.tried.extend(self.backend.as_ref().map(|backend| backend.address));
        self.tried.retain(|tried| *tried != taken);
    }

    /// The attempt is not made after all.
    pub(super) fn withdraw(&mut self) {
        self.count -= 1;
        (self.backend, self.place, self.tickets, self.began) = (None, None, None, None);
    }

    /// The running attempt has failed: its backend has been tried.
    pub(crate) fn note_failed(&mut self) {
        self.place = None;
        if let Some(backend) = &self.backend {
            self.tried.push(backend.address);
        }
    }

    /// How long the backend has been waited for: to connect, or to answer what had been sent. The client's time to send it
    /// is not the backend's.
    pub(super) fn waited_for_backend(&self, connecting: bool) -> Duration {
        let connected = self.began.and_then(|began| began.checked_add(self.connect.unwrap_or_default()));
        let from = if connecting { self.began } else { self.sent.or(connected) };
        from.map_or(Duration::ZERO, |from| from.elapsed())
    }

    /// Books the attempt once more.
    pub(super) fn reopen(&mut self) {
        self.tickets.get_or_insert_default();
    }

    /// Gives back what an attempt would have needed that is not made, because the request has ended.
    pub(crate) fn give_up(&mut self, service: &Service) {
        if let Some(Chosen { backend, tickets, .. }) = self.reserved.take() {
            service.resilience.give_back(&backend, tickets);
        }
    }

    /// The answer's head has come. A failure is booked at once, and so is the answer to a probe, for which others wait; of
    /// any other only the latency is, until it has ended.
    pub(crate) fn record_head(&mut self, service: &Service, status: u16) {
        let (outcome, now) = (AttemptOutcome::Answered(status), Instant::now());
        if let Some(elapsed) = self.elapsed(now) {
            service.metrics.first_byte.observe(elapsed.as_secs_f64());
        }
        let probes = self.tickets.is_some_and(|tickets| tickets != ProbeTickets::default());
        let Some(backend) = self.backend.as_ref().filter(|_| !probes && !service.resilience.is_failure(outcome)) else {
            return self.record_outcome(service, outcome);
        };
        (self.settled, self.begun_well) = (Some(now), Some(status));
        if let Some(elapsed) = self.elapsed(now) {
            service.resilience.learn_latency(backend, Now::monotonic_at(now), elapsed, false);
        }
    }

    /// How long the backend has taken so far. How long a client takes to send its request is not the backend's latency; of
    /// an answer that came before the end of it nothing can be told.
    fn elapsed(&self, now: Instant) -> Option<Duration> {
        let from = if self.is_sending() { None } else { self.sent.or(self.began) };
        from.map(|from| now.saturating_duration_since(from))
    }

    /// Tells the service how the attempt ended; only the first time counts.
    pub(crate) fn record_outcome(&mut self, service: &Service, outcome: AttemptOutcome) {
        // What its client or a time limit has ended had begun well, all the same.
        let begun_well = self.begun_well.take();
        let outcome = match (outcome, begun_well) {
            (AttemptOutcome::Unknown, Some(status)) => AttemptOutcome::Answered(status),
            (outcome, _) => outcome,
        };
        let (Some(tickets), Some(backend)) = (self.tickets.take(), &self.backend) else { return };
        let now = Instant::now();
        // Its latency is known.
        let elapsed = if begun_well.is_some() { None } else { self.elapsed(now) };
        self.settled = Some(now);
        service.resilience.record_outcome(backend, tickets, Now::monotonic_at(now), elapsed, outcome);
    }
}

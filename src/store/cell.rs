//! What this process knows of one client of a shared limit.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::redis::microseconds;
use crate::limit::Lease;

/// What is known here of one client.
#[derive(Default)]
pub(super) struct Cell {
    pub(super) lease: Mutex<Lease>,
    /// Requests that wait for an answer.
    pub(super) waiting: AtomicUsize,
    pub(super) changed: Notify,
    /// The generation whose store has been told what is used of the share here.
    pub(super) told: AtomicU64,
    /// Its key in the store is broken: the store is not asked before this, in microseconds.
    pub(super) broken: AtomicU64,
    /// Somebody gives the lease back when it is idle.
    pub(super) watched: AtomicBool,
}

impl Cell {
    /// The store is not to be asked for it now.
    pub(super) fn is_broken(&self, now: Duration) -> bool {
        let until = self.broken.load(Relaxed);
        until != 0 && microseconds(now) < until
    }
}

/// What the store is told; not told, when the call fails or is dropped.
pub(super) struct Debt<'c> {
    pub(super) tokens: u32,
    pub(super) told: Option<&'c AtomicU64>,
}

impl Debt<'_> {
    pub(super) fn paid(mut self) {
        self.told = None;
    }
}

impl Drop for Debt<'_> {
    fn drop(&mut self) {
        if let Some(told) = self.told {
            told.store(0, Relaxed);
        }
    }
}

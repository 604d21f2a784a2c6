//! Calls that failed: what is said of them, and whom they concern.

use std::time::Duration;

use parking_lot::Mutex;
use redis::RedisError;

use crate::clock::Now;

/// Time from one complaint of a broken key to the next.
const PAUSE: Duration = Duration::from_secs(60);

/// Whom a failure concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Concern {
    /// The store, as far as is known: there was no answer in time.
    Late,
    /// The store: nobody will be answered.
    Store,
    /// The one key that was asked for: it is not what a bucket is.
    Key,
}

/// A call that was not answered, or not in time.
pub(super) struct Failure {
    pub(super) reason: String,
    pub(super) concern: Concern,
}

impl Failure {
    pub(super) fn new(error: &RedisError) -> Self {
        Self { reason: told(error), concern: concern(error.code(), error.detail().unwrap_or_default()) }
    }
}

/// When the last one was.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<Option<Duration>>);

impl Complaints {
    /// True when it is time for one: not of every failure, and not all the time.
    pub(crate) fn due(&self) -> bool {
        let (now, mut last) = (Now::monotonic(), self.0.lock());
        let due = last.is_none_or(|last| now.saturating_sub(last) >= PAUSE);
        if due {
            *last = Some(now);
        }
        due
    }

    /// Says which key is broken, and what helps.
    pub(super) fn about(&self, key: &str) {
        if self.due() {
            log::warn!(
                "redis: the bucket of one client is not what a limit keeps there (WRONGTYPE, or alike): its limit does \
                 without Redis until somebody deletes it: DEL {key}"
            );
        }
    }
}

/// Whom an answer with this code concerns. Only what is known to be one key's fault is: a server that loads, has no memory or
/// wants a password says so to everybody.
fn concern(code: Option<&str>, detail: &str) -> Concern {
    // What the script itself cannot reckon with, and how a Redis before 7 says that the key is of another kind.
    let of_script = ["attempt to", "bad argument", "WRONGTYPE"];
    match code {
        Some("WRONGTYPE") => Concern::Key,
        Some("ERR") if detail.contains("user_script") && of_script.iter().any(|sign| detail.contains(sign)) => {
            Concern::Key
        }
        _ => Concern::Store,
    }
}

/// What happened, without what was said to it: the library's messages hold no secrets, and what a server says may be anything.
pub(super) fn told(error: &RedisError) -> String {
    match error.code() {
        Some("ERR") => match plain(error.detail().unwrap_or_default()) {
            "" => "it says ERR".to_owned(),
            detail => format!("it says ERR: {detail}"),
        },
        Some(code) => format!("it says {code}"),
        None => error.to_string(),
    }
}

/// The words of a message before anything that it quotes, which may be what was sent.
fn plain(detail: &str) -> &str {
    let good = |c: char| c.is_ascii_alphanumeric() || " -_.,()".contains(c);
    let end = detail.find(|c| !good(c)).unwrap_or(detail.len());
    detail[..end.min(100)].trim_end_matches([' ', ','])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_s_fault_is_told_from_the_store_s() {
        let script = "user_script:25: attempt to perform arithmetic on a nil value script: 9, on @user_script:25.";
        for (code, detail) in [("WRONGTYPE", "Operation against a key"), ("ERR", script)] {
            assert_eq!(concern(Some(code), detail), Concern::Key, "{code} {detail}");
        }
        for code in ["LOADING", "READONLY", "OOM", "NOAUTH", "NOPERM", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "ERR"] {
            assert_eq!(concern(Some(code), "script: 9, on @user_script:9."), Concern::Store, "{code}");
        }
        assert_eq!(concern(None, "WRONGTYPE"), Concern::Store);
    }

    #[test]
    fn what_a_server_quotes_is_not_repeated() {
        assert_eq!(plain("DB index is out of range"), "DB index is out of range");
        assert_eq!(plain("unknown command 'AUTH', with args beginning with: 'hunter2'"), "unknown command");
        assert_eq!(plain("unknown command `AUTH`, `hunter2`"), "unknown command");
        assert_eq!(plain(&"x".repeat(999)).len(), 100);
    }
}

//! What has passed, beside what one exact bucket would have let pass.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{client::Asked, policy::Policy};
use crate::limit::{Tat, decide};

/// One part of the trial.
pub(super) struct Phase {
    name: String,
    asked: Vec<Asked>,
}

impl Phase {
    pub(super) fn new(name: &str, mut asked: Vec<Asked>) -> Self {
        asked.sort_by_key(|asked| asked.at);
        Self { name: name.to_owned(), asked }
    }
}

/// What may pass more because requests arrive in another order than they were sent in.
const SLACK: f64 = 1.0;

/// What has been found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// What has passed is within `rate * time + burst`, from the beginning to the end of each phase.
    Kept,
    /// It is more.
    Exceeded,
    /// Nothing has passed: something else has answered.
    Untried,
}

/// The table, and what it comes to. Answers of 4xx (but for 429) and 5xx are neither admitted nor refused by the limit.
pub(super) fn table(policy: &Policy, phases: Vec<Phase>) -> (String, Found) {
    let quota = &policy.quota;
    let mut text = format!(
        "policy '{}': {} per {:?}, burst {}\n{:<12} {:>8} {:>9} {:>8} {:>8} {:>7}\n",
        policy.name,
        quota.count(),
        quota.per(),
        quota.burst(),
        "",
        "sent",
        "admitted",
        "ideal",
        "error",
        "other"
    );
    let (mut bucket, mut kept, mut all) = (Tat::default(), true, 0.0);
    let mut others: BTreeMap<u16, usize> = BTreeMap::new();
    for Phase { name, asked } in phases {
        let (mut ideal, mut admitted, mut other) = (0u32, 0u32, 0u32);
        for request in &asked {
            match request.status {
                429 => {}
                status if status < 400 => admitted += 1,
                status => {
                    other += 1;
                    *others.entry(status).or_default() += 1;
                    continue;
                }
            }
            if let (_, Some(next)) = decide(quota, bucket, request.at, 1) {
                (bucket, ideal) = (next, ideal + 1);
            }
        }
        all += f64::from(admitted);
        let last = asked.last().map_or(0.0, |asked| asked.at.as_secs_f64());
        kept &= all <= policy.most * last + f64::from(quota.burst()) + SLACK;
        let error = (f64::from(admitted) - f64::from(ideal)) / f64::from(ideal.max(1)) * 100.0;
        let _ = writeln!(text, "{name:<12} {:>8} {admitted:>9} {ideal:>8} {error:>+7.2}% {other:>7}", asked.len());
    }
    if !others.is_empty() {
        let others: Vec<String> = others.iter().map(|(status, count)| format!("{count} with {status}")).collect();
        let _ = writeln!(text, "other answers: {}", others.join(", "));
    }
    let found = if !kept {
        Found::Exceeded
    } else if all == 0.0 {
        Found::Untried
    } else {
        Found::Kept
    };
    (text, found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use super::*;

    fn phase(statuses: &[u16]) -> Phase {
        let asked = |(i, status): (u64, &u16)| Asked { at: Duration::from_millis(i), status: *status, policy: None };
        Phase::new("x", (0..).zip(statuses).map(asked).collect())
    }

    #[test]
    fn too_many_are_told_and_too_few_are_an_error() {
        let policy = Policy::read("\"p\";q=2;w=20").unwrap();
        let (text, found) = table(&policy, vec![phase(&[200, 200, 429, 502, 401, 401])]);
        assert_eq!(found, Found::Kept);
        let end = "x                   6         2        2   +0.00%       3\nother answers: 2 with 401, 1 with 502\n";
        assert!(text.ends_with(end), "{text}");
        assert!(table(&policy, vec![phase(&[200, 429, 429])]).0.contains("-50.00%"));
        assert_eq!(table(&policy, vec![phase(&[200, 200, 200, 204])]).1, Found::Exceeded);
        // 21 at 10/s are told as 21 in 3 seconds.
        let rounded = Policy::read("\"p\";q=21;w=3").unwrap();
        let later = |millis| Asked { at: Duration::from_millis(millis), status: 200, policy: None };
        let passed = (0..21).map(|_| later(0)).chain((0..10).map(|i| later(i * 100 + 100)));
        assert_eq!(table(&rounded, vec![Phase::new("x", passed.collect())]).1, Found::Kept);
        assert_eq!(table(&policy, vec![phase(&[401, 404, 503, 429])]).1, Found::Untried);
    }
}

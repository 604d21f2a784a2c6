//! What a limit says.

use std::time::Duration;

use crate::{limit::Quota, units::Rate};

/// A limit, and its name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) quota: Quota,
    /// The rate may be as much as this, in requests a second: a window that is told has been rounded up to whole seconds.
    pub(super) most: f64,
}

fn rate(quota: &Quota) -> f64 {
    f64::from(quota.count()) / quota.per().as_secs_f64()
}

impl Policy {
    /// As it was given.
    pub(super) fn given(rate: Rate, burst: Option<u32>) -> Result<Self, String> {
        let quota = Quota::new(rate.count, rate.per, burst.unwrap_or(rate.count)).map_err(|e| e.to_string())?;
        Ok(Self { name: "given".to_owned(), most: self::rate(&quota), quota })
    }

    /// From `RateLimit-Policy`: `"default";q=20;w=2` is a bucket of 20 that fills in two seconds.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let wrong = || format!("RateLimit-Policy: {text} is none that this command knows: use --rate and --burst");
        if text.contains(',') {
            return Err(format!(
                "RateLimit-Policy: {text} are several limits: say with --rate and --burst which one to expect"
            ));
        }
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().and_then(|name| name.strip_prefix('"')?.strip_suffix('"')).ok_or_else(wrong)?;
        let (mut count, mut window) = (None, None);
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match key {
                "q" => count = value.parse::<u32>().ok(),
                "w" => window = value.parse::<u64>().ok(),
                _ => {}
            }
        }
        let (count, window) = count.zip(window).ok_or_else(wrong)?;
        if window == 1 {
            return Err(format!("RateLimit-Policy: {text} knows no part of a second: use --rate and --burst"));
        }
        let quota = Quota::new(count, Duration::from_secs(window), count).map_err(|e| format!("{text}: {e}"))?;
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        let most = f64::from(count) / (window - 1) as f64;
        Ok(Self { name: name.to_owned(), quota, most })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_policy_is_read_or_asked_for() {
        let policy = Policy::read("\"default\";q=20;w=2").unwrap();
        assert_eq!(
            (policy.name.as_str(), policy.quota),
            ("default", Quota::new(20, Duration::from_secs(2), 20).unwrap())
        );
        for text in
            ["", "default;q=1;w=2", "\"a\";q=1", "\"a\";q=5;w=1", "\"a\";q=5;w=9, \"b\";q=5;w=9", "\"a\";q=0;w=2"]
        {
            assert!(Policy::read(text).is_err(), "{text}");
        }
    }
}

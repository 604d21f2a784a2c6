//! "Did you mean": the nearest right name for a wrong one.

/// The candidate that `wrong` most likely stood for, or `None` when nothing is close enough to help.
#[must_use]
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Two of three letters must agree: below that a suggestion misleads more often than it helps.
    let wrong = wrong.to_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|right| (strsim::normalized_damerau_levenshtein(&wrong, &right.to_lowercase().replace('-', "_")), right))
        .filter(|(score, _)| *score >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, right)| right)
}

/// What is wrong, with the nearest right name, or, failing that, all of them. Where a reference to a secret belongs, what was
/// written instead may be the secret itself, and is not repeated.
pub(crate) fn unknown(what: &str, wrong: &str, expected: &[&'static str]) -> String {
    match nearest(wrong, expected.iter().copied()) {
        _ if expected.contains(&"credential") || expected.contains(&"jwks") => {
            format!("{what} (known: {})", expected.join(", "))
        }
        Some(right) => format!("{what} '{wrong}' (did you mean '{right}'?)"),
        None if expected.is_empty() => format!("{what} '{wrong}' (there are no keys here)"),
        None => format!("{what} '{wrong}' (known: {})", expected.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_the_slip_of_the_finger() {
        assert_eq!(nearest("brust", ["rate", "burst", "by"]), Some("burst"));
        assert_eq!(nearest("health-check", ["health_check", "urls"]), Some("health_check"));
        assert_eq!(nearest("RoundRobin", ["round_robin", "random"]), Some("round_robin"));
    }

    #[test]
    fn stays_silent_when_nothing_is_near() {
        assert_eq!(nearest("zzz", ["rate", "burst"]), None);
    }
}

//! Durations, sizes and rates as people write them: `250ms`, `1h30m`, `10MiB`, `100/s`, `5000/10m`.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use jiff::{SpanRelativeTo, fmt::friendly::SpanParser};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// A length of time. `0` is allowed where zero has a meaning; a bare number is refused, because its unit is a guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes: `512`, `64KiB`, `10MB` (powers of ten), `1GiB` (powers of two).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A count per length of time: `10/s`, `600/m`, `5000/10m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

/// Units of time that may be written; jiff knows more, which nobody would guess here.
const TIME_UNITS: [&str; 6] = ["us", "ms", "s", "m", "h", "d"];

/// 10 years: beyond that the number is a slip, and nanoseconds would leave u64.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kb", 1_000),
    ("kib", 1 << 10),
    ("m", 1 << 20),
    ("mb", 1_000_000),
    ("mib", 1 << 20),
    ("g", 1 << 30),
    ("gb", 1_000_000_000),
    ("gib", 1 << 30),
];

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        if seconds(text.trim()).is_some_and(|seconds| seconds > LONGEST.as_secs_f64()) {
            return Err(format!("'{text}' is too long: at most {}d", LONGEST.as_secs() / 86_400));
        }
        let wrong = || format!("'{text}' is not a duration: write it like 250ms, 5s, 1h30m (units us, ms, s, m, h, d)");
        let mut units = text.trim().split(|c: char| c.is_ascii_digit() || c == '.').filter(|unit| !unit.is_empty());
        if !units.all(|unit| TIME_UNITS.contains(&unit)) {
            return Err(wrong());
        }
        let span = SpanParser::new().parse_span(text.trim()).map_err(|_| wrong())?;
        let time = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
        let time = Duration::try_from(time).map_err(|_| wrong())?;
        if time > LONGEST { Err(wrong()) } else { Ok(Self(time)) }
    }
}

/// How many seconds `text` means, if it is a duration; also of one that is longer than any that there is.
fn seconds(text: &str) -> Option<f64> {
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let (number, unit) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, next) = unit.split_at(unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len()));
        let unit = [1e-6, 1e-3, 1.0, 60.0, 3600.0, 86_400.0][TIME_UNITS.iter().position(|known| *known == unit)?];
        total += number.parse::<f64>().ok()? * unit;
        rest = next;
    }
    Some(total)
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a size: write it like 512, 64KiB, 10MB, 1GiB");
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
        let number: u64 = lower[..digits].parse().map_err(|_| wrong())?;
        let unit = lower[digits..].trim();
        let factor = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a rate: write it like 10/s, 600/m, 5000/10m");
        let (count, per) = text.trim().split_once('/').ok_or_else(wrong)?;
        let count: u32 = count.trim().parse().map_err(|_| wrong())?;
        let per = per.trim();
        let per = if per.starts_with(|c: char| c.is_ascii_digit()) { per.to_owned() } else { format!("1{per}") };
        let per = per.parse::<Span>().map_err(|_| wrong())?.0;
        if count == 0 || per.is_zero() { Err(wrong()) } else { Ok(Self { count, per }) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In units that may be written.
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        f.write_str(&format!("{:?}", self.0).replace('µ', "u"))
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

/// Reads a unit from a YAML scalar, whether or not it looks like a number.
fn from_scalar<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(deserializer: D) -> Result<T, D::Error> {
    Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

macro_rules! unit {
    ($type:ty, $name:literal, $schema:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                from_scalar(deserializer)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

/// The parts of a duration, the longest unit first; the last part may be a fraction, but not one of days.
const PARTS: &str = concat!(
    "(?=[0-9])([0-9]+d)?",
    r"([0-9]+(\.[0-9]{1,9}(?=h$))?h)?([0-9]+(\.[0-9]{1,9}(?=m$))?m)?([0-9]+(\.[0-9]{1,9}(?=s$))?s)?",
    r"([0-9]+(\.[0-9]{1,9}(?=ms$))?ms)?([0-9]+(\.[0-9]{1,9}(?=us$))?us)?"
);

unit!(
    Span,
    "Span",
    json_schema!({
        "description": "A duration: 250ms, 5s, 1h30m.",
        "anyOf": [{ "type": "string", "pattern": format!("^(0|{PARTS})$") }, { "const": 0 }]
    })
);
unit!(
    Size,
    "Size",
    json_schema!({
        "description": "A number of bytes: 512, 64KiB, 10MB (powers of ten), 1GiB (powers of two).",
        "type": ["string", "integer"], "minimum": 0, "pattern": "^[0-9]+ *([bB]|[kKmMgG]([iI]?[bB])?)?$"
    })
);
unit!(
    Rate,
    "Rate",
    json_schema!({
        "description": "A rate: 10/s, 600/m, 5000/10m.",
        "type": "string", "pattern": format!("^[+]?0*[1-9][0-9]* */ *(us|ms|s|m|h|d|{PARTS})$")
    })
);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        assert_eq!("250ms".parse::<Span>().unwrap().0, Duration::from_millis(250));
        assert_eq!("1h30m".parse::<Span>().unwrap().0, Duration::from_secs(5400));
        assert_eq!("1.5s".parse::<Span>().unwrap().0, Duration::from_millis(1500));
        assert_eq!("0".parse::<Span>().unwrap().0, Duration::ZERO);
        for wrong in ["", "5", "5 s", "s", "5x", "-1s", "1e9s", "1s1h"] {
            assert!(wrong.parse::<Span>().unwrap_err().contains("is not a duration"), "{wrong:?}");
        }
        for long in ["3651d", "99999999999d", "3650d1us", "87600h1s"] {
            assert_eq!(long.parse::<Span>().unwrap_err(), format!("'{long}' is too long: at most 3650d"));
        }
        assert_eq!("3650d".parse::<Span>().unwrap().0, LONGEST);
        assert_eq!(
            ["0", "0s", "1500us", "90s"].map(|text| text.parse::<Span>().unwrap().to_string()),
            ["0s", "0s", "1.5ms", "90s"]
        );
    }

    #[test]
    fn sizes() {
        assert_eq!("512".parse::<Size>().unwrap().0, 512);
        assert_eq!("64KiB".parse::<Size>().unwrap().0, 65_536);
        assert_eq!("10mb".parse::<Size>().unwrap().0, 10_000_000);
        for wrong in ["", "ten", "1.5MB", "10XB", "99999999999GiB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!("10/s".parse::<Rate>().unwrap(), Rate { count: 10, per: Duration::from_secs(1) });
        assert_eq!("5000/10m".parse::<Rate>().unwrap(), Rate { count: 5000, per: Duration::from_secs(600) });
        for wrong in ["10", "0/s", "10/0s", "/s", "10/fortnight", "-1/s"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,20}") {
            let _ = (text.parse::<Span>(), text.parse::<Size>(), text.parse::<Rate>());
        }
    }
}

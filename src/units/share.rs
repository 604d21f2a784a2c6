//! Parts of a whole as people write them: `20%` or `0.2`.

use std::{borrow::Cow, fmt, hash, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// A share from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(pub f64);

// A share is read from text and is never NaN.
impl Eq for Share {}

impl hash::Hash for Share {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a share: write it like 20% or 0.2");
        let (number, whole) = match text.trim().strip_suffix('%') {
            Some(number) => (number, 100.0),
            None => (text, 1.0),
        };
        let share = number.trim().parse::<f64>().map_err(|_| wrong())? / whole;
        if (0.0..=1.0).contains(&share) { Ok(Self(share)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0 * 100.0)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Share {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "a part of a whole: 20% or 0.2",
            "anyOf": [{ "type": "string", "pattern": "^[0-9.]+ *%$" }, { "type": "number", "minimum": 0, "maximum": 1 }]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_shares() {
        assert_eq!("20%".parse(), Ok(Share(0.2)));
        assert_eq!("0.25".parse(), Ok(Share(0.25)));
        assert_eq!("100%".parse(), Ok(Share(1.0)));
        for wrong in ["", "%", "101%", "-1%", "2", "NaN", "x%", "inf"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
    }
}

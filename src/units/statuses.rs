//! Statuses as people write them: `200`, and `2xx` for a hundred of them.

use std::{borrow::Cow, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// One status, or all that begin with one digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statuses {
    first: u16,
    last: u16,
}

impl Statuses {
    /// One status.
    pub fn one(status: u16) -> Self {
        Self { first: status, last: status }
    }

    /// True when `status` is one of them.
    pub fn contains(&self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }

    /// True when HTTP has them: 100 to 599.
    pub fn exist(&self) -> bool {
        self.first >= 100 && self.last <= 599
    }
}

impl FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a status: write it like 200, or 2xx for all that begin with 2");
        let Some(class) = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) else {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            return text.parse().ok().filter(|_| digits).map(Self::one).ok_or_else(wrong);
        };
        match class.as_bytes() {
            [digit @ b'1'..=b'5'] => {
                let first = u16::from(digit - b'0') * 100;
                Ok(Self { first, last: first + 99 })
            }
            _ => Err(wrong()),
        }
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A status like 200, or 2xx for all that begin with 2.",
            "anyOf": [
                { "type": "integer", "minimum": 100, "maximum": 599 },
                { "type": "string", "pattern": "^([1-5][0-9][0-9]|[1-5](xx|XX))$" },
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn one_or_a_hundred() {
        let all = |text: &str| text.parse::<Statuses>().unwrap();
        assert!(all("200").contains(200) && !all("200").contains(201));
        assert!(all("2xx").contains(200) && all("2xx").contains(299) && !all("2xx").contains(300));
        assert!(!all("99").exist() && !all("600").exist() && all("5XX").exist());
        for wrong in ["", "xx", "0xx", "6xx", "2x", "20x", "ok", "-1", "+200", "+2xx", "2xx "] {
            assert!(wrong.parse::<Statuses>().is_err(), "{wrong:?}");
        }
    }
}

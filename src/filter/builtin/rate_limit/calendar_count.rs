//! So many in a period of the calendar, as people write it: `10000/month`.

use std::{borrow::Cow, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::limit::{CalendarPeriod, CalendarQuota};

/// `10000/month`.
#[derive(Debug, Clone, Copy)]
pub(super) struct CalendarCount(pub(super) CalendarQuota);

impl FromStr for CalendarCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is not a quota: write it like 10000/month (of the calendar: second, minute, hour, day, month)"
            )
        };
        let (count, per) = text.trim().split_once('/').ok_or_else(wrong)?;
        let count: u32 = count.trim().parse().map_err(|_| wrong())?;
        let per: CalendarPeriod = per.trim().parse().map_err(|()| wrong())?;
        CalendarQuota::new(count, per).map(Self).map_err(|_| wrong())
    }
}

impl<'de> Deserialize<'de> for CalendarCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for CalendarCount {
    fn schema_name() -> Cow<'static, str> {
        "CalendarQuota".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "So many in each period of the calendar, in UTC: 10000/month.",
            "type": "string", "pattern": "^[+]?0*[1-9][0-9]* */ *(second|minute|hour|day|month)$"
        })
    }
}

//! Settings that may be written as one value, when the rest of them stays as it is: `rate_limit: 10/s` for
//! `rate_limit: { rate: 10/s }`.

use std::{borrow::Cow, fmt, marker::PhantomData, ops::Deref};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

/// Settings with a short form.
pub trait FromShort: Sized {
    /// What may stand there, for messages.
    const EXPECTED: &'static str;

    /// Reads the short form.
    ///
    /// # Errors
    /// What is wrong with it.
    fn from_short(text: &str) -> Result<Self, String>;

    /// The short form's schema.
    fn short_schema(generator: &mut SchemaGenerator) -> Schema;
}

/// Settings in their short form or in their long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short<T>(pub T);

impl<T> Deref for Short<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: FromShort + Deserialize<'de>> Deserialize<'de> for Short<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: FromShort + Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
                T::from_short(text).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_bool<E: de::Error>(self, word: bool) -> Result<T, E> {
                self.visit_str(&word.to_string())
            }

            fn visit_unit<E: de::Error>(self) -> Result<T, E> {
                Err(E::custom(format!("expected {}, found nothing", T::EXPECTED)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<T, A::Error> {
                Err(de::Error::custom(format!("expected {}, found a list", T::EXPECTED)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_any(Either(PhantomData)).map(Self)
    }
}

impl<T: FromShort + JsonSchema> JsonSchema for Short<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        format!("Short<{}>", T::schema_id()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let short = T::short_schema(generator);
        json_schema!({ "anyOf": [short, generator.subschema_for::<T>()] })
    }
}

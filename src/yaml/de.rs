//! serde's view of a [`Node`]: a `Deserializer` whose errors know their node.

use std::fmt;

use serde::{
    Deserializer,
    de::{
        self, DeserializeSeed, EnumAccess, IntoDeserializer as _, MapAccess, SeqAccess, VariantAccess, Visitor,
        value::{StrDeserializer, StringDeserializer},
    },
    forward_to_deserialize_any,
};

use super::{
    Location, Node, Value,
    read_error::ReadError,
    spanned::{AT, NODE, hand_over},
};
use crate::{units::suggest::nearest, yaml::set_aside::SetAside};

#[derive(Clone, Copy)]
pub(crate) struct De<'a> {
    node: &'a Node,
    aside: &'a SetAside,
    /// It stands in the place of a list.
    alone: bool,
}

impl<'a> De<'a> {
    pub(crate) fn new(node: &'a Node, aside: &'a SetAside) -> Self {
        Self { node, aside, alone: false }
    }

    fn found(&self) -> String {
        match self.node.value() {
            _ if self.node.is_null() => "nothing".to_owned(),
            Value::Scalar { text, .. } => format!("'{text}'"),
            Value::Seq(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// The same where something else than text is due: text may be a secret, by whoever did not know better.
    fn expected_not_text(&self, what: &str) -> ReadError {
        match self.node.value() {
            Value::Scalar { .. } if !self.node.is_null() => {
                <ReadError as de::Error>::custom(format!("expected {what}, found text")).at(self.node)
            }
            _ => self.expected(what),
        }
    }

    fn expected(&self, what: &str) -> ReadError {
        let message = format!("expected {what}, found {}", self.found());
        <ReadError as de::Error>::custom(message).at(self.node)
    }

    fn integer<T: std::str::FromStr + fmt::Display>(&self, min: T, max: T) -> Result<T, ReadError> {
        let Value::Scalar { text, .. } = self.node.value() else {
            return Err(self.expected("a whole number"));
        };
        text.parse().map_err(|_| self.expected(&format!("a whole number from {min} to {max}")))
    }

    fn float(&self) -> Result<f64, ReadError> {
        match self.node.value() {
            Value::Scalar { text, .. } => text.parse().map_err(|_| self.expected("a number")),
            _ => Err(self.expected("a number")),
        }
    }

    /// A list of the one mapping that stands in its place.
    fn one_mapping<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let items = std::slice::from_ref(self.node).iter();
        visitor.visit_seq(Items { items, aside: self.aside, alone: true }).map_err(|fault: ReadError| {
            let itself = fault.culprit.as_ref().is_none_or(|culprit| culprit.id() == self.node.id());
            // Of a list of words nobody should hear that a word was expected, of a list of numbers not of a number.
            if itself && fault.place.is_none() && fault.message.starts_with("expected ") {
                return self.expected("a list");
            }
            fault.at(self.node)
        })
    }

    fn text(&self) -> Result<&'a str, ReadError> {
        match self.node.value() {
            Value::Scalar { text, .. } if !self.node.is_null() => Ok(text),
            _ => Err(self.expected("text")),
        }
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            visitor.$visit(self.integer($type::MIN, $type::MAX)?).map_err(|e: ReadError| e.at(self.node))
        }
    )*};
}

impl<'de> Deserializer<'de> for De<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let result = match self.node.value() {
            Value::Seq(_) => return self.deserialize_seq(visitor),
            Value::Map(_) => return self.deserialize_map(visitor),
            _ if self.node.is_null() => visitor.visit_unit(),
            Value::Scalar { text, plain: false } => visitor.visit_str(text),
            Value::Scalar { text, plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" => visitor.visit_bool(true),
                "false" | "False" | "FALSE" => visitor.visit_bool(false),
                _ => match (text.parse::<u64>(), text.parse::<i64>(), text.parse::<f64>()) {
                    (Ok(number), _, _) => visitor.visit_u64(number),
                    (_, Ok(number), _) => visitor.visit_i64(number),
                    (_, _, Ok(number)) if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
                        visitor.visit_f64(number)
                    }
                    _ => visitor.visit_str(text),
                },
            },
        };
        result.map_err(|e: ReadError| e.at(self.node))
    }

    integers! {
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.node.value() {
            Value::Scalar { text, .. } if matches!(text.as_str(), "true" | "True" | "TRUE") => visitor.visit_bool(true),
            Value::Scalar { text, .. } if matches!(text.as_str(), "false" | "False" | "FALSE") => {
                visitor.visit_bool(false)
            }
            _ => Err(self.expected("true or false")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_f64(self.float()?).map_err(|e: ReadError| e.at(self.node))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_f64(self.float()?).map_err(|e: ReadError| e.at(self.node))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_str(self.text()?).map_err(|e: ReadError| e.at(self.node))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &str, visitor: V) -> Result<V::Value, ReadError> {
        if name == AT || name == NODE {
            hand_over(self.node);
        }
        if name == NODE { visitor.visit_unit() } else { visitor.visit_newtype_struct(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let items = match self.node.value() {
            Value::Seq(items) => items.as_slice(),
            // One word is a list of one, wherever a list is read: `urls: http://127.0.0.1:8081`.
            Value::Scalar { .. } if !self.node.is_null() => std::slice::from_ref(self.node),
            // One mapping is, too, where there may be mappings in the list: `urls: { url: ..., weight: 2 }`.
            Value::Map(_) => return self.one_mapping(visitor),
            Value::Scalar { .. } => return Err(self.expected("a list")),
        };
        visitor.visit_seq(Items { items: items.iter(), aside: self.aside, alone: false }).map_err(|e| e.at(self.node))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let entries = match self.node.value() {
            Value::Map(entries) => entries.as_slice(),
            // `services:` with nothing under it is an empty mapping.
            _ if self.node.is_null() => &[],
            _ => return Err(self.expected_not_text("a mapping")),
        };
        let access = Entries { entries: entries.iter(), value: None, aside: self.aside };
        visitor.visit_map(access).map_err(|mut fault: ReadError| {
            if let (Some(name), None) = (fault.missing.take(), &fault.culprit) {
                fault.consequence = self.node.get(name).is_some_and(|child| self.aside.contains(child));
            }
            fault.at(self.node)
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        // Whoever gave each of several a name of its own hears that this is a list.
        if let (true, Value::Map(entries)) = (self.alone, self.node.value())
            && entries.iter().all(|(name, _, value)| {
                matches!(value.value(), Value::Map(_)) && nearest(name, fields.iter().copied()).is_none()
            })
            && !entries.is_empty()
        {
            return Err(self.expected("a list"));
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let (name, value, at) = match self.node.value() {
            Value::Scalar { text, .. } if !self.node.is_null() => (text.as_str(), None, self.node),
            Value::Map(entries) if entries.len() == 1 => (entries[0].0.as_str(), Some(&entries[0].2), self.node),
            _ => return Err(self.expected(&format!("one of {}", variants.join(", ")))),
        };
        let value = value.map(|node| De { node, aside: self.aside, alone: false });
        visitor.visit_enum(Choice { name, value, node: self.node }).map_err(|e| e.at(at))
    }

    forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct tuple_struct identifier ignored_any i128 u128
    }
}

struct Items<'a> {
    items: std::slice::Iter<'a, Node>,
    aside: &'a SetAside,
    alone: bool,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        let aside = self.aside;
        let Some(node) = self.items.find(|node| !aside.contains(node)) else { return Ok(None) };
        seed.deserialize(De { node, aside, alone: self.alone }).map(Some).map_err(|e| e.at(node))
    }
}

struct Entries<'a> {
    entries: std::slice::Iter<'a, (String, Location, Node)>,
    value: Option<&'a Node>,
    aside: &'a SetAside,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        let aside = self.aside;
        let Some((name, place, node)) = self.entries.find(|(_, _, node)| !aside.contains(node)) else {
            return Ok(None);
        };
        self.value = Some(node);
        let key: StringDeserializer<ReadError> = name.clone().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|e| ReadError { place: Some(place.clone()), ..e.at(node) })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let node = self.value.take().ok_or_else(|| <ReadError as de::Error>::custom("a value without its key"))?;
        seed.deserialize(De { node, aside: self.aside, alone: false }).map_err(|e| e.at(node))
    }
}

struct Choice<'a> {
    name: &'a str,
    value: Option<De<'a>>,
    node: &'a Node,
}

impl<'de> EnumAccess<'de> for Choice<'_> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), ReadError> {
        let name: StrDeserializer<'_, ReadError> = self.name.into_deserializer();
        Ok((seed.deserialize(name).map_err(|e| e.at(self.node))?, self))
    }
}

impl Choice<'_> {
    fn wants_settings(&self) -> ReadError {
        let message = format!("'{}' needs a value: write it as '{}: ...'", self.name, self.name);
        <ReadError as de::Error>::custom(message).at(self.node)
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        match self.value {
            Some(value) if !value.node.is_null() => {
                Err(<ReadError as de::Error>::custom(format!("'{}' takes no value", self.name)).at(self.node))
            }
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadError> {
        let value = self.value.ok_or_else(|| self.wants_settings())?;
        seed.deserialize(value)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.value.ok_or_else(|| self.wants_settings())?.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, ReadError> {
        self.value.ok_or_else(|| self.wants_settings())?.deserialize_map(visitor)
    }
}

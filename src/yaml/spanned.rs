//! Values that remember where they stood. serde has no channel for positions: a node is handed over beside it, in the
//! same call, on the same thread.

use std::{borrow::Cow, cell::RefCell, fmt, marker::PhantomData, ops::Deref};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

use super::{Location, Node};

pub(crate) const AT: &str = "tollgate::Spanned";
pub(crate) const NODE: &str = "tollgate::Node";

/// A typed value that remembers where it stood.
#[derive(Clone)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub place: Location,
}

/// Where it stood is not part of what it is: a file that has only moved its lines says the same.
impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Spanned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Spanned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_at(deserializer)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_node(deserializer)
    }
}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

thread_local! {
    static HANDED: RefCell<Option<Node>> = const { RefCell::new(None) };
}

/// Called by the deserializer just before it calls the visitor.
pub(crate) fn hand_over(node: &Node) {
    HANDED.with_borrow_mut(|slot| *slot = Some(node.clone()));
}

fn deserialize_at<'de, D: Deserializer<'de>, T: Deserialize<'de>>(de: D) -> Result<Spanned<T>, D::Error> {
    struct AtVisitor<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for AtVisitor<T> {
        type Value = Spanned<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value")
        }

        fn visit_newtype_struct<D: Deserializer<'de>>(self, de: D) -> Result<Spanned<T>, D::Error> {
            let place = HANDED.with_borrow_mut(Option::take).map(|node| node.place().clone()).unwrap_or_default();
            Ok(Spanned { value: T::deserialize(de)?, place })
        }
    }

    de.deserialize_newtype_struct(AT, AtVisitor(PhantomData))
}

fn deserialize_node<'de, D: Deserializer<'de>>(de: D) -> Result<Node, D::Error> {
    struct NodeVisitor;

    impl Visitor<'_> for NodeVisitor {
        type Value = Node;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a node of a configuration file")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
            HANDED.with_borrow_mut(Option::take).ok_or_else(|| E::custom("no node was handed over"))
        }
    }

    de.deserialize_newtype_struct(NODE, NodeVisitor)
}

//! Values that remember where they stood. serde has no channel for positions: a node is handed over beside it, in the
//! same call, on the same thread.

use std::{cell::RefCell, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

use super::{At, Node};

pub(crate) const AT: &str = "tollgate::At";
pub(crate) const NODE: &str = "tollgate::Node";

thread_local! {
    static HANDED: RefCell<Option<Node>> = const { RefCell::new(None) };
}

/// Called by the deserializer just before it calls the visitor.
pub(crate) fn hand_over(node: &Node) {
    HANDED.with_borrow_mut(|slot| *slot = Some(node.clone()));
}

pub(crate) fn deserialize_at<'de, D: Deserializer<'de>, T: Deserialize<'de>>(de: D) -> Result<At<T>, D::Error> {
    struct AtVisitor<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for AtVisitor<T> {
        type Value = At<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value")
        }

        fn visit_newtype_struct<D: Deserializer<'de>>(self, de: D) -> Result<At<T>, D::Error> {
            let place = HANDED.with_borrow_mut(Option::take).map(|node| node.place().clone()).unwrap_or_default();
            Ok(At { value: T::deserialize(de)?, place })
        }
    }

    de.deserialize_newtype_struct(AT, AtVisitor(PhantomData))
}

pub(crate) fn deserialize_node<'de, D: Deserializer<'de>>(de: D) -> Result<Node, D::Error> {
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

//! Nodes that are not read again, because something is wrong with them.

use std::{cell::RefCell, collections::HashSet};

use super::{Node, Value};

/// Nodes that were found wrong and are skipped on the next try.
#[derive(Default)]
pub(crate) struct SetAside(RefCell<HashSet<u32>>);

impl SetAside {
    /// True when it was not there yet.
    pub(super) fn add(&self, node: &Node) -> bool {
        self.0.borrow_mut().insert(node.id())
    }

    /// True when something directly below `node` was found wrong.
    pub(super) fn has_part_of(&self, node: &Node) -> bool {
        match node.value() {
            Value::Map(entries) => entries.iter().any(|(_, _, child)| self.contains(child)),
            Value::Seq(items) => items.iter().any(|child| self.contains(child)),
            Value::Scalar { .. } => false,
        }
    }

    pub(crate) fn contains(&self, node: &Node) -> bool {
        node.is_unset() || self.0.borrow().contains(&node.id())
    }
}

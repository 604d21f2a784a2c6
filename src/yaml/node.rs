//! The tree: nodes with their places.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use crate::units::Problem;

/// Where something stands in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Location {
    /// 1-based line.
    pub line: usize,
    /// 1-based column.
    pub column: usize,
    /// Key path from the root.
    pub path: String,
}

impl Location {
    /// A problem at this place.
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        Problem { line: self.line, column: self.column, path: self.path.clone(), message: message.into() }
    }
}

/// One node of the tree; cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    id: u32,
    place: Location,
    value: Value,
    /// A variable in it is not set: it is as if it were not there, and that has been said.
    unset: bool,
    /// Where the keys of a long mapping are: made when the first one is looked for.
    index: OnceLock<HashMap<String, usize>>,
}

/// A mapping with fewer keys is looked through faster than it is indexed.
const LONG: usize = 16;

/// What a node holds.
pub enum Value {
    /// Text; `plain` when it stood without quotes and may therefore mean a number, a boolean or null.
    Scalar {
        /// The text, after `${VAR}` expansion.
        text: String,
        /// Written without quotes.
        plain: bool,
    },
    /// A list.
    Seq(Vec<Node>),
    /// A mapping, in the order of the file: key, where the key stands, value.
    Map(Vec<(String, Location, Node)>),
}

/// What it says, without where: of that which stays the same when lines move, fingerprints are made.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar { text, plain: true } => write!(f, "plain {text:?}"),
            Self::Scalar { text, plain: false } => text.fmt(f),
            Self::Seq(items) => f.debug_list().entries(items).finish(),
            Self::Map(pairs) => f.debug_map().entries(pairs.iter().map(|(key, _, value)| (key, value))).finish(),
        }
    }
}

impl Node {
    pub(super) fn new(id: u32, place: Location, value: Value, unset: bool) -> Self {
        Self(Arc::new(Inner { id, place, value, unset, index: OnceLock::new() }))
    }

    /// Its number in the file.
    pub(super) fn id(&self) -> u32 {
        self.0.id
    }

    /// It stands for a variable that is not set.
    pub(super) fn is_unset(&self) -> bool {
        self.0.unset
    }

    /// An empty mapping at `place`: the settings of a filter that was named and not configured.
    pub fn empty_map(place: Location) -> Self {
        Self::new(u32::MAX, place, Value::Map(Vec::new()), false)
    }

    /// Where it stands.
    pub fn place(&self) -> &Location {
        &self.0.place
    }

    /// What it holds.
    pub fn value(&self) -> &Value {
        &self.0.value
    }

    /// The value under `key`, when this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match self.value() {
            Value::Map(entries) if entries.len() < LONG => {
                entries.iter().find(|(name, _, _)| name == key).map(|(_, _, node)| node)
            }
            Value::Map(entries) => {
                let index = || entries.iter().enumerate().map(|(i, (name, _, _))| (name.clone(), i)).collect();
                self.0.index.get_or_init(index).get(key).map(|i| &entries[*i].2)
            }
            _ => None,
        }
    }

    /// The node at a key path such as `services.users.urls[1]`, or its nearest ancestor.
    pub fn at(&self, path: &str) -> &Node {
        let mut node = self;
        for step in path.split(['.', '[']).map(|step| step.trim_end_matches(']')).filter(|step| !step.is_empty()) {
            let next = match node.value() {
                Value::Seq(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => node.get(step),
            };
            match next {
                Some(next) => node = next,
                None => return node,
            }
        }
        node
    }

    /// True for an absent value: `key:`, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(self.value(), Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

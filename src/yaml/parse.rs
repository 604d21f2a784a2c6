//! YAML text to [`Node`]s: anchors, merge keys and `${VAR}` are resolved here, once.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::{Location, Node, Value, hint::unquoted_brace};
use crate::units::{Problem, Problems};

/// More nodes than the aliases of any configuration add to those that are written down: stops "billion laughs".
const MAX_ADDED: u32 = 500_000;
/// How the problem of a variable that is not set begins.
pub(crate) const UNSET: &str = "environment variable '";
/// Deeper than any configuration is: keeps recursion off the end of the stack.
const MAX_DEPTH: usize = 64;

/// Reads one YAML document; `lookup` answers `${VAR}`.
///
/// # Errors
/// The syntax error, alone: what follows it cannot be trusted.
pub(crate) fn parse(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<(Node, Problems), Problem> {
    let mut builder = Builder::default();
    let syntax = |mark: &Marker, info: &str| Problem {
        line: mark.line(),
        column: mark.col() + 1,
        path: String::new(),
        message: {
            let hint = unquoted_brace(text, mark.line(), mark.col() + 1).unwrap_or_default();
            format!("invalid YAML: {info}{hint}")
        },
    };
    // Event by event: the parser's own loop calls itself for every level, and ends with the stack.
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| syntax(e.marker(), e.info()))?;
        builder.take(event, span);
        if let Some((mark, info)) = builder.failure {
            return Err(syntax(&mark, &info));
        }
    }
    let root = builder.roots.into_iter().next();
    let root = root.unwrap_or_else(|| Rc::new(Raw::new((1, 1), Body::Map(Vec::new()))));
    let limit = builder.count.saturating_add(cost(text)).saturating_add(MAX_ADDED);
    let mut finisher = Finisher { lookup, problems: Problems::default(), next: 0, limit, exhausted: false };
    let node = finisher.node(&root, String::new());
    Ok((node, finisher.problems))
}

/// Long texts count as several nodes: an alias can repeat them too.
fn cost(text: &str) -> u32 {
    u32::try_from(text.len() / 256).unwrap_or(u32::MAX)
}

struct Raw {
    mark: (usize, usize),
    body: Body,
    /// Levels below, aliases included.
    depth: usize,
}

impl Raw {
    fn new(mark: (usize, usize), body: Body) -> Self {
        let below = match &body {
            Body::Scalar { .. } => 0,
            Body::Seq(items) => items.iter().map(|item| item.depth + 1).max().unwrap_or(0),
            Body::Map(pairs) => pairs.iter().map(|(key, value)| key.depth.max(value.depth) + 1).max().unwrap_or(0),
        };
        Self { mark, body, depth: below }
    }
}

enum Body {
    Scalar { text: String, plain: bool },
    Seq(Vec<Rc<Raw>>),
    Map(Vec<(Rc<Raw>, Rc<Raw>)>),
}

/// Builds the raw tree from parser events.
#[derive(Default)]
struct Builder {
    open: Vec<(Marker, usize, bool, Vec<Rc<Raw>>)>,
    anchors: HashMap<usize, Rc<Raw>>,
    roots: Vec<Rc<Raw>>,
    failure: Option<(Marker, String)>,
    /// Nodes so far.
    count: u32,
}

impl Builder {
    fn add(&mut self, anchor: usize, raw: Rc<Raw>) {
        if anchor > 0 {
            self.anchors.insert(anchor, raw.clone());
        }
        match self.open.last_mut() {
            Some((_, _, _, children)) => children.push(raw),
            None => self.roots.push(raw),
        }
    }

    fn fail(&mut self, mark: Marker, info: &str) {
        self.failure.get_or_insert_with(|| (mark, info.to_owned()));
    }

    fn close(&mut self) {
        let Some((start, anchor, map, children)) = self.open.pop() else { return };
        let body = if map {
            let mut pairs = Vec::with_capacity(children.len() / 2);
            let mut children = children.into_iter();
            while let (Some(key), Some(value)) = (children.next(), children.next()) {
                pairs.push((key, value));
            }
            Body::Map(pairs)
        } else {
            Body::Seq(children)
        };
        let raw = Raw::new(mark_of(&start), body);
        // Aliases nest without a level of their own in the file.
        if raw.depth > MAX_DEPTH {
            self.fail(start, "nested too deeply");
        }
        self.add(anchor, Rc::new(raw));
    }
}

fn mark_of(mark: &Marker) -> (usize, usize) {
    (mark.line(), mark.col() + 1)
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) {
        self.count = self.count.saturating_add(1);
        match event {
            Event::DocumentStart(_) if !self.roots.is_empty() => {
                self.fail(span.start, "a second document: one file holds one configuration");
            }
            Event::Scalar(text, style, anchor, _) => {
                let body = Body::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                self.add(anchor, Rc::new(Raw::new(mark_of(&span.start), body)));
            }
            Event::SequenceStart(anchor, ..) => self.open.push((span.start, anchor, false, Vec::new())),
            Event::MappingStart(anchor, ..) => self.open.push((span.start, anchor, true, Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some(target) => self.add(0, target),
                None => self.fail(span.start, "an alias inside its own anchor"),
            },
            _ => {}
        }
        if self.open.len() > MAX_DEPTH {
            self.fail(span.start, "nested too deeply");
        }
    }
}

/// Gives every node its path, expands variables, applies merge keys.
struct Finisher<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: Problems,
    next: u32,
    /// That there are too many has been said.
    exhausted: bool,
    /// So many nodes are enough.
    limit: u32,
}

impl Finisher<'_> {
    fn node(&mut self, raw: &Raw, path: String) -> Node {
        let place = Location { line: raw.mark.0, column: raw.mark.1, path };
        let id = self.next;
        let mut unset = false;
        let value = match &raw.body {
            _ if !self.another(&place) => Value::Seq(Vec::new()),
            Body::Scalar { text, plain } => {
                let (text, complete) = self.expand(text, &place);
                unset = !complete;
                self.next = self.next.saturating_add(cost(&text));
                Value::Scalar { text, plain: *plain }
            }
            Body::Seq(items) => Value::Seq(
                (items.iter().enumerate())
                    .map_while(|(i, raw)| {
                        let more = self.within(&place);
                        more.then(|| self.node(raw, format!("{}[{i}]", place.path)))
                    })
                    .collect(),
            ),
            Body::Map(pairs) => Value::Map(self.map(pairs, &place)),
        };
        Node::new(id, place, value, unset)
    }

    /// False when there are too many nodes, which is said once.
    fn within(&mut self, place: &Location) -> bool {
        let within = self.next < self.limit;
        if !within && !self.exhausted {
            self.exhausted = true;
            self.problems
                .push(place.problem("too many nodes: an alias repeats itself without end, or keys are very long"));
        }
        within
    }

    /// Counts a node, or a mapping that is merged; false when there are too many of them.
    fn another(&mut self, place: &Location) -> bool {
        let within = self.within(place);
        // Every node knows its path: long keys around many nodes are many times their own length.
        self.next =
            self.next.saturating_add(1).saturating_add(u32::try_from(place.path.len() / 64).unwrap_or(u32::MAX));
        within
    }

    fn map(&mut self, pairs: &[(Rc<Raw>, Rc<Raw>)], place: &Location) -> Vec<(String, Location, Node)> {
        let mut entries: Vec<(String, Location, Node)> = Vec::with_capacity(pairs.len());
        let (mut names, mut merged) = (HashSet::with_capacity(pairs.len()), Vec::new());
        for (key, value) in pairs {
            if !self.within(place) {
                break;
            }
            let key_place = Location { line: key.mark.0, column: key.mark.1, path: place.path.clone() };
            let Body::Scalar { text: name, plain } = &key.body else {
                self.problems.push(key_place.problem("a key must be a word, not a list or a mapping"));
                continue;
            };
            if *plain && name == "<<" {
                merged.push(value);
                continue;
            }
            if !names.insert(name.clone()) {
                self.problems.push(key_place.problem(format!("key '{name}' appears twice")));
                continue;
            }
            let node = self.node(value, join(&place.path, name));
            entries.push((name.clone(), key_place, node));
        }
        for raw in merged {
            self.merge(raw, place, &mut names, &mut entries);
        }
        entries
    }

    /// `<<: *anchor`: what the mapping does not say itself.
    fn merge(
        &mut self,
        raw: &Raw,
        place: &Location,
        names: &mut HashSet<String>,
        entries: &mut Vec<(String, Location, Node)>,
    ) {
        match &raw.body {
            _ if !self.another(place) => {}
            Body::Map(pairs) => {
                let fresh = self.map(pairs, place).into_iter().filter(|(name, _, _)| names.insert(name.clone()));
                entries.extend(fresh);
            }
            Body::Seq(items) => items.iter().for_each(|item| self.merge(item, place, names, entries)),
            Body::Scalar { .. } => {
                let at = Location { line: raw.mark.0, column: raw.mark.1, path: place.path.clone() };
                self.problems.push(at.problem("'<<' merges a mapping: give it an alias, like '<<: *name'"));
            }
        }
    }

    /// Replaces `${VAR}` and `${VAR:-default}`; `$${` stands for a literal `${`. False when something was missing: the
    /// text then says nothing.
    fn expand(&mut self, text: &str, place: &Location) -> (String, bool) {
        if !text.contains("${") {
            return (text.to_owned(), true);
        }
        let (mut out, mut rest, mut complete) = (String::with_capacity(text.len()), text, true);
        while let Some(start) = rest.find("${") {
            if rest[..start].ends_with('$') {
                out.push_str(&rest[..start - 1]);
                out.push_str("${");
                rest = &rest[start + 2..];
                continue;
            }
            out.push_str(&rest[..start]);
            let Some(end) = rest[start..].find('}') else {
                self.problems.push(place.problem("'${' without its '}' (write '$${' for a literal one)"));
                return (out, false);
            };
            match self.variable(&rest[start + 2..start + end], place) {
                Some(value) => out.push_str(&value),
                None => complete = false,
            }
            rest = &rest[start + end + 1..];
        }
        out.push_str(rest);
        (out, complete)
    }

    fn variable(&mut self, inner: &str, place: &Location) -> Option<String> {
        let (name, default) = inner.split_once(":-").map_or((inner, None), |(name, default)| (name, Some(default)));
        // An empty variable takes the default, as in a shell.
        let found = (self.lookup)(name).filter(|value| !value.is_empty() || default.is_none());
        let value = found.or_else(|| default.map(str::to_owned));
        if value.is_none() {
            self.problems
                .push(place.problem(format!("{UNSET}{name}' is not set (give it a default: ${{{name}:-value}})")));
        }
        value
    }
}

/// `a` and `b` to `a.b`.
fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "PORT").then(|| "8080".to_owned())
    }

    fn text_at(yaml: &str, path: &str) -> String {
        match parse(yaml, &env).unwrap().0.at(path).value() {
            Value::Scalar { text, .. } => text.clone(),
            other => panic!("not a scalar: {other:?}"),
        }
    }

    #[test]
    fn expands_variables() {
        assert_eq!(text_at("a: 127.0.0.1:${PORT}", "a"), "127.0.0.1:8080");
        assert_eq!(text_at("a: ${NOPE:-x}-${PORT}", "a"), "x-8080");
        assert_eq!(text_at("a: $${PORT}", "a"), "${PORT}");
        let (_, problems) = parse("a:\n  b: ${NOPE}", &env).unwrap();
        let problem = &problems.sorted()[0];
        assert_eq!((problem.line, problem.column, problem.path.as_str()), (2, 6, "a.b"));
    }

    #[test]
    fn merges_anchors() {
        let yaml = "base: &b { x: 1, y: 2 }\nuse:\n  <<: *b\n  y: 3\n";
        assert_eq!(text_at(yaml, "use.x"), "1");
        assert_eq!(text_at(yaml, "use.y"), "3");
    }

    #[test]
    fn stops_a_billion_laughs() {
        let mut yaml = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let below = format!("*a{}", i - 1);
            let list = [below.as_str(); 10].join(", ");
            yaml = [yaml, format!("a{i}: &a{i} [{list}]\n")].concat();
        }
        let (_, problems) = parse(&yaml, &env).unwrap();
        assert!(problems.sorted()[0].message.contains("too many nodes"));
    }

    #[test]
    fn duplicate_keys_and_syntax_errors_have_a_place() {
        let (_, problems) = parse("a: 1\nb: 2\na: 3\n", &env).unwrap();
        assert_eq!(problems.sorted()[0].line, 3);
        assert_eq!(parse("a: [1, 2\nb: 3\n", &env).unwrap_err().line, 2);
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ -~\n]{0,80}") {
            let _ = parse(&text, &env);
        }
    }
}

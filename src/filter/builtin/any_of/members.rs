//! The members of an `any_of`: from YAML to filters.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName};

use crate::{
    filter::{Env, Filter, Invalid},
    yaml::{Node, Spanned, Value},
};

/// Members of which there may be one: what they know of a request is kept once.
const ALONE: [&str; 2] = ["forward_auth", "hmac"];

/// One way to say who a client is.
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) filter: Arc<dyn Filter>,
    /// Where clients show it who they are.
    pub(super) fields: Vec<HeaderName>,
    /// What it tells backends.
    pub(super) told: Vec<HeaderName>,
    /// It accepts whoever shows nothing.
    pub(super) anonymous: bool,
    /// It reads the certificate of the connection.
    pub(super) certificate: bool,
    /// Another service decides: whoever passes without being noted has not been judged, for that service is down.
    pub(super) asks_a_service: bool,
}

impl Member {
    /// Asked about a request with these fields, it reads `name`.
    pub(super) fn reads(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        self.fields.contains(name) && self.filter.reads(headers, name)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.name, self.filter)
    }
}

/// The name of an entry and its settings.
fn entry(node: &Node) -> Option<(&str, Node)> {
    match node.value() {
        Value::Scalar { text, .. } if !node.is_null() => Some((text, Node::empty_map(node.place().clone()))),
        Value::Map(entries) => match entries.as_slice() {
            [(name, _, settings)] if settings.is_null() => Some((name, Node::empty_map(settings.place().clone()))),
            [(name, _, settings)] => Some((name, settings.clone())),
            _ => None,
        },
        _ => None,
    }
}

/// Builds them all.
pub(super) fn members(nodes: &[Spanned<Node>], env: &Env) -> Result<Vec<Member>, Invalid> {
    let mut invalid = Invalid::default();
    let mut members: Vec<Member> = Vec::new();
    if nodes.len() < 2 {
        invalid.push("", "has no choice to make: list at least two filters, or put the one into 'filters'");
    }
    for (place, node) in nodes.iter().enumerate() {
        let at = format!("[{place}]");
        match member(&node.value, &at, env) {
            Ok(member) => {
                if ALONE.contains(&member.name) && members.iter().any(|other| other.name == member.name) {
                    invalid.push(&at, format!("there may be one '{}' among them: leave one out", member.name));
                }
                if members.iter().any(|other| other.anonymous) {
                    invalid.push(&at, "never reached: 'anonymous' before it takes whoever is left: put it last");
                }
                members.push(member);
            }
            Err(mut wrong) => invalid.0.append(&mut wrong.0),
        }
    }
    invalid.into_result().map(|()| members)
}

fn member(node: &Node, at: &str, env: &Env) -> Result<Member, Invalid> {
    let expected = "expected one filter: a name, or 'name: settings' ('on_fault' belongs beside 'any_of')";
    let (name, settings) = entry(node).ok_or_else(|| Invalid::at(at, expected))?;
    if name == "any_of" {
        return Err(Invalid::at(at, "its members belong into the list around it"));
    }
    let own = Env { scope: format!("{}/{name}{at}", env.scope), ..env.clone() };
    let (name, filter) = env.members.member(name, &settings, &own).map_err(|wrong| {
        let problems = match wrong {
            Ok(problems) => problems,
            Err(message) => return Invalid::at(at, message),
        };
        // They know their places in the file; here they are told from where the filter is.
        let base = node.place().path.clone();
        let path = |path: &str| format!("{at}{}", path.strip_prefix(&base).unwrap_or_default());
        let problems = problems.in_order().into_iter();
        Invalid(problems.map(|problem| (path(&problem.path), problem.message)).collect())
    })?;
    let fields = filter
        .credentials()
        .ok_or_else(|| Invalid::at(at, format!("'{name}' asks nobody who it is: put it above or below 'any_of'")))?;
    let told = filter.tells_backends();
    let (anonymous, certificate) = (name == "anonymous", name == "client_cert");
    let asks_a_service = name == "forward_auth";
    Ok(Member { name, filter, fields, told, anonymous, certificate, asks_a_service })
}

//! What is allowed and hardly meant. A start says it in the log, `-t` prints it, `-t --strict` refuses it.
//!
//! Each says what becomes of it and the way out. None is about taste: a configuration that does what it says has none.

mod families;
mod keys;
pub(super) mod signed;

use std::collections::HashSet;

use super::{Config, filters};
use crate::{
    filter::Registry,
    routing::{
        pattern::{PathPattern, Segment},
        route::RouteConfig,
    },
    units::Problems,
    yaml::{Node, Spanned, Value},
};

/// Fields of answers by which a browser protects its user: also on a refusal.
const PROTECTS: [&str; 9] = [
    "strict-transport-security",
    "content-security-policy",
    "x-frame-options",
    "x-content-type-options",
    "referrer-policy",
    "permissions-policy",
    "cross-origin-opener-policy",
    "cross-origin-embedder-policy",
    "cross-origin-resource-policy",
];

/// Filters that may refuse a request.
const REFUSES: [&str; 13] = [
    "acl",
    "api_key",
    "basic",
    "forward_auth",
    "jwt",
    "client_cert",
    "hmac",
    "rate_limit",
    "flood",
    "in_flight",
    "ip",
    "body_limit",
    "cors",
];

/// Filters that want to know who the client is: a preflight does not say.
const ASKS: [&str; 6] = ["api_key", "basic", "forward_auth", "jwt", "client_cert", "hmac"];

/// All of `config`, which is otherwise in order.
pub(super) fn warnings(config: &Config, root: &Node, registry: &Registry) -> Problems {
    let mut found = Problems::default();
    families::keep_to_ipv6(config, root, &mut found);
    unused_services(config, root, &mut found);
    let known: Vec<&str> = Registry::builtin().names().collect();
    let keys = keys::Keys::of(&config.api_keys);
    for route in &config.routes {
        strip_prefix(route, root, &mut found);
        let steps: Vec<Step> = route.filters.iter().filter_map(Step::of).collect();
        for (i, step) in steps.iter().enumerate() {
            let (before, after) = (&steps[..i], &steps[i + 1..]);
            // One that we do not know may tell who the client is, too.
            let strangers =
                before.iter().any(|step| !known.contains(&step.name) && registry.resolve(step.name).is_ok());
            if !strangers {
                counts_nobody(step, before, after, &mut found);
                judges_nobody(step, before, after, &mut found);
            }
            keys.nobody_has(step, &mut found);
            never_reached(step, after, &mut found);
            preflight_refused(step, before, &mut found);
            headers(step, before, route, &mut found);
        }
    }
    found
}

/// One filter of a route.
struct Step<'a> {
    name: &'a str,
    settings: Option<&'a Node>,
    node: &'a Node,
    /// Those of which it takes any, when it is `any_of`.
    members: Vec<&'a str>,
}

impl<'a> Step<'a> {
    fn of(node: &'a Spanned<Node>) -> Option<Self> {
        let (name, settings) = filters::named(&node.value)?;
        let members = match settings.map(Node::value) {
            Some(Value::Seq(items)) if name == "any_of" => items.iter().filter_map(filters::named).collect(),
            _ => Vec::new(),
        };
        let members = members.into_iter().map(|(name, _)| name).collect();
        Some(Self { name, settings, node: &node.value, members })
    }

    fn get(&self, key: &str) -> Option<&'a Node> {
        self.settings?.get(key)
    }

    fn is_one_of(&self, names: &[&str]) -> bool {
        names.contains(&self.name) || self.members.iter().any(|name| names.contains(name))
    }
}

/// The words of a list, or the one that stands for it.
fn words(node: Option<&Node>) -> Vec<(&str, &Node)> {
    let items = match node.map(Node::value) {
        Some(Value::Seq(items)) => items.as_slice(),
        Some(Value::Scalar { .. }) => node.map(std::slice::from_ref).unwrap_or_default(),
        _ => &[],
    };
    let word = |item: &Node| matches!(item.value(), Value::Scalar { .. });
    items.iter().filter(|item| word(item)).map(|item| (text(item), item)).collect()
}

fn text(node: &Node) -> &str {
    match node.value() {
        Value::Scalar { text, .. } => text,
        _ => "",
    }
}

/// The services that `route` names.
fn leads_to(route: &RouteConfig) -> Vec<&str> {
    let split = route.split.iter().map(|part| part.service.as_str());
    let canary = route.canary.iter().map(|canary| canary.service.as_str());
    let mirror = route.mirror.iter().map(|mirror| mirror.service.as_str());
    route.service.as_deref().into_iter().chain(split).chain(canary).chain(mirror).collect::<Vec<_>>()
}

fn unused_services(config: &Config, root: &Node, found: &mut Problems) {
    let used: HashSet<&str> = config.routes.iter().flat_map(|route| leads_to(route)).collect();
    let services = root.at("services");
    let unused = config.services.keys().filter(|name| !used.contains(name.as_str()));
    for node in unused.filter_map(|name| services.get(name)) {
        found.push(node.place().problem("no route leads to this service: name it in one, or take it out"));
    }
}

fn strip_prefix(route: &Spanned<RouteConfig>, root: &Node, found: &mut Problems) {
    let Some(prefix) = &route.strip_prefix else { return };
    let parts: Vec<&str> = prefix.trim_matches('/').split('/').collect();
    let may_begin = |pattern: &PathPattern| {
        let fits = |(part, segment): (&&str, &Segment)| match segment {
            Segment::Literal(literal) => literal == part,
            Segment::Param(_) => true,
        };
        (pattern.prefix || pattern.segments.len() >= parts.len()) && parts.iter().zip(&pattern.segments).all(fits)
    };
    if !route.matches.path.iter().any(may_begin) {
        let paths: Vec<String> = route.matches.path.iter().map(|path| format!("'{}'", path.as_str())).collect();
        let message = format!(
            "never taken off: no path of {} begins with '{prefix}': correct one of the two, or leave it out",
            paths.join(", ")
        );
        found.push(root.at(&format!("{}.strip_prefix", route.place.path)).place().problem(message));
    }
}

/// A limit by who the client is, where nobody has asked yet: all of them share one.
fn counts_nobody(step: &Step<'_>, before: &[Step<'_>], after: &[Step<'_>], found: &mut Problems) {
    if !step.is_one_of(&["rate_limit", "in_flight"]) {
        return;
    }
    for (part, node) in words(step.get("by")) {
        let tell: &[&str] = match part.split(':').next() {
            Some("api_key") => &["api_key", "client_cert", "hmac", "basic", "forward_auth"],
            // Keys have a tier, too.
            Some("claim") if part == "claim:tier" => &["jwt", "api_key", "basic", "forward_auth", "anonymous"],
            Some("claim") => &["jwt", "forward_auth"],
            Some("jwt") => &["jwt"],
            _ => continue,
        };
        if before.iter().any(|step| step.is_one_of(tell)) {
            continue;
        }
        let way = match after.iter().find(|step| step.is_one_of(tell)) {
            Some(later) => format!("put it below '{}'", later.name),
            None => format!("put '{}' above it, or count by something else", tell[0]),
        };
        let message = format!("no step before it asks who the client is, so all share one limit by '{part}': {way}");
        found.push(node.place().problem(message));
    }
}

/// A list of those who may pass, where nobody has asked yet who the client is.
fn judges_nobody(step: &Step<'_>, before: &[Step<'_>], after: &[Step<'_>], found: &mut Problems) {
    let known = |step: &Step<'_>| step.is_one_of(&ASKS) || step.is_one_of(&["anonymous"]);
    if step.name != "acl" || before.iter().any(known) {
        return;
    }
    let way = match after.iter().find(|step| step.is_one_of(&ASKS)) {
        Some(later) => format!("put it below '{}'", later.name),
        None => format!("put '{}' above it", ASKS[0]),
    };
    let message = format!("no step before it asks who the client is, so it refuses everybody: {way}");
    found.push(step.node.place().problem(message));
}

/// A step that refuses everybody, and others behind it.
fn never_reached(step: &Step<'_>, after: &[Step<'_>], found: &mut Problems) {
    let denied = words(step.get("deny"));
    let everybody = |network: &str| denied.iter().any(|(denied, _)| *denied == network);
    if step.name == "ip"
        && everybody("0.0.0.0/0")
        && everybody("::/0")
        && let Some(next) = after.first()
    {
        let message =
            format!("never reached: 'ip' before it denies every address: take '{}' out, or let some pass", next.name);
        found.push(next.node.place().problem(message));
    }
}

/// A preflight carries no credentials: behind a step that wants them, `cors` never answers one.
fn preflight_refused(step: &Step<'_>, before: &[Step<'_>], found: &mut Problems) {
    // Whoever shows nothing may pass as nobody.
    let asks = before.iter().find(|earlier| earlier.is_one_of(&ASKS) && !earlier.is_one_of(&["anonymous"]));
    if let (true, Some(asks)) = (step.name == "cors", asks) {
        let message = format!(
            "'{}' before it refuses every preflight, which carries no credentials: put 'cors' above it",
            asks.name
        );
        found.push(step.node.place().problem(message));
    }
}

fn headers(step: &Step<'_>, before: &[Step<'_>], route: &RouteConfig, found: &mut Problems) {
    if step.name != "headers" {
        return;
    }
    if let (false, Some(request)) = (route.forwards(), step.get("request")) {
        let message = "no backend sees them, for this route answers by itself: take 'request' out";
        found.push(request.place().problem(message));
    }
    let Some(refuses) = before.iter().find(|earlier| earlier.is_one_of(&REFUSES)) else { return };
    let named = ["set", "add"].iter().filter_map(|list| match step.get("response")?.get(list)?.value() {
        Value::Map(entries) => entries.iter().find(|(name, ..)| PROTECTS.contains(&name.to_lowercase().as_str())),
        _ => None,
    });
    if let Some((name, place, _)) = named.into_iter().next() {
        let message =
            format!("what '{}' before it refuses is answered without '{name}': put 'headers' above it", refuses.name);
        let path = step.get("response").map(|node| node.place().path.clone()).unwrap_or_default();
        found.push(crate::yaml::Location { path, ..place.clone() }.problem(message));
    }
}

//! `filters:` of a route: names and settings, to a chain.

use crate::{
    filter::{Chain, Env, Filter, OnFault, Registry, Step, StepMetrics},
    units::Problems,
    yaml::{Node, Spanned, Value, read},
};

/// One entry, taken apart.
struct Entry {
    name: String,
    settings: Node,
    on_fault: OnFault,
}

/// Takes `name` or `{ name: settings, on_fault: ... }` apart.
fn entry(node: &Node, problems: &mut Problems) -> Option<Entry> {
    let entries = match node.value() {
        Value::Scalar { text, .. } if !node.is_null() => {
            return Some(Entry {
                name: text.clone(),
                settings: Node::empty_map(node.place().clone()),
                on_fault: OnFault::Refuse,
            });
        }
        Value::Map(entries) => entries,
        _ => {
            problems.push(node.place().problem("expected a filter: a name, or 'name: settings'"));
            return None;
        }
    };
    let mut on_fault = OnFault::Refuse;
    let mut named = Vec::new();
    for (key, place, value) in entries {
        if key == "on_fault" {
            let (policy, wrong) = read::<OnFault>(value);
            problems.extend(wrong);
            on_fault = policy.unwrap_or_default();
        } else {
            named.push((key, place, value));
        }
    }
    match named.as_slice() {
        [(name, _, settings)] => {
            let settings =
                if settings.is_null() { Node::empty_map(settings.place().clone()) } else { (*settings).clone() };
            Some(Entry { name: (*name).clone(), settings, on_fault })
        }
        [] => {
            problems.push(node.place().problem("'on_fault' alone is no filter"));
            None
        }
        [_, (name, place, _), ..] => {
            let message =
                format!("'{name}' stands beside another filter: begin it with '- ', or indent it below its filter");
            problems.push(place.problem(message));
            None
        }
    }
}

/// The name of one entry and its settings, when it has both in order.
pub(super) fn named(node: &Node) -> Option<(&str, Option<&Node>)> {
    match node.value() {
        Value::Scalar { text, .. } => Some((text, None)),
        Value::Map(entries) => {
            let mut steps = entries.iter().filter(|(key, ..)| key != "on_fault");
            steps.next().map(|(name, _, settings)| (name.as_str(), Some(settings)))
        }
        Value::Seq(_) => None,
    }
}

/// Builds the chain of `route`; `env` makes the surroundings for a scope name.
pub(super) fn chain(
    filters: &[Spanned<Node>],
    registry: &Registry,
    env: &dyn Fn(String) -> Env,
    problems: &mut Problems,
) -> Chain {
    let mut steps: Vec<Step> = Vec::new();
    for node in filters {
        let Some(Entry { name, settings, on_fault }) = entry(&node.value, problems) else { continue };
        let name = match registry.resolve(&name) {
            Ok(name) => name,
            Err(message) => {
                problems.push(node.place.problem(message));
                continue;
            }
        };
        let earlier = steps.iter().filter(|step| step.name == name).count();
        let scope = if earlier == 0 { name.to_owned() } else { format!("{name}#{}", earlier + 1) };
        let env = env(scope);
        let metrics = StepMetrics {
            refusals: env.metrics.refusals(&env.route, name),
            faults: env.metrics.faults(&env.route, name),
        };
        match registry.build(name, &settings, &env) {
            Ok(filter) => {
                if let Some(message) = speaks_for_another(name, &*filter, &steps) {
                    problems.push(node.place.problem(message));
                }
                steps.push(Step { name, filter, on_fault, metrics });
            }
            Err(wrong) => problems.extend(wrong),
        }
    }
    Chain::new(steps)
}

/// What is wrong with a step that would tell backends something in the place of another one.
fn speaks_for_another(name: &str, filter: &dyn Filter, before: &[Step]) -> Option<String> {
    let own = filter.sole_methods();
    let known = |step: &&Step| step.filter.sole_methods().iter().any(|method| own.contains(method));
    if let Some(other) = before.iter().find(known) {
        let other = other.name;
        return Some(format!(
            "there is a '{other}' step before it, and who passes the second would be taken for who has passed the first: \
             leave one out"
        ));
    }
    let told = filter.tells_backends();
    before.iter().filter(|step| step.name != name).find_map(|step| {
        let same = step.filter.tells_backends().into_iter().find(|field| told.contains(field))?;
        Some(format!(
            "it tells backends '{same}', and so does '{}' before it: name another field for one of them",
            step.name
        ))
    })
}

/// True when some step of a route, whether or not it could be built, needs preflights.
pub(super) fn need_preflight(filters: &[Spanned<Node>], registry: &Registry) -> bool {
    filters.iter().any(|node| match node.value.value() {
        Value::Scalar { text, .. } => registry.needs(text).preflight,
        Value::Map(entries) => entries.iter().any(|(name, ..)| registry.needs(name).preflight),
        Value::Seq(_) => false,
    })
}

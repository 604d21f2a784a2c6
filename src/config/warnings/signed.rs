//! Services whose requests are signed, and whose signatures leave out who the client is, or cannot say it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    filter::Chain, message::components::can_be_covered, runtime::Runtime, units::Problems, upstream::Service,
    yaml::Node,
};

/// Fields that a step tells backends, and that their service's signatures do not cover: whoever stands between could change
/// them.
pub(in crate::config) fn uncovered(runtime: &Runtime, root: &Node, found: &mut Problems) {
    for_each_signed(runtime, root, |service, node, chains| {
        let told = chains.iter().flat_map(|chain| chain.tells_backends());
        let lacking = told.filter(|name| service.leaves_unsigned(name)).map(|name| name.as_str().to_owned());
        warn(&lacking.collect(), node, found);
    });
}

/// Names that a step tells backends, and that their service's signatures cannot cover: whoever has one could never be served.
pub(in crate::config) fn unsignable(runtime: &Runtime, root: &Node, problems: &mut Problems) {
    for_each_signed(runtime, root, |service, node, chains| {
        let known = chains.iter().flat_map(|chain| chain.known_names());
        let mut odd = BTreeMap::<String, BTreeSet<String>>::new();
        for (field, name) in known.filter(|(field, name)| !service.leaves_unsigned(field) && !can_be_covered(name)) {
            odd.entry(field.as_str().to_owned()).or_default().insert(name);
        }
        for (field, names) in odd {
            let Some(first) = names.first() else { continue };
            let others = if names.len() > 1 { format!(" and {} more", names.len() - 1) } else { String::new() };
            let message = format!(
                "covers '{field}', by which a filter tells backends of '{first}'{others}: no signature can cover characters beyond ASCII, so give it an 'owner' or a name without them"
            );
            problems.push(node.at("sign").place().problem(message));
        }
    });
}

/// Each service whose requests are signed, with its place, and the steps of the routes to it.
fn for_each_signed(runtime: &Runtime, root: &Node, mut look: impl FnMut(&Service, &Node, &[&Chain])) {
    for (name, service) in runtime.services.iter().filter(|(_, service)| service.is_signed()) {
        let Some(node) = root.at("services").get(name) else { continue };
        let routes = runtime.router.routes().map(|(_, route)| route);
        let routes = routes.filter(|route| route.forward().is_some_and(|forward| forward.may_reach(name)));
        look(service, node, &routes.map(|route| &route.chain).collect::<Vec<_>>());
    }
}

fn warn(lacking: &BTreeSet<String>, service: &Node, found: &mut Problems) {
    for name in lacking {
        let message = format!("does not cover '{name}', by which a filter tells who the client is: add it");
        found.push(service.at("sign.components").place().problem(message));
    }
}

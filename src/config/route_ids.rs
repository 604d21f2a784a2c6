//! Names of routes: their own, or made of what they match.

use std::{collections::HashMap, sync::Arc};

use crate::{
    routing::route::RouteConfig,
    units::Problems,
    yaml::{Location, Node, Spanned},
};

/// What the routes are called: as they say, else after what they match, with a number where several match alike.
pub(super) fn ids(configs: &[Spanned<RouteConfig>], root: &Node, problems: &mut Problems) -> Vec<Arc<str>> {
    let mut named: HashMap<&str, &Location> = HashMap::new();
    let mut wrong = |config: &Spanned<RouteConfig>, message: String| {
        let path = format!("{}.id", config.place.path);
        let place = Location { path: path.clone(), ..root.at(&path).place().clone() };
        problems.push(place.problem(message));
    };
    for config in configs {
        let Some(id) = &config.id else { continue };
        match named.get(id.as_str()) {
            Some(first) => wrong(config, format!("'{id}' is the id of {} already", first.path)),
            None => drop(named.insert(id, &config.place)),
        }
    }
    let (mut counts, mut automatic): (HashMap<String, usize>, HashMap<Arc<str>, &Location>) = Default::default();
    let mut ids: Vec<Arc<str>> = Vec::with_capacity(configs.len());
    for config in configs {
        if let Some(id) = &config.id {
            ids.push(id.as_str().into());
            continue;
        }
        let name = config.matches.name();
        let count = counts.entry(name.clone()).or_default();
        let id = loop {
            *count += 1;
            let id: Arc<str> = if *count == 1 { name.as_str().into() } else { format!("{name} #{count}").into() };
            if !automatic.contains_key(&id) {
                break id;
            }
        };
        automatic.insert(id.clone(), &config.place);
        ids.push(id);
    }
    for (config, id) in configs.iter().zip(&ids).filter(|(config, _)| config.id.is_some()) {
        if let Some(other) = automatic.get(id) {
            let message =
                format!("'{id}' is what {} is called for want of an 'id': name one of them otherwise", other.path);
            wrong(config, message);
        }
    }
    ids
}

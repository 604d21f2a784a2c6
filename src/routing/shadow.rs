//! Routes that no request can reach, found without comparing each with each: whatever shadows a route has its first host,
//! a path of the shape of its first path, and as its own first header, if any, one that the route asks for too.

use std::collections::HashMap;

use ahash::RandomState;
use http::{HeaderName, HeaderValue};

use super::{
    pattern::{PathPattern, Segment},
    router::Matcher,
};

type Header = (HeaderName, Option<HeaderValue>);

/// Routes that have been seen, in the order of the YAML.
#[derive(Debug, Default)]
pub(crate) struct Shadows {
    seen: Vec<Matcher>,
    by: HashMap<(String, String, Option<Header>), Vec<usize>, RandomState>,
}

/// The same for patterns of one shape, and for no others.
fn shape(path: &PathPattern) -> String {
    let mut text = String::new();
    for segment in &path.segments {
        text.push('/');
        text.push_str(match segment {
            Segment::Literal(literal) => literal,
            // No literal has braces.
            Segment::Param(_) => "{}",
        });
    }
    if path.prefix {
        text.push_str("/*");
    }
    text
}

impl Shadows {
    /// The first of the routes seen so far that takes all requests of `route` before it could.
    pub(crate) fn of(&self, route: &Matcher) -> Option<usize> {
        let shadows = |index: &usize| route.shadowed_by(&self.seen[*index]);
        // A route without a path is wrong, and said to be.
        let Some(path) = route.paths.first() else { return (0..self.seen.len()).find(shadows) };
        let (host, path) = (route.hosts.first().cloned().unwrap_or_default(), shape(path));
        let mut headers: Vec<Option<Header>> = vec![None];
        for (name, value) in &route.headers {
            headers.push(Some((name.clone(), None)));
            headers.extend(value.is_some().then(|| Some((name.clone(), value.clone()))));
        }
        let lists = headers.into_iter().filter_map(|header| self.by.get(&(host.clone(), path.clone(), header)));
        lists.filter_map(|list| list.iter().copied().find(shadows)).min()
    }

    /// Adds a route.
    pub(crate) fn add(&mut self, route: Matcher) {
        let any = [String::new()];
        let hosts = if route.hosts.is_empty() { &any[..] } else { &route.hosts };
        for host in hosts {
            for path in &route.paths {
                let key = (host.clone(), shape(path), route.headers.first().cloned());
                self.by.entry(key).or_default().push(self.seen.len());
            }
        }
        self.seen.push(route);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::{prelude::*, sample::subsequence};

    use super::*;
    use crate::routing::router::ListenerSet;

    fn matcher() -> impl Strategy<Value = Matcher> {
        let hosts = subsequence(vec!["a.example", "*.example", "b.example"], 0..3);
        let paths = vec!["/*", "/a", "/a/", "/a/*", "/{x}", "/{y}", "/a/{x}", "/{x}/a", "/{x}/*", "/a/b", "/{y}/*"];
        let paths = subsequence(paths, 0..3);
        let methods = subsequence(vec!["GET", "HEAD", "POST"], 0..3);
        let headers = subsequence(vec![("x", None), ("x", Some("1")), ("x", Some("2")), ("y", None)], 0..3);
        let listeners = proptest::sample::select(vec![ListenerSet::ANY, ListenerSet::of([0]), ListenerSet::of([0, 1])]);
        let all = (hosts, paths, methods, headers.prop_shuffle(), listeners);
        all.prop_map(|(hosts, paths, methods, headers, listeners)| Matcher {
            listeners,
            hosts: hosts.into_iter().map(str::to_owned).collect(),
            paths: paths.into_iter().map(|path| path.parse().unwrap()).collect(),
            methods: methods.into_iter().map(|method| method.parse().unwrap()).collect(),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name.parse().unwrap(), value.map(HeaderValue::from_static)))
                .collect(),
            preflight: false,
        })
    }

    proptest! {
        #[test]
        fn finds_what_comparing_each_with_each_finds(routes in proptest::collection::vec(matcher(), 1..25)) {
            let mut shadows = Shadows::default();
            for (index, route) in routes.iter().enumerate() {
                let plain = routes[..index].iter().position(|earlier| route.shadowed_by(earlier));
                prop_assert_eq!(shadows.of(route), plain);
                shadows.add(route.clone());
            }
        }
    }
}

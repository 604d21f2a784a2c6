//! Which route a request takes: the most specific one that matches; the order of the YAML breaks ties.
//!
//! Specificity, in this order: the host (exact, then the longest `*.suffix`, then any); the path, compared segment by
//! segment from the left (a literal beats `{name}` beats `*`, and an exact end beats a prefix); a method that is named;
//! the number of headers; a listener that is named. One matcher serves traffic, `tests:` and the check for unreachable routes.
//!
//! A trie by segments per host pattern: the cost of a lookup is the length of the path, not the number of routes.

use std::{collections::HashMap, fmt};

use ahash::RandomState;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::pattern::{PathPattern, Segment};

/// Listeners by their place in the file, one bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerSet(u32);

impl Default for ListenerSet {
    fn default() -> Self {
        Self::ANY
    }
}

impl ListenerSet {
    /// All of them.
    pub const ANY: Self = Self(u32::MAX);

    /// These.
    pub fn of(numbers: impl IntoIterator<Item = usize>) -> Self {
        Self(numbers.into_iter().fold(0, |set, number| set | Self::bit(number)))
    }

    fn bit(number: usize) -> u32 {
        u32::try_from(number).ok().and_then(|number| 1u32.checked_shl(number)).unwrap_or(0)
    }

    fn has(self, number: usize) -> bool {
        self == Self::ANY || self.0 & Self::bit(number) != 0
    }

    fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
}

/// What a route asks of a request.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    /// Exact (`api.example`) or suffix (`*.example`) hosts; empty: any.
    pub hosts: Vec<String>,
    /// Paths; never empty.
    pub paths: Vec<PathPattern>,
    /// Methods; empty: any.
    pub methods: Vec<Method>,
    /// Headers that must be there; with a value, that must be equal to it.
    pub headers: Vec<(HeaderName, Option<HeaderValue>)>,
    /// A CORS preflight is judged by the method that it asks for.
    pub preflight: bool,
    /// Where the connection must have come in.
    pub listeners: ListenerSet,
}

/// The parts of a request that routing looks at.
#[derive(Debug, Clone, Copy)]
pub struct RouteInput<'a> {
    /// Host without port, as sent.
    pub host: &'a str,
    /// Normalised path.
    pub path: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// The listener that accepted the connection, by its place in the file.
    pub listener: usize,
}

/// The outcome of a lookup.
#[derive(Debug)]
pub enum Pick<'r, T> {
    /// This route, by this path pattern.
    Route(&'r T, &'r PathPattern),
    /// The path is known, the method is not: the methods that are.
    Method(Vec<Method>),
    /// No route.
    Nothing,
}

/// Routes, ready for lookup.
pub struct Router<T> {
    entries: Vec<(Matcher, T)>,
    hosts: HashMap<String, Trie, RandomState>,
    /// By what follows the `*`, with its dot.
    suffixes: HashMap<String, Trie, RandomState>,
    any: Trie,
}

impl<T> fmt::Debug for Router<T>
where
    T: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.entries).finish()
    }
}

#[derive(Default)]
struct Trie {
    literals: HashMap<Box<str>, Trie, RandomState>,
    param: Option<Box<Trie>>,
    /// Routes whose pattern ends here: (entry, path).
    here: Vec<(usize, usize)>,
    /// Routes whose pattern is a prefix that ends here.
    below: Vec<(usize, usize)>,
}

impl<T> Router<T> {
    /// A router over `routes`, in the order of the YAML.
    pub fn new(routes: Vec<(Matcher, T)>) -> Self {
        let mut router =
            Self { entries: routes, hosts: HashMap::default(), suffixes: HashMap::default(), any: Trie::default() };
        for (index, (matcher, _)) in router.entries.iter().enumerate() {
            let hosts = if matcher.hosts.is_empty() { &[String::from("*")][..] } else { &matcher.hosts };
            for host in hosts {
                let trie = match host.strip_prefix('*') {
                    None => router.hosts.entry(host.clone()).or_default(),
                    Some("") => &mut router.any,
                    Some(suffix) => router.suffixes.entry(suffix.to_owned()).or_default(),
                };
                for (place, path) in matcher.paths.iter().enumerate() {
                    trie.insert(path, (index, place));
                }
            }
        }
        let ranks: Vec<_> = router.entries.iter().map(|(matcher, _)| matcher.rank()).collect();
        router.any.sort(&ranks);
        router.hosts.values_mut().for_each(|trie| trie.sort(&ranks));
        router.suffixes.values_mut().for_each(|trie| trie.sort(&ranks));
        router
    }

    /// Every route with what it matches, in the order of the YAML.
    pub fn routes(&self) -> impl Iterator<Item = (&Matcher, &T)> {
        self.entries.iter().map(|(matcher, route)| (matcher, route))
    }

    /// Finds the route of a request.
    pub fn pick(&self, subject: &RouteInput<'_>) -> Pick<'_, T> {
        let mut refused: Option<Vec<Method>> = None;
        let mut visit = |candidates: &[(usize, usize)]| {
            for &(index, place) in candidates {
                let (matcher, _) = &self.entries[index];
                match matcher.judge(subject) {
                    Judgement::Match => return Some((index, place)),
                    Judgement::OtherMethod => refused.get_or_insert_default().extend_from_slice(&matcher.methods),
                    Judgement::No => {}
                }
            }
            None
        };
        let path = subject.path.strip_prefix('/').unwrap_or(subject.path);
        let lower;
        let host = if subject.host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = subject.host.to_ascii_lowercase();
            lower.as_str()
        } else {
            subject.host
        };
        let exact = self.hosts.get(host);
        // The longest first; a name stands before each.
        let searched = if self.suffixes.is_empty() { "" } else { host };
        let ends = searched.match_indices('.').filter(|(at, _)| *at > 0);
        let suffixes = ends.filter_map(|(at, _)| self.suffixes.get(&host[at..]));
        let found =
            exact.into_iter().chain(suffixes).chain([&self.any]).find_map(|trie| trie.walk(Some(path), &mut visit));
        match (found, refused) {
            (Some((index, place)), _) => {
                let (matcher, route) = &self.entries[index];
                Pick::Route(route, &matcher.paths[place])
            }
            (None, Some(methods)) => Pick::Method(methods),
            (None, None) => Pick::Nothing,
        }
    }
}

enum Judgement {
    Match,
    OtherMethod,
    No,
}

impl Matcher {
    fn judge(&self, subject: &RouteInput<'_>) -> Judgement {
        if !self.listeners.has(subject.listener) {
            return Judgement::No;
        }
        let headers = self.headers.iter().all(|(name, wanted)| match wanted {
            None => subject.headers.contains_key(name),
            Some(wanted) => subject.headers.get_all(name).iter().any(|value| value == wanted),
        });
        if !headers {
            return Judgement::No;
        }
        if self.methods.is_empty() || self.admits(subject.method) {
            return Judgement::Match;
        }
        let asked = subject.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
        // Without an origin it is no preflight (Fetch standard, "CORS-preflight request").
        let preflight = self.preflight && subject.method == Method::OPTIONS;
        let asked = asked.filter(|_| preflight && subject.headers.contains_key(header::ORIGIN));
        match asked.and_then(|value| Method::from_bytes(value.as_bytes()).ok()) {
            Some(method) if self.admits(&method) => Judgement::Match,
            _ => Judgement::OtherMethod,
        }
    }

    /// HEAD goes wherever GET goes (RFC 9110 §9.3.2).
    fn admits(&self, method: &Method) -> bool {
        self.methods.contains(method) || (method == Method::HEAD && self.methods.contains(&Method::GET))
    }

    /// Lower is tried first, among routes of one path pattern.
    fn rank(&self) -> (bool, std::cmp::Reverse<usize>, bool) {
        (self.methods.is_empty(), std::cmp::Reverse(self.headers.len()), self.listeners == ListenerSet::ANY)
    }

    /// True when no request can reach `self` because `earlier`, which is tried first, takes all of them.
    pub fn shadowed_by(&self, earlier: &Self) -> bool {
        let hosts = earlier.hosts.is_empty() && self.hosts.is_empty()
            || !self.hosts.is_empty() && self.hosts.iter().all(|host| earlier.hosts.contains(host));
        let paths = self.paths.iter().all(|mine| earlier.paths.iter().any(|theirs| theirs.same_shape(mine)));
        let methods =
            earlier.methods.is_empty() || !self.methods.is_empty() && self.methods.iter().all(|m| earlier.admits(m));
        let headers = earlier.headers.iter().all(|wanted| {
            self.headers.iter().any(|mine| mine.0 == wanted.0 && (wanted.1.is_none() || mine.1 == wanted.1))
        });
        let listeners = self.listeners.within(earlier.listeners);
        hosts && paths && methods && headers && listeners && earlier.rank() <= self.rank()
    }
}

impl Trie {
    fn insert(&mut self, path: &PathPattern, route: (usize, usize)) {
        let mut node = self;
        for segment in &path.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.as_str().into()).or_default(),
                Segment::Param(_) => node.param.get_or_insert_default(),
            };
        }
        (if path.prefix { &mut node.below } else { &mut node.here }).push(route);
    }

    fn sort<K: Ord>(&mut self, ranks: &[K]) {
        // Stable: routes of equal rank stay in the order of the YAML.
        self.here.sort_by_key(|(index, _)| &ranks[*index]);
        self.below.sort_by_key(|(index, _)| &ranks[*index]);
        self.literals.values_mut().for_each(|trie| trie.sort(ranks));
        if let Some(trie) = &mut self.param {
            trie.sort(ranks);
        }
    }

    /// Visits what matches `rest` (`None`: the path ended at this node), most specific first.
    fn walk<R>(&self, rest: Option<&str>, visit: &mut impl FnMut(&[(usize, usize)]) -> Option<R>) -> Option<R> {
        let Some(rest) = rest else {
            return visit(&self.here).or_else(|| visit(&self.below));
        };
        let (segment, tail) = match rest.split_once('/') {
            Some((segment, tail)) => (segment, Some(tail)),
            None => (rest, None),
        };
        if let Some(found) = self.literals.get(segment).and_then(|trie| trie.walk(tail, visit)) {
            return Some(found);
        }
        // A name stands for something: `/users/` has no id.
        if !segment.is_empty()
            && let Some(found) = self.param.as_ref().and_then(|trie| trie.walk(tail, visit))
        {
            return Some(found);
        }
        visit(&self.below)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn route(spec: &str) -> (Matcher, String) {
        let mut matcher = Matcher::default();
        for word in spec.split_whitespace() {
            match word.split_once('=') {
                Some(("host", host)) => matcher.hosts.push(host.into()),
                Some(("method", method)) => matcher.methods.push(method.parse().unwrap()),
                Some(("listener", number)) => matcher.listeners = ListenerSet::of([number.parse().unwrap()]),
                Some(("header", name)) => matcher.headers.push((name.parse().unwrap(), None)),
                _ => matcher.paths.push(word.parse().unwrap()),
            }
        }
        (matcher, spec.to_owned())
    }

    fn pick(routes: &[&str], request: &str) -> String {
        let router = Router::new(routes.iter().map(|spec| route(spec)).collect());
        let words: Vec<&str> = request.split(' ').collect();
        let (host, path) = words[1].split_at(words[1].find('/').unwrap());
        let (mut headers, mut listener) = (HeaderMap::new(), 0);
        for name in &words[2..] {
            if let Some(number) = name.strip_prefix("listener=") {
                listener = number.parse().unwrap();
                continue;
            }
            headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("1"));
        }
        let method = words[0].parse().unwrap();
        match router.pick(&RouteInput { host, path, method: &method, headers: &headers, listener }) {
            Pick::Route(route, _) => route.clone(),
            Pick::Method(methods) => format!("405 {methods:?}"),
            Pick::Nothing => "404".into(),
        }
    }

    #[test]
    fn the_most_specific_path_wins() {
        let routes = ["/*", "/users/*", "/users/{id}", "/users/me", "/users/{id}/orders"];
        assert_eq!(pick(&routes, "GET h/users/me"), "/users/me");
        assert_eq!(pick(&routes, "GET h/users/7"), "/users/{id}");
        assert_eq!(pick(&routes, "GET h/users/7/orders"), "/users/{id}/orders");
        assert_eq!(pick(&routes, "GET h/users/7/carts"), "/users/*");
        assert_eq!(pick(&routes, "GET h/users"), "/users/*");
        assert_eq!(pick(&routes, "GET h/users/"), "/users/*");
        assert_eq!(pick(&routes, "GET h/usership"), "/*");
        assert_eq!(pick(&routes[1..], "GET h/other"), "404");
        assert_eq!(pick(&["/"], "GET h/"), "/");
    }

    #[test]
    fn the_host_comes_before_the_path() {
        let routes = ["/users", "host=*.example /*", "host=api.example /*", "host=*.b.example /*"];
        assert_eq!(pick(&routes, "GET api.example/users"), "host=api.example /*");
        assert_eq!(pick(&routes, "GET API.Example/users"), "host=api.example /*");
        assert_eq!(pick(&routes, "GET x.b.example/users"), "host=*.b.example /*");
        assert_eq!(pick(&routes, "GET www.example/users"), "host=*.example /*");
        assert_eq!(pick(&routes, "GET example/users"), "/users");
    }

    #[test]
    fn methods_and_headers_refine_and_405_names_the_methods() {
        let routes = ["/a method=GET", "/a method=POST", "/a method=GET header=x-beta", "/*"];
        assert_eq!(pick(&routes, "GET h/a"), "/a method=GET");
        assert_eq!(pick(&routes, "HEAD h/a"), "/a method=GET");
        assert_eq!(pick(&routes, "GET h/a x-beta"), "/a method=GET header=x-beta");
        assert_eq!(pick(&routes, "DELETE h/a"), "/*");
        assert_eq!(pick(&routes[..2], "DELETE h/a"), "405 [GET, POST]");
    }

    #[test]
    fn a_route_may_be_there_on_some_listeners_only() {
        let routes = ["/a", "/a/{x}", "listener=1 /a", "listener=31 /b", "listener=1 /c method=POST"];
        assert_eq!(pick(&routes, "GET h/a"), "/a");
        assert_eq!(pick(&routes, "GET h/a listener=1"), "listener=1 /a", "what is named is tried first");
        assert_eq!(pick(&routes, "GET h/a listener=2"), "/a");
        assert_eq!(pick(&routes, "GET h/b"), "404");
        assert_eq!(pick(&routes, "GET h/b listener=31"), "listener=31 /b");
        assert_eq!(pick(&routes, "GET h/c"), "404", "not 405: it is not there at all");
        assert_eq!(pick(&routes, "GET h/c listener=1"), "405 [POST]");
    }

    #[test]
    fn knows_routes_that_cannot_be_reached() {
        let shadowed = |later: &str, earlier: &str| route(later).0.shadowed_by(&route(earlier).0);
        assert!(shadowed("/a/{x}", "/a/{y}"));
        assert!(shadowed("/a method=GET", "/a method=GET method=POST"));
        assert!(!shadowed("/a method=GET", "/a"), "a named method is tried first");
        assert!(!shadowed("/a", "/a method=GET"));
        assert!(!shadowed("/a", "/*"), "the longer path is tried first");
        assert!(!shadowed("host=x /a", "/a"));
        assert!(shadowed("listener=1 /a", "listener=1 /a"));
        assert!(!shadowed("listener=1 /a", "listener=2 /a") && !shadowed("/a", "listener=1 /a"));
        assert!(!shadowed("listener=1 /a", "/a"), "a named listener is tried first");
        assert!(shadowed("listener=1 /a", "/a method=GET header=x") == shadowed("/a", "/a method=GET header=x"));
    }
}

//! How else a backend may read a path that has been read here. An encoded slash is data to one and a separator to
//! another (nginx decodes it before it looks for a location); `;` begins a parameter to a servlet container, which cuts
//! it off, so that `..;` becomes `..`; a backslash separates on Windows. A path is let through only when every such
//! reading leads to where ours does, or the rules of one route would be asked and another's resource served.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    pattern::PathPattern,
    router::{Pick, RouteInput, Router},
};
use crate::message::{
    path::{self, Spelling},
    reason::Reason,
    replies::malformed,
    reply::Reply,
};

/// What becomes of paths with encoded slashes and backslashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncodedSlashes {
    /// 400.
    Refuse,
    /// They pass when every reading of the path leads to the same place; else 400.
    #[default]
    SameRoute,
    /// They pass unseen: the backend is known to read the path as it is written. Path parameters too.
    Keep,
}

/// `paths:` in the YAML, at the root and in a route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PathsConfig {
    /// Paths with `%2F` or `%5C`: `refuse`, `same_route` (default) or `keep`.
    pub encoded_slashes: Option<EncodedSlashes>,
}

fn ambiguous(detail: &'static str) -> Reply {
    malformed(detail).because(Reason::AmbiguousPath)
}

/// One reading of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Other {
    path: String,
    /// Segments that were left at the least while `..` was resolved; `None` without any.
    least: Option<usize>,
}

/// What a backend may do to a path.
#[derive(Debug, Clone, Copy)]
struct Habits {
    slashes: bool,
    backslashes: bool,
    parameters: Parameters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parameters {
    Kept,
    Cut {
        /// Also where the semicolon is encoded.
        encoded: bool,
        /// Up to the next slash, also if that is encoded.
        decoded: bool,
    },
}

/// Encodings that somebody takes for another character, the over-long ones of UTF-8 among them (`%C0%AF` is a slash to a
/// careless decoder).
const SLASHES: [&str; 2] = ["%2F", "%C0%AF"];
const BACKSLASHES: [&str; 2] = ["%5C", "%C1%9C"];
const DOT: &str = "%C0%AE";
const SEMICOLON: &str = "%3B";
const PERCENT: &str = "%25";

/// Checks that every reading of `subject.path` leads to `pattern`, by which the router has found `route`.
///
/// # Errors
/// 400.
pub(crate) fn agree<T>(
    router: &Router<T>,
    subject: &RouteInput<'_>,
    route: &T,
    pattern: &PathPattern,
    policy: EncodedSlashes,
) -> Result<(), Reply> {
    if policy == EncodedSlashes::Keep {
        return Ok(());
    }
    let encoded = SLASHES.iter().chain(&BACKSLASHES).any(|code| subject.path.contains(code));
    if policy == EncodedSlashes::Refuse && encoded {
        return Err(ambiguous("an encoded slash or backslash is not taken here"));
    }
    let others = others(subject.path).ok_or_else(|| ambiguous(ELSEWHERE))?;
    let leads_here = |other: &Other| {
        let found = router.pick(&RouteInput { path: &other.path, ..*subject });
        matches!(found, Pick::Route(there, by) if std::ptr::eq(there, route) && std::ptr::eq(by, pattern))
            && stays(pattern, subject.path, other)
    };
    if others.iter().all(leads_here) { Ok(()) } else { Err(ambiguous(ELSEWHERE)) }
}

const ELSEWHERE: &str = "an encoded character or ';' lets this path be read as another one";

/// True when a reading stays below what the pattern names: a part that `strip_prefix` or `rewrite` takes away or replaces
/// must not be climbed out of afterwards.
fn stays(pattern: &PathPattern, path: &str, other: &Other) -> bool {
    if !pattern.prefix {
        return other.least.is_none();
    }
    let count = pattern.segments.len();
    let first = |path: &str| path.split('/').skip(1).take(count).map(str::to_owned).collect::<Vec<_>>();
    other.least.is_none_or(|least| least >= count) && first(path) == first(&other.path)
}

/// More readings than any path has that somebody means: each kind of character doubles them, and one server behind another
/// reads what the first has made of it.
const MOST: usize = 96;

/// Every other reading of `path`, also by several servers in a row; `None` when one of them climbs above the root, or when
/// there is no end to them.
fn others(path: &str) -> Option<BTreeSet<Other>> {
    let mut texts = vec![path.to_owned()];
    // Decoded twice, as behind two servers that both decode.
    if let Some(twice) = decoded_twice(path) {
        texts.push(twice);
    }
    let mut found = BTreeSet::new();
    while let Some(text) = texts.pop() {
        for habits in habits(&text) {
            let separated = separate(&text, habits);
            // Whether an empty segment is one matters only where there is one.
            let merging = if separated.contains("//") { &[true, false][..] } else { &[true] };
            for merge in merging {
                let other = resolve(&separated, *merge)?;
                // What is left in it may be read by the next server.
                let more = other.path != text && other.path.contains(['%', ';']);
                let next = more.then(|| other.path.clone());
                if found.insert(other) {
                    texts.extend(next);
                }
            }
        }
        if found.len() > MOST {
            return None;
        }
    }
    Some(found)
}

/// What is left of `%25xx` after one decoding too many; `None` when there is none.
fn decoded_twice(path: &str) -> Option<String> {
    let (mut out, mut rest, mut changed) = (String::with_capacity(path.len()), path, false);
    while let Some(at) = rest.find(PERCENT) {
        let after = &rest[at + PERCENT.len()..];
        let digits = after.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
        out.push_str(&rest[..at]);
        out.push_str(if digits { "%" } else { PERCENT });
        changed |= digits;
        rest = after;
    }
    out.push_str(rest);
    changed.then(|| path::decode(&out, Spelling::Compared).ok()).flatten()
}

/// The ways to read `path` that differ for it.
fn habits(path: &str) -> impl Iterator<Item = Habits> + use<> {
    let either = |differs: bool| if differs { &[false, true][..] } else { &[false] };
    let has = |codes: &[&str]| codes.iter().any(|code| path.contains(code));
    let mut parameters = vec![Parameters::Kept];
    if has(&[";", SEMICOLON]) {
        for &encoded in either(has(&[SEMICOLON])) {
            parameters.extend([true, false].map(|decoded| Parameters::Cut { encoded, decoded }));
        }
    }
    let (slashes, backslashes) = (either(has(&SLASHES)), either(has(&BACKSLASHES)));
    slashes.iter().flat_map(move |&slashes| {
        let parameters = parameters.clone();
        backslashes.iter().flat_map(move |&backslashes| {
            let parameters = parameters.clone().into_iter();
            parameters.map(move |parameters| Habits { slashes, backslashes, parameters })
        })
    })
}

/// The path with whatever `habits` take for a slash as one, and without the parameters that they cut.
fn separate(path: &str, habits: Habits) -> String {
    let (mut out, mut rest, mut cutting) = (String::with_capacity(path.len()), path, false);
    let (cuts, encoded, decoded) = match habits.parameters {
        Parameters::Kept => (false, false, false),
        Parameters::Cut { encoded, decoded } => (true, encoded, decoded),
    };
    while !rest.is_empty() {
        let plain = rest.find(['/', ';', '%']).unwrap_or(rest.len());
        if plain > 0 {
            if !cutting {
                out.push_str(&rest[..plain]);
            }
            rest = &rest[plain..];
            continue;
        }
        let code = |codes: &[&str]| codes.iter().find(|code| rest.starts_with(**code)).map(|code| code.len());
        let slash = code(&SLASHES).filter(|_| habits.slashes);
        let slash = slash.or_else(|| code(&BACKSLASHES).filter(|_| habits.backslashes));
        let (text, length) = match slash {
            Some(length) => ("/", length),
            None if rest.starts_with(DOT) => (".", DOT.len()),
            None if encoded && rest.starts_with(SEMICOLON) => (";", SEMICOLON.len()),
            None => (&rest[..1], 1),
        };
        cutting = match text {
            "/" if length == 1 || decoded => false,
            ";" if cuts => true,
            _ => cutting,
        };
        if !cutting {
            out.push_str(text);
        }
        rest = &rest[length..];
    }
    out
}

/// Resolves dot segments; `None` when they climb above the root. `merge`: an empty segment is none.
fn resolve(path: &str, merge: bool) -> Option<Other> {
    let (mut kept, mut least, mut directory) = (Vec::new(), None::<usize>, false);
    for segment in path.split('/').skip(1) {
        directory = matches!(segment, "." | "..");
        match segment {
            "." => {}
            "" if merge => directory = true,
            ".." => {
                kept.pop()?;
                least = Some(least.map_or(kept.len(), |least| least.min(kept.len())));
            }
            name => kept.push(name),
        }
    }
    let mut path = kept.iter().fold(String::with_capacity(path.len()), |path, segment| path + "/" + segment);
    if directory || path.is_empty() {
        path.push('/');
    }
    Some(Other { path, least })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http::{HeaderMap, Method};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        filter::Invalid,
        routing::{
            action::Rewrite,
            decoders::{below, nginx, servlet, windows},
            router::Matcher,
        },
    };

    type Routes = Router<&'static str>;

    fn routes(patterns: &[&'static str]) -> Routes {
        let matcher = |text: &&'static str| Matcher { paths: vec![text.parse().unwrap()], ..Matcher::default() };
        Router::new(patterns.iter().map(|text| (matcher(text), *text)).collect())
    }

    /// Where a path leads; `None` when it is refused.
    fn leads<'r>(routes: &'r Routes, path: &str) -> Option<(&'static str, &'r PathPattern, String)> {
        let reading = path::read(path).ok()?;
        let headers = HeaderMap::new();
        let subject =
            RouteInput { host: "h", path: &reading.path, method: &Method::GET, headers: &headers, listener: 0 };
        let Pick::Route(route, pattern) = routes.pick(&subject) else { return None };
        if reading.suspect {
            agree(routes, &subject, route, pattern, EncodedSlashes::SameRoute).ok()?;
        }
        Some((route, pattern, reading.sent.unwrap_or_else(|| reading.path.into_owned())))
    }

    #[test]
    fn ways_around_a_protected_prefix_are_closed() {
        let routes = routes(&["/*", "/admin/*"]);
        for path in [
            "/admin%2Fx",
            "/admin%2fx",
            "/x/..%2Fadmin/x",
            "/.%2Fadmin/x",
            "/x/..;/admin/x",
            "/x/..;a=b/admin/x",
            "/x/..%5Cadmin/x",
            "/admin;a/x",
            "/%2Fadmin/x",
            "/x%2F..%2Fadmin",
            "/admin%5Cx",
            "/x/..%3B/admin/x",
            "/%2561dmin/x",
            "/admin%252Fx",
            "/x/%C0%AE%C0%AE/admin/x",
            "/admin%C0%AFx",
            "/..%2Fx",
        ] {
            assert_eq!(leads(&routes, path).map(|(route, ..)| route), None, "{path}");
        }
        assert_eq!(leads(&routes, "/%61dmin/x").unwrap().0, "/admin/*");
    }

    #[test]
    fn ordinary_paths_with_such_characters_pass_as_they_are() {
        let routes = routes(&["/*", "/admin/*", "/npm/*", "/users/{id}", "/{tenant}/files/*"]);
        for (path, route) in [
            ("/npm/@scope%2fpkg", "/npm/*"),
            ("/v2/library%2Falpine/manifests/3.20", "/*"),
            ("/bucket/a%2Fb%2Fc;v=1/%5Cd", "/*"),
            ("/users/7;v=1", "/users/{id}"),
            ("/shop/cart;jsessionid=ABC", "/*"),
            ("/acme/files/a%2Fb%20c", "/{tenant}/files/*"),
            ("/a%20b/%E4%BD%A0", "/*"),
            ("/100%25", "/*"),
            ("/npm/a%2F..%2Fb", "/npm/*"),
        ] {
            let (found, _, sent) = leads(&routes, path).unwrap_or_else(|| panic!("{path} is refused"));
            assert_eq!((found, sent.as_str()), (route, path));
        }
    }

    #[test]
    fn two_servers_in_a_row_are_thought_of() {
        let routes = routes(&["/*", "/@/*"]);
        // The first resolves dots between slashes, the second takes a backslash for one.
        assert!(leads(&routes, "/%5C%40%2F%5C%2F..").is_none());
    }

    #[test]
    fn a_reading_must_not_climb_out_of_what_is_replaced() {
        let routes = routes(&["/a/*", "/{tenant}/x/*"]);
        for path in ["/a/b/..%2F..%2Fa%2Fc", "/acme/x/..%2F..%2Fother%2Fx%2Fy", "/acme;v/x/y"] {
            assert!(leads(&routes, path).is_none(), "{path}");
        }
        assert!(leads(&routes, "/a/b/..%2Fc").is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn no_backend_reads_another_route(path in "(/|admin|x|\\.\\.|\\.|;|;a=b|%2F|%2f|%5C|%2e|%252F|%3B|%61|%40|@|%20){1,12}") {
            let path = format!("/{path}");
            let routes = routes(&["/*", "/admin/*", "/@/*"]);
            if let Some((route, _, sent)) = leads(&routes, &path) {
                for (reader, read) in [("nginx", nginx(&sent)), ("servlet", servlet(&sent)), ("windows", windows(&sent))] {
                    // What a backend refuses is not served.
                    let Some(read) = read else { continue };
                    let expected = ["/admin/*", "/@/*"].into_iter().find(|route| below(&read, &route[..route.len() - 2]));
                    prop_assert_eq!(route, expected.unwrap_or("/*"), "{} reads {} of {} as {}", reader, sent, path, read);
                }
            }
        }

        #[test]
        fn no_backend_leaves_what_a_rewrite_put_in_front(path in "(/|x|\\.\\.|;|;a|%2F|%5C|%2e|%252F|y){1,10}") {
            let routes = routes(&["/*", "/api/*"]);
            if let Some(("/api/*", pattern, sent)) = leads(&routes, &format!("/api/{path}")) {
                let rewrite = Rewrite::build(None, Some("/base/v2/{rest}"), std::slice::from_ref(pattern), &mut Invalid::default());
                let there = rewrite.unwrap().apply(pattern, &sent).unwrap();
                for read in [nginx(&there), servlet(&there), windows(&there)].into_iter().flatten() {
                    prop_assert!(below(&read, "/base/v2"), "{} becomes {}, read as {}", sent, there, read);
                }
                let strip = Rewrite::build(Some("/api"), None, std::slice::from_ref(pattern), &mut Invalid::default());
                let there = strip.unwrap().apply(pattern, &sent).unwrap();
                prop_assert!(nginx(&there).is_some() && servlet(&there).is_some() && windows(&there).is_some(), "{} climbs", there);
            }
        }
    }
}

//! How backends read a path: models of their decoders, for tests and fuzzing.

/// As nginx reads a path before it looks for a location (`ngx_http_parse_complex_uri`): everything is decoded once,
/// slashes are merged, dots resolved. `None`: it answers 400.
pub(crate) fn nginx(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        if bytes[at] == b'%' {
            out.push(u8::from_str_radix(path.get(at + 1..at + 3)?, 16).ok()?);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    tidy(&String::from_utf8_lossy(&out))
}

/// As a servlet container does: parameters are cut off each segment, then it is decoded, then dots are resolved.
pub(crate) fn servlet(path: &str) -> Option<String> {
    let cut: Vec<&str> = path.split('/').map(|segment| segment.split(';').next().unwrap_or("")).collect();
    nginx(&cut.join("/"))
}

/// As nginx's, where a backslash separates too.
pub(crate) fn windows(path: &str) -> Option<String> {
    tidy(&nginx(path)?.replace('\\', "/"))
}

fn tidy(path: &str) -> Option<String> {
    let mut kept = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => kept.pop().map(|_: &str| ())?,
            name => kept.push(name),
        }
    }
    Some(format!("/{}", kept.join("/")))
}

/// True for `prefix` and everything below it.
pub(crate) fn below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

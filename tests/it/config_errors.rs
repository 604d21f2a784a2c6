//! Mistakes in the YAML: all of them at once, each where it stands.

use std::{fs, process::Command, time::Instant};

use crate::harness::binary;

/// Runs `tollgate check` on `yaml`: the exit code, and what it says, without the file's path.
pub(crate) fn check(yaml: &str) -> (i32, String) {
    check_with(yaml, &[])
}

fn check_with(yaml: &str, variables: &[(&str, &str)]) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tollgate.yaml");
    fs::write(&file, yaml).unwrap();
    let out = Command::new(binary()).arg("-t").arg("-c").arg(&file).envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8(out.stderr).unwrap().replace(&file.display().to_string(), "tollgate.yaml");
    (out.status.code().unwrap(), text)
}

#[test]
fn ten_mistakes_are_ten_problems() {
    let yaml = r#"listeners:
  - address: "127.0.0.1:8080"
  - address: "127.0.0.1:8080"
admin: { address: "0.0.0.0:9090" }
pingora: { threds: 4 }
services:
  users:
    urls: ["ftp://127.0.0.1:8081"]
  orders:
    urls: ["http://127.0.0.1:8082"]
    health_check: { every: 5 }
routes:
  - match: { path: /users/* }
    service: usres
  - match: { path: /users/* }
    service: orders
  - id: a
    match: { path: /a, method: get }
    service: orders
    filters:
      - rate_limit: { rate: 10/s, brust: 20 }
      - apikey
"#;
    let (code, text) = check(yaml);
    assert_eq!(code, 78);
    let expected = r"tollgate.yaml:3:14: listeners[1].address: 127.0.0.1:8080 is taken already (by listeners[0].address)
tollgate.yaml:4:19: admin.address: '0.0.0.0:9090' can be reached from outside: use 127.0.0.1, or say 'allow_remote: true' and firewall it
tollgate.yaml:5:12: pingora: unknown key 'threds' (did you mean 'threads'?)
tollgate.yaml:8:12: services.users.urls[0]: 'ftp://127.0.0.1:8081' is not a backend: the scheme is none of http, https, h2c; write it like http://127.0.0.1:8081
tollgate.yaml:11:28: services.orders.health_check.every: '5' is not a duration: write it like 250ms, 5s, 1h30m (units us, ms, s, m, h, d)
tollgate.yaml:14:14: routes[0].service: there is no service 'usres' (did you mean 'users'?)
tollgate.yaml:15:5: routes[1]: never reached: routes[0] ('/users/*') takes the same requests first
tollgate.yaml:18:32: routes[2].match.method: did you mean 'GET'? methods are upper-case
tollgate.yaml:21:35: routes[2].filters[0].rate_limit: unknown key 'brust' (did you mean 'burst'?)
tollgate.yaml:22:9: routes[2].filters[1]: unknown filter 'apikey' (did you mean 'api_key'?)
tollgate.yaml: 10 problems
";
    assert_eq!(text, expected);
}

/// Takes the `@` out, which stands before the culprit: the text, and the culprit's column when it begins at `start`.
fn marked(text: &str, start: usize) -> (String, usize) {
    (text.replacen('@', "", 1), start + text.find('@').unwrap())
}

#[test]
fn each_kind_of_mistake_has_its_place() {
    let wrap = |line: &str| {
        format!(
            "listeners: [{{ address: \"127.0.0.1:1\" }}]\nadmin: {{ enabled: false }}\nservices: {{ s: {{ urls: [\"http://h\"] }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: s\n{line}\n"
        )
    };
    for (line, expected) in [
        ("@bogus: 1", "unknown key 'bogus'"),
        ("limits: { uri: @1 }", "limits.uri: 1 is not a size from 16"),
        ("limits: { headers: @251 }", "limits.headers: 251 is not a number from 1 to 250"),
        ("limits: { header_size: @980001 }", "limits.header_size: 980001 is not a size from 256 to 980000 bytes"),
        ("limits: @[1]", "limits: expected a mapping, found a list"),
        (
            "access_log: { output: @nowhere }",
            "access_log.output: unknown value 'nowhere' (known: stdout, stderr, file)",
        ),
        (
            "trusted_proxies: [@10.0.0.1/8]",
            "trusted_proxies[0]: '10.0.0.1/8' has bits beyond its prefix (did you mean '10.0.0.0/8'?)",
        ),
        ("log: { level: @loud! }", "log.level: 'loud!' is not a log level"),
        ("log: { level: @\"${NO_SUCH_VARIABLE}\" }", "log.level: environment variable 'NO_SUCH_VARIABLE' is not set"),
        ("api_keys: [{ id: a, sha256: @abc }]", "api_keys[0].sha256:"),
        ("pingora: { threads: @0 }", "pingora.threads: 0 is not a number of threads from 1 to 1024"),
        (
            "pingora: { upgrade_sock: @/no/such/dir/sock }",
            "pingora.upgrade_sock: the directory '/no/such/dir' is not there",
        ),
        ("tests: [@{ request: GET /, expect: { status: 200 } }]", "tests[0]: 'GET /': expected status 200, got none"),
        ("tests: [@{ request: GET /, expect: { cache: hit } }]", "tests[0]: 'GET /': expected cache hit, got none"),
        (
            "tests: [@{ request: GET /, answer: {}, expect: { route: a } }]",
            "tests[0]: 'answer' and 'cache_detail' have no effect without 'cache' in 'expect': add it",
        ),
        (
            "tests: [@{ request: GET /, expect: { service: other } }]",
            "tests[0]: 'GET /': expected service other, got s",
        ),
    ] {
        let (line, column) = marked(line, 1);
        let (code, text) = check(&wrap(&line));
        assert_eq!(code, 78, "{line}: {text}");
        assert!(
            text.starts_with(&format!("tollgate.yaml:7:{column}: {expected}")),
            "{line}:\n{text}expected 7:{column}: {expected}"
        );
    }
}

#[test]
fn filters_are_checked_to_the_last_key() {
    let wrap = |filter: &str| {
        format!(
            "listeners: [{{ address: \"127.0.0.1:1\" }}]\nadmin: {{ enabled: false }}\nservices: {{ s: {{ urls: [\"http://h\"] }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: s\n    filters:\n      - {filter}\n"
        )
    };
    for (filter, expected) in [
        ("@api_key", "routes[0].filters[0]: there are no keys"),
        ("cors: { origins: [@\"*\"], credentials: true }", "routes[0].filters[0].cors.origins[0]: '*' cannot go with"),
        ("jwt: { algorithms: [@none], keys: [] }", "routes[0].filters[0].jwt.algorithms[0]: 'none' is not"),
        (
            "jwt: { algorithms: [RS256], keys: [@{ pem: /no/file }] }",
            "routes[0].filters[0].jwt.keys[0]: cannot read '/no/file'",
        ),
        ("rate_limit: { rate: 10/s, burst: @0 }", "routes[0].filters[0].rate_limit.burst:"),
        (
            "rate_limit: { rate: 10/s, by: @clientip }",
            "routes[0].filters[0].rate_limit.by: unknown value 'clientip' (did you mean 'client_ip'?)",
        ),
        (
            "headers: { response: { set: { Content-Length: @1 } } }",
            "routes[0].filters[0].headers.response.set.Content-Length: 'Content-Length' belongs to the connection",
        ),
        ("compression: { level: @11 }", "routes[0].filters[0].compression.level: 11 is not a level"),
        (
            "rate_limit: { by: path, quota: @10/mont }",
            "routes[0].filters[0].rate_limit.quota: '10/mont' is not a quota: write it like 10000/month",
        ),
        (
            "rate_limit: { by: path, quota: 10/month, burst: @3 }",
            "routes[0].filters[0].rate_limit.burst: has no effect without a 'rate'",
        ),
        ("rate_limit: { limits: [10/s, @9] }", "routes[0].filters[0].rate_limit.limits[1]: '9' is not a rate"),
        (
            "rate_limit: { quota: 9/day, sync: @strict }",
            "routes[0].filters[0].rate_limit.sync: there is no 'redis' at the top",
        ),
        ("flood: { rate: @10/s }", "routes[0].filters[0].flood.rate: counts may be 10 too high here: at least 20"),
        ("flood: { rate: @100/100ms }", "routes[0].filters[0].flood.rate: the time must be from 1s to 1h"),
        ("in_flight: { max: @0 }", "routes[0].filters[0].in_flight.max: 0 would refuse"),
        ("ip: @{}", "routes[0].filters[0].ip: neither 'allow' nor 'deny'"),
        ("{ request_id: {}, on_fault: @maybe }", "routes[0].filters[0].on_fault: unknown value 'maybe'"),
        ("{ request_id: {}, @ip: {} }", "routes[0].filters[0]: 'ip' stands beside another filter"),
    ] {
        let (filter, column) = marked(filter, 9);
        let (code, text) = check(&wrap(&filter));
        assert_eq!(code, 78, "{filter}: {text}");
        assert!(
            text.starts_with(&format!("tollgate.yaml:8:{column}: {expected}")),
            "{filter}:
{text}expected 8:{column}: {expected}"
        );
    }
}

#[test]
fn an_upgrade_socket_where_others_can_put_theirs_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (open, link) = (dir.path().join("open"), dir.path().join("link"));
    fs::create_dir_all(open.join("own")).unwrap();
    std::os::unix::fs::symlink(&open, &link).unwrap();
    let mode = |mode| fs::set_permissions(&open, fs::Permissions::from_mode(mode)).unwrap();
    let verdict = |place: &str| {
        check(&format!(
            "pingora: {{ upgrade_sock: {place} }}\nlisteners: [{{ address: \"127.0.0.1:1\" }}]\nadmin: {{ enabled: false }}\nroutes: [{{ match: {{ path: / }}, respond: {{}} }}]\n"
        ))
    };
    let within = |path: &str| dir.path().join(path).display().to_string();
    mode(0o1777);
    for place in [within("open/sock"), within("link/sock"), "/tmp/tollgate.sock".to_owned()] {
        let (code, text) = verdict(&place);
        assert_eq!(code, 78, "{place}: {text}");
        assert!(text.starts_with("tollgate.yaml:1:26: pingora.upgrade_sock: '/"), "{text}");
        assert!(text.contains("can be written to by others (mode 1777)") && text.contains("mkdir -m 700"), "{text}");
    }
    assert_eq!(verdict(&within("open/own/sock")).0, 0, "nobody can exchange it in a sticky directory");
    mode(0o777);
    assert_eq!(verdict(&within("open/own/sock")).0, 78, "the directory itself could be exchanged");
    // Without the key it works wherever there is a directory for temporary files, as containers have it.
    let file = dir.path().join("t.yaml");
    fs::write(&file, "listeners: [{ address: \"127.0.0.1:1\" }]\nroutes: [{ match: { path: / }, respond: {} }]\n")
        .unwrap();
    let mut command = Command::new(binary());
    let command = command.env_remove("RUNTIME_DIRECTORY").env_remove("XDG_RUNTIME_DIR").env("TMPDIR", &open);
    assert!(command.arg("-t").arg("-c").arg(&file).status().unwrap().success());
    mode(0o755);
    assert_eq!(verdict(&within("link/sock")).0, 0);
}

#[test]
fn a_pid_file_where_others_can_put_a_link_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let verdict = || {
        let folder = dir.path().display();
        check(&format!(
            "pingora: {{ pid_file: {folder}/pid }}\nlisteners: [{{ address: \"127.0.0.1:1\" }}]\nadmin: {{ enabled: false }}\nroutes: [{{ match: {{ path: / }}, respond: {{}} }}]\n"
        ))
    };
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let (code, text) = verdict();
    assert_eq!(code, 78, "{text}");
    assert!(text.starts_with("tollgate.yaml:1:22: pingora.pid_file: '/"), "{text}");
    assert!(text.contains("can be written to by others (mode 1777)"), "{text}");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(verdict().0, 0);
}

#[test]
fn loading_takes_as_much_longer_as_there_are_more_routes_services_and_keys() {
    let dir = tempfile::tempdir().unwrap();
    let time = |count: usize| {
        let mut yaml = String::from("listeners: [{ address: '127.0.0.1:1' }]\nadmin: { enabled: false }\nservices:\n");
        let each = |line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<String>();
        yaml += &each(&|i| format!("  s{i}: {{ urls: ['http://127.0.0.1:8000'] }}\n"));
        yaml += "api_keys:\n";
        yaml += &each(&|i| {
            format!("  - {{ id: k{i}, sha256: {i:064x}, scopes: [read, s{i}], expires: 2999-01-01T00:00:00Z }}\n")
        });
        yaml += "routes:\n";
        yaml += &each(&|i| {
            format!(
                "  - {{ match: {{ path: /p{i} }}, service: s{i}, filters: [{{ api_key: {{ scopes: [read, s{i}] }} }}] }}\n"
            )
        });
        yaml += &each(&|i| {
            format!(
                "  - {{ match: {{ host: '*.h{i}.example', path: '/*' }}, service: s{i}, filters: [{{ api_key: {{ allow: [k{i}], scopes: read }} }}] }}\n"
            )
        });
        yaml += &each(&|i| format!("  - {{ match: {{ path: /a, headers: {{ X-Tenant: t{i} }} }}, service: s{i} }}\n"));
        let file = dir.path().join(format!("{count}.yaml"));
        fs::write(&file, yaml).unwrap();
        let times = (0..3).map(|_| {
            let begun = std::time::Instant::now();
            let out = Command::new(binary()).arg("-t").arg("-c").arg(&file).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            begun.elapsed()
        });
        times.min().unwrap()
    };
    let (few, many) = (time(300), time(3000));
    assert!(many < few * 18, "{few:?} for 300 of each, {many:?} for 3000");
}

#[test]
fn an_id_that_another_route_has_by_itself_is_a_mistake() {
    let yaml = r#"listeners: [{ address: "127.0.0.1:1" }]
admin: { enabled: false }
routes:
  - match: { path: /a }
    respond: {}
  - id: /a
    match: { path: /b }
    respond: {}
  - match: { path: /a, headers: { x: ~ } }
    respond: {}
  - id: "/a #2"
    match: { path: /c }
    respond: {}
"#;
    let (code, text) = check(yaml);
    assert_eq!(code, 78, "{text}");
    assert!(
        text.starts_with("tollgate.yaml:6:9: routes[1].id: '/a' is what routes[0] is called for want of an 'id'"),
        "{text}"
    );
    assert!(text.contains("tollgate.yaml: 1 problem\n"), "{text}");
}

/// A configuration around `line`, which is line 7.
fn around(line: &str) -> String {
    format!(
        "listeners: [{{ address: \"127.0.0.1:1\" }}]\nadmin: {{ enabled: false }}\nservices: {{ s: {{ urls: [\"http://h\"] }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: s\n{line}\n"
    )
}

#[test]
fn no_secret_stands_in_a_message() {
    let key = "    filters: [{ jwt: { algorithms: [HS256], keys: [{ secret:";
    for line in [
        "limits: { uri: \"${HUSH}\" }".to_owned(),
        "log: { level: \"x${HUSH}!!\" }".to_owned(),
        "limits: \"${HUSH}\"".to_owned(),
        "\"${HUSH}\": 1".to_owned(),
        "trusted_proxies: [\"${HUSH}\"]".to_owned(),
        "    retry: { on: [\"${HUSH}\"] }".to_owned(),
        "    canary: { service: \"${HUSH}\", share: 1% }".to_owned(),
        "    filters: [{ rate_limit: { rate: \"${HUSH}\" } }]".to_owned(),
        "    filters: [\"${HUSH}\"]".to_owned(),
        "tests: [{ request: \"GET /${HUSH}\", expect: { status: 404 } }]".to_owned(),
        format!("{key} hunter2hunter2 }}] }} }}]"),
        format!("{key} 8472837465 }}] }} }}]"),
        format!("{key} [hunter2hunter2] }}] }} }}]"),
        format!("{key} {{ env: hunter2hunter2 }} }}] }} }}]"),
        format!("{key} {{ file: hunter2hunter2 }} }}] }} }}]"),
        format!("{key} {{ credential: hunter2hunter2 }} }}] }} }}]"),
        "    filters: [{ jwt: { keys: [{ pem: \"-----BEGIN PRIVATE KEY-----\\nhunter2hunter2\\n-----END\" }] } }]"
            .to_owned(),
        "api_keys: [hunter2hunter2]".to_owned(),
        "api_keys: [{ id: a, sha256: hunter2hunter2 }]".to_owned(),
        "tests: [{ request: \"GET http://joe:hunter2hunter2@h/\", expect: { status: 404 } }]".to_owned(),
    ] {
        let (code, text) = check_with(&around(&line), &[("HUSH", "hunter2hunter2")]);
        assert_eq!(code, 78, "{line}: {text}");
        for secret in ["hunter2", "8472837465"] {
            assert!(!text.contains(secret), "{line}: {text}");
        }
    }
    for url in ["http://joe:hunter2@h", "joe:hunter2@h:80", "ftp://joe:hunter2@h/x", "http://joe:hunt er2@h"] {
        let yaml = around("").replace("http://h", url);
        let (code, text) = check(&yaml);
        assert!(code == 78 && !text.contains("hunter2") && !text.contains("er2"), "{url}: {text}");
        assert!(text.contains("3:"), "{text}");
    }
}

#[test]
fn a_variable_that_is_not_set_is_one_problem() {
    for line in [
        "limits: { uri: \"${NO_SUCH_VARIABLE}\" }",
        "    in_flight: { max: \"${NO_SUCH_VARIABLE}\" }",
        "trusted_proxies: [\"${NO_SUCH_VARIABLE}\"]",
        "    filters: [\"${NO_SUCH_VARIABLE}\"]",
        "api_keys: [{ id: a, sha256: \"${NO_SUCH_VARIABLE}\" }]",
        "tests: [{ request: \"GET ${NO_SUCH_VARIABLE}\", expect: { status: 404 } }]",
    ] {
        let (code, text) = check(&around(line));
        assert_eq!(code, 78, "{line}: {text}");
        assert!(text.contains("'NO_SUCH_VARIABLE' is not set") && text.contains(": 1 problem\n"), "{line}: {text}");
    }
    let (_, text) = check(&around("").replace("http://h", "${NO_SUCH_VARIABLE}"));
    assert!(text.contains("services.s.urls[0]: environment") && text.contains(": 1 problem\n"), "{text}");
    let (_, text) = check(&around("").replace("127.0.0.1:1", "${NO_SUCH_VARIABLE}"));
    assert!(text.contains("listeners[0].address: environment") && text.contains(": 1 problem\n"), "{text}");
}

#[test]
fn paths_of_keys_have_no_stray_dots() {
    let none =
        "listeners: [{ address: \"127.0.0.1:1\" }]\nadmin: { enabled: false }\nroutes:\n  - match: { path: /* }\n";
    let (_, text) = check(none);
    assert!(text.starts_with("tollgate.yaml:4:5: routes[0]: leads nowhere"), "{text}");
}

#[test]
fn a_rewrite_is_a_path_that_a_backend_can_be_sent() {
    for (rewrite, why) in [
        ("/a b", "' ' in it must be written %20"),
        ("/ü", "'ü' in it must be written %C3%BC"),
        ("/a?b=1", "a query stays as it is"),
        ("/a#b", "'#' in it must be written %23"),
        ("/a%2", "'%' is not followed by two hexadecimal digits"),
        ("/a/../b", "did you mean '/b'?"),
    ] {
        let (code, text) = check(&around(&format!("    rewrite: \"{rewrite}\"")));
        assert_eq!(code, 78, "{rewrite}: {text}");
        assert!(text.starts_with(&format!("tollgate.yaml:7:14: routes[0].rewrite: '{rewrite}'")), "{text}");
        assert!(text.contains(why), "{text}");
    }
    let fine = around("    rewrite: /v2/{rest}\n    host: h").replace("/*", "/a/*");
    assert_eq!(check(&fine).0, 0);
}

#[test]
fn the_host_for_a_backend_is_one() {
    for host in ["a b", "a%41", "http://h", "h:99999", ""] {
        let (code, text) = check(&around(&format!("    host: \"{host}\"")));
        assert_eq!(code, 78, "{host}: {text}");
        assert!(
            text.starts_with(&format!("tollgate.yaml:7:11: routes[0].host: '{host}' is not a host: write it")),
            "{text}"
        );
    }
    assert_eq!(check(&around("    host: api.example:8080")).0, 0);
}

#[test]
fn bombs_end_at_once_with_a_problem() {
    let aliases = |open: &str, close: &str, separator: &str| {
        let mut yaml = String::from("a0: &a0 { x: 1 }\n");
        for i in 1..30 {
            let below = vec![format!("*a{}", i - 1); 10].join(separator);
            yaml = [yaml, format!("a{i}: &a{i} {open}{below}{close}\n")].concat();
        }
        yaml
    };
    let chain = |open: &str, close: &str| {
        let links = (1..50_000).map(|i| format!("a{i}: &a{i} {open}*a{}{close}\n", i - 1));
        std::iter::once("a0: &a0 { x: 1 }\n".to_owned()).chain(links).collect::<String>()
    };
    for (what, yaml) in [
        ("aliases", aliases("[", "]", ", ")),
        ("merge keys", aliases("{ <<: [", "] }", ", ")),
        ("a chain of aliases", chain("[", "]")),
        ("a chain of merge keys", chain("{ <<: ", " }")),
        ("brackets", "[".repeat(100_000)),
        ("braces", "{ a: ".repeat(50_000)),
        ("dashes", "- ".repeat(100_000)),
    ] {
        let begun = std::time::Instant::now();
        let (code, text) = check(&yaml);
        assert_eq!(code, 78, "{what}: {}", &text[..text.len().min(300)]);
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{what} took {:?}", begun.elapsed());
        let said = ["too many", "too deep", "nested", "recursion", "invalid YAML"];
        assert!(said.iter().any(|word| text.contains(word)), "{what}: {}", &text[..text.len().min(300)]);
    }
}

#[test]
fn bytes_that_are_no_text_have_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tollgate.yaml");
    fs::write(&file, b"routes: []\n# \xc3\xbc\xff\n").unwrap();
    let out = Command::new(binary()).arg("-t").arg("-c").arg(&file).output().unwrap();
    let text = String::from_utf8(out.stderr).unwrap().replace(&file.display().to_string(), "tollgate.yaml");
    assert!(text.starts_with("tollgate.yaml:2:4: the byte 0xff is no UTF-8"), "{text}");
}

#[test]
fn a_test_that_expects_nothing_is_a_mistake() {
    let (code, text) = check(&around("tests: [{ request: GET /, expect: {} }]"));
    assert_eq!(code, 78, "{text}");
    assert!(text.starts_with("tollgate.yaml:7:9: tests[0]: 'expect' names nothing"), "{text}");
}

#[test]
fn suggestions_can_be_copied() {
    for (line, expected) in [
        ("  - match: { path: /x, host: \"a b\" }\n    service: s", "write it like api.example or \"*.example\""),
        ("  - match: { path: /users/%41/x }\n    service: s", "(did you mean '/users/A/x'?)"),
    ] {
        let (_, text) = check(&around(line));
        assert!(text.contains(expected), "{line}: {text}");
    }
}

#[test]
fn a_key_has_a_name_that_backends_can_be_told() {
    for name in ["id: \"\"", "id: k, owner: \"a\\nb\"", "id: k, owner: \"\""] {
        let (code, text) = check(&format!(
            "listeners: [ {{ address: \"127.0.0.1:1\" }} ]\napi_keys: [ {{ {name}, sha256: \"2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683\" }} ]\nroutes: [ {{ match: {{ path: / }}, respond: {{}} }} ]\n"
        ));
        assert!(code == 78 && text.contains("must not be empty, nor have characters"), "{name}: {text}");
    }
}

#[test]
fn bounds_in_the_wrong_order_are_a_mistake_and_no_panic() {
    let (code, text) = check(&around("  - match: { path: / }\n    service: t").replace(
        "services: { s: { urls: [\"http://h\"] } }\n",
        "services:\n  s: { urls: [\"http://h\"] }\n  t: { urls: [\"http://127.0.0.1:1\"], in_flight: { max: 5, adaptive: { min: 10, initial: 50 } } }\n",
    ));
    assert!(
        code == 78 && text.contains("1 <= min (10) <= initial (50) <= max (5)") && !text.contains("panicked"),
        "{text}"
    );
}

#[test]
fn tests_take_as_much_longer_as_there_are_more_of_them() {
    let time = |count: usize| {
        let mut yaml =
            around("  - match: { path: /x }\n    service: s\n    filters: [ { rate_limit: { rate: 1/d, burst: 1 } } ]");
        yaml.push_str("tests:\n");
        yaml.push_str(&"  - { request: GET /x, expect: { service: s } }\n".repeat(count));
        let begun = Instant::now();
        let (code, text) = check(&yaml);
        assert_eq!(code, 0, "each begins with fresh limits: {text}");
        begun.elapsed()
    };
    let (few, many) = (time(100), time(1000));
    assert!(many < few * 40, "{few:?} for 100, {many:?} for 1000");
}

#[test]
fn what_a_file_says_makes_no_line_of_its_own() {
    let (_, text) =
        check("\"\\e[31mred\\nfake.yaml:1:1: ok\": 1\nlisteners: [ { address: \"127.0.0.1:1\" } ]\nroutes: []\n");
    assert!(!text.contains('\u{1b}') && text.lines().all(|line| !line.starts_with("fake.yaml")), "{text}");
}

#[test]
fn a_discovery_file_must_list_somebody_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("list");
    for (text, code) in [("", 78), ("# nobody\n", 78), ("http://127.0.0.1:1\n", 0)] {
        fs::write(&file, text).unwrap();
        let yaml = format!(
            "listeners: [ {{ address: \"127.0.0.1:1\" }} ]\nservices:\n  s: {{ discovery: {{ file: {} }} }}\nroutes: [ {{ match: {{ path: / }}, service: s }} ]\n",
            file.display()
        );
        let (found, said) = check(&yaml);
        assert!(found == code && (code == 0 || said.contains("lists no backend")), "{text:?}: {said}");
    }
}

#[test]
fn a_secret_in_the_place_of_its_reference_is_not_repeated() {
    for keys in ["[ \"SUPERSECRET\" ]", "[ { secret: { SUPERSECRET: x } } ]"] {
        let filters = format!("    filters: [ {{ jwt: {{ algorithms: [HS256], keys: {keys} }} }} ]");
        let (code, text) = check(&around(&filters));
        assert!(code == 78 && !text.contains("SUPERSECRET") && text.contains("known: "), "{text}");
    }
}

#[test]
fn a_variable_that_is_not_set_hides_no_other_mistake() {
    let yaml = r#"listeners: [{ address: "127.0.0.1:1" }]
admin: { enabled: false }
via: ${TEST_UNSET_1}
wiat: 1
services:
  s:
    urls: ["${TEST_UNSET_2}"]
    balence: random
routes:
  - match: { path: /* }
    service: ${TEST_UNSET_3}
    strip_prefx: /a
"#;
    let (code, text) = check(yaml);
    assert_eq!(code, 78);
    for said in [
        "via: environment variable 'TEST_UNSET_1'",
        "unknown key 'wiat'",
        "urls[0]: environment variable 'TEST_UNSET_2'",
        "unknown key 'balence'",
        "service: environment variable 'TEST_UNSET_3'",
        "unknown key 'strip_prefx'",
        "6 problems",
    ] {
        assert!(text.contains(said), "'{said}' is not in: {text}");
    }
}

#[test]
fn parts_of_a_variable_are_not_repeated_either() {
    let yaml = |key: &str| {
        format!(
            "listeners: [{{ address: \"127.0.0.1:1\" }}]\nadmin: {{ enabled: false }}\n{key}\nroutes: [{{ match: {{ path: /* }}, respond: {{ body: a }} }}]\n"
        )
    };
    let long = format!("sEcret-{}", "0123456789".repeat(20));
    let (code, text) = check_with(&yaml("services: { s: { urls: [\"${TEST_LONG}\"] } }"), &[("TEST_LONG", &long)]);
    assert_eq!(code, 78);
    assert!(text.contains("${TEST_LONG}") && !text.contains("sEcret"), "{text}");
    let path = "/sEcret-directory/pid";
    let (code, text) = check_with(&yaml("pingora: { pid_file: \"${TEST_PATH}\" }"), &[("TEST_PATH", path)]);
    assert_eq!(code, 78);
    assert!(text.contains("${TEST_PATH}") && !text.contains("sEcret"), "{text}");
}

#[test]
fn more_mistakes_than_are_told_are_not_kept_quiet() {
    let keys: Vec<String> = (0..250).map(|i| format!("unknown{i}: 1")).collect();
    let (code, text) = check(&keys.join("\n"));
    assert_eq!(code, 78);
    assert!(text.contains("there may be more"), "{text}");
}

#[test]
fn long_keys_around_many_nodes_are_no_bomb() {
    let yaml = format!("? {}\n: [{}]\n", "k".repeat(60_000), "a, ".repeat(60_000));
    let (code, text) = check(&yaml);
    assert_eq!(code, 78);
    assert!(text.contains("keys are very long"), "{}", &text[..500]);
}

#[test]
fn a_duration_is_repeated_as_it_may_be_written_and_named_with_its_limit() {
    for (keys, said) in [
        ("timeouts: { total: 0s }", "services.s.timeouts.total: 0s is too short: at least 1ms"),
        ("timeouts: { total: 999us }", "services.s.timeouts.total: 999us is too short: at least 1ms"),
        ("sticky: { cookie: c, ttl: 0s }", "services.s.sticky.ttl: 0s is too short: at least 1s"),
        ("discovery: { every: 0s }", "services.s.discovery.every: 0s is too short: at least 1s"),
        ("slow_start: 3651d", "services.s.slow_start: '3651d' is too long: at most 3650d"),
        ("slow_start: 99999999999d", "services.s.slow_start: '99999999999d' is too long: at most 3650d"),
    ] {
        let yaml = format!(
            "listeners: [{{ address: \"127.0.0.1:1\" }}]\nservices: {{ s: {{ urls: [\"http://h\"], {keys} }} }}\nroutes: [ {{ match: {{ path: /* }}, service: s }} ]\n"
        );
        let (code, text) = check(&yaml);
        assert!(code == 78 && text.contains(said), "{keys}: {text}");
    }
}

#[test]
fn a_misspelt_setting_of_a_filter_is_one_problem() {
    for (filter, expected) in [
        ("rate_limit: { rat: 10/s }", "unknown key 'rat' (did you mean 'rate'?)"),
        ("cors: { origin: \"https://a.example\" }", "unknown key 'origin' (did you mean 'origins'?)"),
        (
            "jwt: { algorithm: [RS256], keys: [{ pem: tests/fixtures/keys/test-rsa.public.pem }] }",
            "unknown key 'algorithm' (did you mean 'algorithms'?)",
        ),
    ] {
        let (code, text) = check(&around(&format!("    filters: [{filter}]")));
        assert_eq!(code, 78, "{text}");
        assert!(text.contains(expected) && text.ends_with(": 1 problem\n"), "{text}");
    }
}

#[test]
fn what_the_program_says_itself_is_no_value_of_a_variable() {
    let yaml = "listeners: \"127.0.0.1:1\"\nadmin: { enabled: false }\nlog: { level: \"${H}\" }\nservices: { s: { urls: \"http://h\" } }\nroutes: [{ match: { path: /a }, service: \"${S}x\" }]\n";
    let (_, text) = check_with(yaml, &[("H", "service"), ("S", "hunter-22")]);
    assert!(text.contains("there is no service '${S}x'") && text.contains("'${H}'"), "{text}");
    let yaml = "listeners: \"127.0.0.1:${PORT_OF_ALL}\"\nadmin: { address: \"127.0.0.1:${PORT_OF_ALL}\" }\nservices: { s: { urls: \"http://h\" } }\nroutes: [{ match: { path: /a }, service: s }]\n";
    let (_, text) = check_with(yaml, &[("PORT_OF_ALL", "9090")]);
    assert!(!text.contains("9090") || !text.contains("'${PORT_OF_ALL}"), "{text}");
}

#[test]
fn mistakes_in_tests_themselves_stand_beside_others() {
    let yaml = "listeners: [ { address: \"127.0.0.1:1\", name: one } ]
routes: [ { match: { path: /* }, service: nowhere } ]
tests:
  - { request: GET, expect: { status: 200 } }
  - { request: GET /, listener: two, expect: { status: 200 } }
  - { request: GET /, expect: {} }
  - { request: GET /, expect: { status: 200 } }
";
    let (code, text) = check(yaml);
    assert_eq!(code, 78);
    for said in [
        "tests[0]: 'GET' is not a request",
        "tests[1]: there is no listener 'two'",
        "tests[2]: 'expect' names nothing",
        "'nowhere'",
        "tollgate.yaml: 4 problems",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    // What follows from other mistakes is not said.
    let (_, text) = check(&yaml.replace("name: one", "nam: two").replace("expect: {} ", "expect: { statu: 2 } "));
    assert!(!text.contains("no listener") && !text.contains("names nothing"), "{text}");
}

#[test]
fn an_adaptive_limit_that_does_not_fit_names_the_defaults() {
    let said = |limits: &str| {
        check(&format!("listeners: \"127.0.0.1:1\"\nservices: {{ s: {{ urls: \"http://127.0.0.1:1\", in_flight: {{ {limits} }} }} }}\nroutes: [ {{ match: {{ path: /* }}, service: s }} ]\n")).1
    };
    let text = said("max: 5, adaptive: {}");
    assert!(text.contains("expected 1 <= min (10, the default) <= initial (50, the default) <= max (5)"), "{text}");
    let text = said("max: 40, adaptive: { min: 5 }");
    assert!(text.contains("expected 1 <= min (5) <= initial (50, the default) <= max (40)"), "{text}");
}

#[test]
fn a_cache_is_a_mapping_or_a_time_and_its_room_is_worth_having() {
    let says = |cache: &str, root: &str| {
        let yaml = format!(
            "listeners: [ {{ address: \"127.0.0.1:1\" }} ]\n{root}services: {{ s: {{ urls: [\"http://127.0.0.1:2\"] }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: s\n    cache: {cache}\n"
        );
        check(&yaml)
    };
    for cache in ["{}", "5m", "{ ttl: 5m }"] {
        assert_eq!(says(cache, "").0, 0, "{cache}");
    }
    for word in ["true", "on", "yes"] {
        let (code, text) = says(word, "");
        assert!(code == 78 && text.contains("routes[0].cache: ") && text.contains("write 'cache: {}'"), "{text}");
    }
    for (cache, way_out) in [
        ("off", "leave 'cache' out"),
        ("false", "leave 'cache' out"),
        ("", "'cache: {}' keeps what the backend allows"),
        ("soon", "is not a duration"),
        ("[]", "'cache: {}' keeps what the backend allows"),
    ] {
        let (code, text) = says(cache, "");
        assert!(code == 78 && text.contains("routes[0].cache") && text.contains(way_out), "{cache}: {text}");
    }
    for (root, way_out) in [
        ("cache: { memory: 0 }\n", "leave 'cache' out of the routes"),
        ("cache: { memory: 1000KiB }\n", "give it 1MiB or more"),
        ("cache: 64MiB\n", "expected"),
        ("cache: { memory: plenty }\n", "is not a size"),
        ("cache: { ttl: 5m }\n", "'ttl'"),
    ] {
        let (code, text) = says("{}", root);
        assert!(code == 78 && text.contains(": cache") && text.contains(way_out), "{root}: {text}");
    }
    assert_eq!(says("{}", "cache: { memory: 1MiB }\n").0, 0);
}

#[test]
fn no_key_that_is_fetched_is_a_secret() {
    for (algorithms, expected) in [("[HS256]", "no key fits an allowed algorithm"), ("[HS256, RS256]", "")] {
        let keys = "[ { jwks: { url: \"http://127.0.0.1:1/x\" } } ]";
        let filters = format!("    filters: [ {{ jwt: {{ algorithms: {algorithms}, keys: {keys} }} }} ]");
        let (code, text) = check(&around(&filters));
        assert!(code == if expected.is_empty() { 0 } else { 78 } && text.contains(expected), "{algorithms}: {text}");
    }
}

//! README and pages are true: every YAML block loads, every shell line runs, the demo's lines do what they say.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "readme/schema.rs"]
mod schema;

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");
const SHA: &str = "a9b0e5ba1f01b1b4b55c4e0e06c2f2e4b38c2f6a6b9d1a0f3f9a4e0f7d2c1b3e";

/// The fenced blocks of a file whose fence begins with `language`: the rest of the fence, and the text.
fn blocks(file: &str, language: &str) -> Vec<(String, String)> {
    let (text, mut found, mut open) = (fs::read_to_string(file).unwrap(), Vec::new(), None);
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(fence)) => open = Some((fence.to_owned(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some((_, body)), None) => *body = format!("{body}{line}\n"),
            (None, None) => {}
        }
    }
    let wanted = |(fence, body): (String, String)| {
        let rest = fence.strip_prefix(language)?;
        (rest.is_empty() || rest.starts_with(' ')).then(|| (rest.trim().to_owned(), body))
    };
    found.into_iter().filter_map(wanted).collect()
}

/// The README and the pages in `docs`.
fn pages() -> Vec<String> {
    let docs = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path());
    let docs = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut pages: Vec<String> = docs.map(|path| path.display().to_string()).chain(["README.md".into()]).collect();
    pages.sort();
    pages
}

fn indent(text: &str, by: usize) -> String {
    text.lines().flat_map(|line| [" ".repeat(by).as_str(), line, "\n"].concat().chars().collect::<Vec<_>>()).collect()
}

/// A fragment with a minimal rest around it.
fn whole(info: &str, body: &str) -> String {
    let listeners = "listeners: [{ address: \"127.0.0.1:18080\" }]\nadmin: { enabled: false }\n";
    let keys = format!("api_keys: [{{ id: acme, sha256: {SHA}, scopes: [orders] }}]\n");
    let main = "services: { main: { urls: [\"http://127.0.0.1:1\"] } }\n";
    let route = "routes:\n  - match: { path: /* }\n    service: main\n";
    match info {
        "" | "file=tollgate.yaml" => body.to_owned(),
        "fragment=services-and-routes" => format!("{listeners}{keys}{body}"),
        "fragment=listeners" => {
            format!(
                "admin: {{ enabled: false }}\ntrusted_proxies: [10.0.0.0/8]\nlisteners:\n{}{main}{route}",
                indent(body, 2)
            )
        }
        "fragment=root" => format!("{listeners}{main}{route}{body}"),
        "fragment=routes" => format!("{listeners}{main}routes:\n{}", indent(body, 2)),
        "fragment=services" => {
            format!("{listeners}services:\n{}routes:\n  - match: {{ path: /* }}\n    service: users\n", indent(body, 2))
        }
        "fragment=filters" => format!("{listeners}{keys}{main}{route}    filters:\n{}", indent(body, 6)),
        other => panic!("the test does not know the fence '{other}'"),
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap()
}

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn check(what: &str, file: &Path, dir: &Path) {
    fs::copy(fixture("leaves/backends-a.txt"), dir.join("backends.txt")).unwrap();
    let out = Command::new(BINARY)
        .arg("check")
        .arg(file)
        .env("JWT_SECRET", "0123456789abcdef0123456789abcdef")
        .env("JWKS_FILE", dir.join("jwks.json"))
        .env("REDIS_PASSWORD", "0123456789abcdef")
        .env("PARTNER_SECRET", "0123456789abcdef0123456789abcdef")
        .env("TLS_CERT", fixture("tls/a.pem"))
        .env("TLS_KEY", dir.join("tls.key"))
        .env("TLS_CA", fixture("tls/a.pem"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{what}: {said}");
    // A fragment shows services of which the rest around it names one.
    let doubtful = |line: &&str| line.contains(": warning: ") && !line.contains("no route leads to this service");
    assert_eq!(said.lines().find(doubtful), None, "{what}");
}

/// A JWK set with the RSA key of RFC 7517's appendix A.1.
const JWKS: &str = r#"{"keys":[{"kty":"RSA","e":"AQAB","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}]}"#;

#[test]
fn every_yaml_block_and_file_loads() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("jwks.json"), JWKS).unwrap();
    fs::copy("tests/fixtures/tls/a.key", dir.path().join("tls.key")).unwrap();
    fs::set_permissions(dir.path().join("tls.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for page in pages() {
        // Rules for Prometheus are `docs.rs`'s to check.
        for (i, (info, body)) in blocks(&page, "yaml").iter().enumerate().filter(|(_, (info, _))| info != "alerts") {
            let file = dir.path().join(format!("block-{i}.yaml"));
            fs::write(&file, whole(info, body)).unwrap();
            check(&format!("{page}, block {i} ({info}):\n{body}"), &file, dir.path());
        }
    }
    assert!(blocks("README.md", "yaml").len() >= 2);
    for entry in fs::read_dir("conf").unwrap() {
        let path = entry.unwrap().path();
        check(&path.display().to_string(), &path, dir.path());
    }
}

/// How each shell block is run. A block that is not here fails the test.
#[test]
fn every_shell_line_is_known_and_runs() {
    let make = fs::read_to_string("Makefile").unwrap();
    for (page, body) in
        pages().iter().flat_map(|page| blocks(page, "sh").into_iter().map(move |(_, body)| (page, body)))
    {
        for line in body.lines() {
            match line {
                // What these targets run is run by tests of their own: the demo below, and this very suite.
                "make run" => assert!(make.contains("run: deps-build\n\tcargo run -- demo"), "{make}"),
                "make test" => assert!(make.contains("test: deps\n\tscripts/test\n"), "{make}"),
                "make compare" => {
                    let out = Command::new("python3").args(["benches/compare/run", "--help"]).output().unwrap();
                    assert!(make.contains("\tbenches/compare/run") && out.status.success(), "{out:?}");
                }
                "cargo test --example custom_filter" => assert!(Path::new("examples/custom_filter.rs").is_file()),
                // `docs.rs` runs these with the file that stands above them, and without one.
                "tollgate -t" | "tollgate" | "BACKEND_URL=http://localhost:3000 tollgate" => {}
                line if line.starts_with("curl -i ") && line.ends_with(" http://localhost:8080/hello") => {}
                // Ten minutes a target are not for a test: that there are seeds and a target for each name is.
                "fuzz/run" => {
                    let (run, manifest) = (read("fuzz/run"), read("fuzz/Cargo.toml"));
                    assert!(Command::new("python3").arg("fuzz/seeds.py").status().unwrap().success());
                    let names = run.lines().find_map(|line| line.split_once("targets=(head ")).unwrap().1;
                    for name in names.trim_end_matches(')').split(' ').chain(["head"]) {
                        assert!(Path::new(&format!("fuzz/fuzz_targets/{name}.rs")).is_file(), "{name}");
                        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
                        assert!(fs::read_dir(format!("fuzz/corpus/{name}")).unwrap().count() > 2, "{name}");
                    }
                }
                "tollgate cache purge --help" => {
                    let out = Command::new(BINARY).args(["cache", "purge", "--help"]).output().unwrap();
                    assert!(out.status.success() && out.stdout.windows(5).any(|text| text == b"--tag"), "{out:?}");
                }
                "tollgate --help" => assert!(Command::new(BINARY).arg("--help").output().unwrap().status.success()),
                other => panic!("nothing runs this line of {page}: {other}"),
            }
        }
    }
    // Installing needs root and systemd; `tests/systemd.rs` installs into a folder.
    let found = blocks("systemd/README.md", "sh");
    let lines: Vec<&str> = found.iter().flat_map(|(_, body)| body.lines()).collect();
    assert_eq!(lines, ["make install", "systemctl daemon-reload", "systemctl enable --now tollgate"]);
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shell(line: &str) -> String {
    let out = Command::new("bash").args(["-c", line]).output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn the_demos_five_lines_do_what_they_say() {
    let mut demo =
        Running(Command::new(BINARY).arg("demo").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
    while !shell("curl -s http://127.0.0.1:9090/health/live").contains("ok") {
        let ended = demo.0.try_wait().unwrap();
        let mut why = String::new();
        if ended.is_some() {
            demo.0.stderr.take().unwrap().read_to_string(&mut why).unwrap();
        }
        assert!(ended.is_none() && Instant::now() < deadline, "the demo does not start (ports 8080-8083, 9090): {why}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut banner = vec![0; 4096];
    let read = demo.0.stderr.as_mut().unwrap().read(&mut banner).unwrap();
    let banner = String::from_utf8_lossy(&banner[..read]).into_owned();
    let lines: Vec<&str> =
        banner.lines().map(str::trim).filter(|line| line.starts_with("curl") || line.starts_with("for")).collect();
    assert_eq!(lines.len(), 5, "{banner}");
    let (one, two) = (shell(lines[0]), shell(lines[0]));
    assert!(
        one.contains("200 OK") && two.contains("200 OK") && one.split('{').nth(1) != two.split('{').nth(1),
        "{one}{two}"
    );
    assert!(shell(lines[1]).contains("401 Unauthorized"));
    assert!(shell(lines[2]).contains("\"backend\":\"slow\""));
    let statuses = shell(lines[3]);
    assert!(statuses.matches("200").count() >= 20 && statuses.contains("429"), "{statuses}");
    assert!(shell(lines[4]).contains("status=\"429\""));
    // And the failing backend: the service goes on with the other.
    shell("curl -s -X POST http://127.0.0.1:8080/users/fail");
    while !shell("curl -s http://127.0.0.1:9090/gateway/stats").contains("\"healthy\":false") {
        assert!(Instant::now() < deadline, "the failing backend is not noticed");
        std::thread::sleep(Duration::from_millis(50));
    }
    for _ in 0..4 {
        assert!(shell("curl -si http://127.0.0.1:8080/users").contains("200 OK"));
    }
}

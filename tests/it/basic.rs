//! Names and passwords (`basic`).

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    config_errors::check,
    doors::write_private,
    harness::{Gateway, Origin, binary, eventually},
};

/// Of "myPassword", as `htpasswd -nbB -C 5` has made it (Apache's documentation).
const BCRYPT: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";

pub(crate) fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

fn argon2id(password: &str) -> String {
    use argon2::PasswordHasher as _;
    let params = argon2::Params::new(64, 1, 1, None).unwrap();
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    argon2.hash_password(password.as_bytes()).unwrap().to_string()
}

/// Alice ("wonder:land", gold, an editor) and Bob ("myPassword").
pub(crate) fn users() -> String {
    format!(
        "users: [ {{ name: alice, password_hash: '{}', roles: [editor], scopes: [read], tier: gold }}, {{ name: bob, password_hash: '{BCRYPT}' }} ]",
        argon2id("wonder:land")
    )
}

fn gateway(origin: &Origin, routes: &str) -> Gateway {
    let routes = routes.replace("USERS", &users());
    Gateway::start(&format!("services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n{routes}", origin.url()))
}

#[test]
fn a_name_with_its_password_opens_and_the_password_stays_here() {
    let origin = Origin::start("o");
    let gw = gateway(
        &origin,
        r"
  - { match: { path: /in }, service: main, filters: [ basic: { USERS } ] }
  - { match: { path: /forward }, service: main, filters: [ basic: { USERS, forward: true, realm: the vault, identity_header: X-Name } ] }
  - { match: { path: /editors }, service: main, filters: [ basic: { USERS }, acl: { allow: { roles: editor, tiers: gold, scopes: read, by: basic } } ] }
",
    );
    let challenge = gw.get("/in").expect(401).problem();
    assert_eq!(challenge.get("www-authenticate"), "Basic realm=\"/in\", charset=\"UTF-8\"");
    gw.get("/forward").expect(401).has("www-authenticate", "Basic realm=\"the vault\", charset=\"UTF-8\"");
    for (name, password) in [("alice", "wonder:land"), ("bob", "myPassword")] {
        // Twice, so that the second is judged by what is remembered.
        for _ in 0..2 {
            let request = gw.get("/in").header("Authorization", &basic(name, password));
            request.header("X-Auth-Subject", "spoofed").header("X_Auth_Subject", "spoofed").expect(200);
            let seen = origin.last();
            assert!(!seen.headers.contains_key("authorization") && !seen.headers.contains_key("x_auth_subject"));
            assert_eq!(seen.headers.get_all("x-auth-subject").iter().collect::<Vec<_>>(), [name]);
        }
    }
    let alice = basic("alice", "wonder:land");
    gw.get("/forward").header("Authorization", &alice).expect(200);
    assert_eq!(
        (&origin.last().headers["authorization"], &origin.last().headers["x-name"]),
        (&alice.parse().unwrap(), &"alice".parse().unwrap())
    );
    gw.get("/editors").header("Authorization", &alice).expect(200);
    gw.get("/editors").header("Authorization", &basic("bob", "myPassword")).expect(403).problem();
    let log = gw.log(9);
    assert!(log.iter().any(|line| line["status"] == 200 && line["identity"] == "alice"));
    assert!(!gw.read("stdout").contains("wonder") && !gw.read("stdout").contains(&alice[6..]));
}

#[test]
fn what_is_not_one_name_with_its_password_is_refused() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "  - { match: { path: /* }, service: main, filters: [ basic: { USERS } ] }\n");
    let of = |text: &str| format!("Basic {}", STANDARD.encode(text));
    for (reason, values) in [
        (
            "password_wrong",
            vec![
                of("alice:wonder"),
                of("bob:wonder:land"),
                of("eve:wonder:land"),
                of("alice:"),
                of(":"),
                of("Alice:wonder:land"),
            ],
        ),
        ("password_wrong", vec![of(&format!("bob:{}", "x".repeat(73)))]),
        (
            "password_malformed",
            vec![of("alice"), of("alice:wonder:land\n"), of("al\0ice:a"), of(&format!("a:{}", "x".repeat(1100)))],
        ),
        (
            "password_malformed",
            vec![
                "Basic".into(),
                "Basic ".into(),
                "Basic !".into(),
                "Basic YTpi=".into(),
                "Basic YTpi, Basic YTpi".into(),
            ],
        ),
        ("credentials_missing", vec!["Bearer YTpi".into(), "Basically YTpi".into()]),
    ] {
        for value in values {
            let answer = gw.get("/").header("Authorization", &value).expect(401).problem();
            assert_eq!(answer.get("www-authenticate"), "Basic realm=\"/*\", charset=\"UTF-8\"", "{value}");
            assert_eq!(gw.line_of(&answer.body)["reason"], reason, "{value}");
        }
    }
    let alice = basic("alice", "wonder:land");
    gw.get("/").header("Authorization", &alice).header("Authorization", &alice).expect(401);
    let raw = gw.raw(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic \xff\xfe\r\nConnection: close\r\n\r\n");
    assert!(raw.starts_with("HTTP/1.1 401 "), "{raw}");
    assert!(origin.seen().is_empty());
}

#[test]
fn a_file_of_users_is_read_again_when_it_changes() {
    let origin = Origin::start("o");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("htpasswd");
    let write = |text: &str| write_private(&file, text.as_bytes());
    write(&format!("# our users\n\nbob:{BCRYPT}\r\n"));
    let gw = gateway(
        &origin,
        &format!(
            "  - {{ match: {{ path: /* }}, service: main, filters: [ basic: {{ users_file: {} }} ] }}\n",
            file.display()
        ),
    );
    let status = |name: &str, password: &str| gw.get("/").header("Authorization", &basic(name, password)).send().status;
    assert_eq!((status("bob", "myPassword"), status("carol", "c")), (200, 401));
    // What is remembered of the old ones, right and wrong, is forgotten.
    write(&format!("carol:{}\n", argon2id("c")));
    eventually("the file is read again", || status("carol", "c") == 200);
    assert_eq!(status("bob", "myPassword"), 401);
    write("carol:plain\n");
    eventually("it is said", || gw.errors().contains("line 1: it is neither argon2id"));
    assert_eq!(status("carol", "c"), 200, "the users that are known stay");
    assert!(!gw.errors().contains("plain"));
}

#[test]
fn guessing_costs_a_known_client_nothing_and_is_bounded() {
    let origin = Origin::start("o");
    let hash = bcrypt::hash("right", 10).unwrap();
    let gw = gateway(
        &origin,
        &format!(
            "  - {{ match: {{ path: /* }}, service: main, filters: [ basic: {{ users: [ {{ name: a, password_hash: '{hash}' }} ] }} ] }}\n"
        ),
    );
    let right = basic("a", "right");
    gw.get("/").header("Authorization", &right).expect(200);
    let waiting = 32 * (std::thread::available_parallelism().unwrap().get() / 2).max(1);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let guesses: Vec<_> = (0..waiting * 2 + 20)
            .map(|n| {
                let request = gw.get("/").header("Authorization", &basic("a", &format!("wrong{n}")));
                scope.spawn(move || request.send())
            })
            .collect();
        // Meanwhile whoever has been known waits for none of them.
        let begun = Instant::now();
        gw.get("/").header("Authorization", &right).expect(200);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        guesses.into_iter().map(|guess| guess.join().unwrap()).collect()
    });
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert!(answers.iter().all(|answer| matches!(answer.status, 401 | 503)));
    assert!(!refused.is_empty(), "all were checked");
    assert_eq!(refused[0].get("retry-after"), "2");
    assert!(gw.log(answers.len() + 2).iter().any(|line| line["reason"] == "password_checks_busy"));
}

#[test]
fn an_unknown_name_takes_as_long_as_a_known_one() {
    let origin = Origin::start("o");
    let hash = bcrypt::hash("right", 11).unwrap();
    let gw = gateway(
        &origin,
        &format!(
            "  - {{ match: {{ path: /* }}, service: main, filters: [ basic: {{ cache: 0, users: [ {{ name: a, password_hash: '{hash}' }} ] }} ] }}\n"
        ),
    );
    let fastest = |name: &str| {
        let once = |n: usize| {
            let begun = Instant::now();
            gw.get("/").header("Authorization", &basic(name, &format!("wrong{n}"))).expect(401);
            begun.elapsed()
        };
        (0..4).map(once).min().unwrap()
    };
    let (known, unknown) = (fastest("a"), fastest("nobody"));
    // Without the hash it would be a hundredth.
    assert!(unknown > known / 4 && known > unknown / 4, "{known:?} {unknown:?}");
}

#[test]
fn mistakes_in_users_are_told_and_no_hash_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("htpasswd");
    let say = |settings: &str| {
        let yaml = format!(
            "listeners: \"127.0.0.1:1\"\nroutes:\n  - {{ match: {{ path: /* }}, respond: {{ body: a }}, filters: [ basic: {{ {settings} }} ] }}\n"
        );
        let (code, text) = check(&yaml);
        assert_eq!(code, 78, "{settings}: {text}");
        assert!(!text.contains("hunter2") && !text.contains("c4WoMPo3SXsafkva"), "{text}");
        text
    };
    for (settings, message) in [
        (String::new(), "basic: there are no users, so nobody can pass"),
        ("users: [ { name: a, password_hash: hunter2 } ]".to_owned(), "users[0].password_hash: it is neither argon2id"),
        (
            format!("users: [ {{ name: 'a:b', password_hash: '{BCRYPT}' }} ]"),
            "users[0].name: a name must not be empty, nor have a colon",
        ),
        (
            format!("users: [ {{ name: a, password_hash: '{BCRYPT}' }}, {{ name: a, password_hash: '{BCRYPT}' }} ]"),
            "two users of the name 'a'",
        ),
        (
            format!("users: [ {{ name: a, password_hash: '{BCRYPT}' }} ], realm: 'a\"b'"),
            "basic.realm: has a quotation mark",
        ),
        (
            format!("users: [ {{ name: a, password_hash: '{BCRYPT}' }} ], identity_header: Authorization"),
            "identity_header",
        ),
        ("users_file: /nowhere/htpasswd".to_owned(), "basic.users_file: cannot read '/nowhere/htpasswd'"),
    ] {
        let text = say(&settings);
        assert!(text.contains(message), "{settings}: {text}");
    }
    for (content, message) in [
        ("hunter2\n", "line 1: it has no ':'"),
        ("a:$apr1$hunter2\n", "line 1: it is neither"),
        ("", "there are no users"),
    ] {
        write_private(&file, content.as_bytes());
        let text = say(&format!("users_file: {}", file.display()));
        assert!(text.contains(message), "{content}: {text}");
    }
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert!(say(&format!("users_file: {}", file.display())).contains("can be read by others"));
}

#[test]
fn the_command_makes_a_hash_of_what_it_reads() {
    let run = |args: &[&str], input: &str| {
        let mut child = Command::new(binary());
        child.arg("hash-password").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        // One that refuses its arguments may have ended before it reads.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let out = child.wait_with_output().unwrap();
        (out.status.success(), String::from_utf8(out.stdout).unwrap())
    };
    let (good, line) = run(&["--user", "dora"], "explore\n");
    assert!(
        good && line.starts_with("dora:$argon2id$v=19$") && line.ends_with('\n') && line.lines().count() == 1,
        "{line}"
    );
    let (good, hash) = run(&[], "explore");
    assert!(good && hash.starts_with("$argon2id$"), "{hash}");
    for (args, input) in [
        (vec![], ""),
        (vec![], "\n"),
        (vec![], "a\tb\n"),
        (vec![], "a\nb\n"),
        (vec![], "a\n\n"),
        (vec!["--user", "a:b"], "a"),
        (vec!["--user", ""], "a"),
        (vec!["--user", "#dora"], "a"),
        (vec!["--user", "dora"], &"a".repeat(764)),
        (vec![], &"a".repeat(767)),
        (vec!["password"], ""),
    ] {
        let (good, out) = run(&args, input);
        assert!(!good && out.is_empty(), "{args:?} {input:?} {out}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file: &Path = &dir.path().join("htpasswd");
    write_private(file, line.as_bytes());
    let origin = Origin::start("o");
    let gw = gateway(
        &origin,
        &format!(
            "  - {{ match: {{ path: /* }}, service: main, filters: [ basic: {{ users_file: {} }} ] }}\n",
            file.display()
        ),
    );
    gw.get("/").header("Authorization", &basic("dora", "explore")).expect(200);
    // The longest that the command takes is the longest that opens.
    let longest = "a".repeat(763);
    let (good, line) = run(&["--user", "dora"], &longest);
    assert!(good, "{line}");
    write_private(file, line.as_bytes());
    eventually("the file is read again", || {
        gw.get("/").header("Authorization", &basic("dora", &longest)).send().status == 200
    });
}

#[test]
fn a_name_that_somebody_has_elsewhere_uses_up_nobodys_limit() {
    let origin = Origin::start("o");
    let routes = "
  - { match: { path: /* }, service: main, filters: [ any_of: [ api_key, basic: { USERS } ], rate_limit: { rate: 2/h, burst: 2, by: api_key } ] }
";
    let keys = format!("api_keys: [ {{ id: k1, sha256: {}, owner: bob }} ]\n", crate::auth::sha256("key-1"));
    let routes = routes.replace("USERS", &users());
    let gw = Gateway::start(&format!("{keys}services:\n  main: {{ urls: [\"{}\"] }}\nroutes:{routes}", origin.url()));
    let bob = || gw.get("/").header("Authorization", &basic("bob", "myPassword"));
    bob().expect(200);
    bob().expect(200);
    bob().expect(429);
    gw.get("/").key("key-1").expect(200);
}

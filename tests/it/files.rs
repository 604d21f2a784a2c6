//! Files that the configuration names: what cannot be used is said by `-t`, and not by the process that has started.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use nix::{sys::stat::Mode, unistd::User};

use crate::harness::{Certs, binary, free_port};

/// The exit code of `-t`, and what it says. One that waits for ever is ended.
fn check(dir: &Path, yaml: &str) -> (Option<i32>, String) {
    let route = "routes: [ { match: { path: /* }, respond: { body: served } } ]\n";
    let route = if yaml.contains("routes:") { "" } else { route };
    let text = format!("{}admin: {{ enabled: false }}\n{route}", yaml.replace('@', &dir.display().to_string()));
    fs::write(dir.join("t.yaml"), text).unwrap();
    let mut command = Command::new("timeout");
    let command = command.arg("10").arg(binary()).args(["-t", "-c", "t.yaml"]).current_dir(dir).stdin(Stdio::null());
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn refused(dir: &Path, yaml: &str, said: &str) -> String {
    let (code, errors) = check(dir, yaml);
    assert_eq!(code, Some(78), "{yaml}: {errors}");
    assert!(errors.contains(said), "{yaml}: {errors}");
    assert!(errors.len() < 2000, "{yaml}: {} bytes", errors.len());
    errors
}

fn accepted(dir: &Path, yaml: &str) {
    let (code, errors) = check(dir, yaml);
    assert_eq!(code, Some(0), "{yaml}: {errors}");
}

fn listeners() -> String {
    format!("listeners: [ {{ address: \"127.0.0.1:{}\" }} ]\n", free_port())
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn the_authorities_for_backends_are_read_before_the_start() {
    let certs = Certs::new();
    certs.issue("own", "own", &["own.example"]);
    let dir = certs.dir();
    fs::write(dir.join("none.pem"), "no certificate\n").unwrap();
    fs::write(dir.join("wrong.pem"), "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n").unwrap();
    let both = |other: &str| {
        let [first, second] = ["ca.pem", other].map(|name| fs::read_to_string(dir.join(name)).unwrap());
        format!("{first}{second}")
    };
    fs::write(dir.join("second.pem"), both("wrong.pem")).unwrap();
    fs::write(dir.join("key.pem"), both("own.key")).unwrap();
    for (file, said) in [
        ("none.pem", "none.pem' holds no certificate"),
        ("wrong.pem", "wrong.pem' holds what is no certificate"),
        ("second.pem", "second.pem' holds what is no certificate"),
        ("key.pem", "key.pem' holds what is no certificate"),
        ("nowhere.pem", "pingora.ca_file: cannot read '"),
    ] {
        refused(dir, &format!("pingora: {{ ca_file: @/{file} }}\n{}", listeners()), said);
    }
    accepted(dir, &format!("pingora: {{ ca_file: @/ca.pem }}\n{}", listeners()));
}

#[test]
fn a_key_of_roots_may_be_read_by_a_group_of_the_process_and_by_no_other() {
    // Only root becomes somebody else.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let certs = Certs::new();
    certs.issue("own", "own", &["own.example"]);
    let dir = certs.dir();
    mode(dir, 0o755);
    nix::unistd::chown(&dir.join("own.key"), None, Some(4712.into())).unwrap();
    let yaml = format!(
        "pingora: {{ pid_file: '{0}/pid', upgrade_sock: '{0}/sock' }}\nadmin: {{ enabled: false }}\naccess_log: {{ enabled: false }}\nlisteners: [ {{ address: '127.0.0.1:1', tls: {{ certificates: [ {{ {1} }} ] }} }} ]\nroutes: [ {{ match: {{ path: / }}, respond: {{}} }} ]\n",
        dir.display(),
        certs.yaml("own"),
    );
    fs::write(dir.join("t.yaml"), yaml).unwrap();
    mode(&dir.join("t.yaml"), 0o644);
    // A copy that everybody can run.
    let program = dir.join("tollgate");
    fs::copy(binary(), &program).unwrap();
    let check = |key: u32, group: u32| {
        mode(&dir.join("own.key"), key);
        let mut command = Command::new("setpriv");
        command.args(["--reuid=4711", "--regid=4711", &format!("--groups={group}")]);
        let output = command.arg(&program).args(["-t", "-c"]).arg(dir.join("t.yaml")).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = check(0o640, 4712);
    assert!(!said.contains("own.key"), "{said}");
    assert!(check(0o660, 4712).contains("own.key' can be read by others (mode 0660)"));
    assert!(check(0o644, 4712).contains("own.key' can be read by others (mode 0644)"));
    assert!(check(0o640, 4713).contains("own.key' can be read by others (mode 0640)"));
}

#[test]
fn files_that_are_read_again_must_be_readable_for_the_later_user() {
    // Only root becomes somebody else.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let certs = Certs::new();
    certs.issue("own", "own", &["own.example"]);
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let (dir, own) = (certs.dir(), tempfile::tempdir().unwrap());
    mode(dir, 0o755);
    nix::unistd::chown(own.path(), Some(nobody.uid), None).unwrap();
    fs::write(dir.join("backends"), "http://127.0.0.1:1\n").unwrap();
    let yaml = format!(
        "pingora: {{ user: nobody, upgrade_sock: {}/sock, ca_file: @/ca.pem }}\nlisteners: [ {{ address: \"127.0.0.1:{}\", tls: {{ certificates: [ {{ cert: @/own.pem, key: @/own.key }} ], mtls: {{ ca: @/clients.pem }} }} }} ]\nservices: {{ s: {{ discovery: {{ file: @/backends }} }} }}\n",
        own.path().display(),
        free_port()
    );
    fs::copy(dir.join("ca.pem"), dir.join("clients.pem")).unwrap();
    let key = dir.join("own.key");
    refused(dir, &yaml, "tls.certificates[0].key: the user 'nobody' cannot read '");
    mode(&key, 0o640);
    refused(dir, &yaml, "can be read by others (mode 0640)");
    // The way out that is said.
    nix::unistd::chown(&key, None, Some(nobody.gid)).unwrap();
    accepted(dir, &yaml);
    mode(&key, 0o644);
    refused(dir, &yaml, "can be read by others (mode 0644): chmod 640 it");
    mode(&key, 0o640);
    for (file, place) in [
        ("ca.pem", "pingora.ca_file"),
        ("own.pem", "tls.certificates[0].cert"),
        ("clients.pem", "tls.mtls.ca"),
        ("backends", "services.s.discovery.file"),
    ] {
        mode(&dir.join(file), 0o600);
        refused(dir, &yaml, &format!("{place}: the user 'nobody' cannot read '"));
        refused(dir, &yaml, "chmod 640");
        mode(&dir.join(file), 0o644);
    }
    accepted(dir, &yaml);
}

#[test]
fn what_is_no_regular_file_is_refused_and_not_waited_for() {
    let certs = Certs::new();
    certs.issue("own", "own", &["own.example"]);
    let dir = certs.dir();
    nix::unistd::mkfifo(&dir.join("pipe"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    std::os::unix::fs::symlink(dir.join("pipe"), dir.join("link")).unwrap();
    let tls = |keys: &str| format!("listeners: [ {{ address: \"127.0.0.1:1\", tls: {{ {keys} }} }} ]\n");
    let other = |yaml: &str| format!("{}{yaml}\n", listeners());
    let jwt = |algorithm: &str, key: &str| {
        let filter = format!("jwt: {{ algorithms: [ {algorithm} ], keys: [ {{ {key} }} ] }}");
        other(&format!("routes: [ {{ match: {{ path: /* }}, filters: [ {filter} ], respond: {{ body: a }} }} ]"))
    };
    for yaml in [
        other("services: { s: { discovery: { file: @/pipe } } }"),
        other("services: { s: { discovery: { file: @/link } } }"),
        other("services: { s: { urls: [ 'https://127.0.0.1:1' ], tls: { ca: @/pipe } } }"),
        other("services: { s: { urls: [ 'https://127.0.0.1:1' ], tls: { cert: @/own.pem, key: @/pipe } } }"),
        other("pingora: { ca_file: @/pipe }"),
        jwt("RS256", "pem: @/pipe"),
        jwt("RS256", "jwks: @/pipe"),
        jwt("HS256", "secret: { file: @/pipe }"),
        tls("certificates: [ { cert: @/pipe, key: @/own.key } ]"),
        tls("certificates: [ { cert: @/own.pem, key: @/pipe } ]"),
        tls("certificates: [ { cert: @/own.pem, key: @/own.key } ], mtls: { ca: @/pipe }"),
    ] {
        refused(dir, &yaml, "is not a regular file");
    }
}

#[test]
fn of_a_file_that_is_too_large_little_is_said_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = format!("{}services: {{ s: {{ discovery: {{ file: @/backends }} }} }}\n", listeners());
    fs::write(dir.path().join("backends"), "x".repeat(3 << 20) + "\n").unwrap();
    refused(dir.path(), &yaml, "backends:1: expected a URL");
    fs::write(dir.path().join("backends"), "wrong\n".repeat(1000)).unwrap();
    refused(dir.path(), &yaml, "and 990 lines more are wrong");
    fs::File::create(dir.path().join("backends")).unwrap().set_len(1 << 34).unwrap();
    refused(dir.path(), &yaml, "is larger than 16 MiB");
}

#[test]
fn nothing_of_a_file_that_lists_no_backends_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let yaml = format!("{}services: {{ s: {{ discovery: {{ file: @/backends }} }} }}\n", listeners());
    for line in [
        "MIIEvgsecretBADANBgkqhkiG9w0BAQEFAASC",
        "-----BEGIN secret KEY-----",
        "HOOK=https://hooks.test/secret",
        "https://hooks.test/secret",
        "https://hooks.test?secret",
        "postgres://user:secret@db.test/orders",
        "http://user:a/secret@db.test",
        "http://user:secret@",
    ] {
        fs::write(dir.join("backends"), format!("http://127.0.0.1:1\n{line}\n")).unwrap();
        let said = refused(dir, &yaml, "backends:2: ");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[test]
fn a_place_with_two_weights_is_a_mistake_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = format!("{}services: {{ s: {{ discovery: {{ file: @/backends }} }} }}\n", listeners());
    fs::write(dir.path().join("backends"), "http://a.test\n\nhttp://b.test 2\nhttp://b.test:80 3\n").unwrap();
    refused(dir.path(), &yaml, "backends:4: 'b.test:80' is listed twice, and otherwise (first in line 3)");
    let beside =
        yaml.replace("{ discovery:", "{ urls: [\"http://a.test\", { url: \"http://b.test\", weight: 9 }], discovery:");
    refused(dir.path(), &beside, "backends:3: 'b.test:80' is listed twice, and otherwise (first in 'urls')");
}

#[test]
fn paths_that_could_not_be_used_are_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    mode(dir, 0o700);
    fs::create_dir(dir.join("sub")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("bound")).unwrap();
    for (yaml, said) in [
        ("pingora: { upgrade_sock: @/sock, pid_file: @/sock }", "pid_file: this is the upgrade socket's path"),
        ("pingora: { pid_file: @/sub }", "sub' is there, and is not a file"),
        ("access_log: { output: { file: @/bound } }", "bound' is a socket"),
        ("pingora: { upstream_keepalive_pool_size: 4294967296 }", "not a number of connections from 1 to"),
    ] {
        refused(dir, &format!("{yaml}\n{}", listeners()), said);
    }
}

#[test]
fn an_encrypted_key_is_called_that() {
    let certs = Certs::new();
    certs.issue("own", "own", &["own.example"]);
    let dir = certs.dir();
    for (name, text) in [
        ("new", "-----BEGIN ENCRYPTED PRIVATE KEY-----\naGVsbG8=\n-----END ENCRYPTED PRIVATE KEY-----\n"),
        ("old", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\naGVsbG8=\n-----END RSA PRIVATE KEY-----\n"),
    ] {
        fs::write(dir.join(name), text).unwrap();
        mode(&dir.join(name), 0o600);
        let tls = format!("tls: {{ certificates: [ {{ cert: @/own.pem, key: @/{name} }} ] }}");
        let yaml = format!("listeners: [ {{ address: \"127.0.0.1:{}\", {tls} }} ]\n", free_port());
        refused(dir, &yaml, "is encrypted, and nobody could type its password");
    }
}

#[test]
fn a_check_says_what_a_start_would_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = format!("{}admin: {{ enabled: false }}\nroutes: []\n", listeners());
    fs::write(dir.path().join("t.yaml"), yaml).unwrap();
    let places = tempfile::tempdir().unwrap();
    let check = Command::new(binary())
        .args(["-t", "-c", "t.yaml"])
        .current_dir(dir.path())
        .env("TMPDIR", places.path())
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("RUNTIME_DIRECTORY")
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    assert_eq!(fs::read_dir(places.path()).unwrap().count(), 0);
}

#[test]
fn paths_are_relative_to_the_file_wherever_the_process_was_started() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("backends"), "http://127.0.0.1:1\n").unwrap();
    let text = format!(
        "{}admin: {{ enabled: false }}\naccess_log: {{ output: {{ file: access.log }} }}\nservices: {{ main: {{ discovery: {{ file: backends }} }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main }} ]\n",
        listeners()
    );
    fs::write(dir.path().join("t.yaml"), text).unwrap();
    let file = dir.path().join("t.yaml");
    let output = Command::new(binary()).arg("-t").arg("-c").arg(&file).current_dir(&elsewhere).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    fs::write(elsewhere.path().join("backends"), "http://127.0.0.1:1\n").unwrap();
    fs::remove_file(dir.path().join("backends")).unwrap();
    let output = Command::new(binary()).arg("-t").arg("-c").arg(&file).current_dir(&elsewhere).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("{}:", file.display())), "{output:?}");
}

#[test]
fn keys_for_backends_and_secrets_have_the_same_readers_as_keys_of_listeners() {
    // Only root becomes somebody else.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let certs = Certs::new();
    certs.issue("own", "own", &["own.example"]);
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let (dir, own) = (certs.dir(), tempfile::tempdir().unwrap());
    mode(dir, 0o755);
    nix::unistd::chown(own.path(), Some(nobody.uid), None).unwrap();
    let secrets = [dir.join("own.key"), dir.join("secret")];
    fs::write(&secrets[1], "0123456789abcdef0123456789abcdef").unwrap();
    let yaml = |user: &str| {
        format!(
            "pingora: {{ {user}upgrade_sock: {}/sock }}\nlisteners: [ {{ address: \"127.0.0.1:{}\", tls: {{ certificates: [ {{ cert: @/own.pem, key: @/own.key }} ] }} }} ]\nservices: {{ s: {{ urls: \"https://127.0.0.1:1\", tls: {{ cert: @/own.pem, key: @/own.key }}, sticky: {{ cookie: c, secret: {{ file: @/secret }} }} }} }}\nroutes: [ {{ match: {{ path: /* }}, service: s, filters: [ {{ jwt: {{ algorithms: [HS256], keys: [ {{ secret: {{ file: @/secret }} }} ] }} }} ] }} ]\n",
            own.path().display(),
            free_port()
        )
    };
    for file in &secrets {
        mode(file, 0o640);
        nix::unistd::chown(file, Some(0.into()), Some(nobody.gid)).unwrap();
    }
    accepted(dir, &yaml("user: nobody, "));
    let said = refused(dir, &yaml(""), "services.s.tls.key: '");
    for place in ["services.s.sticky.secret: ", "keys[0]: ", "tls.certificates[0].key: "] {
        assert!(said.contains(place), "{place}: {said}");
    }
    assert_eq!(said.matches("can be read by others (mode 0640): chmod 600 it").count(), 4, "{said}");
}

#[test]
fn what_is_wrong_with_a_key_is_placed_there_and_names_its_file() {
    let certs = Certs::new();
    for name in ["own", "other"] {
        certs.issue(name, name, &["own.example"]);
    }
    let dir = certs.dir();
    fs::write(dir.join("empty.key"), "").unwrap();
    fs::copy(dir.join("own.key"), dir.join("open.key")).unwrap();
    for name in ["own", "other", "empty"] {
        mode(&dir.join(format!("{name}.key")), 0o600);
    }
    mode(&dir.join("open.key"), 0o644);
    for (key, why) in [
        ("open.key", "'open.key' can be read by others"),
        ("none.key", "cannot read 'none.key'"),
        ("empty.key", "'empty.key'"),
        ("other.key", "'own.pem' and 'other.key' do not belong together"),
    ] {
        let pair = format!("cert: own.pem, key: {key}");
        let yaml = format!(
            "listeners: [ {{ address: \"127.0.0.1:1\", tls: {{ certificates: [ {{ {pair} }} ] }} }} ]\nservices: {{ s: {{ urls: \"https://127.0.0.1:1\", tls: {{ {pair} }} }} }}\nroutes: [ {{ match: {{ path: /* }}, service: s }} ]\n"
        );
        let said = refused(dir, &yaml, why);
        for place in ["listeners[0].tls.certificates[0].key: ", "services.s.tls.key: "] {
            assert!(said.lines().any(|line| line.contains(place) && line.contains(why)), "{place} {why}: {said}");
        }
    }
}

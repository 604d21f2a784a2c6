//! Mistakes at a terminal: the line of the file with a mark below the place. Scripts get the lines that they can read.

use std::{fs, process::Command};

use crate::harness::binary;

/// Runs `-t` on `yaml` in a terminal of its own, with `variables` set.
fn at_a_terminal(yaml: &str, more: &[&str], variables: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.yaml"), yaml).unwrap();
    let spawn = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    let out = Command::new("python3")
        .args(["-c", spawn, &binary(), "-t", "-c", "t.yaml"])
        .args(more)
        .current_dir(&dir)
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .envs(variables.iter().copied())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(78), "{out:?}");
    String::from_utf8(out.stdout).unwrap().replace("\r\n", "\n")
}

/// The same without a terminal.
fn piped(yaml: &str, more: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.yaml"), yaml).unwrap();
    let mut command = Command::new(binary());
    let out = command.args(["-t", "-c", "t.yaml"]).args(more).current_dir(&dir).output().unwrap();
    String::from_utf8(out.stderr).unwrap()
}

const WRONG: &str = "listeners:
  - \"127.0.0.1:1\"
admin: { enabled: false }
services: { s: { urls: \"http://h\" } }
routes:
  - { id: 名, match: { path: /b }, service: s }
  - { match: { path: /a }, service: t }
";

#[test]
fn a_terminal_shows_the_line_with_a_mark() {
    let text = at_a_terminal(&WRONG.replace("名", "b"), &[], &[("NO_COLOR", "1")]);
    let expected = "t.yaml:7:37: routes[1].service: there is no service 't'
  7 |   - { match: { path: /a }, service: t }
    |                                     ^
t.yaml: 1 problem
";
    assert_eq!(text, expected);
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let yaml = WRONG.replace("名", "b");
    let caret = "\u{1b}[1;31m^\u{1b}[0m";
    assert!(at_a_terminal(&yaml, &[], &[]).contains(caret));
    assert!(at_a_terminal(&yaml, &["--color", "always"], &[("NO_COLOR", "1")]).contains(caret));
    for text in [
        at_a_terminal(&yaml, &[], &[("NO_COLOR", "1")]),
        at_a_terminal(&yaml, &[], &[("TERM", "dumb")]),
        at_a_terminal(&yaml, &["--color", "never"], &[]),
    ] {
        assert!(text.contains("    |                                     ^\n") && !text.contains('\u{1b}'), "{text}");
    }
    let plain = "t.yaml:7:37: routes[1].service: there is no service 't'\nt.yaml: 1 problem\n";
    assert_eq!(piped(&yaml, &[]), plain, "scripts read the lines");
    assert_eq!(piped(&yaml, &["--color", "never"]), plain);
    assert!(piped(&yaml, &["--color", "always"]).contains(caret));
}

#[test]
fn a_mark_stands_right_behind_wide_characters() {
    let text = at_a_terminal(&WRONG.replace("service: s }\n", "service: u }\n"), &["--color", "never"], &[]);
    let lines: Vec<&str> = text.lines().collect();
    let (line, mark) = (lines[1], lines[2]);
    assert!(line.contains('名'), "{text}");
    // The name takes two columns, and is one character.
    let before = line.split("u }").next().unwrap().chars().count();
    assert_eq!(mark.find('^').unwrap(), before + 1, "{text}");
}

#[test]
fn no_secret_is_shown() {
    let yaml = "listeners: [\"${BAD_ADDRESS}\"]
admin: { enabled: false }
services: { s: { urls: [\"http://user:hunter2@h\"], sticky: { cookie: c, secret: hunter2 } } }
routes:
  - match: { path: /* }
    service: s
    filters:
      - jwt: { algorithms: [HS256], keys: [hunter2] }
      - jwt: { algorithms: [HS256], keys: [{ secret: hunter2 }, { secrt: hunter2 }] }
      - headers: { request: { set: { Authorization: \"Bearer hunter2\" } }, respnse: 1 }
";
    let text = at_a_terminal(yaml, &["--color", "never"], &[("BAD_ADDRESS", "sesame:hunter2")]);
    assert!(text.contains("  1 | listeners: [\"${BAD_ADDRESS}\"]\n    |             ^\n"), "{text}");
    assert!(text.contains("respnse"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains("sesame"), "{text}");
}

#[test]
fn no_secret_is_shown_in_whatever_form_it_is_written() {
    let set = |fields: &str| {
        format!(
            "listeners: \"127.0.0.1:1\"\nadmin: {{ enabled: false }}\nservices: {{ s: {{ urls: \"http://h\" }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: s\n    filters:\n      - headers:\n          request:\n            set:\n{fields}\n"
        )
    };
    let mut shown = Vec::new();
    for fields in [
        "              Authorization:\n                - Bearer hunter2",
        "              Authorization:\n              - hunter2",
        "              X-Api-Key : [hunter2]",
        "              Authorization: [hunter2]",
        "              Cookie: [ session=hunter2 ]",
        "              X-Api-Key : \"hunter2",
        "              X-Api-Key: hunter1: hunter2",
        "              Authorization: >\n                abc\n             hunter2",
        "              X-A: [{ x: \"Bearer hunter2\" }]",
        "              X-A: [Basic hunter2]",
    ] {
        let text = piped(&set(fields), &["--color", "always"]);
        assert!(text.contains("problem"), "{text}");
        if text.contains("hunter") {
            shown.push(text);
        }
    }
    let url = set("              X-A: b").replace("http://h", "http://127.0.0.1:1/?token=hunter2");
    let text = piped(&url, &["--color", "always"]);
    // The message may not repeat it either.
    if text.contains("hunter") || !text.contains(" urls: ") {
        shown.push(text);
    }
    assert!(shown.is_empty(), "{}", shown.join("\n"));
}

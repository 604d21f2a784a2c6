//! TLS files as systemd's credentials: in a directory whose name the service manager tells, with the mode that it gives.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
};

use crate::{
    harness::{Certs, binary, eventually, free_port, program},
    upstream_tls::{Backend, Wants},
};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const YAML: &str = "
pingora: { threads: 1, pid_file: '{dir}/pid', upgrade_sock: '{dir}/sock' }
admin: { enabled: false }
listeners:
  - address: '127.0.0.1:{port}'
    tls:
      certificates: [ { cert: { credential: front-cert }, key: { credential: front-key } } ]
      mtls: { ca: { credential: authorities }, mode: optional }
services:
  main:
    urls: ['https://127.0.0.1:{backend}']
    tls: { ca: { credential: authorities }, cert: { credential: own-cert }, key: { credential: own-key }, server_name: backend.example }
routes: [ { match: { path: /* }, service: main } ]
";

/// A folder with `tollgate.yaml`, its credentials below it, and the port.
fn prepare(certs: &Certs, backend: u16) -> (tempfile::TempDir, u16) {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let kept = dir.path().join("credentials");
    fs::create_dir(&kept).unwrap();
    for (name, file) in [
        ("front-cert", "a.pem"),
        ("front-key", "a.key"),
        ("authorities", "ca.pem"),
        ("own-cert", "gateway.pem"),
        ("own-key", "gateway.key"),
    ] {
        fs::copy(certs.path(file), kept.join(name)).unwrap();
        // Root's, with an access list for the service's user, whose mask is the group's part; or the user's own.
        let mode = if nix::unistd::geteuid().is_root() { 0o440 } else { 0o400 };
        fs::set_permissions(kept.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let yaml = YAML
        .replace("{dir}", &dir.path().display().to_string())
        .replace("{port}", &port.to_string())
        .replace("{backend}", &backend.to_string());
    fs::write(dir.path().join("tollgate.yaml"), yaml).unwrap();
    (dir, port)
}

fn tollgate(dir: &tempfile::TempDir, more: &[&str], credentials: bool) -> Command {
    let mut command = Command::new(binary());
    command.args(more).arg("-c").arg(dir.path().join("tollgate.yaml")).env_remove("CREDENTIALS_DIRECTORY");
    if credentials {
        command.env("CREDENTIALS_DIRECTORY", dir.path().join("credentials"));
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[test]
fn certificates_keys_and_authorities_may_be_credentials() {
    let certs = Certs::new();
    certs.issue("a", "a", &["a.example"]);
    certs.issue("backend", "backend", &["backend.example"]);
    certs.issue("gateway", "gateway", &[]);
    let backend = Backend::start(&certs, Wants::Certificate);
    let (dir, port) = prepare(&certs, backend.port);
    let checked = tollgate(&dir, &["-t"], true).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let _running = Running(tollgate(&dir, &[], true).stderr(Stdio::null()).spawn().unwrap());
    let curl = || {
        let mut curl = Command::new(program("curl", "curl"));
        curl.args(["-s", "--cacert", &certs.path("ca.pem"), "--resolve", &format!("a.example:{port}:127.0.0.1")]);
        curl.args(["--cert", &certs.path("gateway.pem"), "--key", &certs.path("gateway.key")]);
        String::from_utf8(curl.arg(format!("https://a.example:{port}/")).output().unwrap().stdout).unwrap()
    };
    eventually("it serves by TLS, from a backend by TLS", || curl() == "h1");
}

#[test]
fn a_credential_that_is_not_there_is_a_mistake_with_its_place() {
    let certs = Certs::new();
    certs.issue("a", "a", &["a.example"]);
    certs.issue("gateway", "gateway", &[]);
    let (dir, _) = prepare(&certs, 9);
    let said = |credentials: bool| {
        let output = tollgate(&dir, &["-t"], credentials).output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        String::from_utf8(output.stderr).unwrap()
    };
    let none = said(false);
    for place in ["listeners[0].tls.certificates[0].cert", "listeners[0].tls.mtls.ca", "services.main.tls.ca"] {
        let line = none.lines().find(|line| line.contains(&format!("{place}:"))).unwrap_or_else(|| panic!("{none}"));
        assert!(line.contains("no credentials directory: systemd sets it by LoadCredential=NAME:PATH"), "{line}");
    }
    fs::remove_file(dir.path().join("credentials/own-key")).unwrap();
    let one = said(true);
    assert!(one.contains("services.main.tls.key: cannot read '") && one.contains("/own-key'"), "{one}");
    let file = dir.path().join("tollgate.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("own-key", "../own-key")).unwrap();
    assert!(said(true).contains("this is not a credential's name"));
    fs::write(&file, text.replace("{ credential: own-key }", "{ file: own-key }")).unwrap();
    let other = said(true);
    assert!(other.contains("services.main.tls.key: unknown key (known: credential)"), "{other}");
}

//! The example's own gateway, through a socket: this test starts itself again as the example's `main`, with a YAML that
//! names the example's filter.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

#[path = "../examples/custom_filter.rs"]
mod example;

const CHILD: &str = "TOLLGATE_TEST_CHILD";

fn main() -> ExitCode {
    if env::var_os(CHILD).is_some() { example::main() } else { parent() }
}

fn ask(port: u16, tenant: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        let request = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Tenant: {tenant}\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer).map(|_| ()));
    }
    answer
}

/// Runs the example's binary (this very file) with `arguments`.
fn example(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().unwrap_or_else(|e| panic!("{e}")));
    command.args(arguments).env(CHILD, "1").stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn parent() -> ExitCode {
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = free.unwrap_or_else(|e| panic!("{e}")).port();
    let (file, folder) = (dir.path().join("t.yaml"), dir.path().display());
    let yaml = |settings: &str| {
        format!(
            "pingora: {{ upgrade_sock: {folder}/sock }}\nlisteners: [{{ address: \"127.0.0.1:{port}\" }}]\nadmin: {{ enabled: false }}\nroutes:\n  - match: {{ path: / }}\n    respond: {{ body: welcome }}\n    filters: [ {{ tenant: {settings} }} ]\n"
        )
    };
    let path = file.display().to_string();
    // Its settings are checked like any other's.
    fs::write(&file, yaml("{ alowed: [acme] }")).unwrap_or_else(|e| panic!("{e}"));
    let wrong = example(&["-t", "-c", &path]).output().unwrap_or_else(|e| panic!("{e}"));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(said.contains("routes[0].filters[0].tenant: unknown key 'alowed' (did you mean 'allowed'?)"), "{said}");
    fs::write(&file, yaml("{ allowed: [acme] }")).unwrap_or_else(|e| panic!("{e}"));
    let mut child = example(&["-c", &path]).spawn().unwrap_or_else(|e| panic!("{e}"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ask(port, "acme").contains("welcome") {
        assert!(Instant::now() < deadline, "the example does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    let refused = ask(port, "evil");
    let _ = child.kill().and_then(|()| child.wait());
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("this tenant may not"), "{refused}");
    let _ = writeln!(std::io::stdout(), "1 passed, 0 failed");
    ExitCode::SUCCESS
}

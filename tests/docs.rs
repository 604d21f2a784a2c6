//! What the pages promise beside their YAML: the first file with its `curl` lines, links, alert rules, the reference.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");

fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path());
    docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .chain(["README.md", "systemd/README.md"].map(PathBuf::from))
        .collect()
}

/// The text of the fenced block that begins with `fence`.
fn block<'t>(page: &'t str, fence: &str) -> &'t str {
    let (_, rest) = page.split_once(&format!("```{fence}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a listener on this port.
fn wait_for(port: u16) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nobody listens on {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn tollgate(dir: &Path, variables: &[(&str, String)], arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(dir).envs(variables.iter().map(|(name, value)| (name, value)));
    command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
    command
}

#[test]
fn the_first_file_does_what_its_lines_say() {
    for page in ["README.md", "docs/first-route.md"] {
        let text = fs::read_to_string(page).unwrap();
        let (dir, port, admin) = (tempfile::tempdir().unwrap(), free_port(), free_port());
        let own =
            format!("admin: {{ address: \"127.0.0.1:{admin}\" }}\npingora: {{ pid_file: pid, upgrade_sock: sock }}\n");
        let file = block(&text, "yaml file=tollgate.yaml").replace("\":8080\"", &format!("\"127.0.0.1:{port}\""));
        fs::write(dir.path().join("tollgate.yaml"), file + &own).unwrap();
        assert!(tollgate(dir.path(), &[], &["-t"]).status().unwrap().success(), "{page}");
        let _gateway = Running(tollgate(dir.path(), &[], &[]).spawn().unwrap());
        wait_for(port);
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("curl -i ")).collect();
        assert_eq!(lines.len(), 2, "{page}: with the key, and without it");
        for line in lines {
            let line = line.replace("localhost:8080", &format!("127.0.0.1:{port}"));
            let out = Command::new("bash").args(["-c", &line]).output().unwrap();
            let out = String::from_utf8(out.stdout).unwrap();
            if line.contains("X-API-KEY: open-sesame") {
                assert!(out.starts_with("HTTP/1.1 200 ") && out.ends_with("Hello.\n"), "{page}: {out}");
                assert!(out.to_lowercase().contains("ratelimit: "), "{page}: {out}");
            } else {
                assert!(out.starts_with("HTTP/1.1 401 "), "{page}: {out}");
            }
        }
    }
}

#[test]
fn the_sample_mistake_is_told_as_the_readme_says() {
    let (text, dir) = (fs::read_to_string("README.md").unwrap(), tempfile::tempdir().unwrap());
    let file = block(&text, "yaml file=tollgate.yaml").replace("    filters:", "    filter:");
    fs::write(dir.path().join("tollgate.yaml"), file).unwrap();
    let out = tollgate(dir.path(), &[], &["-t"]).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    let line = said.lines().find(|line| line.contains("unknown key")).unwrap();
    assert!(text.contains(line.trim_start_matches("./")), "{said}");
}

#[test]
fn one_line_is_enough() {
    let (dir, port, admin, backend) = (tempfile::tempdir().unwrap(), free_port(), free_port(), free_port());
    let _backend = Running(
        Command::new("python3")
            .args(["-m", "http.server", "--bind", "127.0.0.1", &backend.to_string()])
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    wait_for(backend);
    let variables = [
        ("BACKEND_URL", format!("http://localhost:{backend}")),
        ("GATEWAY_PORT", port.to_string()),
        ("METRICS_PORT", admin.to_string()),
        ("XDG_RUNTIME_DIR", dir.path().display().to_string()),
    ];
    let _gateway = Running(tollgate(dir.path(), &variables, &[]).spawn().unwrap());
    wait_for(port);
    let out = Command::new("curl").args(["-si", &format!("http://127.0.0.1:{port}/")]).output().unwrap();
    assert!(out.stdout.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if file.starts_with("http") {
                continue;
            }
            let path = page.parent().unwrap().join(file);
            assert!(path.exists(), "{}: {target}", page.display());
            if !anchor.is_empty() && !page.ends_with("reference.md") {
                let headings = fs::read_to_string(&path).unwrap().to_lowercase().replace(' ', "-");
                assert!(headings.contains(&format!("#-{anchor}")), "{}: {target}", page.display());
            }
        }
    }
}

#[test]
fn the_readme_is_read_in_one_go() {
    let lines = fs::read_to_string("README.md").unwrap().lines().count();
    assert!(lines <= 200, "{lines} lines: what is more belongs into docs/");
}

#[test]
fn alert_rules_are_rules() {
    let (text, dir) = (fs::read_to_string("docs/metrics.md").unwrap(), tempfile::tempdir().unwrap());
    let (rules, file) = (block(&text, "yaml alerts"), dir.path().join("rules.yaml"));
    fs::write(&file, rules).unwrap();
    let out = Command::new("promtool").args(["check", "rules"]).arg(&file).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    // Each metric in them is one of the table.
    let table = text.split("## Alerts").next().unwrap();
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for name in words.filter(|word| word.starts_with("gateway_") || word.starts_with("http_server_")) {
        assert!(table.contains(&format!("`{}`", name.trim_end_matches("_bucket"))), "{name}");
    }
}

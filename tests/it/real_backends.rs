//! Real servers behind the gateway: two of Python's `http.server` and an nginx, through two routes, with key, JWT and
//! limit, by a configuration that the README explains.

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};

use crate::harness::{Gateway, eventually, free_port, program};

pub(crate) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command, port: u16) -> Server {
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the backend listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    Server(child)
}

fn python(dir: &std::path::Path, name: &str, port: u16) -> Server {
    let root = dir.join(name);
    fs::create_dir(&root).unwrap();
    fs::write(root.join("users"), name).unwrap();
    let mut command = Command::new(program("python3", "python3"));
    command.args(["-m", "http.server", &port.to_string(), "--bind", "127.0.0.1", "--directory"]).arg(root);
    start(&mut command, port)
}

fn nginx(dir: &std::path::Path, port: u16) -> Server {
    nginx_with(dir, port, "location / { return 200 \"nginx $request_uri $http_x_auth_subject\"; }")
}

/// An nginx whose server has these `locations`.
pub(crate) fn nginx_with(dir: &std::path::Path, port: u16, locations: &str) -> Server {
    let folder = dir.display();
    let conf = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; events {{}} http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; server {{ listen 127.0.0.1:{port}; {locations} }} }}"
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, conf).unwrap();
    let path = if std::path::Path::new("/usr/sbin/nginx").is_file() {
        "/usr/sbin/nginx".to_owned()
    } else {
        program("nginx", "nginx")
    };
    start(Command::new(path).arg("-c").arg(file).arg("-e").arg(dir.join("nginx.log")), port)
}

#[test]
fn python_and_nginx_behind_key_token_and_limit() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), [free_port(), free_port(), free_port()]);
    let _servers =
        [python(dir.path(), "one", ports[0]), python(dir.path(), "two", ports[1]), nginx(dir.path(), ports[2])];
    let secret = dir.path().join("secret");
    fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let gw = Gateway::start(&format!(
        r#"
api_keys:
  - {{ id: acme, sha256: {} }}
services:
  users:
    urls: ["http://127.0.0.1:{}", "http://127.0.0.1:{}"]
    health_check: {{ path: /users, every: 1s }}
  reports:
    urls: ["http://127.0.0.1:{}"]
routes:
  - match: {{ path: /users/* }}
    service: users
    filters:
      - api_key
      - rate_limit: {{ rate: 1/m, burst: 4, by: api_key }}
  - match: {{ path: /reports/* }}
    service: reports
    strip_prefix: /reports
    filters:
      - jwt: {{ algorithms: [HS256], keys: [ {{ secret: {{ file: {} }} }} ], issuer: id, audience: reports }}
"#,
        tollgate::auth::Digest::of(b"key"),
        ports[0],
        ports[1],
        ports[2],
        secret.display()
    ));
    gw.get("/users").expect(401).problem();
    let mut bodies: Vec<String> = (0..4).map(|_| gw.get("/users").key("key").expect(200).body).collect();
    bodies.sort();
    assert_eq!(bodies, ["one", "one", "two", "two"]);
    gw.get("/users").key("key").expect(429).problem();
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 60;
    let claims = serde_json::json!({ "iss": "id", "aud": "reports", "sub": "u1", "exp": exp });
    let key = EncodingKey::from_secret(b"0123456789abcdef0123456789abcdef");
    let token = encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
    gw.get("/reports/2026?x=1").expect(401).problem();
    assert_eq!(gw.get("/reports/2026?x=1").bearer(&token).expect(200).body, "nginx /2026?x=1 u1");
}

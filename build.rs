//! What `tollgate --version` tells of the build: the commit, and the versions of what it stands on.

use std::{fs, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=Cargo.lock");
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/logs/HEAD");
    let git = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok();
    let commit = git.filter(|git| git.status.success()).and_then(|git| String::from_utf8(git.stdout).ok());
    // A source archive has none.
    let commit = commit.map_or_else(|| "no commit".to_owned(), |commit| format!("commit {}", commit.trim()));
    let lock = fs::read_to_string("Cargo.lock").unwrap_or_default();
    let version = |name: &str| {
        let start = format!("name = \"{name}\"\nversion = \"");
        let found = lock.split_once(&start).and_then(|(_, rest)| rest.split('"').next());
        found.unwrap_or("?").to_owned()
    };
    let (pingora, rustls) = (version("pingora"), version("rustls"));
    println!("cargo:rustc-env=TOLLGATE_BUILD={commit}, pingora {pingora}, rustls {rustls} with aws-lc");
}

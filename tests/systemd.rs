//! The systemd unit: hardened as promised, and saying nothing that the binary does not understand. And that the process
//! tells systemd when it serves.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
    time::Duration,
};

const UNIT: &str = "systemd/tollgate.service";

#[test]
fn the_unit_is_hardened() {
    let out = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", UNIT])
        .output()
        .expect("'systemd-analyze' is missing: install the Debian package 'systemd'");
    let text = String::from_utf8_lossy(&out.stdout);
    let line = text.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{out:?}"));
    let score: f64 = line.split(':').nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let _ = writeln!(std::io::stderr(), "systemd-analyze security: {score}");
    assert!(score <= 2.0, "{line}");
}

#[test]
fn the_unit_speaks_the_binarys_language() {
    let help = Command::new(env!("CARGO_BIN_EXE_tollgate")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let unit = fs::read_to_string(UNIT).unwrap();
    let commands = unit.lines().filter(|line| line.starts_with("ExecStart=") || line.starts_with("ExecReload="));
    let mut flags = 0;
    for flag in commands.flat_map(str::split_whitespace).filter(|word| word.starts_with('-')) {
        assert!(help.contains(&format!("{flag}, --")), "{flag} is not an option: {help}");
        flags += 1;
    }
    assert_eq!(flags, 6, "ExecStart and two ExecReload lines");
    assert!(unit.contains("RestartPreventExitStatus=78"));
}

/// The settings that systemd 247 does not know, of those that a unit like this one might have (from its NEWS).
const NEWER: &[&str] = &[
    "LoadCredentialEncrypted",
    "SetCredentialEncrypted",
    "ImportCredential",
    "ExtensionImages",
    "ExtensionDirectories",
    "RestrictFileSystems",
    "RestrictNetworkInterfaces",
    "SocketBindAllow",
    "SocketBindDeny",
    "PrivateIPC",
    "NoExecPaths",
    "ExecPaths",
    "ExecSearchPath",
    "StartupMemoryMax",
    "ExitType",
    "RestartSteps",
    "RestartMaxDelaySec",
    "RestartMode",
    "MemoryPressureWatch",
    "OpenFile",
    "ReloadSignal",
    "Type=notify-reload",
    "FileDescriptorStorePreserve",
    "PrivatePIDs",
    "RootEphemeral",
    "SurviveFinalKillSignal",
];

#[test]
fn the_unit_has_no_setting_that_debian_11_does_not_know() {
    let unit = fs::read_to_string(UNIT).unwrap();
    for line in unit.lines().filter(|line| !line.starts_with('#')) {
        assert!(!NEWER.iter().any(|newer| line.starts_with(newer)), "{line}");
    }
    assert!(unit.contains("\nProtectProc=") && unit.contains("\nDynamicUser=yes"), "what 247 has is used");
}

/// Sections of a program, as readelf lists them.
fn sections(path: &std::path::Path) -> String {
    let out = Command::new("readelf").args(["-SW"]).arg(path).output();
    String::from_utf8(out.expect("'readelf' is missing: install the Debian package 'binutils'").stdout).unwrap()
}

#[test]
fn make_install_brings_everything_that_the_unit_names() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let install = || {
        let mut make = Command::new("make");
        make.arg("install").arg(format!("DESTDIR={}", root.display()));
        let out = make.arg(format!("BINARY={}", env!("CARGO_BIN_EXE_tollgate"))).output().unwrap();
        assert!(out.status.success(), "{out:?}");
    };
    install();
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    let unit = fs::read_to_string(at("/etc/systemd/system/tollgate.service")).unwrap();
    let settings: Vec<&str> = unit.lines().filter(|line| !line.starts_with('#')).collect();
    let words = settings.iter().flat_map(|line| line.split(|c: char| c == '=' || c.is_whitespace()));
    let named: Vec<&str> =
        words.map(|word| word.trim_start_matches("file://")).filter(|word| word.starts_with('/')).collect();
    assert!(named.len() >= 7, "{named:?}");
    for path in named {
        assert!(at(path).is_file(), "{path} is not installed");
    }
    // Names for backtraces stay, the rest is apart.
    let binary = at("/usr/bin/tollgate");
    let (kept, debug) = (sections(&binary), sections(&at("/usr/lib/debug/usr/bin/tollgate.debug")));
    assert!(!kept.contains(" .debug_info") && kept.contains(" .symtab") && kept.contains(" .gnu_debuglink"), "{kept}");
    assert!(debug.contains(" .debug_info"), "{debug}");
    assert!(Command::new(&binary).arg("--version").output().unwrap().status.success());
    let whole = fs::metadata(env!("CARGO_BIN_EXE_tollgate")).unwrap().len();
    assert!(fs::metadata(&binary).unwrap().len() < whole);
    // What the sample names is there for the unit's user: it is no file that only root can read.
    let checked = Command::new(&binary).arg("-t").arg("-c").arg(at("/etc/tollgate/tollgate.yaml")).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let settled = root.join("etc/tollgate/tollgate.yaml");
    fs::write(&settled, "# mine\n").unwrap();
    install();
    assert_eq!(fs::read_to_string(&settled).unwrap(), "# mine\n", "a second time leaves the file alone");
    // The unit itself, as far as this machine's systemd can tell without it being installed.
    let here = dir.path().join("tollgate.service");
    fs::write(&here, unit.replace("/usr/bin/tollgate", &binary.display().to_string())).unwrap();
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&here).output().unwrap();
    assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
}

#[test]
fn links_of_the_installed_pages_lead_somewhere() {
    let dir = tempfile::tempdir().unwrap();
    let mut make = Command::new("make");
    make.arg("install").arg(format!("DESTDIR={}", dir.path().display()));
    let out = make.arg(format!("BINARY={}", env!("CARGO_BIN_EXE_tollgate"))).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let (mut folders, mut links, mut broken) = (vec![dir.path().join("usr/share/doc/tollgate")], 0, Vec::new());
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                let page = fs::read_to_string(&path).unwrap();
                let targets = page.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
                for target in targets.filter(|target| !target.is_empty() && !target.contains("://")) {
                    links += 1;
                    if !folder.join(target).exists() {
                        broken.push(format!("{}: {target}", path.display()));
                    }
                }
            }
        }
    }
    assert!(broken.is_empty() && links > 20, "{links}: {broken:#?}");
}

#[test]
fn the_access_log_and_its_rotation_agree() {
    let (rotation, unit) = (fs::read_to_string("systemd/logrotate").unwrap(), fs::read_to_string(UNIT).unwrap());
    let sample = fs::read_to_string("conf/tollgate.yaml").unwrap();
    let caching = fs::read_to_string("docs/caching.md").unwrap();
    assert!(unit.contains("\nCacheDirectory=tollgate\n") && caching.contains("`path: /var/cache/tollgate` is there"));
    assert!(unit.contains("\nLogsDirectory=tollgate\n") && sample.contains("{ file: /var/log/tollgate/access.log }"));
    let lines: Vec<&str> = rotation.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
    assert!(lines.contains(&"/var/log/tollgate/*.log {") && lines.contains(&"nocreate"), "{rotation}");
    assert!(!lines.iter().any(|line| line.contains("copytruncate")), "lines would be lost");
    // SIGUSR1 is what the program takes (`tests/it/admin.rs` rotates with it); --kill-whom is unknown before systemd 252.
    assert!(lines.contains(&"systemctl kill --kill-who=main --signal=SIGUSR1 tollgate.service"), "{rotation}");
}

#[test]
fn the_process_says_when_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (folder, file) = (dir.path().display(), dir.path().join("t.yaml"));
    let yaml = format!(
        "pingora: {{ threads: 1, upgrade_sock: {folder}/sock }}\nlisteners: [{{ address: \"127.0.0.1:{port}\" }}]\nadmin: {{ enabled: false }}\nroutes: [{{ match: {{ path: / }}, respond: {{}} }}]\n"
    );
    fs::write(&file, yaml).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .arg("-c")
        .arg(&file)
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut buffer = [0; 256];
    let read = socket.recv(&mut buffer);
    child.kill().unwrap();
    child.wait().unwrap();
    let message = String::from_utf8_lossy(&buffer[..read.unwrap()]).into_owned();
    assert!(message.contains("READY=1") && message.contains(&format!("MAINPID={}", child.id())), "{message}");
}

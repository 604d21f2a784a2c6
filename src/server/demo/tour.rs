//! `tollgate demo --tour`: the gateway as a process of its own, under load that is made here. A backend dies and comes back,
//! the gateway is upgraded meanwhile, and at the end stands what became of each request.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    net::TcpListener,
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::MissedTickBehavior,
};

use super::{
    backends::Backends,
    client::get,
    ports::{Ports, bind},
};
use crate::server::{exit, failure::fail};

/// How long each state is watched before the next step.
const WATCH: Duration = Duration::from_millis(1500);

/// The longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked for, how many ask, and how often each.
const LOAD: [(&str, usize, Duration); 2] =
    [("/users", 2, Duration::from_millis(10)), ("/limited", 2, Duration::from_millis(20))];

/// What became of the requests.
#[derive(Default)]
struct Counts {
    sent: u64,
    by_status: BTreeMap<(&'static str, u16), u64>,
    failed: u64,
    /// How the first ones failed.
    examples: Vec<String>,
}

/// Processes and files of the tour; dropping it ends and removes them.
struct Stage {
    folder: PathBuf,
    running: Vec<Child>,
    ports: Ports,
    begun: Instant,
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Stage {
    fn new(ports: Ports, access_log: bool) -> io::Result<Self> {
        let folder = env::temp_dir().join(format!("tollgate-tour-{}", std::process::id()));
        // Whoever could write there could put a socket in the place of ours.
        DirBuilder::new().mode(0o700).create(&folder)?;
        let stage = Self { folder, running: Vec::new(), ports, begun: Instant::now() };
        let place = stage.folder.display();
        let engine = format!(
            "pingora: {{ threads: 1, grace_period_seconds: 5, pid_file: '{place}/pid', upgrade_sock: '{place}/sock' }}\n"
        );
        // A tour has no time for a check a second.
        let yaml = ports.yaml(access_log).replace("every: 1s", "every: 200ms");
        fs::write(stage.folder.join("tollgate.yaml"), engine + &yaml)?;
        Ok(stage)
    }

    fn say(&self, text: &str) {
        say(&format!("[{:4.1} s] {text}", self.begun.elapsed().as_secs_f64()));
    }

    /// Starts this very program as a gateway.
    fn start(&mut self, upgrade: bool) -> io::Result<u32> {
        let log = File::options().create(true).append(true).open(self.folder.join("log"))?;
        let mut command = Command::new(env::current_exe()?);
        command.arg("-c").arg(self.folder.join("tollgate.yaml")).args(upgrade.then_some("-u"));
        let child = command.stdin(Stdio::null()).stderr(log).spawn()?;
        let id = child.id();
        self.running.push(child);
        Ok(id)
    }

    /// What the gateway says of itself, when it answers.
    async fn stats(&self) -> Value {
        let answer = get(self.ports.admin, "/gateway/stats").await;
        answer.ok().and_then(|(_, body)| serde_json::from_str(&body).ok()).unwrap_or_default()
    }

    /// Waits until what the gateway says of itself is as wanted.
    async fn wait(&mut self, what: &str, ready: impl Fn(&Value) -> bool) -> Result<Value, String> {
        let begun = Instant::now();
        loop {
            let stats = self.stats().await;
            if ready(&stats) {
                return Ok(stats);
            }
            if begun.elapsed() > PATIENCE || self.has_failed() {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return Err(format!("this did not happen: {what}\n{log}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// True when a process has ended otherwise than well.
    fn has_failed(&mut self) -> bool {
        self.running.iter_mut().any(|child| matches!(child.try_wait(), Ok(Some(status)) if !status.success()))
    }

    /// Waits until the process that was started first has left.
    async fn first_leaves(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Ok(Some(status)) = self.running[0].try_wait() {
                return if status.success() { Ok(()) } else { Err(format!("the first process failed: {status}")) };
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err("the first process does not leave".to_owned())
    }
}

fn say(text: &str) {
    // Whoever has gone (`| head`) need not be told.
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Runs the tour.
pub(super) fn run(ports: Ports, sockets: [TcpListener; 3], access_log: bool) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(exit::FAILURE, &format!("the tour cannot begin: {e}")),
    };
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = tour(ports, sockets, access_log) => ended,
            () = told_to_stop() => Err("interrupted".to_owned()),
        }
    });
    match ended {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(exit::FAILURE),
        Err(message) => fail(exit::FAILURE, &message),
    }
}

async fn told_to_stop() {
    let mut signals = JoinSet::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()] {
        if let Ok(mut signal) = signal(kind) {
            signals.spawn(async move { signal.recv().await });
        }
    }
    if signals.join_next().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// One request after the other, until told to stop.
async fn load(port: u16, path: &'static str, pause: Duration, counts: Arc<Mutex<Counts>>, stop: Arc<AtomicBool>) {
    let mut tick = tokio::time::interval(pause);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Relaxed) {
        tick.tick().await;
        counts.lock().sent += 1;
        let answer = get(port, path).await;
        let mut counts = counts.lock();
        let good = match &answer {
            Ok((status, _)) => {
                *counts.by_status.entry((path, *status)).or_default() += 1;
                *status == 200 || *status == 429 && path == "/limited"
            }
            Err(_) => false,
        };
        if !good {
            counts.failed += 1;
            if counts.examples.len() < 5 {
                counts.examples.push(format!("{path}: {answer:?}"));
            }
        }
    }
}

/// All steps; answers how many requests failed.
async fn tour(ports: Ports, sockets: [TcpListener; 3], access_log: bool) -> Result<u64, String> {
    let failed = |e: io::Error| format!("the tour cannot go on: {e}");
    let mut stage = Stage::new(ports, access_log).map_err(failed)?;
    let backends = Arc::new(Backends::new(ports));
    let [one, two, slow] = sockets;
    let mut others = JoinSet::new();
    others.spawn(backends.clone().serve(1, two));
    others.spawn(backends.clone().serve(2, slow));
    let mut first = JoinSet::new();
    first.spawn(backends.clone().serve(0, one));

    let old = stage.start(false).map_err(failed)?;
    stage
        .wait("the gateway serves", |stats| stats["pid"] == old && stats["services"]["users"]["available"] == true)
        .await?;
    stage.say(&format!("the gateway serves on http://127.0.0.1:{} (pid {old})", ports.gateway));
    let (counts, stop) = (Arc::new(Mutex::new(Counts::default())), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for (path, many, pause) in LOAD {
        for _ in 0..many {
            clients.spawn(load(ports.gateway, path, pause, counts.clone(), stop.clone()));
        }
    }
    stage.say("load: 200 requests a second to /users, 100 to /limited (1 a second is let through, after 20)");
    tokio::time::sleep(WATCH).await;

    first.shutdown().await;
    stage.say("backend one is killed");
    let of_one = |stats: &Value| stats["services"]["users"]["backends"][0].clone();
    let stats = stage.wait("the dead backend is taken out", |stats| of_one(stats)["state"] == "down").await?;
    stage.say(&format!("the gateway has taken it out: {}", of_one(&stats)["reason"].as_str().unwrap_or_default()));
    tokio::time::sleep(WATCH).await;
    let before = backends.answered(0);
    first.spawn(backends.clone().serve(0, bind(ports.backends[0]).map_err(failed)?));
    let again = |stats: &Value| of_one(stats)["state"] == "up" && backends.answered(0) > before;
    stage.wait("the backend is used again", again).await?;
    stage.say("backend one is back, and is used again");

    let new = stage.start(true).map_err(failed)?;
    stage.say(&format!("tollgate -u (pid {new}) asks for the sockets"));
    stage.wait("the successor serves", |stats| stats["pid"] == new).await?;
    stage.say(&format!("pid {new} serves"));
    stage.first_leaves().await?;
    stage.say(&format!("pid {old} has finished its requests and left"));
    tokio::time::sleep(WATCH).await;
    stop.store(true, Relaxed);
    while clients.join_next().await.is_some() {}
    let counts = counts.lock();
    conclude(&counts)
}

/// Prints the counts; answers how many failed.
fn conclude(counts: &Counts) -> Result<u64, String> {
    let answered: u64 = counts.by_status.values().sum();
    say(&format!("\nsent {}, answered {answered}", counts.sent));
    for ((path, status), count) in &counts.by_status {
        say(&format!("  {path:<9} {status}: {count}"));
    }
    say(&format!("failed: {}", counts.failed));
    for example in &counts.examples {
        say(&format!("  {example}"));
    }
    let some = |path, status| counts.by_status.contains_key(&(path, status));
    if !(some("/users", 200) && some("/limited", 200) && some("/limited", 429)) {
        return Err("the load has not met both the open and the limited route".to_owned());
    }
    Ok(counts.failed)
}

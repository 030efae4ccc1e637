//! Operations and a real process that is killed: what was answered stands, what was not is there
//! or not, and nothing is half done.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use admin_api::snapshots::SnapshotList;
use admin_api::tasks::{TaskList, TaskState};
use admin_api::volumes::VolumeList;
use client::transport::Address;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::time::Instant;

use crate::node::{LIMIT, run};

/// How often the process is killed.
const ROUNDS: u64 = 6;

/// A `storaged` process; killed when dropped.
struct Daemon {
    process: Child,
    http: reqwest::Client,
}

/// Names of volumes, with the names of their snapshots.
type State = BTreeMap<String, Vec<String>>;

#[derive(Clone, Debug)]
enum Step {
    Create(String),
    Delete(String),
    Snapshot(String, String),
    DeleteSnapshot(String, String),
    Clone(String, String, String),
    Rename(String, String),
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be dead already; then there is nobody to kill, and only the wait matters.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Daemon {
    async fn start(directory: &Path) -> Self {
        let daemon = Self::spawn(directory);
        let deadline = Instant::now() + LIMIT;
        while daemon.request("GET", "/v1/version", None).await.is_none() {
            assert!(Instant::now() < deadline, "storaged does not answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        daemon
    }

    /// Without waiting for anything.
    fn spawn(directory: &Path) -> Self {
        let process = Command::new(env!("CARGO_BIN_EXE_storaged"))
            .args([
                "--disks",
                "3",
                "--disk-log",
                "4M",
                "--memory",
                "256M",
                "--work-dir",
            ])
            .arg(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let http = reqwest::Client::builder()
            .unix_socket(directory.join("admin.sock"))
            .build()
            .unwrap();
        Self { process, http }
    }

    /// Nothing if the process did not answer.
    async fn request(&self, method: &str, path: &str, body: Option<String>) -> Option<(u16, String)> {
        let mut request = self
            .http
            .request(method.parse().unwrap(), format!("http://storaged{path}"));
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = request.send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// Whether a step was done; nothing if that is unknown.
    async fn perform(&self, step: &Step) -> Option<bool> {
        let post = |path: String, body: serde_json::Value| ("POST", path, Some(body.to_string()));
        let (method, path, body) = match step {
            Step::Create(name) => post("/v1/volumes".to_owned(), json!({"name": name, "size": "1G"})),
            Step::Delete(name) => ("DELETE", format!("/v1/volumes/{name}?with_snapshots=true"), None),
            Step::Snapshot(name, snapshot) => post(
                format!("/v1/volumes/{name}/snapshots"),
                json!({ "name": snapshot }),
            ),
            Step::DeleteSnapshot(name, snapshot) => {
                ("DELETE", format!("/v1/volumes/{name}/snapshots/{snapshot}"), None)
            }
            Step::Clone(name, snapshot, copy) => post(
                format!("/v1/volumes/{name}/snapshots/{snapshot}/clone"),
                json!({ "name": copy }),
            ),
            Step::Rename(name, new) => post(format!("/v1/volumes/{name}/rename"), json!({ "name": new })),
        };
        let (status, body) = self.request(method, &path, body).await?;
        // A drain or a take-over that was cut short; what the snapshot wanted did not come about.
        assert!(status < 500 || status == 503, "{step:?}: {body}");
        Some(status < 300)
    }

    async fn state(&self) -> State {
        let (_, body) = self.request("GET", "/v1/volumes", None).await.unwrap();
        let volumes: VolumeList = serde_json::from_str(&body).unwrap();
        let mut state: State = volumes
            .volumes
            .into_iter()
            .map(|volume| (volume.name, Vec::new()))
            .collect();
        let (_, body) = self.request("GET", "/v1/snapshots", None).await.unwrap();
        let snapshots: SnapshotList = serde_json::from_str(&body).unwrap();
        for snapshot in snapshots.snapshots {
            state.get_mut(&snapshot.volume).unwrap().push(snapshot.name);
        }
        for snapshots in state.values_mut() {
            snapshots.sort();
        }
        state
    }
}

/// The state after a step; nothing if the step is to be refused.
fn after(state: &State, step: &Step) -> Option<State> {
    let mut state = state.clone();
    match step {
        Step::Create(name) => {
            let taken = state.insert(name.clone(), Vec::new()).is_some();
            (!taken).then_some(state)
        }
        Step::Delete(name) => state.remove(name).is_some().then_some(state),
        Step::Snapshot(name, snapshot) => {
            let snapshots = state.get_mut(name)?;
            let taken = snapshots.contains(snapshot);
            snapshots.push(snapshot.clone());
            snapshots.sort();
            (!taken).then_some(state)
        }
        Step::DeleteSnapshot(name, snapshot) => {
            let snapshots = state.get_mut(name)?;
            let place = snapshots.iter().position(|found| found == snapshot)?;
            snapshots.remove(place);
            Some(state)
        }
        Step::Clone(name, snapshot, copy) => {
            let source = state.get(name)?.contains(snapshot);
            let taken = state.insert(copy.clone(), Vec::new()).is_some();
            (source && !taken).then_some(state)
        }
        Step::Rename(name, new) => {
            let snapshots = state.remove(name)?;
            let taken = state.insert(new.clone(), snapshots).is_some();
            (!taken).then_some(state)
        }
    }
}

fn any_step(random: &mut StdRng) -> Step {
    let volume = |random: &mut StdRng| format!("v{}", random.random_range(0..6));
    let (a, b) = (volume(random), volume(random));
    let snapshot = format!("s{}", random.random_range(0..4));
    match random.random_range(0..10) {
        0..3 => Step::Create(a),
        3 => Step::Delete(a),
        4..6 => Step::Snapshot(a, snapshot),
        6..8 => Step::DeleteSnapshot(a, snapshot),
        8 => Step::Clone(a, snapshot, b),
        _ => Step::Rename(a, b),
    }
}

/// Works until the process is dead; gives the states that are possible then.
async fn work_until_dead(daemon: &Daemon, mut state: State, random: &mut StdRng) -> [State; 2] {
    loop {
        let step = any_step(random);
        let expected = after(&state, &step);
        match daemon.perform(&step).await {
            Some(true) => state = expected.unwrap_or_else(|| panic!("{step:?} should have been refused")),
            Some(false) => {}
            None => return [state.clone(), expected.unwrap_or(state)],
        }
    }
}

#[test]
fn operations_that_were_answered_stand_whenever_the_process_is_killed() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let mut random = StdRng::seed_from_u64(7);
        let mut daemon = Daemon::start(directory.path()).await;
        daemon
            .request(
                "POST",
                "/v1/pools",
                Some(json!({"name": "p", "groups": 4}).to_string()),
            )
            .await
            .unwrap();
        let mut state = State::new();
        for round in 0..ROUNDS {
            let pid = rustix::process::Pid::from_child(&daemon.process);
            // Not a wait for something: the moment of death is what is drawn.
            let life = Duration::from_millis(random.random_range(50..1500));
            let killer = tokio::spawn(async move {
                tokio::time::sleep(life).await;
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            });
            let possible = work_until_dead(&daemon, state, &mut random).await;
            killer.await.unwrap();
            drop(daemon);
            daemon = Daemon::start(directory.path()).await;
            state = daemon.state().await;
            assert!(
                possible.contains(&state),
                "round {round}: {state:?} is none of {possible:?}"
            );
        }
        // Nothing is left that could not go.
        for name in state.keys() {
            assert_eq!(
                daemon.perform(&Step::Delete(name.clone())).await,
                Some(true),
                "{name}"
            );
        }
        let deadline = Instant::now() + LIMIT;
        loop {
            let (_, body) = daemon.request("GET", "/v1/tasks", None).await.unwrap();
            let tasks: TaskList = serde_json::from_str(&body).unwrap();
            if tasks.tasks.iter().all(|task| task.state == TaskState::Done) {
                break;
            }
            assert!(Instant::now() < deadline, "{tasks:?}");
            tokio::task::yield_now().await;
        }
        let (status, body) = daemon.request("DELETE", "/v1/pools/p", None).await.unwrap();
        assert_eq!(status, 204, "{body}");
    });
}

#[test]
fn front_ends_are_served_while_disks_still_start() {
    // Defect guarded: leases run from the moment that the store is opened, but sessions were served only when
    // all disks had read their logs. On a busy machine that took longer than a lease: every owner lost
    // its volume, and its guest got I/O errors.
    run(async {
        let directory = tempfile::tempdir().unwrap();
        drop(Daemon::start(directory.path()).await);
        // A disk that takes for ever to start: as if a killed process still had its log, which a start waits for. (A pipe in
        // place of its superblock did not hold every start up: who opens a pipe for reading and writing does not wait.)
        let log = std::fs::File::open(directory.path().join("disks/1/wal")).unwrap();
        log.lock().unwrap();
        let daemon = Daemon::spawn(directory.path());
        let sessions = [Address::Unix(directory.path().join("storaged.sock"))];
        let deadline = Instant::now() + LIMIT;
        while client::volume::list("test", &sessions).await.is_err() {
            assert!(Instant::now() < deadline, "sessions are not served");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let answer = daemon.request("GET", "/v1/version", None).await;
        assert_eq!(answer, None, "the disk has started: nothing was tried");
    });
}

//! A daemon with three disks in a temporary directory, and the ways to speak to it.

use std::path::Path;
use std::time::Duration;

use admin_api::ErrorBody;
use admin_api::disks::DiskList;
use admin_api::tasks::{Deleted, Task, TaskState};
use bytes::Bytes;
use client::request;
use client::transport::Address;
use client::volume::{Options, Volume};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use storaged::config::{AdminListen, Config, Settings};
use storaged::daemon::Daemon;
use tokio::task::LocalSet;

/// Nothing here takes that long unless it hangs.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// A running daemon.
pub(crate) struct Node {
    config: Config,
    daemon: Daemon,
    http: reqwest::Client,
    base: String,
}

/// Runs a test where volumes can live.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let ended = tokio::time::timeout(LIMIT * 2, test).await;
        assert!(ended.is_ok(), "the test hangs");
    });
}

/// What a daemon with so many disks is told.
pub(crate) fn settings(directory: &Path, disks: u32) -> Settings {
    Settings {
        work_dir: Some(directory.to_owned()),
        disks: Some(disks),
        disk_log: Some("4M".into()),
        memory: Some("256M".into()),
        admin_listen: vec!["tcp:127.0.0.1:0".to_owned()],
        ..Settings::default()
    }
}

impl Node {
    /// Starts a daemon in a directory.
    pub(crate) async fn start(directory: &Path) -> Self {
        Self::with_disks(directory, 3).await
    }

    /// Starts a daemon that is told to have so many disks.
    pub(crate) async fn with_disks(directory: &Path, disks: u32) -> Self {
        Self::configured(settings(directory, disks)).await
    }

    /// Starts a daemon that is told this.
    pub(crate) async fn configured(settings: Settings) -> Self {
        let config = settings.check().unwrap();
        let daemon = Daemon::start(&config).await.unwrap();
        let tcp = daemon.admin_addresses().iter().find_map(|address| match address {
            AdminListen::Here(Address::Tcp(host)) => Some(host.clone()),
            _ => None,
        });
        let base = format!("http://{}", tcp.unwrap());
        Self {
            config,
            daemon,
            http: reqwest::Client::new(),
            base,
        }
    }

    /// Where it answers the network: `HOST:PORT`.
    pub(crate) fn network(&self) -> String {
        let host = self
            .daemon
            .admin_addresses()
            .iter()
            .find_map(|address| match address {
                AdminListen::Network(host) => Some(host.clone()),
                AdminListen::Here(_) => None,
            });
        host.unwrap()
    }

    /// The daemon's admin socket.
    pub(crate) fn admin_socket(&self) -> std::path::PathBuf {
        self.config.admin_socket()
    }

    /// Starts a daemon with a pool of three copies.
    pub(crate) async fn with_pool(directory: &Path) -> Self {
        let node = Self::start(directory).await;
        node.make_pool().await;
        node
    }

    /// Makes a pool of three copies.
    pub(crate) async fn make_pool(&self) {
        self.post("/v1/pools", json!({"name": "pool", "groups": 8})).await;
    }

    /// Stops the daemon cleanly and starts it again.
    pub(crate) async fn restart(self) -> Self {
        let directory = self.config.work_dir.clone();
        self.stop().await;
        Self::start(&directory).await
    }

    pub(crate) async fn stop(self) {
        drop(self.http);
        self.daemon.stop().await;
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<String>) -> (u16, String) {
        let method = method.parse().unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let (status, body) = self.send("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Posts what must succeed.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, text) = self.send("POST", path, Some(body.to_string())).await;
        assert!((200..300).contains(&status), "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Deletes what can be deleted.
    pub(crate) async fn delete(&self, path: &str) -> Deleted {
        let (status, body) = self.send("DELETE", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Sends what must be refused.
    pub(crate) async fn refused(&self, method: &str, path: &str, body: Option<Value>) -> ErrorBody {
        let (status, body) = self.send(method, path, body.map(|body| body.to_string())).await;
        let error: ErrorBody = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: {body}"));
        assert_eq!(error.kind.status(), status, "{path}: {body}");
        error
    }

    /// Waits for a task to end well.
    pub(crate) async fn done(&self, task: Option<u64>) {
        let Some(task) = task else { return };
        loop {
            let task: Task = self.get(&format!("/v1/tasks/{task}?wait_ms=10000")).await;
            match task.state {
                TaskState::Done => return,
                TaskState::Running => {}
                TaskState::Failed => panic!("{task:?}"),
            }
        }
    }

    /// Makes a volume.
    pub(crate) async fn create(&self, name: &str, size: &str) {
        self.post("/v1/volumes", json!({"name": name, "size": size}))
            .await;
    }

    /// Opens a volume or a snapshot.
    pub(crate) async fn open(&self, volume: &str, snapshot: Option<&str>) -> Volume {
        let options = Options {
            program: "test".to_owned(),
            storaged: vec![Address::Unix(self.config.session_socket())],
            volume: volume.to_owned(),
            snapshot: snapshot.map(str::to_owned),
            read_only: false,
            wait: Duration::from_secs(10),
            read_cache: None,
        };
        let volume = Volume::open(options).await.unwrap();
        volume.opened().await;
        volume
    }

    /// What all of a volume or a snapshot holds, and that it can be opened.
    pub(crate) async fn content(&self, volume: &str, snapshot: Option<&str>, length: u64) -> Bytes {
        let device = self.open(volume, snapshot).await;
        let bytes = request::read(&device, 0, length).await.unwrap();
        device.close().await;
        bytes
    }

    /// Writes blocks of one value to a volume that nobody has open.
    pub(crate) async fn fill(&self, volume: &str, offset: u64, length: usize, value: u8) {
        let device = self.open(volume, None).await;
        request::write(&device, offset, Bytes::from(vec![value; length]))
            .await
            .unwrap();
        device.close().await;
    }

    /// What all disks hold together, in bytes.
    pub(crate) async fn used(&self) -> u64 {
        let disks: DiskList = self.get("/v1/disks").await;
        disks.disks.iter().filter_map(|disk| disk.used).sum()
    }

    /// Waits until the disks hold no more than so many bytes together.
    pub(crate) async fn until_used_at_most(&self, most: u64) {
        let wait = async {
            while self.used().await > most {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(LIMIT, wait).await.is_ok();
        assert!(
            in_time,
            "the disks hold {} bytes, more than {most}",
            self.used().await
        );
    }
}

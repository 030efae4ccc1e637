//! A small cloud for tests, and how a user asks it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cinder_api::device::{self, Work};
use client::device::BlockDevice;
use client::request;
use serde_json::{Value, json};
use tempfile::TempDir;
use test_node::{Etcd, Node, Process, new_folder};
use test_openstack::accounts::{CINDER, PASSWORD};
use test_openstack::http::{Answer, Method, Question};
use test_openstack::{Keystone, Port};

use crate::contract;

/// The password of the service's user, in a file as operators have it.
const PASSWORD_FILE: &str = "password";
/// How long something may take that is done after the answer.
const PATIENCE: Duration = Duration::from_secs(40);
/// Between looks.
const LOOK_AGAIN: Duration = Duration::from_millis(30);

/// Keystone, etcd, `storaged`, and `cinder-api` as often as was asked.
pub(crate) struct Cloud {
    pub(crate) apis: Vec<Api>,
    pub(crate) keystone: Arc<Keystone>,
    pub(crate) node: Node,
    pub(crate) etcd: Etcd,
    folder: TempDir,
    /// Sections of the configuration that tests differ in.
    sections: String,
}

/// A Keystone in a folder of its own below this one.
pub(crate) fn own_keystone(folder: &Path) -> Arc<Keystone> {
    let folder = folder.join("keystone");
    std::fs::create_dir(&folder).unwrap();
    Arc::new(Keystone::start(&folder).unwrap())
}

/// A `cinder-api`.
pub(crate) struct Api {
    pub(crate) process: Process,
    pub(crate) url: String,
    metrics: String,
    log: PathBuf,
}

impl Cloud {
    /// One with so many API processes, and the Keystone of all tests that only ask it: it takes seconds of a processor to
    /// start. Its folder is left to the system.
    pub(crate) fn start(apis: usize) -> Self {
        static OF_ALL: LazyLock<Arc<Keystone>> =
            LazyLock::new(|| own_keystone(&tempfile::tempdir().unwrap().keep()));
        Self::start_at(apis, &OF_ALL)
    }

    /// One with this Keystone.
    pub(crate) fn start_at(apis: usize, keystone: &Arc<Keystone>) -> Self {
        let folder = new_folder().unwrap();
        let sections = in_directory(folder.path());
        Self::assemble(apis, folder, Arc::clone(keystone), sections)
    }

    /// The same, with a Keystone of its own.
    pub(crate) fn start_alone(apis: usize) -> Self {
        Self::start_with(apis, |_, folder| in_directory(folder))
    }

    /// One whose configuration has other sections than that of a directory for backups, and what they need. Its Keystone is
    /// its own.
    pub(crate) fn start_with(apis: usize, sections: impl FnOnce(&Keystone, &Path) -> String) -> Self {
        let folder = new_folder().unwrap();
        let keystone = own_keystone(folder.path());
        let sections = sections(&keystone, folder.path());
        Self::assemble(apis, folder, keystone, sections)
    }

    fn assemble(apis: usize, folder: TempDir, keystone: Arc<Keystone>, sections: String) -> Self {
        let etcd = Etcd::start(1).unwrap();
        let node = Node::start(3).unwrap();
        node.storagectl(&["pool", "create", "main", "--copies", "3"])
            .unwrap();
        std::fs::write(folder.path().join(PASSWORD_FILE), format!("{PASSWORD}\n")).unwrap();
        let mut cloud = Self {
            apis: Vec::new(),
            sections,
            keystone,
            node,
            etcd,
            folder,
        };
        for _ in 0..apis {
            cloud.add();
        }
        cloud
    }

    /// Starts one more API process.
    pub(crate) fn add(&mut self) {
        self.add_with("");
    }

    /// The same, with more lines at the beginning of its configuration, and sections at its end after an empty one.
    pub(crate) fn add_with(&mut self, more: &str) {
        let (first, last) = more.split_once("\n\n").unwrap_or((more, ""));
        let number = self.apis.len();
        let address = Port::find().unwrap().leave();
        let metrics = Port::find().unwrap().leave();
        let endpoints = self.etcd.endpoints();
        let configuration = format!(
            "listen = [\"{address}\"]\nmetrics_listen = \"{metrics}\"\n{first}\n\
             [keystone]\nauth_url = \"{}\"\nusername = \"{CINDER}\"\npassword_file = \"{}\"\ntoken_cache_seconds = 1\n\
             [records]\netcd = {endpoints:?}\n[local]\n\
             [storage]\nadmin_socket = \"{}\"\nsession_socket = \"{}\"\n\
             [images]\nwork_dir = \"{}\"\n{}{last}\n",
            self.keystone.url(),
            self.folder.path().join(PASSWORD_FILE).display(),
            self.node.admin_socket().display(),
            self.node.session_socket().display(),
            self.folder.path().join(format!("work-{number}")).display(),
            self.sections,
        );
        let path = self.folder.path().join(format!("api-{number}.toml"));
        std::fs::write(&path, configuration).unwrap();
        let log = self.folder.path().join(format!("api-{number}.log"));
        let arguments = ["--config", path.to_str().unwrap()];
        let mut process = Process::start("cinder-api", arguments, &log).unwrap();
        let url = format!("http://{address}");
        let healthy = Question::get(format!("{url}/healthcheck"));
        process
            .wait_for("cinder-api to answer", || healthy.expect(200).ok())
            .unwrap();
        let metrics = format!("http://{metrics}/v1/metrics");
        self.apis.push(Api {
            process,
            url,
            metrics,
            log,
        });
    }

    /// Starts an iSCSI gateway with two portals.
    pub(crate) fn gateway(&self) -> Process {
        let log = self.node.folder().join("gateway.log");
        let arguments = [
            "--storaged",
            self.node.session_socket().to_str().unwrap(),
            "--admin-socket",
            self.node.admin_socket().to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
            "--listen",
            "127.0.0.1:0",
        ]
        .map(str::to_owned);
        let mut gateway = Process::start("storaged-iscsi", arguments, &log).unwrap();
        let portals = || self.node.storagectl(&["iscsi", "portal", "list"]).ok();
        gateway
            .wait_for("portals", || portals().filter(|list| list.contains("127.0.0.1:")))
            .unwrap();
        gateway
    }

    /// The directory of backups.
    pub(crate) fn backups(&self) -> PathBuf {
        backups_in(self.folder.path())
    }

    /// A folder for a test's own files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes to a volume of the API's, as a server would that has it.
    pub(crate) fn write(&self, volume: &str, offset: u64, bytes: Vec<u8>) {
        self.with(volume, move |device| {
            Box::pin(async move { Ok(request::write(device, offset, bytes.into()).await?) })
        });
    }

    /// What a volume of the API's holds somewhere.
    pub(crate) fn read(&self, volume: &str, offset: u64, length: u64) -> Bytes {
        self.with(volume, move |device| {
            Box::pin(async move { Ok(request::read(device, offset, length).await?) })
        })
    }

    fn with<T, W>(&self, volume: &str, work: W) -> T
    where
        T: Send + 'static,
        W: for<'a> FnOnce(&'a dyn BlockDevice) -> Work<'a, T> + Send + 'static,
    {
        let name = format!("volume-{volume}");
        let socket = self.node.session_socket();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime
            .block_on(device::with(&socket, (&name, None), work))
            .unwrap()
    }

    /// A user of a project, with a new token.
    pub(crate) fn user(&self, name: &str, project: &str) -> User {
        User {
            token: self.keystone.token(name, project).unwrap(),
        }
    }
}

fn backups_in(folder: &Path) -> PathBuf {
    folder.join("backups")
}

/// The section for backups in a directory.
pub(crate) fn in_directory(folder: &Path) -> String {
    format!("[backups]\ndirectory = \"{}\"\n", backups_in(folder).display())
}

/// Waits until something holds, which needs no user's question to the API.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

impl Api {
    /// What it tells Prometheus.
    pub(crate) fn metrics(&self) -> String {
        Question::get(&self.metrics).expect(200).unwrap().text
    }

    /// All that it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

/// Waits until something is so.
pub(crate) fn await_that(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within patience: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Who asks.
pub(crate) struct User {
    pub(crate) token: String,
}

impl User {
    /// A question in the newest version.
    pub(crate) fn question(&self, api: &Api, method: Method, path: &str) -> Question {
        let question = Question::new(method, format!("{}/v3{path}", api.url)).token(&self.token);
        question.header("OpenStack-API-Version", "volume 3.71")
    }

    /// The answer to a question without a body.
    pub(crate) fn ask(&self, api: &Api, method: Method, path: &str) -> Answer {
        let asked = method.clone();
        let answer = self.question(api, method, path).ask().unwrap();
        contract::hold(&asked, path, &answer);
        answer
    }

    /// The answer to something that is asked for with a body.
    pub(crate) fn send(&self, api: &Api, method: Method, path: &str, body: Value) -> Answer {
        let asked = method.clone();
        let answer = self.question(api, method, path).body(body).ask().unwrap();
        contract::hold(&asked, path, &answer);
        answer
    }

    /// Makes a volume of 1 GiB, and waits until it is there.
    pub(crate) fn volume(&self, api: &Api) -> String {
        let answer = self.send(api, Method::POST, "/volumes", json!({"volume": {"size": 1}}));
        assert_eq!(answer.status, 202, "{}", answer.text);
        let id = answer.body["volume"]["id"].as_str().unwrap().to_owned();
        self.wait(api, &id, "available");
        id
    }

    /// Waits until a volume is at something.
    pub(crate) fn wait(&self, api: &Api, volume: &str, status: &str) {
        self.wait_for(api, &format!("/volumes/{volume}"), "volume", status);
    }

    /// Waits until something is at something.
    pub(crate) fn wait_for(&self, api: &Api, path: &str, name: &str, status: &str) {
        self.wait_until(api, path, &format!("become {status}"), |answer| {
            answer.body[name]["status"] == status
        });
    }

    /// Waits until a path is answered with a status.
    pub(crate) fn wait_for_status(&self, api: &Api, path: &str, status: u16) {
        self.wait_until(api, path, &format!("answer {status}"), |answer| {
            answer.status == status
        });
    }

    fn wait_until(&self, api: &Api, path: &str, what: &str, is_good: impl Fn(&Answer) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(api, Method::GET, path);
            if is_good(&answer) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{path} does not {what}: {}",
                answer.text
            );
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits until a volume is gone.
    pub(crate) fn wait_until_gone(&self, api: &Api, volume: &str) {
        self.wait_for_status(api, &format!("/volumes/{volume}"), 404);
    }
}

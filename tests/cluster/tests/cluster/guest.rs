//! Volumes as a guest sees them, through any node, and what operators ask.

use std::time::Duration;

use admin_api::status::{Health, Status};
use bytes::Bytes;
use client::request;
use client::transport::{self, Address, Link};
use client::volume::{Options, Volume};
use protocol::codec::Message;
use protocol::session::{DiskView, SessionReply, SessionRequest, VolumeView};
use serde::de::DeserializeOwned;
use test_node::{Cluster, Node};
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;

/// Nothing here takes that long unless it hangs.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// Runs a test where volumes can live.
pub(crate) fn run(test: impl Future<Output = ()>) {
    run_for(LIMIT, test);
}

/// The same, of a test that waits for more.
pub(crate) fn run_for(limit: Duration, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let ended = tokio::time::timeout(limit, test).await;
        assert!(ended.is_ok(), "the test hangs");
    });
}

/// How a front end on that node opens a volume or, as `volume@snapshot`, a snapshot.
pub(crate) fn options(node: &Node, name: &str) -> Options {
    let (volume, snapshot) = match name.split_once('@') {
        Some((volume, snapshot)) => (volume, Some(snapshot.to_owned())),
        None => (name, None),
    };
    Options {
        program: "test".to_owned(),
        storaged: vec![Address::Unix(node.session_socket())],
        volume: volume.to_owned(),
        snapshot,
        read_only: false,
        wait: Duration::from_secs(20),
        read_cache: None,
    }
}

/// Where a front end on that node is told to look for a volume's disks.
pub(crate) async fn disks_of(node: &Node, volume: &str) -> Vec<DiskView> {
    look(node, volume).await.disks
}

/// What a front end on that node is told of a volume.
pub(crate) async fn look(node: &Node, volume: &str) -> VolumeView {
    let address = Address::Unix(node.session_socket());
    let mut link = Link::new(transport::connect(&address, None).await.unwrap());
    let hello = SessionRequest::Hello {
        program: "test".to_owned(),
        pid: std::process::id(),
        yields: false,
        moves: false,
    };
    let look = SessionRequest::Look {
        volume: volume.to_owned(),
    };
    link.outbox.push_session_request(0, &hello);
    link.outbox.push_session_request(1, &look);
    loop {
        if let (1, Message::SessionReply(SessionReply::Opened(view))) = link.converse().await.unwrap() {
            return *view;
        }
    }
}

/// Opens a volume or a snapshot on a node.
pub(crate) async fn open(node: &Node, name: &str) -> Volume {
    let volume = Volume::open(options(node, name)).await.unwrap();
    volume.opened().await;
    volume
}

/// Does something with the cluster on another thread, so that guests of this one go on.
pub(crate) async fn aside<T: Send + 'static>(
    cluster: Cluster,
    act: impl FnOnce(&mut Cluster) -> T + Send + 'static,
) -> (Cluster, T) {
    let act = move || {
        let mut cluster = cluster;
        let done = act(&mut cluster);
        (cluster, done)
    };
    tokio::task::spawn_blocking(act).await.unwrap()
}

/// Fills a range with one value.
pub(crate) async fn fill(volume: &Volume, offset: u64, length: usize, value: u8) {
    let bytes = Bytes::from(vec![value; length]);
    request::write(volume, offset, bytes).await.unwrap();
}

/// The one value that a range is filled with.
pub(crate) async fn value(volume: &Volume, offset: u64, length: u64) -> u8 {
    let bytes = request::read(volume, offset, length).await.unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "the range is mixed");
    bytes[0]
}

/// What `storagectl --json` answers, asked at a node where other tasks may run meanwhile.
pub(crate) async fn ask<T: DeserializeOwned + Send + 'static>(node: &Node, words: &str) -> T {
    let socket = node.admin_socket();
    let program = test_node::program("storagectl").unwrap();
    let mut command = tokio::process::Command::new(program);
    command.arg("--socket").arg(socket).arg("--json");
    let output = command.args(words.split(' ')).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "storagectl {words}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What `storagectl` says when it must refuse.
pub(crate) fn refused(node: &Node, words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    node.storagectl(&words).unwrap_err().to_string()
}

/// Asks until the answer is yes. Between two questions is a pause: whoever asks without one takes the processors from
/// those who are asked about. How long it may take in all is the test's limit.
pub(crate) async fn until(mut question: impl AsyncFnMut() -> bool) {
    let mut pause = tokio::time::interval(Duration::from_millis(100));
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pause.tick().await;
        if question().await {
            return;
        }
    }
}

/// Waits until the event log tells of something.
pub(crate) async fn until_told(node: &Node, words: &str) {
    until(async || events(node).await.contains(words)).await;
}

/// Waits until all copies are in sync.
pub(crate) async fn until_well(node: &Node) {
    until(async || ask::<Status>(node, "status").await.health == Health::Ok).await;
}

/// The event log, asked where guests run meanwhile.
pub(crate) async fn events(node: &Node) -> String {
    let mut command = tokio::process::Command::new(test_node::program("storagectl").unwrap());
    command.arg("--socket").arg(node.admin_socket());
    let output = command
        .args(["events", "--number", "200"])
        .output()
        .await
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

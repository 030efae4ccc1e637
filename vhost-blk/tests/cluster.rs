//! The program on a volume of a real `storaged`: sandboxed, under a user who has no rights, and asked by an
//! operator while disks are away.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that it did not expect"
)]

#[path = "program/driver.rs"]
mod driver;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use admin_api::vhost::{self, Announced, DeviceStatus, Hold};
use admin_api::{ErrorBody, ErrorKind};
use driver::{Driver, PATIENCE, Server, await_socket, pattern};
use reqwest::Client;
use serde::de::DeserializeOwned;
use serde_json::json;
use test_node::Node;

/// A user and a group that own nothing.
const NOBODY: u32 = 65534;
const SIZE: u64 = 64 << 20;

fn node() -> Node {
    let node = Node::start(1).unwrap();
    node.storagectl(&["pool", "create", "main", "--copies", "1"])
        .unwrap();
    node.storagectl(&["volume", "create", "disk", &SIZE.to_string()])
        .unwrap();
    node
}

/// Offers the volume `disk`; the words come before the program's name.
fn offer(node: &Node, prefix: &[&str]) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let program = driver::program_for_everybody(directory.path());
    if !prefix.is_empty() {
        chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let socket = directory.path().join("vhost.sock");
    let control = directory.path().join("control.sock");
    let words = prefix
        .iter()
        .map(std::ffi::OsStr::new)
        .chain([program.as_os_str()]);
    let words: Vec<_> = words.collect();
    let child = Command::new(words[0])
        .args(&words[1..])
        .arg("--storaged")
        .arg(node.session_socket())
        .args(["--volume", "disk", "--wait", "60", "--socket"])
        .arg(&socket)
        .arg("--control")
        .arg(&control)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server {
        child,
        socket,
        directory,
    };
    await_socket(&server.socket);
    server
}

async fn ask<T: DeserializeOwned>(
    server: &Server,
    path: &str,
    body: Option<serde_json::Value>,
) -> Result<T, ErrorBody> {
    let client = Client::builder()
        .unix_socket(server.control())
        .no_proxy()
        .build()
        .unwrap();
    let url = format!("http://vhost-blk{path}");
    let request = match body {
        Some(body) => client.post(url).json(&body),
        None => client.get(url),
    };
    let answer = request.send().await.unwrap();
    let good = answer.status().is_success();
    let bytes = answer.bytes().await.unwrap();
    if good {
        Ok(serde_json::from_slice(&bytes).unwrap())
    } else {
        Err(serde_json::from_slice(&bytes).unwrap())
    }
}

async fn stats(server: &Server) -> DeviceStatus {
    ask(server, vhost::STATS, None).await.unwrap()
}

/// Reads until some were done past the disk, whose places become known on the way.
async fn read_until_direct(server: &Server, driver: &mut Driver) {
    let deadline = Instant::now() + PATIENCE;
    while stats(server).await.direct_reads == 0 {
        assert!(Instant::now() < deadline, "no read is done directly");
        assert!(driver.read(0, 0, 65536) == (0, pattern(1, 65536)));
    }
}

#[tokio::test]
async fn under_the_sandbox_reads_go_past_the_disk_and_large_writes_through_shared_memory() {
    let mut node = node();
    let server = offer(&node, &[]);
    let mut driver = Driver::connect(&server.socket, 1);
    assert_eq!(driver.write(0, 0, &pattern(1, 1 << 20)), 0);
    assert_eq!(driver.write(0, 0, &pattern(1, 65536)), 0);
    read_until_direct(&server, &mut driver).await;
    let status = stats(&server).await;
    assert!(status.shared_writes > 0, "{status:?}");
    assert_eq!(
        (status.volume.as_str(), status.seccomp.as_str()),
        ("disk", "enforce")
    );
    assert!(status.generation > 0);
    // What is opened and mapped anew is let through, too.
    node.kill().unwrap();
    node.start_again().unwrap();
    assert_eq!(driver.write(0, 0, &pattern(1, 1 << 20)), 0);
    let (direct, shared) = (status.direct_reads, status.shared_writes);
    assert_eq!(driver.write(0, 0, &pattern(1, 65536)), 0);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = stats(&server).await;
        if status.direct_reads > direct && status.shared_writes > shared {
            break;
        }
        assert!(Instant::now() < deadline, "after storaged came back: {status:?}");
        assert!(driver.read(0, 0, 65536) == (0, pattern(1, 65536)));
        assert_eq!(driver.write(0, 1 << 20, &pattern(2, 1 << 20)), 0);
    }
}

fn let_in(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Lets everybody do what docs/operations/hypervisors.md lets a group do.
fn open_to_all(node: &Node) {
    let disks = node.folder().join("disks");
    let_in(node.folder(), 0o711);
    let_in(&disks, 0o711);
    let_in(&node.session_socket(), 0o666);
    for entry in fs::read_dir(&disks).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let_in(&path, 0o711);
            let_in(&path.join("data"), 0o644);
            let_in(&path.join("witness"), 0o644);
        } else {
            let_in(&path, 0o666);
        }
    }
}

#[tokio::test]
async fn a_user_without_rights_serves_a_volume_and_reads_past_the_disk() {
    if !rustix::process::geteuid().is_root() {
        // Who is not root has no rights anyhow: the test before this one was it.
        return;
    }
    let node = node();
    open_to_all(&node);
    let setpriv = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
    ];
    let server = offer(&node, &setpriv);
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    assert!(
        status.contains("\nUid:\t65534\t65534\t65534\t65534\n"),
        "{status}"
    );
    assert!(status.contains("\nCapEff:\t0000000000000000\n"), "{status}");
    let mut driver = Driver::connect(&server.socket, 1);
    assert_eq!(driver.write(0, 0, &pattern(1, 65536)), 0);
    read_until_direct(&server, &mut driver).await;
}

#[tokio::test]
async fn a_rest_that_disks_do_not_allow_in_time_is_refused_and_the_guest_goes_on() {
    let node = node();
    let server = offer(&node, &[]);
    let mut driver = Driver::connect(&server.socket, 1);
    assert_eq!(driver.write(0, 0, &pattern(1, 4096)), 0);
    node.storaged().freeze().unwrap();
    driver.queue_write(0, 0, 0, 4096);
    driver.kick(0);
    let deadline = Instant::now() + PATIENCE;
    while stats(&server).await.in_flight == 0 {
        assert!(Instant::now() < deadline, "the write is not taken");
    }
    let drained: Result<Hold, ErrorBody> = ask(&server, vhost::DRAIN, Some(json!({ "limit_ms": 100 }))).await;
    let refused = drained.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    assert!(
        refused.message.contains("1 requests were still under way"),
        "{}",
        refused.message
    );
    assert!(stats(&server).await.holds.is_empty());
    node.storaged().thaw().unwrap();
    assert_eq!(driver.answers(0, 1)[0].1, 0);
    // With the disk back there is a rest.
    let held: Hold = ask(&server, vhost::DRAIN, Some(json!({ "limit_ms": 60_000 })))
        .await
        .unwrap();
    assert_eq!(stats(&server).await.holds[0].hold, held.hold);
}

#[tokio::test]
async fn a_new_size_is_read_anew_from_storaged() {
    let node = node();
    let server = offer(&node, &[]);
    node.storagectl(&["volume", "grow", "disk", "128M"]).unwrap();
    let announced: Announced = ask(&server, vhost::RESIZE, Some(json!(null))).await.unwrap();
    assert_eq!(announced.size, 128 << 20);
    assert_eq!(stats(&server).await.size, 128 << 20);
}

/// Law: a rest does not wait for the volume's limits, nor does a hypervisor that stops its queues.
#[tokio::test]
async fn a_rest_does_not_wait_for_the_volumes_limits() {
    const WRITES: usize = 20;
    // At one a second they would take twice as long.
    const LIMIT_MS: u64 = 10_000;
    let node = node();
    node.storagectl(&["volume", "limit", "disk", "--write-iops", "1"])
        .unwrap();
    let server = offer(&node, &[]);
    let mut driver = Driver::connect(&server.socket, 1);
    for _ in 0..WRITES {
        driver.queue_write(0, 0, 0, 4096);
    }
    driver.kick(0);
    let deadline = Instant::now() + PATIENCE;
    // The bucket holds two, and the third is the first that has waited. So all others do.
    while stats(&server).await.throttled_requests == 0 {
        assert!(Instant::now() < deadline, "no write waits for its turn");
    }
    let rest = json!({ "limit_ms": LIMIT_MS });
    let held: Hold = ask(&server, vhost::DRAIN, Some(rest)).await.unwrap();
    assert!(held.drained_ms < LIMIT_MS);
    let status = stats(&server).await;
    assert_eq!(status.in_flight, 0, "{status:?}");
    assert_eq!(status.throttled_requests, WRITES as u64 - 2, "{status:?}");
    let answers = driver.answers(0, WRITES);
    assert!(answers.iter().all(|(_, result)| *result == 0), "{answers:?}");
}

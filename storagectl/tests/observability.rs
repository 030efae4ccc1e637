//! What real processes tell of themselves: the metrics are those of the document, and `top` shows volumes and disks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;
use test_node::metrics::{documented, served};
use test_node::{Node, Process};

/// A node with two volumes: one behind vhost-blk, one behind the NBD gateway and open there.
struct Bench {
    node: Node,
    vhost: Process,
    nbd: Process,
    client: NbdClient,
}

impl Bench {
    fn new() -> Self {
        let node = Node::start(3).unwrap();
        node.storagectl(&["pool", "create", "main", "--copies", "3"])
            .unwrap();
        for volume in ["one", "two"] {
            node.storagectl(&["volume", "create", volume, "1G"]).unwrap();
        }
        let file = |name: &str| node.folder().join(name);
        let unix = |name: &str| format!("unix:{}", file(name).display());
        let start = |program: &str, arguments: &[String], socket: &str| {
            let arguments = [&["--storaged".to_owned(), unix("storaged.sock")], arguments].concat();
            let mut process = Process::start(program, arguments, &file(&format!("{program}.log"))).unwrap();
            process.wait_for_socket(&file(socket)).unwrap();
            process
        };
        let words = |line: &[&str]| line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let socket = file("one.sock").display().to_string();
        let vhost = start(
            "vhost-blk",
            &words(&[
                "--volume",
                "one",
                "--socket",
                &socket,
                "--control",
                &unix("one.control"),
            ]),
            "one.sock",
        );
        let nbd = start(
            "storaged-nbd",
            &words(&[
                "--listen",
                &unix("nbd.sock"),
                "--control",
                &unix("nbd.control"),
                "--log-format",
                "json",
            ]),
            "nbd.sock",
        );
        let client = NbdClient::open("two", &file("nbd.sock"));
        Self {
            node,
            vhost,
            nbd,
            client,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.node.folder().join(name)
    }
}

/// A client that stays connected: qemu-io, told what to do line by line.
struct NbdClient {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl NbdClient {
    fn open(volume: &str, socket: &Path) -> Self {
        let url = format!("nbd+unix:///{volume}?socket={}", socket.display());
        let mut command = Command::new("qemu-io");
        command
            .args(["-f", "raw", &url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let spawned = command.spawn();
        let mut process = spawned.unwrap_or_else(|error| panic!("qemu-io is needed (qemu-utils): {error}"));
        let commands = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self {
            process,
            commands,
            answers,
        }
    }

    /// Does one thing and waits for the answer, which begins with `word`.
    fn perform(&mut self, command: &str, word: &str) {
        writeln!(self.commands, "{command}").unwrap();
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            assert_ne!(self.answers.read_line(&mut line).unwrap(), 0, "qemu-io has ended");
        }
    }
}

impl Drop for NbdClient {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn get(socket: &Path, path: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder()
            .unix_socket(socket)
            .no_proxy()
            .build()
            .unwrap();
        let answer = client.get(format!("http://here{path}")).send().await.unwrap();
        answer.error_for_status().unwrap().text().await.unwrap()
    })
}

#[test]
fn processes_serve_the_metrics_of_the_document_and_top_shows_what_happens() {
    let mut bench = Bench::new();
    bench.client.perform("write -P 7 0 64k", "ops");
    bench.client.perform("read -P 7 0 64k", "ops");
    for (program, socket) in [
        ("storaged", "admin.sock"),
        ("vhost-blk", "one.control"),
        ("storaged-nbd", "nbd.control"),
    ] {
        let documented = documented(program);
        assert!(documented.len() > 10, "{program}'s table was not found");
        let text = get(&bench.file(socket), "/v1/metrics");
        let mut served = served(&text);
        for (name, meaning) in &mut served {
            // Nothing has a label of what there is none of, such as certificates for an etcd.
            let has_samples = text.lines().any(|line| line.starts_with(name.as_str()));
            if let (false, Some(documented)) = (has_samples, documented.get(name)) {
                meaning.1.clone_from(&documented.1);
            }
        }
        assert_eq!(served, documented, "{program}");
    }
    let text = get(&bench.file("nbd.control"), "/v1/metrics");
    for line in [
        r#"storaged_nbd_request_bytes_total{volume="two",kind="write"} 65536"#,
        r#"storaged_nbd_request_seconds_count{volume="two",kind="read"} 1"#,
        r#"storaged_nbd_clients{volume="two"} 1"#,
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    let text = get(&bench.file("admin.sock"), "/v1/metrics");
    for disk in 1..=3 {
        let written = format!(r#"storaged_disk_request_seconds_count{{disk="{disk}",kind="write"}} "#);
        let line = text.lines().find_map(|line| line.strip_prefix(&written)).unwrap();
        assert_ne!(line, "0", "each disk has a copy, and took its time");
    }
    top_shows_what_happens(&mut bench);
    bench.vhost.stop().unwrap();
    bench.nbd.stop().unwrap();
    lines_of_the_log_are_objects(&bench.file("storaged-nbd.log"));
}

fn top_shows_what_happens(bench: &mut Bench) {
    let mut top = Command::new(env!("CARGO_BIN_EXE_storagectl"));
    top.env("STORAGED_ADMIN", bench.node.admin_socket());
    top.args(["--json", "top", "--once", "--controls"])
        .arg(bench.node.folder());
    let mut top = top.stdout(Stdio::piped()).spawn().unwrap();
    while top.try_wait().unwrap().is_none() {
        bench.client.perform("write 0 4k", "ops");
    }
    let view: Value = serde_json::from_reader(top.stdout.take().unwrap()).unwrap();
    assert!(top.wait().unwrap().success());
    let volumes = view["volumes"].as_array().unwrap();
    let of = |name: &str| volumes.iter().find(|line| line["volume"] == name).unwrap();
    assert!(of("two")["write"]["per_s"].as_f64().unwrap() > 0.0, "{view:#}");
    assert!(of("two")["write"]["p99_us"].as_f64().unwrap() > 0.0, "{view:#}");
    assert_eq!(
        (&of("two")["program"], &of("one")["program"]),
        (&"nbd".into(), &"vhost-blk".into())
    );
    let disks = view["disks"].as_array().unwrap();
    assert_eq!(disks.len(), 3, "{view:#}");
    for disk in disks {
        assert_eq!(disk["state"], "up");
        assert!(disk["log"]["per_s"].as_f64().unwrap() > 0.0, "{view:#}");
    }
    assert_eq!(view["notes"], Value::Array(Vec::new()), "{view:#}");
}

fn lines_of_the_log_are_objects(log: &Path) {
    let text = std::fs::read_to_string(log).unwrap();
    // The gateway also prints where it listens.
    let lines = text.lines().filter(|line| !line.starts_with("listening on "));
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let opened = lines.iter().find(|line| line["message"] == "open").unwrap();
    assert_eq!(opened["span"]["volume"], "two", "{opened}");
    assert_eq!(
        (&opened["level"], opened["timestamp"].is_string()),
        (&"INFO".into(), true)
    );
}

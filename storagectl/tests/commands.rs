//! storagectl against a real storaged: what a person types, what comes back, and with which status.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use test_node::Node;

/// A node with a pool, and storagectl on it.
struct Bench {
    node: Node,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            node: Node::start(3).unwrap(),
        };
        bench.good("pool create main --copies 3");
        bench
    }

    fn run(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_storagectl"))
            .args(line.split(' '))
            .env("STORAGED_ADMIN", self.node.admin_socket())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs a line that must end well; what it printed.
    fn good(&self, line: &str) -> String {
        let output = self.run(line);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {:?}: {said}", output.status);
        assert_eq!(said, "", "{line} complains, though it ended well");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a line that must end with this status and a sentence with these words, and print nothing else.
    fn bad(&self, line: &str, status: i32, words: &[&str]) {
        let output = self.run(line);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{line}: {said}");
        for word in words {
            assert!(said.contains(word), "{line}: {word:?} is not in {said:?}");
        }
        assert_eq!(output.stdout, b"", "{line} answers, though it failed");
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.good(&format!("--json {line}"))).unwrap()
    }

    fn volumes(&self) -> Vec<String> {
        let list = self.json("volume list");
        list["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|volume| volume["name"].as_str().unwrap().into())
            .collect()
    }
}

#[test]
fn copies_are_checked_and_the_report_says_what_was_looked_at() {
    let bench = Bench::new();
    bench.good("volume create alpha 64M");
    bench.good("volume snapshot alpha first");
    let report = bench.json("volume check alpha --deep --snapshot first");
    assert_eq!(report["subject"], "alpha@first");
    assert_eq!((&report["unmended"], &report["deep"]), (&0.into(), &true.into()));
    assert_eq!(report["disks"], serde_json::json!([1, 2, 3]));
    let said = bench.good("volume check alpha");
    assert!(said.contains("none; --deep reads them"), "{said}");
    bench.good("disk scrub 2 --deep --wait");
    bench.good("pool scrub main --wait");
    let events = bench.good("events");
    assert!(
        events.contains("disk-2 was scrubbed") && events.contains("all is well"),
        "{events}"
    );
    bench.bad(
        "volume check alpha --snapshot none",
        3,
        &["no snapshot alpha@none"],
    );
    bench.bad("disk scrub 9", 3, &["no disk 9"]);
}

#[test]
fn a_volume_becomes_a_disk_of_another_host_and_its_secret_is_shown_once() {
    let bench = Bench::new();
    let (target, host) = ("iqn.2026-11.org.example:disks", "iqn.1993-08.org.debian:01:a");
    bench.good("volume create vm-1 64M");
    let said = bench.good(&format!("iscsi target create {target}"));
    assert!(said.contains("lets nobody in"), "{said}");
    bench.good(&format!("iscsi lun add {target} vm-1 --block-size 4096"));
    let added = bench.json(&format!(
        "iscsi acl add {target} {host} --chap-user a --chap-generate"
    ));
    let secret = added["chap_secret"].as_str().unwrap();
    assert_eq!(
        (secret.len(), &added["access"][0]["chap_user"]),
        (16, &"a".into())
    );
    let shown = bench.good(&format!("iscsi target show {target}"));
    assert!(
        shown.contains("vm-1") && shown.contains(host) && !shown.contains(secret),
        "{shown}"
    );
    bench.bad(&format!("iscsi mutual set {target}"), 1, &["--chap-secret-file"]);
    bench.good(&format!("iscsi mutual set {target} --chap-generate"));
    bench.bad("volume delete vm-1 --yes", 1, &[target, "iscsi lun remove"]);
    bench.bad(&format!("iscsi lun remove {target} 0"), 6, &["--yes"]);
    bench.good(&format!("iscsi lun remove {target} 0 --yes"));
    bench.bad(&format!("iscsi lun remove {target} 0 --yes"), 3, &["no LUN 0"]);
    bench.good(&format!("iscsi acl remove {target} {host} --yes"));
    bench.good(&format!("iscsi target delete {target} --yes"));
    bench.bad(&format!("iscsi target show {target}"), 3, &["no iSCSI target"]);
    bench.good("volume delete vm-1 --yes");
}

#[test]
fn a_volume_lives_from_create_to_delete() {
    let bench = Bench::new();
    let said = bench.good("volume create my-new-disk 1TB");
    assert!(
        said.contains("my-new-disk created") && said.contains("(1000000000000 bytes)"),
        "{said}"
    );
    assert!(
        bench.good("volume create odd 5000").contains("note: "),
        "rounding is said"
    );
    assert_eq!(bench.json("volume info odd")["size"], 8192);
    assert!(bench.good("vdi list").contains("my-new-disk"));

    bench.good("volume grow odd +4K");
    assert_eq!(bench.json("volume info odd")["size"], 12288);
    bench.good("volume rename odd even");
    assert_eq!(bench.volumes(), ["even", "my-new-disk"]);

    bench.good("volume snapshot even first");
    bench.good("volume clone even@first copy");
    assert_eq!(bench.json("volume info copy")["origin"]["volume"], "even");
    let tree = bench.good("volume tree even");
    for part in ["o even@first", "* even", "* copy"] {
        assert!(tree.contains(part), "{part}: {tree}");
    }
    bench.good("volume rollback even@first --yes");
    // What was cut off is discarded in the background; until then storaged has the volume open itself.
    let shrunk = bench.json("volume shrink even 4096 --yes");
    bench.good(&format!("task wait {}", shrunk["task"]));

    bench.bad("volume delete even --yes", 1, &["snapshot"]);
    bench.good("volume delete even --yes --with-snapshots --wait");
    assert_eq!(bench.volumes(), ["copy", "my-new-disk"]);
    bench.good("volume delete copy --yes --wait");
}

#[test]
fn what_is_wrong_gets_a_sentence_and_a_status_and_changes_nothing() {
    let bench = Bench::new();
    bench.good("volume create db 1G");
    bench.bad("volume create db 1G", 1, &["db", "already"]);
    bench.bad("volume create -- -rf 1G", 1, &["start with a letter or a digit"]);
    bench.bad("volume create a/b 1G", 1, &["contains '/'"]);
    bench.bad("volume create big 2P", 1, &["at most 1 PiB"]);
    bench.bad("volume create none 0", 1, &["zero"]);
    bench.bad("volume create odd 10X", 1, &["not a size", "10G"]);
    bench.bad("volume create db2 1G --pool nowhere", 3, &["nowhere"]);
    bench.bad("volume info nowhere", 3, &["nowhere"]);
    bench.bad("volume snapshot nowhere s", 3, &["nowhere"]);
    bench.bad("volume clone db@nowhere c", 3, &["nowhere"]);
    bench.bad("volume grow db 1K", 1, &["1 GiB", "cut data off"]);
    bench.bad("volume shrink db 2G --yes", 1, &["grow"]);
    bench.bad("volume delete db", 6, &["--yes", "Nothing was changed"]);
    bench.bad("volume clone db c", 2, &["volume@snapshot"]);
    bench.bad("pool delete main --yes", 1, &["volume"]);
    assert_eq!(bench.volumes(), ["db"]);
    assert_eq!(bench.json("volume info db")["size"], 1 << 30);
    assert_eq!(bench.json("snapshot list")["snapshots"], Value::Array(Vec::new()));
}

#[test]
fn several_volumes_are_frozen_at_one_instant_or_none_is() {
    let bench = Bench::new();
    bench.good("volume create a 1G");
    bench.good("volume create b 1G");
    let said = bench.good("snapshot create before a b");
    assert!(said.contains("a@before") && said.contains("b@before"), "{said}");
    bench.bad("snapshot create again a nowhere b", 3, &["nowhere"]);
    bench.bad("snapshot create before a b", 1, &["already"]);
    let list = bench.json("snapshot list");
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 2);
    bench.good("snapshot delete a@before --yes --wait");
    assert!(bench.good("snapshot list").contains("b@before"));
    bench.bad("snapshot info a@before", 3, &["before"]);
}

#[test]
fn the_state_of_the_whole_is_told() {
    let bench = Bench::new();
    assert!(bench.good("status --check").contains("3 of 3 up"));
    assert_eq!(bench.json("status")["health"], "ok");
    let disks = bench.json("disk list");
    assert_eq!(disks["disks"].as_array().unwrap().len(), 3);
    let first = disks["disks"][0]["id"].as_u64().unwrap();
    bench.good(&format!("disk weight {first} 5"));
    assert_eq!(bench.json(&format!("disk info {first}"))["weight"], 5);
    bench.good("volume create db 1G");
    assert!(bench.good("events").contains("db"));
    assert_eq!(bench.json("pool list")["pools"][0]["copies"], 3);
    bench.good("task list");
}

#[test]
fn a_storaged_that_is_not_there_is_a_status_of_its_own() {
    let output = Command::new(env!("CARGO_BIN_EXE_storagectl"))
        .args(["--socket", "/nonexistent/admin.sock", "status"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/admin.sock"));
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_storagectl"))
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

//! Import and export of images, with qemu-img as the judge.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use test_node::{Node, Process};

/// Size of the disk in the images: mostly holes.
const SIZE: &str = "1G";
/// What the images hold, as qemu-io writes it: offset, length, byte.
const CONTENT: [(&str, &str, &str); 4] = [
    ("0", "64k", "0x11"),
    ("1m", "4k", "0x22"),
    ("100m", "3m", "0x33"),
    ("1020m", "4m", "0x44"),
];
/// What those writes add up to, in bytes, rounded up generously: three copies of it, and metadata.
const USED_MAX: u64 = 3 * 16 * 1024 * 1024;

fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn image(path: &str, format: &str) {
    tool("qemu-img", &["create", "-q", "-f", format, path, SIZE]);
    for (offset, length, byte) in CONTENT {
        tool(
            "qemu-io",
            &[
                "-f",
                format,
                "-c",
                &format!("write -q -P {byte} {offset} {length}"),
                path,
            ],
        );
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn an_image_comes_back_as_it_went_in_and_stays_sparse() {
    let node = Node::start(3).unwrap();
    node.storagectl(&["pool", "create", "main"]).unwrap();
    for format in ["qcow2", "raw"] {
        let source = node.folder().join(format!("source.{format}"));
        image(text(&source), format);
        node.storagectl(&["import", text(&source), format]).unwrap();

        let target = node.folder().join(format!("target.{format}"));
        node.storagectl(&["export", format, text(&target), "--format", format])
            .unwrap();
        tool(
            "qemu-img",
            &[
                "compare",
                "-f",
                format,
                "-F",
                format,
                text(&source),
                text(&target),
            ],
        );

        // Of a snapshot as well, into the other format.
        node.storagectl(&["volume", "snapshot", format, "s"]).unwrap();
        let other = if format == "raw" { "qcow2" } else { "raw" };
        let target = node.folder().join(format!("snapshot-of-{format}"));
        node.storagectl(&["export", &format!("{format}@s"), text(&target), "--format", other])
            .unwrap();
        tool(
            "qemu-img",
            &["compare", "-f", format, "-F", other, text(&source), text(&target)],
        );
    }
    let status: Value = serde_json::from_str(&node.storagectl(&["--json", "status"]).unwrap()).unwrap();
    let used = status["used"].as_u64().unwrap();
    assert!(
        used < 2 * USED_MAX,
        "two mostly empty images of {SIZE} take {used} bytes"
    );
}

#[test]
fn an_import_that_fails_leaves_no_volume() {
    let node = Node::start(3).unwrap();
    node.storagectl(&["pool", "create", "main"]).unwrap();
    let source = node.folder().join("source.qcow2");
    image(text(&source), "qcow2");

    let error = node
        .storagectl(&["import", text(&source), "small", "--size", "1M"])
        .unwrap_err();
    assert!(error.to_string().contains("does not fit"), "{error}");
    let broken = node.folder().join("no-nbd.sock");
    let error = node
        .storagectl(&["import", text(&source), "lost", "--nbd", text(&broken)])
        .unwrap_err();
    assert!(error.to_string().contains("removed again"), "{error}");

    let backed = node.folder().join("backed.qcow2");
    tool(
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            text(&source),
            "-F",
            "qcow2",
            text(&backed),
        ],
    );
    let error = node.storagectl(&["import", text(&backed), "backed"]).unwrap_err();
    assert!(error.to_string().contains("needs another one"), "{error}");

    let volumes: Value =
        serde_json::from_str(&node.storagectl(&["--json", "volume", "list"]).unwrap()).unwrap();
    assert_eq!(volumes["volumes"], Value::Array(Vec::new()));
}

#[test]
fn what_an_nbd_server_exports_becomes_a_volume() {
    let node = Node::start(3).unwrap();
    node.storagectl(&["pool", "create", "main"]).unwrap();
    let source = node.folder().join("source.qcow2");
    image(text(&source), "qcow2");
    let socket = node.folder().join("export.sock");
    let mut server = Process::start_at(
        Path::new("qemu-nbd"),
        [
            "--read-only",
            "--persistent",
            "-f",
            "qcow2",
            "-k",
            text(&socket),
            text(&source),
        ],
        &node.folder().join("qemu-nbd.log"),
    )
    .unwrap();
    server.wait_for_socket(&socket).unwrap();
    let address = format!("nbd+unix:///?socket={}", text(&socket));
    node.storagectl(&["import", &address, "moved"]).unwrap();
    server.kill().unwrap();
    let target = node.folder().join("target.raw");
    node.storagectl(&["export", "moved", text(&target)]).unwrap();
    tool(
        "qemu-img",
        &[
            "compare",
            "-f",
            "qcow2",
            "-F",
            "raw",
            text(&source),
            text(&target),
        ],
    );
    let error = node
        .storagectl(&["import", &address, "again"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("qemu-img cannot read it"), "{error}");
}

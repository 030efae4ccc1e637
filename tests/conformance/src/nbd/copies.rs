//! Images in and out: what comes out is what went in, and holes stay holes on both ways.

use std::path::Path;

use anyhow::ensure;
use serde_json::Value;

use crate::image;
use crate::nbd::MIB;
use crate::nbd::patterns::io;
use crate::stage::{Forked, Stage};
use crate::suite::{Check, Finding};
use crate::tool::{bounded, fail, succeed};

pub(super) const CHECKS: &[Check<Stage>] = &[
    Check {
        name: "nbdcopy brings an image in and out, holes and odd size included",
        tools: &["nbdcopy"],
        run: nbdcopy,
    },
    Check {
        name: "qemu-img convert brings a raw image in and out",
        tools: &["qemu-img"],
        run: raw,
    },
    Check {
        name: "qemu-img convert brings a qcow2 image in and out",
        tools: &["qemu-img"],
        run: qcow2,
    },
    Check {
        name: "qemu-img convert replaces what an export held before",
        tools: &["qemu-img", "qemu-io"],
        run: replace,
    },
    Check {
        name: "qemu-img compare sees one byte",
        tools: &["qemu-img", "qemu-io"],
        run: one_byte,
    },
    Check {
        name: "a hundred gigabytes of nothing are mapped and copied at once",
        tools: &["qemu-img", "nbdcopy"],
        run: emptiness,
    },
    Check {
        name: "an overlay on an export reads through it",
        tools: &["qemu-img", "qemu-io"],
        run: overlay,
    },
    Check {
        name: "qemu-nbd passes an export on",
        tools: &["qemu-nbd", "nbdcopy"],
        run: proxy,
    },
];

/// Random bytes at the start, across an object's border, small and not aligned, and at the end.
const RUNS: &[(u64, usize)] = &[
    (0, 1 << 20),
    (4 * MIB - 70_000, 140_000),
    (9 * MIB + 5, 1000),
    (39 * MIB, 999_999),
];
/// Where the last run ends: no multiple of anything.
const SIZE: u64 = 39 * MIB + 999_999;

pub(super) fn source(stage: &Stage) -> anyhow::Result<String> {
    let path = stage.path("source.raw");
    image::create(Path::new(&path), SIZE, RUNS)?;
    Ok(path)
}

pub(super) fn same(one: &str, other: &str) -> Finding {
    let difference = image::difference(Path::new(one), Path::new(other))?;
    ensure!(
        difference.is_none(),
        "{one} and {other} differ at byte {difference:?}"
    );
    Ok(())
}

/// Copies must not take much more of the file system than what the source has bytes.
fn sparse(path: &str) -> Finding {
    let allocated = image::allocated(Path::new(path))?;
    ensure!(
        allocated < 8 * MIB,
        "{path} takes {allocated} bytes: its holes were filled"
    );
    Ok(())
}

fn nbdcopy(stage: &mut Stage) -> Finding {
    let (source, back, uri) = (source(stage)?, stage.path("back.raw"), stage.uri("disk"));
    succeed(
        "nbdcopy",
        ["--connections=4", "--requests=64", "--flush", &source, &uri],
    )?;
    succeed("nbdcopy", ["--connections=4", "--requests=64", &uri, &back])?;
    same(&source, &back)?;
    sparse(&back)
}

fn raw(stage: &mut Stage) -> Finding {
    let (source, back, uri) = (source(stage)?, stage.path("back.raw"), stage.uri("disk"));
    succeed(
        "qemu-img",
        [
            "convert", "-n", "-f", "raw", "-O", "raw", "-W", "-m", "16", &source, &uri,
        ],
    )?;
    succeed("qemu-img", ["compare", "-f", "raw", "-F", "raw", &source, &uri])?;
    succeed("qemu-img", ["convert", "-f", "raw", "-O", "raw", &uri, &back])?;
    same(&source, &back)?;
    sparse(&back)?;
    let map: Value =
        serde_json::from_str(&succeed("qemu-img", ["map", "--output=json", "-f", "raw", &uri])?)?;
    let runs = map.as_array().map(Vec::as_slice).unwrap_or_default();
    let data: u64 = runs
        .iter()
        .filter(|run| run["data"] == true)
        .filter_map(|run| run["length"].as_u64())
        .sum();
    ensure!(data < 4 * MIB, "{data} bytes of the export hold data:\n{map:#}");
    Ok(())
}

fn qcow2(stage: &mut Stage) -> Finding {
    let (source, uri) = (source(stage)?, stage.uri("disk"));
    let (packed, back) = (stage.path("source.qcow2"), stage.path("back.qcow2"));
    succeed(
        "qemu-img",
        ["convert", "-f", "raw", "-O", "qcow2", "-c", &source, &packed],
    )?;
    succeed(
        "qemu-img",
        ["convert", "-n", "-f", "qcow2", "-O", "raw", &packed, &uri],
    )?;
    succeed("qemu-img", ["compare", "-f", "qcow2", "-F", "raw", &packed, &uri])?;
    succeed("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", &uri, &back])?;
    succeed(
        "qemu-img",
        ["compare", "-f", "raw", "-F", "qcow2", &source, &back],
    )?;
    sparse(&back)
}

fn replace(stage: &mut Stage) -> Finding {
    let (source, back, uri) = (
        stage.path("source.raw"),
        stage.path("back.raw"),
        stage.uri("disk"),
    );
    image::create(Path::new(&source), 64 * MIB, RUNS)?;
    io(&uri, &["write -P 9 0 32M", "write -P 9 32M 32M"])?;
    succeed(
        "qemu-img",
        ["convert", "-n", "-f", "raw", "-O", "raw", &source, &uri],
    )?;
    succeed("nbdcopy", [&uri, &back])?;
    same(&source, &back)?;
    sparse(&back)
}

fn one_byte(stage: &mut Stage) -> Finding {
    let (source, uri) = (source(stage)?, stage.uri("disk"));
    succeed(
        "qemu-img",
        ["convert", "-n", "-f", "raw", "-O", "raw", &source, &uri],
    )?;
    io(&uri, &["write -P 1 20000000 1"])?;
    let said = fail("qemu-img", ["compare", "-f", "raw", "-F", "raw", &source, &uri])?;
    ensure!(said.contains("Content mismatch"), "{said}");
    Ok(())
}

fn emptiness(stage: &mut Stage) -> Finding {
    let (uri, back) = (stage.uri("large"), stage.path("back.qcow2"));
    io(&uri, &["write -P 5 100000000000 1M"])?;
    let map = succeed("qemu-img", ["map", "--output=json", "-f", "raw", &uri])?;
    let map: Value = serde_json::from_str(&map)?;
    let runs = map.as_array().map(Vec::as_slice).unwrap_or_default();
    let data: Vec<&Value> = runs.iter().filter(|run| run["data"] == true).collect();
    ensure!(data.len() == 1, "one run of data: {map:#}");
    succeed("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", &uri, &back])?;
    sparse(&back)?;
    succeed("nbdcopy", [uri.as_str(), "null:"])?;
    Ok(())
}

fn overlay(stage: &mut Stage) -> Finding {
    let (uri, top) = (stage.uri("disk"), stage.path("top.qcow2"));
    io(&uri, &["write -P 1 0 2M"])?;
    succeed(
        "qemu-img",
        ["create", "-f", "qcow2", "-b", &uri, "-F", "raw", &top],
    )?;
    let commands = [
        "read -P 1 0 2M",
        "write -P 2 1M 64k",
        "read -P 2 1M 64k",
        "read -P 1 1088k 64k",
    ];
    let arguments = commands.iter().flat_map(|command| ["-c", *command]);
    let said = succeed(
        "qemu-io",
        ["-f", "qcow2"].into_iter().chain(arguments).chain([top.as_str()]),
    )?;
    ensure!(!said.contains("verification failed"), "{said}");
    succeed("qemu-img", ["commit", "-f", "qcow2", &top])?;
    io(
        &uri,
        &["read -P 1 0 1M", "read -P 2 1M 64k", "read -P 1 1088k 64k"],
    )?;
    Ok(())
}

fn proxy(stage: &mut Stage) -> Finding {
    let (source, back, socket) = (source(stage)?, stage.path("back.raw"), stage.path("proxy.sock"));
    let passed_on = format!("nbd+unix:///?socket={socket}");
    let mut command = bounded("qemu-nbd");
    command.args([
        "--socket",
        &socket,
        "--persistent",
        "--fork",
        "--pid-file",
        &stage.path("proxy.pid"),
    ]);
    command.args(["--format", "raw", "--discard=unmap", &stage.uri("disk")]);
    let _proxy = Forked::start(&mut command, Path::new(&stage.path("proxy.pid")))?;
    succeed("nbdcopy", ["--flush", source.as_str(), passed_on.as_str()])?;
    succeed("nbdcopy", [stage.uri("disk").as_str(), back.as_str()])?;
    same(&source, &back)
}

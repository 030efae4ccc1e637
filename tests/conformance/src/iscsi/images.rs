//! Images in and out by QEMU's own initiator: what comes out is what went in, and what is discarded takes no space.

use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;
use vm_tests::packages::ISCSI_MODULE;

use crate::image;
use crate::iscsi::{LONG_BLOCKS, Portal, SHORT_BLOCKS, UNIT};
use crate::suite::{Check, Finding};
use crate::tool::succeed;

pub(super) const CHECKS: &[Check<Portal>] = &[
    Check {
        name: "qemu-img convert brings an image in and out, with short and with long blocks",
        tools: &["qemu-img", ISCSI_MODULE],
        run: in_and_out,
    },
    Check {
        name: "what qemu-io discards reads as zeros and is shown as a hole",
        tools: &["qemu-img", "qemu-io", ISCSI_MODULE],
        run: discard,
    },
];

const MIB: u64 = 1 << 20;
/// Random bytes at the start, across an object's border, small and not aligned, and at the end.
const RUNS: &[(u64, usize)] = &[
    (0, 1 << 20),
    (4 * MIB - 70_000, 140_000),
    (9 * MIB + 5, 1000),
    (UNIT - MIB, 1 << 20),
];

fn in_and_out(stage: &mut Portal) -> Finding {
    let (source, back) = (stage.file("source.raw"), stage.file("back.raw"));
    image::create(Path::new(&source), UNIT, RUNS)?;
    for number in [SHORT_BLOCKS, LONG_BLOCKS] {
        let unit = stage.unit("", number)?;
        succeed(
            "qemu-img",
            ["convert", "-n", "-f", "raw", "-O", "raw", &source, &unit],
        )?;
        succeed("qemu-img", ["compare", "-f", "raw", "-F", "raw", &source, &unit])?;
        succeed("qemu-img", ["convert", "-f", "raw", "-O", "raw", &unit, &back])?;
        let difference = image::difference(Path::new(&source), Path::new(&back))?;
        ensure!(
            difference.is_none(),
            "unit {number} differs at byte {difference:?}"
        );
    }
    Ok(())
}

fn discard(stage: &mut Portal) -> Finding {
    let unit = stage.unit("", SHORT_BLOCKS)?;
    let io = |command: &str| succeed("qemu-io", ["-f", "raw", "-d", "unmap", "-c", command, &unit]);
    io("write -P 7 0 12M")?;
    io("discard 4M 4M")?;
    let said = io("read -P 0 4M 4M")?;
    ensure!(!said.contains("Pattern verification failed"), "{said}");
    let map = succeed("qemu-img", ["map", "-f", "raw", "--output=json", &unit])?;
    let map: Value = serde_json::from_str(&map)?;
    let runs = map.as_array().context("no list of runs")?;
    let hole = |run: &Value| run["start"] == 4 * MIB && run["length"] == 4 * MIB && run["data"] == false;
    ensure!(runs.iter().any(hole), "no hole of 4 MiB: {map}");
    Ok(())
}

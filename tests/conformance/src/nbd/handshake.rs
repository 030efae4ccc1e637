//! What clients are told before they read or write.

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::nbd::{LARGE, MIB};
use crate::stage::Stage;
use crate::suite::{Check, Finding};
use crate::tool::{fail, succeed};

pub(super) const CHECKS: &[Check<Stage>] = &[
    Check {
        name: "nbdinfo sees the size, every feature and the block sizes",
        tools: &["nbdinfo"],
        run: features,
    },
    Check {
        name: "nbdinfo lists every export",
        tools: &["nbdinfo"],
        run: list,
    },
    Check {
        name: "qemu-nbd lists every export",
        tools: &["qemu-nbd"],
        run: qemu_list,
    },
    Check {
        name: "an unknown export is refused with its name",
        tools: &["nbdinfo", "qemu-img"],
        run: unknown,
    },
    Check {
        name: "qemu-img info sees the virtual size",
        tools: &["qemu-img"],
        run: qemu_info,
    },
];

fn features(stage: &mut Stage) -> Finding {
    let said = succeed("nbdinfo", ["--json", &stage.uri("disk")])?;
    let said: Value = serde_json::from_str(&said)?;
    let export = &said["exports"][0];
    ensure!(export["export-size"] == 64 * MIB, "the size: {export:#}");
    for feature in [
        "can_cache",
        "can_df",
        "can_fast_zero",
        "can_flush",
        "can_fua",
        "can_multi_conn",
        "can_trim",
        "can_zero",
    ] {
        ensure!(export[feature] == true, "{feature}: {export:#}");
    }
    ensure!(export["is_read_only"] == false, "it can be written: {export:#}");
    ensure!(
        export["contexts"][0] == "base:allocation",
        "block status: {export:#}"
    );
    let sizes = ["block_size_minimum", "block_size_preferred", "block_size_maximum"];
    let sizes = sizes.map(|size| export[size].as_u64());
    ensure!(
        sizes == [Some(1), Some(4096), Some(32 * MIB)],
        "block sizes: {sizes:?}"
    );
    ensure!(said["structured"] == true, "structured replies: {said:#}");
    Ok(())
}

fn list(stage: &mut Stage) -> Finding {
    let said = succeed("nbdinfo", ["--json", "--list", &stage.uri("")])?;
    let said: Value = serde_json::from_str(&said)?;
    let exports = said["exports"].as_array().context("no list")?;
    let names: Vec<&str> = exports
        .iter()
        .filter_map(|export| export["export-name"].as_str())
        .collect();
    ensure!(names == ["disk", "large"], "the names: {names:?}");
    ensure!(
        exports[1]["export-size"] == LARGE,
        "the size of the second: {said:#}"
    );
    Ok(())
}

fn qemu_list(stage: &mut Stage) -> Finding {
    let said = succeed("qemu-nbd", ["--list", "--socket", &stage.socket()])?;
    ensure!(said.contains("exports available: 2"), "{said}");
    ensure!(
        said.contains("export: 'disk'") && said.contains("export: 'large'"),
        "{said}"
    );
    Ok(())
}

fn unknown(stage: &mut Stage) -> Finding {
    let uri = stage.uri("nowhere");
    let said = fail("nbdinfo", [uri.as_str()])?;
    ensure!(said.contains("nowhere"), "nbdinfo: {said}");
    let said = fail("qemu-img", ["info", uri.as_str()])?;
    ensure!(
        said.contains("there is no export \"nowhere\""),
        "qemu-img: {said}"
    );
    Ok(())
}

fn qemu_info(stage: &mut Stage) -> Finding {
    let said = succeed("qemu-img", ["info", "--output=json", &stage.uri("large")])?;
    let said: Value = serde_json::from_str(&said)?;
    ensure!(said["virtual-size"] == LARGE, "{said:#}");
    Ok(())
}

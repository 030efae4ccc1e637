//! Two gateways of one cluster as two paths to one disk.

use anyhow::ensure;

use crate::iscsi::{Portal, SHORT_BLOCKS, TARGET, TRUSTED};
use crate::suite::{Check, Finding};
use crate::tool::succeed;

pub(super) const CHECKS: &[Check<Portal>] = &[
    Check {
        name: "either portal tells of both",
        tools: &["iscsi-ls"],
        run: told,
    },
    Check {
        name: "what was written by one path is read by the other after the first died",
        tools: &["qemu-io"],
        run: survival,
    },
];

fn told(stage: &mut Portal) -> Finding {
    for path in 0..2 {
        let seen = succeed("iscsi-ls", ["-i", TRUSTED, &stage.portal_of(path, "")?])?;
        ensure!(seen.matches(TARGET).count() == 2, "two portals: {seen}");
    }
    Ok(())
}

fn survival(stage: &mut Portal) -> Finding {
    let first = stage.path(0, SHORT_BLOCKS)?;
    succeed("qemu-io", ["-f", "raw", "-c", "write -P 9 1536 1M", &first])?;
    let second = stage.path(1, SHORT_BLOCKS)?;
    stage.crash(0)?;
    let said = succeed("qemu-io", ["-f", "raw", "-c", "read -P 9 1536 1M", &second])?;
    ensure!(!said.contains("verification failed"), "{said}");
    Ok(())
}

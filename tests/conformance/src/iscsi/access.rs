//! Who is let in, and who is not.

use anyhow::ensure;

use crate::iscsi::{CAREFUL, Portal, SECRET, SHORT_BLOCKS, TARGET, TRUSTED};
use crate::suite::{Check, Finding};
use crate::tool::{fail, succeed};

pub(super) const CHECKS: &[Check<Portal>] = &[
    Check {
        name: "an initiator that is named sees the target and its units, and a stranger sees nothing",
        tools: &["iscsi-ls"],
        run: discovery,
    },
    Check {
        name: "a stranger is not let in",
        tools: &["iscsi-inq"],
        run: stranger,
    },
    Check {
        name: "an initiator with a secret is let in with it, and not without it or with another",
        tools: &["iscsi-inq"],
        run: secret,
    },
];

fn discovery(stage: &mut Portal) -> Finding {
    let portal = stage.portal("")?;
    let seen = succeed("iscsi-ls", ["-s", "-i", TRUSTED, &portal])?;
    ensure!(seen.contains(TARGET), "the target is not listed: {seen}");
    let units = 2 * stage.paths();
    ensure!(
        seen.matches("DIRECT_ACCESS").count() == units,
        "{units} units: {seen}"
    );
    let seen = succeed("iscsi-ls", ["-i", "iqn.2026-01.example:stranger", &portal])?;
    ensure!(!seen.contains(TARGET), "a stranger sees {seen}");
    Ok(())
}

fn stranger(stage: &mut Portal) -> Finding {
    let unit = stage.unit("", SHORT_BLOCKS)?;
    let said = fail("iscsi-inq", ["-i", "iqn.2026-01.example:stranger", &unit])?;
    ensure!(said.contains("Authorization failure"), "another error: {said}");
    Ok(())
}

fn secret(stage: &mut Portal) -> Finding {
    let unit = stage.unit(&format!("careful%{SECRET}@"), SHORT_BLOCKS)?;
    let said = succeed("iscsi-inq", ["-i", CAREFUL, &unit])?;
    ensure!(said.contains("STORAGED"), "no unit of ours: {said}");
    for user in ["careful%not-the-secret-16@", "somebody%a-secret-of-16-b@", ""] {
        let unit = stage.unit(user, SHORT_BLOCKS)?;
        let said = fail("iscsi-inq", ["-i", CAREFUL, &unit])?;
        ensure!(said.contains("Authentication"), "another error: {said}");
    }
    Ok(())
}

//! `storagectl disk inspect` and `check`: read a disk's directory without a daemon.

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::json;
use store::check::Report;

use crate::output::Form;

/// Shows what is in a disk's directory.
pub(super) fn inspect(directory: &Path, form: Form) -> Result<()> {
    show(&store::check::inspect(directory)?, form)
}

/// Verifies a disk's directory.
pub(super) fn check(directory: &Path, form: Form) -> Result<()> {
    show(&store::check::check(directory)?, form)
}

/// Shows a report. Problems are the status too.
fn show(report: &Report, form: Form) -> Result<()> {
    let doubts = report.doubts.iter();
    let value = json!({
        "disk": report.format.disk.0,
        "log_bytes": report.format.log_bytes,
        "log_used_bytes": report.log_used_bytes,
        "log_batches": report.log_batches,
        "log_torn_tail": report.log_torn_tail,
        "objects": report.objects,
        "chunks": report.chunks,
        "blocks": report.blocks,
        "blocks_verified": report.blocks_verified,
        "used_bytes": report.used_bytes,
        "doubts": doubts.map(|(object, stamp)| format!("{object} at {stamp}")).collect::<Vec<_>>(),
        "volumes": report.volumes,
        "groups": report.groups,
        "problems": report.problems,
        "further_problems": report.further_problems,
    });
    form.show(&value, |_| report.to_string())?;
    match report.problems.len() as u64 + report.further_problems {
        0 => Ok(()),
        count => bail!("the disk has {count} problems: replace it, or restore it from its peers"),
    }
}

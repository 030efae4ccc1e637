//! `storagectl disk inspect` and `check`: read a disk's directory without a daemon.

use std::path::Path;

use anyhow::{Result, bail};

use crate::output::Form;

/// Shows what is in a disk's directory.
pub(super) fn inspect(_directory: &Path, _form: Form) -> Result<()> {
    bail!("not built yet")
}

/// Verifies a disk's directory.
pub(super) fn check(_directory: &Path, _form: Form) -> Result<()> {
    bail!("not built yet")
}

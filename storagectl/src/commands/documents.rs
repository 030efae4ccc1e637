//! `storagectl completion` and `storagectl man`: documents that clap makes from the command line's definition.

use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::output::line;

/// Prints a completion script.
pub(super) fn completion(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "storagectl", &mut script);
    line(&String::from_utf8(script).context("read the completion script")?)
}

/// Writes a man page for each command.
pub(super) fn man(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    clap_mangen::generate_to(Arguments::command(), folder)
        .with_context(|| format!("write man pages into {}", folder.display()))
}

#[cfg(test)]
mod tests {
    //! The documents are there and say something.
    use super::*;

    #[test]
    fn there_is_a_man_page_for_each_command() {
        let folder = tempfile::tempdir().unwrap();
        man(&folder.path().join("man1")).unwrap();
        for page in [
            "storagectl.1",
            "storagectl-volume-create.1",
            "storagectl-disk-check.1",
        ] {
            let text = std::fs::read_to_string(folder.path().join("man1").join(page)).unwrap();
            assert!(text.contains(".SH DESCRIPTION"), "{page}");
        }
    }
}

//! `storagectl snapshot`.

use admin_api::names::Reference;
use clap::Subcommand;

/// Frozen states of volumes.
#[derive(Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Freezes the state of one or several volumes, all at the same instant.
    #[command(after_help = "Example:\n  storagectl snapshot create before-upgrade database web queue")]
    Create {
        /// The name that each of the snapshots gets.
        name: String,
        /// The volumes.
        #[arg(required = true)]
        volumes: Vec<String>,
    },
    /// Lists the snapshots of a volume, or of all.
    #[command(visible_alias = "ls")]
    List {
        /// The volume.
        volume: Option<String>,
    },
    /// Shows all about one snapshot.
    Info {
        /// The snapshot, as volume@snapshot.
        #[arg(value_parser = parse_snapshot)]
        snapshot: Reference,
    },
    /// Deletes a snapshot. Clones of it stay as they are. Its space comes back in the background.
    Delete {
        /// The snapshot, as volume@snapshot.
        #[arg(value_parser = parse_snapshot)]
        snapshot: Reference,
        /// Wait until its space is back.
        #[arg(long)]
        wait: bool,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

/// `volume@snapshot`, both named.
pub(super) fn parse_snapshot(text: &str) -> Result<Reference, String> {
    let reference: Reference = text
        .parse()
        .map_err(|error: admin_api::names::NameError| error.to_string())?;
    if reference.snapshot.is_none() {
        return Err(format!("a snapshot is written volume@snapshot: {text}@NAME"));
    }
    Ok(reference)
}

#[cfg(test)]
mod tests {
    //! A forgotten snapshot name must not act on the volume.
    use super::*;

    #[test]
    fn a_snapshot_has_both_names() {
        assert!(parse_snapshot("db@monday").is_ok());
        assert!(parse_snapshot("db").unwrap_err().contains("db@NAME"));
        assert!(parse_snapshot("db@").is_err());
    }
}

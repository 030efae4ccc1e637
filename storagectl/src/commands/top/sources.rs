//! Where the figures come from: `storaged`, and the control sockets of front ends.

use std::path::{Path, PathBuf};

use admin_api::figures::{FrontEndFigures, NodeFigures};
use admin_api::routes;
use admin_api::status::Status;
use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::api::{Api, Place};

/// Where control sockets are by convention (docs/operations/metrics.md).
const FOLDERS: [&str; 2] = ["/run/storaged-vhost", "/run/storaged-nbd"];
/// How the name of a control socket ends.
const SUFFIX: &str = "control";
/// Control sockets that are asked at most: far more than a node has guests.
const SOCKETS_MAX: usize = 4096;

/// All figures of one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) node: NodeFigures,
    pub(super) front_ends: Vec<FrontEndFigures>,
    /// Volumes that somebody has open, as `storaged` knows.
    pub(super) volumes_open: u64,
    /// Who did not answer, in sentences.
    pub(super) silent: Vec<String>,
}

impl Sample {
    /// Asks all.
    pub(super) async fn take(api: &Api, controls: &[PathBuf]) -> Result<Self> {
        let mut asked = JoinSet::new();
        for socket in sockets(controls)? {
            let api = Api::of_front_end(Place::Socket(socket))?;
            asked.spawn(async move { api.get::<FrontEndFigures>(routes::FIGURES).await });
        }
        let node = api.get(routes::FIGURES).await?;
        let status: Status = api.get(routes::STATUS).await?;
        let (mut front_ends, mut silent) = (Vec::new(), Vec::new());
        while let Some(answer) = asked.join_next().await {
            match answer.context("ask a front end")? {
                Ok(figures) => front_ends.push(figures),
                Err(error) => silent.push(error.to_string()),
            }
        }
        front_ends.sort_by_key(|front_end| front_end.pid);
        silent.sort();
        Ok(Self {
            node,
            front_ends,
            volumes_open: status.volumes_open,
            silent,
        })
    }
}

/// The control sockets that are there.
fn sockets(controls: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut sockets = Vec::new();
    for place in controls {
        if place.is_dir() {
            sockets.extend(in_folder(place).with_context(|| format!("look into {}", place.display()))?);
        } else {
            sockets.push(place.clone());
        }
    }
    if controls.is_empty() {
        // Nobody said that they are there, or may be looked into.
        let found = FOLDERS
            .iter()
            .filter_map(|folder| in_folder(Path::new(folder)).ok());
        sockets.extend(found.flatten());
    }
    sockets.sort();
    sockets.truncate(SOCKETS_MAX);
    Ok(sockets)
}

fn in_folder(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let paths = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    Ok(paths
        .filter(|path| path.extension().is_some_and(|suffix| suffix == SUFFIX))
        .collect())
}

#[cfg(test)]
mod tests {
    //! A folder stands for the control sockets in it; a socket for itself, whatever its name.
    use super::*;

    #[test]
    fn folders_are_looked_into_and_sockets_are_taken_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.control", "a.control", "a.sock"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let named = folder.path().join("a.sock");
        let found = sockets(&[folder.path().to_owned(), named.clone()]).unwrap();
        let control = |name: &str| folder.path().join(name);
        assert_eq!(found, [control("a.control"), named, control("b.control")]);
    }
}

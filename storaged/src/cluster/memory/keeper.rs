//! When a node's memory is written: at once after the first change, and then no more often than named here. What is
//! remembered is what [`super::super::recall`] believes, never what a store shows that went back.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coordination::ClusterMap;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use super::Memory;
use crate::cluster::identity::Identity;

/// Between two writes, at least: what changed in between is lost if all nodes lose their power at that moment.
const EVERY: Duration = Duration::from_millis(500);
/// Of the time, one part in so many is spent with writing: a large file on a slow disk is written less often.
const SHARE: u32 = 10;

/// Maps that are believed.
pub type Believed = watch::Receiver<Arc<ClusterMap>>;

/// Keeps the file. Cheap to clone.
#[derive(Clone)]
pub struct Keeper(Arc<Shared>);

struct Shared {
    work_dir: PathBuf,
    own: Identity,
    believed: Believed,
    /// What the file has. Held while it is written: there is one unfinished file at a time.
    written: Mutex<Option<Arc<ClusterMap>>>,
}

impl Keeper {
    /// Remembers the newest of these in a node's work directory.
    pub fn new(work_dir: PathBuf, own: Identity, believed: Believed) -> Self {
        Self(Arc::new(Shared {
            work_dir,
            own,
            believed,
            written: Mutex::new(None),
        }))
    }

    /// Writes for ever: run it as a task.
    pub async fn run(self) {
        let mut believed = self.0.believed.clone();
        loop {
            let took = self.write().await;
            sleep(EVERY.max(took.saturating_mul(SHARE))).await;
            if believed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Writes what is not written yet; gives how long that took.
    pub async fn write(&self) -> Duration {
        let shared = Arc::clone(&self.0);
        let begun = Instant::now();
        let written = tokio::task::spawn_blocking(move || shared.write()).await;
        if let Err(error) = written {
            warn!(%error, "the node's memory was not written");
        }
        begun.elapsed()
    }
}

impl Shared {
    fn write(&self) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.believed.borrow().clone();
        if written
            .as_ref()
            .is_some_and(|known| known.remembers_the_same(&newest))
        {
            return;
        }
        let memory = Memory::of(&newest).map_err(|error| error.to_string());
        let done = memory.and_then(|memory| {
            memory
                .write(&self.work_dir, &self.own)
                .map_err(|error| error.to_string())
        });
        match done {
            Ok(()) => *written = Some(newest),
            // With the next change it is tried again.
            Err(error) => warn!(
                error,
                "the node's memory cannot be written: if all nodes stop now and the coordination store is restored from a \
                 backup, it will not know what came after it"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    //! What is believed is in the file, and what has not changed is not written again.
    use super::*;
    use crate::membership::fixture;
    use protocol::NodeId;
    use protocol::session::SlotState;

    #[tokio::test]
    async fn the_newest_map_is_written_and_the_same_one_is_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let own = Identity {
            cluster: [1; 16],
            node: NodeId(1),
            serial: [2; 16],
        };
        let first = Arc::new(fixture::map_of_nodes(3, &[1, 2], SlotState::InSync));
        let (believe, believed) = watch::channel(first);
        let keeper = Keeper::new(folder.path().to_owned(), own, believed);
        keeper.write().await;
        let known = || Memory::recollect(folder.path(), &own);
        assert_eq!(known().unwrap().up, [NodeId(1), NodeId(2)].into());
        std::fs::remove_file(folder.path().join("memory")).unwrap();
        keeper.write().await;
        assert_eq!(known(), None);
        believe.send_replace(Arc::new(fixture::map_of_nodes(3, &[2], SlotState::Down)));
        keeper.write().await;
        let second = known().unwrap();
        assert_eq!(second.up, [NodeId(2)].into());
        assert_eq!(
            second.records.len(),
            second.records.keys().filter(|key| key.starts_with('/')).count()
        );
    }
}

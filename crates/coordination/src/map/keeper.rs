//! Keeps a [`ClusterMap`] up with the coordination store, and hands it out.
//!
//! One task a process. Others hold a [`MapWatch`]: the newest map at any moment, and a way to wait
//! for a revision. A watch works on every runtime and thread.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, warn};

use super::ClusterMap;
use crate::keys::ROOT;
use crate::records::RecordError;
use crate::store::{Coordination, CoordinationError, Revision, Watch};

/// Between attempts to list again when the store is away: a guess that neither presses nor dawdles.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Why the map can no longer be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The store refused for good.
    #[error(transparent)]
    Store(#[from] CoordinationError),
}

/// Keeps the map. Run it as a task with [`MapKeeper::run`].
pub struct MapKeeper {
    store: Arc<dyn Coordination>,
    watch: Watch,
    sender: watch::Sender<Arc<ClusterMap>>,
}

/// The newest map. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MapWatch(watch::Receiver<Arc<ClusterMap>>);

impl MapKeeper {
    /// Reads the whole store once.
    pub async fn start(store: Arc<dyn Coordination>) -> Result<(Self, MapWatch), KeeperError> {
        let (map, watch) = list(store.as_ref()).await?;
        let (sender, receiver) = watch::channel(Arc::new(map));
        Ok((Self { store, watch, sender }, MapWatch(receiver)))
    }

    /// Follows the store until a record cannot be read or the store is out of service, which is for
    /// the caller to act upon: the map must not be used for long after that.
    pub async fn run(mut self) -> KeeperError {
        loop {
            let next = match self.watch.next().await {
                Ok(batch) => self.sender.borrow().apply(&batch).map_err(KeeperError::from),
                Err(_) => self.list_again().await,
            };
            match next {
                Ok(map) => self.publish(map),
                Err(error) => return error,
            }
        }
    }

    async fn list_again(&mut self) -> Result<ClusterMap, KeeperError> {
        loop {
            match list(self.store.as_ref()).await {
                Ok((map, watch)) => {
                    self.watch = watch;
                    return Ok(map);
                }
                // It does not come back by itself: what is on its disk is unknown until it is opened
                // again.
                Err(error @ (KeeperError::Record(_) | KeeperError::Store(CoordinationError::Failed(_)))) => {
                    return Err(error);
                }
                Err(KeeperError::Store(error)) => {
                    warn!(error = %error, "cannot list the coordination store, trying again");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    fn publish(&self, map: ClusterMap) {
        debug!(revision = map.revision().0, "the map moved on");
        self.sender.send_replace(Arc::new(map));
    }
}

async fn list(store: &dyn Coordination) -> Result<(ClusterMap, Watch), KeeperError> {
    let range = store.range(ROOT).await?;
    let watch = store.watch(ROOT, range.revision).await?;
    Ok((ClusterMap::build(&range)?, watch))
}

impl MapWatch {
    /// The newest map.
    pub fn current(&self) -> Arc<ClusterMap> {
        self.0.borrow().clone()
    }

    /// The newest map, marked as seen for [`MapWatch::changed`].
    pub fn current_and_seen(&mut self) -> Arc<ClusterMap> {
        self.0.borrow_and_update().clone()
    }

    /// Waits for a map that was not seen yet; false when no more will come. Safe to cancel.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    /// Waits until the map is at `revision` or later. The last map when no more will come.
    pub async fn at_least(&self, revision: Revision) -> Arc<ClusterMap> {
        let mut receiver = self.0.clone();
        let found = receiver
            .wait_for(|map| map.revision() >= revision)
            .await
            .map(|map| map.clone());
        found.unwrap_or_else(|_| self.current())
    }
}

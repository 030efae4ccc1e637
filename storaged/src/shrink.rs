//! Finishes shrinks: what was cut off is made to read as zeros, so that it does not come back when
//! the volume grows again. Found again after a restart, from the volumes' records.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::VolumeId;
use tracing::warn;

use crate::tasks::{Tasks, Worker};
use crate::volumes::rest::RestError;
use crate::volumes::{OperationError, Volumes};

/// When to try again while somebody has the volume open, or something is away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Finishes shrinks in the background. Cheap to clone.
#[derive(Clone)]
pub struct Shrinks(Arc<Shared>);

struct Shared {
    volumes: Arc<Volumes>,
    tasks: Tasks,
    running: Mutex<BTreeSet<VolumeId>>,
}

impl Shrinks {
    /// Works on these volumes.
    pub fn new(volumes: Arc<Volumes>, tasks: Tasks) -> Self {
        Self(Arc::new(Shared {
            volumes,
            tasks,
            running: Mutex::default(),
        }))
    }

    /// Takes up all shrinks that were not finished when `storaged` stopped.
    pub fn resume(&self) {
        let map = self.0.volumes.map();
        let unfinished = map.families().flat_map(|(_, family)| {
            let volumes = family.volumes().iter();
            volumes
                .filter(|(_, volume)| volume.record.discard_to.is_some())
                .map(|(id, _)| *id)
        });
        for id in unfinished {
            self.begin(id);
        }
    }

    /// Begins to finish a volume's shrink; gives the task's number, or nothing if that is being
    /// done already.
    pub fn begin(&self, id: VolumeId) -> Option<u64> {
        if !self.running().insert(id) {
            return None;
        }
        let name = self
            .0
            .volumes
            .map()
            .volume(id)
            .map(|(_, volume)| volume.record.name.clone());
        let worker = self
            .0
            .tasks
            .begin("shrink", name.unwrap_or_else(|| id.to_string()), "bytes");
        let task = worker.id();
        let this = self.clone();
        tokio::spawn(async move {
            match this.work(id, &worker).await {
                Ok(()) => worker.finish("what was cut off is gone"),
                Err(error) => {
                    warn!(volume = %id, %error, "a shrink is not finished");
                    worker.fail(error.to_string());
                }
            }
            this.running().remove(&id);
        });
        Some(task)
    }

    fn running(&self) -> MutexGuard<'_, BTreeSet<VolumeId>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(&self, id: VolumeId, worker: &Worker) -> Result<(), OperationError> {
        // A volume that was deleted, or rolled back, has nothing left to be discarded.
        while let Some((from, to)) = self.range(id) {
            worker.say(format!("discards bytes {from} to {to}"));
            let progress = |bytes| worker.advance(bytes);
            let obstacle = match self.0.volumes.owners().zero_beyond(id, from, to, &progress).await {
                Ok(()) => {
                    self.0.volumes.finish_shrink(id, to).await?;
                    continue;
                }
                Err(obstacle) => obstacle,
            };
            if !matches!(obstacle, RestError::InUse(_)) {
                warn!(volume = %id, error = %obstacle, "what a shrink cut off cannot be discarded now");
            }
            worker.say(format!("tries again: {obstacle}"));
            tokio::time::sleep(RETRY_AFTER).await;
        }
        Ok(())
    }

    fn range(&self, id: VolumeId) -> Option<(u64, u64)> {
        let map = self.0.volumes.map();
        let record = &map.volume(id)?.1.record;
        record.discard_to.map(|to| (record.size, to))
    }
}

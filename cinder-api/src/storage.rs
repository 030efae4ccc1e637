//! The storage behind the API: volumes, snapshots and pools of storaged, by the names that records give them.
//!
//! Every change here can be asked for twice: a job that another process began is begun anew.

use std::path::Path;
use std::time::Duration;

use admin_api::ErrorKind;
use admin_api::limits::VolumeLimits;
use admin_api::pools::Pool;
use admin_api::volumes::Volume;
use admin_client::{AskError, VolumeDirectory};

use crate::metrics::{self, Whom};

/// Bytes of a GiB: what sizes are counted in.
pub const GIB: u64 = 1 << 30;

/// The storage. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Storage(VolumeDirectory);

impl Storage {
    /// That of the node whose admin socket this is.
    pub fn new(admin_socket: &Path) -> Result<Self, AskError> {
        VolumeDirectory::new(admin_socket).map(|directory| Self(directory.observed_by(count)))
    }

    /// What can be asked of it directly.
    pub fn directory(&self) -> &VolumeDirectory {
        &self.0
    }

    /// All pools, by name.
    pub async fn pools(&self) -> Result<Vec<Pool>, AskError> {
        self.0.pools().await
    }

    /// Makes an empty volume of so many GiB.
    pub async fn create(&self, name: &str, gib: u64, pool: &str) -> Result<(), AskError> {
        unless_there(self.0.create(name, gib * GIB, pool).await)
    }

    /// Makes a volume from a snapshot, of so many GiB: at least what the snapshot has.
    pub async fn clone_snapshot(
        &self,
        (volume, snapshot): (&str, &str),
        name: &str,
        gib: u64,
    ) -> Result<(), AskError> {
        unless_there(self.0.clone_snapshot(volume, snapshot, name).await)?;
        self.grow(name, gib).await
    }

    /// Makes a volume from another one as it is now, of so many GiB. The snapshot on the way is named after the new volume,
    /// and does not stay.
    pub async fn clone_volume(&self, source: &str, name: &str, gib: u64) -> Result<(), AskError> {
        if self.0.volume(name).await?.is_none() {
            unless_there(self.0.snapshot(source, name).await)?;
            unless_there(self.0.clone_snapshot(source, name, name).await)?;
        }
        unless_gone(self.0.delete_snapshot(source, name).await)?;
        self.grow(name, gib).await
    }

    /// Makes a volume so many GiB large, unless it is already.
    pub async fn grow(&self, name: &str, gib: u64) -> Result<(), AskError> {
        let size = self.volume(name).await?.map_or(0, |volume| volume.size);
        if size >= gib * GIB {
            return Ok(());
        }
        self.0.grow(name, gib * GIB).await.map(|_| ())
    }

    /// Has a volume keep to these limits and no others, whoever has it open.
    pub async fn limit(&self, name: &str, limits: &VolumeLimits) -> Result<(), AskError> {
        let present = self.volume(name).await?.map(|volume| volume.limits);
        if present.as_ref() == Some(limits) {
            return Ok(());
        }
        self.0.limit(name, limits).await.map(|_| ())
    }

    /// Deletes a volume with all its snapshots.
    pub async fn delete(&self, name: &str) -> Result<(), AskError> {
        unless_gone(self.0.delete(name, true).await)
    }

    /// Takes a snapshot.
    pub async fn snapshot(&self, volume: &str, name: &str) -> Result<(), AskError> {
        unless_there(self.0.snapshot(volume, name).await)
    }

    /// Deletes a snapshot. What was cloned from it stays.
    pub async fn delete_snapshot(&self, volume: &str, name: &str) -> Result<(), AskError> {
        unless_gone(self.0.delete_snapshot(volume, name).await)
    }

    /// Puts a volume back to a snapshot.
    pub async fn roll_back(&self, volume: &str, snapshot: &str) -> Result<(), AskError> {
        self.0.roll_back(volume, snapshot).await.map(|_| ())
    }

    /// A volume as it is; nothing if it is not.
    pub async fn volume(&self, name: &str) -> Result<Option<Volume>, AskError> {
        self.0.volume(name).await
    }
}

/// Counts a question. A refusal that says why is an answer.
fn count(answer: Result<(), &AskError>, time: Duration) {
    let failed = answer.is_err_and(|error| {
        let refusal = error.kind();
        refusal.is_none_or(|kind| matches!(kind, ErrorKind::Internal | ErrorKind::Unavailable))
    });
    metrics::asked(Whom::Storage, failed, time);
}

fn unless_there<T>(made: Result<T, AskError>) -> Result<(), AskError> {
    match made {
        Err(error) if error.kind() == Some(ErrorKind::AlreadyExists) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// A deletion of what is not there has nothing to do.
pub(crate) fn unless_gone(deleted: Result<(), AskError>) -> Result<(), AskError> {
    match deleted {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

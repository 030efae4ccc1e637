//! Volumes, snapshots, pools, and the iSCSI targets that volumes are reached by.
//!
//! Names are put into paths as they are: whoever asks has made them from letters, digits and dashes, or checked them.

use std::path::Path;
use std::time::Duration;

use admin_api::iscsi::{AddAccess, AddLun, CreateTarget, PortalList, TargetInfo, TargetList};
use admin_api::limits::VolumeLimits;
use admin_api::pools::{Pool, PoolList};
use admin_api::routes::{self, fill};
use admin_api::sizes::SizeInput;
use admin_api::snapshots::{CloneSnapshot, CreateGroupSnapshot, CreateSnapshot, Snapshot, SnapshotList};
use admin_api::tasks::Deleted;
use admin_api::volumes::{
    CreateVolume, RenameVolume, ResizeVolume, RetypeVolume, RollbackVolume, Volume, VolumeAnswer, VolumeList,
};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::asker::{ANSWER_TIME_MAX, AskError, Asker, Observer};

/// How long a change may take that waits for owners to come to rest, or for disks.
const CHANGE_TIME_MAX: Duration = Duration::from_mins(1);

/// What can be asked about volumes. Cheap to clone; any number of questions may be under way.
#[derive(Clone, Debug)]
pub struct VolumeDirectory(Asker);

impl VolumeDirectory {
    /// The `storaged` whose admin socket this is. Does not connect yet.
    pub fn new(socket: &Path) -> Result<Self, AskError> {
        Asker::new(socket).map(Self)
    }

    /// The same, with somebody who is told of every question.
    #[must_use]
    pub fn observed_by(self, observer: Observer) -> Self {
        Self(self.0.observed_by(observer))
    }

    /// All pools.
    pub async fn pools(&self) -> Result<Vec<Pool>, AskError> {
        self.get::<PoolList>(routes::POOLS).await.map(|list| list.pools)
    }

    /// All volumes.
    pub async fn volumes(&self) -> Result<Vec<Volume>, AskError> {
        self.get::<VolumeList>(routes::VOLUMES)
            .await
            .map(|list| list.volumes)
    }

    /// One volume; nothing if there is none of that name.
    pub async fn volume(&self, name: &str) -> Result<Option<Volume>, AskError> {
        found(self.get(&fill(routes::VOLUME, &[name])).await)
    }

    /// Makes an empty volume of so many bytes.
    pub async fn create(&self, name: &str, bytes: u64, pool: &str) -> Result<Volume, AskError> {
        let request = CreateVolume {
            name: name.to_owned(),
            size: SizeInput::Bytes(bytes),
            pool: Some(pool.to_owned()),
            limits: None,
        };
        self.changed(routes::VOLUMES, &request).await
    }

    /// Deletes a volume, with its snapshots if it is told so.
    pub async fn delete(&self, name: &str, with_snapshots: bool) -> Result<(), AskError> {
        let path = fill(routes::VOLUME, &[name]);
        let path = format!("{path}?with_snapshots={with_snapshots}");
        self.change::<Deleted>(Method::DELETE, &path, None::<&()>)
            .await
            .map(|_| ())
    }

    /// Gives a volume another name.
    pub async fn rename(&self, name: &str, to: &str) -> Result<Volume, AskError> {
        let request = RenameVolume { name: to.to_owned() };
        self.changed(&fill(routes::VOLUME_RENAME, &[name]), &request)
            .await
    }

    /// Makes a volume so large; a larger one is refused.
    pub async fn grow(&self, name: &str, bytes: u64) -> Result<Volume, AskError> {
        let request = ResizeVolume {
            size: SizeInput::Bytes(bytes),
            allow_shrink: false,
        };
        self.changed(&fill(routes::VOLUME_RESIZE, &[name]), &request)
            .await
    }

    /// Says how much of a volume may be asked for in a second, in place of what was said before.
    pub async fn limit(&self, name: &str, limits: &VolumeLimits) -> Result<Volume, AskError> {
        let path = fill(routes::VOLUME_LIMITS, &[name]);
        let answer: VolumeAnswer = self.change(Method::PUT, &path, Some(limits)).await?;
        Ok(answer.volume)
    }

    /// Puts a volume back to one of its snapshots.
    pub async fn roll_back(&self, name: &str, snapshot: &str) -> Result<Volume, AskError> {
        let request = RollbackVolume {
            snapshot: snapshot.to_owned(),
        };
        self.changed(&fill(routes::VOLUME_ROLLBACK, &[name]), &request)
            .await
    }

    /// Begins to move a volume to another pool; how far it is, the volume says.
    pub async fn retype(&self, name: &str, pool: &str) -> Result<Volume, AskError> {
        let request = RetypeVolume {
            pool: pool.to_owned(),
            rate: None,
        };
        self.changed(&fill(routes::VOLUME_RETYPE, &[name]), &request)
            .await
    }

    /// A volume's snapshots, oldest first; nothing if there is no such volume.
    pub async fn snapshots(&self, volume: &str) -> Result<Option<Vec<Snapshot>>, AskError> {
        let list = self
            .get::<SnapshotList>(&fill(routes::VOLUME_SNAPSHOTS, &[volume]))
            .await;
        found(list.map(|list| list.snapshots))
    }

    /// Takes a snapshot.
    pub async fn snapshot(&self, volume: &str, name: &str) -> Result<Snapshot, AskError> {
        let request = CreateSnapshot {
            name: name.to_owned(),
        };
        let path = fill(routes::VOLUME_SNAPSHOTS, &[volume]);
        self.change(Method::POST, &path, Some(&request)).await
    }

    /// Takes a snapshot each of several volumes, at one instant.
    pub async fn snapshot_together(&self, volumes: &[String], name: &str) -> Result<Vec<Snapshot>, AskError> {
        let request = CreateGroupSnapshot {
            volumes: volumes.to_vec(),
            name: name.to_owned(),
        };
        let made: SnapshotList = self
            .change(Method::POST, routes::GROUP_SNAPSHOTS, Some(&request))
            .await?;
        Ok(made.snapshots)
    }

    /// Deletes a snapshot.
    pub async fn delete_snapshot(&self, volume: &str, name: &str) -> Result<(), AskError> {
        let path = fill(routes::VOLUME_SNAPSHOT, &[volume, name]);
        self.change::<Deleted>(Method::DELETE, &path, None::<&()>)
            .await
            .map(|_| ())
    }

    /// Makes a volume that begins with a snapshot's data.
    pub async fn clone_snapshot(&self, volume: &str, snapshot: &str, name: &str) -> Result<Volume, AskError> {
        let request = CloneSnapshot {
            name: name.to_owned(),
        };
        self.changed(&fill(routes::SNAPSHOT_CLONE, &[volume, snapshot]), &request)
            .await
    }

    /// All iSCSI targets.
    pub async fn targets(&self) -> Result<Vec<TargetInfo>, AskError> {
        self.get::<TargetList>(routes::ISCSI_TARGETS)
            .await
            .map(|list| list.targets)
    }

    /// One target; nothing if there is none of that name.
    pub async fn target(&self, name: &str) -> Result<Option<TargetInfo>, AskError> {
        found(self.get(&fill(routes::ISCSI_TARGET, &[name])).await)
    }

    /// Makes a target that has no LUN and lets nobody in.
    pub async fn create_target(&self, name: &str) -> Result<TargetInfo, AskError> {
        let request = CreateTarget {
            name: name.to_owned(),
        };
        self.change(Method::POST, routes::ISCSI_TARGETS, Some(&request))
            .await
    }

    /// Deletes a target. Whoever is logged in is thrown out.
    pub async fn delete_target(&self, name: &str) -> Result<(), AskError> {
        let path = fill(routes::ISCSI_TARGET, &[name]);
        self.0.ask_silently(Method::DELETE, &path, CHANGE_TIME_MAX).await
    }

    /// Makes a volume a LUN of a target.
    pub async fn add_lun(&self, target: &str, lun: &AddLun) -> Result<TargetInfo, AskError> {
        self.change(Method::POST, &fill(routes::ISCSI_LUNS, &[target]), Some(lun))
            .await
    }

    /// Lets an initiator in, or gives it another secret.
    pub async fn add_access(&self, target: &str, access: &AddAccess) -> Result<TargetInfo, AskError> {
        self.change(Method::POST, &fill(routes::ISCSI_ACCESS, &[target]), Some(access))
            .await
    }

    /// Lets an initiator in no more.
    pub async fn remove_access(&self, target: &str, initiator: &str) -> Result<TargetInfo, AskError> {
        let path = fill(routes::ISCSI_INITIATOR, &[target, initiator]);
        self.change(Method::DELETE, &path, None::<&()>).await
    }

    /// Where gateways serve all targets.
    pub async fn portals(&self) -> Result<PortalList, AskError> {
        self.get(routes::ISCSI_PORTALS).await
    }

    async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, AskError> {
        self.0.ask(Method::GET, path, None::<&()>, ANSWER_TIME_MAX).await
    }

    async fn change<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<A, AskError> {
        self.0.ask(method, path, body, CHANGE_TIME_MAX).await
    }

    async fn changed(&self, path: &str, body: &impl Serialize) -> Result<Volume, AskError> {
        let answer: VolumeAnswer = self.change(Method::POST, path, Some(body)).await?;
        Ok(answer.volume)
    }
}

fn found<T>(answer: Result<T, AskError>) -> Result<Option<T>, AskError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

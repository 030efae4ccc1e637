//! `/v1/volumes/{volume}/snapshots`, `/v1/snapshots` and `/v1/group-snapshots`.

use admin_api::ErrorBody;
use admin_api::names::check_name;
use admin_api::snapshots::{CloneSnapshot, CreateGroupSnapshot, CreateSnapshot, Snapshot, SnapshotList};
use admin_api::tasks::Deleted;
use admin_api::volumes::VolumeAnswer;
use axum::extract::{Path, State};
use protocol::VolumeId;

use super::answer::{Body, Created, Failure, Reply, not_found};
use super::volumes::{answer, family, find};
use super::{Context, Shared, describe};
use crate::volumes::OperationError;

/// A volume's snapshots.
#[utoipa::path(get, path = "/v1/volumes/{volume}/snapshots", tag = "snapshots",
    params(("volume" = String, Path)),
    responses((status = 200, body = SnapshotList), (status = "4XX", body = ErrorBody)))]
pub(super) async fn list(
    State(context): Shared,
    Path(volume): Path<String>,
) -> Result<Reply<SnapshotList>, Failure> {
    let id = find(&context, &volume)?;
    Ok(Reply(SnapshotList {
        snapshots: describe::snapshots_of(&context.volumes.map(), id),
    }))
}

/// All snapshots of all volumes.
#[utoipa::path(get, path = "/v1/snapshots", tag = "snapshots",
    responses((status = 200, body = SnapshotList)))]
pub(super) async fn list_all(State(context): Shared) -> Reply<SnapshotList> {
    let map = context.volumes.map();
    let snapshots = map
        .volume_names()
        .flat_map(|(_, id)| describe::snapshots_of(&map, id))
        .collect();
    Reply(SnapshotList { snapshots })
}

/// Makes a snapshot of a volume, live and atomic.
#[utoipa::path(post, path = "/v1/volumes/{volume}/snapshots", tag = "snapshots",
    params(("volume" = String, Path)), request_body = CreateSnapshot,
    responses((status = 201, body = Snapshot), (status = "4XX", body = ErrorBody),
              (status = "5XX", body = ErrorBody)))]
pub(super) async fn create(
    State(context): Shared,
    Path(volume): Path<String>,
    Body(request): Body<CreateSnapshot>,
) -> Result<Created<Snapshot>, Failure> {
    let id = context.volumes.snapshot(&volume, &request.name).await?;
    one(&context, id, &request.name).map(Created)
}

/// One snapshot.
#[utoipa::path(get, path = "/v1/volumes/{volume}/snapshots/{snapshot}", tag = "snapshots",
    params(("volume" = String, Path), ("snapshot" = String, Path)),
    responses((status = 200, body = Snapshot), (status = "4XX", body = ErrorBody)))]
pub(super) async fn get(
    State(context): Shared,
    Path((volume, snapshot)): Path<(String, String)>,
) -> Result<Reply<Snapshot>, Failure> {
    check_name(&snapshot).map_err(OperationError::from)?;
    one(&context, find(&context, &volume)?, &snapshot).map(Reply)
}

/// Deletes a snapshot. Clones of it stay; its space comes back in the background.
#[utoipa::path(delete, path = "/v1/volumes/{volume}/snapshots/{snapshot}", tag = "snapshots",
    params(("volume" = String, Path), ("snapshot" = String, Path)),
    responses((status = 200, body = Deleted), (status = "4XX", body = ErrorBody)))]
pub(super) async fn delete(
    State(context): Shared,
    Path((volume, snapshot)): Path<(String, String)>,
) -> Result<Reply<Deleted>, Failure> {
    let family = family(&context, find(&context, &volume)?);
    context.volumes.delete_snapshot(&volume, &snapshot).await?;
    Ok(Reply(Deleted {
        task: family.and_then(|family| context.reclaim.look(family)),
    }))
}

/// Makes a volume that begins with a snapshot's data.
#[utoipa::path(post, path = "/v1/volumes/{volume}/snapshots/{snapshot}/clone", tag = "snapshots",
    params(("volume" = String, Path), ("snapshot" = String, Path)), request_body = CloneSnapshot,
    responses((status = 201, body = VolumeAnswer), (status = "4XX", body = ErrorBody)))]
pub(super) async fn clone(
    State(context): Shared,
    Path((volume, snapshot)): Path<(String, String)>,
    Body(request): Body<CloneSnapshot>,
) -> Result<Created<VolumeAnswer>, Failure> {
    let id = context
        .volumes
        .clone_snapshot(&volume, &snapshot, &request.name)
        .await?;
    answer(&context, id, Vec::new(), None).map(Created)
}

/// Makes one snapshot each of several volumes, all at one instant.
#[utoipa::path(post, path = "/v1/group-snapshots", tag = "snapshots", request_body = CreateGroupSnapshot,
    responses((status = 201, body = SnapshotList), (status = "4XX", body = ErrorBody),
              (status = "5XX", body = ErrorBody)))]
pub(super) async fn create_group(
    State(context): Shared,
    Body(request): Body<CreateGroupSnapshot>,
) -> Result<Created<SnapshotList>, Failure> {
    let ids = context
        .volumes
        .group_snapshot(&request.volumes, &request.name)
        .await?;
    let snapshots = ids.into_iter().map(|id| one(&context, id, &request.name));
    Ok(Created(SnapshotList {
        snapshots: snapshots.collect::<Result<_, _>>()?,
    }))
}

fn one(context: &Context, id: VolumeId, snapshot: &str) -> Result<Snapshot, Failure> {
    let map = context.volumes.map();
    let volume = map
        .volume(id)
        .map_or("", |(_, volume)| volume.record.name.as_str());
    let record = map.snapshot(id, snapshot);
    record
        .map(|record| describe::snapshot(volume, snapshot, record))
        .ok_or_else(|| not_found(format!("volume {volume:?} has no snapshot {snapshot:?}")))
}

//! `/v1/volumes`.

use std::sync::Arc;

use admin_api::ErrorBody;
use admin_api::labels::ChangeLabels;
use admin_api::limits::VolumeLimits;
use admin_api::names::check_name;
use admin_api::tasks::Deleted;
use admin_api::volumes::{
    CreateVolume, DeleteVolumeQuery, RenameVolume, ResizeVolume, RetypeVolume, RollbackVolume,
    TakeOverVolume, Tree, Volume, VolumeAnswer, VolumeInfoQuery, VolumeList, VolumeQuery,
};
use axum::extract::{Path, State};
use protocol::{FamilyId, LayerId, VolumeId};

use super::answer::{Body, Created, Failure, Params, Reply, not_found};
use super::{Context, Shared, describe};
use crate::volumes::OperationError;

/// All volumes.
#[utoipa::path(get, path = "/v1/volumes", tag = "volumes", params(VolumeQuery),
    responses((status = 200, body = VolumeList), (status = "4XX", body = ErrorBody)))]
pub(super) async fn list(
    State(context): Shared,
    Params(query): Params<VolumeQuery>,
) -> Result<Reply<VolumeList>, Failure> {
    let map = context.volumes.map();
    if let Some(pool) = &query.pool
        && map.pool_named(pool).is_none()
    {
        return Err(not_found(format!("there is no pool {pool:?}")));
    }
    let wanted = |volume: &Volume| query.pool.as_ref().is_none_or(|pool| *pool == volume.pool);
    let volumes = map
        .volume_names()
        .filter_map(|(_, id)| describe::volume(&map, id));
    Ok(Reply(VolumeList {
        volumes: volumes.filter(wanted).collect(),
    }))
}

/// Makes a new, empty, thin volume.
#[utoipa::path(post, path = "/v1/volumes", tag = "volumes", request_body = CreateVolume,
    responses((status = 201, body = VolumeAnswer), (status = "4XX", body = ErrorBody),
              (status = "5XX", body = ErrorBody)))]
pub(super) async fn create(
    State(context): Shared,
    Body(request): Body<CreateVolume>,
) -> Result<Created<VolumeAnswer>, Failure> {
    let (id, notes) = context.volumes.create(&request).await?;
    answer(&context, id, notes, None).map(Created)
}

/// One volume.
#[utoipa::path(get, path = "/v1/volumes/{volume}", tag = "volumes",
    params(("volume" = String, Path), VolumeInfoQuery),
    responses((status = 200, body = Volume), (status = "4XX", body = ErrorBody)))]
pub(super) async fn get(
    State(context): Shared,
    Path(name): Path<String>,
    Params(query): Params<VolumeInfoQuery>,
) -> Result<Reply<Volume>, Failure> {
    let id = find(&context, &name)?;
    let map = context.volumes.map();
    let mut volume = describe::volume(&map, id).ok_or_else(|| no_volume(&name))?;
    if query.space {
        volume.space = context.surveyor.space(&map, id).await;
    }
    Ok(Reply(volume))
}

/// Deletes a volume. Its space comes back in the background.
#[utoipa::path(delete, path = "/v1/volumes/{volume}", tag = "volumes",
    params(("volume" = String, Path), DeleteVolumeQuery),
    responses((status = 200, body = Deleted), (status = "4XX", body = ErrorBody)))]
pub(super) async fn delete(
    State(context): Shared,
    Path(name): Path<String>,
    Params(query): Params<DeleteVolumeQuery>,
) -> Result<Reply<Deleted>, Failure> {
    let family = family(&context, find(&context, &name)?);
    context.volumes.delete(&name, query.with_snapshots).await?;
    Ok(Reply(Deleted {
        task: family.and_then(|family| context.reclaim.look(family)),
    }))
}

/// Gives a volume another name.
#[utoipa::path(post, path = "/v1/volumes/{volume}/rename", tag = "volumes",
    params(("volume" = String, Path)), request_body = RenameVolume,
    responses((status = 200, body = VolumeAnswer), (status = "4XX", body = ErrorBody)))]
pub(super) async fn rename(
    State(context): Shared,
    Path(name): Path<String>,
    Body(request): Body<RenameVolume>,
) -> Result<Reply<VolumeAnswer>, Failure> {
    let id = context.volumes.rename(&name, &request.name).await?;
    answer(&context, id, Vec::new(), None).map(Reply)
}

/// Grows or shrinks a volume.
#[utoipa::path(post, path = "/v1/volumes/{volume}/resize", tag = "volumes",
    params(("volume" = String, Path)), request_body = ResizeVolume,
    responses((status = 200, body = VolumeAnswer), (status = "4XX", body = ErrorBody)))]
pub(super) async fn resize(
    State(context): Shared,
    Path(name): Path<String>,
    Body(request): Body<ResizeVolume>,
) -> Result<Reply<VolumeAnswer>, Failure> {
    let resized = context
        .volumes
        .resize(&name, &request.size, request.allow_shrink)
        .await?;
    let task = if resized.discards {
        context.shrinks.begin(resized.volume)
    } else {
        None
    };
    answer(&context, resized.volume, resized.notes, task).map(Reply)
}

/// Writes on a volume, or wipes off. Labels that are not named stay.
#[utoipa::path(patch, path = "/v1/volumes/{volume}/labels", tag = "volumes",
    params(("volume" = String, Path)), request_body = ChangeLabels,
    responses((status = 200, body = VolumeAnswer), (status = "4XX", body = ErrorBody),
              (status = "5XX", body = ErrorBody)))]
pub(super) async fn label(
    State(context): Shared,
    Path(name): Path<String>,
    Body(request): Body<ChangeLabels>,
) -> Result<Reply<VolumeAnswer>, Failure> {
    let id = context.volumes.label(&name, &request).await?;
    answer(&context, id, Vec::new(), None).map(Reply)
}

/// Says how much of a volume may be asked for in a second, in place of what was said before: also while it is in use.
#[utoipa::path(put, path = "/v1/volumes/{volume}/limits", tag = "volumes",
    params(("volume" = String, Path)), request_body = VolumeLimits,
    responses((status = 200, body = VolumeAnswer), (status = "4XX", body = ErrorBody),
              (status = "5XX", body = ErrorBody)))]
pub(super) async fn limit(
    State(context): Shared,
    Path(name): Path<String>,
    Body(request): Body<VolumeLimits>,
) -> Result<Reply<VolumeAnswer>, Failure> {
    let id = context.volumes.limit(&name, &request).await?;
    answer(&context, id, Vec::new(), None).map(Reply)
}

/// Puts a volume back to one of its snapshots.
#[utoipa::path(post, path = "/v1/volumes/{volume}/rollback", tag = "volumes",
    params(("volume" = String, Path)), request_body = RollbackVolume,
    responses((status = 200, body = VolumeAnswer), (status = "4XX", body = ErrorBody)))]
pub(super) async fn roll_back(
    State(context): Shared,
    Path(name): Path<String>,
    Body(request): Body<RollbackVolume>,
) -> Result<Reply<VolumeAnswer>, Failure> {
    let id = context.volumes.roll_back(&name, &request.snapshot).await?;
    let task = family(&context, id).and_then(|family| context.reclaim.look(family));
    answer(&context, id, Vec::new(), task).map(Reply)
}

/// Moves a volume to another pool, in the background.
#[utoipa::path(post, path = "/v1/volumes/{volume}/retype", tag = "volumes",
    params(("volume" = String, Path)), request_body = RetypeVolume,
    responses((status = 200, body = VolumeAnswer), (status = "4XX", body = ErrorBody),
              (status = "5XX", body = ErrorBody)))]
pub(super) async fn retype(
    State(context): Shared,
    Path(name): Path<String>,
    Body(request): Body<RetypeVolume>,
) -> Result<Reply<VolumeAnswer>, Failure> {
    let id = context.volumes.retype(&name, &request.pool, request.rate).await?;
    answer(&context, id, Vec::new(), None).map(Reply)
}

/// Takes a volume from whoever has it open: whoever waits for it opens it.
#[utoipa::path(post, path = "/v1/volumes/{volume}/take-over", tag = "volumes",
    params(("volume" = String, Path)), request_body = TakeOverVolume,
    responses((status = 200, body = VolumeAnswer), (status = "4XX", body = ErrorBody)))]
pub(super) async fn take_over(
    State(context): Shared,
    Path(name): Path<String>,
    Body(request): Body<TakeOverVolume>,
) -> Result<Reply<VolumeAnswer>, Failure> {
    let id = context.volumes.take_over(&name, request.generation).await?;
    answer(&context, id, Vec::new(), None).map(Reply)
}

/// All that shares data with a volume.
#[utoipa::path(get, path = "/v1/volumes/{volume}/tree", tag = "volumes", params(("volume" = String, Path)),
    responses((status = 200, body = Tree), (status = "4XX", body = ErrorBody)))]
pub(super) async fn tree(State(context): Shared, Path(name): Path<String>) -> Result<Reply<Tree>, Failure> {
    let id = find(&context, &name)?;
    let map = context.volumes.map();
    let mut tree = describe::tree(&map, id).ok_or_else(|| no_volume(&name))?;
    let usage = context.surveyor.usage(&map, FamilyId(tree.family)).await;
    for node in &mut tree.nodes {
        node.bytes = usage.layers.get(&LayerId(node.id)).copied().unwrap_or(0);
    }
    tree.unknown = usage.unknown;
    Ok(Reply(tree))
}

/// A volume's identity by its name.
pub(super) fn find(context: &Context, name: &str) -> Result<VolumeId, Failure> {
    check_name(name).map_err(OperationError::from)?;
    context
        .volumes
        .map()
        .volume_named(name)
        .ok_or_else(|| no_volume(name))
}

/// A volume after a change.
pub(super) fn answer(
    context: &Arc<Context>,
    id: VolumeId,
    notes: Vec<String>,
    task: Option<u64>,
) -> Result<VolumeAnswer, Failure> {
    let volume = describe::volume(&context.volumes.map(), id)
        .ok_or_else(|| not_found("the volume was deleted by somebody else right after"))?;
    Ok(VolumeAnswer { volume, notes, task })
}

/// Whose layers a volume has.
pub(super) fn family(context: &Context, id: VolumeId) -> Option<FamilyId> {
    context
        .volumes
        .map()
        .volume(id)
        .map(|(_, volume)| volume.record.family)
}

fn no_volume(name: &str) -> Failure {
    not_found(format!("there is no volume {name:?}"))
}

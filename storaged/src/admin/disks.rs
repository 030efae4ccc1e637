//! `/v1/disks`.

use std::collections::BTreeSet;

use admin_api::ErrorBody;
use admin_api::disks::{AddDisk, ChangeDisk, Disk, DiskList, DiskState, GiveUp, GivenUp};
use axum::extract::{Path, State};
use coordination::ClusterMap;
use protocol::DiskId;

use super::answer::{Body, Created, Failure, NoContent, Reply, in_use, invalid, not_found};
use super::{Context, Shared};
use crate::peers::survey::{FRESH, Surveyed};

/// All disks.
#[utoipa::path(get, path = "/v1/disks", tag = "disks", responses((status = 200, body = DiskList)))]
pub(super) async fn list(State(context): Shared) -> Reply<DiskList> {
    let survey = context.surveyor.all(FRESH).await;
    let map = context.volumes.map();
    let disks = survey
        .disks
        .iter()
        .filter_map(|(id, surveyed)| describe(&map, *id, surveyed));
    Reply(DiskList {
        disks: disks.collect(),
    })
}

/// Runs one more disk on this node.
#[utoipa::path(post, path = "/v1/disks", tag = "disks", request_body = AddDisk,
    responses((status = 201, body = Disk), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn add(
    State(context): Shared,
    Body(request): Body<AddDisk>,
) -> Result<Created<Disk>, Failure> {
    let id = context.disks.add(&request).await?;
    one(&context, id).await.map(Created)
}

/// One disk.
#[utoipa::path(get, path = "/v1/disks/{disk}", tag = "disks", params(("disk" = u32, Path)),
    responses((status = 200, body = Disk), (status = "4XX", body = ErrorBody)))]
pub(super) async fn get(State(context): Shared, Path(id): Path<String>) -> Result<Reply<Disk>, Failure> {
    one(&context, number(&id)?).await.map(Reply)
}

/// Changes a disk's properties.
#[utoipa::path(patch, path = "/v1/disks/{disk}", tag = "disks", params(("disk" = u32, Path)),
    request_body = ChangeDisk, responses((status = 200, body = Disk), (status = "4XX", body = ErrorBody)))]
pub(super) async fn change(
    State(context): Shared,
    Path(id): Path<String>,
    Body(request): Body<ChangeDisk>,
) -> Result<Reply<Disk>, Failure> {
    let id = number(&id)?;
    context.disks.change(id, &request).await?;
    if let Some(drain) = request.drain {
        context.volumes.drain_disk(id, drain).await?;
    }
    one(&context, id).await.map(Reply)
}

/// Takes a disk that holds no placement group out of the cluster, for good. What is in its directory stays there.
#[utoipa::path(delete, path = "/v1/disks/{disk}", tag = "disks", params(("disk" = u32, Path)),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub(super) async fn remove(State(context): Shared, Path(id): Path<String>) -> Result<NoContent, Failure> {
    context.volumes.remove_disk(number(&id)?).await?;
    Ok(NoContent)
}

/// Gives a disk up for lost: its groups go on without it, or with what another disk has.
#[utoipa::path(post, path = "/v1/disks/{disk}/give-up", tag = "disks", params(("disk" = u32, Path)),
    request_body = GiveUp, responses((status = 200, body = GivenUp), (status = "4XX", body = ErrorBody)))]
pub(super) async fn give_up(
    State(context): Shared,
    Path(id): Path<String>,
    Body(request): Body<GiveUp>,
) -> Result<Reply<GivenUp>, Failure> {
    let id = number(&id)?;
    if context.disks.condition(id).await.state == DiskState::Up {
        return Err(in_use(format!(
            "{id} serves, or its storaged is up: drain it, or stop its storaged if it is lost"
        )));
    }
    let given_up = context
        .volumes
        .give_up(id, request.keep.map(DiskId), context.lease)
        .await?;
    Ok(Reply(GivenUp {
        without: given_up.without as u64,
        rolled_back: given_up.rolled_back as u64,
    }))
}

pub(super) fn number(text: &str) -> Result<DiskId, Failure> {
    let number = text.strip_prefix("disk-").unwrap_or(text).parse();
    number
        .map(DiskId)
        .map_err(|_| invalid(format!("{text:?} is not a disk: give its number")))
}

async fn one(context: &Context, id: DiskId) -> Result<Disk, Failure> {
    let map = context.volumes.map();
    let missing = || not_found(format!("there is no disk {}", id.0));
    if !map.disks().contains_key(&id) {
        return Err(missing());
    }
    let survey = context.surveyor.of(&map, &BTreeSet::from([id]), FRESH).await;
    let surveyed = survey.disks.get(&id).ok_or_else(missing)?;
    describe(&map, id, surveyed).ok_or_else(missing)
}

/// A disk in the words of the API.
fn describe(map: &ClusterMap, id: DiskId, surveyed: &Surveyed) -> Option<Disk> {
    let record = &map.disks().get(&id)?.record;
    let report = &surveyed.report;
    let room = report.room.as_ref();
    Some(Disk {
        id: id.0,
        node: record.node.0,
        path: record.path.clone(),
        state: report.state,
        reason: report.reason.clone(),
        weight: record.weight,
        draining: record.draining,
        groups: u32::try_from(map.groups_on(id).count()).unwrap_or(u32::MAX),
        capacity: report.capacity,
        used: room.map(|room| room.used),
        free: room.map(|room| room.free),
        log_used: room.map(|room| room.log_used),
        log_size: room.map(|room| room.log_size),
        medium: room.map(|room| room.medium.clone()),
        unknown: surveyed.unknown.clone(),
        age_ms: u64::try_from(surveyed.age.as_millis()).unwrap_or(u64::MAX),
    })
}

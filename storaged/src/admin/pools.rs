//! `/v1/pools`.

use std::collections::BTreeSet;

use admin_api::ErrorBody;
use admin_api::pools::{CreatePool, FailureDomain, Pool, PoolList};
use axum::extract::{Path, State};
use coordination::{ClusterMap, records};
use protocol::session::SlotState;
use protocol::{DiskId, PoolId};

use super::answer::{Body, Created, Failure, NoContent, Reply, not_found};
use super::{Context, Shared};

/// All pools.
#[utoipa::path(get, path = "/v1/pools", tag = "pools", responses((status = 200, body = PoolList)))]
pub(super) async fn list(State(context): Shared) -> Reply<PoolList> {
    let map = context.volumes.map();
    let mut pools = Vec::new();
    for (id, _) in map.pools() {
        pools.extend(describe(&context, &map, id).await);
    }
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    Reply(PoolList { pools })
}

/// Makes a pool.
#[utoipa::path(post, path = "/v1/pools", tag = "pools", request_body = CreatePool,
    responses((status = 201, body = Pool), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn create(
    State(context): Shared,
    Body(request): Body<CreatePool>,
) -> Result<Created<Pool>, Failure> {
    context.volumes.create_pool(&request).await?;
    one(&context, &request.name).await.map(Created)
}

/// One pool.
#[utoipa::path(get, path = "/v1/pools/{pool}", tag = "pools", params(("pool" = String, Path)),
    responses((status = 200, body = Pool), (status = "4XX", body = ErrorBody)))]
pub(super) async fn get(State(context): Shared, Path(name): Path<String>) -> Result<Reply<Pool>, Failure> {
    one(&context, &name).await.map(Reply)
}

/// Deletes a pool without volumes.
#[utoipa::path(delete, path = "/v1/pools/{pool}", tag = "pools", params(("pool" = String, Path)),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub(super) async fn delete(State(context): Shared, Path(name): Path<String>) -> Result<NoContent, Failure> {
    context.volumes.delete_pool(&name).await?;
    Ok(NoContent)
}

async fn one(context: &Context, name: &str) -> Result<Pool, Failure> {
    let map = context.volumes.map();
    let missing = || not_found(format!("there is no pool {name:?}"));
    let (id, _) = map.pool_named(name).ok_or_else(missing)?;
    describe(context, &map, id).await.ok_or_else(missing)
}

async fn describe(context: &Context, map: &ClusterMap, id: PoolId) -> Option<Pool> {
    let record = &map.pool(id)?.record;
    let mut disks: BTreeSet<DiskId> = BTreeSet::new();
    let (mut healthy, mut groups) = (0, 0u64);
    for group in map.groups(id) {
        groups += 1;
        disks.extend(group.slots.iter().map(|slot| slot.disk));
        let in_sync = group
            .slots
            .iter()
            .filter(|slot| slot.state == SlotState::InSync)
            .count();
        healthy += u32::from(in_sync >= usize::from(record.redundancy.width()));
    }
    // What fits is bounded by the disk that has least room for its share of the groups.
    let mut available = u64::MAX;
    for disk in &disks {
        let share = map.groups_on(*disk).filter(|(pg, _)| pg.pool == id).count() as u64;
        let condition = context.disks.condition(*disk).await;
        if !condition.here {
            continue;
        }
        let free = condition.figures.store.free_bytes;
        let fits = u128::from(free) * u128::from(groups) / u128::from(share.max(1));
        available = available.min(u64::try_from(fits).unwrap_or(u64::MAX));
    }
    let volumes = map.families().filter(|(_, family)| family.pool() == Some(id));
    let (mut count, mut provisioned) = (0, 0u64);
    for volume in volumes.flat_map(|(_, family)| family.volumes().values()) {
        count += 1;
        provisioned = provisioned.saturating_add(volume.record.size);
    }
    Some(Pool {
        id: id.0,
        name: record.name.clone(),
        copies: u32::from(record.redundancy.width()),
        min_in_sync: u32::from(record.min_in_sync),
        failure_domain: match record.failure_domain {
            records::FailureDomain::Disk => FailureDomain::Disk,
            records::FailureDomain::Node => FailureDomain::Node,
            records::FailureDomain::Zone => FailureDomain::Zone,
        },
        groups: record.groups,
        groups_healthy: healthy,
        disks: disks.into_iter().map(|disk| disk.0).collect(),
        volumes: count,
        provisioned,
        // Nothing is known of the room on other nodes.
        available: if available == u64::MAX { 0 } else { available },
    })
}

//! `/v1/pools`.

use std::collections::BTreeSet;
use std::time::Duration;

use admin_api::ErrorBody;
use admin_api::pools::{CreatePool, FailureDomain, Pool, PoolList};
use axum::extract::{Path, State};
use coordination::records::Redundancy;
use coordination::{ClusterMap, records};
use protocol::{DiskId, PoolId};
use replication::membership::held;

use super::answer::{Body, Created, Failure, NoContent, Reply, not_found};
use super::{Context, Shared};
use crate::peers::survey::{ROOM_FRESH, Survey};

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
        healthy += u32::from(held(&group.slots) >= usize::from(record.redundancy.width()));
    }
    let survey = context.surveyor.of(map, &disks, ROOM_FRESH).await;
    let (room, unknown, age) = room_of(map, id, &survey, groups);
    let volumes = map.families().filter(|(_, family)| family.pool() == Some(id));
    let (mut count, mut provisioned) = (0, 0u64);
    for volume in volumes.flat_map(|(_, family)| family.volumes().values()) {
        count += 1;
        provisioned = provisioned.saturating_add(volume.record.size);
    }
    Some(Pool {
        id: id.0,
        name: record.name.clone(),
        copies: copies(record.redundancy),
        erasure: record.redundancy.profile().map(String::from),
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
        available: room.map(|room| room.available),
        total: room.map(|room| room.total),
        unknown,
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
    })
}

/// How many copies there are of a block; with erasure coding, of one that is not in a row yet.
fn copies(redundancy: Redundancy) -> u32 {
    let fronts = redundancy.profile().map(|profile| profile.fronts().end);
    u32::from(fronts.unwrap_or(redundancy.width()))
}

/// What fits into a pool, after copies and parity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PoolRoom {
    available: u64,
    total: u64,
}

/// What fits, as far as disks tell, which do not, in a sentence, and how old the oldest answer is. Bounded by the disk
/// that has least room for its share of the groups.
fn room_of(
    map: &ClusterMap,
    id: PoolId,
    survey: &Survey,
    groups: u64,
) -> (Option<PoolRoom>, Option<String>, Duration) {
    // Of what rows hold, each of their disks has one part in k. What is still in smaller pieces takes more.
    let profile = map.pool(id).and_then(|pool| pool.record.redundancy.profile());
    let parts = profile.map_or(1, protocol::profile::Profile::data);
    let mut room: Option<PoolRoom> = None;
    let mut silent = Vec::new();
    let mut age = Duration::ZERO;
    for (disk, surveyed) in &survey.disks {
        let Some(told) = &surveyed.report.room else {
            silent.push(disk.to_string());
            continue;
        };
        age = age.max(surveyed.age);
        let share = map.groups_on(*disk).filter(|(pg, _)| pg.pool == id).count() as u64;
        let fits = |bytes: u64| {
            let fits = u128::from(bytes) * u128::from(groups) * u128::from(parts) / u128::from(share.max(1));
            u64::try_from(fits).unwrap_or(u64::MAX)
        };
        let of_disk = PoolRoom {
            available: fits(told.free),
            total: fits(told.used.saturating_add(told.free)),
        };
        room = Some(room.map_or(of_disk, |room| PoolRoom {
            available: room.available.min(of_disk.available),
            total: room.total.min(of_disk.total),
        }));
    }
    let unknown = (!silent.is_empty()).then(|| {
        format!(
            "how full these disks are is not known, so less may fit: {}",
            silent.join(", ")
        )
    });
    (room, unknown, age)
}

#[cfg(test)]
mod tests {
    //! A pool's room is that of its fullest disk, and of disks that do not tell nothing is invented.
    use admin_api::disks::DiskState;

    use super::*;
    use crate::membership::fixture;
    use crate::peers::survey::Surveyed;
    use crate::peers::words::{DiskReport, Room};

    fn survey(free: &[Option<u64>]) -> Survey {
        let surveyed = |(disk, free): (u32, &Option<u64>)| {
            let room = free.map(|free| Room {
                used: 1000 - free,
                free,
                log_used: 0,
                log_size: 0,
                medium: String::new(),
            });
            let report = DiskReport {
                disk,
                state: DiskState::Up,
                reason: None,
                slow: None,
                capacity: None,
                room,
                complaints: Vec::new(),
            };
            let surveyed = Surveyed {
                report,
                unknown: None,
                age: Duration::from_secs(u64::from(disk)),
            };
            (DiskId(disk), surveyed)
        };
        Survey {
            disks: (1..).zip(free).map(surveyed).collect(),
            silent: Vec::new(),
        }
    }

    #[test]
    fn the_disk_with_least_room_bounds_what_fits_and_a_silent_one_is_named() {
        let map = fixture::map(8, 2);
        let (room, unknown, age) = room_of(&map, fixture::POOL, &survey(&[Some(700), Some(300), None]), 8);
        let bound = PoolRoom {
            available: 300,
            total: 1000,
        };
        assert_eq!(room, Some(bound));
        assert_eq!(age, Duration::from_secs(2));
        let unknown = unknown.unwrap();
        assert!(unknown.ends_with("less may fit: disk-3"), "{unknown}");
    }

    #[test]
    fn where_no_disk_tells_nothing_is_known_and_that_is_not_zero() {
        let map = fixture::map(8, 2);
        let (room, unknown, _) = room_of(&map, fixture::POOL, &survey(&[None, None, None]), 8);
        assert_eq!(room, None);
        assert!(unknown.is_some());
    }
}

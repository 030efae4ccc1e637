//! Is the whole well, and if not, what waits for what: in sentences.

use std::collections::BTreeMap;

use admin_api::disks::DiskState;
use admin_api::status::{Health, Status};
use coordination::ClusterMap;
use coordination::records::SlowRecord;
use protocol::DiskId;
use protocol::session::SlotState;
use replication::membership::held;

use crate::admin::Context;
use crate::cluster::identity::hexadecimal;
use crate::moment::wall_clock_ms;
use crate::peers::survey::{FRESH, Survey};
use crate::progress;
use crate::slow::exile;

/// The state of the whole.
pub async fn status(context: &Context) -> Status {
    let survey = context.surveyor.all(FRESH).await;
    let map = context.volumes.map();
    let (mut health, mut reasons) = judge(&map, &survey);
    // That alone is no harm: the disks serve as well as their node's lease says.
    reasons.extend(survey.silent.iter().cloned());
    for (degree, reason) in incomplete(&map) {
        health = health.max(degree);
        reasons.push(reason);
    }
    for (id, disk) in map.disks() {
        if let Some(share) = disk.record.share.filter(|_| !disk.record.draining) {
            reasons.push(format!(
                "{id} is or was nearly full and counts with {} % of its weight, so that data goes to other disks: add \
                 disks, or delete something",
                share / 10
            ));
        }
    }
    for reason in kept_out(&map, wall_clock_ms()) {
        health = health.max(Health::Degraded);
        reasons.push(reason);
    }
    for (id, node) in map.nodes().iter().filter(|(id, _)| !map.up().contains_key(id)) {
        health = health.max(Health::Degraded);
        reasons.push(format!("{id} ({}) is down", node.record.name));
    }
    // No harm yet: restarts and upgrades need not wait for it.
    let now_s = i64::try_from(wall_clock_ms() / 1000).unwrap_or(i64::MAX);
    reasons.extend(context.certificates.sentences(now_s).await);
    reasons.extend(context.relocations.progress().sentences);
    if map.disks().is_empty() {
        health = health.max(Health::Degraded);
        reasons.push("there is no disk yet: add one (disk add)".to_owned());
    }
    let recovery = context.progress.all();
    reasons.extend(recovery.iter().map(progress::sentence));
    let running = context.tasks.running();
    let reports = || survey.disks.values().map(|disk| &disk.report);
    let up = reports().filter(|report| report.state == DiskState::Up).count();
    Status {
        health,
        summary: summary(health, map.disks().len()),
        reasons,
        recovery,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: hexadecimal(&map.cluster()),
        node: context.node.0,
        uptime_s: context.started.elapsed().as_secs(),
        disks_up: count(up),
        disks: count(map.disks().len()),
        pools: count(map.pools().count()),
        volumes: map.volume_names().count() as u64,
        volumes_open: map.owners().len() as u64,
        snapshots: map
            .families()
            .map(|(_, family)| family.snapshots().len() as u64)
            .sum(),
        tasks_running: count(running),
        capacity: sum(reports().map(|report| report.capacity)),
        used: sum(reports().map(|report| report.room.as_ref().map(|room| room.used))),
        disks_unknown: count(reports().filter(|report| report.room.is_none()).count()),
    }
}

/// The sum of what is known; nothing if nothing is, of something.
fn sum(amounts: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    let (mut sum, mut known, mut unknown) = (0_u64, false, false);
    for amount in amounts {
        known |= amount.is_some();
        unknown |= amount.is_none();
        sum = sum.saturating_add(amount.unwrap_or(0));
    }
    (known || !unknown).then_some(sum)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn summary(health: Health, disks: usize) -> String {
    match health {
        Health::Ok => format!("all is well: {disks} of {disks} disks serve and all copies are in sync"),
        Health::Degraded => "I/O goes on, but something needs attention".to_owned(),
        Health::Waiting => "some I/O waits".to_owned(),
    }
}

/// What is not as it should be, from the map and how the disks are.
fn judge(map: &ClusterMap, survey: &Survey) -> (Health, Vec<String>) {
    let mut health = Health::Ok;
    let mut reasons = Vec::new();
    for (id, disk) in &survey.disks {
        let report = &disk.report;
        if report.state != DiskState::Up {
            let reason = report.reason.as_deref().unwrap_or("no reason is known");
            let waits = waiting_for(map, *id);
            health = health.max(if waits.is_empty() {
                Health::Degraded
            } else {
                Health::Waiting
            });
            let consequence = match waits.as_slice() {
                [] => "nothing waits for it".to_owned(),
                pools => format!("writes to {} wait for it", pools.join(", ")),
            };
            reasons.push(format!("{id} does not serve ({reason}); {consequence}"));
            continue;
        }
        if let Some(why) = &report.slow {
            health = health.max(Health::Degraded);
            reasons.push(format!(
                "{id} is slow, and every write to its groups waits for it: {why}; look after its hardware and its \
                 cables, or what else uses it"
            ));
        }
        if !report.complaints.is_empty() {
            health = health.max(Health::Degraded);
            reasons.extend(report.complaints.iter().cloned());
        }
    }
    (health, reasons)
}

/// Disks that are out of groups because they are slow, and when they ask to come back.
fn kept_out(map: &ClusterMap, now_ms: u64) -> Vec<String> {
    let out = |disk: &DiskId| {
        let mut slots = map.groups_on(*disk);
        slots.any(|(_, slot)| slot.state != SlotState::InSync)
    };
    let slow = map.slow().iter().filter(|(disk, _)| out(disk));
    slow.map(|(disk, slow)| {
        let SlowRecord { times, reason, .. } = &slow.record;
        let often = match times {
            1 => "once".to_owned(),
            times => format!("{times} times"),
        };
        let back = match exile::remaining(&slow.record, now_ms) {
            None => "it may come back now".to_owned(),
            Some(left) => format!(
                "it may come back in {} min, or at once after `storagectl disk trust {}`, if its cause is mended",
                left.as_secs().div_ceil(60),
                disk.0
            ),
        };
        format!("{disk} was taken out of its groups {often} because it is slow ({reason}); {back}")
    })
    .collect()
}

/// Pools of which some placement groups have fewer copies in sync than they should, and the disks that
/// are missing there.
fn incomplete(map: &ClusterMap) -> Vec<(Health, String)> {
    let mut reasons = Vec::new();
    for (id, pool) in map.pools() {
        let pool = &pool.record;
        let width = usize::from(pool.redundancy.width());
        let (mut groups, mut fewest) = (0, width);
        let mut missing: BTreeMap<DiskId, (usize, usize)> = BTreeMap::new();
        for group in map.groups(id) {
            let in_sync = held(&group.slots);
            groups += usize::from(in_sync < width);
            fewest = fewest.min(in_sync);
            // Who comes to a group that has all its copies is told of elsewhere.
            let lacking = group
                .slots
                .iter()
                .filter(|slot| in_sync < width && slot.state != SlotState::InSync);
            for slot in lacking {
                let (all, coming) = missing.entry(slot.disk).or_default();
                *all += 1;
                *coming += usize::from(slot.state.comes_back());
            }
        }
        if groups == 0 {
            continue;
        }
        let disks: Vec<String> = missing
            .iter()
            .map(|(disk, (all, coming))| match coming {
                0 => format!("{disk} ({all})"),
                _ => format!("{disk} ({all}, coming back to {coming})"),
            })
            .collect();
        let waits = fewest < usize::from(pool.min_in_sync);
        let consequence = if waits {
            format!("writes wait, for {} are needed", pool.min_in_sync)
        } else {
            "reads and writes go on".to_owned()
        };
        reasons.push((
            if waits { Health::Waiting } else { Health::Degraded },
            format!(
                "pool {}: {groups} of {} placement groups have fewer than {} {} in sync, the fewest {fewest}: \
                 not in sync are {}; {consequence}",
                pool.name,
                pool.groups,
                pool.redundancy.width(),
                pool.redundancy.parts(),
                disks.join(", ")
            ),
        ));
    }
    reasons
}

/// The pools whose writes wait while a disk is away: those with a group that still counts on it.
fn waiting_for(map: &ClusterMap, disk: DiskId) -> Vec<String> {
    let mut pools: Vec<_> = map
        .groups_on(disk)
        .filter(|(_, slot)| matches!(slot.state, SlotState::InSync | SlotState::Joining))
        .filter_map(|(pg, _)| map.pool(pg.pool))
        .map(|pool| format!("pool {}", pool.record.name))
        .collect();
    pools.sort_unstable();
    pools.dedup();
    pools
}

#[cfg(test)]
mod tests {
    //! What is missing is told in a sentence, and whether anything waits for it.
    use super::*;
    use crate::membership::fixture;

    #[test]
    fn a_pool_with_a_disk_out_of_its_groups_is_degraded_and_the_disk_is_named() {
        let (degree, reason) = incomplete(&fixture::map_with(SlotState::Down, 2)).remove(0);
        assert_eq!(degree, Health::Degraded);
        assert_eq!(
            reason,
            "pool fast: 2 of 2 placement groups have fewer than 3 copies in sync, the fewest 2: not in sync are \
             disk-3 (2); reads and writes go on"
        );
    }

    #[test]
    fn a_pool_with_too_few_in_sync_says_that_writes_wait() {
        let (degree, reason) = incomplete(&fixture::map_with(SlotState::Syncing, 3)).remove(0);
        assert_eq!(degree, Health::Waiting);
        assert!(reason.ends_with("writes wait, for 3 are needed"), "{reason}");
        assert!(reason.contains("disk-3 (2, coming back to 2)"), "{reason}");
    }

    #[test]
    fn a_sum_is_of_those_that_are_known_and_unknown_only_if_none_is() {
        assert_eq!(sum([Some(1), None, Some(2)].into_iter()), Some(3));
        assert_eq!(sum([None, None].into_iter()), None);
        assert_eq!(sum(std::iter::empty()), Some(0));
    }

    #[test]
    fn a_disk_that_is_kept_out_because_it_is_slow_is_told_of_and_when_it_may_come_back() {
        let map = fixture::with_slow(SlotState::Down, 1_000);
        let told = kept_out(&map, 61_000);
        assert_eq!(
            told,
            [
                "disk-3 was taken out of its groups once because it is slow (it takes long); it may come back in 9 min, \
              or at once after `storagectl disk trust 3`, if its cause is mended"
            ]
        );
        assert!(kept_out(&fixture::with_slow(SlotState::InSync, 1_000), 61_000).is_empty());
    }

    #[test]
    fn whole_pools_are_not_told_of() {
        assert!(incomplete(&fixture::map_with(SlotState::InSync, 2)).is_empty());
    }
}

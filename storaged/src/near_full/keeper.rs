//! Looks how full this node's disks are, and has their shares changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use admin_api::disks::DiskState;
use coordination::keys::Key;
use coordination::records::{Severity, encode};
use coordination::{ClusterMap, Compare, Transaction};
use protocol::DiskId;
use tracing::warn;

use super::{Fill, Limits, WHOLE, next_share};
use crate::disks::Disks;
use crate::relocation::Relocations;
use crate::volumes::{Decision, OperationError, Plan, Volumes, event};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(5);

/// What it looks at, and where it changes shares.
pub struct Keeper {
    /// The disks of this node.
    pub disks: Arc<Disks>,
    /// Where shares are changed.
    pub volumes: Arc<Volumes>,
    /// Whether data moves just now.
    pub relocations: Relocations,
    /// When a disk is nearly full.
    pub limits: Limits,
}

impl Keeper {
    /// Looks for ever: run it as a task.
    pub async fn run(self) {
        let mut last: BTreeMap<DiskId, Instant> = BTreeMap::new();
        loop {
            tokio::time::sleep(EVERY).await;
            for disk in self.disks.ids().await {
                let Some((share, percent)) = self.wanted(disk, last.get(&disk).copied()).await else {
                    continue;
                };
                let change = |map: &ClusterMap| plan_share(map, disk, share, percent);
                match self.volumes.carry_out(change).await {
                    Ok(()) => {
                        last.insert(disk, Instant::now());
                    }
                    Err(error) => warn!(%disk, %error, "a disk's share cannot be changed now"),
                }
            }
        }
    }

    /// The share that a disk is to have, if it is another one, and how full it is.
    async fn wanted(&self, disk: DiskId, last: Option<Instant>) -> Option<(u16, u64)> {
        let condition = self.disks.condition(disk).await;
        if condition.state != DiskState::Up {
            return None;
        }
        let map = self.volumes.map();
        let record = &map.disks().get(&disk)?.record;
        let moves = self.relocations.progress();
        let store = condition.figures.store;
        let fill = Fill {
            used: store.used_bytes,
            free: store.free_bytes,
            share: record.share.unwrap_or(WHOLE),
            moving: moves.moving + moves.waiting > 0 || record.draining,
        };
        let share = next_share(&fill, &self.limits, last, Instant::now())?;
        Some((share, fill.percent()))
    }
}

/// Gives a disk another share.
fn plan_share(
    map: &ClusterMap,
    disk: DiskId,
    share: u16,
    percent: u64,
) -> Result<Decision<()>, OperationError> {
    let Some(known) = map.disks().get(&disk) else {
        return Ok(Decision::Unchanged(()));
    };
    let before = known.record.share.unwrap_or(WHOLE);
    let mut record = known.record.clone();
    record.share = (share < WHOLE).then_some(share);
    if record == known.record {
        return Ok(Decision::Unchanged(()));
    }
    let key = Key::Disk(disk).to_text();
    let transaction = Transaction::new()
        .when(Compare::Modified(key.clone(), known.modified))
        .put(key, encode(&record)?);
    let part = share / 10;
    let (severity, message) = if share < before {
        let message = format!(
            "{disk} is {percent} % full: it counts with {part} % of its weight from now on, so that data goes to others"
        );
        (Severity::Warning, message)
    } else {
        let message = format!("{disk} has room again: it counts with {part} % of its weight from now on");
        (Severity::Info, message)
    };
    let mut told = event("disk_share", disk.to_string(), message);
    told.severity = severity;
    Ok(Plan::decide(transaction, told, ()))
}

#[cfg(test)]
mod tests {
    //! A share is changed on the condition that the disk's record is as it was, and the whole is left out of it.
    use protocol::session::SlotState;

    use super::*;
    use crate::membership::fixture;

    #[test]
    fn a_share_is_changed_and_told_of_and_the_same_one_is_not() {
        let map = fixture::map_of_nodes(3, &[1, 2, 3], SlotState::InSync);
        let Decision::Change(plan) = plan_share(&map, DiskId(2), 900, 86).unwrap() else {
            panic!("nothing changes");
        };
        assert_eq!(plan.transaction.compares.len(), 1);
        assert_eq!(
            plan.event.unwrap().message,
            "disk-2 is 86 % full: it counts with 90 % of its weight from now on, so that data goes to others"
        );
        for (disk, share) in [(2, WHOLE), (99, 900)] {
            let decision = plan_share(&map, DiskId(disk), share, 1).unwrap();
            assert!(matches!(decision, Decision::Unchanged(())), "{disk}");
        }
    }
}

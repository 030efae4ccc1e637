//! Finds disks that died while they came back to their groups, and has them taken out: space cannot be given
//! back while somebody comes back, and who joins is waited for by every write.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use admin_api::disks::DiskState;
use coordination::ClusterMap;
use coordination::map::MapWatch;
use protocol::DiskId;

use crate::disks::Disks;
use crate::membership::{Wish, Wishes};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);

/// Looks for ever: run it as a task.
pub async fn run(disks: Arc<Disks>, map: MapWatch, wishes: Wishes) {
    loop {
        tokio::time::sleep(EVERY).await;
        let map = map.current();
        for disk in coming_back(&map) {
            // Of other nodes' disks their own nodes know whether they serve.
            let absent = if is_on_node_that_is_down(&map, disk) {
                true
            } else {
                let condition = disks.condition(disk).await;
                condition.here && !matches!(condition.state, DiskState::Up | DiskState::Starting)
            };
            if absent && wishes.send(Wish::Absent(disk)).await.is_err() {
                return;
            }
        }
    }
}

/// The disks that come back to some group.
fn coming_back(map: &ClusterMap) -> BTreeSet<DiskId> {
    let pools = map.pools().flat_map(|(pool, _)| map.groups(pool));
    let slots = pools.flat_map(|group| &group.slots);
    let coming = slots.filter(|slot| slot.state.comes_back());
    coming.map(|slot| slot.disk).collect()
}

fn is_on_node_that_is_down(map: &ClusterMap, disk: DiskId) -> bool {
    let node = map.disks().get(&disk).map(|disk| disk.record.node);
    node.is_some_and(|node| !map.up().contains_key(&node))
}

#[cfg(test)]
mod tests {
    //! Only who comes back is looked at.
    use protocol::session::SlotState;

    use super::*;
    use crate::membership::fixture;

    #[test]
    fn whoever_is_in_sync_or_down_is_nobody_to_wait_for() {
        for state in [SlotState::Syncing, SlotState::Joining] {
            assert_eq!(
                coming_back(&fixture::map_with(state, 2)),
                BTreeSet::from([DiskId(3)])
            );
        }
        for state in [SlotState::InSync, SlotState::Down] {
            assert!(coming_back(&fixture::map_with(state, 2)).is_empty());
        }
    }
}

//! Which disks are away, and for how long: those of nodes that are down, and those that are out of all their groups.
//! Knows only what the map shows; every node keeps the time for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coordination::ClusterMap;
use protocol::session::SlotState;
use protocol::{DiskId, NodeId};
use tokio::time::Instant;

/// If the disks of more than one node of so many stay away, it is not they that failed but what joins them, and
/// moving their data about would only add to it.
const NODES_PER_OUT: usize = 4;

/// Since when disks are away.
#[derive(Debug, Default)]
pub(super) struct Absent {
    since: BTreeMap<DiskId, Instant>,
}

/// Disks that have been away for so long that their data goes elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Out {
    pub(super) disks: BTreeSet<DiskId>,
    /// Those that would be out, if they were not on too many nodes.
    pub(super) too_many: BTreeSet<DiskId>,
}

impl Absent {
    /// Looks at the map of this moment.
    pub(super) fn look(&mut self, map: &ClusterMap, now: Instant) {
        let away = away(map);
        self.since.retain(|disk, _| away.contains(disk));
        for disk in away {
            self.since.entry(disk).or_insert(now);
        }
    }

    /// The disks that are away now, for however short a time.
    pub(super) fn away(&self) -> BTreeSet<DiskId> {
        self.since.keys().copied().collect()
    }

    /// The disks that have been away for longer than this; none, if there is no such time.
    pub(super) fn out(&self, map: &ClusterMap, after: Option<Duration>, now: Instant) -> Out {
        let Some(after) = after else {
            return Out::default();
        };
        let long = self.since.iter().filter(|(_, since)| now - **since >= after);
        let disks: BTreeSet<DiskId> = long.map(|(disk, _)| *disk).collect();
        let node_of = |disk: &DiskId| map.disks().get(disk).map(|disk| disk.record.node);
        let nodes: BTreeSet<NodeId> = disks.iter().filter_map(node_of).collect();
        if nodes.len() > map.nodes().len().div_ceil(NODES_PER_OUT) {
            return Out {
                disks: BTreeSet::new(),
                too_many: disks,
            };
        }
        Out {
            disks,
            too_many: BTreeSet::new(),
        }
    }
}

fn away(map: &ClusterMap) -> BTreeSet<DiskId> {
    let mut states: BTreeMap<DiskId, bool> = BTreeMap::new();
    for (pool, _) in map.pools() {
        for slot in map.groups(pool).flat_map(|group| &group.slots) {
            let serves = states.entry(slot.disk).or_default();
            *serves |= slot.state != SlotState::Down;
        }
    }
    let disks = map.disks().iter().filter(|(id, disk)| {
        let out_of_all = states.get(id) == Some(&false);
        out_of_all || !map.up().contains_key(&disk.record.node)
    });
    disks.map(|(id, _)| *id).collect()
}

#[cfg(test)]
mod tests {
    //! A disk is out once it was away for long, and not when half of the cluster is away.
    use super::*;
    use crate::membership::fixture;

    const AFTER: Duration = Duration::from_secs(10);

    #[test]
    fn a_disk_that_is_out_of_all_its_groups_for_long_is_out() {
        let map = fixture::map_of_nodes(3, &[1, 2, 3], SlotState::Down);
        let (mut absent, began) = (Absent::default(), Instant::now());
        absent.look(&map, began);
        assert_eq!(absent.away(), BTreeSet::from([DiskId(3)]));
        let early = absent.out(&map, Some(AFTER), began + AFTER / 2);
        assert_eq!(early, Out::default());
        let late = absent.out(&map, Some(AFTER), began + AFTER);
        assert_eq!(late.disks, BTreeSet::from([DiskId(3)]));
        assert_eq!(absent.out(&map, None, began + AFTER), Out::default());
    }

    #[test]
    fn whoever_comes_back_begins_anew() {
        let (mut absent, began) = (Absent::default(), Instant::now());
        absent.look(&fixture::map_of_nodes(3, &[1, 2], SlotState::InSync), began);
        assert_eq!(absent.away(), BTreeSet::from([DiskId(3)]));
        let back = fixture::map_of_nodes(3, &[1, 2, 3], SlotState::InSync);
        absent.look(&back, began + AFTER);
        assert_eq!(absent.out(&back, Some(AFTER), began + AFTER), Out::default());
    }

    #[test]
    fn the_disks_of_too_many_nodes_at_once_are_not_given_up() {
        let map = fixture::map_of_nodes(3, &[1], SlotState::InSync);
        let (mut absent, began) = (Absent::default(), Instant::now());
        absent.look(&map, began);
        let out = absent.out(&map, Some(AFTER), began + AFTER);
        assert!(out.disks.is_empty());
        assert_eq!(out.too_many, BTreeSet::from([DiskId(2), DiskId(3)]));
    }
}

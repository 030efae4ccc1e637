//! How far the moving of groups is, in sentences.

use std::collections::BTreeMap;

use coordination::ClusterMap;
use coordination::records::FailureDomain;
use protocol::DiskId;
use replication::relocation::{arriving, is_settled};

use super::absent::Out;
use super::wanted::Wanted;

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Groups that are on their way to another disk.
    pub moving: usize,
    /// Groups that are not where they belong and wait for their turn.
    pub waiting: usize,
    /// What people should know of it.
    pub sentences: Vec<String>,
}

impl Progress {
    pub(super) fn of(map: &ClusterMap, wanted: &Wanted, out: &Out) -> Self {
        let mut progress = Self::default();
        for (id, pool) in map.pools() {
            let width = usize::from(pool.record.redundancy.width());
            let (mut moving, mut waiting, mut homeless) = (0, 0, 0);
            for group in map.groups(id) {
                let places = wanted.of(group.pg);
                let lost = |slot: &protocol::session::Slot| is_given_up(map, slot.disk, out);
                if arriving(&group.slots, width).next().is_some() {
                    moving += 1;
                } else if !is_settled(&group.slots, places, width) {
                    waiting += 1;
                } else if places.len() < width && group.slots.iter().any(lost) {
                    homeless += 1;
                }
            }
            let name = &pool.record.name;
            if moving + waiting > 0 {
                progress.sentences.push(format!(
                    "pool {name}: {moving} of {} placement groups move to other disks, and {waiting} wait for their turn",
                    pool.record.groups
                ));
            }
            if homeless > 0 {
                let places = domain(pool.record.failure_domain);
                let parts = pool.record.redundancy.parts();
                let one = if pool.record.redundancy.profile().is_some() {
                    "a shard"
                } else {
                    "a copy"
                };
                progress.sentences.push(format!(
                    "pool {name}: {homeless} placement groups have {one} on a disk that is away or to be emptied, and \
                     stay there: {width} {parts} on distinct {places} need as many {places}; add one"
                ));
            }
            progress.moving += moving;
            progress.waiting += waiting;
        }
        progress.tell_of_disks(map, out);
        progress
    }

    fn tell_of_disks(&mut self, map: &ClusterMap, out: &Out) {
        let left: BTreeMap<DiskId, usize> = super::draining(map);
        for (disk, groups) in left {
            self.sentences.push(match groups {
                0 => format!("{disk} is empty: it can be removed (disk remove)"),
                _ => format!("{disk} is being emptied: it still has {groups} placement groups"),
            });
        }
        if !out.too_many.is_empty() {
            let disks: Vec<String> = out.too_many.iter().map(DiskId::to_string).collect();
            self.sentences.push(format!(
                "{} have been away for long, on too many nodes for their data to be put elsewhere: look at what joins \
                 these nodes to the others",
                disks.join(", ")
            ));
        }
    }
}

fn is_given_up(map: &ClusterMap, disk: DiskId, out: &Out) -> bool {
    let record = map.disks().get(&disk).map(|disk| &disk.record);
    out.disks.contains(&disk) || record.is_none_or(|record| record.draining)
}

/// What copies are kept apart on, for people.
pub(super) fn domain(domain: FailureDomain) -> &'static str {
    match domain {
        FailureDomain::Disk => "disks",
        FailureDomain::Node => "nodes",
        FailureDomain::Zone => "zones",
    }
}

#[cfg(test)]
mod tests {
    //! What moves and what cannot is said.
    use std::collections::BTreeSet;

    use protocol::session::SlotState;

    use super::*;
    use crate::membership::fixture;

    fn sentences(nodes: u32) -> Vec<String> {
        let up: Vec<u32> = (1..=nodes).collect();
        let map = fixture::map_of_nodes(nodes, &up, SlotState::InSync);
        let out = Out {
            disks: BTreeSet::from([DiskId(1)]),
            too_many: BTreeSet::new(),
        };
        let mut wanted = Wanted::default();
        wanted.follow(&map, &out.disks);
        Progress::of(&map, &wanted, &out).sentences
    }

    #[test]
    fn groups_that_wait_for_their_turn_are_counted() {
        assert_eq!(
            sentences(4),
            ["pool fast: 0 of 8 placement groups move to other disks, and 8 wait for their turn"]
        );
    }

    #[test]
    fn groups_without_another_place_say_what_is_missing() {
        let told = sentences(3);
        assert_eq!(told.len(), 1);
        assert!(
            told[0].contains("8 placement groups have a copy on a disk that is away"),
            "{told:?}"
        );
        assert!(
            told[0].ends_with("3 copies on distinct nodes need as many nodes; add one"),
            "{told:?}"
        );
    }
}

//! How a pool is laid out when it is made: how far apart the disks of its groups can be, and the first slots of each group.
//!
//! Pure. What becomes of the slots later is the business of `replication`; who may make which pools, of `storaged`.

use std::collections::BTreeSet;
use std::fmt;

use protocol::session::{Slot, SlotState};
use protocol::{Interval, PgId};

use crate::placement::{Candidate, choose};
use crate::records::{FailureDomain, Redundancy};

/// Slots of all groups of a pool together, without those that are on their way: what fits into the frame in which a front
/// end gets them, and as many as 512 groups of 7 copies have.
const SLOTS_MAX: u32 = 512 * 7;

/// There are fewer disks, nodes or zones than a group needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    redundancy: Redundancy,
    domain: FailureDomain,
    /// How many there are.
    there: usize,
}

impl std::error::Error for TooFew {}

impl fmt::Display for TooFew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (one, many, instead) = match self.domain {
            FailureDomain::Disk => ("disk", "disks", ""),
            FailureDomain::Node => ("node", "nodes", ", or say that distinct disks are enough"),
            FailureDomain::Zone => ("zone", "zones", ", or say that distinct nodes are enough"),
        };
        let width = self.redundancy.width();
        let all = self.redundancy.parts();
        // A row has three shards at least.
        let each = if width == 1 { "copy" } else { all };
        write!(f, "{width} {each} on distinct {many} need as many {many}; there ")?;
        match self.there {
            0 => f.write_str("is none")?,
            1 => write!(f, "is 1 {one}")?,
            count => write!(f, "are {count}")?,
        }
        let with = match self.domain {
            FailureDomain::Disk => "a weight above 0",
            FailureDomain::Node | FailureDomain::Zone => "disks of a weight above 0",
        };
        write!(f, " with {with}: add {many}, or ask for fewer {all}{instead}")
    }
}

/// How far apart the disks of a group are to be, if there are enough places for that. If nobody says: on distinct nodes,
/// once there is more than one.
pub fn spread(
    redundancy: Redundancy,
    asked: Option<FailureDomain>,
    candidates: &[Candidate],
) -> Result<FailureDomain, TooFew> {
    let nodes: BTreeSet<u32> = candidates.iter().map(|disk| disk.node).collect();
    let domain = asked.unwrap_or(if nodes.len() > 1 {
        FailureDomain::Node
    } else {
        FailureDomain::Disk
    });
    let there = match domain {
        FailureDomain::Disk => candidates.len(),
        FailureDomain::Node => nodes.len(),
        FailureDomain::Zone => candidates
            .iter()
            .map(|disk| &disk.zone)
            .collect::<BTreeSet<_>>()
            .len(),
    };
    if there >= usize::from(redundancy.width()) {
        return Ok(domain);
    }
    Err(TooFew {
        redundancy,
        domain,
        there,
    })
}

/// The slots of a group that is made: all in sync, for nothing was written yet, and in a pool of rows with the shards in
/// the order of the disks. Fewer than the pool's width if there are not enough places.
pub fn first_slots(
    pg: PgId,
    redundancy: Redundancy,
    domain: FailureDomain,
    candidates: &[Candidate],
) -> Vec<Slot> {
    let disks = choose(pg, usize::from(redundancy.width()), domain, candidates);
    let slot = |(place, disk)| Slot {
        disk,
        state: SlotState::InSync,
        shard: redundancy.shard(place),
        arrived: Interval::default(),
    };
    (0..).zip(disks).map(slot).collect()
}

/// The most placement groups of a pool: a power of two, for wide groups make long records.
pub fn groups_max(redundancy: Redundancy) -> u32 {
    let most = SLOTS_MAX / u32::from(redundancy.width()).max(7);
    1 << most.max(1).ilog2()
}

#[cfg(test)]
mod tests {
    //! Each group has each shard once, and no two of them in one place; what does not fit is refused in words.
    use proptest::prelude::*;
    use protocol::profile::Profile;
    use protocol::{DiskId, PoolId};

    use super::*;
    use crate::placement::WHOLE;

    fn encoded(data: u8, parity: u8) -> Redundancy {
        Redundancy::Encoded {
            profile: Profile::new(data, parity).unwrap(),
        }
    }

    /// Nodes with so many disks each, in so many zones.
    fn cluster(nodes: &[u32], zones: u32) -> Vec<Candidate> {
        let on = |(node, disks): (u32, &u32)| (0..*disks).map(move |_| node).collect::<Vec<_>>();
        let disks = (1..).zip((1..).zip(nodes).flat_map(on));
        let candidate = |(disk, node): (u32, u32)| Candidate {
            disk: DiskId(disk),
            weight: 1 + disk % 3,
            share: WHOLE,
            node,
            zone: format!("zone-{}", node % zones),
        };
        disks.map(candidate).collect()
    }

    fn place(domain: FailureDomain, disk: DiskId, candidates: &[Candidate]) -> String {
        let candidate = candidates
            .iter()
            .find(|candidate| candidate.disk == disk)
            .unwrap();
        match domain {
            FailureDomain::Disk => disk.to_string(),
            FailureDomain::Node => candidate.node.to_string(),
            FailureDomain::Zone => candidate.zone.clone(),
        }
    }

    proptest! {
        #[test]
        fn each_group_has_each_shard_once_and_in_a_place_of_its_own(
            nodes in prop::collection::vec(1u32..5, 1..16),
            zones in 1u32..9,
            (data, parity) in (2u8..8, 1u8..4),
            domain in prop::sample::select(vec![FailureDomain::Disk, FailureDomain::Node, FailureDomain::Zone]),
            number in 0u32..512,
        ) {
            let (redundancy, candidates) = (encoded(data, parity), cluster(&nodes, zones));
            let pg = PgId { pool: PoolId(1), number };
            let slots = first_slots(pg, redundancy, domain, &candidates);
            let places: BTreeSet<String> =
                slots.iter().map(|slot| place(domain, slot.disk, &candidates)).collect();
            prop_assert_eq!(places.len(), slots.len());
            match spread(redundancy, Some(domain), &candidates) {
                Ok(found) => {
                    prop_assert_eq!(found, domain);
                    let shards: Vec<u8> = slots.iter().map(|slot| slot.shard).collect();
                    prop_assert_eq!(shards, (0..redundancy.width()).collect::<Vec<_>>());
                }
                Err(too_few) => {
                    prop_assert_eq!(too_few.there, slots.len());
                    prop_assert!(slots.len() < usize::from(redundancy.width()));
                }
            }
        }
    }

    #[test]
    fn groups_of_copies_have_no_shards_and_the_disks_that_they_always_had() {
        let candidates = cluster(&[2, 2, 2, 2], 4);
        for number in 0..64 {
            let pg = PgId {
                pool: PoolId(1),
                number,
            };
            let copies = Redundancy::Replicated { copies: 3 };
            let slots = first_slots(pg, copies, FailureDomain::Node, &candidates);
            assert!(
                slots
                    .iter()
                    .all(|slot| slot.shard == 0 && slot.state == SlotState::InSync)
            );
            let disks: Vec<DiskId> = slots.iter().map(|slot| slot.disk).collect();
            assert_eq!(disks, choose(pg, 3, FailureDomain::Node, &candidates));
        }
    }

    #[test]
    fn too_few_places_are_refused_in_words() {
        let said = |redundancy, asked, nodes: &[u32]| {
            spread(redundancy, asked, &cluster(nodes, 2))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            said(encoded(4, 2), None, &[3, 3, 3]),
            "6 shards on distinct nodes need as many nodes; there are 3 with disks of a weight above 0: add nodes, or ask \
             for fewer shards, or say that distinct disks are enough"
        );
        assert_eq!(
            said(encoded(4, 2), Some(FailureDomain::Zone), &[1; 6]),
            "6 shards on distinct zones need as many zones; there are 2 with disks of a weight above 0: add zones, or ask \
             for fewer shards, or say that distinct nodes are enough"
        );
        let copies = Redundancy::Replicated { copies: 3 };
        assert_eq!(
            said(copies, None, &[1]),
            "3 copies on distinct disks need as many disks; there is 1 disk with a weight above 0: add disks, or ask for \
             fewer copies"
        );
        let one = Redundancy::Replicated { copies: 1 };
        assert_eq!(
            said(one, None, &[]),
            "1 copy on distinct disks need as many disks; there is none with a weight above 0: add disks, or ask for fewer \
             copies"
        );
        assert_eq!(
            spread(encoded(4, 2), Some(FailureDomain::Disk), &cluster(&[3, 3], 1)),
            Ok(FailureDomain::Disk)
        );
    }

    #[test]
    fn pools_of_copies_have_512_groups_at_most_and_wide_ones_fewer() {
        for copies in 1..=7 {
            assert_eq!(groups_max(Redundancy::Replicated { copies }), 512);
        }
        assert_eq!(groups_max(encoded(4, 2)), 512);
        assert_eq!(groups_max(encoded(8, 3)), 256);
        assert_eq!(groups_max(encoded(16, 4)), 128);
    }
}

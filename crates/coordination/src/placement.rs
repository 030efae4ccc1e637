//! Which disks a placement group lies on: weighted rendezvous hashing over the disks of the map.
//!
//! Pure. Every process computes the same answer from the same disks, and adding or removing a disk
//! moves only its share. Which group an object belongs to is `protocol::placement`'s business.

use std::collections::BTreeSet;

use protocol::{DiskId, PgId};

use crate::records::FailureDomain;

/// All of a weight, in thousandths.
pub const WHOLE: u16 = 1000;

/// A disk that may be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which disk.
    pub disk: DiskId,
    /// Its weight; 0 is never chosen.
    pub weight: u32,
    /// How much of that counts, in thousandths.
    pub share: u16,
    /// The node that it is on.
    pub node: u32,
    /// The zone that its node is in.
    pub zone: String,
}

/// The `width` best disks for a group, best first, no two in one failure domain. Fewer if there
/// are not enough.
pub fn choose(pg: PgId, width: usize, domain: FailureDomain, candidates: &[Candidate]) -> Vec<DiskId> {
    let mut scored: Vec<(f64, &Candidate)> = candidates
        .iter()
        .filter(|candidate| candidate.weight > 0 && candidate.share > 0)
        .map(|candidate| (score(pg, candidate), candidate))
        .collect();
    // Ties are next to impossible; the identity makes the order total all the same.
    scored.sort_by(|(a, x), (b, y)| b.total_cmp(a).then(x.disk.cmp(&y.disk)));
    let mut taken = BTreeSet::new();
    scored
        .into_iter()
        .filter(|(_, candidate)| {
            taken.insert(match domain {
                FailureDomain::Disk => candidate.disk.to_string(),
                FailureDomain::Node => candidate.node.to_string(),
                FailureDomain::Zone => candidate.zone.clone(),
            })
        })
        .map(|(_, candidate)| candidate.disk)
        .take(width)
        .collect()
}

/// Weighted rendezvous score (Schindelhauer and Schomaker's logarithmic method): a uniform number
/// u in (0, 1) from the pair, then -weight / ln u. The greatest wins, in proportion to weight.
fn score(pg: PgId, candidate: &Candidate) -> f64 {
    let mut x = mix(u64::from(pg.pool.0) << 32 | u64::from(pg.number));
    x = mix(x ^ u64::from(candidate.disk.0));
    // 52 bits, so that the conversion is exact and the half step keeps u off both ends.
    let fraction = u32::try_from(x >> 38).unwrap_or(0);
    let low = u32::try_from((x >> 12) & 0x03ff_ffff).unwrap_or(0);
    let u = (f64::from(fraction) * 67_108_864.0 + f64::from(low) + 0.5) / 4_503_599_627_370_496.0;
    -(f64::from(candidate.weight) * f64::from(candidate.share) / f64::from(WHOLE)) / u.ln()
}

/// The finalizer of `SplitMix64`.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    //! The laws of rendezvous hashing: in proportion to weight, distinct domains, small moves.
    use super::*;
    use protocol::PoolId;

    fn disks(weights: &[u32]) -> Vec<Candidate> {
        weights
            .iter()
            .zip(1..)
            .map(|(weight, id)| Candidate {
                disk: DiskId(id),
                weight: *weight,
                share: WHOLE,
                node: id / 2,
                zone: format!("zone-{}", id % 3),
            })
            .collect()
    }

    fn group(number: u32) -> PgId {
        PgId {
            pool: PoolId(1),
            number,
        }
    }

    #[test]
    fn shares_follow_weights() {
        let candidates = disks(&[1, 1, 2]);
        let mut hits = [0u32; 3];
        for number in 0..20_000 {
            let chosen = choose(group(number), 1, FailureDomain::Disk, &candidates);
            hits[chosen[0].0 as usize - 1] += 1;
        }
        assert!((4600..5400).contains(&hits[0]), "{hits:?}");
        assert!((4600..5400).contains(&hits[1]), "{hits:?}");
        assert!((9500..10_500).contains(&hits[2]), "{hits:?}");
    }

    #[test]
    fn an_added_disk_only_takes_and_never_shuffles_the_others() {
        let before = disks(&[3, 3, 3, 3, 3]);
        let after = disks(&[3, 3, 3, 3, 3, 3]);
        let mut moved = 0;
        for number in 0..3000 {
            let old = choose(group(number), 3, FailureDomain::Disk, &before);
            let new = choose(group(number), 3, FailureDomain::Disk, &after);
            let came: Vec<_> = new.iter().filter(|disk| !old.contains(disk)).collect();
            assert!(came.is_empty() || came == [&DiskId(6)], "{old:?} {new:?}");
            moved += came.len();
        }
        // One sixth of the 9000 places.
        assert!((1350..1650).contains(&moved), "{moved}");
    }

    /// `nodes` nodes, each with two disks of one weight, in as many zones as copies.
    fn nodes(nodes: u32) -> Vec<Candidate> {
        (0..2 * nodes)
            .map(|id| Candidate {
                disk: DiskId(id + 1),
                weight: 100,
                share: WHOLE,
                node: id / 2,
                zone: format!("zone-{}", id / 2 % 3),
            })
            .collect()
    }

    #[test]
    fn an_added_node_or_disk_moves_its_share_and_little_more() {
        // Ideal: as many places move as the newcomer's part of all weight, and each to the newcomer.
        for (domain, before, after) in [
            (
                FailureDomain::Disk,
                nodes(6),
                nodes(6).into_iter().chain(nodes(7).pop()).collect(),
            ),
            (FailureDomain::Node, nodes(6), nodes(7)),
            (FailureDomain::Node, nodes(12), nodes(13)),
            (FailureDomain::Zone, nodes(9), nodes(12)),
        ] {
            let after: Vec<Candidate> = after;
            let is_new = |disk: &DiskId| before.iter().all(|known| known.disk != *disk);
            let (mut came, mut shuffled, mut places) = (0u32, 0u32, 0u32);
            for number in 0..4000 {
                let old = choose(group(number), 3, domain, &before);
                for disk in choose(group(number), 3, domain, &after) {
                    places += 1;
                    match (old.contains(&disk), is_new(&disk)) {
                        (true, _) => {}
                        (false, true) => came += 1,
                        (false, false) => shuffled += 1,
                    }
                }
            }
            let (b, a) = (before.len(), after.len());
            let newcomers = u32::try_from(a - b).unwrap();
            let ideal = places * newcomers / u32::try_from(a).unwrap();
            println!(
                "{domain:?}, {b} to {a} disks: {came} of {places} places moved to new disks (ideal {ideal}), {shuffled} among old ones"
            );
            assert!(
                came.abs_diff(ideal) < ideal / 6,
                "{domain:?}: {came}, not {ideal}"
            );
            assert!(
                shuffled < ideal / 10,
                "{domain:?}: {shuffled} places moved for nothing"
            );
        }
    }

    #[test]
    fn no_two_copies_share_a_failure_domain() {
        let candidates = disks(&[1, 1, 1, 1, 1, 1]);
        for number in 0..200 {
            let chosen = choose(group(number), 3, FailureDomain::Zone, &candidates);
            let zones: BTreeSet<_> = chosen.iter().map(|disk| disk.0 % 3).collect();
            assert_eq!(zones.len(), 3);
            let nodes: BTreeSet<_> = choose(group(number), 3, FailureDomain::Node, &candidates)
                .iter()
                .map(|disk| disk.0 / 2)
                .collect();
            assert_eq!(nodes.len(), 3);
        }
    }

    #[test]
    fn a_disk_without_weight_gets_nothing_and_too_few_disks_give_fewer() {
        let candidates = disks(&[1, 0, 1]);
        for number in 0..100 {
            let chosen = choose(group(number), 3, FailureDomain::Disk, &candidates);
            assert_eq!(chosen.len(), 2);
            assert!(!chosen.contains(&DiskId(2)));
        }
    }

    #[test]
    fn a_disk_of_which_less_counts_only_gives_and_the_others_only_take() {
        let before = disks(&[3, 3, 3, 3]);
        let mut after = before.clone();
        after[0].share = 700;
        let mut gave = 0;
        for number in 0..3000 {
            let old = choose(group(number), 2, FailureDomain::Disk, &before);
            let new = choose(group(number), 2, FailureDomain::Disk, &after);
            let left: Vec<_> = old.iter().filter(|disk| !new.contains(disk)).collect();
            assert!(left.is_empty() || left == [&DiskId(1)], "{old:?} {new:?}");
            gave += left.len();
        }
        // It had 1500 of 6000 places, and wants 700 of 3700 for the first of each two.
        assert!((200..420).contains(&gave), "{gave}");
    }

    #[test]
    fn the_choice_keeps_its_golden_values() {
        // Every process and every release must agree, or they place new groups differently.
        let candidates = disks(&[1, 2, 3, 4]);
        let chosen: Vec<_> = (0..6)
            .map(|n| choose(group(n), 2, FailureDomain::Disk, &candidates))
            .collect();
        let chosen: Vec<Vec<u32>> = chosen.iter().map(|c| c.iter().map(|d| d.0).collect()).collect();
        assert_eq!(chosen, GOLDEN);
    }

    const GOLDEN: [[u32; 2]; 6] = [[4, 3], [1, 3], [4, 2], [4, 2], [4, 2], [4, 2]];
}

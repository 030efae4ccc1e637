//! Where each placement group belongs: computed once for each change of the disks, for it looks at every pair of a
//! group and a disk.

use std::collections::{BTreeMap, BTreeSet};

use coordination::ClusterMap;
use coordination::placement::{Candidate, choose};
use coordination::records::FailureDomain;
use protocol::{DiskId, PgId, PoolId};

/// Where groups belong.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pools: BTreeMap<PoolId, Places>,
}

/// The groups of one pool, and what their places follow from.
#[derive(Debug)]
struct Places {
    given: Given,
    groups: Vec<Vec<DiskId>>,
}

#[derive(Debug, PartialEq)]
struct Given {
    candidates: Vec<Candidate>,
    width: usize,
    domain: FailureDomain,
    groups: u32,
}

impl Wanted {
    /// Takes in the map of this moment; some disks are given up.
    pub(super) fn follow(&mut self, map: &ClusterMap, out: &BTreeSet<DiskId>) {
        self.pools.retain(|pool, _| map.pool(*pool).is_some());
        for (id, pool) in map.pools() {
            let pool = &pool.record;
            let mut candidates = map.candidates(pool.disks.as_deref());
            candidates.retain(|candidate| !out.contains(&candidate.disk));
            let given = Given {
                candidates,
                width: usize::from(pool.redundancy.width()),
                domain: pool.failure_domain,
                groups: pool.groups,
            };
            if self.pools.get(&id).is_none_or(|places| places.given != given) {
                self.pools.insert(id, Places::of(id, given));
            }
        }
    }

    /// The disks that a group belongs on; fewer than its groups have slots where there are not enough.
    pub(super) fn of(&self, pg: PgId) -> &[DiskId] {
        let number = usize::try_from(pg.number).unwrap_or(usize::MAX);
        let places = self.pools.get(&pg.pool);
        let group = places.and_then(|places| places.groups.get(number));
        group.map(Vec::as_slice).unwrap_or_default()
    }
}

impl Places {
    fn of(pool: PoolId, given: Given) -> Self {
        let chosen = |number| {
            let pg = PgId { pool, number };
            choose(pg, given.width, given.domain, &given.candidates)
        };
        Self {
            groups: (0..given.groups).map(chosen).collect(),
            given,
        }
    }
}

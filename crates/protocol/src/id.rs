//! Identities and counters, each its own type, so that one is never taken for another.
//!
//! Nothing here knows how an identity is allocated: the coordination store does that.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

number!(
    /// A node: one `storaged` and the disks that it runs.
    NodeId(u32), "node-"
);
number!(
    /// One unit of storage that a `storaged` runs.
    DiskId(u32), "disk-"
);
number!(
    /// A redundancy policy and its placement groups.
    PoolId(u32), "pool-"
);
number!(
    /// A virtual disk. Never used again after a deletion.
    VolumeId(u64), "volume-"
);
number!(
    /// A volume and all its clones, which share layers and therefore disks.
    FamilyId(u64), "family-"
);
number!(
    /// A set of writes between two snapshots. Unique over the whole cluster, never used again.
    LayerId(u64), "layer-"
);
number!(
    /// Grows with every change of a volume's owner: a revision of the coordination store, so it is
    /// global. Zero means that nobody ever owned the volume.
    Generation(u64), "generation-"
);
number!(
    /// Grows with every change of one placement group's record.
    Interval(u64), "interval-"
);
number!(
    /// Grows with every change of the chain of layers that a volume reads through, or of its head.
    TreeRevision(u64), "revision-"
);

/// A placement group: one of the equal shares of a pool. An object belongs to exactly one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PgId {
    /// The pool whose share this is.
    pub pool: PoolId,
    /// Which share, from 0 to the pool's number of placement groups less one.
    pub number: u32,
}

impl fmt::Display for PgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pg-{}.{}", self.pool.0, self.number)
    }
}

/// 4 MiB of one layer of a family.
///
/// The order is (family, index, layer), so that all layers of one range lie side by side on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Whose data this is.
    pub family: FamilyId,
    /// Which 4 MiB of the address space, from 0.
    pub index: u32,
    /// Which set of writes.
    pub layer: LayerId,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object {}/{}/{}", self.family, self.index, self.layer)
    }
}

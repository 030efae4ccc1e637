//! How large a world is: who is in it, and what may happen how often. And which rule, if any, is left out.

use crate::rule::Rule;
use crate::state::{DISKS, Disk, Left, OWNERS, Owner, Record, Slot, World, Wrong};

use Slot::{Absent, InSync, Joining, Syncing};

/// A bounded world.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Its name.
    pub name: &'static str,
    /// The slots at the beginning.
    pub slots: [Slot; DISKS],
    /// Copies that the pool wants.
    pub width: u32,
    /// Copies that must be in sync.
    pub least: u32,
    /// Owners, one after the other.
    pub owners: u8,
    /// Writes of each.
    pub writes: [u8; OWNERS],
    /// Writes of one owner that may be unacknowledged.
    pub in_flight: usize,
    /// Evictions, returns, restarts, moves.
    pub left: Left,
    /// Whether owners go on when another one has their key: as if clocks lied.
    pub zombies: bool,
    /// The last interval.
    pub intervals: u8,
    /// The rule that is left out.
    pub without: Option<Rule>,
}

/// Nothing happens but owners and writes.
const NOTHING: Left = Left {
    evictions: 0,
    returns: 0,
    restarts: 0,
    wipes: 0,
    moves: 0,
};

/// Two copies, two owners, one write each.
const BASE: Scope = Scope {
    name: "pair",
    slots: [InSync, InSync, Absent, Absent],
    width: 2,
    least: 1,
    owners: 2,
    writes: [1, 1, 0],
    in_flight: 1,
    left: NOTHING,
    zombies: false,
    intervals: 5,
    without: None,
};

/// A third disk joins.
const JOINING: Scope = Scope {
    name: "joining",
    slots: [InSync, InSync, Joining, Absent],
    width: 3,
    ..BASE
};

const EVICTION: Left = Left {
    evictions: 1,
    ..NOTHING
};

const RESTART: Left = Left {
    restarts: 1,
    ..NOTHING
};

/// Those that every change must pass: the whole of each.
pub const SHORT: &[Scope] = &[
    BASE,
    Scope {
        name: "pipeline",
        writes: [2, 1, 0],
        in_flight: 2,
        ..BASE
    },
    Scope {
        name: "zombie",
        zombies: true,
        left: EVICTION,
        ..BASE
    },
    Scope {
        name: "restart",
        left: RESTART,
        ..BASE
    },
    Scope {
        name: "needed",
        least: 2,
        left: EVICTION,
        ..BASE
    },
    Scope {
        name: "short-handed",
        slots: [InSync, Syncing, Absent, Absent],
        least: 2,
        ..BASE
    },
    JOINING,
    Scope {
        name: "join",
        slots: [InSync, InSync, Syncing, Absent],
        ..JOINING
    },
    Scope {
        name: "evict",
        left: Left {
            returns: 1,
            ..EVICTION
        },
        ..BASE
    },
    Scope {
        name: "replace",
        writes: [1, 0, 0],
        left: Left {
            returns: 1,
            wipes: 1,
            ..EVICTION
        },
        ..BASE
    },
    Scope {
        name: "level",
        slots: [InSync, InSync, InSync, Absent],
        width: 3,
        owners: 3,
        writes: [1, 0, 0],
        left: EVICTION,
        ..BASE
    },
    Scope {
        name: "join-restart",
        slots: [InSync, Syncing, Absent, Absent],
        width: 2,
        writes: [1, 0, 0],
        left: RESTART,
        ..BASE
    },
    Scope {
        name: "move",
        owners: 1,
        least: 2,
        writes: [1, 0, 0],
        left: Left { moves: 1, ..NOTHING },
        ..BASE
    },
];

/// Those of long runs, beside the short ones.
pub const LONG: &[Scope] = &[
    Scope {
        name: "joining-restart",
        left: RESTART,
        ..JOINING
    },
    Scope {
        name: "joining-evict",
        left: EVICTION,
        ..JOINING
    },
    Scope {
        name: "joining-zombie",
        zombies: true,
        ..JOINING
    },
    Scope {
        name: "move-two-owners",
        owners: 2,
        least: 2,
        writes: [1, 0, 0],
        left: Left { moves: 1, ..NOTHING },
        intervals: 4,
        ..BASE
    },
    Scope {
        name: "three-owners",
        owners: 3,
        writes: [1, 1, 1],
        ..JOINING
    },
    // As far as the bound goes: see `model-tests --transitions`.
    Scope {
        name: "three-owners-evict",
        owners: 3,
        writes: [1, 1, 1],
        left: EVICTION,
        ..JOINING
    },
    Scope {
        name: "joining-pipeline",
        writes: [2, 1, 0],
        in_flight: 2,
        ..JOINING
    },
    Scope {
        name: "evict-restart",
        left: Left {
            returns: 1,
            restarts: 1,
            ..EVICTION
        },
        ..BASE
    },
    Scope {
        name: "evict-three",
        slots: [InSync, InSync, InSync, Absent],
        width: 3,
        least: 2,
        left: Left {
            returns: 1,
            ..EVICTION
        },
        ..BASE
    },
];

impl Scope {
    /// Whether a rule is kept.
    pub fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// The scope of this name.
    pub fn named(name: &str) -> Option<Self> {
        SHORT.iter().chain(LONG).find(|scope| scope.name == name).copied()
    }

    /// The same with a rule left out.
    #[must_use]
    pub fn without(self, rule: Rule) -> Self {
        Self {
            without: Some(rule),
            ..self
        }
    }

    /// The world as it begins: nobody has the volume open, all that is in sync is empty.
    pub fn first(&self) -> World {
        let mut records = [Record::default(); crate::state::INTERVALS];
        records[0] = Record::new(self.slots);
        World {
            records,
            interval: 0,
            swaps: [0; DISKS],
            disks: [Disk::default(); DISKS],
            key: 0,
            owners: [Owner::default(); OWNERS],
            must: 0,
            dead: 0,
            wrong: Wrong::Nothing,
            left: self.left,
        }
    }
}

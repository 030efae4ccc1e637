//! What a world of rows is made of, and how large it is. Nothing here changes anything by itself.

use super::rule::Rule;

/// Shards, each on a disk of its own.
pub const SHARDS: usize = 3;
/// Shards that give the row back.
pub const DATA: u32 = 2;
/// Disks with the front, the first ones: one more than may fail.
pub const FRONTS: usize = 2;
/// Blocks of the row: two of its first chunk, one of its second.
pub const BLOCKS: usize = 3;
/// Blocks of the front: those of the first chunk.
pub const FRONT_BLOCKS: usize = 2;
/// Writes in a world.
pub const WRITES: usize = 5;

/// Which write a block shows, from 1; 0 is none, zeros.
pub type Value = u8;
/// A set of disks or writes, a bit each.
pub type Set = u8;
/// A write's place among all: later ones are higher.
pub type Stamp = u8;

/// One whole row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version {
    /// The write that made it.
    pub stamp: Stamp,
    /// What its blocks show.
    pub content: [Value; BLOCKS],
}

/// What a disk has of the front's chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Front {
    /// The write that the object had last: the next one must follow it.
    pub at: Stamp,
    /// The write that the chunk had last.
    pub stamp: Stamp,
    /// Its blocks.
    pub blocks: [Option<Value>; FRONT_BLOCKS],
}

/// A disk: all of it is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disk {
    /// The highest owner that fenced it.
    pub fenced: u8,
    /// The write that the rows' object had last.
    pub at: Stamp,
    /// The two places of the row.
    pub places: [Option<Version>; 2],
    /// The front, on the first disks.
    pub front: Front,
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// Writes the row whole.
    Row {
        /// Where to.
        place: usize,
        /// What its blocks show then.
        content: [Value; BLOCKS],
    },
    /// Writes one block of the front.
    Front {
        /// Which.
        block: usize,
        /// Whether the chunk's other blocks go.
        fresh: bool,
    },
}

/// A write of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    /// Whose.
    pub owner: u8,
    /// Its stamp.
    pub stamp: Stamp,
    /// The object's write before it.
    pub follows: Stamp,
    /// What it does.
    pub what: What,
}

impl Write {
    /// Whether it writes the row.
    pub fn is_row(&self) -> bool {
        matches!(self.what, What::Row { .. })
    }
}

/// What the owner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It fences; these are done.
    Fencing(Set),
    /// It makes all level to this version, in this place, and to this front; these are done.
    Levelling(Version, usize, Front, Set),
    /// It serves.
    Serving,
}

/// What an owner that serves knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Known {
    /// The last writes of the two objects that were sent.
    pub row_sent: Stamp,
    /// And of the front.
    pub front_sent: Stamp,
    /// The row's last version that is acknowledged.
    pub row: Stamp,
    /// And where it is.
    pub place: usize,
    /// The front's chunk's last write.
    pub front: Stamp,
    /// What was read to be encoded.
    pub encoding: Option<[Value; BLOCKS]>,
}

/// All of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The disks.
    pub disks: [Disk; SHARDS],
    /// Those in sync.
    pub in_sync: Set,
    /// Disks that may still leave.
    pub evictions: u8,
    /// The owner's number, from 1.
    pub owner: u8,
    /// What it does.
    pub phase: Phase,
    /// What it knows.
    pub known: Known,
    /// All writes so far, of all owners.
    pub writes: [Option<Write>; WRITES],
    /// Those that were acknowledged.
    pub acknowledged: Set,
    /// The last stamp.
    pub stamp: Stamp,
    /// The row's last version that its owner said to be complete.
    pub complete: Stamp,
    /// What each block must show at least.
    pub must: [Value; BLOCKS],
    /// Writes that each block must not show any more.
    pub dead: [Set; BLOCKS],
    /// A take-over found no version of the row on enough shards.
    pub lost: bool,
}

impl World {
    /// The first.
    pub fn begin(scope: &Scope) -> Self {
        let disk = Disk {
            fenced: 1,
            places: [Some(Version::default()), None],
            ..Disk::default()
        };
        Self {
            disks: [disk; SHARDS],
            in_sync: (1 << SHARDS) - 1,
            evictions: scope.evictions,
            owner: 1,
            phase: Phase::Serving,
            known: Known::default(),
            writes: [None; WRITES],
            acknowledged: 0,
            stamp: 0,
            complete: 0,
            must: [0; BLOCKS],
            dead: [0; BLOCKS],
            lost: false,
        }
    }

    /// The disks in sync.
    pub fn all_in_sync(&self) -> impl Iterator<Item = usize> {
        let set = self.in_sync;
        (0..SHARDS).filter(move |disk| set & 1 << disk != 0)
    }

    /// Those of them with the front.
    pub fn fronts(&self) -> impl Iterator<Item = usize> {
        self.all_in_sync().filter(|disk| *disk < FRONTS)
    }

    /// The present owner's writes that are not acknowledged.
    pub fn on_their_way(&self) -> impl Iterator<Item = &Write> {
        let open = |(number, _): &(usize, &Write)| self.acknowledged & 1 << number == 0;
        let all = self.writes.iter().flatten().enumerate().filter(open);
        all.map(|(_, write)| write)
            .filter(|write| write.owner == self.owner)
    }
}

/// A bounded world.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Its name.
    pub name: &'static str,
    /// Writes, encoding included.
    pub writes: usize,
    /// Owners, one after the other.
    pub owners: u8,
    /// Disks that may leave.
    pub evictions: u8,
    /// The rule that is left out.
    pub without: Option<Rule>,
}

impl Scope {
    /// Whether a rule is kept.
    pub fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// The same without a rule.
    #[must_use]
    pub fn without(self, rule: Rule) -> Self {
        Self {
            without: Some(rule),
            ..self
        }
    }
}

/// What every change must pass, whole.
pub const SHORT: &[Scope] = &[Scope {
    name: "rows",
    writes: 3,
    owners: 2,
    evictions: 1,
    without: None,
}];

/// And what a release must.
pub const LONG: &[Scope] = &[
    Scope {
        name: "rows-four",
        writes: 4,
        owners: 2,
        evictions: 1,
        without: None,
    },
    Scope {
        name: "rows-three-owners",
        writes: 3,
        owners: 3,
        evictions: 1,
        without: None,
    },
];

impl Scope {
    /// The scope of this name.
    pub fn named(name: &str) -> Option<Self> {
        SHORT.iter().chain(LONG).find(|scope| scope.name == name).copied()
    }
}

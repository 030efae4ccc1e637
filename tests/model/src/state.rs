//! What the model's world is made of: the group's records, disks, owners, writes. One group, one object. Every part
//! is a few bytes, for a run keeps millions of worlds waiting; nothing here changes anything by itself.

/// Disks in the world.
pub const DISKS: usize = 4;
/// Owners, one after the other.
pub const OWNERS: usize = 3;
/// Writes of one owner.
pub const WRITES: usize = 2;
/// Records of the group, one after the other.
pub const INTERVALS: usize = 8;

/// A set of disks, a bit each.
pub type Set = u8;

/// A disk's place in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Slot {
    /// None.
    Absent,
    /// It has a slot and is out.
    Down,
    /// It is being filled: gets no writes.
    Syncing,
    /// It is filled and verifies: gets writes, is not read.
    Joining,
    /// It has every acknowledged write.
    InSync,
}

impl Slot {
    fn of(bits: u16) -> Self {
        match bits & 7 {
            0 => Self::Absent,
            1 => Self::Down,
            2 => Self::Syncing,
            3 => Self::Joining,
            _ => Self::InSync,
        }
    }

    /// Whether writes wait for it, and fences.
    pub fn is_awaited(self) -> bool {
        self >= Self::Joining
    }

    /// Whether it is on its way back.
    pub fn comes_back(self) -> bool {
        matches!(self, Self::Syncing | Self::Joining)
    }
}

/// The group's record in the coordination store: each disk's slot, and which of them came as an extra one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record(u16);

impl Record {
    /// A record with these slots and no extra one.
    pub fn new(slots: [Slot; DISKS]) -> Self {
        let bits = slots.iter().rev().fold(0, |bits, slot| bits << 3 | *slot as u16);
        Self(bits)
    }

    /// A disk's slot.
    pub fn slot(self, disk: usize) -> Slot {
        Slot::of(self.0 >> (3 * disk))
    }

    /// The record with another state of one slot. A slot that goes is not the extra one any more.
    #[must_use]
    pub fn with(self, disk: usize, slot: Slot) -> Self {
        let bits = self.0 & !(7 << (3 * disk)) | (slot as u16) << (3 * disk);
        let record = Self(bits);
        if slot == Slot::Absent {
            // Either it was the extra one, or the extra one has its place now.
            record.with_extra(None)
        } else {
            record
        }
    }

    /// The disk with the extra slot.
    pub fn extra(self) -> Option<usize> {
        usize::from(self.0 >> 12).checked_sub(1)
    }

    /// The record with another extra slot.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // A disk's number has two bits.
    pub fn with_extra(self, disk: Option<usize>) -> Self {
        let extra = disk.map_or(0, |disk| disk as u16 + 1);
        Self(self.0 & 0xfff | extra << 12)
    }

    /// The disks whose slots are so.
    pub fn set(self, fits: impl Fn(Slot) -> bool) -> Set {
        (0..DISKS)
            .filter(|disk| fits(self.slot(*disk)))
            .fold(0, |set, disk| set | bit(disk))
    }

    /// The disks in sync.
    pub fn in_sync(self) -> Set {
        self.set(|slot| slot == Slot::InSync)
    }

    /// The disks that are awaited.
    pub fn awaited(self) -> Set {
        self.set(Slot::is_awaited)
    }

    /// How many disks have a slot.
    pub fn len(self) -> u32 {
        self.set(|slot| slot != Slot::Absent).count_ones()
    }

    /// Whether no disk has a slot: a record that was forgotten.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The set of one disk.
pub fn bit(disk: usize) -> Set {
    1 << disk
}

/// The disks of a set.
pub fn each(set: Set) -> impl Iterator<Item = usize> {
    (0..DISKS).filter(move |disk| set & bit(*disk) != 0)
}

/// Which write an object had last: the owner's number and the write's, both from 1. Zero: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u8);

impl Stamp {
    /// The stamp of an owner's write.
    pub fn new(owner: u8, count: u8) -> Self {
        Self(owner << 3 | count)
    }

    /// Whose write it was.
    pub fn owner(self) -> u8 {
        self.0 >> 3
    }
}

/// A set of writes, a bit each, in the order of stamps: what an object holds, for each write goes to a block of its own.
pub type Bytes = u8;

/// The bit of a write.
#[allow(clippy::cast_possible_truncation)] // Six writes.
pub fn written(owner: u8, count: u8) -> Bytes {
    1 << (usize::from(owner - 1) * WRITES + usize::from(count - 1))
}

/// The bits of all writes of owners before this one.
pub fn before(owner: u8) -> Bytes {
    written(owner, 1) - 1
}

/// The bits of all writes with a stamp above this one.
pub fn above(stamp: Stamp) -> Bytes {
    let mut bits = 0;
    for owner in 1..=3 {
        for count in 1..=2 {
            if Stamp::new(owner, count) > stamp {
                bits |= written(owner, count);
            }
        }
    }
    bits
}

/// An object as it is somewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// The last write.
    pub stamp: Stamp,
    /// What it holds.
    pub bytes: Bytes,
    /// Whether it is in doubt there.
    pub doubt: bool,
}

/// How far a disk is that comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// It has not asked anything.
    #[default]
    Begin,
    /// It has the source's generations.
    Table,
    /// It knows what the source had.
    Listed,
    /// It has an object to store in place of its own.
    Fetched,
    /// Only with [`crate::Rule::CopyInOneStep`] left out: it has stored a part of it.
    Half,
    /// It has gone through everything.
    Passed,
    /// A swap of its own state is under way: it serves nothing.
    Swapping,
}

/// A disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Disk {
    /// The interval of its map.
    pub map: u8,
    /// The highest interval that it has served in, durably.
    pub raised: u8,
    /// The highest generation that it has seen, durably.
    pub generation: u8,
    /// Its object.
    pub object: Object,
    /// In memory: the last owner of which it knows that it has served.
    pub served: u8,
    /// In memory: the owner that fenced it while it was joining, and does not serve yet.
    pub fence: u8,
    /// In memory: a fence came since the pass began.
    pub void: bool,
    /// It was started anew in this interval, in which it had served before.
    pub reborn: bool,
    /// How far it has come back.
    pub step: Step,
    /// Whom it asks.
    pub source: u8,
    /// What the source had when it was listed, then when it was fetched.
    pub theirs: Object,
    /// What it had itself when that was compared.
    pub follows: Stamp,
    /// Only with a rule of durability left out: what a restart goes back to.
    pub durable: Option<(u8, Object)>,
}

/// A write of an owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Write {
    /// Which write of the object it follows.
    pub follows: Stamp,
    /// In which intervals it was sent to all that were awaited: a bit each. Copies come at any time, or never.
    pub sent: u8,
    /// Who said ok, as the owner counts it.
    pub oks: Set,
    /// Whether the guest heard of it.
    pub acknowledged: bool,
}

/// How far an owner is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It is not there yet, or not any more.
    #[default]
    Gone,
    /// It fences and levels.
    TakeOver,
    /// It reads and writes.
    Serving,
}

/// An owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// How far it is.
    pub phase: Phase,
    /// The interval of its view.
    pub view: u8,
    /// Whether it has served: from then on it levels nothing.
    pub served: bool,
    /// The disks that answered its fence in this interval.
    pub fenced: Set,
    /// Those of them that listed the object as in doubt.
    pub listed: Set,
    /// What it knows of their stamps.
    pub stamps: [Stamp; DISKS],
    /// How many writes it has made.
    pub count: u8,
    /// The object's stamp, once it has learned it.
    pub last: Option<Stamp>,
    /// Up to which of its writes it has said that all is complete, if it has said anything.
    pub said: Option<u8>,
    /// Its writes.
    pub writes: [Write; WRITES],
}

/// What was wrong, if anything, with the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wrong {
    /// Nothing.
    #[default]
    Nothing,
    /// A read did not show what was acknowledged or had been read.
    ReadOld,
    /// A read showed what had been read as not done.
    ReadDead,
    /// A write was acknowledged that had been read as not done.
    AcknowledgedDead,
    /// A write was acknowledged while too few disks in sync had it.
    AcknowledgedByFew,
}

/// The world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The group's records; those that nobody can meet any more are forgotten.
    pub records: [Record; INTERVALS],
    /// The interval: the last record.
    pub interval: u8,
    /// Swaps on their way to the store: the interval that each disk wants to end, and one more; zero for none.
    pub swaps: [u8; DISKS],
    /// The disks.
    pub disks: [Disk; DISKS],
    /// The owner who has the key, from 1.
    pub key: u8,
    /// The owners.
    pub owners: [Owner; OWNERS],
    /// What every read must show: acknowledged, or shown before.
    pub must: Bytes,
    /// What no read may show: an owner's read showed that its predecessors' write was not done.
    pub dead: Bytes,
    /// What went wrong.
    pub wrong: Wrong,
    /// Evictions, restarts, moves that may still happen.
    pub left: Left,
}

/// What may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Left {
    /// Disks put out.
    pub evictions: u8,
    /// Disks that come back from being out.
    pub returns: u8,
    /// Disks started anew.
    pub restarts: u8,
    /// Disks replaced by empty ones while they are out.
    pub wipes: u8,
    /// Extra slots.
    pub moves: u8,
}

impl World {
    /// The group's record as it is in the store.
    pub fn record(&self) -> Record {
        self.records[usize::from(self.interval)]
    }

    /// The record of an interval.
    pub fn record_at(&self, interval: u8) -> Record {
        self.records[usize::from(interval)]
    }

    /// A disk's slot as its own map has it.
    pub fn own_slot(&self, disk: usize) -> Slot {
        self.record_at(self.disks[disk].map).slot(disk)
    }

    /// An owner, by its number from 1.
    pub fn owner(&self, owner: u8) -> &Owner {
        &self.owners[usize::from(owner - 1)]
    }

    /// The same, to change it.
    pub fn owner_mut(&mut self, owner: u8) -> &mut Owner {
        &mut self.owners[usize::from(owner - 1)]
    }
}

impl Owner {
    /// Whether it has writes that are not acknowledged.
    pub fn has_unacknowledged(&self) -> bool {
        self.made().any(|write| !write.acknowledged)
    }

    /// The writes that it has made.
    pub fn made(&self) -> impl Iterator<Item = &Write> {
        self.writes.iter().take(usize::from(self.count))
    }

    /// The count below which nothing is unacknowledged.
    #[allow(clippy::cast_possible_truncation)] // Two writes.
    pub fn complete(&self) -> u8 {
        let first = self.made().position(|write| !write.acknowledged);
        first.map_or(self.count, |first| first as u8)
    }
}

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let record = self.record();
        let shown = (0..DISKS).filter(|disk| {
            self.records
                .iter()
                .any(|record| record.slot(*disk) != Slot::Absent)
                || record.extra() == Some(*disk)
        });
        write!(
            f,
            "      I{} must {:b} dead {:b} |",
            self.interval, self.must, self.dead
        )?;
        for disk in shown {
            let it = &self.disks[disk];
            let Object { stamp, bytes, doubt } = it.object;
            write!(
                f,
                " {disk}:{:?} map{} g{} {}.{}={bytes:b}{} {:?}{}{} |",
                record.slot(disk),
                it.map,
                it.generation,
                stamp.owner(),
                stamp.0 & 7,
                if doubt { "?" } else { "" },
                it.step,
                if it.void { " void" } else { "" },
                if it.fence > 0 { " fenced" } else { "" },
            )?;
        }
        for (owner, number) in self
            .owners
            .iter()
            .zip(1..)
            .filter(|(owner, _)| owner.phase != Phase::Gone)
        {
            write!(
                f,
                " g{number}:{:?} view{} fenced{:b}",
                owner.phase, owner.view, owner.fenced
            )?;
            for write in owner.made() {
                write!(
                    f,
                    " [oks{:b}{}]",
                    write.oks,
                    if write.acknowledged { " done" } else { "" }
                )?;
            }
        }
        writeln!(f)
    }
}

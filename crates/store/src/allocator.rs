//! Which slots of the data file are taken.
//!
//! A slot that is given back is not used again before a checkpoint has committed that it is free:
//! until then the tables on disk, or an earlier record of the log, may still lead a recovery to it.
//! Knows nothing of what is in a slot, and does no I/O: it says which slots wait for a hole.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::cursor::Malformed;
use crate::format::entry::{ALLOCATION_PAGE, SLOTS_PER_PAGE};
use crate::format::record::Slot;
use crate::mutation::{self, Mutation};

/// Free slots that keep their space on the file system, to be written again without allocating:
/// 1 GiB. What is freed beyond is given back. More than what is freed until the end of a checkpoint in a
/// stream of overwrites, which would otherwise punch and allocate, and so journal, with every write.
const WARM_SLOTS_MAX: usize = 16384;
/// The most slots: offsets in bytes stay below 2^56.
const SLOTS_MAX: u64 = 1 << 40;

/// How a freed slot is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freed {
    /// Something else was written instead: keep some of these warm.
    Replaced,
    /// Somebody gave the space back: so do we.
    Discarded,
}

/// What a checkpoint takes with it.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    pub(crate) pages: Vec<(u32, Vec<u8>)>,
    freed: Vec<(Slot, Freed)>,
}

/// The bitmap of slots, and those that are on their way back.
#[derive(Debug)]
pub(crate) struct Allocator {
    /// A bit is set from the moment a slot is taken until it may be taken again.
    words: Vec<u64>,
    taken: u64,
    limit: u64,
    /// Where the next search begins, as a word.
    hint: usize,
    /// Pages whose durable form is not the one in the tables.
    dirty: BTreeSet<u32>,
    /// Given back since the last capture.
    freed: Vec<(Slot, Freed)>,
    /// Free in the tables, but not to be taken before their holes are punched.
    to_punch: BTreeSet<Slot>,
    warm: usize,
}

impl Allocator {
    /// A bitmap with at most `limit` slots.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            words: Vec::new(),
            taken: 0,
            limit: limit.min(SLOTS_MAX),
            hint: 0,
            dirty: BTreeSet::new(),
            freed: Vec::new(),
            to_punch: BTreeSet::new(),
            warm: 0,
        }
    }

    /// Takes over a page of the tables.
    pub(crate) fn load(&mut self, page: u32, bits: &[u8]) -> Result<(), Malformed> {
        if bits.len() != ALLOCATION_PAGE || u64::from(page) >= SLOTS_MAX / SLOTS_PER_PAGE {
            return Err(Malformed(
                "a page of the allocation table has another length or place",
            ));
        }
        let start = page as usize * (ALLOCATION_PAGE / 8);
        self.grow(start + ALLOCATION_PAGE / 8);
        for (word, bytes) in self.words[start..].iter_mut().zip(bits.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
            self.taken += u64::from(word.count_ones());
        }
        Ok(())
    }

    /// Slots taken, those included that wait to be given back.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// The most slots that may be taken.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Free slots whose space on the file system is still ours.
    pub(crate) fn warm(&self) -> u64 {
        self.warm as u64
    }

    /// Whether a checkpoint would set slots free.
    pub(crate) fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }

    /// How many slots a checkpoint would set free.
    pub(crate) fn freed(&self) -> usize {
        self.freed.len()
    }

    /// Takes a particular slot, as a log record says. False if it is taken already.
    pub(crate) fn mark(&mut self, slot: Slot) -> bool {
        let (word, bit) = place(slot);
        self.grow(word + 1);
        if self.words[word] & bit != 0 {
            return false;
        }
        self.set(slot);
        true
    }

    /// Whether a slot is taken.
    pub(crate) fn is_taken(&self, slot: Slot) -> bool {
        let (word, bit) = place(slot);
        self.words.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Takes up to `count` touching slots: the first, and how many. Nothing if the disk is full.
    pub(crate) fn allocate(&mut self, count: u32) -> Option<(Slot, u32)> {
        if self.taken >= self.limit {
            return None;
        }
        let first = self.find_free();
        let mut got = 0;
        while got < count && self.taken < self.limit {
            let slot = Slot(first.0 + u64::from(got));
            if slot.0 >= SLOTS_MAX || self.is_taken(slot) {
                break;
            }
            self.grow(place(slot).0 + 1);
            self.set(slot);
            got += 1;
        }
        self.warm = self.warm.saturating_sub(got as usize);
        self.hint = place(Slot(first.0 + u64::from(got))).0;
        (got > 0).then_some((first, got))
    }

    fn find_free(&self) -> Slot {
        let length = self.words.len();
        // All taken: the next one is past the end. Saves a walk over a bitmap without holes.
        let order = if self.taken == length as u64 * 64 {
            0..0
        } else {
            0..length
        };
        for step in order {
            let word = (self.hint + step) % length;
            if self.words[word] != u64::MAX {
                let bit = u64::from(self.words[word].trailing_ones());
                return Slot(word as u64 * 64 + bit);
            }
        }
        Slot(length as u64 * 64)
    }

    /// Gives a slot back; it is free after the checkpoint that captures this.
    pub(crate) fn release(&mut self, slot: Slot, how: Freed) {
        debug_assert!(self.is_taken(slot), "slot {} is given back twice", slot.0);
        if mutation::active(Mutation::ReuseBeforeCommit) {
            self.dirty.insert(page_of(slot));
            self.clear(slot);
            return;
        }
        self.freed.push((slot, how));
    }

    /// What the tables are to hold: all taken slots but those given back up to now.
    pub(crate) fn capture(&mut self) -> Captured {
        let freed = std::mem::take(&mut self.freed);
        let mut free: BTreeMap<u32, Vec<Slot>> = BTreeMap::new();
        for (slot, _) in &freed {
            self.dirty.insert(page_of(*slot));
            free.entry(page_of(*slot)).or_default().push(*slot);
        }
        for slot in &self.to_punch {
            free.entry(page_of(*slot)).or_default().push(*slot);
        }
        let mut pages = Vec::new();
        for page in std::mem::take(&mut self.dirty) {
            let start = page as usize * (ALLOCATION_PAGE / 8);
            self.grow(start + ALLOCATION_PAGE / 8);
            let mut words = self.words[start..start + ALLOCATION_PAGE / 8].to_vec();
            for slot in free.get(&page).into_iter().flatten() {
                let (word, bit) = place(*slot);
                words[word - start] &= !bit;
            }
            pages.push((page, words.iter().flat_map(|word| word.to_le_bytes()).collect()));
        }
        Captured { pages, freed }
    }

    /// The checkpoint with this capture is committed: its freed slots may be used again, now or
    /// after a hole was punched.
    pub(crate) fn committed(&mut self, captured: Captured) {
        for (slot, how) in captured.freed {
            if how == Freed::Replaced && self.warm < WARM_SLOTS_MAX {
                self.warm += 1;
                self.clear(slot);
            } else {
                self.to_punch.insert(slot);
            }
        }
    }

    /// The first touching slots, up to `count`, whose hole is to be punched. They stay taken until
    /// [`Allocator::punched`].
    pub(crate) fn next_to_punch(&self, count: u64) -> Option<(Slot, u64)> {
        let first = *self.to_punch.first()?;
        let run = self.to_punch.range(first..).zip(first.0..first.0 + count);
        let length = run.take_while(|(slot, number)| slot.0 == *number).count();
        Some((first, length as u64))
    }

    /// These slots have no space on the file system any more: they may be taken.
    pub(crate) fn punched(&mut self, first: Slot, count: u64) {
        for number in first.0..first.0 + count {
            if self.to_punch.remove(&Slot(number)) {
                self.clear(Slot(number));
            }
        }
    }

    fn set(&mut self, slot: Slot) {
        let (word, bit) = place(slot);
        self.words[word] |= bit;
        self.taken += 1;
        self.dirty.insert(page_of(slot));
    }

    /// In memory only: the tables have it free already.
    fn clear(&mut self, slot: Slot) {
        let (word, bit) = place(slot);
        self.words[word] &= !bit;
        self.taken -= 1;
        self.hint = self.hint.min(word);
    }

    fn grow(&mut self, words: usize) {
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }
}

fn place(slot: Slot) -> (usize, u64) {
    (
        usize::try_from(slot.0 / 64).unwrap_or(usize::MAX),
        1 << (slot.0 % 64),
    )
}

fn page_of(slot: Slot) -> u32 {
    u32::try_from(slot.0 / SLOTS_PER_PAGE).unwrap_or(u32::MAX)
}

//! Whether new data finds a place, asked before it is accepted: what was accepted never fails for
//! want of room.

use protocol::geometry::CHUNK_SIZE;

use crate::store::Store;

/// Slots kept back for writes that must not be refused any more: 64 MiB. The owners' limits of
/// bytes in flight bound how many such writes there can be (`docs/decisions/0010-full-disks.md`).
const KEPT_SLOTS: u64 = 1024;
/// A small disk keeps back no more than this share of itself.
const KEPT_SHARE: u64 = 8;

/// What the file system had, when it was asked last.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Slots that it had room for, the reserve not counted.
    slots: u64,
    /// Slots allocated since.
    allocated: u64,
}

impl Space {
    /// Notes that slots were allocated.
    pub(crate) fn allocated(&mut self, slots: u64) {
        self.allocated += slots;
    }
}

impl Store {
    /// Slots that new data may still take, what is kept back not counted.
    pub(crate) fn free_slots(&self) -> u64 {
        let limit = self
            .table
            .allocator
            .limit()
            .min(self.space.slots + self.table.allocator.taken());
        self.slots_at_all()
            .saturating_sub(KEPT_SLOTS.min(limit / KEPT_SHARE))
    }

    fn slots_at_all(&self) -> u64 {
        let allocator = &self.table.allocator;
        let by_limit = allocator
            .limit()
            .saturating_sub(allocator.taken() + self.table.reserved);
        let had = self.space.slots + allocator.warm();
        by_limit.min(had.saturating_sub(self.space.allocated + self.table.reserved))
    }

    /// Whether so many slots are to be had, those that are kept back as well if `use_reserve`. Asks
    /// the file system again before it says no, and has a checkpoint set free what waits for one.
    pub(crate) fn has_slots(&mut self, needed: u64, use_reserve: bool) -> bool {
        let enough = |store: &Self| {
            needed
                <= if use_reserve {
                    store.slots_at_all()
                } else {
                    store.free_slots()
                }
        };
        if needed == 0 || enough(self) {
            return true;
        }
        self.ask_for_space();
        if enough(self) {
            return true;
        }
        if self.table.allocator.has_freed() {
            self.checkpoint();
        }
        false
    }

    /// Asks the file system what it has. An error leaves what was known.
    pub(crate) fn ask_for_space(&mut self) {
        match self.medium.free_bytes() {
            Ok(free) => {
                let slots = free.saturating_sub(self.options.reserve_bytes) / u64::from(CHUNK_SIZE);
                self.space = Space { slots, allocated: 0 };
            }
            Err(error) => tracing::warn!(%error, "cannot ask the file system for its free space"),
        }
    }
}

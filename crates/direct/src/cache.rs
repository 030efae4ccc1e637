//! What was read and is kept in memory: for gateways, whose clients' memory is not on this machine.
//!
//! Nobody tells the cache that something has changed. Who remembers where blocks lie ([`crate::places`]) holds
//! [`Handle`]s of what was read there, and drops them when the witness says that the chunk has moved: a hit is as true as a
//! direct read (`docs/decisions/0068-read-cache.md`). Pure, but for the lock; refuses to know whose bytes they are.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::buffers::LENGTH_MIN;

/// Reads from this length on are not kept: their buffers are wanted for the next ones ([`crate::buffers`]), and a wake-up more
/// or less does not matter to them.
pub const KEPT_BELOW: usize = LENGTH_MIN;

/// Memory for what was read, of all volumes of a process. A clone is the same memory.
#[derive(Clone, Debug)]
pub struct Cache(Arc<Mutex<Inner>>);

/// Names bytes that may be in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    slot: u32,
    turn: u32,
}

#[derive(Debug)]
struct Inner {
    limit: usize,
    used: usize,
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    /// In the order of a clock's hand.
    clock: VecDeque<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    /// How often it was given to other bytes.
    turn: u32,
    bytes: Option<Bytes>,
    /// Asked for since the hand came by last.
    wanted: bool,
}

impl Cache {
    /// Memory for so many bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            limit,
            used: 0,
            slots: Vec::new(),
            vacant: Vec::new(),
            clock: VecDeque::new(),
        })))
    }

    /// Keeps bytes, in place of others if there is no room; nothing if these are too many.
    pub fn keep(&self, bytes: Bytes) -> Option<Handle> {
        let mut inner = self.inner();
        if bytes.len() >= KEPT_BELOW || bytes.len() > inner.limit {
            return None;
        }
        inner.make_room(bytes.len());
        inner.used += bytes.len();
        let slot = inner.vacant.pop().unwrap_or_else(|| {
            inner.slots.push(Slot::default());
            u32::try_from(inner.slots.len() - 1).unwrap_or(u32::MAX)
        });
        inner.clock.push_back(slot);
        let place = inner.slots.get_mut(slot as usize)?;
        place.bytes = Some(bytes);
        place.wanted = false;
        Some(Handle {
            slot,
            turn: place.turn,
        })
    }

    /// The bytes that a handle was given for, if they are still there.
    pub fn get(&self, handle: Handle) -> Option<Bytes> {
        let mut inner = self.inner();
        let place = inner.slots.get_mut(handle.slot as usize)?;
        if place.turn != handle.turn {
            return None;
        }
        place.wanted = true;
        place.bytes.clone()
    }

    /// How many bytes are kept.
    pub fn used(&self) -> usize {
        self.inner().used
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn make_room(&mut self, length: usize) {
        while self.used + length > self.limit {
            let Some(slot) = self.clock.pop_front() else {
                return;
            };
            let Some(place) = self.slots.get_mut(slot as usize) else {
                return;
            };
            if std::mem::take(&mut place.wanted) {
                self.clock.push_back(slot);
                continue;
            }
            if let Some(bytes) = place.bytes.take() {
                self.used -= bytes.len();
            }
            // Comes round after four billion turns of one slot, each a read from a disk: no handle lives so long.
            place.turn = place.turn.wrapping_add(1);
            self.vacant.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(byte: u8, length: usize) -> Bytes {
        vec![byte; length].into()
    }

    #[test]
    fn what_is_kept_is_there_until_room_is_needed() {
        let cache = Cache::new(100);
        let first = cache.keep(bytes(1, 60)).unwrap();
        let second = cache.keep(bytes(2, 40)).unwrap();
        assert_eq!((cache.get(second), cache.used()), (Some(bytes(2, 40)), 100));
        // The first was not asked for, so it goes.
        let third = cache.keep(bytes(3, 60)).unwrap();
        assert_eq!(cache.get(first), None);
        assert_eq!(cache.get(second), Some(bytes(2, 40)));
        assert_eq!((cache.get(third), cache.used()), (Some(bytes(3, 60)), 100));
        // Both were asked for: the older one goes, the second time round.
        cache.keep(bytes(4, 10)).unwrap();
        assert_eq!(cache.get(second), None);
        assert_eq!(cache.used(), 70);
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let cache = Cache::new(100);
        assert_eq!(cache.keep(bytes(1, 101)), None);
        let cache = Cache::new(usize::MAX);
        assert_eq!(cache.keep(bytes(1, KEPT_BELOW)), None);
        assert_eq!(cache.used(), 0);
    }
}

//! A bounded cache of verified blocks, by where they lie on the disk, so that all layers and clones
//! share it. A scan does not empty it: a block must be asked for twice to stay (S3-FIFO).
//!
//! An entry is good only for the write that its chunk had last and for its place in the object, so a slot that was
//! overwritten or used again needs no invalidation. The write alone would not do: one that spans chunks gives all of
//! them its stamp, and a slot that one of them leaves may be given to another when an object is copied from
//! elsewhere. A checksum would not do: a block that ends with its own CRC, as fio's
//! and some file systems' do, has the same CRC-32C whatever else is in it.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use protocol::Stamp;

use crate::format::record::Slot;
use crate::object::BLOCK;

/// The share of the budget that blocks asked for once may take: a tenth.
const NEW_SHARE: usize = 10;
/// An entry's reuse is counted up to this.
const USES_MAX: u8 = 3;

type Key = (Slot, u8);

/// What a block holds: one write puts one content into one block of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// The write that the chunk had last when the block was read.
    pub(crate) write: Stamp,
    /// Which block of the object it is.
    pub(crate) block: u32,
}

#[derive(Debug)]
struct Entry {
    version: Version,
    bytes: Bytes,
    uses: u8,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct BlockCache {
    entries: HashMap<Key, Entry>,
    /// Asked for once, oldest first.
    new: VecDeque<Key>,
    /// Asked for again, oldest first.
    kept: VecDeque<Key>,
    /// Keys that left `new` lately: if they come back they are kept at once.
    left: VecDeque<Key>,
    left_keys: HashMap<Key, usize>,
    blocks_max: usize,
}

impl BlockCache {
    /// A cache of at most so many bytes.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self {
            entries: HashMap::new(),
            new: VecDeque::new(),
            kept: VecDeque::new(),
            left: VecDeque::new(),
            left_keys: HashMap::new(),
            blocks_max: usize::try_from(bytes_max / BLOCK as u64).unwrap_or(usize::MAX),
        }
    }

    /// Bytes of the blocks that it holds.
    pub(crate) fn bytes(&self) -> u64 {
        (self.entries.len() * BLOCK) as u64
    }

    /// A block, if it is here with this content.
    pub(crate) fn get(&mut self, slot: Slot, block: u8, version: Version) -> Option<Bytes> {
        let entry = self.entries.get_mut(&(slot, block))?;
        if entry.version != version {
            return None;
        }
        entry.uses = (entry.uses + 1).min(USES_MAX);
        Some(entry.bytes.clone())
    }

    /// Takes in a block that was verified. Copies it.
    pub(crate) fn put(&mut self, slot: Slot, block: u8, version: Version, bytes: &[u8]) {
        if self.blocks_max == 0 {
            return;
        }
        let key = (slot, block);
        let entry = Entry {
            version,
            bytes: Bytes::copy_from_slice(bytes),
            uses: 0,
        };
        if let Some(known) = self.entries.get_mut(&key) {
            *known = entry;
            return;
        }
        while self.entries.len() >= self.blocks_max {
            self.evict();
        }
        self.entries.insert(key, entry);
        if self.left_keys.contains_key(&key) {
            self.kept.push_back(key);
        } else {
            self.new.push_back(key);
        }
    }

    fn evict(&mut self) {
        if self.new.len() >= (self.blocks_max / NEW_SHARE).max(1) || self.kept.is_empty() {
            self.evict_new();
        } else {
            self.evict_kept();
        }
    }

    fn evict_new(&mut self) {
        let Some(key) = self.new.pop_front() else { return };
        if self.entries.get(&key).is_some_and(|entry| entry.uses > 0) {
            self.kept.push_back(key);
            return;
        }
        self.entries.remove(&key);
        self.left.push_back(key);
        *self.left_keys.entry(key).or_default() += 1;
        while self.left.len() > self.blocks_max {
            let Some(oldest) = self.left.pop_front() else {
                break;
            };
            if let Some(count) = self.left_keys.get_mut(&oldest) {
                *count -= 1;
                if *count == 0 {
                    self.left_keys.remove(&oldest);
                }
            }
        }
    }

    fn evict_kept(&mut self) {
        let Some(key) = self.kept.pop_front() else { return };
        match self.entries.get_mut(&key) {
            Some(entry) if entry.uses > 0 => {
                entry.uses -= 1;
                self.kept.push_back(key);
            }
            _ => drop(self.entries.remove(&key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Generation;

    fn version(count: u64) -> Version {
        Version {
            write: Stamp {
                generation: Generation(1),
                count,
            },
            block: 2,
        }
    }

    /// Law: the cache keeps its bound, and a scan does not drive out what is asked for again.
    #[test]
    fn a_scan_does_not_empty_the_cache() {
        let mut cache = BlockCache::new(100 * BLOCK as u64);
        let block = vec![7; BLOCK];
        for number in 0..50 {
            cache.put(Slot(number), 0, version(1), &block);
            assert!(cache.get(Slot(number), 0, version(1)).is_some());
        }
        for number in 1000..11_000 {
            cache.put(Slot(number), 0, version(1), &block);
            assert!(cache.bytes() <= 100 * BLOCK as u64);
        }
        let kept = (0..50)
            .filter(|number| cache.get(Slot(*number), 0, version(1)).is_some())
            .count();
        assert!(kept >= 45, "only {kept} of 50 are left");
    }

    /// Guards: a slot written again, or used again for other data, must not give the old bytes, even
    /// if their checksums are equal.
    #[test]
    fn a_block_of_another_version_is_not_given() {
        let mut cache = BlockCache::new(10 * BLOCK as u64);
        cache.put(Slot(1), 2, version(3), &vec![1; BLOCK]);
        assert!(cache.get(Slot(1), 2, version(4)).is_none());
        cache.put(Slot(1), 2, version(4), &vec![2; BLOCK]);
        assert_eq!(cache.get(Slot(1), 2, version(4)).unwrap()[0], 2);
    }

    /// Guards: a slot that a chunk has left is given to another chunk of the same write, when an object is copied from
    /// elsewhere, and must not give the first one's bytes.
    #[test]
    fn a_block_of_another_chunk_of_the_same_write_is_not_given() {
        let mut cache = BlockCache::new(10 * BLOCK as u64);
        cache.put(Slot(1), 2, version(3), &vec![1; BLOCK]);
        let other = Version {
            block: 18,
            ..version(3)
        };
        assert!(cache.get(Slot(1), 2, other).is_none());
    }
}

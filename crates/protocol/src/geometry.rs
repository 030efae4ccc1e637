//! Sizes of blocks, chunks and objects, and ranges of blocks inside one object.
//!
//! Everything below a front end works in whole 4 KiB blocks: a front end that accepts 512-byte
//! sectors merges them into blocks first (`docs/decisions/0002-whole-blocks.md`).

use std::fmt;

/// The unit of writing, of checksums and of copy-on-write, in bytes.
pub const BLOCK_SIZE: u32 = 4096;
/// The unit of allocation on a disk, in bytes.
pub const CHUNK_SIZE: u32 = 64 * 1024;
/// The unit of placement, in bytes: what one placement group holds of a volume's address space.
pub const OBJECT_SIZE: u32 = 4 * 1024 * 1024;
/// Blocks in a chunk: as many as there are bits in the bitmaps of a chunk.
pub const BLOCKS_PER_CHUNK: u32 = CHUNK_SIZE / BLOCK_SIZE;
/// Chunks in an object.
pub const CHUNKS_PER_OBJECT: u32 = OBJECT_SIZE / CHUNK_SIZE;
/// Blocks in an object.
pub const BLOCKS_PER_OBJECT: u32 = OBJECT_SIZE / BLOCK_SIZE;
/// The largest volume, in bytes: 1 PiB, which is 2^28 objects and leaves room in a `u32` index.
pub const VOLUME_SIZE_MAX: u64 = 1 << 50;

/// A run of 4 KiB blocks inside one object. Never empty, never past the object's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRange {
    start: u32,
    count: u32,
}

impl BlockRange {
    /// The whole object.
    pub const OBJECT: Self = Self {
        start: 0,
        count: BLOCKS_PER_OBJECT,
    };

    /// Whether some chunk lies in it as a whole.
    pub fn has_whole_chunk(self) -> bool {
        self.start.next_multiple_of(BLOCKS_PER_CHUNK) + BLOCKS_PER_CHUNK <= self.end()
    }

    /// A range of `count` blocks from block `start`, or nothing if it is empty or leaves the object.
    pub fn new(start: u32, count: u32) -> Option<Self> {
        let end = start.checked_add(count)?;
        (count > 0 && end <= BLOCKS_PER_OBJECT).then_some(Self { start, count })
    }

    /// First block, 0 to 1023.
    pub fn start(self) -> u32 {
        self.start
    }

    /// Number of blocks, 1 to 1024.
    pub fn count(self) -> u32 {
        self.count
    }

    /// One past the last block, 1 to 1024.
    pub fn end(self) -> u32 {
        self.start + self.count
    }

    /// Length in bytes.
    pub fn byte_len(self) -> usize {
        self.count as usize * BLOCK_SIZE as usize
    }

    /// Whether a block is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// The block numbers, in order.
    pub fn blocks(self) -> std::ops::Range<u32> {
        self.start..self.end()
    }
}

impl fmt::Display for BlockRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocks {}..{}", self.start, self.end())
    }
}

/// The part of a request that lies in one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Which object of the volume.
    pub index: u32,
    /// Which of its blocks.
    pub range: BlockRange,
    /// Where the part begins inside the request, in bytes.
    pub request_offset: usize,
}

/// Cuts a request that is aligned to blocks at the borders of objects, in ascending order.
///
/// `offset` and `length` are in bytes. Nothing comes out if either is not a multiple of
/// [`BLOCK_SIZE`], or if the end lies beyond [`VOLUME_SIZE_MAX`].
pub fn extents(offset: u64, length: u64) -> impl Iterator<Item = Extent> {
    let block = u64::from(BLOCK_SIZE);
    let sound = offset.is_multiple_of(block)
        && length.is_multiple_of(block)
        && offset
            .checked_add(length)
            .is_some_and(|end| end <= VOLUME_SIZE_MAX);
    let end = if sound { offset + length } else { offset };
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let object = u64::from(OBJECT_SIZE);
        let stop = end.min((at / object + 1) * object);
        let start = u32::try_from(at % object / block).ok()?;
        let count = u32::try_from((stop - at) / block).ok()?;
        let extent = Extent {
            index: u32::try_from(at / object).ok()?,
            range: BlockRange::new(start, count)?,
            request_offset: usize::try_from(at - offset).ok()?,
        };
        at = stop;
        Some(extent)
    })
}

#[cfg(test)]
mod tests {
    //! The laws of cutting: parts are in order, touch, stay in their object, and cover the request.
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_range_is_never_empty_and_never_leaves_its_object() {
        assert!(BlockRange::new(0, 0).is_none());
        assert!(BlockRange::new(1023, 2).is_none());
        assert!(BlockRange::new(u32::MAX, 1).is_none());
        assert_eq!(BlockRange::new(0, 1024), Some(BlockRange::OBJECT));
    }

    #[test]
    fn a_request_that_is_not_aligned_gives_no_extent() {
        assert_eq!(extents(512, 4096).count(), 0);
        assert_eq!(extents(0, 100).count(), 0);
        assert_eq!(extents(VOLUME_SIZE_MAX, 4096).count(), 0);
        assert_eq!(extents(u64::MAX - 4095, 4096).count(), 0);
    }

    proptest! {
        #[test]
        fn extents_cover_the_request_exactly(start in 0u64..1 << 20, blocks in 1u64..5000) {
            let (offset, length) = (start * 4096, blocks * 4096);
            let mut at = offset;
            for extent in extents(offset, length) {
                let begin = u64::from(extent.index) * u64::from(OBJECT_SIZE)
                    + u64::from(extent.range.start()) * 4096;
                prop_assert_eq!(begin, at);
                prop_assert_eq!(extent.request_offset as u64, at - offset);
                at += extent.range.byte_len() as u64;
            }
            prop_assert_eq!(at, offset + length);
        }
    }
}

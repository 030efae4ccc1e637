//! Several ranges of one object that are read by one request: what one disk has of the rows that a large read touches does
//! not lie together, for each row has two places. Why they are wanted is not known here.

use std::iter;

use crate::geometry::{BLOCKS_PER_CHUNK, BlockRange};

/// Ranges of one object, at least one, in the order in which their bytes are wanted. They may overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRanges {
    first: BlockRange,
    /// Most reads are of one range, and should not pay for a list.
    more: Vec<BlockRange>,
}

impl BlockRanges {
    /// Ranges in one request: a read of 4 MiB in a pool with four shards of data asks each disk once.
    pub const COUNT_MAX: usize = 16;
    /// Blocks in one request of several ranges: 1 MiB, so that a small read that comes after waits for no more than that.
    pub const BLOCKS_MAX: u32 = 16 * BLOCKS_PER_CHUNK;

    /// Several ranges, or nothing if there are none, or too many, or too many blocks.
    pub fn new(ranges: Vec<BlockRange>) -> Option<Self> {
        let blocks: u32 = ranges.iter().map(|range| range.count()).sum();
        let fits = ranges.len() <= Self::COUNT_MAX && blocks <= Self::BLOCKS_MAX;
        let mut more = ranges;
        let first = *more.first().filter(|_| fits)?;
        more.remove(0);
        Some(Self { first, more })
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = BlockRange> {
        iter::once(self.first).chain(self.more.iter().copied())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        1 + self.more.len()
    }

    /// Their length together, in bytes.
    pub fn byte_len(&self) -> usize {
        self.iter().map(BlockRange::byte_len).sum()
    }

    /// What reaches from the first block of all to the last one.
    pub fn hull(&self) -> BlockRange {
        let start = self.iter().map(BlockRange::start).min();
        let end = self.iter().map(BlockRange::end).max();
        let hull = start
            .zip(end)
            .and_then(|(start, end)| BlockRange::new(start, end - start));
        hull.unwrap_or(self.first)
    }
}

impl From<BlockRange> for BlockRanges {
    fn from(range: BlockRange) -> Self {
        Self {
            first: range,
            more: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    //! The limits: a message that passes one is refused where it comes in.
    use super::*;

    fn chunks(count: u32) -> Vec<BlockRange> {
        let chunk = |number| BlockRange::new(2 * number * BLOCKS_PER_CHUNK, BLOCKS_PER_CHUNK);
        (0..count).filter_map(chunk).collect()
    }

    #[test]
    fn a_megabyte_in_chunks_fits_and_nothing_more_does() {
        let full = BlockRanges::new(chunks(16)).unwrap();
        assert_eq!((full.count(), full.byte_len()), (16, 1 << 20));
        assert_eq!(full.iter().collect::<Vec<_>>(), chunks(16));
        assert_eq!(full.hull(), BlockRange::new(0, 31 * 16).unwrap());
        assert_eq!(BlockRanges::new(chunks(17)), None);
        assert_eq!(BlockRanges::new(Vec::new()), None);
        let large = BlockRange::new(0, BlockRanges::BLOCKS_MAX + 1).unwrap();
        assert_eq!(BlockRanges::new(vec![large]), None);
        assert_eq!(BlockRanges::from(large).count(), 1);
    }
}

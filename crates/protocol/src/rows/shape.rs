//! Which chunks of an object are a row, and which of a write's blocks cover rows whole. What is done with the rest is
//! not known here.

use crate::geometry::{BLOCKS_PER_CHUNK, BlockRange, CHUNKS_PER_OBJECT};
use crate::profile::Profile;

/// The rows of an object, of a pool with this profile: k chunks each, the last one as many as are left. Chunks that it
/// lacks are zeros, which nobody keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    profile: Profile,
}

/// One row, counted from 0 in its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row(pub u32);

/// What a range of blocks covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// What comes before the first whole row. If no row is covered whole, this is all of it.
    pub before: Option<BlockRange>,
    /// The rows that it covers whole.
    pub rows: std::ops::Range<u32>,
    /// What comes after the last whole row.
    pub after: Option<BlockRange>,
}

impl Rows {
    /// With this profile.
    pub fn new(profile: Profile) -> Self {
        Self { profile }
    }

    /// The profile.
    pub fn profile(self) -> Profile {
        self.profile
    }

    /// How many there are in an object, 4 to 32.
    pub fn count(self) -> u32 {
        CHUNKS_PER_OBJECT.div_ceil(self.width())
    }

    /// Chunks of data in a row, 1 to k.
    pub fn chunks(self, row: Row) -> u32 {
        let first = row.0.saturating_mul(self.width());
        CHUNKS_PER_OBJECT.saturating_sub(first).min(self.width())
    }

    /// Whether a shard of data is one that a row lacks, for it is the last one and shorter. Nobody keeps the zeros there.
    pub fn lacks(self, row: Row, shard: u8) -> bool {
        let shard = u32::from(shard);
        shard < self.width() && shard >= self.chunks(row)
    }

    /// A row's blocks in its object; nothing if there is no such row.
    pub fn blocks(self, row: Row) -> Option<BlockRange> {
        let first = row.0.checked_mul(self.width())?.checked_mul(BLOCKS_PER_CHUNK)?;
        BlockRange::new(first, self.chunks(row) * BLOCKS_PER_CHUNK)
    }

    /// Where a block of an object is: its row, the shard of data, and the block in that shard's chunk.
    pub fn place(self, block: u32) -> (Row, u32, u32) {
        let chunk = block / BLOCKS_PER_CHUNK;
        (
            Row(chunk / self.width()),
            chunk % self.width(),
            block % BLOCKS_PER_CHUNK,
        )
    }

    /// What of a range are whole rows.
    pub fn split(self, range: BlockRange) -> Split {
        let row_blocks = self.width() * BLOCKS_PER_CHUNK;
        let first = range.start().div_ceil(row_blocks);
        // The last row may be shorter: it is whole when the range ends with the object.
        let last = if range.end() == BlockRange::OBJECT.end() {
            self.count()
        } else {
            range.end() / row_blocks
        };
        if first >= last {
            return Split {
                before: Some(range),
                rows: 0..0,
                after: None,
            };
        }
        let begin = first * row_blocks;
        let end = (last * row_blocks).min(BlockRange::OBJECT.end());
        Split {
            before: BlockRange::new(range.start(), begin - range.start()),
            rows: first..last,
            after: BlockRange::new(end, range.end() - end),
        }
    }

    fn width(self) -> u32 {
        u32::from(self.profile.data())
    }
}

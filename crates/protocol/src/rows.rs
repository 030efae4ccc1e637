//! Where the rows of erasure-coded pools are kept: in objects of their own, beside those of their blocks
//! (`docs/decisions/0050-erasure-coding.md`). What a row is encoded from is not known here.
//!
//! Of each 4 MiB range of a volume in such a pool there are two objects in a layer. The *front* has the range's index; its
//! blocks are what was written in smaller pieces. The *rows* object has the index with its highest bit set, on each disk
//! of the group with other bytes: chunk 2r + p is place p of row r, and holds the disk's shard of that row.

mod shape;

use std::fmt;
use std::sync::Arc;

pub use shape::{Row, Rows, Split};

use crate::geometry::{BLOCKS_PER_CHUNK, BlockRange, CHUNKS_PER_OBJECT};
use crate::profile::Profile;

/// The bit of an index that says "rows". No volume reaches it: a petabyte has 2^28 objects.
const ROWS: u32 = 1 << 31;
/// Rows that an object of two chunks a row has, which is the most.
pub const ROWS_MAX: u32 = CHUNKS_PER_OBJECT / 2;

/// The index of the rows object of a range.
pub fn rows_index(index: u32) -> u32 {
    index | ROWS
}

/// The index of the range that an object belongs to, whichever of the two it is.
pub fn range_index(index: u32) -> u32 {
    index & !ROWS
}

/// Whether an index is that of a rows object.
pub fn is_rows(index: u32) -> bool {
    index & ROWS != 0
}

/// What computes parity and gives back what is lost. The state machines are handed one: they do not link the arithmetic.
pub trait RowCode: fmt::Debug + Send + Sync {
    /// The parity of a row: m shards, of k shards of data of one length. Nothing if they are not that.
    fn encode(&self, data: &[&[u8]]) -> Option<Vec<Vec<u8>>>;

    /// Fills in the shards that are not there, of k + m. Nothing if fewer than k are there, or of several lengths.
    fn rebuild(&self, shards: Vec<Option<Vec<u8>>>) -> Option<Vec<Vec<u8>>>;
}

/// What has the arithmetic for each profile.
pub trait RowCodes: fmt::Debug + Send + Sync {
    /// For this one; nothing if this machine cannot compute it.
    fn code(&self, profile: Profile) -> Option<Arc<dyn RowCode>>;
}

/// One of the two places that each row has, which are used in turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowPlace {
    /// The even chunk.
    #[default]
    Even,
    /// The odd chunk.
    Odd,
}

impl RowPlace {
    /// The two places.
    pub const BOTH: [Self; 2] = [Self::Even, Self::Odd];

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Even => Self::Odd,
            Self::Odd => Self::Even,
        }
    }

    /// The chunk of the rows object that is this place of a row; `row` is 0 to [`ROWS_MAX`] - 1.
    pub fn chunk(self, row: u32) -> u32 {
        2 * row + u32::from(self == Self::Odd)
    }

    /// The blocks of that chunk; nothing if there is no such row.
    pub fn blocks(self, row: u32) -> Option<BlockRange> {
        let chunk = (row < ROWS_MAX).then(|| self.chunk(row))?;
        BlockRange::new(chunk * BLOCKS_PER_CHUNK, BLOCKS_PER_CHUNK)
    }

    /// Which row and which of its places a chunk of a rows object is.
    pub fn of_chunk(chunk: u32) -> (u32, Self) {
        let place = if chunk.is_multiple_of(2) {
            Self::Even
        } else {
            Self::Odd
        };
        (chunk / 2, place)
    }
}

#[cfg(test)]
mod tests {
    //! The numbers are a stored format.
    use super::*;

    #[test]
    fn rows_are_beside_their_range_and_no_volume_reaches_them() {
        assert_eq!(rows_index(5), 0x8000_0005);
        assert!(is_rows(rows_index(0)) && !is_rows(0x0fff_ffff));
        assert_eq!(range_index(rows_index(7)), 7);
        assert_eq!(range_index(7), 7);
        let last = crate::geometry::VOLUME_SIZE_MAX / u64::from(crate::OBJECT_SIZE);
        assert!(last < u64::from(ROWS));
    }

    #[test]
    fn the_places_of_a_row_are_neighbours() {
        assert_eq!(RowPlace::Even.chunk(3), 6);
        assert_eq!(RowPlace::Odd.chunk(3), 7);
        assert_eq!(RowPlace::Odd.blocks(0), BlockRange::new(16, 16));
        assert_eq!(RowPlace::Odd.blocks(31), BlockRange::new(63 * 16, 16));
        assert_eq!(RowPlace::Even.blocks(32), None);
        for chunk in 0..CHUNKS_PER_OBJECT {
            let (row, place) = RowPlace::of_chunk(chunk);
            assert_eq!(place.chunk(row), chunk);
        }
        assert_eq!(RowPlace::Even.other(), RowPlace::Odd);
    }
}

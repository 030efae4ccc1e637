//! Where blocks lie in a disk's file: what a disk tells a front end of its own machine, so that it
//! can read them itself.
//!
//! What is told here is true as long as the disk's witness says so, and no longer. Who reads, and how
//! the witness is asked, is `direct`'s business.

use crate::geometry::BLOCKS_PER_CHUNK;

/// The longest path of a disk's directory, in bytes: what Linux takes at most.
pub const PATH_MAX: usize = 4096;

/// No file has a block of this number: its last byte would lie beyond what an offset can say.
pub const FILE_BLOCKS_MAX: u64 = 1 << 51;

/// Where one block is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Not to be read without asking: it is in the log only, or not yet durable.
    #[default]
    Unknown,
    /// Nowhere: it reads as zeros.
    Zero,
    /// In the file.
    At {
        /// Which 4 KiB block of the file, from 0 on, below [`FILE_BLOCKS_MAX`].
        block: u64,
        /// The CRC-32C of its bytes.
        checksum: u32,
    },
}

/// Where the blocks of one chunk are, as one layer chain shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkPlaces {
    /// Which chunk of the object, 0 to 63.
    pub chunk: u8,
    /// The witness's count of the chunk's moves: with another count, none of this is true any more.
    pub moves: u64,
    /// One for each block.
    pub places: [Place; BLOCKS_PER_CHUNK as usize],
}

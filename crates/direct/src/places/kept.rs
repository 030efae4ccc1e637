//! Where in the cache the blocks of a chunk are.

use bytes::Bytes;
use protocol::geometry::{BLOCK_SIZE, BLOCKS_PER_CHUNK};

use crate::buffers::Buffer;
use crate::cache::{Cache, Handle};

const BLOCK: usize = BLOCK_SIZE as usize;
const BLOCKS: usize = BLOCKS_PER_CHUNK as usize;

/// The blocks of one chunk that were read.
#[derive(Debug, Default)]
pub(super) struct Kept(Option<Box<[Option<Place>; BLOCKS]>>);

/// A block among what was read with it.
#[derive(Clone, Copy, Debug)]
struct Place {
    handle: Handle,
    /// Which block of those bytes.
    at: u32,
}

/// Bytes that are put together from what is kept.
#[derive(Default)]
pub(super) struct Gathered {
    /// What was read together and is wanted together, with the block that is wanted first and how many.
    pieces: Vec<(Handle, Bytes, usize, usize)>,
}

impl Kept {
    /// Blocks of the chunk were read, as bytes of which they are those from block `at` on.
    pub(super) fn put(&mut self, blocks: std::ops::Range<u32>, handle: Handle, at: usize) {
        let places = self.0.get_or_insert_default();
        for (block, at) in blocks.zip(at..) {
            if let (Some(place), Ok(at)) = (places.get_mut(block as usize), u32::try_from(at)) {
                *place = Some(Place { handle, at });
            }
        }
    }

    /// Adds blocks of the chunk; nothing if not all of them are there.
    pub(super) fn add_to(
        &self,
        found: &mut Gathered,
        cache: &Cache,
        blocks: std::ops::Range<u32>,
    ) -> Option<()> {
        let places = self.0.as_ref()?;
        blocks
            .into_iter()
            .try_for_each(|block| found.add(cache, (*places.get(block as usize)?)?))
    }
}

impl Gathered {
    fn add(&mut self, cache: &Cache, place: Place) -> Option<()> {
        let at = place.at as usize;
        match self.pieces.last_mut() {
            Some((handle, _, first, count)) if *handle == place.handle && *first + *count == at => {
                *count += 1;
            }
            _ => {
                let bytes = cache.get(place.handle)?;
                self.pieces.push((place.handle, bytes, at, 1));
            }
        }
        Some(())
    }

    /// All of them, one behind the other. What was read together is not copied.
    pub(super) fn bytes(self) -> Option<Bytes> {
        let slice = |bytes: &Bytes, first: usize, count: usize| {
            let range = first * BLOCK..(first + count) * BLOCK;
            (range.end <= bytes.len()).then(|| bytes.slice(range))
        };
        if let [(_, bytes, first, count)] = &self.pieces[..] {
            return slice(bytes, *first, *count);
        }
        let blocks: usize = self.pieces.iter().map(|(.., count)| count).sum();
        let mut whole = Buffer::with_capacity(BLOCK, blocks * BLOCK);
        for (_, bytes, first, count) in &self.pieces {
            whole.extend_from_slice(&slice(bytes, *first, *count)?);
        }
        Some(Bytes::from_owner(whole))
    }
}

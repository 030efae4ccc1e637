//! Shards of one version of a row, as disks send them, and the one that is made of them. Which version that is, and who is
//! asked, is not known here.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use protocol::Stamp;
use protocol::geometry::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use protocol::rows::{Row, RowCode, RowPlace, Rows};
use protocol::storage::{ChunkState, ObjectDelta};

use crate::mutation::{self, Mutation};

/// Bytes of a chunk.
pub(crate) const CHUNK_BYTES: usize = (BLOCKS_PER_CHUNK * BLOCK_SIZE) as usize;

/// Shards by their number; nothing where one is zeros.
pub(crate) type Shards = BTreeMap<u8, Option<Bytes>>;

/// The whole chunks that a disk sent, by number and stamp; nothing where one is zeros.
pub(crate) fn chunks_in(delta: &ObjectDelta) -> BTreeMap<(u8, Stamp), Option<Bytes>> {
    let size = BLOCK_SIZE as usize;
    let chunk = |(chunk, begin): (&ChunkState, usize)| {
        let end = begin + (chunk.present & !chunk.zero).count_ones() as usize;
        if chunk.present != u16::MAX || end * size > delta.bytes.len() {
            return None;
        }
        let bytes =
            (chunk.zero != u16::MAX).then(|| whole(chunk.zero, delta.bytes.slice(begin * size..end * size)));
        Some(((chunk.chunk, chunk.stamp), bytes))
    };
    delta.parts().filter_map(chunk).collect()
}

/// A chunk with its zeros.
fn whole(zero: u16, bytes: Bytes) -> Bytes {
    if zero == 0 {
        return bytes;
    }
    let mut blocks = bytes.chunks(BLOCK_SIZE as usize);
    let mut all = BytesMut::with_capacity(CHUNK_BYTES);
    for bit in 0..BLOCKS_PER_CHUNK {
        let block = if zero & (1 << bit) == 0 {
            blocks.next()
        } else {
            None
        };
        match block {
            Some(block) => all.extend_from_slice(block),
            None => all.resize(all.len() + BLOCK_SIZE as usize, 0),
        }
    }
    all.freeze()
}

/// The shard `own` of the row that a chunk of a rows object is of, empty if it is zeros. Nothing if these are not enough.
pub(crate) fn made_of(
    shards: &Shards,
    (shape, chunk, own): (Rows, u8, u8),
    code: &dyn RowCode,
) -> Option<Vec<u8>> {
    if let Some(same) = shards.get(&own) {
        return Some(same.as_ref().map_or_else(Vec::new, |bytes| bytes.to_vec()));
    }
    let profile = shape.profile();
    if shards.len() < usize::from(profile.data()) {
        return None;
    }
    let row = Row(RowPlace::of_chunk(u32::from(chunk)).0);
    // A shard that the row lacks is zeros, whatever the others have.
    if shards.values().all(Option::is_none) || shape.lacks(row, own) {
        return Some(Vec::new());
    }
    let bytes = |bytes: &Option<Bytes>| {
        bytes
            .as_ref()
            .map_or_else(|| vec![0; CHUNK_BYTES], |bytes| bytes.to_vec())
    };
    let have = (0..profile.width())
        .map(|shard| shards.get(&shard).map(bytes))
        .collect::<Vec<_>>();
    if mutation::active(Mutation::OthersShard) {
        return have.into_iter().flatten().next();
    }
    code.rebuild(have)?.into_iter().nth(usize::from(own))
}

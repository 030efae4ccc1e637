//! An object that is newer here than at the source, and that lacks blocks which the source has from a parent that it
//! has merged already: what it is with these (`docs/decisions/0051-late-merges.md`).
//!
//! Both have had the same writes in the same order, the source some fewer. So a block that only the source has came
//! from the parent, and everything else is as good here.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use protocol::geometry::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use protocol::storage::{ChunkState, ObjectDelta, ObjectState};

/// The source's chunks whose blocks are all here too; nothing if that is all of them.
pub(super) fn not_lacking(ours: &ObjectState, theirs: ObjectState) -> Option<Vec<ChunkState>> {
    let present = |number: u8| {
        let chunk = ours.chunks.iter().find(|chunk| chunk.chunk == number);
        chunk.map_or(0, |chunk| chunk.present)
    };
    let (all, mut chunks) = (theirs.chunks.len(), theirs.chunks);
    chunks.retain(|chunk| chunk.present & !present(chunk.chunk) == 0);
    (chunks.len() < all).then_some(chunks)
}

/// One chunk of a delta, and where its bytes begin, in blocks.
type Part<'a> = (&'a ChunkState, usize);

fn parts(delta: &ObjectDelta) -> BTreeMap<u8, Part<'_>> {
    delta.parts().map(|part| (part.0.chunk, part)).collect()
}

/// What the object is with the blocks of the source's chunks that it lacks; of chunks that both have, the blocks of
/// the one that was written last go before those of the other. Nothing if a delta has fewer bytes than it says.
pub(crate) fn united(ours: &ObjectDelta, theirs: &ObjectDelta) -> Option<ObjectDelta> {
    let (mut chunks, mut checksums, mut bytes) = (Vec::new(), Vec::new(), BytesMut::new());
    let here = parts(ours);
    for (number, there) in parts(theirs) {
        if there.0.present == 0 {
            continue;
        }
        let mut sources = vec![(theirs, there)];
        if let Some(part) = here.get(&number) {
            let first = usize::from(part.0.stamp < there.0.stamp);
            sources.insert(first, (ours, *part));
        }
        let mut whole = ChunkState {
            chunk: number,
            stamp: sources[0].1.0.stamp,
            present: 0,
            zero: 0,
        };
        for bit in (0..BLOCKS_PER_CHUNK).map(|bit| 1u16 << bit) {
            let Some((delta, (chunk, start))) = sources.iter().find(|(_, part)| part.0.present & bit != 0)
            else {
                continue;
            };
            whole.present |= bit;
            if chunk.zero & bit != 0 {
                whole.zero |= bit;
                continue;
            }
            let before = chunk.present & !chunk.zero & (bit - 1);
            let at = start + before.count_ones() as usize;
            let size = BLOCK_SIZE as usize;
            checksums.push(*delta.checksums.get(at)?);
            bytes.extend_from_slice(delta.bytes.get(at * size..(at + 1) * size)?);
        }
        chunks.push(whole);
    }
    let mut merged: Vec<_> = ours.merged.iter().chain(&theirs.merged).copied().collect();
    merged.sort_unstable();
    merged.dedup();
    Some(ObjectDelta {
        object: ours.object,
        stamp: ours.stamp,
        merged,
        chunks,
        checksums: Arc::from(checksums),
        bytes: bytes.freeze(),
    })
}

#[cfg(test)]
mod tests {
    //! Which block comes from whom.
    use bytes::Bytes;
    use protocol::LayerId;

    use super::*;
    use crate::samples::{chunk, object, stamp};

    /// Blocks are filled with these bytes, one for each that is not zero.
    fn delta(count: u64, chunks: Vec<ChunkState>, fill: &[u8]) -> ObjectDelta {
        let blocks: Vec<u8> = fill
            .iter()
            .flat_map(|byte| [*byte; BLOCK_SIZE as usize])
            .collect();
        ObjectDelta {
            object: object(2),
            stamp: stamp(count),
            merged: Vec::new(),
            chunks,
            checksums: fill.iter().map(|byte| u32::from(*byte)).collect(),
            bytes: Bytes::from(blocks),
        }
    }

    fn partly_zero(number: u8, count: u64, present: u16, zero: u16) -> ChunkState {
        ChunkState {
            zero,
            ..chunk(number, count, present)
        }
    }

    #[test]
    fn blocks_of_a_merged_parent_go_under_what_is_newer_here() {
        let mut theirs = delta(
            4,
            vec![partly_zero(3, 2, 0b1111, 0b1000), chunk(9, 2, 1)],
            &[1, 2, 3, 9],
        );
        theirs.merged = vec![LayerId(1)];
        let ours = delta(5, vec![partly_zero(3, 5, 0b0110, 0b0010)], &[7]);
        let whole = united(&ours, &theirs).unwrap();
        assert_eq!(whole.stamp, stamp(5));
        assert_eq!(whole.merged, [LayerId(1)]);
        assert_eq!(whole.chunks, [partly_zero(3, 5, 0b1111, 0b1010), chunk(9, 2, 1)]);
        assert_eq!(*whole.checksums, [1, 7, 9]);
        assert_eq!(whole.bytes.len(), 3 * BLOCK_SIZE as usize);
    }

    #[test]
    fn a_chunk_that_was_not_written_since_is_the_sources_first() {
        let theirs = delta(4, vec![chunk(0, 4, 0b11)], &[1, 2]);
        let ours = delta(5, vec![chunk(0, 3, 0b101)], &[7, 8]);
        let whole = united(&ours, &theirs).unwrap();
        assert_eq!(whole.chunks, [chunk(0, 4, 0b111)]);
        assert_eq!(*whole.checksums, [1, 2, 8]);
    }

    #[test]
    fn a_delta_with_fewer_bytes_than_it_says_is_refused() {
        let theirs = delta(4, vec![chunk(0, 4, 0b11)], &[1]);
        assert_eq!(united(&delta(5, Vec::new(), &[]), &theirs), None);
    }
}

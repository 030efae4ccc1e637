//! What a disk heeds of rows: which blocks of a front are older than the row of their chunk.
//!
//! A write may name a floor: what its chunks have from before that goes in the same step. A merge of fronts leaves out
//! what is older than its row. Both are decided when the change is accepted and are in its record, so a recovery does
//! the same without a look at the rows. What a row is encoded from is not known here, nor whether it is complete.

use protocol::geometry::{BLOCKS_PER_CHUNK, CHUNKS_PER_OBJECT};
use protocol::rows::{RowPlace, is_rows, rows_index};
use protocol::storage::{ObjectWrite, StorageError};
use protocol::{BlockRange, LayerId, ObjectId, Stamp};

use crate::format::record::{Piece, Place};
use crate::mutation::{self, Mutation};
use crate::store::Store;
use crate::table::{StackId, parts};

/// Places of a row.
const PLACES: u32 = 2;
/// Bytes of a piece without blocks.
const PIECE_BYTES: u64 = 5;

/// How many bytes of a record say what a write forgets, at most: a piece for each chunk.
pub(crate) fn forgotten_bytes(write: &ObjectWrite) -> u64 {
    if write.floor == Stamp::ZERO {
        0
    } else {
        PIECE_BYTES * parts(write.range).count() as u64
    }
}

impl Store {
    /// The chunks that a write drops before it brings its own blocks, as pieces of its record. Its stack is loaded.
    pub(crate) fn forgotten(&self, write: &ObjectWrite) -> Vec<Piece> {
        if write.floor == Stamp::ZERO || mutation::active(Mutation::FloorIgnored) {
            return Vec::new();
        }
        let Some(object) = self.table.object(write.object) else {
            return Vec::new();
        };
        let older = parts(write.range).map(|part| part.chunk).filter(|number| {
            let chunk = object.chunks.get(number);
            chunk.is_some_and(|chunk| chunk.stamp < write.floor)
        });
        let chunk = |number: u8| BlockRange::new(u32::from(number) * BLOCKS_PER_CHUNK, BLOCKS_PER_CHUNK);
        older
            .filter_map(chunk)
            .map(|range| Piece {
                range,
                place: Place::Forgotten,
            })
            .collect()
    }

    /// Loads a stack, and tells which chunks of the parent a merge leaves out: those of a front, and places of rows, that
    /// are older than the newest place of their row in either layer. Bit i is chunk i.
    pub(crate) fn left_out(
        &mut self,
        stack: StackId,
        (parent, child): (LayerId, LayerId),
        row_chunks: Option<u8>,
    ) -> Result<u64, StorageError> {
        let (family, index) = stack;
        let row_chunks = row_chunks
            .map(u32::from)
            .filter(|chunks| *chunks > 0)
            // Of the rows object itself, the two places of a row are neighbours.
            .map(|chunks| if is_rows(index) { PLACES } else { chunks });
        let Some(row_chunks) = row_chunks else {
            return self.load(stack).map(|()| 0);
        };
        // One pass of the eviction spares what was used since the one before, so both are there afterwards.
        self.load((family, rows_index(index)))?;
        self.load(stack)?;
        if mutation::active(Mutation::MergeForgetsRows) {
            return Ok(0);
        }
        let object = |index, layer| self.table.object(ObjectId { family, index, layer });
        let rows: Vec<_> = [parent, child]
            .into_iter()
            .filter_map(|layer| object(rows_index(index), layer))
            .collect();
        let written = |row: u32| {
            let places = RowPlace::BOTH.map(|place| place.chunk(row));
            let chunks = places.into_iter().filter(|chunk| *chunk < CHUNKS_PER_OBJECT);
            chunks
                .filter_map(|chunk| u8::try_from(chunk).ok())
                .flat_map(|chunk| rows.iter().filter_map(move |object| object.chunks.get(&chunk)))
                .map(|chunk| chunk.stamp)
                .max()
                .unwrap_or(Stamp::ZERO)
        };
        let front = object(index, parent).into_iter().flat_map(|front| &front.chunks);
        let older = front.filter(|(number, chunk)| chunk.stamp < written(u32::from(**number) / row_chunks));
        Ok(older.fold(0, |mask, (number, _)| mask | 1 << number))
    }
}

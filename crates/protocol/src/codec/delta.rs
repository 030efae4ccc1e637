//! What two replicas exchange to be made level: the state of an object's chunks, in bytes.
//!
//! ```text
//! size  field
//!   20  object: family u64, layer u64, index u32
//!   16  stamp of the object afterwards
//!    4  number of merged layers, then 8 bytes each
//!    4  number of chunks, then 21 bytes each:
//!         1  which chunk, ascending
//!        16  stamp of the chunk
//!         2  blocks that are present
//!         2  blocks among them that are zero
//!  4 * n  checksums, one for each block that is present and not zero
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::field::{Reader, put_checksums, put_count, put_object, put_stamp};
use crate::frame::WireError;
use crate::geometry::{BLOCK_SIZE, CHUNKS_PER_OBJECT};
use crate::id::LayerId;
use crate::storage::{ChunkState, ObjectDelta};

const CHUNK_LEN: usize = 21;
const LAYER_LEN: usize = 8;

pub(super) fn put_delta(out: &mut BytesMut, delta: &ObjectDelta) {
    put_object(out, delta.object);
    put_stamp(out, delta.stamp);
    put_count(out, delta.merged.len());
    for layer in &delta.merged {
        out.put_u64_le(layer.0);
    }
    put_count(out, delta.chunks.len());
    for chunk in &delta.chunks {
        out.put_u8(chunk.chunk);
        put_stamp(out, chunk.stamp);
        out.put_u16_le(chunk.present);
        out.put_u16_le(chunk.zero);
    }
    put_checksums(out, &delta.checksums);
}

pub(super) fn read_delta(reader: &mut Reader<'_>, payload: Bytes) -> Result<ObjectDelta, WireError> {
    let object = reader.object()?;
    let stamp = reader.stamp()?;
    let layers = reader.entries(LAYER_LEN)?;
    let merged = (0..layers)
        .map(|_| reader.u64().map(LayerId))
        .collect::<Result<Vec<_>, _>>()?;
    let count = reader.entries(CHUNK_LEN)?;
    if count > CHUNKS_PER_OBJECT as usize {
        return Err(reader.wrong("number of chunks"));
    }
    let mut chunks: Vec<ChunkState> = Vec::with_capacity(count);
    let mut blocks = 0;
    for _ in 0..count {
        let chunk = ChunkState {
            chunk: reader.u8()?,
            stamp: reader.stamp()?,
            present: reader.u16()?,
            zero: reader.u16()?,
        };
        let ascending = chunks.last().is_none_or(|last| last.chunk < chunk.chunk);
        if !ascending || u32::from(chunk.chunk) >= CHUNKS_PER_OBJECT {
            return Err(reader.wrong("order of chunks"));
        }
        if chunk.zero & !chunk.present != 0 {
            return Err(reader.wrong("zero blocks that are not present"));
        }
        blocks += (chunk.present & !chunk.zero).count_ones() as usize;
        chunks.push(chunk);
    }
    let checksums = reader.checksums(blocks)?;
    if payload.len() != blocks * BLOCK_SIZE as usize {
        return Err(reader.wrong("length of the payload"));
    }
    Ok(ObjectDelta {
        object,
        stamp,
        merged,
        chunks,
        checksums,
        bytes: payload,
    })
}

//! What a disk has of an object's chunks, in bytes: their number, u32, and for each, ascending,
//!
//! ```text
//! size  field
//!    1  which chunk
//!   16  stamp of the chunk
//!    2  blocks that are present
//!    2  blocks among them that are zero
//! ```

use bytes::{BufMut, BytesMut};

use super::field::{Reader, put_count, put_stamp};
use crate::frame::WireError;
use crate::geometry::CHUNKS_PER_OBJECT;
use crate::storage::ChunkState;

const CHUNK_LEN: usize = 21;

pub(super) fn put_chunks(out: &mut BytesMut, chunks: &[ChunkState]) {
    put_count(out, chunks.len());
    for chunk in chunks {
        out.put_u8(chunk.chunk);
        put_stamp(out, chunk.stamp);
        out.put_u16_le(chunk.present);
        out.put_u16_le(chunk.zero);
    }
}

pub(super) fn read_chunks(reader: &mut Reader<'_>) -> Result<Vec<ChunkState>, WireError> {
    let count = reader.entries(CHUNK_LEN)?;
    if count > CHUNKS_PER_OBJECT as usize {
        return Err(reader.wrong("number of chunks"));
    }
    let mut chunks: Vec<ChunkState> = Vec::with_capacity(count);
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
        chunks.push(chunk);
    }
    Ok(chunks)
}

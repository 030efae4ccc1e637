//! What two replicas exchange to be made level: the state of an object's chunks, in bytes.
//!
//! ```text
//! size  field
//!   20  object: family u64, layer u64, index u32
//!   16  stamp of the object afterwards
//!    4  number of merged layers, then 8 bytes each
//!        chunks, see `chunks`
//!  4 * n  checksums, one for each block that is present and not zero
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::chunks::{put_chunks, read_chunks};
use super::field::{Reader, put_checksums, put_count, put_object, put_stamp};
use crate::frame::WireError;
use crate::geometry::BLOCK_SIZE;
use crate::id::LayerId;
use crate::storage::ObjectDelta;

const LAYER_LEN: usize = 8;

pub(super) fn put_delta(out: &mut BytesMut, delta: &ObjectDelta) {
    put_object(out, delta.object);
    put_stamp(out, delta.stamp);
    put_count(out, delta.merged.len());
    for layer in &delta.merged {
        out.put_u64_le(layer.0);
    }
    put_chunks(out, &delta.chunks);
    put_checksums(out, &delta.checksums);
}

pub(super) fn read_delta(reader: &mut Reader<'_>, payload: Bytes) -> Result<ObjectDelta, WireError> {
    let object = reader.object()?;
    let stamp = reader.stamp()?;
    let layers = reader.entries(LAYER_LEN)?;
    let merged = (0..layers)
        .map(|_| reader.u64().map(LayerId))
        .collect::<Result<Vec<_>, _>>()?;
    let chunks = read_chunks(reader)?;
    let held = chunks
        .iter()
        .map(|chunk| (chunk.present & !chunk.zero).count_ones() as usize);
    let blocks: usize = held.sum();
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

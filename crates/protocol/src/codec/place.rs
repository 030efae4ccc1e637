//! Where a disk's files and blocks are, in bytes. `docs/protocol/wire.md` has the tables.

use bytes::{BufMut, BytesMut};

use super::field::{Reader, put_count};
use crate::frame::WireError;
use crate::geometry::{BLOCKS_PER_CHUNK, CHUNKS_PER_OBJECT};
use crate::message::Response;
use crate::place::{ChunkPlaces, FILE_BLOCKS_MAX, PATH_MAX, Place};

/// A chunk's number, its count of moves, which blocks are zero, which are in the file.
const CHUNK_LEN: usize = 13;

pub(super) fn put_shared(out: &mut BytesMut, directory: &[u8], opening: &[u8; 16]) {
    out.put_slice(opening);
    put_count(out, directory.len());
    out.put_slice(directory);
}

pub(super) fn read_shared(reader: &mut Reader<'_>) -> Result<Response, WireError> {
    let opening = reader.array16()?;
    let length = reader.entries(1)?;
    if length > PATH_MAX {
        return Err(reader.wrong("length of the path"));
    }
    Ok(Response::Shared {
        directory: (0..length).map(|_| reader.u8()).collect::<Result<_, _>>()?,
        opening,
    })
}

pub(super) fn put_placed(out: &mut BytesMut, admission: u64, chunks: &[ChunkPlaces]) {
    out.put_u64_le(admission);
    put_count(out, chunks.len());
    for chunk in chunks {
        let mask = |wanted: fn(&Place) -> bool| {
            let marked = chunk.places.iter().enumerate();
            marked.fold(0u16, |mask, (block, place)| {
                mask | u16::from(wanted(place)) << block
            })
        };
        out.put_u8(chunk.chunk);
        out.put_u64_le(chunk.moves);
        out.put_u16_le(mask(|place| matches!(place, Place::Zero)));
        out.put_u16_le(mask(|place| matches!(place, Place::At { .. })));
        for place in &chunk.places {
            if let Place::At { block, checksum } = place {
                out.put_u64_le(*block);
                out.put_u32_le(*checksum);
            }
        }
    }
}

pub(super) fn read_placed(reader: &mut Reader<'_>) -> Result<Response, WireError> {
    let admission = reader.u64()?;
    let count = reader.entries(CHUNK_LEN)?;
    let mut chunks: Vec<ChunkPlaces> = Vec::with_capacity(count.min(CHUNKS_PER_OBJECT as usize));
    for _ in 0..count {
        let chunk = read_chunk(reader)?;
        let ascends = chunks.last().is_none_or(|last| last.chunk < chunk.chunk);
        if !ascends || u32::from(chunk.chunk) >= CHUNKS_PER_OBJECT {
            return Err(reader.wrong("number of a chunk"));
        }
        chunks.push(chunk);
    }
    Ok(Response::Placed { admission, chunks })
}

fn read_chunk(reader: &mut Reader<'_>) -> Result<ChunkPlaces, WireError> {
    let (chunk, moves) = (reader.u8()?, reader.u64()?);
    let (zero, in_file) = (reader.u16()?, reader.u16()?);
    if zero & in_file != 0 {
        return Err(reader.wrong("places"));
    }
    let mut places = [Place::Unknown; BLOCKS_PER_CHUNK as usize];
    for (block, place) in places.iter_mut().enumerate() {
        if zero >> block & 1 == 1 {
            *place = Place::Zero;
        } else if in_file >> block & 1 == 1 {
            let (block, checksum) = (reader.u64()?, reader.u32()?);
            if block >= FILE_BLOCKS_MAX {
                return Err(reader.wrong("block of the file"));
            }
            *place = Place::At { block, checksum };
        }
    }
    Ok(ChunkPlaces { chunk, moves, places })
}

//! What a log batch says: one record for each change, in the order in which they were accepted.
//!
//! A record says what became of blocks, never where a reader should look for what it replaced, so
//! that applying it twice from the same state gives the same state (`table` does that, live and at
//! a recovery alike).
//!
//! One file because what is written and what is read mirror each other.

use std::sync::Arc;

use protocol::storage::ChunkState;
use protocol::{
    BlockRange, FamilyId, Generation, Interval, LayerId, ObjectId, PgId, PoolId, Stamp, VolumeId, geometry,
};

use crate::format::cursor::{Append, Cursor, Malformed};

/// A place for one chunk in the data file: its number, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(pub(crate) u64);

/// Where the blocks of a part of a write went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Into the batch itself, one checksum a block.
    Inline(Arc<[u32]>),
    /// Whole chunks into touching new slots, from this one; one checksum a block.
    Direct(Slot, Arc<[u32]>),
    /// Nowhere: they read as zeros.
    Zero,
    /// Nowhere: whole chunks have none of their blocks any more, before what else the write brings.
    Forgotten,
}

/// A part of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Which blocks of the object.
    pub(crate) range: BlockRange,
    /// Where to.
    pub(crate) place: Place,
}

/// A chunk of which a level replaces blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LevelChunk {
    /// The blocks that it gets; those that are not named stay.
    pub(crate) state: ChunkState,
    /// The new slot where their bytes are; nothing if there are none, or if the batch has them.
    pub(crate) slot: Option<Slot>,
    /// One for each block with bytes, ascending.
    pub(crate) checksums: Vec<u32>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A write, or a zeroing.
    Write {
        /// To what.
        object: ObjectId,
        /// The stamp that the object had.
        follows: Stamp,
        /// The stamp that it has now.
        stamp: Stamp,
        /// Its parts.
        pieces: Vec<Piece>,
    },
    /// An object brought to a stamp by a take-over.
    Level {
        /// Which object.
        object: ObjectId,
        /// The stamp that it had.
        follows: Stamp,
        /// The stamp that it has now.
        stamp: Stamp,
        /// The layers whose content it has as well.
        merged: Vec<LayerId>,
        /// The chunks that change.
        chunks: Vec<LevelChunk>,
    },
    /// An object made what a source has, when a disk comes back.
    Replace {
        /// Which object.
        object: ObjectId,
        /// The stamp that it had.
        follows: Stamp,
        /// The stamp that it has now.
        stamp: Stamp,
        /// Whether it is in doubt now.
        doubt: bool,
        /// The layers that were merged into it at the source.
        merged: Vec<LayerId>,
        /// The chunks that it has instead of its own; those without blocks go.
        chunks: Vec<LevelChunk>,
    },
    /// A merge's first step: blocks of a parent's chunk that the child lacks, copied into the child.
    Adopt {
        /// The child.
        object: ObjectId,
        /// Which chunk.
        chunk: u8,
        /// Which of its blocks: bit i is block i.
        blocks: u16,
        /// One for each, ascending; the bytes are in the batch.
        checksums: Vec<u32>,
    },
    /// A merge's last step: what the child lacks moves, the rest of the parent goes.
    Merge {
        /// Whose objects.
        family: FamilyId,
        /// Which object.
        index: u32,
        /// Which layer goes.
        parent: LayerId,
        /// Which continues it.
        child: LayerId,
        /// Chunks of the parent that nobody gets, for their row is newer: bit i is chunk i.
        left_out: u64,
    },
    /// An object goes.
    Drop(ObjectId),
    /// A volume's generation was raised.
    Generation(VolumeId, Generation),
    /// A placement group's interval was raised.
    Interval(PgId, Interval),
    /// A checkpoint may begin: all before this is whole.
    Seal,
}

const WRITE: u8 = 1;
const LEVEL: u8 = 2;
const ADOPT: u8 = 3;
const MERGE: u8 = 4;
const DROP: u8 = 5;
const GENERATION: u8 = 6;
const INTERVAL: u8 = 7;
const SEAL: u8 = 8;
const REPLACE: u8 = 9;
/// A merge that leaves chunks out.
const MERGE_FRONT: u8 = 10;

const INLINE: u8 = 1;
const DIRECT: u8 = 2;
const ZERO: u8 = 3;
const FORGOTTEN: u8 = 4;

/// Stands for "no slot".
const NO_SLOT: u64 = u64::MAX;

impl Record {
    /// Appends the record.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Write {
                object,
                follows,
                stamp,
                pieces,
            } => {
                out.push(WRITE);
                put_object(out, *object);
                put_stamp(out, *follows);
                put_stamp(out, *stamp);
                out.put_u16(narrow(pieces.len()));
                for piece in pieces {
                    put_piece(out, piece);
                }
            }
            Self::Level {
                object,
                follows,
                stamp,
                merged,
                chunks,
            } => {
                out.push(LEVEL);
                put_object(out, *object);
                put_stamp(out, *follows);
                put_stamp(out, *stamp);
                put_content(out, merged, chunks);
            }
            Self::Replace {
                object,
                follows,
                stamp,
                doubt,
                merged,
                chunks,
            } => {
                out.push(REPLACE);
                put_object(out, *object);
                put_stamp(out, *follows);
                put_stamp(out, *stamp);
                out.push(u8::from(*doubt));
                put_content(out, merged, chunks);
            }
            Self::Adopt {
                object,
                chunk,
                blocks,
                checksums,
            } => {
                out.push(ADOPT);
                put_object(out, *object);
                out.push(*chunk);
                out.put_u16(*blocks);
                out.put_u32s(checksums);
            }
            Self::Merge {
                family,
                index,
                parent,
                child,
                left_out,
            } => {
                out.push(if *left_out == 0 { MERGE } else { MERGE_FRONT });
                out.put_u64(family.0);
                out.put_u32(*index);
                out.put_u64(parent.0);
                out.put_u64(child.0);
                if *left_out != 0 {
                    out.put_u64(*left_out);
                }
            }
            Self::Drop(object) => {
                out.push(DROP);
                put_object(out, *object);
            }
            Self::Generation(volume, generation) => {
                out.push(GENERATION);
                out.put_u64(volume.0);
                out.put_u64(generation.0);
            }
            Self::Interval(pg, interval) => {
                out.push(INTERVAL);
                out.put_u32(pg.pool.0);
                out.put_u32(pg.number);
                out.put_u64(interval.0);
            }
            Self::Seal => out.push(SEAL),
        }
    }

    /// Reads one record.
    pub(crate) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        Ok(match cursor.u8()? {
            WRITE => {
                let (object, follows, stamp) = (object(cursor)?, stamp(cursor)?, stamp(cursor)?);
                let count = cursor.u16()?;
                let pieces = (0..count).map(|_| piece(cursor)).collect::<Result<_, _>>()?;
                Self::Write {
                    object,
                    follows,
                    stamp,
                    pieces,
                }
            }
            LEVEL => {
                let (object, follows, stamp) = (object(cursor)?, stamp(cursor)?, stamp(cursor)?);
                let (merged, chunks) = content(cursor)?;
                Self::Level {
                    object,
                    follows,
                    stamp,
                    merged,
                    chunks,
                }
            }
            REPLACE => {
                let (object, follows, stamp) = (object(cursor)?, stamp(cursor)?, stamp(cursor)?);
                let doubt = match cursor.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(Malformed("a flag is neither 0 nor 1")),
                };
                let (merged, chunks) = content(cursor)?;
                if chunks
                    .iter()
                    .any(|chunk| chunk.slot.is_none() && !chunk.checksums.is_empty())
                {
                    return Err(Malformed(
                        "a chunk that replaces another has no slot for its bytes",
                    ));
                }
                Self::Replace {
                    object,
                    follows,
                    stamp,
                    doubt,
                    merged,
                    chunks,
                }
            }
            ADOPT => {
                let (object, chunk, blocks) = (object(cursor)?, chunk_number(cursor)?, cursor.u16()?);
                let checksums = cursor.u32s(blocks.count_ones() as usize)?;
                Self::Adopt {
                    object,
                    chunk,
                    blocks,
                    checksums,
                }
            }
            MERGE => merge(cursor, |_| Ok(0))?,
            MERGE_FRONT => merge(cursor, |cursor| match cursor.u64()? {
                0 => Err(Malformed("a merge that leaves chunks out names none")),
                left_out => Ok(left_out),
            })?,
            DROP => Self::Drop(object(cursor)?),
            GENERATION => Self::Generation(VolumeId(cursor.u64()?), Generation(cursor.u64()?)),
            INTERVAL => {
                let pg = PgId {
                    pool: PoolId(cursor.u32()?),
                    number: cursor.u32()?,
                };
                Self::Interval(pg, Interval(cursor.u64()?))
            }
            SEAL => Self::Seal,
            _ => return Err(Malformed("it has a record of an unknown kind")),
        })
    }

    /// The checksums of the blocks that the batch itself carries for this record, in order.
    pub(crate) fn inline_checksums(&self) -> Vec<u32> {
        match self {
            Self::Write { pieces, .. } => pieces
                .iter()
                .filter_map(|piece| match &piece.place {
                    Place::Inline(checksums) => Some(checksums.iter().copied()),
                    Place::Direct(..) | Place::Zero | Place::Forgotten => None,
                })
                .flatten()
                .collect(),
            Self::Adopt { checksums, .. } => checksums.clone(),
            Self::Level { chunks, .. } => {
                let inline = chunks.iter().filter(|chunk| chunk.slot.is_none());
                inline.flat_map(|chunk| chunk.checksums.iter().copied()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The blocks that were written straight into slots: slot, block of the slot, checksum.
    pub(crate) fn direct_blocks(&self) -> Vec<(Slot, u32, u32)> {
        let mut blocks = Vec::new();
        match self {
            Self::Write { pieces, .. } => {
                for piece in pieces {
                    if let Place::Direct(first, checksums) = &piece.place {
                        for (number, checksum) in (0u32..).zip(checksums.iter()) {
                            let slot = Slot(first.0 + u64::from(number / geometry::BLOCKS_PER_CHUNK));
                            blocks.push((slot, number % geometry::BLOCKS_PER_CHUNK, *checksum));
                        }
                    }
                }
            }
            Self::Level { chunks, .. } | Self::Replace { chunks, .. } => {
                for chunk in chunks {
                    let Some(slot) = chunk.slot else { continue };
                    let data = chunk.state.present & !chunk.state.zero;
                    let numbers = (0..geometry::BLOCKS_PER_CHUNK).filter(|block| data >> block & 1 == 1);
                    blocks.extend(
                        numbers
                            .zip(&chunk.checksums)
                            .map(|(block, checksum)| (slot, block, *checksum)),
                    );
                }
            }
            _ => {}
        }
        blocks
    }
}

/// Lengths of lists are bounded by the geometry, far below 2^16: 1024 blocks, 64 chunks, and
/// `MERGED_MAX` layers, which the store checks before it makes a record.
fn narrow(length: usize) -> u16 {
    debug_assert!(u16::try_from(length).is_ok(), "a list of {length} in a record");
    u16::try_from(length).unwrap_or(u16::MAX)
}

pub(crate) fn put_object(out: &mut Vec<u8>, object: ObjectId) {
    out.put_u64(object.family.0);
    out.put_u32(object.index);
    out.put_u64(object.layer.0);
}

fn object(cursor: &mut Cursor<'_>) -> Result<ObjectId, Malformed> {
    let (family, index) = (FamilyId(cursor.u64()?), cursor.u32()?);
    Ok(ObjectId {
        family,
        index,
        layer: LayerId(cursor.u64()?),
    })
}

pub(crate) fn put_stamp(out: &mut Vec<u8>, stamp: Stamp) {
    out.put_u64(stamp.generation.0);
    out.put_u64(stamp.count);
}

pub(crate) fn stamp(cursor: &mut Cursor<'_>) -> Result<Stamp, Malformed> {
    Ok(Stamp {
        generation: Generation(cursor.u64()?),
        count: cursor.u64()?,
    })
}

pub(crate) fn put_layers(out: &mut Vec<u8>, layers: &[LayerId]) {
    out.put_u16(narrow(layers.len()));
    for layer in layers {
        out.put_u64(layer.0);
    }
}

pub(crate) fn layers(cursor: &mut Cursor<'_>) -> Result<Vec<LayerId>, Malformed> {
    let count = cursor.u16()?;
    (0..count).map(|_| Ok(LayerId(cursor.u64()?))).collect()
}

fn chunk_number(cursor: &mut Cursor<'_>) -> Result<u8, Malformed> {
    let chunk = cursor.u8()?;
    if u32::from(chunk) < geometry::CHUNKS_PER_OBJECT {
        Ok(chunk)
    } else {
        Err(Malformed("a chunk's number is too high"))
    }
}

fn put_piece(out: &mut Vec<u8>, piece: &Piece) {
    let kind = match piece.place {
        Place::Inline(_) => INLINE,
        Place::Direct(..) => DIRECT,
        Place::Zero => ZERO,
        Place::Forgotten => FORGOTTEN,
    };
    out.push(kind);
    out.put_u16(narrow(piece.range.start() as usize));
    out.put_u16(narrow(piece.range.count() as usize));
    match &piece.place {
        Place::Inline(checksums) => out.put_u32s(checksums),
        Place::Direct(slot, checksums) => {
            out.put_u64(slot.0);
            out.put_u32s(checksums);
        }
        Place::Zero | Place::Forgotten => {}
    }
}

/// A merge's record, with what says which chunks it leaves out at its end.
fn merge(
    cursor: &mut Cursor<'_>,
    left_out: impl Fn(&mut Cursor<'_>) -> Result<u64, Malformed>,
) -> Result<Record, Malformed> {
    Ok(Record::Merge {
        family: FamilyId(cursor.u64()?),
        index: cursor.u32()?,
        parent: LayerId(cursor.u64()?),
        child: LayerId(cursor.u64()?),
        left_out: left_out(cursor)?,
    })
}

fn piece(cursor: &mut Cursor<'_>) -> Result<Piece, Malformed> {
    let kind = cursor.u8()?;
    let range = BlockRange::new(u32::from(cursor.u16()?), u32::from(cursor.u16()?))
        .ok_or(Malformed("a range leaves its object"))?;
    let blocks = range.count() as usize;
    let place = match kind {
        INLINE => Place::Inline(cursor.u32s(blocks)?.into()),
        DIRECT => {
            let chunk = geometry::BLOCKS_PER_CHUNK;
            if range.start() % chunk != 0 || range.count() % chunk != 0 {
                return Err(Malformed("a direct write is not of whole chunks"));
            }
            let slot = slot(cursor)?.ok_or(Malformed("a direct write has no slot"))?;
            Place::Direct(slot, cursor.u32s(blocks)?.into())
        }
        ZERO => Place::Zero,
        FORGOTTEN => {
            let chunk = geometry::BLOCKS_PER_CHUNK;
            if range.start() % chunk != 0 || range.count() % chunk != 0 {
                return Err(Malformed("what a write forgets is not whole chunks"));
            }
            Place::Forgotten
        }
        _ => return Err(Malformed("a piece is of an unknown kind")),
    };
    Ok(Piece { range, place })
}

pub(crate) fn put_slot(out: &mut Vec<u8>, slot: Option<Slot>) {
    out.put_u64(slot.map_or(NO_SLOT, |slot| slot.0));
}

/// Slots are numbered from 0 and a disk has fewer than 2^40, so that byte offsets fit easily.
pub(crate) fn slot(cursor: &mut Cursor<'_>) -> Result<Option<Slot>, Malformed> {
    match cursor.u64()? {
        NO_SLOT => Ok(None),
        number if number < 1 << 40 => Ok(Some(Slot(number))),
        _ => Err(Malformed("a slot's number is too high")),
    }
}

/// What a level and a replacement have in common: the layers merged into the object, and chunks.
fn put_content(out: &mut Vec<u8>, merged: &[LayerId], chunks: &[LevelChunk]) {
    put_layers(out, merged);
    out.put_u16(narrow(chunks.len()));
    for chunk in chunks {
        put_level_chunk(out, chunk);
    }
}

fn content(cursor: &mut Cursor<'_>) -> Result<(Vec<LayerId>, Vec<LevelChunk>), Malformed> {
    let merged = layers(cursor)?;
    let count = cursor.u16()?;
    let chunks = (0..count)
        .map(|_| level_chunk(cursor))
        .collect::<Result<_, _>>()?;
    Ok((merged, chunks))
}

fn put_level_chunk(out: &mut Vec<u8>, chunk: &LevelChunk) {
    out.push(chunk.state.chunk);
    put_stamp(out, chunk.state.stamp);
    out.put_u16(chunk.state.present);
    out.put_u16(chunk.state.zero);
    put_slot(out, chunk.slot);
    out.put_u32s(&chunk.checksums);
}

fn level_chunk(cursor: &mut Cursor<'_>) -> Result<LevelChunk, Malformed> {
    let state = ChunkState {
        chunk: chunk_number(cursor)?,
        stamp: stamp(cursor)?,
        present: cursor.u16()?,
        zero: cursor.u16()?,
    };
    let slot = slot(cursor)?;
    let data = state.present & !state.zero;
    if (slot.is_some() && data == 0) || state.zero & !state.present != 0 {
        return Err(Malformed("a chunk contradicts itself"));
    }
    Ok(LevelChunk {
        state,
        slot,
        checksums: cursor.u32s(data.count_ones() as usize)?,
    })
}

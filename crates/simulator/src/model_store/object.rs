//! One layer's object as the model has it: chunk by chunk, as the contract speaks of it.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use protocol::geometry::BLOCKS_PER_CHUNK;
use protocol::storage::{Change, ChunkState, ObjectDelta, ObjectState, ObjectWrite};
use protocol::{BLOCK_SIZE, ObjectId, Stamp};

/// The bytes of a block, and their checksum.
pub(super) type Data = (Bytes, u32);
/// A block's bytes, or zeros.
pub(super) type Block = Option<Data>;

/// A block that is there.
#[derive(Clone, Copy)]
pub(super) enum Held<'a> {
    Zeros,
    Bytes(&'a Data),
}

/// A chunk. Most of a world's blocks are zeros of large ranges, so those take a bit each and nothing else.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    pub(super) stamp: Stamp,
    /// One bit for each block that there is.
    pub(super) present: u16,
    /// One bit for each of them that is zeros.
    pub(super) zero: u16,
    /// The others, in order.
    data: Vec<Data>,
}

impl Chunk {
    /// The blocks that there are and that are not zeros.
    pub(super) fn with_bytes(&self) -> u16 {
        self.present & !self.zero
    }

    /// Where the bytes of a block are, or would be, among those of the chunk.
    fn place(&self, bit: u32) -> usize {
        (self.with_bytes() & ((1 << bit) - 1)).count_ones() as usize
    }

    /// A block, if it is there.
    fn block(&self, bit: u32) -> Option<Held<'_>> {
        let is = |bits: u16| bits & (1 << bit) != 0;
        match self.data.get(self.place(bit)) {
            Some(data) if is(self.with_bytes()) => Some(Held::Bytes(data)),
            _ => is(self.present).then_some(Held::Zeros),
        }
    }

    pub(super) fn set(&mut self, bit: u32, block: Block) {
        let place = self.place(bit);
        if self.with_bytes() & (1 << bit) != 0 {
            self.data.remove(place);
        }
        self.present |= 1 << bit;
        if let Some(data) = block {
            self.zero &= !(1 << bit);
            self.data.insert(place, data);
        } else {
            self.zero |= 1 << bit;
        }
    }

    /// Makes blocks zeros.
    fn clear(&mut self, bits: u16) {
        if self.with_bytes() & bits != 0 {
            let mut place = bits_of(self.with_bytes());
            self.data
                .retain(|_| place.next().is_none_or(|bit| bits & (1 << bit) == 0));
        }
        self.present |= bits;
        self.zero |= bits;
    }

    fn checksums(&self) -> impl Iterator<Item = u32> {
        self.data.iter().map(|(_, checksum)| *checksum)
    }

    fn state(&self, number: u32) -> ChunkState {
        ChunkState {
            chunk: u8::try_from(number).unwrap_or(0),
            stamp: self.stamp,
            present: self.present,
            zero: self.zero,
        }
    }
}

/// The numbers of the bits that are set, ascending.
pub(super) fn bits_of(bits: u16) -> impl Iterator<Item = u32> {
    (0..BLOCKS_PER_CHUNK).filter(move |bit| bits & (1 << bit) != 0)
}

/// The chunks that a range of blocks touches: each with its number, and which bits of it.
pub(super) fn parts(blocks: std::ops::Range<u32>) -> impl Iterator<Item = (u32, std::ops::Range<u32>)> {
    (blocks.start / BLOCKS_PER_CHUNK..blocks.end.div_ceil(BLOCKS_PER_CHUNK)).map(move |chunk| {
        let first = chunk * BLOCKS_PER_CHUNK;
        let end = blocks.end.min(first + BLOCKS_PER_CHUNK);
        (chunk, blocks.start.max(first) - first..end - first)
    })
}

/// What a disk has of an object of one layer.
#[derive(Clone, Debug, Default)]
pub(super) struct Object {
    pub(super) stamp: Stamp,
    pub(super) chunks: BTreeMap<u32, Chunk>,
}

impl Object {
    pub(super) fn has_blocks(&self) -> bool {
        self.chunks.values().any(|chunk| chunk.present != 0)
    }

    /// A block, if it is there.
    pub(super) fn block(&self, block: u32) -> Option<Held<'_>> {
        let chunk = self.chunks.get(&(block / BLOCKS_PER_CHUNK))?;
        chunk.block(block % BLOCKS_PER_CHUNK)
    }

    /// The blocks that there are, ascending.
    pub(super) fn blocks(&self) -> impl Iterator<Item = u32> {
        let of_chunk = |(number, chunk): (&u32, &Chunk)| {
            let first = *number * BLOCKS_PER_CHUNK;
            bits_of(chunk.present).map(move |bit| first + bit)
        };
        self.chunks.iter().flat_map(of_chunk)
    }

    pub(super) fn state(&self, object: ObjectId) -> ObjectState {
        let chunks = self.chunks.iter().map(|(number, chunk)| chunk.state(*number));
        ObjectState {
            object,
            stamp: self.stamp,
            chunks: chunks.collect(),
        }
    }

    /// The chunks that a write drops before it brings its own blocks.
    pub(super) fn older(&self, write: &ObjectWrite) -> Vec<u32> {
        let chunks = parts(write.range.blocks()).map(|(number, _)| number);
        let is_older = |number: &u32| {
            let chunk = self.chunks.get(number);
            chunk.is_some_and(|chunk| chunk.stamp < write.floor)
        };
        chunks.filter(is_older).collect()
    }

    /// Applies a write, whose bytes are sound.
    pub(super) fn write(&mut self, write: &ObjectWrite) {
        for number in self.older(write) {
            self.chunks.remove(&number);
        }
        let mut at = 0;
        for (number, part) in parts(write.range.blocks()) {
            let chunk = self.chunks.entry(number).or_default();
            chunk.stamp = write.stamp;
            match &write.change {
                Change::Zero => chunk.clear(part.fold(0, |bits, bit| bits | 1 << bit)),
                Change::Data { bytes, checksums } => {
                    for bit in part {
                        chunk.set(bit, Some((block_of(bytes, at), checksums[at])));
                        at += 1;
                    }
                }
            }
        }
        self.stamp = write.stamp;
    }

    /// Takes in those chunks of a delta that count.
    pub(super) fn take_in(&mut self, delta: &ObjectDelta, counts: impl Fn(&ChunkState) -> bool) {
        let mut at = 0;
        for state in delta.chunks.iter().filter(|state| counts(state)) {
            let chunk = self.chunks.entry(u32::from(state.chunk)).or_default();
            chunk.stamp = state.stamp;
            for bit in bits_of(state.present) {
                let data = (state.zero & (1 << bit) == 0).then(|| {
                    at += 1;
                    (block_of(&delta.bytes, at - 1), delta.checksums[at - 1])
                });
                chunk.set(bit, data);
            }
        }
        self.stamp = delta.stamp;
    }

    /// What an object of an older layer has, and this one has not, is its own now.
    pub(super) fn take_over(&mut self, older: Self) {
        for (number, old) in older.chunks {
            let Some(chunk) = self.chunks.get_mut(&number) else {
                self.chunks.insert(number, old);
                continue;
            };
            for bit in bits_of(old.present & !chunk.present) {
                let data = match old.block(bit) {
                    Some(Held::Bytes(data)) => Some(data.clone()),
                    _ => None,
                };
                chunk.set(bit, data);
            }
        }
    }

    /// Puts the bytes of a chunk anew; tells whether it is this one, with these checksums.
    pub(super) fn mend(&mut self, wanted: &ChunkState, checksums: &[u32], bytes: &Bytes) -> bool {
        let number = u32::from(wanted.chunk);
        let here = |chunk: &&mut Chunk| {
            chunk.state(number) == *wanted && chunk.checksums().eq(checksums.iter().copied())
        };
        let Some(chunk) = self.chunks.get_mut(&number).filter(here) else {
            return false;
        };
        for (at, (data, _)) in chunk.data.iter_mut().enumerate() {
            *data = block_of(bytes, at);
        }
        true
    }

    /// What of it is newer than a stamp.
    pub(super) fn delta(&self, object: ObjectId, above: Stamp) -> ObjectDelta {
        let newer = || self.chunks.iter().filter(|(_, chunk)| chunk.stamp > above);
        let data = || newer().flat_map(|(_, chunk)| &chunk.data);
        let mut bytes = BytesMut::with_capacity(data().count() * BLOCK_SIZE as usize);
        for (block, _) in data() {
            bytes.extend_from_slice(block);
        }
        ObjectDelta {
            object,
            stamp: self.stamp,
            merged: Vec::new(),
            chunks: newer().map(|(number, chunk)| chunk.state(*number)).collect(),
            checksums: data().map(|(_, checksum)| *checksum).collect(),
            bytes: bytes.freeze(),
        }
    }
}

/// The block at a place in bytes of several.
fn block_of(bytes: &Bytes, at: usize) -> Bytes {
    let start = at * BLOCK_SIZE as usize;
    bytes.slice(start..start + BLOCK_SIZE as usize)
}

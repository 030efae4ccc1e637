//! What a front end was told of where blocks lie on one disk, as long as it pays to remember it.
//!
//! Pure: the witness is asked through [`Counts`]. A read is planned by what is known; what is not
//! known is asked of the disk, once for a whole object at first, then chunk by chunk, and the less
//! often the sooner it turned out to be no longer true: a chunk under steady writes is not worth
//! asking for.

mod kept;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use protocol::geometry::{BLOCK_SIZE, BLOCKS_PER_CHUNK, BlockRange};
use protocol::message::{Request, Scope};
use protocol::place::{ChunkPlaces, Place};
use protocol::{BlockRanges, FamilyId, LayerId, PgId};

use crate::cache::Cache;
use crate::witness::{Watch, Witness};
use kept::{Gathered, Kept};

/// Chunks that are remembered for one disk: 8 GiB of volume, in 15 MiB of memory if most of them lie in
/// one piece, as chunks do that no snapshot cut up.
pub const CHUNKS_MAX: usize = 1 << 17;
/// Reads that what was learnt of a chunk must have served to be called worth asking for.
const WORTH: u32 = 4;
/// Reads of a chunk that go by at most before it is asked for again.
const PATIENCE_MAX: u32 = 256;

/// The witness's counts, as a reader sees them.
pub trait Counts {
    /// Of a chunk's moves.
    fn moves(&self, family: FamilyId, index: u32, chunk: u8) -> u64;
    /// Of admissions.
    fn admission(&self) -> u64;
}

impl Counts for Watch {
    fn moves(&self, family: FamilyId, index: u32, chunk: u8) -> u64 {
        self.count(family, index, chunk)
    }

    fn admission(&self) -> u64 {
        Watch::admission(self)
    }
}

impl Counts for Witness {
    fn moves(&self, family: FamilyId, index: u32, chunk: u8) -> u64 {
        self.count(family, index, chunk)
    }

    fn admission(&self) -> u64 {
        Witness::admission(self)
    }
}

/// What is read: an object of 4 MiB as the layers from one down show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shown {
    /// The placement group that it belongs to: who may read is decided by group and layer.
    pub pg: PgId,
    /// Whose object.
    pub family: FamilyId,
    /// The newest layer to look at.
    pub layer: LayerId,
    /// Which object.
    pub index: u32,
}

impl Shown {
    /// What a request reads for whom, and which blocks of it; nothing if it is no read.
    pub fn of(request: &Request) -> Option<(Scope, Self, Cow<'_, BlockRanges>)> {
        let (scope, family, layer, index, ranges) = match request {
            Request::Read {
                scope,
                family,
                layer,
                index,
                range,
            } => (scope, family, layer, index, Cow::Owned((*range).into())),
            Request::ReadSeveral {
                scope,
                family,
                layer,
                index,
                ranges,
            } => (scope, family, layer, index, Cow::Borrowed(ranges)),
            _ => return None,
        };
        let shown = Self {
            pg: scope.pg,
            family: *family,
            layer: *layer,
            index: *index,
        };
        Some((*scope, shown, ranges))
    }

    /// Asks where blocks of it lie.
    pub fn question(&self, scope: Scope, range: BlockRange) -> Request {
        Request::Places {
            scope,
            family: self.family,
            layer: self.layer,
            index: self.index,
            range,
        }
    }
}

/// Touching blocks of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first, as a number of 4 KiB blocks.
    pub block: u64,
    /// How many.
    pub count: usize,
    /// To where in the buffer, in blocks.
    pub at: usize,
}

/// How to read a range, and what must hold when that is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to read.
    pub runs: Vec<Run>,
    /// Blocks of the buffer that are zeros.
    pub zeros: Vec<usize>,
    /// Blocks of the buffer that are read, and the CRC-32C of each.
    pub checksums: Vec<(usize, u32)>,
    /// The count of admissions that it is good for.
    pub admission: u64,
    /// The counts of moves that it is good for, by chunk.
    pub moves: Vec<(u8, u64)>,
}

impl Plan {
    /// Whether what was read by it is what it was meant to be.
    pub fn holds(&self, counts: &impl Counts, shown: &Shown) -> bool {
        counts.admission() == self.admission
            && self
                .moves
                .iter()
                .all(|(chunk, moves)| counts.moves(shown.family, shown.index, *chunk) == *moves)
    }

    /// Whether bytes have the checksums that they should have.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        let block = BLOCK_SIZE as usize;
        self.checksums
            .iter()
            .all(|(at, checksum)| crc32c::crc32c(&bytes[at * block..(at + 1) * block]) == *checksum)
    }

    fn add(&mut self, at: usize, block: u64, checksum: u32) {
        self.checksums.push((at, checksum));
        match self.runs.last_mut() {
            Some(run) if run.block + run.count as u64 == block && run.at + run.count == at => run.count += 1,
            _ => self.runs.push(Run { block, count: 1, at }),
        }
    }
}

/// Where a chunk's blocks are, in as little memory as that takes.
#[derive(Debug)]
enum Known {
    /// All in the file, one behind the other.
    Whole(Box<Whole>),
    /// Anyhow.
    Mixed(Box<ChunkPlaces>),
}

#[derive(Debug)]
struct Whole {
    moves: u64,
    first: u64,
    checksums: [u32; BLOCKS_PER_CHUNK as usize],
}

impl Known {
    fn new(places: ChunkPlaces) -> Self {
        let mut whole = Whole {
            moves: places.moves,
            first: 0,
            checksums: [0; BLOCKS_PER_CHUNK as usize],
        };
        for (number, place) in places.places.iter().enumerate() {
            match *place {
                Place::At { block, checksum } if number == 0 || block == whole.first + number as u64 => {
                    if number == 0 {
                        whole.first = block;
                    }
                    whole.checksums[number] = checksum;
                }
                _ => return Self::Mixed(Box::new(places)),
            }
        }
        Self::Whole(Box::new(whole))
    }

    fn moves(&self) -> u64 {
        match self {
            Self::Whole(whole) => whole.moves,
            Self::Mixed(places) => places.moves,
        }
    }

    fn place(&self, block: usize) -> Place {
        match self {
            Self::Whole(whole) => Place::At {
                block: whole.first + block as u64,
                checksum: whole.checksums[block],
            },
            Self::Mixed(places) => places.places[block],
        }
    }
}

/// What is known of a chunk, and what was read of it since.
#[derive(Debug)]
struct Learnt {
    known: Known,
    kept: Kept,
}

/// What was learnt of a chunk, and how well that went.
#[derive(Debug)]
struct Chunk {
    learnt: Option<Learnt>,
    /// Reads that were planned by what is known.
    served: u32,
    /// Reads that could not be, since it was asked for last.
    missed: u32,
    /// How many of those there must be before it is asked for again.
    patience: u32,
}

#[derive(Debug, Default)]
struct Object {
    chunks: BTreeMap<u8, Chunk>,
    /// A question is under way.
    asking: bool,
    /// Looked at since the last pass of the eviction.
    used: bool,
}

/// Everything that is known of one disk.
#[derive(Debug, Default)]
pub struct Places {
    objects: HashMap<Shown, Object>,
    /// In the order of a clock's hand.
    clock: VecDeque<Shown>,
    chunks: usize,
    /// The count of admissions at which reads of a group's layer were let in last.
    admitted: HashMap<(PgId, LayerId), u64>,
}

/// The chunks that a range touches, with the part of it in each.
fn chunks(range: BlockRange) -> impl Iterator<Item = (u8, std::ops::Range<u32>)> {
    let (start, end) = (range.start(), range.end());
    (start / BLOCKS_PER_CHUNK..end.div_ceil(BLOCKS_PER_CHUNK)).map(move |number| {
        let first = number * BLOCKS_PER_CHUNK;
        let part = start.max(first) - first..end.min(first + BLOCKS_PER_CHUNK) - first;
        (u8::try_from(number).unwrap_or(u8::MAX), part)
    })
}

/// The chunks that ranges touch, one behind the other: each with the part of it, and to which block of a buffer for all
/// of them that part goes.
fn parts(ranges: &BlockRanges) -> impl Iterator<Item = (u8, std::ops::Range<u32>, usize)> {
    let mut at = 0;
    ranges.iter().flat_map(chunks).map(move |(number, part)| {
        let begin = at;
        at += part.len();
        (number, part, begin)
    })
}

impl Places {
    /// How to read ranges, one behind the other; or, if that is not known, what to ask for, if it is worth asking.
    pub fn plan(
        &mut self,
        counts: &impl Counts,
        shown: &Shown,
        ranges: &BlockRanges,
    ) -> Result<Plan, Option<BlockRange>> {
        let admission = counts.admission();
        let admitted = self.admitted.get(&(shown.pg, shown.layer)) == Some(&admission);
        let Some(object) = self.objects.get_mut(shown) else {
            self.remember(shown);
            return Err(Some(BlockRange::OBJECT));
        };
        object.used = true;
        let mut plan = Plan {
            admission,
            ..Plan::default()
        };
        let mut complete = true;
        let mut asks = !admitted;
        for (number, part, begin) in parts(ranges) {
            let chunk = object.chunks.entry(number).or_insert_with(|| {
                self.chunks += 1;
                Chunk::new()
            });
            chunk.forget_if_moved(counts, shown, number);
            if !chunk.serve(&mut plan, number, begin, part) {
                complete = false;
                asks |= chunk.asks();
            }
        }
        if complete && admitted {
            return Ok(plan);
        }
        // One question for an object at a time.
        let asks = asks && !object.asking;
        object.asking |= asks;
        Err(asks.then(|| ranges.hull()))
    }

    /// Bytes of ranges, one behind the other, that were read before: of such as [`Self::plan`] has just given a plan for.
    pub fn recall(&self, cache: &Cache, shown: &Shown, ranges: &BlockRanges) -> Option<Bytes> {
        let object = self.objects.get(shown)?;
        let mut found = Gathered::default();
        for (number, part, _) in parts(ranges) {
            let learnt = object.chunks.get(&number)?.learnt.as_ref()?;
            learnt.kept.add_to(&mut found, cache, part)?;
        }
        found.bytes()
    }

    /// Keeps what was read by a plan that held, as long as the chunks are what they were then.
    pub fn keep(&mut self, cache: &Cache, shown: &Shown, ranges: &BlockRanges, plan: &Plan, bytes: &Bytes) {
        let Some(object) = self.objects.get_mut(shown) else {
            return;
        };
        let Some(handle) = cache.keep(bytes.clone()) else {
            return;
        };
        for (number, part, begin) in parts(ranges) {
            let chunk = object.chunks.get_mut(&number);
            if let Some(learnt) = chunk.and_then(|chunk| chunk.learnt.as_mut())
                && plan.moves.contains(&(number, learnt.known.moves()))
            {
                learnt.kept.put(part, handle, begin);
            }
        }
    }

    fn remember(&mut self, shown: &Shown) {
        self.evict();
        let object = Object {
            asking: true,
            used: true,
            ..Object::default()
        };
        self.objects.insert(*shown, object);
        self.clock.push_back(*shown);
    }

    fn evict(&mut self) {
        // Twice round at most: the first time round all may have been used.
        for _ in 0..2 * self.clock.len() {
            if self.chunks < CHUNKS_MAX {
                return;
            }
            let Some(shown) = self.clock.pop_front() else {
                return;
            };
            match self.objects.get_mut(&shown) {
                Some(object) if object.used => {
                    object.used = false;
                    self.clock.push_back(shown);
                }
                _ => {
                    if let Some(object) = self.objects.remove(&shown) {
                        self.chunks -= object.chunks.len();
                    }
                }
            }
        }
    }

    /// Takes in the answer to a question.
    pub fn learn(&mut self, shown: &Shown, admission: u64, answer: Vec<ChunkPlaces>) {
        self.admitted.insert((shown.pg, shown.layer), admission);
        let Some(object) = self.objects.get_mut(shown) else {
            return;
        };
        object.asking = false;
        for places in answer {
            let chunk = object.chunks.entry(places.chunk).or_insert_with(|| {
                self.chunks += 1;
                Chunk::new()
            });
            chunk.learn(places);
        }
    }

    /// A question was refused.
    pub fn refused(&mut self, shown: &Shown) {
        if let Some(object) = self.objects.get_mut(shown) {
            object.asking = false;
        }
    }
}

impl Chunk {
    fn new() -> Self {
        Self {
            learnt: None,
            served: 0,
            missed: 0,
            patience: 1,
        }
    }

    fn forget_if_moved(&mut self, counts: &impl Counts, shown: &Shown, number: u8) {
        let moves = counts.moves(shown.family, shown.index, number);
        if self
            .learnt
            .take_if(|learnt| learnt.known.moves() != moves)
            .is_some()
        {
            self.judge();
        }
    }

    /// Was it worth asking?
    fn judge(&mut self) {
        self.patience = if self.served < WORTH {
            (self.patience * 2).min(PATIENCE_MAX)
        } else {
            1
        };
        self.served = 0;
    }

    /// Adds blocks of the chunk to a plan; false if not all of them can be.
    fn serve(&mut self, plan: &mut Plan, chunk: u8, at: usize, blocks: std::ops::Range<u32>) -> bool {
        let Some(Learnt { known, .. }) = &self.learnt else {
            return false;
        };
        for (number, block) in blocks.enumerate() {
            match known.place(block as usize) {
                Place::Unknown => return false,
                Place::Zero => plan.zeros.push(at + number),
                Place::At { block, checksum } => plan.add(at + number, block, checksum),
            }
        }
        plan.moves.push((chunk, known.moves()));
        self.served += 1;
        true
    }

    /// A read found nothing: whether to ask now.
    fn asks(&mut self) -> bool {
        self.missed += 1;
        let asks = self.missed >= self.patience;
        if asks {
            self.missed = 0;
        }
        asks
    }

    fn learn(&mut self, places: ChunkPlaces) {
        if self.learnt.is_some() {
            self.judge();
        } else {
            self.served = 0;
        }
        let lacking = places.places.contains(&Place::Unknown);
        if lacking {
            // Written a moment ago; it will be in the file after the next checkpoint.
            self.patience = (self.patience * 2).min(PATIENCE_MAX);
        }
        self.learnt = Some(Learnt {
            known: Known::new(places),
            kept: Kept::default(),
        });
    }
}

#[cfg(test)]
mod tests;

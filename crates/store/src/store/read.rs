//! Reads: which layer has each block, where its bytes are, and that they are the right ones.
//!
//! A read sees only what is durable: one that would see more waits for the log. A block that does
//! not match its checksum is looked up again, for a checkpoint may have moved it meanwhile; if it
//! still does not match, the block is damaged and is named.
//!
//! One file because planning a read and judging what came back are two halves of one promise.

use std::sync::Arc;

use bytes::Bytes;
use protocol::geometry::BLOCKS_PER_CHUNK;
use protocol::storage::{ChunkState, MapKind, MapRun, ObjectDelta, StorageError, StorageReply};
use protocol::{BlockRange, BlockRanges, FamilyId, LayerChain, LayerId, ObjectId, Stamp};

use crate::cache::Version;
use crate::format::record::Slot;
use crate::log::Waiter;
use crate::medium::{Buffer, File, Operation, Run};
use crate::mutation::{self, Mutation};
use crate::object::{BLOCK, Chunk, bits, data_offset};
use crate::store::verify::Check;
use crate::store::{Store, Task};
use crate::table::{StackId, parts};

/// CRC-32C of 4096 zero bytes.
const ZERO_CHECKSUM: u32 = 0x98f9_4189;
/// How often a block is read before it counts as damaged. After the first time, block by block.
pub(crate) const ATTEMPTS: u8 = 3;
/// Reads of more blocks than this are scans, and leave the cache alone: 64 KiB.
const CACHED_BLOCKS_MAX: usize = 16;
/// How often a read that looks at what is being written is done again before it counts as too busy.
const WAITS_MAX: u8 = 8;

/// What is read, and for whom.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Ranges through layers.
    Range {
        waiter: Waiter,
        chain: LayerChain,
        family: FamilyId,
        index: u32,
        ranges: BlockRanges,
    },
    /// Where data is, through layers.
    Map {
        waiter: Waiter,
        chain: LayerChain,
        family: FamilyId,
        index: u32,
        range: BlockRange,
    },
    /// What of an object is newer than a stamp.
    Pull {
        waiter: Waiter,
        object: ObjectId,
        above: Stamp,
    },
    /// The chunks of an object that differ from somebody's.
    Difference {
        waiter: Waiter,
        object: ObjectId,
        have: Vec<ChunkState>,
        /// What is to be told, without bytes, as it was when the read was planned: the object may change
        /// while its bytes are read, and all that is told must be of one moment.
        planned: Option<Box<ObjectDelta>>,
        /// How often it met something that is being written.
        waits: u8,
    },
    /// Whether the bytes of some chunks are on the medium as they should be.
    Verify(Box<Check>),
    /// An answer that waits until all that it shows is on stable storage.
    Told { waiter: Waiter, delta: Box<ObjectDelta> },
    /// What the merge under way on a stack copies next: blocks of a parent's chunk.
    Merge {
        stack: StackId,
        object: ObjectId,
        chunk: u8,
        blocks: u16,
    },
}

/// A read under way.
#[derive(Debug)]
pub(crate) struct ReadJob {
    pub(crate) target: Target,
    pub(crate) attempts: u8,
    /// [`Store::moves`] when the read was planned.
    moves: u64,
    pub(crate) plan: Plan,
}

/// A block that comes from the disk.
#[derive(Debug)]
pub(crate) struct Expected {
    /// Where it is in the buffer, in blocks.
    pub(crate) at: usize,
    object: ObjectId,
    /// Which block of the object.
    pub(crate) block: u32,
    pub(crate) slot: Slot,
    slot_block: u8,
    pub(crate) checksum: u32,
    /// The write that the chunk had last when the read was planned.
    write: Stamp,
}

/// How a buffer is filled.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Length of the buffer, in blocks: one checksum for each.
    checksums: Vec<u32>,
    runs: Vec<Run>,
    pub(crate) expected: Vec<Expected>,
    /// Blocks that are in memory: where they go, in blocks.
    copies: Vec<(usize, Bytes)>,
    /// Blocks that read as zeros, in blocks of the buffer.
    zeros: Vec<usize>,
    /// The newest batch that any looked-at chunk was changed by, or that took an object away.
    touched: u64,
    /// Whether every block is a run of its own.
    apart: bool,
    /// Whether something of it was being written when it was planned: what is read may not be there yet.
    unsettled: bool,
}

impl Plan {
    fn add_zero(&mut self) {
        self.zeros.push(self.checksums.len());
        self.checksums.push(ZERO_CHECKSUM);
    }

    /// Adds a block with bytes.
    fn add(&mut self, store: &mut Cached<'_>, object: ObjectId, number: u8, block: u8, chunk: &Chunk) {
        let at = self.checksums.len();
        let checksum = chunk.checksums[usize::from(block)];
        self.checksums.push(checksum);
        if let Some(overlay) = chunk.overlay_of(block) {
            self.copies.push((at, overlay.bytes.clone()));
            return;
        }
        let Some(slot) = chunk.slot else {
            // Cannot be: zeros do not match the checksum, so nobody takes them for the bytes.
            self.zeros.push(at);
            return;
        };
        let number = u32::from(number) * BLOCKS_PER_CHUNK + u32::from(block);
        let version = Version {
            write: chunk.stamp,
            block: number,
        };
        if let Some(bytes) = store.get(slot, block, version) {
            self.copies.push((at, bytes));
            return;
        }
        self.read_block(Expected {
            at,
            object,
            block: number,
            slot,
            slot_block: block,
            checksum,
            write: chunk.stamp,
        });
    }

    /// Adds a block that is to come from the disk even if it is in memory.
    fn add_past_caches(&mut self, object: ObjectId, number: u8, block: u8, (slot, chunk): (Slot, &Chunk)) {
        let at = self.checksums.len();
        let checksum = chunk.checksums[usize::from(block)];
        self.checksums.push(checksum);
        self.read_block(Expected {
            at,
            object,
            block: u32::from(number) * BLOCKS_PER_CHUNK + u32::from(block),
            slot,
            slot_block: block,
            checksum,
            write: chunk.stamp,
        });
    }

    /// Adds a block that comes from the disk.
    fn read_block(&mut self, expected: Expected) {
        let Expected {
            at, slot, slot_block, ..
        } = expected;
        self.expected.push(expected);
        let offset = data_offset(slot, slot_block);
        match self.runs.last_mut() {
            Some(run)
                if !self.apart
                    && run.offset + run.length as u64 == offset
                    && run.at + run.length == at * BLOCK =>
            {
                run.length += BLOCK;
            }
            _ => self.runs.push(Run {
                offset,
                length: BLOCK,
                at: at * BLOCK,
            }),
        }
    }
}

/// The cache, and how it did.
struct Cached<'a> {
    cache: &'a mut crate::cache::BlockCache,
    hits: u64,
    misses: u64,
}

impl Cached<'_> {
    fn get(&mut self, slot: Slot, block: u8, version: Version) -> Option<Bytes> {
        let found = self.cache.get(slot, block, version);
        self.hits += u64::from(found.is_some());
        self.misses += u64::from(found.is_none());
        found
    }
}

impl Store {
    /// Starts a read; it may be answered at once.
    pub(crate) fn read(&mut self, target: Target) {
        self.attempt(target, 0);
    }

    pub(crate) fn attempt(&mut self, mut target: Target, attempts: u8) {
        if let Target::Told { waiter, delta } = target {
            self.answer(waiter, Ok(StorageReply::Delta(*delta)));
            return;
        }
        if let Err(error) = self.load(target.stack()) {
            self.fail_read(&target, error);
            return;
        }
        let durable = self.log.durable();
        if let Target::Map {
            waiter,
            chain,
            family,
            index,
            range,
        } = &target
        {
            let (touched, reply) = self.map(chain, (*family, *index), *range);
            if touched > durable {
                self.parked.entry(touched).or_default().push(target);
            } else {
                self.answer(*waiter, Ok(reply));
            }
            return;
        }
        self.plan_difference(&mut target);
        let mut plan = self.plan(&target, attempts > 0);
        plan.unsettled = plan.touched > durable;
        let early = mutation::active(Mutation::ReadBeforeDurable) && plan.runs.is_empty();
        // A difference is read at once and told when it is durable: else a busy object never would be.
        let later = matches!(target, Target::Difference { .. } | Target::Verify(_));
        if plan.touched > durable && !early && !later {
            self.parked.entry(plan.touched).or_default().push(target);
        } else if plan.runs.is_empty() {
            self.fill_from_memory(target, plan);
        } else {
            let buffer = self.buffers.take(plan.checksums.len() * BLOCK);
            let runs = plan.runs.clone();
            let task = Task::Read(Box::new(ReadJob {
                target,
                attempts,
                moves: self.moves,
                plan,
            }));
            self.begin(
                task,
                Operation::Read {
                    file: File::Data,
                    runs,
                    buffer,
                },
            );
        }
    }

    fn fill_from_memory(&mut self, target: Target, mut plan: Plan) {
        // One block that lies in memory as it was written needs no copy.
        if let [(0, bytes)] = plan.copies.as_slice()
            && plan.checksums.len() == 1
            && bytes.as_ptr().addr().is_multiple_of(BLOCK)
        {
            let bytes = bytes.clone();
            let touched = plan.touched;
            self.finish_read(target, (std::mem::take(&mut plan.checksums), touched), bytes);
            return;
        }
        let mut buffer = self.buffers.take(plan.checksums.len() * BLOCK);
        copy(&plan, &mut buffer);
        let bytes = self.buffers.lend(buffer);
        self.finish_read(target, (plan.checksums, plan.touched), bytes);
    }

    /// The kernel filled a buffer.
    pub(crate) fn read_done(&mut self, job: ReadJob, mut buffer: Buffer) {
        if job.moves != self.moves {
            // The slots may be somebody else's by now, and checksums do not tell: a block that
            // carries a CRC-32C of itself has the same one whatever it holds. This ends, for a
            // checkpoint takes many times as long as a read.
            self.attempt(job.target, job.attempts);
            return;
        }
        if matches!(job.target, Target::Verify(_)) {
            self.checked(job, &buffer);
            return;
        }
        let wrong = job.plan.expected.iter().find(|expected| {
            let bytes = &buffer[expected.at * BLOCK..(expected.at + 1) * BLOCK];
            crc32c::crc32c(bytes) != expected.checksum
        });
        if let Some(wrong) = wrong
            && !mutation::active(Mutation::UnverifiedRead)
        {
            let error = StorageError::Damaged {
                object: wrong.object,
                block: wrong.block,
            };
            self.retry(job, error);
            return;
        }
        if job.plan.checksums.len() <= CACHED_BLOCKS_MAX {
            for expected in &job.plan.expected {
                let bytes = &buffer[expected.at * BLOCK..(expected.at + 1) * BLOCK];
                let version = Version {
                    write: expected.write,
                    block: expected.block,
                };
                self.cache.put(expected.slot, expected.slot_block, version, bytes);
            }
        }
        copy(&job.plan, &mut buffer);
        let bytes = self.buffers.lend(buffer);
        self.finish_read(job.target, (job.plan.checksums, job.plan.touched), bytes);
    }

    /// The kernel could not read a run.
    pub(crate) fn read_failed(&mut self, job: ReadJob, run: usize, error: &std::io::Error) {
        let at = job.plan.runs.get(run).map_or(0, |run| run.at / BLOCK);
        let Some(unread) = job.plan.expected.iter().find(|expected| expected.at == at) else {
            self.poison(&"a read failed that nobody asked for");
            return;
        };
        tracing::warn!(object = %unread.object, block = unread.block, %error, "cannot read a block");
        let error = StorageError::Damaged {
            object: unread.object,
            block: unread.block,
        };
        if matches!(job.target, Target::Verify(_)) {
            let wrong = [(unread.block, unread.slot)];
            self.check_again(job, &wrong);
        } else {
            self.retry(job, error);
        }
    }

    /// A read whose bytes are wrong goes on if they should have been right: what is being written may not be yet
    /// where it was looked for, and then the read is done again, or is given up as one too many.
    pub(crate) fn settled(&mut self, mut job: ReadJob) -> Option<ReadJob> {
        let waits = match &mut job.target {
            Target::Difference { waits, .. } => waits,
            Target::Verify(check) => &mut check.waits,
            _ => return Some(job),
        };
        if !job.plan.unsettled {
            return Some(job);
        }
        *waits += 1;
        if *waits > WAITS_MAX {
            self.fail_read(&job.target, StorageError::Busy);
        } else if job.plan.touched > self.log.durable() {
            self.parked.entry(job.plan.touched).or_default().push(job.target);
        } else {
            self.attempt(job.target, job.attempts);
        }
        None
    }

    /// What was read is as it should be, and nobody wants its bytes.
    pub(crate) fn read_is_over(&mut self, job: ReadJob) {
        self.finish_read(job.target, (job.plan.checksums, job.plan.touched), Bytes::new());
    }

    fn retry(&mut self, job: ReadJob, error: StorageError) {
        let Some(job) = self.settled(job) else { return };
        if job.attempts + 1 < ATTEMPTS {
            self.attempt(job.target, job.attempts + 1);
        } else {
            self.statistics.damaged_blocks += 1;
            tracing::error!(%error, "a block is damaged");
            self.fail_read(&job.target, error);
        }
    }

    fn fail_read(&mut self, target: &Target, error: StorageError) {
        match target {
            Target::Range { waiter, .. }
            | Target::Map { waiter, .. }
            | Target::Pull { waiter, .. }
            | Target::Difference { waiter, .. }
            | Target::Told { waiter, .. } => {
                self.answer(*waiter, Err(error));
            }
            Target::Verify(check) => self.answer(check.waiter, Err(error)),
            Target::Merge { stack, .. } => self.end_merge(*stack, Err(error)),
        }
    }

    fn finish_read(&mut self, target: Target, (checksums, touched): (Vec<u32>, u64), bytes: Bytes) {
        match target {
            Target::Range {
                waiter,
                chain,
                family,
                index,
                ..
            } => {
                self.statistics.reads += 1;
                self.statistics.read_bytes += bytes.len() as u64;
                let stamp = self.head_stamp(&chain, (family, index));
                let reply = StorageReply::Data {
                    stamp,
                    bytes,
                    checksums: checksums.into(),
                };
                self.answer(waiter, Ok(reply));
            }
            Target::Pull {
                waiter,
                object,
                above,
            } => {
                let delta = self.delta(object, above, checksums.into(), bytes);
                self.answer(waiter, Ok(StorageReply::Delta(delta)));
            }
            Target::Merge {
                stack, chunk, blocks, ..
            } => {
                self.adopt_blocks(stack, chunk, blocks, &checksums, &bytes);
            }
            Target::Difference { waiter, planned, .. } => {
                let Some(mut delta) = planned else { return };
                delta.checksums = checksums.into();
                delta.bytes = bytes;
                let told = Target::Told { waiter, delta };
                if touched > self.log.durable() {
                    self.parked.entry(touched).or_default().push(told);
                } else {
                    self.read(told);
                }
            }
            Target::Verify(check) => self.end_check(&check),
            Target::Map { .. } | Target::Told { .. } => {}
        }
    }

    /// Notes what a difference will tell.
    fn plan_difference(&mut self, target: &mut Target) {
        let Target::Difference {
            object: id,
            have,
            planned,
            ..
        } = target
        else {
            return;
        };
        let object = self.table.object(*id);
        let mut chunks: Vec<ChunkState> = object
            .into_iter()
            .flat_map(|object| &object.chunks)
            .map(|(number, chunk)| chunk.state(*number))
            .collect();
        let gone = have
            .iter()
            .filter(|his| chunks.iter().all(|ours| ours.chunk != his.chunk));
        let gone: Vec<ChunkState> = gone.map(|his| Chunk::empty().state(his.chunk)).collect();
        chunks.retain(|ours| !have.contains(ours));
        chunks.extend(gone);
        chunks.sort_unstable_by_key(|state| state.chunk);
        *planned = Some(Box::new(ObjectDelta {
            object: *id,
            stamp: object.map_or(Stamp::ZERO, |object| object.stamp),
            merged: object.map(|object| object.merged.clone()).unwrap_or_default(),
            chunks,
            checksums: Arc::from([]),
            bytes: Bytes::new(),
        }));
    }

    fn head_stamp(&self, chain: &LayerChain, (family, index): StackId) -> Stamp {
        let object = chain.head().map(|layer| ObjectId { family, index, layer });
        object
            .and_then(|object| self.table.object(object))
            .map_or(Stamp::ZERO, |object| object.stamp)
    }

    fn plan(&mut self, target: &Target, apart: bool) -> Plan {
        let mut plan = Plan {
            apart,
            touched: self.table.removed(target.stack()),
            ..Plan::default()
        };
        let mut cached = Cached {
            cache: &mut self.cache,
            hits: 0,
            misses: 0,
        };
        match target {
            Target::Range {
                chain,
                family,
                index,
                ranges,
                ..
            } => {
                let Some(layers) = self.table.layers((*family, *index)) else {
                    return plan;
                };
                let visible = visible(chain, layers);
                for part in ranges.iter().flat_map(parts) {
                    let owners = owners(&visible, part.chunk, part.blocks(), &mut plan.touched);
                    for block in bits(part.blocks()) {
                        match owners[usize::from(block)] {
                            Some((layer, chunk)) if chunk.data() >> block & 1 == 1 => {
                                let object = ObjectId {
                                    family: *family,
                                    index: *index,
                                    layer,
                                };
                                plan.add(&mut cached, object, part.chunk, block, chunk);
                            }
                            _ => plan.add_zero(),
                        }
                    }
                }
            }
            Target::Pull { object, above, .. } => {
                for (number, chunk) in newer(self.table.object(*object), *above) {
                    plan.touched = plan.touched.max(chunk.touched);
                    for block in bits(chunk.data()) {
                        plan.add(&mut cached, *object, number, block, chunk);
                    }
                }
            }
            Target::Difference { object, planned, .. } => {
                let table = self.table.object(*object);
                let chunks = planned.iter().flat_map(|delta| &delta.chunks);
                for state in chunks {
                    let chunk = table.and_then(|object| object.chunks.get(&state.chunk));
                    let Some(chunk) = chunk else { continue };
                    plan.touched = plan.touched.max(chunk.touched);
                    for block in bits(chunk.data()) {
                        plan.add(&mut cached, *object, state.chunk, block, chunk);
                    }
                }
            }
            Target::Verify(check) => {
                for (number, chunk) in check.chunks(self.table.object(check.object)) {
                    plan.touched = plan.touched.max(chunk.touched);
                    if let Some((slot, blocks)) = check.to_read(number, chunk) {
                        for block in bits(blocks) {
                            plan.add_past_caches(check.object, number, block, (slot, chunk));
                        }
                    }
                }
            }
            Target::Merge {
                object,
                chunk: number,
                blocks,
                ..
            } => {
                let object_chunks = self.table.object(*object).map(|object| &object.chunks);
                if let Some(chunk) = object_chunks.and_then(|chunks| chunks.get(number)) {
                    plan.touched = plan.touched.max(chunk.touched);
                    for block in bits(chunk.data() & blocks) {
                        plan.add(&mut cached, *object, *number, block, chunk);
                    }
                }
            }
            Target::Map { .. } | Target::Told { .. } => {}
        }
        self.statistics.cache_hits += cached.hits;
        self.statistics.cache_misses += cached.misses;
        plan
    }

    fn map(&self, chain: &LayerChain, id: StackId, range: BlockRange) -> (u64, StorageReply) {
        let mut touched = self.table.removed(id);
        let mut runs: Vec<(u32, u32, MapKind)> = Vec::new();
        let visible = self
            .table
            .layers(id)
            .map(|layers| visible(chain, layers))
            .unwrap_or_default();
        for part in parts(range) {
            let owners = owners(&visible, part.chunk, part.blocks(), &mut touched);
            for block in bits(part.blocks()) {
                let kind = match owners[usize::from(block)] {
                    None => MapKind::Hole,
                    Some((_, chunk)) if chunk.zero >> block & 1 == 1 => MapKind::Zero,
                    Some(_) => MapKind::Data,
                };
                let number = u32::from(part.chunk) * BLOCKS_PER_CHUNK + u32::from(block);
                match runs.last_mut() {
                    Some(last) if last.2 == kind => last.1 += 1,
                    _ => runs.push((number, 1, kind)),
                }
            }
        }
        let run = |(start, count, kind)| BlockRange::new(start, count).map(|range| MapRun { range, kind });
        let runs = runs.into_iter().filter_map(run).collect();
        (
            touched,
            StorageReply::Map {
                stamp: self.head_stamp(chain, id),
                runs,
            },
        )
    }

    fn delta(&self, id: ObjectId, above: Stamp, checksums: Arc<[u32]>, bytes: Bytes) -> ObjectDelta {
        let object = self.table.object(id);
        let chunks = newer(object, above).map(|(number, chunk)| chunk.state(number));
        ObjectDelta {
            object: id,
            stamp: object.map_or(Stamp::ZERO, |object| object.stamp),
            merged: object.map(|object| object.merged.clone()).unwrap_or_default(),
            chunks: chunks.collect(),
            checksums,
            bytes,
        }
    }
}

impl Target {
    /// The stack that it looks at.
    pub(crate) fn stack(&self) -> StackId {
        match self {
            Self::Range { family, index, .. } | Self::Map { family, index, .. } => (*family, *index),
            Self::Pull { object, .. } | Self::Difference { object, .. } | Self::Merge { object, .. } => {
                (object.family, object.index)
            }
            Self::Told { delta, .. } => (delta.object.family, delta.object.index),
            Self::Verify(check) => (check.object.family, check.object.index),
        }
    }

    /// Who waits for it; nobody for a merge's read.
    pub(crate) fn waiter(&self) -> Option<Waiter> {
        match self {
            Self::Range { waiter, .. }
            | Self::Map { waiter, .. }
            | Self::Pull { waiter, .. }
            | Self::Difference { waiter, .. }
            | Self::Told { waiter, .. } => Some(*waiter),
            Self::Verify(check) => Some(check.waiter),
            Self::Merge { .. } => None,
        }
    }
}

impl ReadJob {
    /// Who waits for it.
    pub(crate) fn waiter(&self) -> Option<Waiter> {
        self.target.waiter()
    }
}

/// Fills in what does not come from the disk.
fn copy(plan: &Plan, buffer: &mut [u8]) {
    for at in &plan.zeros {
        buffer[at * BLOCK..(at + 1) * BLOCK].fill(0);
    }
    for (at, bytes) in &plan.copies {
        buffer[at * BLOCK..(at + 1) * BLOCK].copy_from_slice(bytes);
    }
}

/// Chunks that changed after a stamp.
fn newer(object: Option<&crate::object::Object>, above: Stamp) -> impl Iterator<Item = (u8, &Chunk)> {
    let chunks = object.into_iter().flat_map(|object| &object.chunks);
    // "All" includes what a merge brought in with a chunk that this layer never wrote.
    let wanted = move |chunk: &Chunk| chunk.stamp > above || above == Stamp::ZERO;
    chunks
        .filter(move |(_, chunk)| wanted(chunk))
        .map(|(number, chunk)| (*number, chunk))
}

/// The layers that exist here and that a chain sees, newest first.
pub(crate) fn visible<'a>(
    chain: &LayerChain,
    layers: &'a std::collections::BTreeMap<LayerId, crate::object::Object>,
) -> Vec<(LayerId, &'a crate::object::Object)> {
    let mut visible: Vec<_> = layers
        .iter()
        .filter_map(|(layer, object)| Some((chain.depth_of(*layer)?, *layer, object)))
        .collect();
    visible.sort_unstable_by_key(|(depth, ..)| *depth);
    visible
        .into_iter()
        .map(|(_, layer, object)| (layer, object))
        .collect()
}

/// For each of the wanted blocks of a chunk, the newest layer that holds it.
pub(crate) fn owners<'a>(
    visible: &[(LayerId, &'a crate::object::Object)],
    number: u8,
    wanted: u16,
    touched: &mut u64,
) -> [Option<(LayerId, &'a Chunk)>; 16] {
    let mut owners = [None; 16];
    let mut left = wanted;
    for (layer, object) in visible {
        if left == 0 {
            break;
        }
        let Some(chunk) = object.chunks.get(&number) else {
            continue;
        };
        *touched = chunk.touched.max(*touched);
        for block in bits(chunk.present & left) {
            owners[usize::from(block)] = Some((*layer, chunk));
        }
        left &= !chunk.present;
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a wrong constant would make every client refuse every zero block.
    #[test]
    fn the_checksum_of_a_zero_block_is_right() {
        assert_eq!(crc32c::crc32c(&[0; BLOCK]), ZERO_CHECKSUM);
    }
}

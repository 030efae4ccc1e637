//! Looking at a disk that nobody has open: what it holds, and whether all of it is in order.
//!
//! Nothing is written: not even the metadata tables' own housekeeping, which goes to memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::geometry::BLOCKS_PER_CHUNK;
use protocol::{CHUNK_SIZE, ObjectId, Stamp};

use crate::error::OpenError;
use crate::format::record::Slot;
use crate::medium::directory::Directory;
use crate::medium::{Buffer, File, Medium, MetaFile};
use crate::object::{BLOCK, Chunk, bits, data_offset};
use crate::options::{Engine, Format, Options};
use crate::recovery::{self, Recovered};
use crate::table::StackId;
use crate::tables::Tables;
use crate::usage::Taker;

/// A check goes on after this many problems only to count.
const PROBLEMS_MAX: usize = 100;

/// What a disk holds, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the superblock says.
    pub format: Format,
    /// Whole batches in the log that no checkpoint has covered.
    pub log_batches: u64,
    /// Bytes that these take.
    pub log_used_bytes: u64,
    /// Whether the log ends in a batch that was never completed, as after a power cut. No problem.
    pub log_torn_tail: bool,
    /// Objects, all layers counted.
    pub objects: u64,
    /// Chunks of these.
    pub chunks: u64,
    /// Blocks with bytes.
    pub blocks: u64,
    /// Blocks whose bytes were compared with their checksums; 0 if that was not asked for.
    pub blocks_verified: u64,
    /// Bytes that chunks take in the data file.
    pub used_bytes: u64,
    /// Objects in doubt, with their stamps.
    pub doubts: Vec<(ObjectId, Stamp)>,
    /// Volumes whose generation is known.
    pub volumes: u64,
    /// Placement groups whose interval is known.
    pub groups: u64,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
    /// How many more there are than were written down.
    pub further_problems: u64,
}

impl Report {
    fn problem(&mut self, what: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(what);
        } else {
            self.further_problems += 1;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8; 16]| {
            bytes
                .iter()
                .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
        };
        writeln!(f, "disk             {}", self.format.disk)?;
        writeln!(f, "cluster          {}", hex(&self.format.cluster))?;
        writeln!(f, "serial           {}", hex(&self.format.serial))?;
        writeln!(f, "log              {} bytes", self.format.log_bytes)?;
        let torn = if self.log_torn_tail {
            ", then a batch that was never completed"
        } else {
            ""
        };
        writeln!(
            f,
            "log in use       {} bytes, {} batches{torn}",
            self.log_used_bytes, self.log_batches
        )?;
        writeln!(f, "objects          {}", self.objects)?;
        writeln!(f, "chunks           {} in {} bytes", self.chunks, self.used_bytes)?;
        writeln!(
            f,
            "blocks           {}, {} verified",
            self.blocks, self.blocks_verified
        )?;
        writeln!(f, "in doubt         {} objects", self.doubts.len())?;
        writeln!(f, "generations      {} volumes", self.volumes)?;
        writeln!(f, "intervals        {} placement groups", self.groups)?;
        for problem in &self.problems {
            writeln!(f, "PROBLEM          {problem}")?;
        }
        if self.further_problems > 0 {
            writeln!(f, "PROBLEM          and {} more", self.further_problems)?;
        }
        Ok(())
    }
}

/// What a disk's directory holds. Reads the log and the tables, not the data.
pub fn inspect(directory: &Path) -> Result<Report, OpenError> {
    examine(
        Directory::open_read_only(directory)?
            .medium(Engine::Threads)?
            .as_ref(),
        false,
    )
}

/// Inspects a disk's directory, and verifies every block's checksum.
pub fn check(directory: &Path) -> Result<Report, OpenError> {
    examine(
        Directory::open_read_only(directory)?
            .medium(Engine::Threads)?
            .as_ref(),
        true,
    )
}

/// Checks the disk on a medium.
pub fn check_medium(medium: &dyn Medium) -> Result<Report, OpenError> {
    examine(medium, true)
}

fn examine(medium: &dyn Medium, verify: bool) -> Result<Report, OpenError> {
    let format = recovery::read_superblock(medium)?;
    let options = Options {
        capacity_bytes: u64::MAX,
        ..Options::default()
    };
    let scratch = Arc::new(Scratch::new(medium.meta()));
    let tables =
        Tables::open(scratch, options.memory.tables).map_err(|error| recovery::damaged_tables(&error))?;
    let (mut recovered, _) = recovery::replay(medium, format, tables, &options)?;
    let mut report = Report {
        format: recovered.format.clone(),
        log_batches: recovered.batches,
        log_used_bytes: recovered.log.used(),
        log_torn_tail: recovered.torn_tail,
        objects: 0,
        chunks: 0,
        blocks: 0,
        blocks_verified: 0,
        used_bytes: recovered.table.allocator.taken() * u64::from(CHUNK_SIZE),
        doubts: recovered
            .table
            .doubts
            .iter()
            .map(|(object, stamp)| (*object, *stamp))
            .collect(),
        volumes: recovered.table.generations.len() as u64,
        groups: recovered.table.intervals.len() as u64,
        problems: Vec::new(),
        further_problems: 0,
    };
    let mut slots = BTreeMap::new();
    let mut usage: BTreeMap<Taker, u64> = BTreeMap::new();
    for stack in stacks(&recovered)? {
        recovered
            .table
            .load(&recovered.tables, stack)
            .map_err(|error| recovery::damaged_tables(&error))?;
        for (layer, object) in recovered.table.layers(stack).into_iter().flatten() {
            let id = ObjectId {
                family: stack.0,
                index: stack.1,
                layer: *layer,
            };
            report.objects += 1;
            for (number, chunk) in &object.chunks {
                report.chunks += 1;
                if chunk.data() != 0 {
                    *usage.entry((id.family, id.layer)).or_default() += 1;
                }
                report.blocks += u64::from(chunk.data().count_ones());
                if let Some(slot) = chunk.slot
                    && let Some(other) = slots.insert(slot, id)
                {
                    report.problem(format!("slot {} belongs to {other} and to {id}", slot.0));
                }
                if verify {
                    verify_chunk(medium, id, *number, chunk, &mut report);
                }
            }
        }
    }
    compare_allocation(&recovered, &slots, &mut report);
    compare_usage(&recovered, usage, &mut report);
    Ok(report)
}

/// All stacks that the tables or the log know.
fn stacks(recovered: &Recovered) -> Result<BTreeSet<StackId>, OpenError> {
    let mut stacks: BTreeSet<StackId> = recovered
        .table
        .dirty
        .keys()
        .map(|object| (object.family, object.index))
        .collect();
    let mut orphans = BTreeSet::new();
    let visited = recovered.tables.visit_all(
        |object| {
            stacks.insert((object.family, object.index));
        },
        |object, _| {
            orphans.insert((object.family, object.index));
        },
    );
    visited.map_err(|error| recovery::damaged_tables(&error))?;
    match orphans.difference(&stacks).next() {
        None => Ok(stacks),
        Some((family, index)) => Err(OpenError::Damaged {
            structure: "metadata tables",
            detail: format!("chunks of {family}, index {index}, belong to no object"),
        }),
    }
}

fn verify_chunk(medium: &dyn Medium, id: ObjectId, number: u8, chunk: &Chunk, report: &mut Report) {
    let Some(slot) = chunk.slot else { return };
    let mut buffer = Buffer::with_capacity(BLOCK, CHUNK_SIZE as usize);
    buffer.resize(CHUNK_SIZE as usize, 0);
    if let Err(error) = medium.read_now(File::Data, data_offset(slot, 0), &mut buffer) {
        report.problem(format!("chunk {number} of {id} cannot be read: {error}"));
        return;
    }
    for block in bits(chunk.data()) {
        if chunk.overlay_of(block).is_some() {
            continue;
        }
        let at = usize::from(block) * BLOCK;
        report.blocks_verified += 1;
        if crc32c::crc32c(&buffer[at..at + BLOCK]) != chunk.checksums[usize::from(block)] {
            let block = u32::from(number) * BLOCKS_PER_CHUNK + u32::from(block);
            report.problem(format!(
                "block {block} of {id}, in slot {}, does not match its checksum",
                slot.0
            ));
        }
    }
}

fn compare_allocation(recovered: &Recovered, slots: &BTreeMap<Slot, ObjectId>, report: &mut Report) {
    let allocator = &recovered.table.allocator;
    for (slot, object) in slots {
        if !allocator.is_taken(*slot) {
            report.problem(format!("slot {} of {object} counts as free", slot.0));
        }
    }
    let known = slots.len() as u64 + allocator.freed() as u64;
    if allocator.taken() > known {
        report.problem(format!(
            "{} slots are taken by nothing",
            allocator.taken() - known
        ));
    }
}

fn compare_usage(recovered: &Recovered, mut counted: BTreeMap<Taker, u64>, report: &mut Report) {
    for ((family, layer), kept) in recovered.table.usage.all() {
        let there = counted.remove(&(family, layer)).unwrap_or(0);
        if there != kept {
            report.problem(format!(
                "{layer} of {family} counts as {kept} chunks and has {there}"
            ));
        }
    }
    for ((family, layer), there) in counted {
        report.problem(format!(
            "{layer} of {family} counts as nothing and has {there} chunks"
        ));
    }
}

/// A metadata file whose changes stay in memory.
#[derive(Debug)]
struct Scratch {
    below: Arc<dyn MetaFile>,
    above: Mutex<Above>,
}

#[derive(Debug, Default)]
struct Above {
    length: Option<u64>,
    /// In order: the later one counts.
    writes: Vec<(u64, Vec<u8>)>,
}

impl Scratch {
    fn new(below: Arc<dyn MetaFile>) -> Self {
        Self {
            below,
            above: Mutex::default(),
        }
    }

    fn above(&self) -> MutexGuard<'_, Above> {
        self.above.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MetaFile for Scratch {
    fn length(&self) -> io::Result<u64> {
        match self.above().length {
            Some(length) => Ok(length),
            None => self.below.length(),
        }
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.below.read(offset, buffer)?;
        let end = offset + buffer.len() as u64;
        for (at, bytes) in &self.above().writes {
            let (from, to) = (offset.max(*at), end.min(at + bytes.len() as u64));
            if from < to {
                let place = |base: u64, position: u64| usize::try_from(position - base).unwrap_or(0);
                buffer[place(offset, from)..place(offset, to)]
                    .copy_from_slice(&bytes[place(*at, from)..place(*at, to)]);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let length = self.length()?;
        let mut above = self.above();
        above.length = Some(length.max(offset + bytes.len() as u64));
        above.writes.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.above().length = Some(length);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

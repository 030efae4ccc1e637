//! Making a disk, and coming to the state in which it was left: superblock, tables, then the log.
//!
//! The log is read from where the last checkpoint left it to the first batch that is not whole. If
//! a later batch exists, what is not whole was damaged after it was written, and the disk is not
//! opened; else it was never completed, nobody was told that it was, and it is cut off.

use std::path::PathBuf;

use bytes::Bytes;

use crate::error::OpenError;
use crate::format::batch::{self, BatchHeader, UNIT};
use crate::format::record::{Place, Record, Slot};
use crate::format::superblock::{self, Unusable};
use crate::log::Log;
use crate::medium::{Buffer, File, Medium};
use crate::mutation::{self, Mutation};
use crate::object::{BLOCK, data_offset};
use crate::options::{Format, LOG_BYTES_MAX, LOG_BYTES_MIN, Options};
use crate::table::Table;
use crate::tables::{Tables, TablesError};

/// The log is read in parts of this length, in bytes, or of a batch that is longer.
const WINDOW_BYTES: usize = 1 << 20;

/// A disk's state as it was left.
pub(crate) struct Recovered {
    pub(crate) format: Format,
    pub(crate) tables: Tables,
    pub(crate) table: Table,
    pub(crate) log: Log,
    /// What the log held: for the inspection.
    pub(crate) batches: u64,
    /// Whether the log ended in a batch that was never completed.
    pub(crate) torn_tail: bool,
}

/// Refuses a format that no disk can have.
pub(crate) fn check_format(format: &Format) -> Result<(), OpenError> {
    let length = format.log_bytes;
    if !length.is_multiple_of(UNIT as u64) || !(LOG_BYTES_MIN..=LOG_BYTES_MAX).contains(&length) {
        return Err(OpenError::Invalid(format!(
            "the log's length is {length} bytes; it must be a multiple of {UNIT} from {LOG_BYTES_MIN} to {LOG_BYTES_MAX}"
        )));
    }
    Ok(())
}

/// Makes a disk on a medium whose log is zeros and whose other files are empty.
pub(crate) fn format(medium: &mut dyn Medium, format: &Format) -> Result<(), OpenError> {
    let tables = Tables::create(medium.meta()).map_err(|error| damaged_tables(&error))?;
    drop(tables);
    let bytes = superblock::encode(format);
    medium
        .write_now(File::Superblock, 0, &bytes)
        .map_err(OpenError::io("write the superblock"))
}

/// Reads the superblock; of two copies one that is sound is enough.
pub(crate) fn read_superblock(medium: &dyn Medium) -> Result<Format, OpenError> {
    let mut bytes = vec![0; superblock::LENGTH];
    medium
        .read_now(File::Superblock, 0, &mut bytes)
        .map_err(OpenError::io("read the superblock"))?;
    if bytes.iter().all(|byte| *byte == 0) {
        return Err(OpenError::NotADisk(PathBuf::from("this place")));
    }
    let copies = bytes
        .chunks(superblock::COPY)
        .map(superblock::decode)
        .collect::<Vec<_>>();
    let mut why = "it cannot be read";
    for copy in &copies {
        match copy {
            Ok(format) => {
                if copies.iter().any(Result::is_err) {
                    tracing::warn!(disk = %format.disk, "one copy of the superblock is damaged");
                }
                return Ok(format.clone());
            }
            Err(Unusable::Version(version)) => {
                return Err(OpenError::Version {
                    structure: "superblock",
                    version: *version,
                });
            }
            Err(Unusable::Damaged(reason)) => why = reason,
        }
    }
    Err(OpenError::Damaged {
        structure: "superblock",
        detail: format!("of both copies, {why}"),
    })
}

/// Opens what is there and makes it ready for writing.
pub(crate) fn recover(medium: &dyn Medium, options: &Options) -> Result<Recovered, OpenError> {
    let format = read_superblock(medium)?;
    let tables =
        Tables::open(medium.meta(), options.memory.tables).map_err(|error| damaged_tables(&error))?;
    let (recovered, torn) = replay(medium, format, tables, options)?;
    // A batch that was cut off must not come back at the next recovery, when more has changed.
    for offset in torn {
        let zeros = Bytes::from_owner(filled(UNIT));
        medium
            .write_now(File::Log, offset, &zeros)
            .map_err(OpenError::io("clear the log's end"))?;
    }
    if mutation::active(Mutation::NoFlushAtStart) {
        return Ok(recovered);
    }
    // What was read may still be in a volatile cache of the device: it is about to be relied upon.
    medium
        .flush_now(File::Log)
        .map_err(OpenError::io("flush the log"))?;
    medium
        .flush_now(File::Data)
        .map_err(OpenError::io("flush the data"))?;
    Ok(recovered)
}

/// Reads tables and log into memory, writing nothing. Also gives the log offsets of headers that
/// belong to batches that were never completed.
pub(crate) fn replay(
    medium: &dyn Medium,
    format: Format,
    tables: Tables,
    options: &Options,
) -> Result<(Recovered, Vec<u64>), OpenError> {
    let start = tables.log_start().map_err(|error| damaged_tables(&error))?;
    if start.offset > format.log_bytes || !start.offset.is_multiple_of(UNIT as u64) || start.sequence == 0 {
        return Err(damaged(
            "metadata tables",
            format!("the log cannot begin at {}", start.offset),
        ));
    }
    let slots = options.capacity_bytes / u64::from(protocol::CHUNK_SIZE);
    let table =
        Table::open(&tables, slots, options.memory.metadata).map_err(|error| damaged_tables(&error))?;
    let mut replay = Replay {
        reader: Reader {
            medium,
            length: format.log_bytes,
            serial: format.serial,
            window: Buffer::new(UNIT),
            at: 0,
        },
        tables,
        table,
        head: start.offset,
        sequence: start.sequence,
        torn: Vec::new(),
        sealed: false,
        batches: 0,
    };
    replay.run()?;
    replay.refuse_later_batches()?;
    let mut log = Log::new(
        format.serial,
        format.log_bytes,
        start.offset,
        replay.head,
        replay.sequence,
    );
    if replay.sealed {
        log.found_sealed();
    }
    let (torn_tail, batches) = (!replay.torn.is_empty(), replay.batches);
    let recovered = Recovered {
        format,
        tables: replay.tables,
        table: replay.table,
        log,
        batches,
        torn_tail,
    };
    Ok((recovered, replay.torn))
}

fn damaged(structure: &'static str, detail: impl Into<String>) -> OpenError {
    OpenError::Damaged {
        structure,
        detail: detail.into(),
    }
}

pub(crate) fn damaged_tables(error: &TablesError) -> OpenError {
    damaged("metadata tables", error.to_string())
}

fn filled(length: usize) -> Buffer {
    let mut buffer = Buffer::with_capacity(UNIT, length);
    buffer.resize(length, 0);
    buffer
}

/// Reads the log, a window at a time.
struct Reader<'a> {
    medium: &'a dyn Medium,
    length: u64,
    serial: [u8; 16],
    window: Buffer,
    at: u64,
}

impl Reader<'_> {
    /// A part of the log; shorter if the log ends before.
    fn read(&mut self, offset: u64, length: usize) -> Result<&[u8], OpenError> {
        let end = self.length.min(offset + length as u64);
        if offset < self.at || end > self.at + self.window.len() as u64 {
            // A log of one window is read once, though it is looked at from its head first, and then from its first byte.
            let short = self.length <= WINDOW_BYTES as u64;
            self.at = if short { 0 } else { offset };
            let wanted = self.length.min(self.at + length.max(WINDOW_BYTES) as u64) - self.at;
            self.window = filled(usize::try_from(wanted).unwrap_or(0));
            let read = self.medium.read_now(File::Log, self.at, &mut self.window);
            read.map_err(OpenError::io("read the log"))?;
        }
        let from = usize::try_from(offset - self.at).unwrap_or(0);
        let length = usize::try_from(end.saturating_sub(offset)).unwrap_or(0);
        Ok(&self.window[from..from + length])
    }

    /// A sound header of this disk that says it is here.
    fn header(&mut self, offset: u64) -> Result<Option<BatchHeader>, OpenError> {
        let (serial, length) = (self.serial, self.length);
        let header = BatchHeader::decode(self.read(offset, UNIT)?).ok();
        let ours = |header: &BatchHeader| {
            header.serial == serial && header.offset == offset && header.total_bytes() <= length - offset
        };
        Ok(header.filter(ours))
    }

    /// The records of a batch and the bytes of its inline pieces, if it is whole.
    fn batch(&mut self, header: &BatchHeader) -> Result<Option<Batch>, OpenError> {
        let total = usize::try_from(header.total_bytes()).unwrap_or(usize::MAX);
        let bytes = self.read(header.offset, total)?;
        let (head, data) = bytes.split_at(header.head_bytes().min(bytes.len()));
        let Ok(records) = batch::decode_records(header, head) else {
            return Ok(None);
        };
        let checksums = records.iter().flat_map(Record::inline_checksums);
        let whole = data.len() == header.blocks as usize * BLOCK
            && data
                .chunks(BLOCK)
                .zip(checksums)
                .all(|(block, checksum)| crc32c::crc32c(block) == checksum);
        if !whole && !mutation::active(Mutation::TornBatchTaken) {
            return Ok(None);
        }
        let mut copy = Buffer::with_capacity(UNIT, data.len());
        copy.extend_from_slice(data);
        Ok(Some(Batch {
            records,
            data: Bytes::from_owner(copy),
            header: *header,
        }))
    }
}

struct Batch {
    header: BatchHeader,
    records: Vec<Record>,
    data: Bytes,
}

struct Replay<'a> {
    reader: Reader<'a>,
    tables: Tables,
    table: Table,
    /// Where the next batch is expected, as a position.
    head: u64,
    /// Its number.
    sequence: u64,
    /// Offsets of sound headers of batches that are not whole.
    torn: Vec<u64>,
    /// Whether the newest batch is nothing but a seal.
    sealed: bool,
    batches: u64,
}

impl Replay<'_> {
    /// Applies batch after batch. One that wrote straight to slots was completed only if these
    /// bytes are there too; the existence of a next batch proves it, and then they are not looked
    /// at, for a checkpoint may have written over them since.
    fn run(&mut self) -> Result<(), OpenError> {
        let mut next = self.find(self.head, self.sequence)?;
        while let Some((position, header)) = next {
            let Some(batch) = self.reader.batch(&header)? else {
                self.torn.push(header.offset);
                return Ok(());
            };
            let end = position + header.total_bytes();
            next = self.find(end, self.sequence + 1)?;
            if next.is_none() && !self.direct_blocks_are_there(&batch)? {
                self.torn.push(header.offset);
                return Ok(());
            }
            self.apply(&batch)?;
            self.sealed = matches!(batch.records.as_slice(), [Record::Seal]);
            self.batches += 1;
            self.head = end;
            self.sequence += 1;
        }
        Ok(())
    }

    /// The header of a batch: at a position, or at the ring's start if it did not fit there.
    fn find(&mut self, position: u64, sequence: u64) -> Result<Option<(u64, BatchHeader)>, OpenError> {
        let length = self.reader.length;
        let place = position % length;
        for (position, offset) in [(position, place), (position + length - place, 0)] {
            if let Some(header) = self.reader.header(offset)?
                && header.sequence == sequence
            {
                return Ok(Some((position, header)));
            }
        }
        Ok(None)
    }

    fn direct_blocks_are_there(&self, batch: &Batch) -> Result<bool, OpenError> {
        let mut block = filled(BLOCK);
        for record in &batch.records {
            for (slot, number, checksum) in record.direct_blocks() {
                let offset = data_offset(slot, u8::try_from(number).unwrap_or(0));
                let read = self.reader.medium.read_now(File::Data, offset, &mut block);
                read.map_err(OpenError::io("read the data"))?;
                if crc32c::crc32c(&block) != checksum && !mutation::active(Mutation::TornSlotsTaken) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), OpenError> {
        let mut data = batch.data.clone();
        for record in &batch.records {
            let contradiction = |why: &str| damaged("log", format!("batch {}: {why}", batch.header.sequence));
            for slot in slots_of(record) {
                if !self.table.allocator.mark(slot) {
                    return Err(contradiction("it takes a slot that is taken"));
                }
            }
            if let Some(stack) = stack_of(record) {
                self.table
                    .load(&self.tables, stack)
                    .map_err(|error| damaged_tables(&error))?;
            }
            let inline: Vec<Bytes> = inline_lengths(record)
                .into_iter()
                .map(|blocks| data.split_to(blocks * BLOCK))
                .collect();
            let applied = self.table.apply(batch.header.sequence, record, &inline);
            applied.map_err(|error| contradiction(&error.to_string()))?;
        }
        Ok(())
    }

    /// A batch later than the log's end: what came before it was whole once.
    fn refuse_later_batches(&mut self) -> Result<(), OpenError> {
        let mut offset = 0;
        while offset < self.reader.length {
            if let Some(header) = self.reader.header(offset)?
                && header.sequence > self.sequence
                && !mutation::active(Mutation::LaterBatchesIgnored)
            {
                let (wanted, found) = (self.sequence, header.sequence);
                let detail =
                    format!("batch {wanted} is not whole, but batch {found} follows it at byte {offset}");
                return Err(damaged("log", detail));
            }
            offset += UNIT as u64;
        }
        Ok(())
    }
}

/// The slots that a record takes.
fn slots_of(record: &Record) -> Vec<Slot> {
    match record {
        Record::Write { pieces, .. } => {
            let mut slots = Vec::new();
            for piece in pieces {
                if let Place::Direct(first, _) = piece.place {
                    let count = u64::from(piece.range.count() / protocol::geometry::BLOCKS_PER_CHUNK);
                    slots.extend((first.0..first.0 + count).map(Slot));
                }
            }
            slots
        }
        Record::Level { chunks, .. } | Record::Replace { chunks, .. } => {
            chunks.iter().filter_map(|chunk| chunk.slot).collect()
        }
        _ => Vec::new(),
    }
}

/// The stack that a record changes.
fn stack_of(record: &Record) -> Option<crate::table::StackId> {
    match record {
        Record::Write { object, .. }
        | Record::Level { object, .. }
        | Record::Replace { object, .. }
        | Record::Adopt { object, .. }
        | Record::Drop(object) => Some((object.family, object.index)),
        Record::Merge { family, index, .. } => Some((*family, *index)),
        Record::Generation(..) | Record::Interval(..) | Record::Seal => None,
    }
}

/// How many blocks each inline piece of a record has.
fn inline_lengths(record: &Record) -> Vec<usize> {
    match record {
        Record::Write { pieces, .. } => pieces
            .iter()
            .filter(|piece| matches!(piece.place, Place::Inline(_)))
            .map(|piece| piece.range.count() as usize)
            .collect(),
        Record::Adopt { checksums, .. } => vec![checksums.len()],
        Record::Level { chunks, .. } => chunks
            .iter()
            .filter(|chunk| chunk.slot.is_none() && !chunk.checksums.is_empty())
            .map(|chunk| chunk.checksums.len())
            .collect(),
        _ => Vec::new(),
    }
}

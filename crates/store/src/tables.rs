//! The metadata tables: objects, chunks, allocation and the rest, in one embedded database.
//!
//! They hold the state as of the last checkpoint; the log holds what came after. Knows keys and
//! values as bytes only through `format::entry`, and nothing of when a checkpoint happens.

mod paged;

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::{FamilyId, Generation, Interval, LayerId, ObjectId, PgId, PoolId, Stamp, VolumeId};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::format::cursor::Malformed;
use crate::format::entry::{self, CHUNK_KEY, ChunkEntry, LogStart, OBJECT_KEY, ObjectEntry};
use crate::medium::MetaFile;
use crate::tables::paged::Paged;
use crate::usage::{Taker, UsageChange};

const OBJECTS: TableDefinition<'_, &[u8; OBJECT_KEY], &[u8]> = TableDefinition::new("objects");
const CHUNKS: TableDefinition<'_, &[u8; CHUNK_KEY], &[u8]> = TableDefinition::new("chunks");
const DOUBTS: TableDefinition<'_, &[u8; OBJECT_KEY], &[u8]> = TableDefinition::new("doubts");
const ALLOCATION: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("allocation");
const GENERATIONS: TableDefinition<'_, u64, u64> = TableDefinition::new("generations");
const INTERVALS: TableDefinition<'_, (u32, u32), u64> = TableDefinition::new("intervals");
const USAGE: TableDefinition<'_, (u64, u64), u64> = TableDefinition::new("usage");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
const LOG_START: &str = "log-start";
/// The log's start of the checkpoint that wrote [`USAGE`] last. If it is not [`LOG_START`], a program that does not know
/// of it has written checkpoints since.
const USAGE_START: &str = "usage-log-start";

/// Why the tables cannot be used. Pages are verified when read, so damage shows here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TablesError {
    #[error("the metadata tables cannot be used: {0}")]
    Database(Box<redb::Error>),
    #[error("the metadata tables are damaged: {0}")]
    Malformed(#[from] Malformed),
}

impl<E: Into<redb::Error>> From<E> for TablesError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

impl From<TablesError> for std::io::Error {
    fn from(error: TablesError) -> Self {
        Self::other(error)
    }
}

/// All that one checkpoint changes, in one transaction. `None` takes an entry away.
#[derive(Debug, Default)]
pub(crate) struct Commit {
    pub(crate) objects: Vec<(ObjectId, Option<ObjectEntry>)>,
    pub(crate) chunks: Vec<(ObjectId, u8, Option<ChunkEntry>)>,
    pub(crate) doubts: Vec<(ObjectId, Option<Stamp>)>,
    pub(crate) allocation: Vec<(u32, Vec<u8>)>,
    pub(crate) generations: Vec<(VolumeId, Generation)>,
    pub(crate) intervals: Vec<(PgId, Interval)>,
    pub(crate) usage: UsageChange,
    pub(crate) log_start: Option<LogStart>,
}

/// One layer's object as the tables have it.
pub(crate) struct StoredObject {
    pub(crate) layer: LayerId,
    pub(crate) entry: ObjectEntry,
    pub(crate) chunks: Vec<(u8, ChunkEntry)>,
}

/// The open tables. Clones share them, so that a commit can go to another thread.
#[derive(Clone)]
pub(crate) struct Tables(Arc<Database>);

impl Tables {
    /// Makes empty tables; the log begins at its first byte with batch 1.
    pub(crate) fn create(file: Arc<dyn MetaFile>) -> Result<Self, TablesError> {
        file.set_length(0).map_err(redb::Error::from)?;
        let tables = Self::open(file, 1 << 20)?;
        let commit = Commit {
            log_start: Some(LogStart {
                offset: 0,
                sequence: 1,
            }),
            ..Commit::default()
        };
        tables.commit(&commit)?;
        Ok(tables)
    }

    /// Opens tables, with so many bytes of cache for their pages.
    pub(crate) fn open(file: Arc<dyn MetaFile>, cache_bytes: u64) -> Result<Self, TablesError> {
        let mut builder = Database::builder();
        builder.set_cache_size(usize::try_from(cache_bytes).unwrap_or(usize::MAX));
        Ok(Self(Arc::new(builder.create_with_backend(Paged(file))?)))
    }

    /// Applies a commit durably.
    pub(crate) fn commit(&self, commit: &Commit) -> Result<(), TablesError> {
        let mut transaction = self.0.begin_write()?;
        // Two flushes instead of one, but a start after a crash need not read all the tables.
        transaction.set_quick_repair(true);
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            for (object, value) in &commit.objects {
                let key = entry::object_key(*object);
                match value {
                    Some(value) => drop(objects.insert(&key, value.encode().as_slice())?),
                    None => drop(objects.remove(&key)?),
                }
            }
            let mut chunks = transaction.open_table(CHUNKS)?;
            for (object, chunk, value) in &commit.chunks {
                let key = entry::chunk_key(*object, *chunk);
                match value {
                    Some(value) => drop(chunks.insert(&key, value.encode().as_slice())?),
                    None => drop(chunks.remove(&key)?),
                }
            }
            let mut doubts = transaction.open_table(DOUBTS)?;
            for (object, stamp) in &commit.doubts {
                let key = entry::object_key(*object);
                match stamp {
                    Some(stamp) => drop(doubts.insert(&key, entry::encode_stamp(*stamp).as_slice())?),
                    None => drop(doubts.remove(&key)?),
                }
            }
            let mut allocation = transaction.open_table(ALLOCATION)?;
            for (page, bits) in &commit.allocation {
                allocation.insert(*page, bits.as_slice())?;
            }
            let mut generations = transaction.open_table(GENERATIONS)?;
            for (volume, generation) in &commit.generations {
                generations.insert(volume.0, generation.0)?;
            }
            let mut intervals = transaction.open_table(INTERVALS)?;
            for (pg, interval) in &commit.intervals {
                intervals.insert((pg.pool.0, pg.number), interval.0)?;
            }
            if commit.usage.replaces_all {
                transaction.delete_table(USAGE)?;
            }
            let mut usage = transaction.open_table(USAGE)?;
            for ((family, layer), chunks) in &commit.usage.chunks {
                match chunks {
                    0 => drop(usage.remove((family.0, layer.0))?),
                    _ => drop(usage.insert((family.0, layer.0), chunks)?),
                }
            }
            let mut state = transaction.open_table(STATE)?;
            if let Some(start) = commit.log_start {
                state.insert(LOG_START, start.encode().as_slice())?;
                state.insert(USAGE_START, start.encode().as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// All layers' objects of one 4 MiB of a family's address space, by layer.
    pub(crate) fn load(&self, family: FamilyId, index: u32) -> Result<Vec<StoredObject>, TablesError> {
        let transaction = self.0.begin_read()?;
        let first = ObjectId {
            family,
            index,
            layer: LayerId(0),
        };
        let last = ObjectId {
            layer: LayerId(u64::MAX),
            ..first
        };
        let mut found = Vec::new();
        let objects = transaction.open_table(OBJECTS)?;
        for item in
            objects.range::<&[u8; OBJECT_KEY]>(&entry::object_key(first)..=&entry::object_key(last))?
        {
            let (key, value) = item?;
            let object = entry::parse_object_key(key.value())?;
            let entry = ObjectEntry::decode(value.value())?;
            found.push(StoredObject {
                layer: object.layer,
                entry,
                chunks: Vec::new(),
            });
        }
        if found.is_empty() {
            return Ok(found);
        }
        let chunks = transaction.open_table(CHUNKS)?;
        let mut place = 0;
        for item in chunks
            .range::<&[u8; CHUNK_KEY]>(&entry::chunk_key(first, 0)..=&entry::chunk_key(last, u8::MAX))?
        {
            let (key, value) = item?;
            let (object, chunk) = entry::parse_chunk_key(key.value())?;
            while found.get(place).is_some_and(|stored| stored.layer < object.layer) {
                place += 1;
            }
            match found.get_mut(place) {
                Some(stored) if stored.layer == object.layer => {
                    stored.chunks.push((chunk, ChunkEntry::decode(value.value())?));
                }
                _ => return Err(Malformed("a chunk belongs to no object").into()),
            }
        }
        Ok(found)
    }

    /// Objects of a family with an index from `from_index`, ascending, until `visit` says stop.
    pub(crate) fn visit_objects(
        &self,
        family: FamilyId,
        from_index: u32,
        mut visit: impl FnMut(ObjectId) -> bool,
    ) -> Result<(), TablesError> {
        let transaction = self.0.begin_read()?;
        let objects = transaction.open_table(OBJECTS)?;
        let first = ObjectId {
            family,
            index: from_index,
            layer: LayerId(0),
        };
        let last = ObjectId {
            family,
            index: u32::MAX,
            layer: LayerId(u64::MAX),
        };
        for item in
            objects.range::<&[u8; OBJECT_KEY]>(&entry::object_key(first)..=&entry::object_key(last))?
        {
            if !visit(entry::parse_object_key(item?.0.value())?) {
                break;
            }
        }
        Ok(())
    }

    /// Objects from one on, ascending, until `visit` says stop.
    pub(crate) fn visit_from(
        &self,
        first: ObjectId,
        mut visit: impl FnMut(ObjectId) -> bool,
    ) -> Result<(), TablesError> {
        let transaction = self.0.begin_read()?;
        let objects = transaction.open_table(OBJECTS)?;
        for item in objects.range::<&[u8; OBJECT_KEY]>(&entry::object_key(first)..)? {
            if !visit(entry::parse_object_key(item?.0.value())?) {
                break;
            }
        }
        Ok(())
    }

    /// Every object and every chunk, ascending: for the check.
    pub(crate) fn visit_all(
        &self,
        mut object: impl FnMut(ObjectId),
        mut chunk: impl FnMut(ObjectId, u8),
    ) -> Result<(), TablesError> {
        let transaction = self.0.begin_read()?;
        for item in transaction.open_table(OBJECTS)?.iter()? {
            object(entry::parse_object_key(item?.0.value())?);
        }
        for item in transaction.open_table(CHUNKS)?.iter()? {
            let (id, number) = entry::parse_chunk_key(item?.0.value())?;
            chunk(id, number);
        }
        Ok(())
    }

    /// Where the log begins.
    pub(crate) fn log_start(&self) -> Result<LogStart, TablesError> {
        let transaction = self.0.begin_read()?;
        let state = transaction.open_table(STATE)?;
        let value = state
            .get(LOG_START)?
            .ok_or(Malformed("they do not say where the log begins"))?;
        Ok(LogStart::decode(value.value())?)
    }

    /// The objects in doubt, ascending.
    pub(crate) fn doubts(&self) -> Result<Vec<(ObjectId, Stamp)>, TablesError> {
        let transaction = self.0.begin_read()?;
        let table = transaction.open_table(DOUBTS)?;
        let entries = table.iter()?.map(|item| {
            let (key, value) = item?;
            Ok((
                entry::parse_object_key(key.value())?,
                entry::decode_stamp(value.value())?,
            ))
        });
        entries.collect()
    }

    /// The highest generations that were seen.
    pub(crate) fn generations(&self) -> Result<Vec<(VolumeId, Generation)>, TablesError> {
        let transaction = self.0.begin_read()?;
        let table = transaction.open_table(GENERATIONS)?;
        let entries = table.iter()?.map(|item| {
            let (key, value) = item?;
            Ok((VolumeId(key.value()), Generation(value.value())))
        });
        entries.collect()
    }

    /// The highest intervals that were seen.
    pub(crate) fn intervals(&self) -> Result<Vec<(PgId, Interval)>, TablesError> {
        let transaction = self.0.begin_read()?;
        let table = transaction.open_table(INTERVALS)?;
        let entries = table.iter()?.map(|item| {
            let (key, value) = item?;
            let (pool, number) = key.value();
            Ok((
                PgId {
                    pool: PoolId(pool),
                    number,
                },
                Interval(value.value()),
            ))
        });
        entries.collect()
    }

    /// How many chunks with bytes each layer has; nothing if that is not known as of the last checkpoint.
    pub(crate) fn usage(&self) -> Result<Option<BTreeMap<Taker, u64>>, TablesError> {
        let transaction = self.0.begin_read()?;
        let state = transaction.open_table(STATE)?;
        let (of_log, of_usage) = (state.get(LOG_START)?, state.get(USAGE_START)?);
        let (Some(of_log), Some(of_usage)) = (of_log, of_usage) else {
            return Ok(None);
        };
        if of_log.value() != of_usage.value() {
            return Ok(None);
        }
        let table = transaction.open_table(USAGE)?;
        let entries = table.iter()?.map(|item| {
            let (key, chunks) = item?;
            let (family, layer) = key.value();
            Ok(((FamilyId(family), LayerId(layer)), chunks.value()))
        });
        entries.collect::<Result<_, TablesError>>().map(Some)
    }

    /// Counts the chunks with bytes of each layer, by reading all entries.
    pub(crate) fn count_chunks(&self) -> Result<BTreeMap<Taker, u64>, TablesError> {
        let transaction = self.0.begin_read()?;
        let mut counts = BTreeMap::new();
        for item in transaction.open_table(CHUNKS)?.iter()? {
            let (key, value) = item?;
            let (object, _) = entry::parse_chunk_key(key.value())?;
            let chunk = ChunkEntry::decode(value.value())?;
            if chunk.present & !chunk.zero != 0 {
                *counts.entry((object.family, object.layer)).or_default() += 1;
            }
        }
        Ok(counts)
    }

    /// The pages of the allocation bitmap.
    pub(crate) fn allocation(&self) -> Result<Vec<(u32, Vec<u8>)>, TablesError> {
        let transaction = self.0.begin_read()?;
        let table = transaction.open_table(ALLOCATION)?;
        let entries = table.iter()?.map(|item| {
            let (key, value) = item?;
            Ok((key.value(), value.value().to_vec()))
        });
        entries.collect()
    }
}

#[cfg(test)]
mod tests {
    //! The sums are believed only if whoever wrote last keeps them.
    use super::*;
    use crate::format::record::Slot;
    use crate::medium::Medium;
    use crate::medium::memory::Disk;

    fn commit(chunks: Vec<(ObjectId, u8, Option<ChunkEntry>)>, usage: UsageChange, sequence: u64) -> Commit {
        Commit {
            chunks,
            usage,
            log_start: Some(LogStart { offset: 0, sequence }),
            ..Commit::default()
        }
    }

    #[test]
    fn sums_from_before_a_program_that_does_not_keep_them_are_counted_again() {
        let tables = Tables::create(Disk::default().medium().meta()).unwrap();
        let object = ObjectId {
            family: FamilyId(1),
            index: 0,
            layer: LayerId(2),
        };
        let chunk = ChunkEntry {
            stamp: Stamp::ZERO,
            present: 3,
            zero: 1,
            slot: Some(Slot(0)),
            checksums: vec![0],
        };
        let taker = (object.family, object.layer);
        let change = UsageChange {
            replaces_all: false,
            chunks: vec![(taker, 1)],
        };
        let chunks = vec![(object, 0, Some(chunk.clone()))];
        tables.commit(&commit(chunks, change, 2)).unwrap();
        let one = BTreeMap::from([(taker, 1)]);
        assert_eq!(tables.usage().unwrap(), Some(one));
        // The older program writes another chunk and moves the log's start.
        let transaction = tables.0.begin_write().unwrap();
        {
            let mut state = transaction.open_table(STATE).unwrap();
            let start = LogStart {
                offset: 0,
                sequence: 9,
            };
            state.insert(LOG_START, start.encode().as_slice()).unwrap();
            let mut chunks = transaction.open_table(CHUNKS).unwrap();
            let key = entry::chunk_key(object, 1);
            chunks.insert(&key, chunk.encode().as_slice()).unwrap();
        }
        transaction.commit().unwrap();
        assert_eq!(tables.usage().unwrap(), None);
        let mut usage = crate::usage::Usage::open(&tables).unwrap();
        assert_eq!(usage.of(object.family), [(object.layer, 2 * 65536)]);
        let whole = usage.capture();
        assert!(whole.replaces_all);
        tables.commit(&commit(Vec::new(), whole, 10)).unwrap();
        assert_eq!(tables.usage().unwrap(), Some(BTreeMap::from([(taker, 2)])));
    }
}

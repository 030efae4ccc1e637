//! How the embedded store lies in its file: three redb tables, values laid out by hand.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `entries` | the key | created u64, modified u64, lease u64 (0: none), all little endian; then the value |
//! | `leases` | lease u64 | time to live in milliseconds u64 |
//! | `numbers` | `format`, `revision`, `next_lease` | u64 |
//!
//! redb keeps its own checksums and makes each commit all or nothing.

use std::path::Path;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use super::OpenError;
use crate::engine::{Effect, Engine};
use crate::store::{Entry, Event, LeaseId, Revision};

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

/// The layout of the tables above.
const FORMAT: u64 = 1;
/// Lease numbers start here, so that 0 can mean none.
const FIRST_LEASE: u64 = 1;
/// Bytes before an entry's value.
const ENTRY_HEADER: usize = 24;
/// Memory that redb may keep pages in. The store is small; the default of 1 GiB is not.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// The database.
pub(super) struct Records(Database);

impl Records {
    /// Opens or makes the file, and reads everything in it.
    pub(super) fn open(path: &Path) -> Result<(Self, Engine), OpenError> {
        let name = path.display().to_string();
        let database = redb::Builder::new().set_cache_size(CACHE_BYTES).create(path);
        match database {
            Ok(database) => Self(database).load(&name),
            Err(DatabaseError::DatabaseAlreadyOpen) => Err(OpenError::InUse { path: name }),
            Err(error) => Err(OpenError::Storage {
                path: name,
                source: error.into(),
            }),
        }
    }

    /// A database that lives in memory.
    pub(super) fn in_memory() -> Result<(Self, Engine), OpenError> {
        Self::on(redb::backends::InMemoryBackend::new(), "in memory")
    }

    /// A database on any backend.
    pub(super) fn on(backend: impl StorageBackend, name: &str) -> Result<(Self, Engine), OpenError> {
        let database = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend);
        let database = database.map_err(|error| OpenError::Storage {
            path: name.to_owned(),
            source: error.into(),
        })?;
        Self(database).load(name)
    }

    fn load(self, path: &str) -> Result<(Self, Engine), OpenError> {
        let storage = |source: redb::Error| OpenError::Storage {
            path: path.to_owned(),
            source,
        };
        self.prepare().map_err(storage)?;
        let (format, engine) = self.read().map_err(storage)?;
        if format > FORMAT {
            return Err(OpenError::Newer {
                path: path.to_owned(),
                found: format,
                known: FORMAT,
            });
        }
        Ok((self, engine))
    }

    /// Makes the tables of a new file.
    fn prepare(&self) -> Result<(), redb::Error> {
        let transaction = self.0.begin_write()?;
        {
            transaction.open_table(ENTRIES)?;
            transaction.open_table(LEASES)?;
            let mut numbers = transaction.open_table(NUMBERS)?;
            let is_new = numbers.get("format")?.is_none();
            if is_new {
                numbers.insert("format", FORMAT)?;
                numbers.insert("revision", 0)?;
                numbers.insert("next_lease", FIRST_LEASE)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn read(&self) -> Result<(u64, Engine), redb::Error> {
        let transaction = self.0.begin_read()?;
        let numbers = transaction.open_table(NUMBERS)?;
        let number = |name: &str| Ok::<u64, redb::Error>(numbers.get(name)?.map_or(0, |guard| guard.value()));
        let format = number("format")?;
        let mut leases = Vec::new();
        for row in transaction.open_table(LEASES)?.iter()? {
            let (id, time_to_live_ms) = row?;
            leases.push((LeaseId(id.value()), time_to_live_ms.value()));
        }
        let mut entries = Vec::new();
        for row in transaction.open_table(ENTRIES)?.iter()? {
            let (key, value) = row?;
            let entry = parse_entry(key.value(), value.value());
            entries.push(
                entry.ok_or_else(|| {
                    redb::Error::Corrupted(format!("the entry {} is too short", key.value()))
                })?,
            );
        }
        let engine = Engine::restore(
            Revision(number("revision")?),
            entries,
            leases,
            number("next_lease")?.max(FIRST_LEASE),
        );
        Ok((format, engine))
    }

    /// Makes effects durable in one commit.
    pub(super) fn store(
        &self,
        effects: &[Effect],
        granted: &[(LeaseId, u64)],
        revision: Revision,
        next_lease: u64,
    ) -> Result<(), redb::Error> {
        let transaction = self.0.begin_write()?;
        {
            let mut entries = transaction.open_table(ENTRIES)?;
            let mut leases = transaction.open_table(LEASES)?;
            let mut numbers = transaction.open_table(NUMBERS)?;
            for (lease, time_to_live_ms) in granted {
                leases.insert(lease.0, time_to_live_ms)?;
            }
            for effect in effects {
                for event in &effect.batch.events {
                    match event {
                        Event::Put(entry) => {
                            entries.insert(entry.key.as_str(), entry_bytes(entry).as_slice())?;
                        }
                        Event::Deleted(key) => {
                            entries.remove(key.as_str())?;
                        }
                    }
                }
                if let Some(lease) = effect.lease_gone {
                    leases.remove(lease.0)?;
                }
            }
            numbers.insert("revision", revision.0)?;
            numbers.insert("next_lease", next_lease)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

fn entry_bytes(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ENTRY_HEADER + entry.value.len());
    for number in [
        entry.created.0,
        entry.modified.0,
        entry.lease.map_or(0, |lease| lease.0),
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&entry.value);
    bytes
}

fn parse_entry(key: &str, bytes: &[u8]) -> Option<Entry> {
    let (created, rest) = bytes.split_first_chunk()?;
    let (modified, rest) = rest.split_first_chunk()?;
    let (lease, value) = rest.split_first_chunk()?;
    let lease = u64::from_le_bytes(*lease);
    Some(Entry {
        key: key.to_owned(),
        value: value.into(),
        created: Revision(u64::from_le_bytes(*created)),
        modified: Revision(u64::from_le_bytes(*modified)),
        lease: (lease != 0).then_some(LeaseId(lease)),
    })
}

#[cfg(test)]
mod tests {
    //! The layout of an entry is a stored format.
    use super::*;

    #[test]
    fn an_entry_keeps_its_golden_bytes_and_a_short_one_is_refused() {
        let entry = Entry {
            key: "k".to_owned(),
            value: Arc::from(*b"v"),
            created: Revision(1),
            modified: Revision(0x0203),
            lease: Some(LeaseId(4)),
        };
        let bytes = entry_bytes(&entry);
        assert_eq!(
            bytes,
            [
                1, 0, 0, 0, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, b'v'
            ]
        );
        assert_eq!(parse_entry("k", &bytes), Some(entry));
        assert_eq!(parse_entry("k", &bytes[..23]), None);
    }

    use std::sync::Arc;
}

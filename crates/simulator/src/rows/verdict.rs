//! The end of a small world: everything is read once more, and the shards of each row are compared with its parity.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::geometry::BLOCKS_PER_CHUNK;
use protocol::rows::{Row, RowPlace, Rows, rows_index};
use protocol::storage::{ChunkState, ObjectState, StorageReply, StorageRequest};
use protocol::{BLOCK_SIZE, DiskId, LayerChain, ObjectId, Stamp};
use replication::owner::{Event, IoId, Operation};
use replication::rows::layout::Layout;

use super::disks::Disk;
use super::map::FAMILY;
use super::{OBJECT_BLOCKS, OBJECTS, RowWorld, Submitted, What};

/// Chunks that may be left of it, on all disks together.
const LEFT_MAX: usize = 4;
/// Steps in which space must be given back.
const SPACE_MAX: u64 = 100_000;

impl RowWorld {
    pub(super) fn judge(&mut self) -> Result<(), String> {
        self.read_everything()?;
        self.await_encoding()?;
        self.await_space()?;
        self.read_everything()?;
        for index in 0..u32::try_from(OBJECTS).unwrap_or(0) {
            for row in 0..Rows::new(self.profile).count() {
                self.judge_row(index, Row(row))?;
            }
        }
        Ok(())
    }

    fn read_everything(&mut self) -> Result<(), String> {
        let count = usize::try_from(OBJECTS * OBJECT_BLOCKS).unwrap_or(0);
        let floors = self.image.floors(0, count);
        self.next_operation += 1;
        let id = IoId(self.next_operation);
        let what = What::Read(floors);
        self.submitted.insert(
            id,
            Submitted {
                first: 0,
                count,
                what,
            },
        );
        let operation = Operation::Read {
            offset: 0,
            length: count as u64 * u64::from(BLOCK_SIZE),
        };
        self.feed(Event::Submit { id, operation })?;
        self.come_to_rest()
    }

    /// What lies in fronts and is at rest becomes rows, where that takes less room.
    fn await_encoding(&mut self) -> Result<(), String> {
        for _ in 0..SPACE_MAX {
            if self.wasteful().is_empty() {
                return Ok(());
            }
            self.step(false)?;
        }
        Err(format!("fronts are not encoded: {:?}", self.wasteful()))
    }

    /// The rows that would take less room if they were written whole, by index, as the first disk in sync shows them that
    /// has fronts.
    fn wasteful(&self) -> Vec<(u32, Row)> {
        let fronts = self.profile.fronts();
        let teller = |id: &DiskId| fronts.contains(&self.cluster.shard_of(*id));
        let Some(id) = self.cluster.in_sync().into_iter().find(teller) else {
            return Vec::new();
        };
        let (shard, disk) = (self.cluster.shard_of(id), self.disks.get(&id));
        let indexes = 0..u32::try_from(OBJECTS).unwrap_or(0);
        let of_range = |index: u32| {
            let column = |index| disk.map(|disk| states_of(disk, index)).unwrap_or_default();
            let (front, rows) = (column(index), column(rows_index(index)));
            let layout = Layout::resolve(self.profile, self.cluster.head(), &front, (shard, &rows));
            layout.rows_that_pay().into_iter().map(move |row| (index, row))
        };
        indexes.flat_map(of_range).collect()
    }

    /// What no version needs is given back, and so is what a front has that is older than its row. An owner that dies
    /// in the middle of that leaves a chunk where it is (`docs/decisions/0053-rows-of-owners.md`).
    fn await_space(&mut self) -> Result<(), String> {
        for _ in 0..SPACE_MAX {
            if self.surplus().len() <= LEFT_MAX {
                return Ok(());
            }
            self.step(false)?;
        }
        Err(format!("space is not given back: {:?}", self.surplus()))
    }

    /// The chunks on disks in sync that nobody needs.
    fn surplus(&self) -> Vec<(DiskId, ObjectId, u8)> {
        let mut surplus = Vec::new();
        for id in self.cluster.in_sync() {
            let Some(disk) = self.disks.get(&id) else { continue };
            for index in 0..u32::try_from(OBJECTS).unwrap_or(0) {
                let rows = chunks_of(disk, rows_index(index));
                let newest = |row: u32| {
                    let of = rows.iter().filter(|(_, chunk)| u32::from(chunk.chunk) / 2 == row);
                    of.map(|(_, chunk)| chunk.stamp).max()
                };
                let data = u32::from(self.profile.data());
                let front = chunks_of(disk, index);
                let old = |per_row: u32| {
                    move |(_, chunk): &&(ObjectId, ChunkState)| {
                        Some(chunk.stamp) < newest(u32::from(chunk.chunk) / per_row)
                    }
                };
                let found = rows.iter().filter(old(2)).chain(front.iter().filter(old(data)));
                surplus.extend(found.map(|(object, chunk)| (id, *object, chunk.chunk)));
            }
        }
        surplus
    }

    /// The newest version of a row on each disk in sync, and what it holds.
    fn judge_row(&self, index: u32, row: Row) -> Result<(), String> {
        let object = ObjectId {
            family: FAMILY,
            index: rows_index(index),
            layer: self.cluster.head(),
        };
        let mut shards: BTreeMap<u8, (Stamp, RowPlace, Bytes)> = BTreeMap::new();
        for disk in self.cluster.in_sync() {
            if let Some(newest) = self.newest(disk, object, row)? {
                shards.insert(self.cluster.shard_of(disk), newest);
            }
        }
        let Some((stamp, place, _)) = shards.values().max_by_key(|(stamp, ..)| *stamp).cloned() else {
            return Ok(());
        };
        let (all, have) = (self.cluster.in_sync().len(), shards.len());
        let same = shards
            .values()
            .all(|(other, at, _)| *other == stamp && *at == place);
        if have != all || !same {
            let versions: Vec<_> = shards
                .iter()
                .map(|(shard, (stamp, at, _))| (shard, stamp, at))
                .collect();
            let row = row.0;
            return Err(format!(
                "row {row} of {index} is not the same on {all} disks: {versions:?}"
            ));
        }
        let width = self.profile.width();
        let given: Vec<Option<Vec<u8>>> = (0..width)
            .map(|shard| shards.get(&shard).map(|(.., bytes)| bytes.to_vec()))
            .collect();
        let mut rebuilt: Vec<Option<Vec<u8>>> = given.clone();
        // The data alone gives the parity, if it is there.
        for shard in usize::from(self.profile.data())..usize::from(width) {
            let enough = rebuilt.iter().flatten().count() > usize::from(self.profile.data());
            if enough && let Some(shard) = rebuilt.get_mut(shard) {
                *shard = None;
            }
        }
        self.code
            .rebuild(&mut rebuilt)
            .map_err(|error| error.to_string())?;
        let agrees = given
            .iter()
            .zip(&rebuilt)
            .all(|(given, rebuilt)| given.is_none() || given == rebuilt);
        if agrees {
            Ok(())
        } else {
            Err(format!(
                "the parity of row {} of {index} is not that of its data",
                row.0
            ))
        }
    }

    fn newest(
        &self,
        disk: DiskId,
        object: ObjectId,
        row: Row,
    ) -> Result<Option<(Stamp, RowPlace, Bytes)>, String> {
        let Some(disk) = self.disks.get(&disk) else {
            return Ok(None);
        };
        let column = StorageRequest::Column {
            family: object.family,
            index: object.index,
        };
        let Ok(StorageReply::Listed { objects, .. }) = disk.store.look(&column) else {
            return Err("a store does not tell what it has".to_owned());
        };
        let mut newest: Option<(Stamp, RowPlace)> = None;
        for chunk in objects
            .iter()
            .flat_map(|state| &state.chunks)
            .filter(|chunk| chunk.present != 0)
        {
            let (number, place) = RowPlace::of_chunk(u32::from(chunk.chunk));
            if number == row.0 && newest.is_none_or(|(stamp, _)| stamp < chunk.stamp) {
                newest = Some((chunk.stamp, place));
            }
        }
        let Some((stamp, place)) = newest else {
            return Ok(None);
        };
        let Some(range) = place.blocks(row.0) else {
            return Ok(None);
        };
        let read = StorageRequest::Read {
            chain: LayerChain::new(vec![object.layer]),
            family: object.family,
            index: object.index,
            ranges: range.into(),
        };
        match disk.store.look(&read) {
            Ok(StorageReply::Data { bytes, .. }) if range.count() == BLOCKS_PER_CHUNK => {
                Ok(Some((stamp, place, bytes)))
            }
            other => Err(format!("a shard cannot be read: {other:?}")),
        }
    }
}

/// What a disk has of an object, layer by layer.
fn states_of(disk: &Disk, index: u32) -> Vec<ObjectState> {
    let column = StorageRequest::Column {
        family: FAMILY,
        index,
    };
    match disk.store.look(&column) {
        Ok(StorageReply::Listed { objects, .. }) => objects,
        _ => Vec::new(),
    }
}

/// The same, chunk by chunk.
fn chunks_of(disk: &Disk, index: u32) -> Vec<(ObjectId, ChunkState)> {
    let chunks = states_of(disk, index).into_iter().flat_map(|state| {
        let object = state.object;
        state.chunks.into_iter().map(move |chunk| (object, chunk))
    });
    chunks.filter(|(_, chunk)| chunk.present != 0).collect()
}

//! What there is on the disk, without bytes: for a disk that comes back, and for its source.

use std::collections::BTreeMap;

use protocol::storage::{ObjectState, StorageError, StorageReply};
use protocol::{LayerId, ObjectId};

use crate::object::Object;
use crate::store::Store;
use crate::table::StackId;

/// Objects in one answer: with 64 chunks each they fit the body of a frame.
const LIST_MAX: usize = 128;

impl Store {
    /// Up to `limit` objects after one.
    pub(crate) fn list(
        &mut self,
        after: Option<ObjectId>,
        limit: usize,
    ) -> Result<StorageReply, StorageError> {
        let limit = limit.min(LIST_MAX);
        let ids = self.objects_after(after, limit + 1)?;
        let more = ids.len() > limit;
        let mut objects = Vec::with_capacity(ids.len());
        for id in ids.into_iter().take(limit) {
            self.load((id.family, id.index))?;
            objects.extend(self.table.object(id).map(|object| state(id, object)));
        }
        Ok(StorageReply::Listed { objects, more })
    }

    /// All layers' objects of one range.
    pub(crate) fn column(&mut self, (family, index): StackId) -> Result<StorageReply, StorageError> {
        self.load((family, index))?;
        let id = |layer: &LayerId| ObjectId {
            family,
            index,
            layer: *layer,
        };
        let layers = self.table.layers((family, index)).into_iter().flatten();
        let objects = layers.map(|(layer, object)| state(id(layer), object)).collect();
        Ok(StorageReply::Listed { objects, more: false })
    }

    fn objects_after(
        &mut self,
        after: Option<ObjectId>,
        limit: usize,
    ) -> Result<Vec<ObjectId>, StorageError> {
        let follows = |id: &ObjectId| after.is_none_or(|after| *id > after);
        // What differs from the tables, or is being written into them.
        let mut here: BTreeMap<ObjectId, bool> = BTreeMap::new();
        for id in self.table.dirty.keys().copied().filter(follows) {
            here.insert(id, self.table.object(id).is_some());
        }
        for stack in &self.table.committing {
            for layer in self
                .table
                .layers(*stack)
                .into_iter()
                .flatten()
                .map(|(layer, _)| *layer)
            {
                let (family, index) = *stack;
                let id = ObjectId { family, index, layer };
                if follows(&id) {
                    here.insert(id, true);
                }
            }
        }
        let first = after.unwrap_or_default();
        let mut found: Vec<ObjectId> = here
            .iter()
            .filter(|(_, exists)| **exists)
            .map(|(id, _)| *id)
            .collect();
        let mut stored = 0;
        let visited = self.tables.visit_from(first, |id| {
            if follows(&id) && !here.contains_key(&id) {
                found.push(id);
                stored += 1;
            }
            stored < limit
        });
        visited.map_err(|error| self.poison(&error))?;
        found.sort_unstable();
        found.truncate(limit);
        Ok(found)
    }
}

pub(crate) fn state(id: ObjectId, object: &Object) -> ObjectState {
    let chunks = object.chunks.iter().map(|(number, chunk)| chunk.state(*number));
    ObjectState {
        object: id,
        stamp: object.stamp,
        chunks: chunks.collect(),
    }
}

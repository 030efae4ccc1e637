//! The writes that the store has not answered yet, by object.
//!
//! The same write may come again on another connection while the first is still on its way to the
//! disk. Its sender must not hear "ok" before it is durable, so it waits for the first one's answer.

use std::collections::BTreeMap;

use protocol::{FamilyId, Generation, LayerId, ObjectId, Stamp};

use super::event::ConnectionId;

/// Who waits for an answer.
pub(super) type Asker = (ConnectionId, u64);

/// Writes and levels in flight.
#[derive(Debug, Default)]
pub(super) struct Flight {
    objects: BTreeMap<ObjectId, Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    stamp: Stamp,
    generation: Generation,
    askers: Vec<Asker>,
}

impl Flight {
    /// Adds one who asks for a write that is in flight already; false if it is not.
    pub(super) fn join(&mut self, object: ObjectId, stamp: Stamp, asker: Asker) -> bool {
        let entries = self.objects.get_mut(&object);
        let entry = entries.and_then(|entries| entries.iter_mut().find(|entry| entry.stamp == stamp));
        entry.map(|entry| entry.askers.push(asker)).is_some()
    }

    /// A write that an owner of `generation` asked for goes to the store.
    pub(super) fn start(&mut self, object: ObjectId, stamp: Stamp, generation: Generation, asker: Asker) {
        let entry = Entry {
            stamp,
            generation,
            askers: vec![asker],
        };
        self.objects.entry(object).or_default().push(entry);
    }

    /// The store answered; returns who asked.
    pub(super) fn end(&mut self, object: ObjectId, stamp: Stamp) -> Vec<Asker> {
        let Some(entries) = self.objects.get_mut(&object) else {
            return Vec::new();
        };
        let Some(position) = entries.iter().position(|entry| entry.stamp == stamp) else {
            return Vec::new();
        };
        let entry = entries.remove(position);
        if entries.is_empty() {
            self.objects.remove(&object);
        }
        entry.askers
    }

    /// Whether something that an owner of a lower generation wrote to the layer is in flight.
    pub(super) fn any_below(&self, family: FamilyId, layer: LayerId, generation: Generation) -> bool {
        self.objects
            .iter()
            .filter(|(object, _)| object.family == family && object.layer == layer)
            .any(|(_, entries)| entries.iter().any(|entry| entry.generation < generation))
    }
}

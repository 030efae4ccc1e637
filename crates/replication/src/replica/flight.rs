//! The writes that the store has not answered yet, by object.
//!
//! The same write may come again on another connection while the first is still on its way to the
//! disk. Its sender must not hear "ok" before it is durable, so it waits for the first one's answer.
//! If that is a refusal, it says nothing about the second one, which came later and may find what the
//! first one missed: it is asked of the store in its turn.

use std::collections::BTreeMap;

use protocol::message::{Request, Scope};
use protocol::{FamilyId, Generation, LayerId, ObjectId, PgId, Stamp};

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
    pg: PgId,
    generation: Generation,
    /// Whether the owner has said meanwhile that this is complete.
    complete: bool,
    asker: Asker,
    /// What was asked, where it may have to be asked again.
    kept: Option<Request>,
    /// Those who asked for the same later, and what they asked.
    others: Vec<(Asker, Request)>,
}

/// Who asked for a write that the store has answered.
#[derive(Debug)]
pub(super) struct Ended {
    /// Whose request the store was asked for.
    pub(super) asker: Asker,
    /// Who asked for the same later.
    pub(super) others: Vec<(Asker, Request)>,
    /// What was asked, if it was kept.
    pub(super) kept: Option<Request>,
    /// Whether the owner has said meanwhile that this is complete.
    pub(super) complete: bool,
}

impl Flight {
    /// Whether a write is in flight.
    pub(super) fn has(&self, object: ObjectId, stamp: Stamp) -> bool {
        self.objects
            .get(&object)
            .is_some_and(|entries| entries.iter().any(|entry| entry.stamp == stamp))
    }

    /// Adds one who asks for a write that is in flight already.
    pub(super) fn join(&mut self, object: ObjectId, stamp: Stamp, asker: Asker, request: Request) {
        let entries = self.objects.get_mut(&object);
        let entry = entries.and_then(|entries| entries.iter_mut().find(|entry| entry.stamp == stamp));
        if let Some(entry) = entry {
            entry.others.push((asker, request));
        }
    }

    /// A write that an owner asked for goes to the store.
    pub(super) fn start(&mut self, object: ObjectId, stamp: Stamp, scope: &Scope, asker: Asker) {
        let entry = Entry {
            stamp,
            pg: scope.pg,
            generation: scope.generation,
            complete: false,
            asker,
            kept: None,
            others: Vec::new(),
        };
        self.objects.entry(object).or_default().push(entry);
    }

    /// Keeps what was asked, to ask it again if it finds its object behind.
    pub(super) fn keep(&mut self, object: ObjectId, stamp: Stamp, request: Request) {
        let entries = self.objects.get_mut(&object);
        let entry = entries.and_then(|entries| entries.iter_mut().find(|entry| entry.stamp == stamp));
        if let Some(entry) = entry {
            entry.kept = Some(request);
        }
    }

    /// The store answered; returns who asked.
    pub(super) fn end(&mut self, object: ObjectId, stamp: Stamp) -> Option<Ended> {
        let entries = self.objects.get_mut(&object)?;
        let position = entries.iter().position(|entry| entry.stamp == stamp)?;
        let entry = entries.remove(position);
        if entries.is_empty() {
            self.objects.remove(&object);
        }
        Some(Ended {
            asker: entry.asker,
            others: entry.others,
            kept: entry.kept,
            complete: entry.complete,
        })
    }

    /// The owner says that a layer is complete in one group up to `stamp`. What the store has not answered
    /// yet is in it when the owner had it from elsewhere, or needed it no more, after the connection broke on
    /// which it had asked here: nobody will say again that it is complete.
    pub(super) fn complete(&mut self, family: FamilyId, layer: LayerId, pg: PgId, stamp: Stamp) {
        self.objects
            .iter_mut()
            .filter(|(object, _)| object.family == family && object.layer == layer)
            .flat_map(|(_, entries)| entries)
            .filter(|entry| entry.pg == pg && entry.stamp <= stamp)
            .for_each(|entry| entry.complete = true);
    }

    /// The objects that something in flight is for.
    pub(super) fn objects(&self) -> impl Iterator<Item = ObjectId> {
        self.objects.keys().copied()
    }

    /// Whether something is in flight for an object.
    pub(super) fn concerns(&self, object: ObjectId) -> bool {
        self.objects.contains_key(&object)
    }

    /// Whether something that an owner of a lower generation wrote to the layer is in flight.
    pub(super) fn any_below(&self, family: FamilyId, layer: LayerId, generation: Generation) -> bool {
        self.objects
            .iter()
            .filter(|(object, _)| object.family == family && object.layer == layer)
            .any(|(_, entries)| entries.iter().any(|entry| entry.generation < generation))
    }
}

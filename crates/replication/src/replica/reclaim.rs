//! Layers on their way out: when an object of one may be merged or dropped.
//!
//! The store does as it is told; this decides when to tell it. A read that was begun at a layer
//! looks through that layer and its ancestors. Once the layer's object is merged into a child, such
//! a read would find what lies below it, which is older. So: first nobody may begin a read there any
//! more, which the map says; then those that were begun must be done.

use std::collections::{HashMap, VecDeque};

use protocol::map::LayerUse;
use protocol::storage::{StorageError, StorageReply, StorageRequest};
use protocol::{FamilyId, LayerId, PgId};

use super::event::Action;
use super::{Asked, Replica};
use crate::mutation::{self, Mutation};

/// Reads under way, and what waits for them.
#[derive(Debug, Default)]
pub(super) struct Reclaims {
    /// How many reads are under way that were begun at a layer.
    reads: HashMap<(FamilyId, LayerId), usize>,
    /// And in a group.
    in_groups: HashMap<PgId, usize>,
    waiting: VecDeque<(u64, StorageRequest)>,
}

impl Reclaims {
    /// A read begins.
    pub(super) fn read_begins(&mut self, layer: (FamilyId, LayerId), pg: PgId) {
        *self.reads.entry(layer).or_default() += 1;
        *self.in_groups.entry(pg).or_default() += 1;
    }

    /// Whether a read in this group is under way.
    pub(super) fn reads_in(&self, pg: PgId) -> bool {
        self.in_groups.contains_key(&pg)
    }

    /// A read is done; true if it was the last one at its layer, and something may wait for that.
    pub(super) fn read_ends(&mut self, layer: (FamilyId, LayerId), pg: PgId) -> bool {
        if let Some(count) = self.in_groups.get_mut(&pg) {
            *count -= 1;
            if *count == 0 {
                self.in_groups.remove(&pg);
            }
        }
        let Some(count) = self.reads.get_mut(&layer) else {
            return false;
        };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        self.reads.remove(&layer);
        !self.waiting.is_empty()
    }
}

impl Replica {
    /// Somebody wants an object of a layer merged or dropped.
    pub(super) fn reclaim(&mut self, token: u64, request: StorageRequest, out: &mut Vec<Action>) {
        self.reclaims.waiting.push_back((token, request));
        self.resume_reclaims(out);
    }

    /// Hands to the store what need not wait any longer.
    pub(super) fn resume_reclaims(&mut self, out: &mut Vec<Action>) {
        for (token, request) in std::mem::take(&mut self.reclaims.waiting) {
            let layer = match &request {
                StorageRequest::Merge { family, parent, .. } => (*family, *parent),
                StorageRequest::Drop(object) => (object.family, object.layer),
                _ => {
                    let result = Err(StorageError::Busy);
                    out.push(Action::Reclaimed { token, result });
                    continue;
                }
            };
            let shown = matches!(
                self.map.layer_use(layer.0, layer.1),
                LayerUse::Head(_) | LayerUse::Sealed
            );
            let read =
                self.reclaims.reads.contains_key(&layer) && !mutation::active(Mutation::MergeUnderReads);
            if shown || read {
                self.reclaims.waiting.push_back((token, request));
            } else {
                self.ask(Asked::Reclaim(token), request, out);
            }
        }
    }

    /// The store answered.
    pub(super) fn reclaimed(token: u64, result: Result<StorageReply, StorageError>, out: &mut Vec<Action>) {
        out.push(Action::Reclaimed {
            token,
            result: result.map(|_| ()),
        });
    }
}

//! Layers on their way out: when an object of one may be merged or dropped.
//!
//! The store does as it is told; this decides when to tell it. A read that was begun at a layer
//! looks through that layer and its ancestors. Once the layer's object is merged into a child, such
//! a read would find what lies below it, which is older. So: first nobody may begin a read there any
//! more, which the map says; then those that were begun must be done.
//!
//! Whoever asks may have been slow, or may have died since: what the map does not want any more is not done
//! (`docs/decisions/0051-late-merges.md`).

use std::collections::{HashMap, VecDeque};

use protocol::map::LayerUse;
use protocol::rows::{is_rows, rows_index};
use protocol::storage::{StorageError, StorageReply, StorageRequest};
use protocol::{FamilyId, LayerId, ObjectId, PgId};

use super::event::Action;
use super::{Asked, Replica, Wait};
use crate::mutation::{self, Mutation};

/// Merges and drops that may wait or be under way: eight times as many as storaged asks for at once. Each is compared
/// with all others whenever something ends.
const RECLAIMS_MAX: usize = 64;

type Layer = (FamilyId, LayerId);

/// Reads under way, and what waits for them.
#[derive(Debug, Default)]
pub(super) struct Reclaims {
    /// How many reads are under way that were begun at a layer.
    reads: HashMap<Layer, usize>,
    /// And in a group.
    in_groups: HashMap<PgId, usize>,
    waiting: VecDeque<(u64, StorageRequest)>,
}

/// What a merge or a drop is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pg: Option<PgId>,
    /// The layer that goes.
    layer: Layer,
    /// The one that it is merged into.
    child: Option<Layer>,
    /// Where that one's rows are, in a pool that encodes: what a merge leaves out goes by these.
    rows: Option<ObjectId>,
}

enum Judgement {
    Now,
    Later,
    /// The map wants something else by now.
    Never,
}

impl Reclaims {
    /// A read begins.
    pub(super) fn read_begins(&mut self, layer: Layer, pg: PgId) {
        *self.reads.entry(layer).or_default() += 1;
        *self.in_groups.entry(pg).or_default() += 1;
    }

    /// Whether a read in this group is under way.
    pub(super) fn reads_in(&self, pg: PgId) -> bool {
        self.in_groups.contains_key(&pg)
    }

    /// A read is done; true if it was the last one at its layer, and something may wait for that.
    pub(super) fn read_ends(&mut self, layer: Layer, pg: PgId) -> bool {
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
        if self.reclaims.waiting.len() + self.under_way().count() >= RECLAIMS_MAX {
            return out.push(Action::Reclaimed {
                token,
                result: Err(StorageError::Busy),
            });
        }
        self.reclaims.waiting.push_back((token, request));
        self.resume_reclaims(out);
    }

    /// Hands to the store what need not wait any longer.
    pub(super) fn resume_reclaims(&mut self, out: &mut Vec<Action>) {
        if self.reclaims.waiting.is_empty() {
            return;
        }
        for (token, request) in std::mem::take(&mut self.reclaims.waiting) {
            let place = self.place_of(&request);
            let judged = place.map(|place| (self.judge_reclaim(place), place));
            match judged {
                Some((Judgement::Now, place)) => self.ask(Asked::Reclaim(token, place), request, out),
                Some((Judgement::Later, _)) => self.reclaims.waiting.push_back((token, request)),
                Some((Judgement::Never, _)) | None => out.push(Action::Reclaimed {
                    token,
                    result: Err(StorageError::Busy),
                }),
            }
        }
    }

    /// What the store merges or drops now.
    fn under_way(&self) -> impl Iterator<Item = &Place> {
        self.asked.values().filter_map(|asked| match asked {
            Asked::Reclaim(_, place) => Some(place),
            _ => None,
        })
    }

    /// Whether it merges something that goes by these rows, which must stay as they are meanwhile.
    pub(super) fn merges_by(&self, rows: ObjectId) -> bool {
        // Of most writes this is all that need be looked at.
        let held = is_rows(rows.index) && self.under_way().any(|place| place.rows == Some(rows));
        held && !mutation::active(Mutation::MergeTornRows)
    }

    /// Whether it merges or drops something of this group.
    pub(super) fn reclaims_in(&self, pg: PgId) -> bool {
        self.under_way().any(|place| place.pg == Some(pg))
    }

    fn place_of(&self, request: &StorageRequest) -> Option<Place> {
        let (family, index, layer, child, rows) = match request {
            StorageRequest::Merge {
                family,
                index,
                parent,
                child,
                row_chunks,
            } => {
                let rows = ObjectId {
                    family: *family,
                    index: rows_index(*index),
                    layer: *child,
                };
                let rows = row_chunks.map(|_| rows);
                (*family, *index, *parent, Some((*family, *child)), rows)
            }
            StorageRequest::Drop(object) => (object.family, object.index, object.layer, None, None),
            _ => return None,
        };
        Some(Place {
            pg: self.map.placement(family, index),
            layer: (family, layer),
            child,
            rows,
        })
    }

    fn judge_reclaim(&self, place: Place) -> Judgement {
        let (family, layer) = place.layer;
        let shown = self.map.layer_use(family, layer);
        if matches!(shown, LayerUse::Head(_) | LayerUse::Sealed) {
            return Judgement::Later;
        }
        let heir = self.map.heir(family, layer).map(|heir| (family, heir));
        let wanted = place.child.is_none() || place.child == heir || mutation::active(Mutation::MergeLate);
        let group = place.pg.and_then(|pg| self.map.group(pg));
        let comes_back = group.is_some_and(|group| group.slots.iter().any(|slot| slot.state.comes_back()));
        if !wanted || comes_back {
            return Judgement::Never;
        }
        let read =
            self.reclaims.reads.contains_key(&place.layer) && !mutation::active(Mutation::MergeUnderReads);
        // What still comes to the layer would be left behind, for what goes is listed once.
        let merged = |other: &Place| other.child == Some(place.layer);
        let written = |object: ObjectId| (object.family, object.layer) == place.layer;
        let grows = self.under_way().any(merged) || self.coming().any(written);
        // What a row makes old is left out. A row that may be on some of its disks only may turn out not to be there.
        let torn = place.rows.is_some_and(|rows| self.may_be_torn(rows))
            && !mutation::active(Mutation::MergeTornRows);
        if read || grows || torn {
            Judgement::Later
        } else {
            Judgement::Now
        }
    }

    /// The store answered.
    pub(super) fn reclaimed(
        &mut self,
        (token, place): (u64, Place),
        result: Result<StorageReply, StorageError>,
        out: &mut Vec<Action>,
    ) {
        if let Some(pg) = place.pg.filter(|_| place.child.is_some() && result.is_ok()) {
            self.has_merged(pg);
        }
        out.push(Action::Reclaimed {
            token,
            result: result.map(|_| ()),
        });
        self.unpark(|wait| matches!(wait, Wait::Merged(_)), false, out);
        self.resume_reclaims(out);
        self.choose_groups(out);
        self.retake_questions(out);
    }
}

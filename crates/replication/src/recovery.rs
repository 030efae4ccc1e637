//! The books of a disk that comes back (`docs/decisions/0033-coming-back.md`). What it and its source say to
//! each other is in `protocol::recovery`.
//!
//! A copy of a group is made equal to a source's, range by range, whole columns of layers at a time.
//! Nothing here asks anybody: `replica::fill` and `replica::source` do.

mod union;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::recovery::Question;
use protocol::session::SlotState;
use protocol::storage::{ChunkState, ObjectDelta, ObjectState};
use protocol::{DiskId, FamilyId, Generation, Interval, LayerId, ObjectId, PgId, Stamp, VolumeId};

use crate::rows::rebuilding::Rebuilding;
pub(crate) use union::united;

/// All groups that a disk comes back to.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    pub(crate) groups: BTreeMap<PgId, Filling>,
    /// Other disks' questions, with who asked and their numbers, that wait until they can be answered.
    pub(crate) held: Vec<(DiskId, u64, Question)>,
    /// Questions on their way, by number.
    pub(crate) asked: BTreeMap<u64, PgId>,
    pub(crate) next_number: u64,
    /// Groups of which a swap of our own state is under way: nothing is served there (P9).
    pub(crate) proposing: BTreeSet<PgId>,
    /// The highest generation whose owner has said in a group that something is complete: it has served
    /// there, and levels nothing any more (W5).
    pub(crate) served: BTreeMap<(PgId, VolumeId), Generation>,
    /// Owners that fenced us while we were joining, in which interval, and that do not serve yet (W7).
    pub(crate) fences: BTreeMap<(PgId, VolumeId), (Interval, Generation)>,
    /// The intervals that we had served in when we were started: who was joining then may have answered a
    /// fence that it does not know of any more, and begins as syncing.
    pub(crate) served_before: BTreeMap<PgId, Interval>,
}

impl Recovery {
    /// Gives a group up; what was asked for it is not awaited any more.
    pub(crate) fn forget(&mut self, pg: PgId) {
        self.groups.remove(&pg);
        self.asked.retain(|_, asked| *asked != pg);
    }

    /// Whether an owner that fenced us in this interval does not serve yet.
    pub(crate) fn is_fenced(&self, pg: PgId, interval: Interval) -> bool {
        let of_group = self.fences.range((pg, VolumeId(0))..=(pg, VolumeId(u64::MAX)));
        of_group.into_iter().any(|(_, (at, _))| *at == interval)
    }
}

/// One range with all its layers.
pub(crate) type Column = (FamilyId, u32);

/// One group on its way back.
#[derive(Debug)]
pub(crate) struct Filling {
    /// The last question to our own store: answers to others are of what was given up.
    pub(crate) run: u64,
    pub(crate) interval: Interval,
    pub(crate) state: SlotState,
    pub(crate) source: DiskId,
    pub(crate) step: Step,
    /// Columns to make equal, with what the source had when it was asked, if that is known.
    pub(crate) columns: VecDeque<(Column, Option<Vec<ObjectState>>)>,
    /// Columns that a write waits for.
    pub(crate) urgent: BTreeSet<Column>,
    /// Columns that this pass has seen at the source.
    pub(crate) seen: BTreeSet<Column>,
    /// Where the source's list goes on; then where our own does.
    pub(crate) source_next: Cursor,
    pub(crate) own_next: Cursor,
    /// Objects that this pass had to copy, and passes so far.
    pub(crate) copied: usize,
    pub(crate) passes: usize,
    /// A fence came: what was listed so far proves nothing.
    pub(crate) void: bool,
    /// Nudges since the last step forward.
    pub(crate) idle: usize,
    /// Times that the present column was compared again because the source was behind.
    pub(crate) again: usize,
}

/// Where a list goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cursor {
    After(Option<ObjectId>),
    End,
}

impl Cursor {
    /// Behind a page of a list.
    pub(crate) fn behind(page: &[ObjectState], more: bool) -> Self {
        if more {
            Self::After(page.last().map(|state| state.object))
        } else {
            Self::End
        }
    }
}

/// What a group waits for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// For the next nudge: something was refused.
    Paused,
    /// For a page of our own list, of which the group's objects are to go; then until these are gone, and where the list
    /// goes on.
    Clearing,
    Dropping(VecDeque<ObjectId>, Cursor),
    /// For the source's table.
    Table,
    /// Until these generations are durable here.
    Generations(Vec<(VolumeId, Generation)>),
    /// Nothing: the next step can be taken.
    Next,
    /// For a page of the source's list.
    Listing,
    /// For a page of our own list.
    OwnList,
    /// For the source's column, then for ours.
    SourceColumn(Column),
    OwnColumn(Column, Vec<ObjectState>),
    /// For chunks of an object; for those of ours, if it stays, that get blocks of these; then until they are stored.
    /// The others of the column come after it.
    Difference(Wrong, VecDeque<Wrong>),
    Uniting(Box<ObjectDelta>, bool, Stamp, VecDeque<Wrong>),
    Replacing(ObjectId, VecDeque<Wrong>),
    /// For what sources and our own store have of a column of rows, then for shards of its objects, then until they are
    /// stored.
    Rebuilding(Box<Rebuilding>),
    /// For owners that fenced us.
    Fenced,
    /// For the outcome of a swap.
    Proposed,
}

impl Filling {
    pub(crate) fn new(run: u64, interval: Interval, state: SlotState, source: DiskId) -> Self {
        Self {
            run,
            interval,
            state,
            source,
            step: Step::Table,
            columns: VecDeque::new(),
            urgent: BTreeSet::new(),
            seen: BTreeSet::new(),
            source_next: Cursor::After(None),
            own_next: Cursor::After(None),
            copied: 0,
            passes: 0,
            void: false,
            idle: 0,
            again: 0,
        }
    }

    /// Begins to list from the start.
    pub(crate) fn begin_pass(&mut self) {
        self.columns.clear();
        self.seen.clear();
        self.source_next = Cursor::After(None);
        self.own_next = Cursor::After(None);
        self.copied = 0;
        self.void = false;
        self.step = Step::Next;
    }
}

/// An object of a column that must be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// As we have it.
    pub(crate) ours: ObjectState,
    /// Nothing: the source's takes its place. Else ours stays, for it is newer, and lacks blocks of a parent that the
    /// source has merged into it already; these are the source's chunks that need not be asked for.
    pub(crate) stays: Option<Vec<ChunkState>>,
}

/// The objects of a column that must be copied, what is newest first: a parent is taken away only when its
/// child, into which the source may have merged it, is here. `stays` says of one that
/// we have and that the source has not so new whether we may have said ok to it (W1).
pub(crate) fn different(
    source: &[ObjectState],
    own: Vec<ObjectState>,
    stays: impl Fn(ObjectId, Stamp, Stamp) -> bool,
) -> VecDeque<Wrong> {
    let empty = |object| ObjectState {
        object,
        stamp: Stamp::ZERO,
        chunks: Vec::new(),
    };
    let mut pairs: BTreeMap<LayerId, (ObjectState, ObjectState)> = BTreeMap::new();
    for theirs in source {
        let id = theirs.object;
        pairs.insert(id.layer, (theirs.clone(), empty(id)));
    }
    for ours in own {
        let id = ours.object;
        pairs.entry(id.layer).or_insert_with(|| (empty(id), empty(id))).1 = ours;
    }
    // What a merge left here without a stamp and a block is equal to nothing, and would stay when its layer is gone.
    let at_source = |id: ObjectId| source.iter().any(|theirs| theirs.object == id);
    let wrong = pairs.into_values().rev().filter_map(|(theirs, ours)| {
        if theirs == ours && at_source(ours.object) {
            return None;
        }
        let keeps = ours.stamp > theirs.stamp && stays(ours.object, ours.stamp, theirs.stamp);
        let stays = if keeps {
            Some(union::not_lacking(&ours, theirs)?)
        } else {
            None
        };
        Some(Wrong { ours, stays })
    });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    //! What is copied, and in which order.
    use super::*;
    use crate::samples;

    fn object(layer: u64, count: u64, present: u16) -> ObjectState {
        ObjectState {
            object: samples::object(layer),
            stamp: samples::stamp(count),
            chunks: vec![samples::chunk(0, count, present)],
        }
    }

    fn layers(wrong: &VecDeque<Wrong>) -> Vec<u64> {
        wrong.iter().map(|wrong| wrong.ours.object.layer.0).collect()
    }

    #[test]
    fn a_merged_parent_goes_only_after_its_child_has_what_it_had() {
        // P5: equal stamps, but the source's child holds the parent's block too.
        let source = [object(2, 5, 0b11)];
        let own = vec![object(1, 3, 0b10), object(2, 5, 0b01)];
        assert_eq!(layers(&different(&source, own, |_, _, _| false)), [2, 1]);
    }

    #[test]
    fn what_is_newer_here_and_lacks_what_the_source_merged_is_to_get_it() {
        // Found by the simulator (seed 3116): the parent went, and its blocks with it.
        let source = [object(2, 4, 0b11)];
        let own = vec![object(1, 3, 0b10), object(2, 5, 0b01)];
        let wrong = different(&source, own, |object, _, _| object.layer == LayerId(2));
        assert_eq!(layers(&wrong), [2, 1]);
        assert_eq!(
            wrong[0].stays,
            Some(Vec::new()),
            "the source's only chunk is asked for"
        );
        assert_eq!(wrong[1].stays, None);
    }

    #[test]
    fn what_is_newer_here_stays_if_it_may_have_been_confirmed_and_goes_if_it_is_of_a_dead_branch() {
        // W1 and V3.
        let (source, own) = ([object(1, 3, 1)], vec![object(1, 4, 1)]);
        assert!(different(&source, own.clone(), |_, _, _| true).is_empty());
        assert_eq!(layers(&different(&source, own, |_, _, _| false)), [1]);
    }

    #[test]
    fn what_a_merge_left_empty_goes_if_the_source_has_nothing_of_it() {
        // Seed 5836 of the large worlds of rows: all of a parent's front was older than its row. The layer was dropped while
        // the disk was away, and the object without a stamp and a block stayed for ever.
        let left = ObjectState {
            stamp: protocol::Stamp::ZERO,
            chunks: Vec::new(),
            ..object(1, 3, 1)
        };
        let source = [object(2, 4, 1)];
        let own = vec![left.clone(), object(2, 4, 1)];
        assert_eq!(layers(&different(&source, own.clone(), |_, _, _| true)), [1]);
        assert!(different(&[left, object(2, 4, 1)], own, |_, _, _| true).is_empty());
    }

    #[test]
    fn what_is_equal_is_not_copied_and_what_is_missing_is() {
        let source = [object(1, 3, 1), object(2, 4, 1)];
        assert_eq!(
            layers(&different(&source, vec![object(1, 3, 1)], |_, _, _| false)),
            [2]
        );
    }
}

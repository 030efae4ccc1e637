//! What a disk that comes back to a placement group asks one that is in sync there, and what that one tells
//! (`docs/decisions/0033-coming-back.md`). How the questions follow from each other is not known here.

use crate::frame::TOLD_BODY_MAX;
use crate::id::{DiskId, FamilyId, Generation, Interval, ObjectId, PgId, VolumeId};
use crate::storage::{ChunkState, ObjectDelta, ObjectState};

/// From a disk that comes back to a disk in sync, about one group in one interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Which group.
    pub pg: PgId,
    /// The interval in which the asker has its slot.
    pub interval: Interval,
    /// Who asks.
    pub from: DiskId,
    /// What.
    pub ask: Ask,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The generations that the source has seen (V3).
    Table,
    /// A page of the source's objects of the group, after one of them.
    List {
        /// Nothing at first.
        after: Option<ObjectId>,
    },
    /// All layers' objects of one range.
    Column {
        /// Whose.
        family: FamilyId,
        /// Which.
        index: u32,
    },
    /// The chunks of an object that differ from the asker's.
    Difference {
        /// Which object.
        object: ObjectId,
        /// What the asker has, ascending.
        have: Vec<ChunkState>,
    },
}

/// The answer, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Volumes, their generations, and whether the owner of that generation has served in this group.
    Table(Vec<(VolumeId, Generation, bool)>),
    /// Objects, ascending, whole columns; and after which one to go on.
    Listed {
        /// The objects.
        objects: Vec<ObjectState>,
        /// Nothing at the end.
        next: Option<ObjectId>,
    },
    /// Chunks that differ, at one moment, all durable; and whether the object is in doubt at the source.
    Difference {
        /// The chunks.
        delta: ObjectDelta,
        /// Whether it is in doubt.
        doubt: bool,
    },
}

impl Told {
    /// Whether a frame can carry it.
    pub fn fits(&self) -> bool {
        // Identities, stamps and counts, as `codec` lays them out; more than that by a little.
        let length = match self {
            Self::Table(volumes) => 64 + 17 * volumes.len(),
            Self::Listed { objects, .. } => states_length(objects),
            // Not even all of an object has so much to tell.
            Self::Difference { .. } => 0,
        };
        length <= TOLD_BODY_MAX as usize
    }
}

/// Whether a frame can carry what there is of so many objects.
pub fn states_fit(objects: &[ObjectState]) -> bool {
    states_length(objects) <= TOLD_BODY_MAX as usize
}

fn states_length(objects: &[ObjectState]) -> usize {
    let lengths = objects.iter().map(|state| 40 + 21 * state.chunks.len());
    64 + lengths.sum::<usize>()
}

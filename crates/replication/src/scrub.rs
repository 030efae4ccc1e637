//! The books of a scrub (`docs/decisions/0040-scrub.md`): what a disk looks at, how far it is, and what it found.
//!
//! Nothing here asks anybody: `replica::scrub` does. Time is unknown too: a step is taken when the driver says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::storage::{ObjectState, VERIFY_CHUNKS};
use protocol::{DiskId, FamilyId, Interval, LayerId, ObjectId, Stamp};

use crate::recovery::Cursor;

mod broken;
mod parity;

pub(crate) use broken::Broken;
pub(crate) use parity::ParityLook;

/// A range of a family with all its layers. In the order in which a scrub goes through them.
pub type Column = (FamilyId, u32);

/// What to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Whether blocks are read; else stamps are compared only.
    pub deep: bool,
    /// Only these layers of a family; else all that the disk has.
    pub only: Option<(FamilyId, Vec<LayerId>)>,
    /// The blocks up to this column's end were read before, by a scrub that was cut short: they are compared only.
    pub read: Option<Column>,
}

/// Something that is not as it should be, or was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Blocks of a chunk were damaged, and have been stored again from another disk's.
    Mended {
        /// Whose.
        object: ObjectId,
        /// Which chunk.
        chunk: u8,
        /// Which of its blocks.
        blocks: u16,
        /// Whose bytes they have now.
        from: DiskId,
    },
    /// Blocks of a chunk are damaged, and stay so.
    Unmended {
        /// Whose.
        object: ObjectId,
        /// Which chunk.
        chunk: u8,
        /// Which of its blocks.
        blocks: u16,
        /// Why.
        reason: Reason,
    },
    /// Another disk in sync has the object at another stamp, although nobody writes to it.
    Differs {
        /// Which object.
        object: ObjectId,
        /// Its stamp here.
        stamp: Stamp,
        /// The other disk.
        disk: DiskId,
        /// Its stamp there.
        there: Stamp,
    },
    /// Parity is not what the data of the same version of its row make of it, though all checksums hold.
    ParityDiffers {
        /// Whose.
        object: ObjectId,
        /// Which chunk.
        chunk: u8,
    },
}

/// Why damaged blocks were not stored again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No other disk in sync has good ones: there is none, or theirs are damaged too.
    NoCopy,
    /// Other disks' chunks were never the same as ours: they are written all the time, or really differ.
    Changing,
    /// Other disks did not answer.
    Unreachable,
    /// Our own disk would not take them.
    Refused,
}

/// What a scrub tells its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A step was taken, of so many objects and so many blocks read: the next may be asked for.
    Step {
        /// Objects that were done with.
        objects: u64,
        /// Blocks that were read from the medium.
        blocks: u64,
    },
    /// A step was taken with which a column was done with: a deep scrub has read all blocks up to its end, and what
    /// was damaged there is mended or told of.
    Passed {
        /// Its objects.
        objects: u64,
        /// Which.
        column: Column,
    },
    /// Something is looked at again, which needs some time to pass.
    Rest,
    /// Something was found.
    Found(Finding),
    /// It could not look at an object: what was asked did not answer, or the object was written all the time.
    Skipped(ObjectId),
    /// All was looked at.
    Done,
}

/// Chunks of an object to be read: from this one on, [`VERIFY_CHUNKS`] of them.
pub(crate) type Window = (ObjectId, u8);

/// A disk's scrub.
#[derive(Debug, Default)]
pub(crate) struct Scrub {
    /// Runs, of which the last one goes on first.
    pub(crate) runs: Vec<Run>,
    /// The run that the step at hand is of; 0 if it is of none.
    pub(crate) at: u64,
    /// What is to be looked at before all else, and for which run: what somebody else met as damaged, or what
    /// could not be mended yet.
    pub(crate) wanted: BTreeMap<Window, u64>,
    /// What was looked at and could not be mended, in which interval of its group: in that one not again.
    pub(crate) given_up: BTreeMap<Window, Interval>,
    /// How often others were asked in vain.
    pub(crate) tries: BTreeMap<Window, u8>,
    pub(crate) doing: Doing,
    /// Tells the answers to this step from those to one that was given up.
    pub(crate) serial: u64,
    /// The question on its way.
    pub(crate) asked: Option<u64>,
    /// Damaged chunks, to be mended before all else.
    pub(crate) broken: VecDeque<Broken>,
}

/// A scrub of a disk, or of a part of it.
#[derive(Debug)]
pub(crate) struct Run {
    /// Its number.
    pub(crate) number: u64,
    pub(crate) order: Order,
    /// Where our list goes on.
    pub(crate) next: Cursor,
    /// Columns that were listed, each with its objects.
    pub(crate) columns: VecDeque<Vec<ObjectState>>,
    /// Windows of the column at hand that are still to be read.
    pub(crate) windows: VecDeque<Window>,
    /// Rows of the column at hand whose parity is still to be looked at.
    pub(crate) parities: VecDeque<ParityLook>,
    /// The column at hand, which is to be compared when its windows are read.
    pub(crate) column: Option<Vec<ObjectState>>,
    /// The disks that it is still to be compared with.
    pub(crate) peers: VecDeque<DiskId>,
    /// What differs, until it has been looked at often enough.
    pub(crate) suspects: VecDeque<Suspect>,
}

/// An object that another disk has at another stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suspect {
    pub(crate) object: ObjectId,
    pub(crate) stamp: Stamp,
    pub(crate) disk: DiskId,
    pub(crate) there: Stamp,
    /// How often it was found so.
    pub(crate) looks: u8,
}

/// What the scrub waits for.
#[derive(Debug, Default)]
pub(crate) enum Doing {
    /// For the driver's word.
    #[default]
    Nothing,
    /// For a page of our list.
    Listing,
    /// For the store to read a window.
    Verifying(Window),
    /// For another disk's column.
    Comparing(DiskId),
    /// For our own column, then for another disk's word about an object.
    LookingHere(Suspect),
    LookingThere(Suspect),
    /// For another disk's chunk.
    Asking(Broken, DiskId),
    /// For the store to take it.
    Storing(Broken, DiskId),
    /// For our own rows of a chunk that nobody has; then, if these are newer, for the store to take it away.
    LookingAtRow(Broken),
    TakingAway(Broken),
    /// For our own shards of some rows, then for those of the disk that keeps this shard of data.
    ParityHere(ParityLook),
    ParityThere(ParityLook, u8),
}

impl Scrub {
    /// The run that the step at hand is of.
    pub(crate) fn run(&mut self) -> Option<&mut Run> {
        let at = self.at;
        self.runs.iter_mut().find(|run| run.number == at)
    }
}

impl Run {
    pub(crate) fn new(number: u64, order: Order) -> Self {
        let start = order.only.as_ref().map(|(family, _)| ObjectId {
            family: *family,
            index: 0,
            layer: LayerId(0),
        });
        Self {
            number,
            order,
            next: Cursor::After(start),
            columns: VecDeque::new(),
            windows: VecDeque::new(),
            parities: VecDeque::new(),
            column: None,
            peers: VecDeque::new(),
            suspects: VecDeque::new(),
        }
    }

    /// Takes in a page of our list: what is to be looked at, and whether the list goes on.
    pub(crate) fn take_page(&mut self, objects: &[ObjectState], more: bool) {
        let last = objects.last().map(|state| state.object);
        let beyond = |family| self.order.only.as_ref().is_some_and(|(only, _)| family > *only);
        let over = last.is_some_and(|last| beyond(last.family));
        let on = last.filter(|_| more && !over);
        self.next = on.map_or(Cursor::End, |last| Cursor::After(Some(last)));
        for column in
            objects.chunk_by(|a, b| a.object.family == b.object.family && a.object.index == b.object.index)
        {
            let wanted: Vec<ObjectState> = column
                .iter()
                .filter(|state| self.wants(state.object))
                .cloned()
                .collect();
            if !wanted.is_empty() {
                self.columns.push_back(wanted);
            }
        }
    }

    fn wants(&self, object: ObjectId) -> bool {
        let only = self.order.only.as_ref();
        only.is_none_or(|(family, layers)| object.family == *family && layers.contains(&object.layer))
    }
}

/// The windows of an object that have bytes.
pub(crate) fn windows(state: &ObjectState) -> impl Iterator<Item = Window> {
    let with_bytes = state
        .chunks
        .iter()
        .filter(|chunk| chunk.present & !chunk.zero != 0);
    let firsts: BTreeSet<u8> = with_bytes.map(|chunk| first_of(chunk.chunk)).collect();
    let object = state.object;
    firsts.into_iter().map(move |first| (object, first))
}

/// The first chunk of a chunk's window.
pub(crate) fn first_of(chunk: u8) -> u8 {
    chunk / VERIFY_CHUNKS * VERIFY_CHUNKS
}

/// The objects of which another disk has another stamp. Only layers that `stays` are compared: a merge gives the
/// child its parent's blocks but not its stamp, and takes the parent away on one disk sooner than on another.
pub(crate) fn differing(
    own: &[ObjectState],
    theirs: &[ObjectState],
    stays: impl Fn(ObjectId) -> bool,
) -> Vec<(ObjectId, Stamp, Stamp)> {
    let there: BTreeMap<ObjectId, Stamp> = theirs.iter().map(|state| (state.object, state.stamp)).collect();
    let compared = own.iter().filter(|state| stays(state.object));
    let both = compared.map(|state| {
        let other = there.get(&state.object).copied().unwrap_or(Stamp::ZERO);
        (state.object, state.stamp, other)
    });
    both.filter(|(_, here, there)| here != there).collect()
}

#[cfg(test)]
mod tests {
    //! What is taken for good bytes, and what for a difference.
    use protocol::storage::{ChunkState, DamagedChunk, ObjectDelta, Verified};

    use super::*;
    use crate::samples::{chunk, object, stamp};

    fn object_state(layer: u64, count: u64, chunks: Vec<ChunkState>) -> ObjectState {
        ObjectState {
            object: object(layer),
            stamp: stamp(count),
            chunks,
        }
    }

    fn broken() -> Broken {
        let state = object_state(1, 5, vec![chunk(0, 2, 0b1), chunk(3, 4, 0b101)]);
        let damaged = DamagedChunk {
            state: chunk(3, 4, 0b101),
            blocks: 0b100,
            checksums: [7, 9].into(),
        };
        let verified = Verified {
            state,
            blocks: 3,
            damaged: vec![damaged.clone()],
        };
        Broken::new(1, &verified, damaged, VecDeque::new())
    }

    /// Chunks of one block of ones and two of bytes that name them.
    fn delta(count: u64, chunks: Vec<ChunkState>, checksums: &[u32]) -> ObjectDelta {
        let bytes: Vec<u8> = (1..)
            .take(checksums.len())
            .flat_map(|byte| [byte; 4096])
            .collect();
        ObjectDelta {
            object: object(1),
            stamp: stamp(count),
            merged: Vec::new(),
            chunks,
            checksums: checksums.into(),
            bytes: bytes.into(),
        }
    }

    #[test]
    fn the_same_chunk_is_taken_whatever_was_written_to_others() {
        let delta = delta(8, vec![chunk(0, 8, 0b1), chunk(3, 4, 0b101)], &[1, 7, 9]);
        let (sums, bytes) = broken().bytes_from(&delta).unwrap();
        assert_eq!(sums[..], [7, 9]);
        assert_eq!((bytes.len(), bytes[0], bytes[4096]), (8192, 2, 3));
    }

    #[test]
    fn a_chunk_into_which_a_parent_was_merged_there_gives_our_blocks_only() {
        let merged = delta(5, vec![chunk(3, 4, 0b111)], &[7, 8, 9]);
        let (sums, bytes) = broken().bytes_from(&merged).unwrap();
        assert_eq!(sums[..], [7, 9]);
        assert_eq!((bytes.len(), bytes[0], bytes[4096]), (8192, 1, 3));
    }

    #[test]
    fn nothing_is_taken_that_may_be_of_another_write() {
        let refused = [
            // Another write, though the checksums are equal.
            delta(6, vec![chunk(3, 6, 0b101)], &[7, 9]),
            // The same write, and still other bytes.
            delta(5, vec![chunk(3, 4, 0b101)], &[7, 8]),
            // A block is missing there, for it was merged here already.
            delta(5, vec![chunk(3, 4, 0b1)], &[7]),
            // The chunk is not there at all.
            delta(5, vec![chunk(0, 4, 0b1)], &[7]),
        ];
        for delta in refused {
            assert_eq!(broken().bytes_from(&delta), None, "{:?}", delta.chunks);
        }
    }

    #[test]
    fn only_layers_that_stay_are_compared_and_one_that_is_missing_has_no_stamp() {
        let own = [
            object_state(1, 3, Vec::new()),
            object_state(2, 4, Vec::new()),
            object_state(3, 5, Vec::new()),
        ];
        let theirs = [object_state(2, 4, Vec::new())];
        let found = differing(&own, &theirs, |object| object.layer != LayerId(1));
        assert_eq!(found, [(object(3), stamp(5), Stamp::ZERO)]);
    }

    #[test]
    fn a_run_for_some_layers_ends_after_their_family_and_looks_at_nothing_else() {
        let order = Order {
            deep: true,
            only: Some((FamilyId(1), vec![LayerId(2)])),
            read: None,
        };
        let mut run = Run::new(1, order);
        let mut other = object_state(2, 4, Vec::new());
        other.object.family = FamilyId(2);
        run.take_page(
            &[object_state(1, 3, Vec::new()), object_state(2, 4, Vec::new())],
            true,
        );
        assert_eq!(run.next, Cursor::After(Some(object(2))));
        assert_eq!(run.columns, [vec![object_state(2, 4, Vec::new())]]);
        run.take_page(&[other], true);
        assert_eq!((run.next, run.columns.len()), (Cursor::End, 1));
    }

    #[test]
    fn an_object_is_read_where_it_has_bytes() {
        let mut zeros = chunk(17, 1, 0b11);
        zeros.zero = 0b11;
        let state = object_state(1, 3, vec![chunk(0, 1, 1), chunk(7, 1, 1), zeros, chunk(63, 1, 1)]);
        assert_eq!(
            windows(&state).collect::<Vec<_>>(),
            [(object(1), 0), (object(1), 56)]
        );
    }
}

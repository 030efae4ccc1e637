//! Bugs on purpose, to test the tests: each is a rule of the disk that is left out.
//!
//! Without the feature `mutants` [`active`] is constant and false, and the compiler removes every
//! trace. With it, `cargo xtask mutants` turns on one at a time and sees whether the crash images,
//! the failing I/O, the flipped bits or the random lives notice. The switch belongs to the thread.

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    /// The log is written without its flush.
    LogNotDurable,
    /// Data that goes straight to a new slot is written without its flush.
    DirectNotDurable,
    /// A checkpoint commits without having flushed the data file.
    NoDataFlush,
    /// A checkpoint writes into slots before its seal is durable.
    SealNotAwaited,
    /// A slot that was given back is used again before a checkpoint committed that it is free.
    ReuseBeforeCommit,
    /// What was read is not compared with its checksums.
    UnverifiedRead,
    /// A start takes the newest batch of the log though its inline blocks are not all there.
    TornBatchTaken,
    /// A start takes the newest batch of the log though its blocks in slots are not all there.
    TornSlotsTaken,
    /// A start cuts the log off at a damaged batch though later ones follow.
    LaterBatchesIgnored,
    /// Blocks that become zeros are not noted as such.
    ZeroForgotten,
    /// A chunk that became all zeros keeps its slot.
    ZeroKeepsSlot,
    /// A merge gives a child one block fewer than it lacks.
    MergeLosesBlock,
    /// A merge gives a child the parent's blocks in place of its own.
    MergeTakesOlder,
    /// A level leaves zeros where it brings bytes.
    LevelKeepsZeros,
    /// A batch whose write failed counts as durable.
    FailedLogIgnored,
    /// A write to a new slot that failed counts as durable.
    FailedDirectIgnored,
    /// A checkpoint goes on though one of its writes, or its transaction, failed.
    FailedCheckpointIgnored,
    /// A checkpoint goes on though its flush of the data file failed.
    FailedFlushIgnored,
    /// A start relies on what it read without having flushed it.
    NoFlushAtStart,
    /// A read sees what is in memory though it is not durable yet.
    ReadBeforeDurable,
    /// A checkpoint does not write the doubts that are new.
    DoubtNotKept,
    /// A checkpoint does not take out the doubts that were settled.
    SettleNotKept,
    /// A merge ends the parent's doubt and puts no doubt on the child.
    DoubtLeftByMerge,
    /// Objects that differ from the tables go when memory is short.
    DirtyEvicted,
    /// A write does not drop what is older than its row.
    FloorIgnored,
    /// A merge of fronts gives a child what is older than its row.
    MergeForgetsRows,
    /// A checkpoint does not write what layers take.
    UsageNotKept,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::LogNotDurable,
        Self::DirectNotDurable,
        Self::NoDataFlush,
        Self::SealNotAwaited,
        Self::ReuseBeforeCommit,
        Self::UnverifiedRead,
        Self::TornBatchTaken,
        Self::TornSlotsTaken,
        Self::LaterBatchesIgnored,
        Self::ZeroForgotten,
        Self::ZeroKeepsSlot,
        Self::MergeLosesBlock,
        Self::MergeTakesOlder,
        Self::LevelKeepsZeros,
        Self::FailedLogIgnored,
        Self::FailedDirectIgnored,
        Self::FailedCheckpointIgnored,
        Self::FailedFlushIgnored,
        Self::NoFlushAtStart,
        Self::ReadBeforeDurable,
        Self::DoubtNotKept,
        Self::SettleNotKept,
        Self::DoubtLeftByMerge,
        Self::DirtyEvicted,
        Self::FloorIgnored,
        Self::MergeForgetsRows,
        Self::UsageNotKept,
    ];
}

/// Whether a rule is left out now. Never, without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[inline]
pub const fn active(_mutation: Mutation) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use switch::{active, set};

#[cfg(feature = "mutants")]
mod switch {
    //! The thread's switch.
    use super::Mutation;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Whether a rule is left out on this thread now.
    pub fn active(mutation: Mutation) -> bool {
        ACTIVE.with(Cell::get) == Some(mutation)
    }

    /// Leaves out this rule on this thread from now on, or none.
    pub fn set(mutation: Option<Mutation>) {
        ACTIVE.with(|cell| cell.set(mutation));
    }
}

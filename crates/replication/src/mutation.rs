//! Bugs on purpose, to test the tests: each is a rule of the protocol that is left out.
//!
//! Without the feature `mutants` [`active`] is constant and false, and the compiler removes every
//! trace. With it, `cargo xtask mutants` turns on one at a time and sees whether the simulator and
//! the tests notice. The switch belongs to the thread, so that runs side by side do not meet; it
//! begins as the environment says, so that a test that knows nothing of it can be run with a bug.
//! This crate's own unit tests have it always: they are compiled once, and run with a bug and without.

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    /// The owner writes to a row, or to its front, while the row is being written (`RowAfterRow`, `FrontWaitsForRow`).
    RowsAtOnce,
    /// A row at rest is encoded from what was read before a guest wrote to it (`EncodesWhatRests`).
    EncodesStale,
    /// What came in one answer for several reads goes to others of them.
    PartsSwapped,
    /// Nothing is given back of what rows no longer need.
    NothingBack,
    /// A row is written over its last complete version (`TwoPlaces`).
    OnePlace,
    /// A take-over leaves in the fronts what is older than their row.
    OldFrontsStay,
    /// What a front has stays when it is written to after its row (`FreshAfterRow`).
    FrontNotFresh,
    /// A front is merged over a row that may be on some of its disks only.
    MergeTornRows,
    /// A take-over counts a version of a row that fewer than k shards have (`EnoughShards`).
    AnyShards,
    /// A take-over leaves what is newer than the version that counts (`NewerGoes`).
    NewerStays,
    /// A disk that comes back takes another one's shard of a row for its own.
    OthersShard,
    /// A disk that was given another slot of a group keeps what it has of it from before.
    KeepOtherShard,
    /// A disk that comes back gets the newest version of a row only, though it may not be complete (W8).
    NewestVersionOnly,
    /// The owner opens without asking any replica (7 b).
    SkipFence,
    /// The owner fences one replica of each group only (7 b, P2).
    FenceOne,
    /// The owner does not level what is in doubt (7 c).
    SkipLevel,
    /// The owner levels to the lowest stamp in the list instead of the highest (7 c).
    LevelToLowest,
    /// The owner levels only those who listed the object (7 c).
    LevelListedOnly,
    /// The owner reads the first page of a doubt list only (Q8).
    FirstPageOnly,
    /// The owner acknowledges when one replica said ok (rule 3).
    AcknowledgeOne,
    /// The owner acknowledges when all replicas but one said ok (rule 3).
    AcknowledgeAllButOne,
    /// A connection that is lost counts as ok of all that was sent on it (rule 3).
    ForgetOnReconnect,
    /// Oks of a former interval count (V6).
    KeepOksOverInterval,
    /// A read does not wait for the writes in flight that it overlaps (V1).
    ReadNoWait,
    /// A flush is answered at once.
    FlushNoWait,
    /// The owner does not look at its lease before it sends (rule 1).
    IgnoreLease,
    /// One slot that confirms is enough to go on without a lease.
    HeartbeatOfOne,
    /// A replica answers the fence of a new owner at once, though it has vouched for the former one (Q7).
    FenceNoWait,
    /// The owner says complete what it has only sent (rule 6, W10).
    CompleteTooFar,
    /// A retry of a write gets a new stamp (P6).
    RestampOnRetry,
    /// Quiescence is reported before the writes are drained.
    QuiesceNoDrain,
    /// New writes go on during a quiescence.
    QuiesceNoHold,
    /// The owner tells its guest of a write before it is on stable storage: it answers when sent.
    AcknowledgeAtSend,
    /// The replica takes lower generations (rule 1).
    AcceptLowerGeneration,
    /// The replica answers a fence before the generation is durable (rule 1).
    FenceNotDurable,
    /// The replica lists doubts while writes of the old owner are still on their way to its disk.
    FenceNoDrain,
    /// The replica takes another interval than its own (rule 2).
    AcceptAnyInterval,
    /// The replica takes writes to sealed layers (P1, P15).
    AcceptSealed,
    /// The replica answers a write before the store did.
    ReplyBeforeDurable,
    /// The replica forgets to put what it wrote in doubt (rule 6).
    ForgetDoubt,
    /// The replica starts with an empty list of doubts after a restart.
    ForgetDoubtOnRestart,
    /// A level does not put the object in doubt (W3).
    ForgetDoubtOfLevel,
    /// The replica says ok to any write below the object's stamp, of whatever generation (Q10).
    OkForDeadBranch,
    /// The replica answers a duplicate at once, though the first is not durable yet.
    DuplicateNoWait,
    /// Complete takes the doubt off everything, whatever its stamp (rule 6).
    CompleteSettlesAll,
    /// The store takes a write whatever the object's stamp is (rule 5, V2).
    IgnoreFollows,
    /// A layer is merged while reads that began at it are under way.
    MergeUnderReads,
    /// A merge that the map does not want any more is done all the same.
    MergeLate,
    /// What is newer here than at the source stays without the blocks of a parent that the source has merged into it.
    NewerLacksMerged,
    /// A disk that comes back takes over no generations (V3).
    SkipTable,
    /// A list that was taken before a fence is good for a promotion (W7).
    KeepListOverFence,
    /// A disk that comes back keeps all that is newer than at the source, whoever wrote it (V3).
    KeepNewer,
    /// A copy takes away what was confirmed to the present owner (W1).
    PullLowers,
    /// A copy of what is in doubt at the source is not in doubt (W2).
    ForgetDoubtOfCopy,
    /// A disk is taken out of a group that needs it (rule 4).
    EvictTheNeeded,
    /// A scrub compares layers that merges take away on one disk sooner than on another (P5).
    CompareMerged,
    /// A scrub takes a write that is on its way for a difference.
    CompareInDoubt,
    /// A disk that a group moves to counts as in sync at once.
    ComeInSync,
    /// A disk leaves a group before another one has taken its place (P13).
    LeaveBeforeArrival,
    /// What is here of a group that was lost is dropped under reads that were let in before.
    StraysUnderReads,
}

impl Mutation {
    /// Those that a small world of rows must notice.
    pub const ROWS: [Self; 12] = [
        Self::EncodesStale,
        Self::PartsSwapped,
        Self::OthersShard,
        Self::KeepOtherShard,
        Self::NothingBack,
        Self::OnePlace,
        Self::OldFrontsStay,
        Self::RowsAtOnce,
        Self::FrontNotFresh,
        Self::AnyShards,
        Self::NewerStays,
        Self::MergeTornRows,
    ];

    /// Those that a simulated world must notice.
    pub const ALL: [Self; 26] = [
        Self::SkipFence,
        Self::FenceOne,
        Self::SkipLevel,
        Self::LevelToLowest,
        Self::LevelListedOnly,
        Self::FirstPageOnly,
        Self::AcknowledgeOne,
        Self::AcknowledgeAllButOne,
        Self::ForgetOnReconnect,
        Self::ReadNoWait,
        Self::FlushNoWait,
        Self::IgnoreLease,
        Self::CompleteTooFar,
        Self::RestampOnRetry,
        Self::QuiesceNoDrain,
        Self::QuiesceNoHold,
        Self::AcknowledgeAtSend,
        Self::AcceptLowerGeneration,
        Self::FenceNotDurable,
        Self::ReplyBeforeDurable,
        Self::ForgetDoubt,
        Self::ForgetDoubtOnRestart,
        Self::DuplicateNoWait,
        Self::CompleteSettlesAll,
        Self::IgnoreFollows,
        Self::ComeInSync,
    ];

    /// Rules that other rules cover in a group without joining disks: the generation keeps late
    /// writes off sealed layers and dead branches, the log's order drains before a fence is durable,
    /// a stale interval only matters to disks that come back empty, and the doubt of a level only
    /// matters once the disk that it came from is evicted (W3's trace needs that). And one that a
    /// world found, but that a bounded run meets too rarely. Beside each, the unit test of this crate
    /// that must notice.
    pub const SECOND_LINES: [(Self, &'static str); 22] = [
        (
            Self::NewestVersionOnly,
            "rows::rebuilding::tests::a_version_that_may_not_be_complete_comes_with_the_one_before_it",
        ),
        (
            Self::KeepOksOverInterval,
            "owner::tests::oks_of_a_former_interval_do_not_count",
        ),
        (
            Self::FenceNoDrain,
            "replica::tests::a_fence_waits_for_the_old_owners_writes_that_are_on_their_way_and_lists_them",
        ),
        (
            Self::AcceptAnyInterval,
            "replica::tests::another_interval_is_refused_if_it_is_lower_and_looked_up_if_it_is_higher",
        ),
        (
            Self::AcceptSealed,
            "replica::tests::a_sealed_layer_takes_no_write_of_whatever_generation",
        ),
        (
            Self::OkForDeadBranch,
            "replica::tests::a_write_that_is_there_already_is_ok_and_one_of_a_dead_branch_is_not",
        ),
        (
            Self::ForgetDoubtOfLevel,
            "replica::tests::what_was_levelled_is_in_doubt_until_it_is_said_to_be_complete",
        ),
        (
            Self::MergeUnderReads,
            "replica::tests::a_merge_waits_until_nobody_shows_the_layer_and_the_reads_there_are_done",
        ),
        (
            Self::MergeLate,
            "replica::tests::reclaiming::a_merge_that_the_map_does_not_want_any_more_is_not_done",
        ),
        (
            Self::NewerLacksMerged,
            "replica::tests::coming_back::what_stays_gets_the_blocks_of_a_parent_that_the_source_has_merged",
        ),
        (
            Self::SkipTable,
            "replica::tests::coming_back::nothing_is_compared_before_the_sources_generations_are_durable_here",
        ),
        (
            Self::KeepListOverFence,
            "replica::tests::coming_back::a_list_from_before_a_fence_promotes_nobody",
        ),
        (
            Self::KeepNewer,
            "replica::tests::coming_back::what_a_dead_owner_wrote_here_alone_goes",
        ),
        (
            Self::PullLowers,
            "replica::tests::coming_back::what_was_confirmed_to_the_present_owner_stays",
        ),
        (
            Self::ForgetDoubtOfCopy,
            "replica::tests::coming_back::a_copy_of_what_is_in_doubt_at_the_source_is_in_doubt",
        ),
        (
            Self::EvictTheNeeded,
            "membership::tests::a_disk_in_sync_goes_while_enough_others_are_in_sync",
        ),
        (
            Self::HeartbeatOfOne,
            "owner::tests::heartbeats::one_slot_that_confirms_is_not_enough",
        ),
        (
            Self::FenceNoWait,
            "replica::tests::vouching::the_next_owner_waits_out_what_was_said_to_the_former_one",
        ),
        (
            Self::CompareMerged,
            "replica::tests::scrubbing::a_layer_that_merges_take_away_is_not_compared",
        ),
        (
            Self::CompareInDoubt,
            "replica::tests::scrubbing::what_is_in_doubt_there_is_no_difference",
        ),
        (
            Self::LeaveBeforeArrival,
            "relocation::tests::a_live_disk_is_replaced_without_a_moment_of_fewer_copies",
        ),
        (
            Self::StraysUnderReads,
            "replica::tests::strays::nothing_goes_under_a_read_that_was_let_in_before",
        ),
    ];
}

/// Whether a rule is left out now. Never, without the feature `mutants`.
#[cfg(not(any(test, feature = "mutants")))]
#[inline]
pub const fn active(_mutation: Mutation) -> bool {
    false
}

#[cfg(any(test, feature = "mutants"))]
pub use switch::{active, set};

#[cfg(any(test, feature = "mutants"))]
mod switch {
    //! The thread's switch.
    use super::Mutation;
    use std::cell::Cell;

    /// Names the rule that every thread of a process leaves out from its start on.
    const VARIABLE: &str = "STORAGED_MUTANT";

    thread_local! {
        static ACTIVE: Cell<Option<Mutation>> = Cell::new(named());
    }

    /// The rule that the environment names. A name that is nobody's plants nothing.
    fn named() -> Option<Mutation> {
        let name = std::env::var(VARIABLE).ok()?;
        let second = Mutation::SECOND_LINES.map(|(mutation, _)| mutation);
        let mut all = Mutation::ALL.into_iter().chain(Mutation::ROWS).chain(second);
        all.find(|mutation| format!("{mutation:?}") == name)
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

//! The rules of the protocol that the model can leave out, one at a time. Which of the reviews' counterexamples each
//! is, and where `crates/replication` keeps it, is in `docs/protocol/model.md`.

/// A rule. The names say what holds while it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Rule 1: a disk refuses generations below the highest that it has seen.
    LowerGenerationRefused,
    /// Rule 1: a generation is durable before anything is answered on its ground.
    GenerationDurable,
    /// Rule 2: a disk takes requests of its own interval only.
    OwnIntervalOnly,
    /// Rule 2: who answers a disk that comes back is in the asker's interval, durably.
    SourceOfSameInterval,
    /// Rule 2, P9: a disk serves nothing while a swap of its own state is under way.
    NothingDuringOwnSwap,
    /// Rule 3: a write is acknowledged when every slot that is awaited said ok.
    AllOks,
    /// Rule 3: slots that are joining are awaited too.
    JoiningAwaited,
    /// Rule 3: and at least so many are in sync as the pool says.
    EnoughInSync,
    /// Rule 3, V6: oks of a former interval are void.
    OksOfThisInterval,
    /// Rule 3: ok means durable.
    OkIsDurable,
    /// Rule 4: a slot in sync leaves only while enough others are in sync.
    NeededStays,
    /// Rule 5, V2: a write is applied on exactly the stamp that it follows.
    FollowsExactly,
    /// Rule 5, Q10: a write is taken for there already only within its generation.
    OkWithinGeneration,
    /// Rule 6: a write puts its object in doubt.
    WriteInDoubt,
    /// Rule 6, W3: so does a level.
    LevelInDoubt,
    /// Rule 6, W2: so does a copy of what is in doubt at the source.
    CopyInDoubt,
    /// Rule 6: what is in doubt stays so over a restart.
    DoubtDurable,
    /// Rule 6: complete is up to the first write that is not acknowledged.
    CompleteIsAcknowledged,
    /// Rule 6, W10: what slots that join have not confirmed is not complete.
    CompleteWithJoining,
    /// Rule 6: complete takes the doubt off what is not above it, and off nothing else.
    CompleteUpToStamp,
    /// Rule 7: every slot in sync or joining is fenced.
    FenceAll,
    /// Rule 7: what is in doubt is made level before anything is served.
    LevelFirst,
    /// Rule 7: to the highest stamp.
    LevelToHighest,
    /// Rule 7: on all disks in sync, also on those that do not list it.
    LevelAll,
    /// Rule 7, W4: doubt stays until all of the group is level.
    DoubtUntilLevel,
    /// Rule 7: an interval that changes meanwhile begins the take-over again.
    AgainWithInterval,
    /// Rule 9, V1: a read waits for writes in flight.
    ReadWaits,
    /// Coming back, V3: the source's generations are taken over first.
    TableFirst,
    /// Coming back, V3: what is newer stays only if it is of the present generation.
    DeadBranchGoes,
    /// Coming back, W1: what may have been confirmed to the present owner stays.
    ConfirmedStays,
    /// Coming back, W6: an object is replaced in one durable step.
    CopyInOneStep,
    /// Coming back, V13: and only if it has not changed since it was compared.
    CopyIfUnchanged,
    /// Coming back, W7: a fence voids what was listed, until its owner serves.
    FenceVoidsList,
    /// Coming back, V10: who restarts as joining begins as syncing.
    RestartBeginsAnew,
    /// Coming back: the interval in which a disk asks to be in sync is durable there before it asks, so that V10 holds
    /// though the swap is made after a restart.
    IntervalDurableBeforeSwap,
    /// Coming back: nobody is in sync who has not gone through it all while joining.
    VerifiedWhileJoining,
    /// Coming back: the swap is made only if the interval is still the one that was verified in.
    SwapOfSameInterval,
    /// Moving: who is replaced stays until another one has arrived.
    LeaveAfterArrival,
    /// Moving: who comes is out of sync.
    ComeOutOfSync,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 39] = [
        Self::LowerGenerationRefused,
        Self::GenerationDurable,
        Self::OwnIntervalOnly,
        Self::SourceOfSameInterval,
        Self::NothingDuringOwnSwap,
        Self::AllOks,
        Self::JoiningAwaited,
        Self::EnoughInSync,
        Self::OksOfThisInterval,
        Self::OkIsDurable,
        Self::NeededStays,
        Self::FollowsExactly,
        Self::OkWithinGeneration,
        Self::WriteInDoubt,
        Self::LevelInDoubt,
        Self::CopyInDoubt,
        Self::DoubtDurable,
        Self::CompleteIsAcknowledged,
        Self::CompleteWithJoining,
        Self::CompleteUpToStamp,
        Self::FenceAll,
        Self::LevelFirst,
        Self::LevelToHighest,
        Self::LevelAll,
        Self::DoubtUntilLevel,
        Self::AgainWithInterval,
        Self::ReadWaits,
        Self::TableFirst,
        Self::DeadBranchGoes,
        Self::ConfirmedStays,
        Self::CopyInOneStep,
        Self::CopyIfUnchanged,
        Self::FenceVoidsList,
        Self::RestartBeginsAnew,
        Self::IntervalDurableBeforeSwap,
        Self::VerifiedWhileJoining,
        Self::SwapOfSameInterval,
        Self::LeaveAfterArrival,
        Self::ComeOutOfSync,
    ];
}

/// For each rule the name of a scope in which a law is broken if it is left out.
pub const WITNESSES: &[(Rule, &str)] = &[
    (Rule::LowerGenerationRefused, "zombie"),
    (Rule::GenerationDurable, "restart"),
    (Rule::OwnIntervalOnly, "join"),
    (Rule::SourceOfSameInterval, "join"),
    (Rule::NothingDuringOwnSwap, "joining"),
    (Rule::AllOks, "pair"),
    (Rule::JoiningAwaited, "joining"),
    (Rule::EnoughInSync, "short-handed"),
    (Rule::OksOfThisInterval, "replace"),
    (Rule::OkIsDurable, "restart"),
    (Rule::NeededStays, "needed"),
    (Rule::FollowsExactly, "pipeline"),
    (Rule::WriteInDoubt, "pair"),
    (Rule::LevelInDoubt, "level"),
    (Rule::CopyInDoubt, "joining-evict"),
    (Rule::DoubtDurable, "restart"),
    (Rule::CompleteIsAcknowledged, "pair"),
    (Rule::CompleteWithJoining, "joining"),
    (Rule::CompleteUpToStamp, "pair"),
    (Rule::FenceAll, "pair"),
    (Rule::LevelFirst, "pair"),
    (Rule::LevelToHighest, "pair"),
    (Rule::LevelAll, "pair"),
    (Rule::DoubtUntilLevel, "pair"),
    (Rule::AgainWithInterval, "evict"),
    (Rule::ReadWaits, "pair"),
    (Rule::TableFirst, "evict"),
    (Rule::DeadBranchGoes, "joining"),
    (Rule::ConfirmedStays, "joining"),
    (Rule::CopyInOneStep, "joining-restart"),
    (Rule::CopyIfUnchanged, "joining"),
    (Rule::FenceVoidsList, "joining"),
    (Rule::RestartBeginsAnew, "joining-restart"),
    (Rule::IntervalDurableBeforeSwap, "join-restart"),
    (Rule::VerifiedWhileJoining, "join"),
    (Rule::SwapOfSameInterval, "joining-evict"),
    (Rule::LeaveAfterArrival, "move"),
    (Rule::ComeOutOfSync, "move"),
];

/// Rules that others cover in all worlds that were explored: nothing is broken without them.
pub const SECOND_LINES: &[Rule] = &[Rule::OkWithinGeneration];

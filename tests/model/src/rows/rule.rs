//! The rules of rows that the model can leave out, one at a time.

/// A rule. The names say what holds while it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A row's new chunks go where those of its last complete version are not.
    TwoPlaces,
    /// A row is written again only when it is acknowledged.
    RowAfterRow,
    /// A row is acknowledged when all shards in sync have it.
    AllShards,
    /// A take-over takes the highest version that k shards have, and no higher one.
    EnoughShards,
    /// What is newer than that goes from all shards.
    NewerGoes,
    /// What is older stays until all have that version.
    OlderStays,
    /// A front's chunk counts only if it was written after the row.
    StampsDecide,
    /// The first write to a front's chunk after the row was written drops what the chunk had.
    FreshAfterRow,
    /// A front is not written to while its row is.
    FrontWaitsForRow,
    /// What is encoded is read when nothing is on its way.
    EncodeAlone,
    /// And until it is on its way, the front is not written to.
    EncodeHolds,
    /// A version is forgotten only when the one after it is acknowledged.
    ForgetAcknowledged,
    /// A take-over begins again when a disk leaves.
    AgainWithInterval,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::TwoPlaces,
        Self::RowAfterRow,
        Self::AllShards,
        Self::EnoughShards,
        Self::NewerGoes,
        Self::OlderStays,
        Self::StampsDecide,
        Self::FreshAfterRow,
        Self::FrontWaitsForRow,
        Self::EncodeAlone,
        Self::EncodeHolds,
        Self::ForgetAcknowledged,
        Self::AgainWithInterval,
    ];

    /// Those without which nothing was broken: another rule covers them here.
    pub const SECOND_LINES: [Self; 1] = [Self::AgainWithInterval];
}

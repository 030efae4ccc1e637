//! What operations ask of owners: to be at rest while a transaction moves a volume's head.
//!
//! Who carries that out is the business of sessions: an open volume's front end is asked to drain,
//! and a volume that nobody has open is taken over, so that all its copies are level (rule 7).

use async_trait::async_trait;
use coordination::{Compare, Revision};
use protocol::VolumeId;

/// Why a volume did not come to rest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestError {
    /// Its owner did not drain in time; the message says who it is and what it waits for.
    #[error("{0}")]
    NotInTime(String),
    /// Nobody has it open, and it cannot be taken over: the message says why.
    #[error("{0}")]
    NotTakenOver(String),
    /// The operation needs a volume that nobody has open.
    #[error("{0}")]
    InUse(String),
}

/// Whoever can speak with the owners of volumes.
#[async_trait]
pub trait Owners: Send + Sync + 'static {
    /// Brings volumes to rest together: all that was written is acknowledged, the copies are equal,
    /// and nothing more is written until the answer is ended or dropped. All or none.
    async fn bring_to_rest(&self, volumes: &[VolumeId]) -> Result<Box<dyn AtRest>, RestError>;

    /// Has a volume let go by a `storaged` that has it only to do what can wait, if it is open so.
    async fn dismiss_caretaker(&self, volume: VolumeId);

    /// Moves a volume on that moves to another pool and that nobody has open, until it is there or somebody wants it;
    /// then lets it go. The answer says whether it is there.
    async fn move_on(&self, volume: VolumeId) -> Result<bool, RestError>;

    /// Encodes what is at rest in a volume that nobody has open and whose pool encodes rows, until all is or somebody wants
    /// it; then lets it go. The answer says whether all is.
    async fn encode(&self, volume: VolumeId) -> Result<bool, RestError>;

    /// Takes over a volume that nobody has open and makes its bytes from `from` to `to` read as
    /// zeros, in a view of it that is as large as that; then lets it go. `progress` is told of bytes
    /// done. Both ends are multiples of 4096.
    async fn zero_beyond(
        &self,
        volume: VolumeId,
        from: u64,
        to: u64,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RestError>;
}

/// Volumes at rest. Dropping it lets the owners go on as they were.
#[async_trait]
pub trait AtRest: Send + Sync {
    /// On what conditions the volume is still at rest: a transaction about it must be made on these. Nothing if
    /// it is not one of these volumes.
    fn conditions(&self, volume: VolumeId) -> Option<Vec<Compare>>;

    /// Ends the rest: owners go on with their volumes as the map shows them at this revision. When it
    /// returns, the map shows no owner any more of volumes that were taken over for this: whoever
    /// deletes a volume right after a snapshot must not find it in use.
    async fn end(self: Box<Self>, at: Revision);
}

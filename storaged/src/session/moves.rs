//! Volumes that move to another pool: how far their owners say they are, and who moves those that nobody has open.

use std::sync::Arc;
use std::time::Duration;

use coordination::Outcome;
use protocol::session::SessionRefusal;
use protocol::{Generation, VolumeId};
use tokio::time::timeout;
use tracing::info;

use super::Sessions;
use super::ownership::Refused;
use super::visit::{MOVER, Visitor};
use crate::volumes::OperationError;
use crate::volumes::rest::RestError;
use crate::volumes::retype::{self, Progress};

/// Attempts to note progress while other records change.
const ATTEMPTS_MAX: usize = 16;
/// How long one who only moves a volume may take to leave it.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

impl Sessions {
    /// Notes how much of a volume its owner has moved; with all of it the move is over.
    pub(super) async fn moved(
        &self,
        volume: VolumeId,
        generation: Generation,
        moved: u64,
    ) -> Result<(), Refused> {
        let mut map = self.map.current();
        for _ in 0..ATTEMPTS_MAX {
            let transaction =
                match retype::progress(&map, volume, generation, moved).map_err(|error| refused(&error))? {
                    Progress::Known => return Ok(()),
                    Progress::News(transaction) => transaction,
                    Progress::NotTheirs => {
                        let message = format!("{volume} was taken over");
                        return Err(Refused::new(SessionRefusal::Lost, message));
                    }
                };
            match self.store.commit(transaction).await? {
                Outcome::Committed(revision) => {
                    self.map.at_least(revision).await;
                    return Ok(());
                }
                Outcome::Conflict(revision) => map = self.map.at_least(revision).await,
            }
        }
        let message = "other records change all the time: try again";
        Err(Refused::new(SessionRefusal::Unavailable, message))
    }

    /// Whether some `storaged` has the volume only to move it.
    pub(super) fn is_moved_for_us(&self, volume: VolumeId) -> bool {
        let map = self.map.current();
        map.owner(volume)
            .is_some_and(|owner| owner.record.program == MOVER)
    }

    /// Has whoever only moves a volume let it go, if it is one of those.
    pub(super) async fn clear_mover(&self, volume: VolumeId) {
        let map = self.map.current();
        let Some(generation) = map.generation(volume) else {
            return;
        };
        if !self.is_moved_for_us(volume) {
            return;
        }
        self.want(volume).await;
        let left = timeout(LEAVE_LIMIT, self.until_not_owned(volume, generation)).await;
        self.want_no_more(volume).await;
        if left.is_err() {
            info!(%volume, "whoever moves it does not leave");
        }
    }

    /// Moves a volume on that nobody has open, until it is done or somebody wants it. The answer says whether it is done.
    pub(super) async fn move_by_visit(self: &Arc<Self>, volume: VolumeId) -> Result<bool, RestError> {
        let visitor = Visitor::enter_as(self, volume, MOVER).await?;
        let mut map = self.map.clone();
        let over = async { while map.current_and_seen().moving(volume).is_some() && map.changed().await {} };
        let done = tokio::select! {
            () = over => true,
            () = visitor.wanted() => false,
        };
        let (volume, generation) = visitor.leave().await;
        self.until_not_owned(volume, generation).await;
        Ok(done)
    }
}

fn refused(error: &OperationError) -> Refused {
    Refused::new(SessionRefusal::Invalid, error.to_string())
}

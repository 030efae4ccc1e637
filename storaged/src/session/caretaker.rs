//! Visits that can wait: a volume that nobody has open is moved on to another pool, or what is at rest in it is encoded,
//! and it is let go as soon as somebody wants it.

use std::sync::Arc;
use std::time::Duration;

use protocol::VolumeId;
use tokio::time::timeout;
use tracing::info;

use super::Sessions;
use super::visit::{CARETAKER, Visitor};
use crate::volumes::rest::RestError;

/// How long a caretaker may take to leave a volume.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

impl Sessions {
    /// Whether some `storaged` has the volume only to do what can wait.
    pub(super) fn has_caretaker(&self, volume: VolumeId) -> bool {
        let map = self.map.current();
        map.owner(volume)
            .is_some_and(|owner| owner.record.program == CARETAKER)
    }

    /// Has whoever only does what can wait let a volume go.
    pub(super) async fn dismiss_caretaker(&self, volume: VolumeId) {
        let map = self.map.current();
        let Some(generation) = map.generation(volume) else {
            return;
        };
        if !self.has_caretaker(volume) {
            return;
        }
        self.want(volume).await;
        let left = timeout(LEAVE_LIMIT, self.until_not_owned(volume, generation)).await;
        self.want_no_more(volume).await;
        if left.is_err() {
            info!(%volume, "its caretaker does not leave");
        }
    }

    /// Moves a volume on that nobody has open, until it is done or somebody wants it. The answer says whether it is done.
    pub(super) async fn move_by_visit(self: &Arc<Self>, volume: VolumeId) -> Result<bool, RestError> {
        let visitor = Visitor::enter_as(self, volume, CARETAKER).await?;
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

    /// Encodes what is at rest in a volume that nobody has open, until all is, or somebody wants it. The answer says
    /// whether all is.
    pub(super) async fn encode_by_visit(self: &Arc<Self>, volume: VolumeId) -> Result<bool, RestError> {
        let visitor = Visitor::enter_as(self, volume, CARETAKER).await?;
        let done = tokio::select! {
            () = visitor.encoded() => true,
            () = visitor.wanted() => false,
        };
        let (volume, generation) = visitor.leave().await;
        self.until_not_owned(volume, generation).await;
        Ok(done)
    }
}

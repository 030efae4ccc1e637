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

/// How long a caretaker may take to leave a volume: it ends the step that it is at.
pub(super) const LEAVE_LIMIT: Duration = Duration::from_secs(10);

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

    /// Visits a volume that nobody has open, until what is to be done there is done or somebody wants it. The answer says
    /// whether it is done.
    pub(super) async fn attend(
        self: &Arc<Self>,
        volume: VolumeId,
        done: impl AsyncFnOnce(&Visitor),
    ) -> Result<bool, RestError> {
        let visitor = Visitor::enter_as(self, volume, CARETAKER).await?;
        let done = tokio::select! {
            () = done(&visitor) => true,
            () = visitor.wanted() => false,
        };
        visitor.leave(self).await;
        Ok(done)
    }
}

//! A connection whose volume moves to another pool: who may have it, how far its owner says it is, and that whoever moves
//! it on our behalf makes way.

use std::time::Duration;

use coordination::ClusterMap;
use protocol::VolumeId;
use protocol::session::SessionRefusal;

use super::super::ownership::Refused;
use super::{FrontEnd, Waiting};

/// How long whoever opens a volume waits at least for one who only moves it: that one ends the step that it is at.
const MOVER_LEAVES: Duration = Duration::from_secs(10);

impl FrontEnd {
    /// Refuses a volume that moves to one who would see only what is moved.
    pub(super) fn refuse_unable(
        &self,
        map: &ClusterMap,
        volume: VolumeId,
        name: &str,
    ) -> Result<(), Refused> {
        if self.moves || map.moving(volume).is_none() {
            return Ok(());
        }
        let message = format!(
            "volume {name:?} moves to another pool, and this program ({}) is too old to go on with it meanwhile: upgrade \
             it, or wait until `storagectl volume info` says that the move is over",
            self.program
        );
        Err(Refused::new(SessionRefusal::Invalid, message))
    }

    /// The front end knows by itself how far it is: it need not be told.
    pub(super) fn know_moved(&mut self, moved: u64) {
        let view = self.open.as_mut().map(|open| &mut open.view);
        if let Some(moving) = view.and_then(|view| view.moving.as_mut()) {
            moving.moved = moving.moved.max(moved);
        }
    }

    /// Has whoever only moves the volume make way for the one who waits.
    pub(super) fn ask_mover(&self, waiting: &mut Waiting, volume: VolumeId) {
        if self.sessions.is_moved_for_us(volume) && !self.is_mover() {
            waiting.until = waiting.until.max(waiting.began + MOVER_LEAVES);
            waiting.asks = true;
        }
    }
}

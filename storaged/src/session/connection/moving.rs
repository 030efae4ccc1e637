//! A connection whose volume moves to another pool: who may have it, how far its owner says it is, and that whoever moves
//! it on our behalf makes way.

use coordination::ClusterMap;
use protocol::VolumeId;
use protocol::session::{SessionRefusal, VolumeView};

use super::super::caretaker::LEAVE_LIMIT;
use super::super::ownership::Refused;
use super::{FrontEnd, Waiting};

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

    /// A visitor comes to a volume whatever became of its last owner. If that one comes again, it must find as much moved
    /// as it knows of.
    pub(super) fn move_nothing(view: &mut VolumeView) {
        if let Some(moving) = &mut view.moving {
            moving.rate = 0;
        }
    }

    /// Has a caretaker make way for the one who waits.
    pub(super) fn ask_caretaker(&self, waiting: &mut Waiting, volume: VolumeId) {
        if self.sessions.has_caretaker(volume) && !self.is_caretaker() {
            waiting.until = waiting.until.max(waiting.began + LEAVE_LIMIT);
            waiting.asks = true;
        }
    }
}

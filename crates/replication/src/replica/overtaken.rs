//! A damaged chunk that nobody has as it was: it goes if nobody needs it, for its row was written since in the same layer.
//!
//! The version before a row's last one, and what a front has from before its row, are spare. Where their layer was sealed
//! before they were given back they stay on some disks, and a merge has left them out on others
//! (`docs/decisions/0053-rows-of-owners.md`). Whether a row is complete is decided as for such a merge.

use bytes::Bytes;
use protocol::rows::{RowPlace, is_rows, rows_index};
use protocol::storage::{StorageError, StorageReply, StorageRequest};
use protocol::{ObjectId, Stamp};

use super::Replica;
use super::event::Action;
use crate::rows::{absent, replacement};
use crate::scrub::{Broken, Doing, Progress, Reason};

impl Replica {
    /// No other disk had a damaged chunk as it must be. Looks whether its row was written since: of rows that may be torn
    /// nothing is known, for the newer version may turn out not to be there.
    pub(super) fn nobody_has(&mut self, broken: Broken, out: &mut Vec<Action>) {
        let object = broken.state.object;
        let rows = rows_of(object);
        let pg = self.map.placement(object.family, object.index);
        let encodes = pg.is_some_and(|pg| self.map.profile(pg).is_some());
        if !encodes || self.may_be_torn(rows) {
            let reason = broken.reason;
            return self.not_mended(&broken, reason, out);
        }
        self.scrub.doing = Doing::LookingAtRow(broken);
        let (family, index) = (rows.family, rows.index);
        self.ask_for_scrub(StorageRequest::Column { family, index }, out);
    }

    /// Our store told what it has of the rows.
    pub(super) fn row_looked_at(
        &mut self,
        broken: Broken,
        result: Result<StorageReply, StorageError>,
        out: &mut Vec<Action>,
    ) {
        let written = result.ok().and_then(|reply| self.row_written(&broken, &reply));
        let gone = absent(u32::from(broken.chunk.state.chunk));
        let overtaken = written.is_some_and(|written| broken.chunk.state.stamp < written);
        let Some(gone) = gone.filter(|_| overtaken) else {
            let reason = broken.reason;
            return self.not_mended(&broken, reason, out);
        };
        let (object, stamp) = (broken.state.object, broken.state.stamp);
        let request = StorageRequest::Replace {
            follows: stamp,
            delta: replacement(object, stamp, vec![gone], Bytes::new()),
            doubt: false,
        };
        self.scrub.doing = Doing::TakingAway(broken);
        self.ask_for_scrub(request, out);
    }

    /// When the row of a damaged chunk was written last in its layer.
    fn row_written(&self, broken: &Broken, reply: &StorageReply) -> Option<Stamp> {
        let StorageReply::Listed { objects, .. } = reply else {
            return None;
        };
        let (object, chunk) = (broken.state.object, u32::from(broken.chunk.state.chunk));
        let pg = self.map.placement(object.family, object.index)?;
        let data = self.map.profile(pg)?.data();
        let row = if is_rows(object.index) {
            RowPlace::of_chunk(chunk).0
        } else {
            chunk / u32::from(data)
        };
        let rows = objects.iter().find(|state| state.object == rows_of(object))?;
        let of_row = rows
            .chunks
            .iter()
            .filter(|chunk| chunk.present != 0 && RowPlace::of_chunk(u32::from(chunk.chunk)).0 == row);
        of_row.map(|chunk| chunk.stamp).max()
    }

    /// The store has taken it away, or something came between.
    pub(super) fn taken_away(
        &mut self,
        broken: &Broken,
        result: &Result<StorageReply, StorageError>,
        out: &mut Vec<Action>,
    ) {
        if result.is_err() {
            return self.not_mended(broken, Reason::Changing, out);
        }
        self.scrub.tries.remove(&broken.window());
        let progress = Progress::Step {
            objects: 0,
            blocks: 0,
        };
        self.tell(progress, out);
    }
}

/// The rows of an object's range, in its layer.
fn rows_of(object: ObjectId) -> ObjectId {
    ObjectId {
        index: rows_index(object.index),
        ..object
    }
}

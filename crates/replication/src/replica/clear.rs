//! A disk that was given a slot of a group of shards forgets what it has of the group from before: that may be of
//! another shard, with the same stamps and other bytes (`docs/decisions/0055-another-shard.md`). Then it comes back as an
//! empty one does.
//!
//! The interval that is durable here tells which it is, over any restart: up to the one in which the slot was given, what
//! is here is of before. It is raised to that one first, so that records that go back in time are never served from what
//! is being dropped; and above it when nothing is left.

use std::collections::VecDeque;

use protocol::storage::{ObjectState, StorageError, StorageReply, StorageRequest};
use protocol::{Interval, ObjectId, PgId};

use super::Replica;
use super::event::Action;
use super::judge::is_of_before;
use crate::recovery::{Cursor, Step};

/// Objects in a page of our own list.
const PAGE: usize = 256;

impl Replica {
    /// In which interval we were given our slot in a group, if what is here is of before.
    fn before(&self, pg: PgId) -> Option<Interval> {
        let own = self.map.group(pg)?.slot_of(self.disk)?;
        let durable = self.intervals.get(&pg).copied().unwrap_or_default().durable;
        is_of_before(own, durable).then_some(own.arrived)
    }

    /// Begins to drop what is of before, if there may be something, or waits until it can.
    pub(super) fn clears(&mut self, pg: PgId, out: &mut Vec<Action>) -> bool {
        let Some(arrived) = self.before(pg) else {
            return false;
        };
        let known = self.intervals.get(&pg).copied().unwrap_or_default();
        if known.durable < arrived {
            self.raise_interval(pg, arrived, out);
        } else if !self.reclaims.reads_in(pg) {
            self.list_what_goes(pg, None, out);
        }
        true
    }

    fn list_what_goes(&mut self, pg: PgId, after: Option<ObjectId>, out: &mut Vec<Action>) {
        let Some(filling) = self.recovery.groups.get_mut(&pg) else {
            return;
        };
        filling.step = Step::Clearing;
        self.ask_own(pg, StorageRequest::List { after, limit: PAGE }, out);
    }

    /// Our own store answered, while a group is cleared.
    pub(super) fn cleared(
        &mut self,
        pg: PgId,
        result: Result<StorageReply, StorageError>,
        out: &mut Vec<Action>,
    ) {
        let Some(filling) = self.recovery.groups.get_mut(&pg) else {
            return;
        };
        match (std::mem::replace(&mut filling.step, Step::Paused), result) {
            (Step::Clearing, Ok(StorageReply::Listed { objects, more })) => {
                let next = Cursor::behind(&objects, more);
                let here = |state: &ObjectState| {
                    let object = state.object;
                    (self.map.placement(object.family, object.index) == Some(pg)).then_some(object)
                };
                let going: VecDeque<ObjectId> = objects.iter().filter_map(here).collect();
                self.drop_next(pg, going, next, out);
            }
            (Step::Dropping(mut going, next), Ok(_)) => {
                if let Some(gone) = going.pop_front() {
                    self.doubt.gone(gone);
                }
                self.drop_next(pg, going, next, out);
                self.resume_reclaims(out);
            }
            // Tried again with the next nudge.
            _ => {}
        }
    }

    fn drop_next(&mut self, pg: PgId, going: VecDeque<ObjectId>, next: Cursor, out: &mut Vec<Action>) {
        let first = going.front().copied();
        let Some(filling) = self.recovery.groups.get_mut(&pg) else {
            return;
        };
        match (first, next) {
            (Some(object), next) => {
                filling.step = Step::Dropping(going, next);
                self.ask_own(pg, StorageRequest::Drop(object), out);
            }
            (None, Cursor::After(after)) => self.list_what_goes(pg, after, out),
            (None, Cursor::End) => {
                let interval = filling.interval;
                filling.step = Step::Table;
                self.raise_interval(pg, interval, out);
            }
        }
    }
}

//! What lies here of groups in which the disk has no slot any more: it is given back.
//!
//! Only the map says so (P5): an object goes if its family is known, and its group is, and the disk is not in it.
//! Of what the map does not know nothing is touched. It goes slowly, with the driver's nudges: nobody waits for it.

use std::collections::BTreeSet;

use protocol::map::MapView;
use protocol::storage::{ObjectState, StorageError, StorageReply, StorageRequest};
use protocol::{DiskId, Interval, ObjectId, PgId};

use super::event::Action;
use super::{Asked, Replica};
use crate::mutation::{self, Mutation};
use crate::recovery::Cursor;

/// Objects in a page of our own list.
const PAGE: usize = 64;
/// Pages that are looked at with one nudge.
const PAGES_PER_NUDGE: usize = 16;

/// How far the search is.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// The groups that we had a slot in, by the last map.
    groups: BTreeSet<PgId>,
    /// Where the list goes on; nothing while nothing is searched for.
    next: Option<Cursor>,
    /// Answers of the store that are awaited.
    awaited: usize,
    /// Pages that may still be looked at before the next nudge.
    pages: usize,
    /// Something could not go yet, or a group was lost meanwhile: all is listed once more.
    again: bool,
}

impl Strays {
    /// For a disk that was just started: what it lost while it was away is not known, unless it never had anything.
    pub(super) fn of(disk: DiskId, map: &dyn MapView, is_new: bool) -> Self {
        Self {
            groups: map.groups_with(disk).into_iter().collect(),
            next: (!is_new).then_some(Cursor::After(None)),
            ..Self::default()
        }
    }

    fn begin(&mut self) {
        if self.next.is_none() {
            self.next = Some(Cursor::After(None));
        } else {
            self.again = true;
        }
    }
}

/// What becomes of an object.
enum Fate {
    /// It is ours, or nobody knows whose.
    Stays,
    /// Not yet.
    Waits,
    Goes,
}

impl Replica {
    /// Whether something is searched for.
    pub fn has_strays(&self) -> bool {
        self.strays.next.is_some()
    }

    /// The map changed: if we have lost a group, what is here of it is searched for.
    pub(super) fn follow_strays(&mut self) {
        let groups: BTreeSet<PgId> = self.map.groups_with(self.disk).into_iter().collect();
        let before = std::mem::replace(&mut self.strays.groups, groups);
        // A pool that is deleted takes its groups with it: its families went before.
        if !before.is_subset(&self.strays.groups) {
            self.strays.begin();
        }
    }

    /// The store has merged an object of a group into another layer: if we have lost the group, it is where a search that
    /// is under way may have been already (seed 64876 of the simulator's, of its time).
    pub(super) fn has_merged(&mut self, pg: PgId) {
        if self.lost(pg).is_some() {
            self.strays.begin();
        }
    }

    /// Some time has passed.
    pub(super) fn search_for_strays(&mut self, out: &mut Vec<Action>) {
        self.strays.pages = PAGES_PER_NUDGE;
        self.next_page_of_strays(out);
    }

    fn next_page_of_strays(&mut self, out: &mut Vec<Action>) {
        let strays = &mut self.strays;
        if strays.awaited > 0 || strays.pages == 0 {
            return;
        }
        match strays.next {
            None => {}
            Some(Cursor::After(after)) => {
                strays.pages -= 1;
                strays.awaited = 1;
                let list = StorageRequest::List { after, limit: PAGE };
                self.ask(Asked::Strays(None), list, out);
            }
            Some(Cursor::End) => {
                let again = std::mem::take(&mut strays.again) || self.more_may_come();
                self.strays.next = again.then_some(Cursor::After(None));
                if !again {
                    let (map, disk) = (self.map.clone(), self.disk);
                    let lost = |pg| map.group(pg).is_some_and(|group| group.slot_of(disk).is_none());
                    self.doubt.group_is_gone(lost);
                }
            }
        }
    }

    /// Whether the store still works on something that was let in while we had its group.
    fn more_may_come(&self) -> bool {
        self.coming().any(|object| {
            let pg = self.map.placement(object.family, object.index);
            pg.is_some_and(|pg| self.lost(pg).is_some())
        })
    }

    /// The store answered: with a page, or that an object is gone.
    pub(super) fn strays_told(
        &mut self,
        object: Option<ObjectId>,
        result: Result<StorageReply, StorageError>,
        out: &mut Vec<Action>,
    ) {
        self.strays.awaited = self.strays.awaited.saturating_sub(1);
        match (object, result) {
            (Some(object), Ok(_)) => self.doubt.gone(object),
            (Some(_), Err(_)) => self.strays.again = true,
            (None, Ok(StorageReply::Listed { objects, more })) => self.sort_out(&objects, more, out),
            // A disk that cannot be read gives nothing back.
            (None, _) => self.strays.next = None,
        }
        self.next_page_of_strays(out);
        // What was in doubt may be gone.
        self.resume_reclaims(out);
    }

    fn sort_out(&mut self, objects: &[ObjectState], more: bool, out: &mut Vec<Action>) {
        let last = objects.last().filter(|_| more).map(|state| state.object);
        self.strays.next = Some(last.map_or(Cursor::End, |last| Cursor::After(Some(last))));
        for state in objects {
            match self.fate(state.object, out) {
                Fate::Stays => {}
                Fate::Waits => self.strays.again = true,
                Fate::Goes => {
                    self.strays.awaited += 1;
                    let drop = StorageRequest::Drop(state.object);
                    self.ask(Asked::Strays(Some(state.object)), drop, out);
                }
            }
        }
    }

    fn fate(&mut self, object: ObjectId, out: &mut Vec<Action>) -> Fate {
        let pg = self.map.placement(object.family, object.index);
        let Some((pg, interval)) = pg.and_then(|pg| self.lost(pg).map(|interval| (pg, interval))) else {
            return Fate::Stays;
        };
        let known = self.intervals.get(&pg).copied().unwrap_or_default();
        if known.seen > interval {
            // A map of the past, of records that were restored from a backup: we had the group after that.
            return Fate::Stays;
        }
        if known.durable < interval {
            // Should the records ever go back to when we had the group, we must know that we gave it away.
            self.raise_interval(pg, interval, out);
            return Fate::Waits;
        }
        let read = self.reclaims.reads_in(pg) && !mutation::active(Mutation::StraysUnderReads);
        // A read that was let in before would find nothing, and tell its owner so.
        if read { Fate::Waits } else { Fate::Goes }
    }

    /// The interval of a group that we have no slot in.
    fn lost(&self, pg: PgId) -> Option<Interval> {
        let group = self.map.group(pg)?;
        group.slot_of(self.disk).is_none().then_some(group.interval)
    }
}

//! The columns of a group on its way back: what differs is asked of the source and stored, an object at a
//! time. When to do so, and what follows, is `fill`'s business.

use std::collections::VecDeque;

use bytes::Bytes;
use protocol::map::LayerUse;
use protocol::message::Refusal;
use protocol::recovery::{Ask, Told};
use protocol::storage::{ChunkState, ObjectDelta, ObjectState, StorageError, StorageReply, StorageRequest};
use protocol::{ObjectId, PgId, Stamp};

use super::event::Action;
use super::{Asked, Replica, Wait};
use crate::mutation::{self, Mutation};
use crate::recovery::{Column, Cursor, Step, Wrong, different, united};
use crate::rows::{absent, replacement};

/// Times that a column is compared again because its source is behind.
const AGAIN_MAX: usize = 16;

impl Replica {
    /// An answer came; a question that got none is answered as refused by the driver.
    pub(super) fn heard(&mut self, number: u64, told: Result<Told, Refusal>, out: &mut Vec<Action>) {
        if self.scrub.asked == Some(number) {
            return self.scrub_heard(told, out);
        }
        let Some(pg) = self.recovery.asked.remove(&number) else {
            return;
        };
        let Some(filling) = self.recovery.groups.get_mut(&pg) else {
            return;
        };
        if matches!(filling.step, Step::Rebuilding(_)) {
            return self.rows_heard(pg, number, told, out);
        }
        let step = std::mem::replace(&mut filling.step, Step::Paused);
        match (step, told) {
            (Step::Table, Ok(Told::Table(table))) => self.take_over_table(pg, table, out),
            (Step::Listing, Ok(Told::Listed { objects, next })) => {
                filling.source_next = next.map_or(Cursor::End, |last| Cursor::After(Some(last)));
                let one = objects.iter().all(|state| column(state) == column(&objects[0]));
                let partial = one && next.is_some();
                for columns in objects.chunk_by(|a, b| column(a) == column(b)) {
                    let at = column(&columns[0]);
                    filling.seen.insert(at);
                    let known = (!partial).then(|| columns.to_vec());
                    filling.columns.push_back((at, known));
                }
                filling.step = Step::Next;
                self.advance(pg, out);
            }
            (Step::SourceColumn(at), Ok(Told::Listed { objects, .. })) => {
                self.ask_own_column(pg, at, objects, out);
            }
            (Step::Difference(wrong, rest), Ok(Told::Difference { delta, doubt })) => {
                if wrong.stays.is_some() {
                    self.unite(pg, (wrong, rest), delta, doubt, out);
                } else {
                    self.replace(pg, (wrong.ours, rest), delta, doubt, out);
                }
            }
            // A late answer to what was given up.
            (step @ (Step::Proposed | Step::Generations(_) | Step::Fenced), _) => filling.step = step,
            // Another source, with the next nudge.
            _ => self.try_another(pg),
        }
    }

    pub(super) fn ask_own_column(
        &mut self,
        pg: PgId,
        at: Column,
        source: Vec<ObjectState>,
        out: &mut Vec<Action>,
    ) {
        let Some(filling) = self.recovery.groups.get_mut(&pg) else {
            return;
        };
        filling.step = Step::OwnColumn(at, source);
        let (family, index) = at;
        self.ask_own(pg, StorageRequest::Column { family, index }, out);
    }

    /// Asks our own store for a group, one question at a time.
    pub(super) fn ask_own(&mut self, pg: PgId, request: StorageRequest, out: &mut Vec<Action>) {
        if let Some(run) = self.next_own(pg) {
            self.ask(Asked::Own(pg, run), request, out);
        }
    }

    /// The number of a group's next question to our own store. The one before, if it is still to be answered, is of
    /// something that was given up: its answer must not be taken for that of this one.
    fn next_own(&mut self, pg: PgId) -> Option<u64> {
        let filling = self.recovery.groups.get_mut(&pg)?;
        filling.run = self.recovery.next_number;
        self.recovery.next_number += 1;
        Some(filling.run)
    }

    /// Our own store answered.
    pub(super) fn own_told(
        &mut self,
        (pg, run): (PgId, u64),
        result: Result<StorageReply, StorageError>,
        out: &mut Vec<Action>,
    ) {
        let filling = self.recovery.groups.get_mut(&pg);
        let Some(filling) = filling.filter(|filling| filling.run == run) else {
            return;
        };
        match filling.step {
            Step::Rebuilding(_) => return self.rows_told(pg, result, out),
            Step::Clearing | Step::Dropping(..) => return self.cleared(pg, result, out),
            _ => {}
        }
        let step = std::mem::replace(&mut filling.step, Step::Paused);
        match (step, result) {
            (Step::OwnList, Ok(StorageReply::Listed { objects, more })) => {
                filling.own_next = Cursor::behind(&objects, more);
                for state in &objects {
                    let at = column(state);
                    if self.map.placement(at.0, at.1) == Some(pg) && filling.seen.insert(at) {
                        filling.columns.push_back((at, None));
                    }
                }
                filling.step = Step::Next;
                self.advance(pg, out);
            }
            (Step::OwnColumn(_, source), Ok(StorageReply::Listed { objects, .. })) => {
                let stays = |object, ours, _| self.may_be_confirmed(object, ours);
                let left_over = self.left_over(pg, &source, &objects);
                let mut wrong = different(&source, objects, stays);
                if mutation::active(Mutation::NewerLacksMerged) {
                    wrong.retain(|wrong| wrong.stays.is_none());
                }
                match left_over {
                    Some((follows, delta)) => self.store_copy(pg, (follows, wrong), delta, false, out),
                    None => self.copy_next(pg, wrong, out),
                }
            }
            (Step::Uniting(theirs, doubt, follows, rest), Ok(StorageReply::Delta(ours))) => {
                let united = united(&ours, &theirs).filter(|united| united.stamp == follows);
                let object = theirs.object;
                match united {
                    Some(united) => self.store_copy(pg, (follows, rest), united, doubt, out),
                    None => self.look_again(pg, object, out),
                }
            }
            (Step::Replacing(_, rest), Ok(StorageReply::Done)) => self.copy_next(pg, rest, out),
            // A write came between: the column is looked at again.
            (Step::Replacing(object, _), Err(StorageError::Gap(_))) => self.look_again(pg, object, out),
            (step @ (Step::Proposed | Step::Fenced), _) => filling.step = step,
            _ => {}
        }
    }

    /// Chunks that our front has and the source's has not, though it has come as far: rows are newer, and a take-over or
    /// the owner has taken them away where they could. What is newer here than at the source is no reason to keep them.
    fn left_over(
        &self,
        pg: PgId,
        source: &[ObjectState],
        own: &[ObjectState],
    ) -> Option<(Stamp, ObjectDelta)> {
        self.map.profile(pg)?;
        // Only the newest layer's object may be written to, and be newer than the source's.
        let ours = own.iter().max_by_key(|state| state.object.layer)?;
        let theirs = source.iter().find(|theirs| theirs.object == ours.object)?;
        let gone = |chunk: &&ChunkState| {
            let here = theirs.chunks.iter().any(|other| other.chunk == chunk.chunk);
            !here && chunk.stamp <= theirs.stamp
        };
        let gone: Vec<ChunkState> = ours
            .chunks
            .iter()
            .filter(gone)
            .filter_map(|chunk| absent(u32::from(chunk.chunk)))
            .collect();
        let newer = ours.stamp > theirs.stamp && self.may_be_confirmed(ours.object, ours.stamp);
        let delta = replacement(ours.object, ours.stamp, gone, Bytes::new());
        (newer && !delta.chunks.is_empty()).then_some((ours.stamp, delta))
    }

    /// Whether we may have said ok to what we have of an object, to the present owner (W1, V3).
    pub(super) fn may_be_confirmed(&self, object: ObjectId, at: Stamp) -> bool {
        if mutation::active(Mutation::KeepNewer) {
            return true;
        }
        let LayerUse::Head(volume) = self.map.layer_use(object.family, object.layer) else {
            return false;
        };
        let known = self.generations.get(&volume).copied().unwrap_or_default();
        at.generation == known.seen && !mutation::active(Mutation::PullLowers)
    }

    fn copy_next(&mut self, pg: PgId, mut wrong: VecDeque<Wrong>, out: &mut Vec<Action>) {
        let Some(next) = wrong.pop_front() else {
            self.end_column(pg, out);
            return;
        };
        let ask = Ask::Difference {
            object: next.ours.object,
            have: next.stays.as_ref().unwrap_or(&next.ours.chunks).clone(),
        };
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.copied += 1;
            filling.step = Step::Difference(next, wrong);
        }
        self.ask_source(pg, ask, out);
    }

    /// The column of an object is compared once more.
    pub(super) fn look_again(&mut self, pg: PgId, object: ObjectId, out: &mut Vec<Action>) {
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.urgent.insert((object.family, object.index));
            filling.step = Step::Next;
        }
        self.advance(pg, out);
    }

    /// The source has not come as far as we have: the column is compared again, and after some times with the next nudge.
    fn wait_for_source(&mut self, pg: PgId, object: ObjectId, out: &mut Vec<Action>) {
        let filling = self.recovery.groups.get_mut(&pg);
        let again = filling.map_or(0, |filling| {
            filling.again += 1;
            filling.again
        });
        if again > AGAIN_MAX {
            return self.pause(pg);
        }
        self.look_again(pg, object, out);
    }

    pub(super) fn end_column(&mut self, pg: PgId, out: &mut Vec<Action>) {
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.step = Step::Next;
            filling.again = 0;
        }
        self.unpark(|wait| wait == Wait::Behind(pg), false, out);
        self.advance(pg, out);
    }

    /// The source's object takes the place of ours.
    fn replace(
        &mut self,
        pg: PgId,
        (ours, rest): (ObjectState, VecDeque<Wrong>),
        delta: ObjectDelta,
        doubt: bool,
        out: &mut Vec<Action>,
    ) {
        if delta.object != ours.object {
            return self.copy_next(pg, rest, out);
        }
        // What the source has may have been older than what came here meanwhile (W1).
        if delta.stamp < ours.stamp && self.may_be_confirmed(ours.object, ours.stamp) {
            return self.look_again(pg, ours.object, out);
        }
        self.store_copy(pg, (ours.stamp, rest), delta, doubt, out);
    }

    /// Our object stays, and gets blocks of the source's: its own bytes are needed beside them.
    fn unite(
        &mut self,
        pg: PgId,
        (wrong, rest): (Wrong, VecDeque<Wrong>),
        theirs: ObjectDelta,
        doubt: bool,
        out: &mut Vec<Action>,
    ) {
        let object = wrong.ours.object;
        if theirs.object != object {
            return self.copy_next(pg, rest, out);
        }
        if self.map.profile(pg).is_some() && drops(&wrong.ours, &theirs) {
            // The source will have the write that did so, too: then they can be compared.
            return self.wait_for_source(pg, object, out);
        }
        let (follows, mut have) = (wrong.ours.stamp, wrong.ours.chunks);
        have.retain(|ours| theirs.chunks.iter().all(|chunk| chunk.chunk != ours.chunk));
        let Some(filling) = self.recovery.groups.get_mut(&pg) else {
            return;
        };
        filling.step = Step::Uniting(Box::new(theirs), doubt, follows, rest);
        self.ask_own(pg, StorageRequest::Difference { object, have }, out);
    }

    fn store_copy(
        &mut self,
        pg: PgId,
        (follows, rest): (Stamp, VecDeque<Wrong>),
        delta: ObjectDelta,
        doubt: bool,
        out: &mut Vec<Action>,
    ) {
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.step = Step::Replacing(delta.object, rest);
            self.store_object(pg, follows, delta, doubt, out);
        }
    }

    /// Stores what an object is to be, if it still has the stamp that was compared.
    pub(super) fn store_object(
        &mut self,
        pg: PgId,
        follows: Stamp,
        delta: ObjectDelta,
        doubt: bool,
        out: &mut Vec<Action>,
    ) {
        let Some(run) = self.next_own(pg) else {
            return;
        };
        let (object, stamp) = (delta.object, delta.stamp);
        let doubt = doubt && !mutation::active(Mutation::ForgetDoubtOfCopy);
        let request = StorageRequest::Replace {
            follows,
            delta,
            doubt,
        };
        let asked = Asked::Replaced {
            pg,
            run,
            object,
            stamp,
            doubt,
        };
        self.ask(asked, request, out);
    }
}

/// Whether a later write to a chunk of ours may have taken blocks away that the source still has: one to a front does,
/// with what is older than its row. They would look like what the source has merged from a parent.
fn drops(ours: &ObjectState, theirs: &ObjectDelta) -> bool {
    let later = |there: &ChunkState| {
        let here = ours.chunks.iter().find(|here| here.chunk == there.chunk);
        here.is_some_and(|here| here.stamp > there.stamp && there.present & !here.present != 0)
    };
    theirs.chunks.iter().any(later)
}

fn column(state: &ObjectState) -> Column {
    (state.object.family, state.object.index)
}

//! The columns of a group on its way back: what differs is asked of the source and stored, an object at a
//! time. When to do so, and what follows, is `fill`'s business.

use std::collections::VecDeque;

use protocol::map::LayerUse;
use protocol::message::Refusal;
use protocol::recovery::{Ask, Told};
use protocol::storage::{ObjectDelta, ObjectState, StorageError, StorageReply, StorageRequest};
use protocol::{ObjectId, PgId, Stamp};

use super::event::Action;
use super::{Asked, Replica, Wait};
use crate::mutation::{self, Mutation};
use crate::recovery::{Column, Cursor, Step, Wrong, different, united};

impl Replica {
    /// An answer came; a question that got none is answered as refused by the driver.
    pub(super) fn heard(&mut self, number: u64, told: Result<Told, Refusal>, out: &mut Vec<Action>) {
        if self.scrub.asked == Some(number) {
            return self.scrub_heard(told, out);
        }
        let Some(pg) = self.recovery.asked.remove(&number) else {
            return;
        };
        let sources = self.place_in(pg).map(|(.., sources)| sources).unwrap_or_default();
        let Some(filling) = self.recovery.groups.get_mut(&pg) else {
            return;
        };
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
            _ => {
                filling.step = Step::Paused;
                if let Some(source) = sources.first() {
                    filling.source = *source;
                }
            }
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
        let (run, (family, index)) = (filling.run, at);
        self.ask(Asked::Own(pg, run), StorageRequest::Column { family, index }, out);
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
        let step = std::mem::replace(&mut filling.step, Step::Paused);
        match (step, result) {
            (Step::OwnList, Ok(StorageReply::Listed { objects, more })) => {
                let last = objects.last().map(|state| state.object);
                filling.own_next = if more { Cursor::After(last) } else { Cursor::End };
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
                let mut wrong = different(&source, objects, stays);
                if mutation::active(Mutation::NewerLacksMerged) {
                    wrong.retain(|wrong| wrong.stays.is_none());
                }
                self.copy_next(pg, wrong, out);
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

    /// Whether we may have said ok to what we have of an object, to the present owner (W1, V3).
    fn may_be_confirmed(&self, object: ObjectId, at: Stamp) -> bool {
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
    fn look_again(&mut self, pg: PgId, object: ObjectId, out: &mut Vec<Action>) {
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.urgent.insert((object.family, object.index));
            filling.step = Step::Next;
        }
        self.advance(pg, out);
    }

    fn end_column(&mut self, pg: PgId, out: &mut Vec<Action>) {
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.step = Step::Next;
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
        let (follows, mut have) = (wrong.ours.stamp, wrong.ours.chunks);
        have.retain(|ours| theirs.chunks.iter().all(|chunk| chunk.chunk != ours.chunk));
        let Some(filling) = self.recovery.groups.get_mut(&pg) else {
            return;
        };
        filling.step = Step::Uniting(Box::new(theirs), doubt, follows, rest);
        let run = filling.run;
        self.ask(
            Asked::Own(pg, run),
            StorageRequest::Difference { object, have },
            out,
        );
    }

    fn store_copy(
        &mut self,
        pg: PgId,
        (follows, rest): (Stamp, VecDeque<Wrong>),
        delta: ObjectDelta,
        doubt: bool,
        out: &mut Vec<Action>,
    ) {
        let Some(filling) = self.recovery.groups.get_mut(&pg) else {
            return;
        };
        let (object, stamp) = (delta.object, delta.stamp);
        filling.step = Step::Replacing(object, rest);
        let run = filling.run;
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

fn column(state: &ObjectState) -> Column {
    (state.object.family, state.object.index)
}

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
use crate::recovery::{Column, Cursor, Step, different};

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
            (Step::Difference(object, at, rest), Ok(Told::Difference { delta, doubt })) => {
                self.replace(pg, (object, at, rest), delta, doubt, out);
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
                let wrong = different(&source, objects, stays);
                self.copy_next(pg, wrong, out);
            }
            (Step::Replacing(_, rest), Ok(StorageReply::Done)) => self.copy_next(pg, rest, out),
            // A write came between: the column is looked at again.
            (Step::Replacing(object, _), Err(StorageError::Gap(_))) => {
                filling.urgent.insert((object.family, object.index));
                filling.step = Step::Next;
                self.advance(pg, out);
            }
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

    fn copy_next(&mut self, pg: PgId, mut wrong: VecDeque<ObjectState>, out: &mut Vec<Action>) {
        let Some(next) = wrong.pop_front() else {
            self.end_column(pg, out);
            return;
        };
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.copied += 1;
            filling.step = Step::Difference(next.object, next.stamp, wrong);
        }
        let ask = Ask::Difference {
            object: next.object,
            have: next.chunks,
        };
        self.ask_source(pg, ask, out);
    }

    fn end_column(&mut self, pg: PgId, out: &mut Vec<Action>) {
        if let Some(filling) = self.recovery.groups.get_mut(&pg) {
            filling.step = Step::Next;
        }
        self.unpark(|wait| wait == Wait::Behind(pg), false, out);
        self.advance(pg, out);
    }

    fn replace(
        &mut self,
        pg: PgId,
        (object, follows, rest): (ObjectId, Stamp, VecDeque<ObjectState>),
        delta: ObjectDelta,
        doubt: bool,
        out: &mut Vec<Action>,
    ) {
        // What the source has may have been older than what came here meanwhile (W1).
        let older = delta.stamp < follows && self.may_be_confirmed(object, follows);
        if delta.object != object || older {
            return self.copy_next(pg, rest, out);
        }
        let Some(filling) = self.recovery.groups.get_mut(&pg) else {
            return;
        };
        filling.step = Step::Replacing(object, rest);
        let run = filling.run;
        let stamp = delta.stamp;
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

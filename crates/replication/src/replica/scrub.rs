//! A disk looks after its copies: reads its blocks and has damaged ones from others, and compares stamps
//! (`docs/decisions/0040-scrub.md`).
//!
//! One step at a time, each when the driver says so: how fast that is, and when a scrub is due, is not known here.
//! What is damaged is mended before anything else is looked at, whoever met it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use protocol::map::LayerUse;
use protocol::message::Refusal;
use protocol::recovery::{Ask, Question, Told};
use protocol::rows::{Rows, is_rows};
use protocol::session::SlotState;
use protocol::storage::{ObjectDelta, ObjectState, StorageError, StorageReply, StorageRequest};
use protocol::{DiskId, ObjectId, PgId, Stamp};

use super::event::Action;
use super::{Asked, Replica};
use crate::mutation::{self, Mutation};
use crate::recovery::Cursor;
use crate::rows::shards::chunks_in;
use crate::scrub::{
    Broken, Column, Doing, Finding, Order, Progress, Reason, Run, Suspect, Window, differing, first_of,
    windows,
};

/// A step of which there is nothing to tell.
const NOTHING: Progress = Progress::Step {
    objects: 0,
    blocks: 0,
};
/// Objects in a page of our own list.
const PAGE: usize = 64;
/// How often an object must be found different, with the same two stamps each time, before it counts as that.
const LOOKS: u8 = 5;
/// Objects that are looked at so often; if more differ, these say enough.
const SUSPECTS_MAX: usize = 64;
/// How often all others are asked for a chunk that is written all the time.
const MEND_LOOKS: u8 = 8;
/// Places that others met as damaged and that wait to be looked at; those beyond are found by the next scrub.
const WANTED_MAX: usize = 1024;

fn column_of(state: &ObjectState) -> Column {
    (state.object.family, state.object.index)
}

impl Replica {
    /// Begins a scrub; those that are under way go on after it.
    pub(super) fn begin_scrub(&mut self, run: u64, order: Order) {
        self.scrub.runs.push(Run::new(run, order));
        self.scrub.given_up.clear();
    }

    /// Whether there is a step to be taken.
    pub fn scrubs(&self) -> bool {
        let scrub = &self.scrub;
        !scrub.runs.is_empty() || !scrub.wanted.is_empty() || !scrub.broken.is_empty()
    }

    /// Somebody met a damaged block: it is looked at with the next step.
    pub(super) fn note_damage(&mut self, error: &StorageError) {
        let StorageError::Damaged { object, block } = error else {
            return;
        };
        let chunk = u8::try_from(block / protocol::geometry::BLOCKS_PER_CHUNK).unwrap_or(0);
        let window = (*object, first_of(chunk));
        let pg = self.map.placement(object.family, object.index);
        let interval = pg.and_then(|pg| self.map.group(pg)).map(|group| group.interval);
        let hopeless = interval.is_some() && self.scrub.given_up.get(&window).copied() == interval;
        if self.scrub.wanted.len() < WANTED_MAX && !hopeless {
            self.scrub.wanted.entry(window).or_default();
        }
    }

    /// Takes the next step, if none is under way.
    pub(super) fn scrub_step(&mut self, out: &mut Vec<Action>) {
        if !matches!(self.scrub.doing, Doing::Nothing) {
            return;
        }
        self.scrub.serial += 1;
        if let Some(broken) = self.scrub.broken.pop_front() {
            self.scrub.at = broken.run;
            self.ask_for_chunk(broken, out);
        } else if let Some((window, run)) = self.scrub.wanted.pop_first() {
            self.scrub.at = run;
            self.verify(window, out);
        } else if let Some(run) = self.scrub.runs.last() {
            self.scrub.at = run.number;
            self.step_of_run(out);
        }
    }

    fn step_of_run(&mut self, out: &mut Vec<Action>) {
        let Some(run) = self.scrub.run() else { return };
        if let Some(window) = run.windows.pop_front() {
            self.verify(window, out);
        } else if let Some(look) = run.parities.pop_front() {
            self.look_at_parity(look, out);
        } else if let Some(peer) = run.peers.pop_front() {
            self.ask_for_column(peer, out);
        } else if let Some(column) = run.column.take() {
            let objects = column.len() as u64;
            let passed = column.first().map_or(NOTHING, |state| Progress::Passed {
                objects,
                column: column_of(state),
            });
            self.tell(passed, out);
        } else if let Some(column) = run.columns.pop_front() {
            self.begin_column(column, out);
        } else if let Cursor::After(after) = run.next {
            self.scrub.doing = Doing::Listing;
            self.ask_for_scrub(StorageRequest::List { after, limit: PAGE }, out);
        } else if let Some(suspect) = run.suspects.pop_front() {
            let (family, index) = (suspect.object.family, suspect.object.index);
            self.scrub.doing = Doing::LookingHere(suspect);
            self.ask_for_scrub(StorageRequest::Column { family, index }, out);
        } else {
            self.end_run(out);
        }
    }

    fn end_run(&mut self, out: &mut Vec<Action>) {
        let at = self.scrub.at;
        self.scrub.runs.retain(|run| run.number != at);
        self.tell(Progress::Done, out);
    }

    pub(super) fn ask_for_scrub(&mut self, request: StorageRequest, out: &mut Vec<Action>) {
        let serial = self.scrub.serial;
        self.ask(Asked::Scrub(serial), request, out);
    }

    fn verify(&mut self, (object, first): Window, out: &mut Vec<Action>) {
        self.scrub.doing = Doing::Verifying((object, first));
        self.ask_for_scrub(StorageRequest::Verify { object, first }, out);
    }

    /// The disks that have the object's group in sync, as we do; nothing if we do not.
    fn others_in_sync(&self, object: ObjectId) -> Option<(PgId, VecDeque<DiskId>)> {
        let pg = self.map.placement(object.family, object.index)?;
        let (_, state, mut in_sync) = self.place_in(pg)?;
        if is_rows(object.index) {
            // Rows are on all disks, whoever has their fronts.
            in_sync = self.all_in_sync(pg);
        }
        let others = in_sync.into_iter().filter(|disk| *disk != self.disk);
        (state == SlotState::InSync).then(|| (pg, others.collect()))
    }

    /// Takes up a column; one of a group that we come back to is made equal to others' anyway.
    fn begin_column(&mut self, column: Vec<ObjectState>, out: &mut Vec<Action>) {
        let others = column.first().and_then(|state| self.others_in_sync(state.object));
        let reads = self.scrub.run().is_some_and(|run| {
            let at = column.first().map(column_of);
            run.order.deep && run.order.read < at
        });
        let parities = if reads && others.is_some() {
            self.parities_of(&column)
        } else {
            VecDeque::new()
        };
        if let Some(run) = self.scrub.run() {
            if let Some((_, others)) = others {
                if reads {
                    run.windows = column.iter().flat_map(windows).collect();
                }
                run.parities = parities;
                run.peers = others;
            }
            run.column = Some(column);
        }
        self.step_of_run(out);
    }

    fn ask_for_column(&mut self, peer: DiskId, out: &mut Vec<Action>) {
        let column = self.scrub.run().and_then(|run| run.column.as_ref()?.first());
        let Some(object) = column.map(|state| state.object) else {
            return self.tell(NOTHING, out);
        };
        self.scrub.doing = Doing::Comparing(peer);
        let ask = Ask::Column {
            family: object.family,
            index: object.index,
        };
        self.ask_peer(peer, object, ask, out);
    }

    pub(super) fn ask_peer(&mut self, to: DiskId, object: ObjectId, ask: Ask, out: &mut Vec<Action>) {
        let pg = self.map.placement(object.family, object.index);
        let group = pg.and_then(|pg| self.map.group(pg));
        let Some((pg, interval)) = group.map(|group| (group.pg, group.interval)) else {
            // Its family is gone, and its objects go with it.
            self.scrub.doing = Doing::Nothing;
            return self.tell(NOTHING, out);
        };
        let number = self.recovery.next_number;
        self.recovery.next_number += 1;
        self.scrub.asked = Some(number);
        let question = Question {
            pg,
            interval,
            from: self.disk,
            ask,
        };
        out.push(Action::Question { to, number, question });
    }

    /// Our own store answered.
    pub(super) fn scrub_stored(
        &mut self,
        serial: u64,
        result: Result<StorageReply, StorageError>,
        out: &mut Vec<Action>,
    ) {
        if serial != self.scrub.serial {
            return;
        }
        match (std::mem::take(&mut self.scrub.doing), result) {
            (Doing::Listing, Ok(StorageReply::Listed { objects, more })) => {
                if let Some(run) = self.scrub.run() {
                    run.take_page(&objects, more);
                }
                self.tell(NOTHING, out);
            }
            (Doing::Listing, Err(_)) => {
                // The disk is out of service: whoever opens it again begins anew.
                self.end_run(out);
            }
            (Doing::Verifying(window), Ok(StorageReply::Verified(verified))) => {
                let blocks = u64::from(verified.blocks);
                let others = self.others_in_sync(window.0);
                if verified.damaged.is_empty() || others.is_none() {
                    self.scrub.tries.remove(&window);
                }
                if let Some((_, peers)) = others {
                    for chunk in &verified.damaged {
                        let broken = Broken::new(self.scrub.at, &verified, chunk.clone(), peers.clone());
                        self.scrub.broken.push_back(broken);
                    }
                }
                self.tell(Progress::Step { objects: 0, blocks }, out);
            }
            (Doing::Verifying((object, _)), _) => self.tell(Progress::Skipped(object), out),
            (Doing::ParityHere(look), Ok(StorageReply::Delta(delta))) => self.parity_here(look, &delta, out),
            (Doing::ParityHere(look), _) => self.tell(Progress::Skipped(look.object), out),
            (Doing::LookingHere(suspect), Ok(StorageReply::Listed { objects, .. })) => {
                self.look_there(suspect, &objects, out);
            }
            (Doing::Storing(broken, from), Ok(_)) => {
                self.scrub.tries.remove(&broken.window());
                self.tell(
                    Progress::Found(Finding::Mended {
                        object: broken.state.object,
                        chunk: broken.chunk.state.chunk,
                        blocks: broken.chunk.blocks,
                        from,
                    }),
                    out,
                );
            }
            (Doing::Storing(broken, _), Err(StorageError::Gap(_) | StorageError::Busy)) => {
                self.not_mended(&broken, Reason::Changing, out);
            }
            (Doing::Storing(broken, _), Err(_)) => self.not_mended(&broken, Reason::Refused, out),
            (Doing::LookingAtRow(broken), result) => self.row_looked_at(broken, result, out),
            (Doing::TakingAway(broken), result) => self.taken_away(&broken, &result, out),
            _ => self.tell(NOTHING, out),
        }
    }

    /// Another disk answered, or did not.
    pub(super) fn scrub_heard(&mut self, told: Result<Told, Refusal>, out: &mut Vec<Action>) {
        self.scrub.asked = None;
        match (std::mem::take(&mut self.scrub.doing), told) {
            (Doing::Comparing(peer), Ok(Told::Listed { objects, .. })) => {
                self.compare(peer, &objects);
                self.tell(NOTHING, out);
            }
            (Doing::ParityThere(look, shard), Ok(Told::Difference { delta, .. })) => {
                self.parity_there(look, shard, &delta, out);
            }
            (Doing::ParityThere(look, _), _) => self.tell(Progress::Skipped(look.object), out),
            (Doing::LookingThere(suspect), Ok(Told::Difference { delta, doubt })) => {
                self.judge(suspect, (delta.object, delta.stamp), doubt, out);
            }
            (Doing::LookingThere(suspect), Err(_)) => self.tell(Progress::Skipped(suspect.object), out),
            (Doing::Comparing(_), _) => {
                let column = self.scrub.run().and_then(|run| run.column.as_ref()?.first());
                let skipped = column.map(|state| Progress::Skipped(state.object));
                self.tell(skipped.unwrap_or(Progress::Rest), out);
            }
            (Doing::Asking(mut broken, peer), told) => {
                let reason = match told {
                    Ok(Told::Difference { delta, .. }) => {
                        if let Some((checksums, bytes)) = self.bytes_for(&mut broken, peer, &delta) {
                            let request = StorageRequest::Mend {
                                object: broken.state.object,
                                chunk: broken.chunk.state.clone(),
                                checksums,
                                bytes,
                            };
                            self.scrub.doing = Doing::Storing(broken, peer);
                            return self.ask_for_scrub(request, out);
                        }
                        Reason::Changing
                    }
                    Err(Refusal::Damaged { .. }) => Reason::NoCopy,
                    _ => Reason::Unreachable,
                };
                broken.reason = broken.reason.max(reason);
                self.scrub.broken.push_front(broken);
                self.tell(NOTHING, out);
            }
            _ => self.tell(NOTHING, out),
        }
    }

    /// The bytes of a damaged chunk, from what another disk has of it: its copy, or the last shard that was missing.
    fn bytes_for(
        &self,
        broken: &mut Broken,
        peer: DiskId,
        delta: &ObjectDelta,
    ) -> Option<(Arc<[u32]>, Bytes)> {
        let object = broken.state.object;
        let pg = self.map.placement(object.family, object.index)?;
        let Some(profile) = self.map.profile(pg).filter(|_| is_rows(object.index)) else {
            return broken.bytes_from(delta);
        };
        let (number, stamp) = (broken.chunk.state.chunk, broken.chunk.state.stamp);
        let theirs = chunks_in(delta).remove(&(number, stamp));
        if let (Some(theirs), Some(shard)) = (theirs, self.shard_of(pg, peer)) {
            broken.shards.insert(shard, theirs);
        }
        let (own, code) = (self.shard_of(pg, self.disk)?, self.row_code(pg)?);
        broken.bytes_of_row(Rows::new(profile), own, code.as_ref())
    }

    fn ask_for_chunk(&mut self, mut broken: Broken, out: &mut Vec<Action>) {
        let Some(peer) = broken.peers.pop_front() else {
            return self.nobody_has(broken, out);
        };
        let object = broken.state.object;
        let have = broken.have();
        self.scrub.doing = Doing::Asking(broken, peer);
        self.ask_peer(peer, object, Ask::Difference { object, have }, out);
    }

    /// Nobody had the chunk as it must be. It may be written just now: then all are asked again, after a while.
    pub(super) fn not_mended(&mut self, broken: &Broken, reason: Reason, out: &mut Vec<Action>) {
        let window = broken.window();
        let tries = self.scrub.tries.entry(window).or_default();
        *tries += 1;
        let again = matches!(reason, Reason::Changing | Reason::Unreachable) && *tries < MEND_LOOKS;
        if again {
            self.scrub.wanted.insert(window, broken.run);
            return self.tell(Progress::Rest, out);
        }
        self.scrub.tries.remove(&window);
        let object = broken.state.object;
        let pg = self.map.placement(object.family, object.index);
        if let Some(group) = pg.and_then(|pg| self.map.group(pg))
            && self.scrub.given_up.len() < WANTED_MAX
        {
            self.scrub.given_up.insert(window, group.interval);
        }
        let finding = Finding::Unmended {
            object,
            chunk: broken.chunk.state.chunk,
            blocks: broken.chunk.blocks,
            reason,
        };
        self.tell(Progress::Found(finding), out);
    }

    /// Whether an object's layer is one that no merge takes away.
    fn stays(&self, object: ObjectId) -> bool {
        let layer = self.map.layer_use(object.family, object.layer);
        matches!(layer, LayerUse::Head(_) | LayerUse::Sealed) || mutation::active(Mutation::CompareMerged)
    }

    /// Whether a write to an object may be on its way, or on some of its copies only.
    fn is_moving(&self, object: ObjectId) -> bool {
        self.may_be_torn(object) && !mutation::active(Mutation::CompareInDoubt)
    }

    /// Another disk told its column. Of two disks that both have an object the lower one tells of a difference.
    fn compare(&mut self, peer: DiskId, theirs: &[ObjectState]) {
        let column = self.scrub.run().and_then(|run| run.column.clone());
        let found = differing(&column.unwrap_or_default(), theirs, |object| {
            self.stays(object) && !self.is_moving(object)
        });
        let ours = self.disk;
        let Some(run) = self.scrub.run() else { return };
        for (object, stamp, there) in found {
            if run.suspects.len() < SUSPECTS_MAX && (ours < peer || there == Stamp::ZERO) {
                run.suspects.push_back(Suspect {
                    object,
                    stamp,
                    disk: peer,
                    there,
                    looks: 0,
                });
            }
        }
    }

    /// Our column as it is now: if the object is still the same here, the other disk is asked once more.
    fn look_there(&mut self, suspect: Suspect, own: &[ObjectState], out: &mut Vec<Action>) {
        let object = suspect.object;
        let here = own.iter().find(|state| state.object == object);
        let others = self.others_in_sync(object);
        let same = here.filter(|here| {
            here.stamp == suspect.stamp
                && self.stays(object)
                && !self.is_moving(object)
                && others.is_some_and(|(_, others)| others.contains(&suspect.disk))
        });
        let Some(here) = same else {
            // It is written, or on its way out: it was no inconsistency.
            return self.tell(NOTHING, out);
        };
        let (peer, have) = (suspect.disk, here.chunks.clone());
        self.scrub.doing = Doing::LookingThere(suspect);
        self.ask_peer(peer, object, Ask::Difference { object, have }, out);
    }

    fn judge(
        &mut self,
        mut suspect: Suspect,
        (object, there): (ObjectId, Stamp),
        doubt: bool,
        out: &mut Vec<Action>,
    ) {
        let in_doubt = doubt && !mutation::active(Mutation::CompareInDoubt);
        if object != suspect.object || there != suspect.there || in_doubt {
            return self.tell(NOTHING, out);
        }
        suspect.looks += 1;
        let Some(run) = self.scrub.run() else {
            return self.tell(Progress::Rest, out);
        };
        if suspect.looks < LOOKS {
            run.suspects.push_back(suspect);
            return self.tell(Progress::Rest, out);
        }
        let finding = Finding::Differs {
            object,
            stamp: suspect.stamp,
            disk: suspect.disk,
            there,
        };
        self.tell(Progress::Found(finding), out);
    }

    pub(super) fn tell(&self, progress: Progress, out: &mut Vec<Action>) {
        let run = self.scrub.at;
        out.push(Action::Scrubbed { run, progress });
    }
}

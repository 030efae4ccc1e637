//! What each kind of request asks of the store, and what its answer means.
//!
//! Everything here comes after the judgement: the scope is of this replica's map and generation.

use protocol::message::{Refusal, Request, Response, Scope};
use protocol::storage::{Change, ObjectDelta, ObjectWrite, StorageError, StorageReply, StorageRequest};
use protocol::{FamilyId, ObjectId, PgId, Stamp};

use super::event::Action;
use super::flight::{Asker, Ended};
use super::judge::{Bench, Need};
use super::{Asked, Replica, Wait};
use crate::mutation::{self, Mutation};

/// Bytes that a request holds in memory until it is answered.
pub(super) fn weight(request: &Request) -> usize {
    match request {
        Request::Write {
            write:
                ObjectWrite {
                    change: Change::Data { bytes, .. },
                    ..
                },
            ..
        } => bytes.len(),
        Request::Level { delta, .. } | Request::Replace { delta, .. } => delta.bytes.len(),
        Request::Read { range, .. } => range.byte_len(),
        Request::ReadSeveral { ranges, .. } => ranges.byte_len(),
        Request::Vouch(vouch) => size_of_val(vouch.groups.as_slice()),
        _ => 0,
    }
}

/// The scope of a request and what it wants of the slot; nothing for what has no place here.
pub(super) fn scope_and_need(request: &Request) -> Option<(Scope, Need)> {
    match request {
        // What names memory of the sender was turned into a write where it came in; what is about many groups is
        // judged elsewhere.
        Request::Hello { .. }
        | Request::Share
        | Request::Area { .. }
        | Request::WriteShared { .. }
        | Request::Question(_)
        | Request::Vouch(_)
        | Request::Complete { .. } => None,
        Request::Fence { scope, .. } | Request::Ping { scope } => Some((*scope, Need::Fence)),
        Request::Read { scope, .. }
        | Request::ReadSeveral { scope, .. }
        | Request::Map { scope, .. }
        | Request::Places { scope, .. }
        | Request::Pull { scope, .. }
        | Request::Column { scope, .. }
        | Request::Replace { scope, .. }
        | Request::Level { scope, .. } => Some((*scope, Need::Read)),
        Request::Write { scope, .. } => Some((*scope, Need::Write)),
    }
}

/// The store's answer as the owner hears it.
pub(super) fn response(result: Result<StorageReply, StorageError>) -> Response {
    match result {
        Ok(StorageReply::Done) => Response::Ok,
        Ok(StorageReply::Data {
            stamp,
            bytes,
            checksums,
        }) => Response::Data {
            stamp,
            checksums,
            bytes,
        },
        Ok(StorageReply::Map { stamp, runs }) => Response::Map { stamp, runs },
        Ok(StorageReply::Delta(delta)) => Response::Delta(delta),
        Ok(StorageReply::Placed { admission, chunks }) => Response::Placed { admission, chunks },
        Ok(StorageReply::Listed { .. } | StorageReply::Verified(_)) => Response::Refused(Refusal::Invalid),
        Err(error) => Response::Refused(refusal(&error)),
    }
}

/// A store's refusal as others hear it.
pub(super) fn refusal(error: &StorageError) -> Refusal {
    match error {
        StorageError::Gap(stamp) => Refusal::Gap(*stamp),
        StorageError::Mismatch => Refusal::Mismatch,
        StorageError::Full => Refusal::Full,
        StorageError::Busy => Refusal::Busy,
        StorageError::Damaged { object, block } => Refusal::Damaged {
            index: object.index,
            block: *block,
        },
        StorageError::Poisoned(_) => Refusal::Poisoned,
    }
}

impl Replica {
    /// Starts a request that was judged to be in order.
    pub(super) fn start(&mut self, asker: Asker, scope: Scope, request: Request, out: &mut Vec<Action>) {
        let result = match request {
            Request::Fence { family, after, .. } => self.fence(asker, scope, family, after, out),
            Request::Read {
                family,
                layer,
                index,
                range,
                ..
            } => self.read(asker, &scope, (family, layer, index), range.into(), out),
            Request::ReadSeveral {
                family,
                layer,
                index,
                ranges,
                ..
            } => self.read(asker, &scope, (family, layer, index), ranges, out),
            Request::Map {
                family,
                layer,
                index,
                range,
                ..
            } => {
                let look = |chain| StorageRequest::Map {
                    chain,
                    family,
                    index,
                    range,
                };
                self.look(asker, &scope, (family, layer, index), look, out)
            }
            // Nothing is read here: a layer on its way out may go, its blocks' moves are counted.
            Request::Places {
                family,
                layer,
                index,
                range,
                ..
            } => self.chain(&scope, family, layer, index).map(|chain| {
                let places = StorageRequest::Places {
                    chain,
                    family,
                    index,
                    range,
                };
                self.ask(Asked::Answer(asker), places, out);
            }),
            Request::Pull { object, above, .. } => self.pull(asker, scope, object, above, out),
            Request::Write { write, .. } => self.write(asker, &scope, write, out),
            Request::Level { follows, delta, .. } => self.level(asker, &scope, follows, delta, out),
            Request::Replace { follows, delta, .. } => {
                self.replace_chunks(asker, &scope, follows, delta, out)
            }
            Request::Column {
                family, layer, index, ..
            } => {
                let object = ObjectId { family, index, layer };
                self.look_at_column(asker, scope, object, out)
            }
            Request::Ping { .. } => {
                self.vouching.vouch(&scope);
                self.ask(Asked::Answer(asker), StorageRequest::Probe, out);
                Ok(())
            }
            Request::Hello { .. }
            | Request::Share
            | Request::Area { .. }
            | Request::WriteShared { .. }
            | Request::Question(_)
            | Request::Vouch(_)
            | Request::Complete { .. } => Err(Refusal::Invalid),
        };
        if let Err(refusal) = result {
            self.answer(asker, Response::Refused(refusal), out);
        }
    }

    pub(super) fn bench(&self) -> Bench<'_> {
        Bench {
            disk: self.disk,
            map: self.map.as_ref(),
            generations: &self.generations,
            intervals: &self.intervals,
        }
    }

    /// Rule 7 b. The generation is durable by now and older owners' new writes are refused. Those
    /// that came before are on their way to the disk: the list waits for them, for it must not name
    /// a stamp that a crash could still take away, nor miss one that is to come.
    fn fence(
        &mut self,
        asker: Asker,
        scope: Scope,
        family: FamilyId,
        after: Option<ObjectId>,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let volume = self.map.volume(scope.volume).ok_or(Refusal::Invalid)?;
        if volume.family != family || scope.generation.0 == 0 {
            return Err(Refusal::Invalid);
        }
        self.fenced(&scope);
        if self.waits_out(&scope, out) {
            self.park(asker, Request::Fence { scope, family, after }, Wait::Vouched);
            return Ok(());
        }
        let in_flight = self.flight.any_below(family, volume.head, scope.generation);
        if in_flight && !mutation::active(Mutation::FenceNoDrain) {
            self.park(asker, Request::Fence { scope, family, after }, Wait::Drain);
            return Ok(());
        }
        let (objects, more) = self.doubt.page(family, volume.head, scope.pg, after);
        self.answer(asker, Response::Doubt { objects, more }, out);
        Ok(())
    }

    fn write(
        &mut self,
        asker: Asker,
        scope: &Scope,
        write: ObjectWrite,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        self.bench().writable(scope, write.object)?;
        let sound = match &write.change {
            Change::Data { bytes, checksums } => {
                bytes.len() == write.range.byte_len() && checksums.len() == write.range.count() as usize
            }
            Change::Zero => true,
        };
        let own = write.stamp.generation == scope.generation && write.stamp > write.follows;
        if !sound || !(own || mutation::active(Mutation::AcceptLowerGeneration)) {
            return Err(Refusal::Invalid);
        }
        let (object, stamp) = (write.object, write.stamp);
        if self.merges_by(object) {
            self.park(
                asker,
                Request::Write { scope: *scope, write },
                Wait::Merged(object),
            );
            return Ok(());
        }
        if self.flight.has(object, stamp) {
            if mutation::active(Mutation::DuplicateNoWait) {
                self.answer(asker, Response::Ok, out);
            } else {
                self.flight
                    .join(object, stamp, asker, Request::Write { scope: *scope, write });
            }
            return Ok(());
        }
        self.flight.start(object, stamp, scope, asker);
        let asked = Asked::Change {
            pg: scope.pg,
            object,
            stamp,
            level: false,
        };
        if self.comes_back(scope.pg) {
            self.flight.keep(
                object,
                stamp,
                Request::Write {
                    scope: *scope,
                    write: write.clone(),
                },
            );
        }
        self.ask(asked, StorageRequest::Write(write), out);
        if mutation::active(Mutation::ReplyBeforeDurable) {
            self.answer(asker, Response::Ok, out);
        }
        Ok(())
    }

    fn level(
        &mut self,
        asker: Asker,
        scope: &Scope,
        follows: Stamp,
        delta: ObjectDelta,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        self.bench().writable(scope, delta.object)?;
        let (object, stamp) = (delta.object, delta.stamp);
        if stamp <= follows || stamp.generation >= scope.generation {
            return Err(Refusal::Invalid);
        }
        if self.flight.has(object, stamp) {
            self.flight.join(
                object,
                stamp,
                asker,
                Request::Level {
                    scope: *scope,
                    follows,
                    delta,
                },
            );
        } else {
            self.change_as_whole(
                asker,
                scope,
                (object, stamp),
                StorageRequest::Level { follows, delta },
                out,
            );
        }
        Ok(())
    }

    /// As a level, and what it gives stays instead of what there was: rows that go back, or are rebuilt, or that no
    /// version needs any more.
    fn replace_chunks(
        &mut self,
        asker: Asker,
        scope: &Scope,
        follows: Stamp,
        delta: ObjectDelta,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        self.bench().writable(scope, delta.object)?;
        let (object, stamp) = (delta.object, delta.stamp);
        if stamp < follows || stamp.generation > scope.generation {
            return Err(Refusal::Invalid);
        }
        if self.flight.has(object, stamp) || self.merges_by(object) {
            // Two that leave the object at one stamp cannot be told apart, and a merge goes by what there is: this one
            // comes again.
            return Err(Refusal::Busy);
        }
        let replace = StorageRequest::Replace {
            follows,
            delta,
            doubt: true,
        };
        self.change_as_whole(asker, scope, (object, stamp), replace, out);
        Ok(())
    }

    /// Hands a level or a replace to the store, which leaves an object at this stamp.
    fn change_as_whole(
        &mut self,
        asker: Asker,
        scope: &Scope,
        (object, stamp): (ObjectId, Stamp),
        request: StorageRequest,
        out: &mut Vec<Action>,
    ) {
        self.flight.start(object, stamp, scope, asker);
        let asked = Asked::Change {
            pg: scope.pg,
            object,
            stamp,
            level: true,
        };
        self.ask(asked, request, out);
    }

    /// The store answered a write or a level.
    pub(super) fn changed(
        &mut self,
        pg: PgId,
        object: ObjectId,
        stamp: Stamp,
        level: bool,
        result: Result<StorageReply, StorageError>,
        out: &mut Vec<Action>,
    ) {
        let ended = self.flight.end(object, stamp);
        let response = match result {
            Ok(_) => {
                let complete = ended.as_ref().is_some_and(|ended| self.will_not_hear(ended));
                self.is_in_doubt(pg, (object, stamp), level, complete, out);
                Response::Ok
            }
            Err(StorageError::Gap(at)) if has_already(at, stamp) => Response::Ok,
            Err(error) => response(Err(error)),
        };
        let Some(Ended {
            asker, others, kept, ..
        }) = ended
        else {
            return;
        };
        if let (Response::Refused(Refusal::Gap(_)), Some(request)) = (&response, kept)
            && self.comes_back(pg)
        {
            self.park(asker, request, Wait::Behind(pg));
            for (asker, request) in others {
                self.park(asker, request, Wait::Behind(pg));
            }
            self.behind_is(pg, object, out);
            self.unpark(|wait| wait == Wait::Drain, false, out);
            return;
        }
        let done = response == Response::Ok;
        self.answer(asker, response, out);
        for (asker, request) in others {
            if done {
                self.answer(asker, Response::Ok, out);
            } else {
                self.handle(asker, request, false, out);
            }
        }
        self.unpark(|wait| wait == Wait::Drain, false, out);
    }

    /// Whether an owner said that this is complete, and will not say so again: whoever asked is gone, and hears no answer.
    fn will_not_hear(&self, ended: &Ended) -> bool {
        let askers = std::iter::once(&ended.asker).chain(ended.others.iter().map(|(asker, _)| asker));
        let mut connections = askers.map(|(connection, _)| connection);
        ended.complete && connections.all(|connection| !self.connections.contains_key(connection))
    }

    /// Rule 6. What a write or a level left is in doubt until the owner says that it is complete. If it has
    /// said so already, for good, the store is told, too: it put the object in doubt with the write.
    fn is_in_doubt(
        &mut self,
        pg: PgId,
        (object, stamp): (ObjectId, Stamp),
        level: bool,
        complete: bool,
        out: &mut Vec<Action>,
    ) {
        let forget = if level {
            Mutation::ForgetDoubtOfLevel
        } else {
            Mutation::ForgetDoubt
        };
        if complete {
            self.settle(vec![(object, stamp)], out);
        } else if !mutation::active(forget) {
            self.doubt.add(pg, object, stamp);
        }
    }

    /// Rule 6. What it says stays true, so nothing is judged but that this owner was let in here
    /// once: late, or of an old generation or interval, it does no harm.
    pub(super) fn complete(&mut self, scope: &Scope, up_to: u64, out: &mut Vec<Action>) {
        let known = self.generations.get(&scope.volume).copied().unwrap_or_default();
        if scope.generation.0 == 0 || scope.generation > known.durable {
            return;
        }
        self.serves(scope, out);
        let Some(volume) = self.map.volume(scope.volume) else {
            return;
        };
        let count = if mutation::active(Mutation::CompleteSettlesAll) {
            u64::MAX
        } else {
            up_to
        };
        let stamp = Stamp {
            generation: scope.generation,
            count,
        };
        self.flight.complete(volume.family, volume.head, scope.pg, stamp);
        let settled = self.doubt.settle(volume.family, volume.head, scope.pg, stamp);
        self.settle(settled, out);
        self.resume_reclaims(out);
    }
}

/// Whether an object at stamp `at` has had the write `stamp`: within one generation writes are
/// applied in the order of their counts. Of another generation nothing can be said (Q10).
fn has_already(at: Stamp, stamp: Stamp) -> bool {
    let same_branch = at.generation == stamp.generation || mutation::active(Mutation::OkForDeadBranch);
    same_branch && at >= stamp
}

//! What this replica has vouched for: an owner without a lease serves on the word of its slots, for as long as that word
//! counts. Whoever takes over from it has to wait that out, here, before its fence is answered.

use std::collections::{BTreeMap, BTreeSet};

use protocol::message::{Refusal, Request, Response, Scope, VOUCH_GROUPS_MAX, Vouch};
use protocol::storage::{StorageError, StorageReply, StorageRequest};
use protocol::{Generation, PgId, VolumeId};

use super::event::Action;
use super::flight::Asker;
use super::judge::{Need, Verdict};
use super::{Asked, Replica, Wait, request};
use crate::moment::VOUCHED_MS;
use crate::mutation::{self, Mutation};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Vouching {
    /// The owners that this process vouched for, and whose word is not known to be too old.
    owners: BTreeMap<VolumeId, Generation>,
    /// Those that it may have vouched for before it was started anew; none once that must be too old.
    before: BTreeMap<VolumeId, Generation>,
    /// Volumes whose next owner waits for an alarm.
    alarms: BTreeSet<VolumeId>,
}

impl Vouching {
    /// After a start, with the generations that the store remembers: each of them may have been vouched for, if the
    /// process before has vouched for anybody lately.
    pub(super) fn after_start(
        vouched: bool,
        generations: &[(VolumeId, Generation)],
        out: &mut Vec<Action>,
    ) -> Self {
        if !vouched {
            return Self::default();
        }
        if !generations.is_empty() {
            out.push(Action::Alarm {
                volume: None,
                after_ms: VOUCHED_MS,
            });
        }
        Self {
            before: generations.iter().copied().collect(),
            ..Self::default()
        }
    }

    /// Vouches for an owner.
    pub(super) fn vouch(&mut self, scope: &Scope) {
        let generation = self.owners.entry(scope.volume).or_default();
        *generation = scope.generation.max(*generation);
    }
}

/// What the groups of one question are worth together, each judged as a ping would be.
#[derive(Debug, Default)]
struct Verdicts {
    refused: Vec<(PgId, Refusal)>,
    /// Some are of a newer map than ours.
    await_map: bool,
    /// Whose interval is not durable yet.
    intervals: Vec<Scope>,
    /// Whose generation is not durable yet.
    generation: Option<Scope>,
}

/// The store's answer as an owner hears it whose groups all stand. That there is no room says nothing against them.
pub(super) fn response(result: Result<StorageReply, StorageError>) -> Response {
    match result {
        Ok(_) | Err(StorageError::Full) => Response::Standing { refused: Vec::new() },
        Err(error) => Response::Refused(request::refusal(&error)),
    }
}

fn is_older(known: &BTreeMap<VolumeId, Generation>, scope: &Scope) -> bool {
    known
        .get(&scope.volume)
        .is_some_and(|generation| *generation < scope.generation)
}

impl Replica {
    /// Whether a fence must wait, for an older owner may serve still on the word of this replica; sees to it that
    /// the wait ends.
    pub(super) fn waits_out(&mut self, scope: &Scope, out: &mut Vec<Action>) -> bool {
        let vouched = is_older(&self.vouching.owners, scope);
        if vouched && self.vouching.alarms.insert(scope.volume) {
            out.push(Action::Alarm {
                volume: Some(scope.volume),
                after_ms: VOUCHED_MS,
            });
        }
        // For what was said before the start an alarm is under way since then.
        (vouched || is_older(&self.vouching.before, scope)) && !mutation::active(Mutation::FenceNoWait)
    }

    /// Judges a question about many groups. It is answered when it can be said of all of them, at one moment, that they
    /// stand: so it waits as a whole for what one of them has to wait for, and is judged anew as a whole after that.
    pub(super) fn judge_all(&mut self, asker: Asker, vouch: Vouch, map_is_new: bool, out: &mut Vec<Action>) {
        if !(1..=VOUCH_GROUPS_MAX).contains(&vouch.groups.len()) {
            return self.answer(asker, Response::Refused(Refusal::Invalid), out);
        }
        let verdicts = self.verdicts(&vouch, map_is_new);
        if verdicts.await_map {
            self.refresh(out);
        }
        let newer = verdicts.refused.iter().map(|(_, refusal)| refusal);
        if let Some(fenced) = newer
            .clone()
            .find(|refusal| matches!(refusal, Refusal::Fenced(_)))
        {
            // That is true of all its groups.
            self.answer(asker, Response::Refused(fenced.clone()), out);
        } else if !verdicts.refused.is_empty() {
            let refused = verdicts.refused;
            self.answer(asker, Response::Standing { refused }, out);
        } else if verdicts.await_map {
            self.park(asker, Request::Vouch(vouch), Wait::Map);
        } else if let Some(last) = verdicts.intervals.last() {
            for scope in &verdicts.intervals {
                self.raise_interval(scope.pg, scope.interval, out);
            }
            // The store answers in the order in which it is asked.
            self.park(asker, Request::Vouch(vouch), Wait::Interval(last.pg));
        } else if let Some(scope) = verdicts.generation {
            self.raise_generation(scope.volume, scope.generation, out);
            self.park(asker, Request::Vouch(vouch), Wait::Generation(scope.volume));
        } else if let Some(scope) = vouch.scopes().next() {
            self.vouching.vouch(&scope);
            self.ask(Asked::Standing(asker), StorageRequest::Probe, out);
        }
    }

    fn verdicts(&self, vouch: &Vouch, map_is_new: bool) -> Verdicts {
        let mut verdicts = Verdicts::default();
        for scope in vouch.scopes() {
            if self.recovery.proposing.contains(&scope.pg) {
                // As for any other request, see `Replica::handle`.
                verdicts.refused.push((scope.pg, Refusal::Busy));
                continue;
            }
            match self.bench().judge(&scope, Need::Fence) {
                Verdict::Pass => {}
                Verdict::Refuse(refusal) => verdicts.refused.push((scope.pg, refusal)),
                Verdict::AwaitMap if map_is_new => {
                    verdicts.refused.push((scope.pg, self.behind(&scope)));
                }
                Verdict::AwaitMap => verdicts.await_map = true,
                Verdict::RaiseInterval => verdicts.intervals.push(scope),
                Verdict::RaiseGeneration => verdicts.generation = Some(scope),
            }
        }
        verdicts
    }

    /// The time of an alarm is over.
    pub(super) fn alarm(&mut self, volume: Option<VolumeId>, out: &mut Vec<Action>) {
        match volume {
            Some(volume) => {
                self.vouching.owners.remove(&volume);
                self.vouching.alarms.remove(&volume);
            }
            None => self.vouching.before.clear(),
        }
        self.unpark(|wait| wait == Wait::Vouched, false, out);
    }
}

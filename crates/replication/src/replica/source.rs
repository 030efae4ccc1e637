//! A disk in sync answers one that comes back to a group of both, or one that looks after its copies.

use std::collections::BTreeSet;

use protocol::message::Refusal;
use protocol::recovery::{Ask, Question, Told};
use protocol::session::SlotState;
use protocol::storage::{ObjectState, StorageError, StorageReply, StorageRequest};
use protocol::{DiskId, PgId};

use super::event::Action;
use super::{Asked, Replica, request};

/// Objects in a page of a list.
const PAGE: usize = 64;
/// Questions that wait until they can be answered.
const HELD_MAX: usize = 64;

impl Replica {
    /// A question came.
    pub(super) fn question(&mut self, to: DiskId, number: u64, question: Question, out: &mut Vec<Action>) {
        let Question {
            pg,
            interval,
            from,
            ask,
        } = question;
        // What is not asked by one that comes back proves nothing, and cannot be wrong: see `scrub`.
        let looks_only = matches!(ask, Ask::Column { .. } | Ask::Difference { .. });
        if let Err(refusal) = self.may_ask(&(pg, from), interval, looks_only, out) {
            if refusal == Refusal::Busy && self.recovery.held.len() < HELD_MAX {
                let question = Question {
                    pg,
                    interval,
                    from,
                    ask,
                };
                self.recovery.held.push((to, number, question));
                return;
            }
            out.push(Action::Tell {
                to,
                number,
                told: Err(refusal),
            });
            return;
        }
        let (asked, request) = match ask {
            Ask::Table => {
                let told = Ok(Told::Table(self.table_of(pg)));
                out.push(Action::Tell { to, number, told });
                return;
            }
            Ask::List { after } => {
                let asked = Asked::Told {
                    to,
                    number,
                    pg,
                    page: true,
                };
                (asked, StorageRequest::List { after, limit: PAGE })
            }
            Ask::Column { family, index } => {
                let asked = Asked::Told {
                    to,
                    number,
                    pg,
                    page: false,
                };
                (asked, StorageRequest::Column { family, index })
            }
            Ask::Difference { object, have } => {
                let asked = Asked::Told {
                    to,
                    number,
                    pg,
                    page: false,
                };
                (asked, StorageRequest::Difference { object, have })
            }
        };
        self.ask(asked, request, out);
    }

    /// Takes up the questions that waited for a newer map, or for an interval to be durable: an asker learns of a
    /// change of its own before its source does, and would come again with its next nudge only.
    pub(super) fn retake_questions(&mut self, out: &mut Vec<Action>) {
        for (to, number, question) in std::mem::take(&mut self.recovery.held) {
            self.question(to, number, question, out);
        }
    }

    /// An interval cannot be made durable.
    pub(super) fn refuse_questions(&mut self, error: &StorageError, out: &mut Vec<Action>) {
        for (to, number, _) in std::mem::take(&mut self.recovery.held) {
            let told = Err(request::refusal(error));
            out.push(Action::Tell { to, number, told });
        }
    }

    /// Only a disk that has its slot, of one that is in sync, in the interval of both. One that is in sync itself
    /// may look at what the other has, and takes nothing for true of it but bytes that it can check.
    fn may_ask(
        &mut self,
        (pg, from): &(PgId, DiskId),
        interval: protocol::Interval,
        looks_only: bool,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let group = self.map.group(*pg).ok_or(Refusal::Invalid)?;
        if group.interval < interval {
            // The asker's map is newer.
            return Err(Refusal::Busy);
        }
        if group.interval != interval {
            return Err(Refusal::Interval(group.interval));
        }
        let state = |disk| group.slot_of(disk).map(|slot| slot.state);
        if state(self.disk) != Some(SlotState::InSync) {
            return Err(Refusal::NotInSync);
        }
        if looks_only && state(*from) == Some(SlotState::InSync) {
            return Ok(());
        }
        if !state(*from).is_some_and(SlotState::comes_back) {
            return Err(Refusal::NotInSync);
        }
        if self.reclaims_in(*pg) {
            // Else a layer that was compared might be merged into another one that was compared before.
            return Err(Refusal::Busy);
        }
        let raised = self.intervals.get(pg).copied().unwrap_or_default();
        if raised.durable < interval {
            // What is told holds for this interval only if no older one is served again, ever.
            self.raise_interval(*pg, interval, out);
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    fn table_of(&self, pg: PgId) -> Vec<(protocol::VolumeId, protocol::Generation, bool)> {
        let known = self
            .generations
            .iter()
            .filter(|(volume, _)| self.map.volume(**volume).is_some());
        let told = known.map(|(volume, rising)| {
            let served = self.recovery.served.get(&(pg, *volume));
            (
                *volume,
                rising.seen,
                served.is_some_and(|served| *served >= rising.seen),
            )
        });
        let mut told: Vec<_> = told.collect();
        // Whoever asks raises them in this order: the same events are to have the same actions.
        told.sort_unstable_by_key(|(volume, ..)| *volume);
        told
    }

    /// The store answered for a question.
    pub(super) fn told(
        &mut self,
        (to, number): (DiskId, u64),
        (pg, page): (PgId, bool),
        result: Result<StorageReply, StorageError>,
        out: &mut Vec<Action>,
    ) {
        let told = match result {
            Ok(StorageReply::Listed { objects, more }) => Ok(self.listed(pg, objects, more && page)),
            Ok(StorageReply::Delta(delta)) => {
                let doubt = self.may_be_torn(delta.object);
                Ok(Told::Difference { delta, doubt })
            }
            Ok(_) => Err(Refusal::Invalid),
            Err(error) => Err(request::refusal(&error)),
        };
        out.push(Action::Tell { to, number, told });
    }

    /// The group's objects of a page, without the last column if that may go on in the next page.
    fn listed(&self, pg: PgId, mut objects: Vec<ObjectState>, more: bool) -> Told {
        let last = objects
            .last()
            .map(|state| (state.object.family, state.object.index));
        let columns: BTreeSet<_> = objects
            .iter()
            .map(|state| (state.object.family, state.object.index))
            .collect();
        if more && columns.len() > 1 {
            objects.retain(|state| Some((state.object.family, state.object.index)) != last);
        }
        let next = objects.last().filter(|_| more).map(|state| state.object);
        objects.retain(|state| self.map.placement(state.object.family, state.object.index) == Some(pg));
        Told::Listed { objects, next }
    }
}

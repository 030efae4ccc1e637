//! Holding still for a snapshot: new writes wait, and when all that were sent are acknowledged on
//! all replicas, the head layer is the same everywhere and may be sealed.

use super::Owner;
use super::event::Action;
use super::limits::TROUBLE_PAUSE_MS;
use crate::moment::Moment;
use crate::mutation::{self, Mutation};

/// A quiescence that was asked for.
#[derive(Debug)]
pub(super) struct Quiescence {
    token: u64,
    until: Moment,
    /// Once it is said to be quiet, only a new view ends it: a transaction may be under way that
    /// seals the layer, and no clock can tell when it will not happen any more.
    said: bool,
}

impl Quiescence {
    pub(super) fn new(now: Moment, token: u64, limit_ms: u64) -> Self {
        Self {
            token,
            until: now + limit_ms,
            said: false,
        }
    }

    pub(super) fn deadline(&self) -> Moment {
        self.until
    }
}

impl Owner {
    /// Whether it has said that all is quiet, and holds still since.
    pub(super) fn holds_still(&self) -> bool {
        let said = self.quiescence.as_ref().is_some_and(|quiescence| quiescence.said);
        said && self.writes.is_empty()
    }

    /// Says that all is quiet once it is; gives up, or asks for the view, when it takes too long.
    pub(super) fn check_quiesced(&mut self, now: Moment, out: &mut Vec<Action>) {
        let Some(quiescence) = &self.quiescence else {
            return;
        };
        let (token, said, late) = (quiescence.token, quiescence.said, quiescence.until <= now);
        if said {
            if late {
                self.quiescence = Some(Quiescence {
                    token,
                    until: now + TROUBLE_PAUSE_MS,
                    said,
                });
                self.want_view(now, out);
            }
            return;
        }
        let quiet = self.is_open() && self.writes.is_empty() && !self.operations.begins_again();
        if quiet || mutation::active(Mutation::QuiesceNoDrain) {
            if self.may_send(now) {
                self.tell_complete(now, true, out);
            }
            let until = self
                .quiescence
                .as_ref()
                .map_or(now, |quiescence| quiescence.until);
            self.quiescence = Some(Quiescence {
                token,
                until,
                said: true,
            });
            out.push(Action::Quiesced { token });
        } else if late {
            self.quiescence = None;
        }
    }
}

//! What this replica has vouched for: an owner without a lease serves on the word of its slots, for as long as that word
//! counts. Whoever takes over from it has to wait that out, here, before its fence is answered.

use std::collections::{BTreeMap, BTreeSet};

use protocol::message::Scope;
use protocol::{Generation, VolumeId};

use super::event::Action;
use super::{Replica, Wait};
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

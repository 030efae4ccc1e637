//! Rules 1 and 2: whether a request is of this replica's generation, interval and layer tree.
//!
//! Looks and decides; changes nothing, asks nobody.

use std::collections::HashMap;

use protocol::map::{LayerUse, MapView, VolumeHead};
use protocol::message::{Refusal, Scope};
use protocol::session::{Slot, SlotState};
use protocol::{DiskId, FamilyId, Generation, Interval, LayerId, ObjectId, PgId, VolumeId};

use crate::mutation::{self, Mutation};

/// A number that only rises: at once in memory, where requests are judged by it, then on disk,
/// before anything is answered on its ground.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rising<T> {
    /// The highest that was seen.
    pub(super) seen: T,
    /// The highest that is on stable storage.
    pub(super) durable: T,
    /// Whether the store was asked to remember a higher one and has not answered.
    pub(super) asked: bool,
}

impl<T: Copy> Rising<T> {
    /// As the store remembers it.
    pub(super) fn remembered(value: T) -> Self {
        Self {
            seen: value,
            durable: value,
            asked: false,
        }
    }
}

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on with it.
    Pass,
    /// Answer this.
    Refuse(Refusal),
    /// Its generation must be made durable first.
    RaiseGeneration,
    /// Its interval must be made durable first.
    RaiseInterval,
    /// It is of a newer map than this replica's.
    AwaitMap,
}

/// What a request wants of this slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Data that may be read: in sync.
    Read,
    /// A place for writes: in sync, joining or syncing.
    Write,
    /// A promise to refuse older owners: in sync or joining.
    Fence,
}

/// Whether what a disk has of a group may be from before it was given this slot of it, and of another shard.
pub(super) fn is_of_before(slot: &Slot, durable: Interval) -> bool {
    slot.arrived > Interval::default()
        && durable <= slot.arrived
        && !mutation::active(Mutation::KeepOtherShard)
}

/// What a replica judges by.
pub(super) struct Bench<'a> {
    pub(super) disk: DiskId,
    pub(super) map: &'a dyn MapView,
    pub(super) generations: &'a HashMap<VolumeId, Rising<Generation>>,
    pub(super) intervals: &'a HashMap<PgId, Rising<Interval>>,
}

impl Bench<'_> {
    /// Judges the scope of a request.
    pub(super) fn judge(&self, scope: &Scope, need: Need) -> Verdict {
        match self.judge_interval(scope, need) {
            Verdict::Pass => {}
            other => return other,
        }
        match self.judge_revision(scope) {
            Verdict::Pass => {}
            other => return other,
        }
        self.judge_generation(scope)
    }

    fn judge_interval(&self, scope: &Scope, need: Need) -> Verdict {
        let raised = self.intervals.get(&scope.pg).copied().unwrap_or_default();
        let Some(group) = self.map.group(scope.pg) else {
            return Verdict::AwaitMap;
        };
        let own = group.interval.max(raised.seen);
        if scope.interval < own && !mutation::active(Mutation::AcceptAnyInterval) {
            return Verdict::Refuse(Refusal::Interval(own));
        }
        // Of an interval above the map's nothing is known: not even who belongs to it.
        if scope.interval > group.interval || own > group.interval {
            return Verdict::AwaitMap;
        }
        let slot = group.slot_of(self.disk);
        if slot.is_some_and(|slot| is_of_before(slot, raised.durable)) {
            // Nothing may make it look as if what is here were of this shard.
            return Verdict::Refuse(Refusal::NotInSync);
        }
        let fit = match slot.map(|slot| slot.state) {
            Some(SlotState::InSync) => true,
            Some(SlotState::Joining) => need != Need::Read,
            Some(SlotState::Syncing) => need == Need::Write,
            Some(SlotState::Down) | None => false,
        };
        if !fit {
            return Verdict::Refuse(Refusal::NotInSync);
        }
        if raised.durable < group.interval {
            Verdict::RaiseInterval
        } else {
            Verdict::Pass
        }
    }

    fn judge_revision(&self, scope: &Scope) -> Verdict {
        // What a sealed layer shows does not change with the volume: `readable` looks at the layer.
        if scope.generation == Generation(0) {
            return Verdict::Pass;
        }
        let Some(volume) = self.map.volume(scope.volume) else {
            return Verdict::AwaitMap;
        };
        if scope.revision < volume.revision {
            return Verdict::Refuse(Refusal::Revision(volume.revision));
        }
        if scope.revision > volume.revision {
            Verdict::AwaitMap
        } else {
            Verdict::Pass
        }
    }

    fn judge_generation(&self, scope: &Scope) -> Verdict {
        if scope.generation == Generation(0) {
            return Verdict::Pass; // A reader of a sealed layer: `readable` looks at the layer.
        }
        let known = self.generations.get(&scope.volume).copied().unwrap_or_default();
        if scope.generation < known.seen && !mutation::active(Mutation::AcceptLowerGeneration) {
            return Verdict::Refuse(Refusal::Fenced(known.seen));
        }
        let durable = scope.generation <= known.durable || mutation::active(Mutation::FenceNotDurable);
        if durable && scope.generation <= known.seen {
            Verdict::Pass
        } else {
            Verdict::RaiseGeneration
        }
    }

    /// Whether the sender may look at a layer: an owner at its head's chain, anybody at what is sealed.
    pub(super) fn readable(&self, scope: &Scope, family: FamilyId, layer: LayerId) -> Result<(), Refusal> {
        match self.map.layer_use(family, layer) {
            LayerUse::Head(volume) if volume == scope.volume && scope.generation > Generation(0) => Ok(()),
            LayerUse::Sealed => Ok(()),
            LayerUse::Head(_) => Err(Refusal::Sealed),
            LayerUse::Inner | LayerUse::Unknown => Err(Refusal::Invalid),
        }
    }

    /// Whether the sender may write to an object: one of its volume's head, in the group that it names.
    pub(super) fn writable(&self, scope: &Scope, object: ObjectId) -> Result<(), Refusal> {
        if scope.generation == Generation(0) {
            return Err(Refusal::Sealed);
        }
        if self.map.placement(object.family, object.index) != Some(scope.pg) {
            return Err(Refusal::Invalid);
        }
        let head = self
            .map
            .volume(scope.volume)
            .map(|VolumeHead { family, head, .. }| (family, head));
        let fits = head == Some((object.family, object.layer));
        if fits || mutation::active(Mutation::AcceptSealed) {
            Ok(())
        } else {
            Err(Refusal::Sealed)
        }
    }
}

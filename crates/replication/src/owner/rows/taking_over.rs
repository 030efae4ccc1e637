//! Driving what makes rows level at a take-over: sends the steps of [`Settling`], and takes in their answers.

use std::collections::BTreeMap;

use protocol::message::{Refusal, Request, Response};
use protocol::rows::{range_index, rows_index};
use protocol::{DiskId, ObjectId, PgId, Stamp};

use super::Encoding;
use crate::moment::Moment;
use crate::owner::Owner;
use crate::owner::event::Action;
use crate::owner::group::Group;
use crate::owner::link::Sent;
use crate::owner::takeover::{Leveling, TakeOver};
use crate::rows::settling::{Settling, Step};

/// The slots of a group whose pool encodes rows, as a take-over sees them.
#[derive(Clone, Debug)]
pub(in crate::owner) struct RowSlots {
    encoding: Encoding,
    /// Those in sync, with their shards.
    disks: BTreeMap<DiskId, u8>,
}

/// A range that is made level.
#[derive(Debug)]
pub(in crate::owner) struct Active {
    settling: Settling,
    /// What is under way, by disk.
    sent: BTreeMap<DiskId, (u64, Step)>,
    /// Who has the front in doubt, at which stamp.
    front: BTreeMap<DiskId, Stamp>,
}

impl RowSlots {
    pub(in crate::owner) fn new(encoding: &Encoding, group: &Group) -> Self {
        let shard = |disk: DiskId| Some((disk, group.shard_of(disk)?));
        Self {
            encoding: encoding.clone(),
            disks: group.in_sync().filter_map(shard).collect(),
        }
    }

    fn keeps_front(&self, disk: DiskId) -> bool {
        let fronts = self.encoding.fronts();
        self.disks.get(&disk).is_some_and(|shard| fronts.contains(shard))
    }

    /// Takes both objects of the first range that is listed.
    fn next(&self, listed: &mut BTreeMap<ObjectId, BTreeMap<DiskId, Stamp>>) -> Option<(u32, Active)> {
        let first = *listed.first_key_value()?.0;
        let index = range_index(first.index);
        let front = ObjectId { index, ..first };
        let rows = ObjectId {
            index: rows_index(index),
            ..first
        };
        listed.remove(&rows);
        let disks = self.disks.iter().map(|(disk, shard)| (*disk, *shard));
        let active = Active {
            settling: Settling::new(self.encoding.shape, (front, rows), disks, &self.encoding.fronts()),
            sent: BTreeMap::new(),
            front: listed.remove(&front).unwrap_or_default(),
        };
        Some((index, active))
    }
}

impl TakeOver {
    /// Begins with some more ranges, up to `room`; returns how many.
    pub(in crate::owner) fn begin_ranges(&mut self, room: usize) -> usize {
        let Some(slots) = &self.rows else { return 0 };
        let mut begun = 0;
        while begun < room {
            let Some((index, active)) = slots.next(&mut self.listed) else {
                break;
            };
            self.settling.insert(index, active);
            begun += 1;
        }
        begun
    }

    /// The rows of a range are level: its front, if it is in doubt, is made level as copies are.
    fn settled(&mut self, index: u32) {
        let (Some(active), Some(slots)) = (self.settling.remove(&index), &self.rows) else {
            return;
        };
        if active.front.is_empty() {
            return;
        }
        let keepers = slots.disks.keys().filter(|disk| slots.keeps_front(**disk));
        let leveling = Leveling {
            stamps: keepers
                .map(|disk| (*disk, active.front.get(disk).copied()))
                .collect(),
            sent: BTreeMap::new(),
            bad_sources: std::collections::BTreeSet::new(),
        };
        if !leveling.done() {
            self.leveling.insert(active.settling.front(), leveling);
        }
    }
}

impl Owner {
    /// Brings the ranges forward that are made level.
    pub(in crate::owner) fn send_settling(&mut self, now: Moment, pg: PgId, out: &mut Vec<Action>) {
        let Some(code) = self.encoding.as_ref().map(|encoding| encoding.code.clone()) else {
            return;
        };
        let Some(take_over) = self.take_over_mut(pg) else {
            return;
        };
        let (mut steps, mut settled) = (Vec::new(), Vec::new());
        for (index, active) in &mut take_over.settling {
            let Active { settling, sent, .. } = active;
            let next = settling.steps(code.as_ref(), |disk| !sent.contains_key(&disk));
            if next.is_empty() && sent.is_empty() {
                settled.push(*index);
            }
            steps.extend(next.into_iter().map(|(disk, step)| (*index, disk, step)));
        }
        for index in settled {
            take_over.settled(index);
        }
        for (index, disk, step) in steps {
            self.send_step(now, (pg, index, disk), step, out);
        }
    }

    fn send_step(
        &mut self,
        now: Moment,
        (pg, index, disk): (PgId, u32, DiskId),
        step: Step,
        out: &mut Vec<Action>,
    ) {
        let (number, scope) = (self.number(), self.scope(pg));
        let (family, layer) = (self.view.family, self.view.head);
        let Some(link) = self.links.get_mut(&disk).filter(|link| link.open(now)) else {
            return;
        };
        let request = match &step {
            Step::Ask(object) => Request::Column {
                scope,
                family,
                layer,
                index: object.index,
            },
            Step::Read { object, blocks } => Request::Read {
                scope,
                family,
                layer,
                index: object.index,
                range: *blocks,
            },
            Step::Replace { follows, delta } => Request::Replace {
                scope,
                follows: *follows,
                delta: delta.clone(),
            },
        };
        let sent = Sent::Settle {
            pg,
            interval: scope.interval,
            index,
        };
        link.send(now, number, sent, request, out);
        if let Some(active) = self.take_over_mut(pg).and_then(|t| t.settling.get_mut(&index)) {
            active.sent.insert(disk, (number, step));
        }
    }

    /// A step was answered.
    pub(in crate::owner) fn step_answered(
        &mut self,
        now: Moment,
        disk: DiskId,
        number: u64,
        sent: &Sent,
        response: Response,
        out: &mut Vec<Action>,
    ) {
        let Sent::Settle { pg, interval, index } = *sent else {
            return;
        };
        let take_over = self.take_over_in(pg, interval);
        let Some(active) = take_over.and_then(|t| t.settling.get_mut(&index)) else {
            return;
        };
        if active.sent.get(&disk).is_none_or(|(sent, _)| *sent != number) {
            return;
        }
        let Some((_, step)) = active.sent.remove(&disk) else {
            return;
        };
        let settling = &mut active.settling;
        match (step, response) {
            (Step::Ask(object), Response::Column { objects }) => settling.column(disk, object, &objects),
            (Step::Read { blocks, .. }, Response::Data { bytes, .. }) if bytes.len() == blocks.byte_len() => {
                settling.read(disk, blocks, bytes);
            }
            (Step::Replace { delta, .. }, Response::Ok) => settling.replaced(disk, &delta),
            (Step::Read { blocks, .. }, Response::Refused(Refusal::Damaged { .. })) => {
                settling.unreadable(disk, blocks);
                self.slow_down(now, disk, &Refusal::Mismatch, out);
            }
            (_, Response::Refused(refusal)) => {
                settling.forget(disk);
                self.slow_down(now, disk, &refusal, out);
            }
            (_, _) => {
                settling.forget(disk);
                self.slow_down(now, disk, &Refusal::Invalid, out);
            }
        }
    }

    /// The connection on which a step was under way is gone: whether it was done is not known.
    pub(in crate::owner) fn step_lost(&mut self, disk: DiskId, number: u64, (pg, index): (PgId, u32)) {
        let active = self.take_over_mut(pg).and_then(|t| t.settling.get_mut(&index));
        let Some(active) = active else { return };
        if active.sent.get(&disk).is_some_and(|(sent, _)| *sent == number) {
            active.sent.remove(&disk);
            active.settling.forget(disk);
        }
    }
}

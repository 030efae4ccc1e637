//! What becomes of a lookup when a disk has answered it, or when the driver did it without the disk.

use bytes::Bytes;
use protocol::message::{Refusal, Response};
use protocol::storage::{MapKind, MapRun};
use protocol::{BlockRange, DiskId, Stamp};

use super::{Answer, Lookup, Purpose, State};
use crate::moment::Moment;
use crate::owner::Owner;
use crate::owner::event::{Action, Failure};
use crate::owner::operation::Part;
use crate::owner::rows::Target;

impl Owner {
    /// An answer to a lookup.
    pub(in crate::owner) fn lookup_answered(
        &mut self,
        now: Moment,
        (id, lost): (u64, u64),
        response: Response,
        out: &mut Vec<Action>,
    ) {
        let Some(lookup) = self.lookups.all.get(&id) else {
            return;
        };
        let State::Sent { disk, number, .. } = lookup.state else {
            return;
        };
        if number != lost {
            return; // It was given up and asked of somebody else.
        }
        let range = lookup.part.range;
        let length = match lookup.target {
            Target::Shard { blocks, .. } => blocks.byte_len(),
            _ => range.byte_len(),
        };
        match (lookup.purpose, response) {
            (Purpose::Learn, Response::Column { objects }) if lookup.target != Target::Copies => {
                self.column_came(id, disk, objects, out);
            }
            (Purpose::Read | Purpose::Shard, Response::Data { stamp, bytes, .. })
                if bytes.len() == length =>
            {
                self.found(id, Some(stamp), Answer::Data(bytes), out);
            }
            (Purpose::Map | Purpose::Learn, Response::Map { stamp, runs }) if covers(&runs, range) => {
                self.found(id, Some(stamp), Answer::Runs(runs), out);
            }
            (_, Response::Refused(Refusal::Damaged { block, .. })) if self.is_of_shard(id) => {
                self.shard_damaged(now, id, (disk, block), out);
            }
            (_, Response::Refused(Refusal::Damaged { block, .. })) => self.damaged(id, disk, block, out),
            (_, Response::Refused(refusal)) => {
                self.slow_down(now, disk, &refusal, out);
                self.lookup_again(id, None);
            }
            (_, _) => {
                self.slow_down(now, disk, &Refusal::Invalid, out);
                self.lookup_again(id, None);
            }
        }
    }

    /// The driver did a read itself.
    pub(in crate::owner) fn lookup_read(
        &mut self,
        (id, number): (u64, u64),
        bytes: Bytes,
        out: &mut Vec<Action>,
    ) {
        let current = |lookup: &Lookup| {
            let sent = matches!(lookup.state, State::Sent { number: sent, .. } if sent == number);
            let reads = matches!(lookup.purpose, Purpose::Read | Purpose::Shard);
            sent && reads && lookup.part.range.byte_len() == bytes.len()
        };
        if self.lookups.all.get(&id).is_some_and(current) {
            self.found(id, None, Answer::Data(bytes), out);
        }
    }

    /// A lookup has what it looked for, and perhaps the object's stamp with it.
    pub(in crate::owner) fn found(
        &mut self,
        id: u64,
        stamp: Option<Stamp>,
        answer: Answer,
        out: &mut Vec<Action>,
    ) {
        let Some(lookup) = self.lookups.all.get(&id) else {
            return;
        };
        let (purpose, part) = (lookup.purpose, lookup.part.clone());
        let of_head = lookup.layer == self.view.head;
        if purpose == Purpose::Learn {
            self.end_lookup(id);
            self.end_learning(part.index, part.range, stamp.filter(|_| of_head), &answer, out);
            return;
        }
        if self.has_moved(part.index, lookup.target) {
            return self.look_anew(id);
        }
        if let (
            Target::Shard {
                parent: Some(parent),
                shard,
                ..
            },
            Answer::Data(bytes),
        ) = (lookup.target, &answer)
        {
            let bytes = bytes.clone();
            self.end_lookup(id);
            return self.shard_came(parent, shard, bytes, out);
        }
        if let Some(stamp) = stamp.filter(|_| of_head && lookup.target == Target::Copies) {
            self.learned(part.index, stamp);
        }
        let waits_for = self.blockers(purpose, &part, id);
        let deliver = waits_for.is_empty();
        if let Some(lookup) = self.lookups.all.get_mut(&id) {
            lookup.state = State::Held(answer);
            lookup.waits_for = waits_for;
        }
        if deliver {
            self.deliver(id, out);
        }
    }

    fn end_learning(
        &mut self,
        index: u32,
        range: BlockRange,
        stamp: Option<Stamp>,
        answer: &Answer,
        out: &mut Vec<Action>,
    ) {
        let Some(object) = self.writes.objects.get_mut(&index) else {
            return;
        };
        object.learning = false;
        let Some(stamp) = stamp else {
            // The head changed meanwhile: the answer is about another object.
            object.learning = true;
            self.add_learning(index, range);
            return;
        };
        let hole = matches!(answer, Answer::Runs(runs) if runs.iter().all(|run| run.kind == MapKind::Hole));
        if hole {
            self.learned_hole(index, stamp, range, out);
        } else {
            self.learned(index, stamp);
        }
    }

    pub(in crate::owner) fn end_lookup(&mut self, id: u64) -> Option<Lookup> {
        let lookup = self.lookups.all.remove(&id)?;
        self.lookups.ready.remove(&id);
        self.lookups.parts -= 1;
        self.lookups.bytes -= super::weight(lookup.purpose, &lookup.part);
        if let Some(object) = self.writes.objects.get_mut(&lookup.part.index) {
            object.pins -= 1;
        }
        Some(lookup)
    }

    pub(super) fn deliver(&mut self, id: u64, out: &mut Vec<Action>) {
        let Some(lookup) = self.end_lookup(id) else { return };
        let part = lookup.part;
        match lookup.state {
            State::Held(Answer::Data(bytes)) => self.operations.data(&part, bytes),
            State::Held(Answer::Runs(runs)) => {
                let length = |run: &MapRun| (run.range.byte_len() as u64, run.kind);
                self.operations.runs(&part, runs.iter().map(length).collect());
            }
            State::Idle | State::Sent { .. } | State::Rebuilding(_) => {}
        }
        self.operations.part_done(part.sequence, None, out);
    }

    /// A disk has no good copy of a block: another one is asked. When none has all the blocks, each
    /// block is read alone, so that only those that are bad everywhere fail.
    fn damaged(&mut self, id: u64, disk: DiskId, block: u32, out: &mut Vec<Action>) {
        let Some(lookup) = self.lookups.all.get_mut(&id) else {
            return;
        };
        lookup.damaged.insert(disk, block);
        let (purpose, part) = (lookup.purpose, lookup.part.clone());
        let pg = self.group_of(part.index);
        let lookup = self.lookups.all.get(&id);
        let everywhere = lookup.is_some_and(|lookup| self.is_damaged_everywhere(pg, lookup));
        if !everywhere || purpose == Purpose::Learn {
            self.lookup_again(id, None);
            return;
        }
        let Some(lookup) = self.end_lookup(id) else { return };
        if part.range.count() > 1 && lookup.purpose == Purpose::Read {
            return self.read_alone(&part);
        }
        self.operations
            .part_done(part.sequence, Some(Failure::Damaged { offset: part.offset }), out);
    }

    /// Each block of a read becomes one of its own.
    pub(in crate::owner) fn read_alone(&mut self, part: &Part) {
        self.operations.split(part.sequence, part.range.count() as usize);
        for range in part.range.blocks().filter_map(|block| BlockRange::new(block, 1)) {
            self.add_lookup(Purpose::Read, part.piece(range));
        }
    }

    fn is_of_shard(&self, id: u64) -> bool {
        let lookup = self.lookups.get(id);
        lookup.is_some_and(|lookup| matches!(lookup.target, Target::Shard { .. }))
    }
}

/// Whether runs touch and cover a range, as they must.
fn covers(runs: &[MapRun], range: BlockRange) -> bool {
    let mut at = range.start();
    for run in runs {
        if run.range.start() != at {
            return false;
        }
        at = run.range.end();
    }
    at == range.end()
}

//! Writes: stamping, sending to every slot, and the acknowledgement (rules 3 and 5).
//!
//! One file because a write is followed from its stamp to its acknowledgement, and every step reads the
//! state that the one before left.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use protocol::message::{Refusal, Request};
use protocol::rows::rows_index;
use protocol::storage::{Change, ObjectWrite};
use protocol::{BlockRange, DiskId, ObjectId, PgId, Stamp};

use super::event::{Action, Failure};
use super::limits::{OBJECTS_KNOWN_MAX, TROUBLE_PAUSE_MS, WRITE_BYTES_MAX, WRITES_MAX};
use super::link::Sent;
use super::operation::Part;
use super::rows::{Encoded, Ranges};
use super::{Owner, change_weight};
use crate::moment::Moment;
use crate::mutation::{self, Mutation};

/// Everything about writes that are not acknowledged, and about the objects' stamps.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// The last count that was given out. One counter for the whole generation (P6).
    pub(super) count: u64,
    /// Sent, or to be sent, and not acknowledged by all: by count.
    pub(super) sent: BTreeMap<u64, Write>,
    pub(super) objects: HashMap<u32, Object>,
    /// What is known of ranges in a pool that encodes rows.
    pub(super) ranges: Ranges,
    /// Parts that wait for their object's stamp, or for their row.
    pub(super) waiting: usize,
    /// What a former generation had begun is done again, and not all of it has its stamp yet: nothing else is begun, and
    /// nothing read, for of two writes the later one may be there already.
    pub(super) redoing: bool,
    /// Parts and bytes that are not answered.
    pub(super) parts: usize,
    bytes: usize,
}

/// What is known of one object of the head layer.
#[derive(Debug, Default)]
pub(super) struct Object {
    /// The stamp of the last write that was given one, by this owner or before (Q1).
    pub(super) stamp: Option<Stamp>,
    /// Whether a question for it is on its way.
    pub(super) learning: bool,
    /// Lookups in flight: their answers tell the stamp, so they must not meet a forgotten object.
    pub(super) pins: usize,
    /// The counts of its writes that are not acknowledged, ascending.
    pub(super) counts: Vec<u64>,
    /// The highest count of its writes that was acknowledged: whoever has that one has all before it (rule 5).
    acknowledged: u64,
    /// Parts that wait for the stamp, in order.
    waiting: VecDeque<(Part, Change)>,
}

/// One write on its way.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) part: Part,
    pub(super) pg: PgId,
    pub(super) request: ObjectWrite,
    /// Every slot that must say ok, and how far it is.
    pub(super) slots: Vec<(DiskId, Progress)>,
    /// Lookups that wait for the acknowledgement.
    pub(super) blocks: Vec<u64>,
    /// Whether the device layer has its answer. Only a mutation makes it earlier than the end.
    answered: bool,
    /// What it is in a pool that encodes rows.
    pub(super) encoded: Option<Encoded>,
    /// Whether the layout shows it.
    pub(super) noted: bool,
}

/// A write that gets its stamp.
#[derive(Debug)]
pub(super) struct Draft {
    /// Of which object: that of the part, or of its rows.
    pub(super) index: u32,
    pub(super) range: BlockRange,
    pub(super) change: Change,
    pub(super) floor: Stamp,
    pub(super) encoded: Option<Encoded>,
}

/// How far a write is at one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// To be sent.
    Waiting,
    /// In flight.
    Sent {
        /// The request's number.
        number: u64,
        /// Whether the slot was known to have the write before when this was sent.
        expects: bool,
    },
    /// Durable there.
    Ok,
}

impl Writes {
    /// Whether nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.waiting == 0
    }

    /// The parts that are begun and not answered.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = &Part> {
        let sent = self.sent.values().filter(|write| !write.answered);
        let waiting = self.objects.values().flat_map(|object| &object.waiting);
        let waiting = waiting.chain(self.ranges.waiting());
        sent.map(|write| &write.part).chain(waiting.map(|(part, _)| part))
    }

    /// A part is begun.
    pub(super) fn count_in(&mut self, change: &Change) {
        self.parts += 1;
        self.bytes += change_weight(change);
    }

    /// Whether one more part may be begun.
    fn has_room(&self) -> bool {
        self.parts < WRITES_MAX && self.bytes < WRITE_BYTES_MAX
    }

    /// The counts of the writes to an object that overlap a range and are not acknowledged.
    pub(super) fn overlapping(&self, index: u32, range: BlockRange) -> BTreeSet<u64> {
        let counts = [index, rows_index(index)]
            .into_iter()
            .filter_map(|index| self.objects.get(&index))
            .flat_map(|object| &object.counts);
        let overlaps = |count: &&u64| {
            self.sent
                .get(*count)
                .is_some_and(|write| !write.answered && write.part.range.overlaps(range))
        };
        counts.filter(overlaps).copied().collect()
    }

    /// Forgets the stamps of idle objects when too many are known: half of them, whichever they are.
    pub(super) fn forget_idle(&mut self) {
        if self.objects.len() <= OBJECTS_KNOWN_MAX {
            return;
        }
        let mut spare = OBJECTS_KNOWN_MAX / 2;
        let mut idle: Vec<u32> = self
            .objects
            .iter()
            .filter(|(_, o)| o.idle())
            .map(|(i, _)| *i)
            .collect();
        idle.sort_unstable();
        for index in idle {
            if spare == 0 {
                break;
            }
            spare -= 1;
            self.objects.remove(&index);
        }
    }

    /// The head is another layer now: nothing is known of its objects.
    pub(super) fn forget_stamps(&mut self) {
        self.ranges.forget();
        self.objects.retain(|_, object| !object.idle());
        for object in self.objects.values_mut() {
            object.stamp = None;
        }
    }
}

impl Object {
    pub(super) fn idle(&self) -> bool {
        self.pins == 0 && !self.learning && self.counts.is_empty() && self.waiting.is_empty()
    }
}

impl Progress {
    fn is_sent(self, this: u64) -> bool {
        matches!(self, Self::Sent { number, .. } if number == this)
    }
}

impl Write {
    pub(super) fn progress(&mut self, disk: DiskId) -> Option<&mut Progress> {
        self.slots
            .iter_mut()
            .find(|(slot, _)| *slot == disk)
            .map(|(_, progress)| progress)
    }

    /// What goes to the disk that keeps a shard.
    fn request_for(&self, shard: u8) -> ObjectWrite {
        let own = self.encoded.as_ref().and_then(|encoded| encoded.change_of(shard));
        ObjectWrite {
            change: own.unwrap_or(&self.request.change).clone(),
            ..self.request
        }
    }

    /// Whether a disk said ok.
    pub(super) fn is_ok(&self, disk: DiskId) -> bool {
        self.slots
            .iter()
            .any(|(slot, progress)| *slot == disk && *progress == Progress::Ok)
    }

    /// The disks that have not said ok.
    pub(super) fn missing(&self) -> impl Iterator<Item = DiskId> {
        self.slots
            .iter()
            .filter(|(_, progress)| *progress != Progress::Ok)
            .map(|(disk, _)| *disk)
    }

    fn oks(&self) -> usize {
        self.slots
            .iter()
            .filter(|(_, progress)| *progress == Progress::Ok)
            .count()
    }
}

impl Owner {
    /// Begins parts of the writes that wait, in order, as far as the limits allow.
    pub(super) fn issue_writes(&mut self, out: &mut Vec<Action>) {
        let holds = self.quiescence.is_some() && !mutation::active(Mutation::QuiesceNoHold);
        while let Some(sequence) = self.operations.writes.front().copied() {
            // What was begun under a former generation may be there already: it is neither held nor refused.
            let again = self.operations.begins_again();
            if self.writes.redoing && !again {
                if self.writes.waiting > 0 {
                    break;
                }
                self.writes.redoing = false;
            }
            if (holds && !again) || !self.writes.has_room() {
                break;
            }
            let needs_room = self
                .operations
                .get(sequence)
                .is_some_and(super::operation::Running::needs_room);
            if needs_room && self.fullness.is_full() && !again {
                self.operations.writes.pop_front();
                self.operations.refuse_rest(sequence, Failure::Full, out);
                continue;
            }
            let Some((part, last)) = self.operations.cut(sequence) else {
                self.operations.writes.pop_front();
                continue;
            };
            if last {
                self.operations.writes.pop_front();
            }
            self.begin_write(part, out);
        }
        if self.writes.waiting == 0 && !self.operations.begins_again() {
            self.writes.redoing = false;
        }
        if self.encoding.is_some() {
            self.forget_ranges();
        } else {
            self.writes.forget_idle();
        }
    }

    fn begin_write(&mut self, part: Part, out: &mut Vec<Action>) {
        let Some(running) = self.operations.get(part.sequence) else {
            return;
        };
        let change = running.change(&part);
        self.writes.count_in(&change);
        if self.encoding.is_some() {
            return self.begin_encoded(part, change, out);
        }
        let (index, range) = (part.index, part.range);
        let object = self.writes.objects.entry(index).or_default();
        if object.stamp.is_some() && object.waiting.is_empty() {
            self.stamp_write(part, change);
            return;
        }
        object.waiting.push_back((part, change));
        self.writes.waiting += 1;
        if !object.learning {
            object.learning = true;
            self.add_learning(index, range);
        }
    }

    /// An answer told an object's stamp. If it was not known, the writes that wait for it get theirs.
    pub(super) fn learned(&mut self, index: u32, stamp: Stamp) {
        let Some(object) = self.writes.objects.get_mut(&index) else {
            return;
        };
        if object.stamp.is_some() {
            return;
        }
        object.stamp = Some(stamp);
        let waiting = std::mem::take(&mut object.waiting);
        self.writes.waiting -= waiting.len();
        for (part, change) in waiting {
            self.stamp_write(part, change);
        }
    }

    /// As [`Self::learned`], with the knowledge that no layer holds any block of `hole`: a zero in
    /// there, with nothing in flight before it, has nothing to do.
    pub(super) fn learned_hole(&mut self, index: u32, stamp: Stamp, hole: BlockRange, out: &mut Vec<Action>) {
        let Some(object) = self.writes.objects.get_mut(&index) else {
            return;
        };
        while let Some((part, change)) = object.waiting.front() {
            let inside = part.range.start() >= hole.start() && part.range.end() <= hole.end();
            if object.stamp.is_some() || !object.counts.is_empty() || *change != Change::Zero || !inside {
                break;
            }
            let sequence = part.sequence;
            object.waiting.pop_front();
            self.writes.waiting -= 1;
            self.writes.parts -= 1;
            self.operations.part_done(sequence, None, out);
        }
        self.learned(index, stamp);
    }

    fn stamp_write(&mut self, part: Part, change: Change) {
        let draft = Draft {
            index: part.index,
            range: part.range,
            change,
            floor: Stamp::ZERO,
            encoded: None,
        };
        self.enlist(part, draft);
    }

    /// Gives a write its stamp and puts it on its way to every slot that it concerns.
    pub(super) fn enlist(&mut self, part: Part, draft: Draft) {
        let pg = self.group_of(part.index);
        let shards = self.shards_of(draft.encoded.as_ref());
        let (Some(group), Some(object)) = (
            self.groups.get_mut(&pg),
            self.writes.objects.get_mut(&draft.index),
        ) else {
            return;
        };
        self.writes.count += 1;
        let count = self.writes.count;
        let stamp = Stamp {
            generation: self.view.generation,
            count,
        };
        let follows = object.stamp.replace(stamp).unwrap_or_default();
        object.counts.push(count);
        group.unacknowledged.insert(count);
        let slots: Vec<_> = group
            .awaited_of(&shards)
            .map(|disk| (disk, Progress::Waiting))
            .collect();
        for (disk, _) in &slots {
            if let Some(link) = self.links.get_mut(disk) {
                link.pending.insert(count);
            }
        }
        let object = ObjectId {
            family: self.view.family,
            index: draft.index,
            layer: self.view.head,
        };
        let encoded = draft.encoded.map(|encoded| encoded.stamped(stamp));
        let request = ObjectWrite {
            object,
            follows,
            stamp,
            range: draft.range,
            change: draft.change,
            use_reserve: false,
            floor: draft.floor,
        };
        let write = Write {
            part,
            pg,
            request,
            slots,
            blocks: Vec::new(),
            answered: false,
            encoded,
            noted: false,
        };
        self.writes.sent.insert(count, write);
        self.writes_since_told += 1;
    }

    /// Sends what is pending on each connection, in stamp order (W5).
    pub(super) fn send_writes(&mut self, now: Moment, out: &mut Vec<Action>) {
        let mut sent_first = Vec::new();
        let disks: Vec<DiskId> = self.links.keys().copied().collect();
        for disk in disks {
            let pending = match self.links.get(&disk) {
                Some(link) if !link.pending.is_empty() && link.open(now) => link.pending.clone(),
                _ => continue,
            };
            for count in pending {
                let Some(write) = self.writes.sent.get(&count) else {
                    self.links.get_mut(&disk).map(|link| link.pending.remove(&count));
                    continue;
                };
                if !self
                    .groups
                    .get(&write.pg)
                    .is_some_and(super::group::Group::serving)
                {
                    continue;
                }
                if !self.links.get(&disk).is_some_and(|link| link.open(now)) {
                    break;
                }
                self.send_write(now, disk, count, out);
                sent_first.push(count);
            }
        }
        if mutation::active(Mutation::AcknowledgeAtSend) {
            for count in sent_first {
                self.answer_write(count, out);
            }
        }
    }

    fn send_write(&mut self, now: Moment, disk: DiskId, count: u64, out: &mut Vec<Action>) {
        let number = self.number();
        let Some(pg) = self.writes.sent.get(&count).map(|write| write.pg) else {
            return;
        };
        let scope = self.scope(pg);
        let expects = self.has_before(disk, count);
        let encodes = self.encoding.is_some();
        let shard = encodes.then(|| self.groups.get(&pg)?.shard_of(disk)).flatten();
        let (Some(write), Some(link)) = (self.writes.sent.get_mut(&count), self.links.get_mut(&disk)) else {
            return;
        };
        link.pending.remove(&count);
        if let Some(progress) = write.progress(disk) {
            *progress = Progress::Sent { number, expects };
            let request = Request::Write {
                scope,
                write: write.request_for(shard.unwrap_or_default()),
            };
            link.send(now, number, Sent::Write(count), request, out);
        }
    }

    /// A slot said that a write is durable there.
    pub(super) fn write_ok(&mut self, disk: DiskId, count: u64, number: u64, out: &mut Vec<Action>) {
        let Some(write) = self.writes.sent.get_mut(&count) else {
            return;
        };
        let Some(progress) = write.progress(disk) else {
            return;
        };
        // An ok to a request of a former interval counts for nothing (V6): it was asked again.
        if !progress.is_sent(number) {
            return;
        }
        *progress = Progress::Ok;
        self.send_next(disk, count);
        self.acknowledge(count, out);
    }

    /// Acknowledges a write that every slot has, in a group that has enough in sync (rule 3).
    pub(super) fn acknowledge(&mut self, count: u64, out: &mut Vec<Action>) {
        let Some(write) = self.writes.sent.get(&count) else {
            return;
        };
        let Some(group) = self.groups.get(&write.pg) else {
            return;
        };
        let early = (mutation::active(Mutation::AcknowledgeOne) && write.oks() >= 1)
            || (mutation::active(Mutation::AcknowledgeAllButOne) && write.oks() + 1 >= write.slots.len());
        if early {
            self.answer_write(count, out);
            return self.acknowledge_rest(count, out);
        }
        if group.enough(self.view.min_in_sync) {
            self.acknowledge_rest(count, out);
        }
    }

    fn acknowledge_rest(&mut self, count: u64, out: &mut Vec<Action>) {
        let all = self
            .writes
            .sent
            .get(&count)
            .is_some_and(|write| write.oks() == write.slots.len());
        if !all {
            return;
        }
        self.note_encoded(count);
        self.answer_write(count, out);
        let Some(write) = self.writes.sent.remove(&count) else {
            return;
        };
        if let Some(object) = self.writes.objects.get_mut(&write.request.object.index) {
            object.counts.retain(|other| *other != count);
            object.acknowledged = object.acknowledged.max(count);
        }
        if let Some(group) = self.groups.get_mut(&write.pg) {
            group.unacknowledged.remove(&count);
            self.untold.insert(write.pg);
        }
        if let Some(encoded) = &write.encoded {
            self.go_on_in_row(&write.part, encoded.is_row(), out);
        }
    }

    /// Answers the writes of which a later one to the same object was acknowledged: all slots have them, though not all
    /// said so. Done again, they would come after what was acknowledged. So would those to a front of which the whole row was
    /// acknowledged later, whoever has them.
    pub(super) fn answer_overtaken(&mut self, out: &mut Vec<Action>) {
        let overtaken = |(count, write): (&u64, &Write)| {
            let object = self.writes.objects.get(&write.request.object.index);
            let by_later = object.is_some_and(|object| object.acknowledged > *count);
            (by_later || self.is_behind_row(*count, write)).then_some(*count)
        };
        let counts: Vec<u64> = self.writes.sent.iter().filter_map(overtaken).collect();
        for count in counts {
            self.answer_write(count, out);
        }
    }

    /// Tells the device layer, once, and the reads that waited for it.
    fn answer_write(&mut self, count: u64, out: &mut Vec<Action>) {
        let Some(write) = self.writes.sent.get_mut(&count) else {
            return;
        };
        if write.answered {
            return;
        }
        write.answered = true;
        self.writes.parts -= 1;
        self.writes.bytes -= change_weight(&write.request.change);
        let blocks = std::mem::take(&mut write.blocks);
        let sequence = write.part.sequence;
        self.operations.part_done(sequence, None, out);
        for lookup in blocks {
            self.unblock_lookup(lookup, count, out);
        }
    }

    /// A slot refused a write: it is sent again, for what was sent is neither given up nor changed.
    pub(super) fn write_refused(
        &mut self,
        now: Moment,
        disk: DiskId,
        (count, number): (u64, u64),
        refusal: &Refusal,
        out: &mut Vec<Action>,
    ) {
        let progress = self
            .writes
            .sent
            .get_mut(&count)
            .and_then(|write| write.progress(disk));
        let expected = matches!(progress, Some(Progress::Sent { expects: true, .. }));
        if !self.put_back(disk, count, number) {
            return;
        }
        match refusal {
            Refusal::Gap(at) => self.gap(now, disk, (count, expected), *at, out),
            Refusal::Full => {
                self.fullness.note(now, disk);
                let Some(write) = self.writes.sent.get_mut(&count) else {
                    return;
                };
                let tried_all = std::mem::replace(&mut write.request.use_reserve, true);
                if tried_all && let Some(link) = self.links.get_mut(&disk) {
                    link.pause(now, super::limits::FULL_PROBE_MS);
                }
            }
            other => self.slow_down(now, disk, other, out),
        }
    }

    /// Makes a write pending again at a slot; false if the slot has since moved on.
    pub(super) fn put_back(&mut self, disk: DiskId, count: u64, number: u64) -> bool {
        let Some(write) = self.writes.sent.get_mut(&count) else {
            return false;
        };
        let Some(progress) = write.progress(disk) else {
            return false;
        };
        if !progress.is_sent(number) {
            return false;
        }
        *progress = Progress::Waiting;
        if let Some(link) = self.links.get_mut(&disk) {
            link.pending.insert(count);
        }
        if mutation::active(Mutation::RestampOnRetry) {
            self.restamp(count);
        }
        true
    }

    fn restamp(&mut self, count: u64) {
        self.writes.count += 1;
        let stamp = Stamp {
            generation: self.view.generation,
            count: self.writes.count,
        };
        if let Some(write) = self.writes.sent.get_mut(&count) {
            write.request.stamp = stamp;
        }
    }

    /// Whether a slot has the write before this one: by its own word, or by the take-over.
    fn has_before(&self, disk: DiskId, count: u64) -> bool {
        let Some(write) = self.writes.sent.get(&count) else {
            return false;
        };
        let follows = write.request.follows;
        let own = follows.generation == self.view.generation;
        let before = own.then(|| self.writes.sent.get(&follows.count)).flatten();
        before.is_none_or(|before| before.is_ok(disk))
    }

    /// Q2: a gap at a slot that was known to have the write before, when this one was sent, means
    /// that it has lost something. Any other gap: what precedes is pending there, or on its way.
    fn gap(
        &mut self,
        now: Moment,
        disk: DiskId,
        (count, expected): (u64, bool),
        at: Stamp,
        out: &mut Vec<Action>,
    ) {
        let Some(write) = self.writes.sent.get(&count) else {
            return;
        };
        let (object, follows) = (write.request.object, write.request.follows);
        let Some(link) = self.links.get_mut(&disk) else {
            return;
        };
        let joining = self
            .groups
            .get(&write.pg)
            .is_some_and(|group| !group.in_sync().any(|other| other == disk));
        if joining {
            // It is being filled, and lost nothing.
            link.pause(now, super::limits::MAP_PAUSE_MS);
            return;
        }
        if !expected {
            // It goes again when the slot says ok to the one before, not sooner.
            link.pending.remove(&count);
            self.send_after(disk, count);
            return;
        }
        link.pause(now, TROUBLE_PAUSE_MS);
        // Told however often: nothing is graver.
        link.suspect(now);
        let reason = format!("it lost a write that it had confirmed: {object} is at {at}, not at {follows}");
        out.push(Action::Suspect { disk, reason });
    }

    /// Makes a write pending at a slot if that has the write before, or soon will have it by itself:
    /// the one before is pending there too, and goes first.
    fn send_after(&mut self, disk: DiskId, count: u64) {
        let before = self
            .writes
            .sent
            .get(&count)
            .map(|write| write.request.follows.count);
        let Some(link) = self.links.get_mut(&disk) else {
            return;
        };
        let before_pends = before.is_some_and(|before| link.pending.contains(&before));
        if before_pends || self.has_before(disk, count) {
            self.links.get_mut(&disk).map(|link| link.pending.insert(count));
        }
    }

    /// A slot said ok to a write: the next one of the object goes there, if it waited for that.
    fn send_next(&mut self, disk: DiskId, count: u64) {
        let index = self
            .writes
            .sent
            .get(&count)
            .map(|write| write.request.object.index);
        let object = index.and_then(|index| self.writes.objects.get(&index));
        let next = object
            .and_then(|object| object.counts.iter().find(|other| **other > count))
            .copied();
        let Some(next) = next else {
            return;
        };
        let waits = self
            .writes
            .sent
            .get_mut(&next)
            .and_then(|write| write.progress(disk));
        if waits.is_some_and(|progress| *progress == Progress::Waiting) {
            self.links.get_mut(&disk).map(|link| link.pending.insert(next));
        }
    }
}

//! Reads, maps, and the learning of stamps: requests that any one replica in sync can answer.
//!
//! A read that overlaps a write in flight waits for it (V1), twice: for those in flight when it is
//! begun, before it is sent; and for those in flight when its answer comes, before that is delivered.
//! The answer may hold them already, and what was shown once must never be taken back.

mod answered;
mod together;

pub(super) use together::Asked;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use protocol::message::Request;
use protocol::rows::rows_index;
use protocol::storage::MapRun;
use protocol::{BlockRange, DiskId, LayerId, PgId};

use super::Owner;
use super::event::Action;
use super::limits::{MAP_PAUSE_MS, READ_BYTES_MAX, READS_MAX, REBUILD_STEPS_MAX, STALL_MS};
use super::link::Sent;
use super::operation::{Kind, Part};
use super::rows::{Rebuilding, Target};
use crate::moment::Moment;
use crate::mutation::{self, Mutation};
use together::Bundles;

/// All lookups that are not answered.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    next: u64,
    all: BTreeMap<u64, Lookup>,
    /// Those that may be sent.
    ready: BTreeSet<u64>,
    parts: usize,
    bytes: usize,
}

/// What it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Read,
    Map,
    /// One of the shards from which a read is rebuilt.
    Shard,
    /// A write needs the object's stamp; the map of the write's range comes with it.
    Learn,
}

#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) purpose: Purpose,
    pub(super) part: Part,
    pub(super) target: Target,
    /// The head layer when it was sent.
    pub(super) layer: LayerId,
    pub(super) state: State,
    /// Writes that it waits for.
    waits_for: BTreeSet<u64>,
    /// Disks that have no good copy, and which block is bad there.
    pub(super) damaged: BTreeMap<DiskId, u32>,
    /// Disks that were asked in this round.
    pub(super) tried: BTreeSet<DiskId>,
    /// Whether it is asked for in a request of its own, for one with others failed and not by its fault.
    alone: bool,
    not_before: Option<Moment>,
}

#[derive(Debug)]
pub(super) enum State {
    /// Waits for writes, or may be sent.
    Idle,
    /// In flight.
    Sent { disk: DiskId, number: u64, at: Moment },
    /// Its shard cannot be read: others are on their way.
    Rebuilding(Rebuilding),
    /// Answered; the answer waits for writes.
    Held(Answer),
}

/// A good answer.
#[derive(Debug)]
pub(super) enum Answer {
    Data(Bytes),
    Runs(Vec<MapRun>),
}

impl Lookups {
    /// When a lookup is to be looked at again.
    pub(super) fn deadline(&self, now: Moment) -> Option<Moment> {
        let paused = self.ready.iter().filter_map(|id| self.all.get(id)?.not_before);
        let sent = self.all.values().filter_map(|lookup| match lookup.state {
            State::Sent { at, .. } => Some(at + STALL_MS),
            _ => None,
        });
        paused.chain(sent).filter(|moment| *moment > now).min()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Lookup> {
        self.all.get(&id)
    }

    pub(super) fn state_mut(&mut self, id: u64) -> Option<&mut State> {
        self.all.get_mut(&id).map(|lookup| &mut lookup.state)
    }

    /// It is not to be sent, but waits for something else.
    pub(super) fn set_state(&mut self, id: u64, state: State) {
        self.ready.remove(&id);
        if let Some(lookup) = self.all.get_mut(&id) {
            lookup.state = state;
        }
    }

    /// A lookup that others failed with is asked for once more, by itself, of the same disk.
    fn ask_alone(&mut self, (id, number): (u64, u64), disk: DiskId) {
        let Some(lookup) = self.all.get_mut(&id) else {
            return;
        };
        if matches!(lookup.state, State::Sent { number: sent, .. } if sent == number) {
            lookup.state = State::Idle;
            lookup.alone = true;
            lookup.tried.remove(&disk);
            self.ready.insert(id);
        }
    }

    pub(super) fn note_damage(&mut self, id: u64, disk: DiskId, block: u32) {
        if let Some(lookup) = self.all.get_mut(&id) {
            lookup.damaged.insert(disk, block);
        }
    }

    /// Those that may be sent, and must be cut up before.
    pub(super) fn uncut(&self, now: Moment) -> Vec<u64> {
        let uncut = |id: &&u64| {
            self.all.get(*id).is_some_and(|lookup| {
                lookup.target == Target::Range && lookup.not_before.is_none_or(|moment| moment <= now)
            })
        };
        self.ready.iter().filter(uncut).copied().collect()
    }

    fn is_child(lookup: &Lookup, of: u64) -> bool {
        matches!(lookup.target, Target::Shard { parent: Some(parent), .. } if parent == of)
    }

    /// Whether a shard is looked for, for the sake of this one.
    pub(super) fn looks_for(&self, id: u64, wanted: u8) -> bool {
        self.all.values().any(|lookup| {
            let this = matches!(lookup.target, Target::Shard { shard, .. } if shard == wanted);
            this && Self::is_child(lookup, id)
        })
    }

    /// The lookups that wait to be sent for the sake of others, and the shards that they look for.
    pub(super) fn wanted_shards(&self) -> Vec<(u64, u8)> {
        let wanted = |id: &u64| match self.all.get(id)?.target {
            Target::Shard { shard, parent, .. } => parent.map(|_| (*id, shard)),
            _ => None,
        };
        self.ready.iter().filter_map(wanted).collect()
    }

    /// Those that look for shards for the sake of this one.
    fn children_of(&self, id: u64) -> Vec<u64> {
        let children = self.all.iter().filter(|(_, lookup)| Self::is_child(lookup, id));
        children.map(|(id, _)| *id).collect()
    }

    fn has_room(&self) -> bool {
        self.parts < READS_MAX && self.bytes < READ_BYTES_MAX
    }
}

impl Owner {
    /// Begins parts of the reads that wait, in order, as far as the limits allow.
    pub(super) fn issue_reads(&mut self) {
        if self.operations.begins_again() || self.writes.redoing {
            return;
        }
        while let Some(sequence) = self.operations.reads.front().copied() {
            if !self.lookups.has_room() {
                break;
            }
            let Some((part, last)) = self.operations.cut(sequence) else {
                self.operations.reads.pop_front();
                continue;
            };
            if last {
                self.operations.reads.pop_front();
            }
            let map = self
                .operations
                .get(sequence)
                .is_some_and(|running| matches!(running.kind, Kind::Map));
            let purpose = if map { Purpose::Map } else { Purpose::Read };
            self.add_lookup(purpose, part);
        }
    }

    /// Asks for the stamp of an object, and for the map of the range that is about to be written.
    pub(super) fn add_learning(&mut self, index: u32, range: BlockRange) {
        self.add_lookup(
            Purpose::Learn,
            Part {
                sequence: 0,
                index,
                range,
                offset: 0,
            },
        );
    }

    pub(super) fn add_lookup(&mut self, purpose: Purpose, part: Part) {
        let target = if self.encoding.is_some() {
            Target::Range
        } else {
            Target::Copies
        };
        self.add_piece(purpose, part, target);
    }

    /// A lookup of which is known where it looks.
    pub(super) fn add_piece(&mut self, purpose: Purpose, part: Part, target: Target) {
        self.lookups.next += 1;
        let id = self.lookups.next;
        self.lookups.parts += 1;
        self.lookups.bytes += weight(purpose, &part);
        self.writes.objects.entry(part.index).or_default().pins += 1;
        // A piece goes by what is acknowledged, whatever is on its way.
        let waits_for = if matches!(target, Target::Copies | Target::Range) {
            self.blockers(purpose, &part, id)
        } else {
            BTreeSet::new()
        };
        if waits_for.is_empty() {
            self.lookups.ready.insert(id);
        }
        let lookup = Lookup {
            purpose,
            part,
            target,
            layer: LayerId::default(),
            state: State::Idle,
            waits_for,
            damaged: BTreeMap::new(),
            tried: BTreeSet::new(),
            alone: false,
            not_before: None,
        };
        self.lookups.all.insert(id, lookup);
    }

    /// The writes in flight that a lookup must wait for; each of them remembers it.
    fn blockers(&mut self, purpose: Purpose, part: &Part, id: u64) -> BTreeSet<u64> {
        if matches!(purpose, Purpose::Learn | Purpose::Shard) || mutation::active(Mutation::ReadNoWait) {
            return BTreeSet::new();
        }
        let counts = self.writes.overlapping(part.index, part.range);
        for count in &counts {
            if let Some(write) = self.writes.sent.get_mut(count) {
                write.blocks.push(id);
            }
        }
        counts
    }

    /// A write that a lookup waited for is acknowledged.
    pub(super) fn unblock_lookup(&mut self, id: u64, count: u64, out: &mut Vec<Action>) {
        let Some(lookup) = self.lookups.all.get_mut(&id) else {
            return;
        };
        lookup.waits_for.remove(&count);
        if !lookup.waits_for.is_empty() {
            return;
        }
        match lookup.state {
            State::Idle => {
                self.lookups.ready.insert(id);
            }
            State::Held(_) => self.deliver(id, out),
            State::Sent { .. } | State::Rebuilding(_) => {}
        }
    }

    /// Sends what may be sent, each to the disk that suits best.
    pub(super) fn send_lookups(&mut self, now: Moment, out: &mut Vec<Action>) {
        self.give_up_stalled(now);
        if self.encoding.is_some() {
            self.give_up_rebuilding(now);
            self.cut_lookups(now, out);
        }
        // Whoever begins to rebuild wants other shards, at once: there may be no other event for a long time.
        let mut bundles = Bundles::default();
        for _ in 0..REBUILD_STEPS_MAX {
            if !self.send_ready(now, &mut bundles, out) {
                break;
            }
        }
        self.send_bundles(now, bundles, out);
    }

    /// Sends what may be sent now; true if that made more that may be.
    fn send_ready(&mut self, now: Moment, bundles: &mut Bundles, out: &mut Vec<Action>) -> bool {
        let mut more = false;
        let ready: Vec<u64> = self.lookups.ready.iter().copied().collect();
        for id in ready {
            let Some(lookup) = self.lookups.all.get(&id) else {
                continue;
            };
            if lookup.target == Target::Range || lookup.not_before.is_some_and(|moment| moment > now) {
                continue;
            }
            let pg = self.group_of(lookup.part.index);
            if let Some(disk) = self.choose(now, pg, lookup) {
                if !self.send_together(now, (id, disk), bundles, out) {
                    self.send_lookup(now, id, pg, disk, out);
                }
            } else {
                let tried = !lookup.tried.is_empty();
                let damaged_everywhere = self.is_damaged_everywhere(pg, lookup);
                if self.rebuild_instead(now, id) {
                    more = true;
                } else if tried || damaged_everywhere {
                    self.begin_new_round(now, id, damaged_everywhere);
                }
            }
        }
        more
    }

    /// All that can be asked were asked in vain: after a pause they are asked again. A copy that was damaged is asked
    /// for once more when no disk in sync is left that may have a good one: it is mended by now, or the read fails.
    fn begin_new_round(&mut self, now: Moment, id: u64, damaged_everywhere: bool) {
        if let Some(lookup) = self.lookups.all.get_mut(&id) {
            lookup.tried.clear();
            if damaged_everywhere {
                lookup.damaged.clear();
            }
            lookup.not_before = Some(now + MAP_PAUSE_MS);
        }
    }

    /// The best disk to read from: in sync, connected, not asked yet; local; with little in flight.
    fn choose(&self, now: Moment, pg: PgId, lookup: &Lookup) -> Option<DiskId> {
        let group = self.groups.get(&pg).filter(|group| group.serving())?;
        let fit = |disk: &DiskId| {
            !lookup.tried.contains(disk)
                && !lookup.damaged.contains_key(disk)
                && self.may_answer(pg, *disk, lookup.target)
                && self.links.get(disk).is_some_and(|link| link.open(now))
        };
        let rank = |disk: &DiskId| self.links.get(disk).map(|link| (!link.disk.local, link.load()));
        group.in_sync().filter(fit).min_by_key(rank)
    }

    /// Whether all disks in sync that keep what is looked for have said that theirs is damaged, or too few are left to make a
    /// shard of theirs. One that had not said so may have left since.
    fn is_damaged_everywhere(&self, pg: PgId, lookup: &Lookup) -> bool {
        let Some(group) = self.groups.get(&pg).filter(|_| !lookup.damaged.is_empty()) else {
            return false;
        };
        if matches!(lookup.target, Target::Shard { .. }) {
            return self.is_lost(group, &lookup.damaged);
        }
        let keeps = |disk: &DiskId| self.may_answer(pg, *disk, lookup.target);
        let mut keepers = group.in_sync().filter(keeps);
        keepers.all(|disk| lookup.damaged.contains_key(&disk))
    }

    fn send_lookup(&mut self, now: Moment, id: u64, pg: PgId, disk: DiskId, out: &mut Vec<Action>) {
        let number = self.number();
        let (scope, family, layer) = (self.scope(pg), self.view.family, self.view.head);
        self.note_lookup_sent(now, id, (disk, number));
        let (Some(lookup), Some(link)) = (self.lookups.all.get(&id), self.links.get_mut(&disk)) else {
            return;
        };
        let (index, range) = match lookup.target {
            Target::Shard { blocks, .. } => (rows_index(lookup.part.index), blocks),
            Target::Column { rows: true } => (rows_index(lookup.part.index), lookup.part.range),
            _ => (lookup.part.index, lookup.part.range),
        };
        let request = match lookup.purpose {
            Purpose::Learn if lookup.target != Target::Copies => Request::Column {
                scope,
                family,
                layer,
                index,
            },
            Purpose::Read | Purpose::Shard => Request::Read {
                scope,
                family,
                layer,
                index,
                range,
            },
            Purpose::Map | Purpose::Learn => Request::Map {
                scope,
                family,
                layer,
                index,
                range,
            },
        };
        link.send(now, number, Sent::Lookup(id), request, out);
    }

    /// A lookup is on its way, in the request with this number.
    fn note_lookup_sent(&mut self, now: Moment, id: u64, (disk, number): (DiskId, u64)) {
        self.lookups.ready.remove(&id);
        if let Some(lookup) = self.lookups.all.get_mut(&id) {
            lookup.layer = self.view.head;
            lookup.tried.insert(disk);
            lookup.not_before = None;
            lookup.state = State::Sent {
                disk,
                number,
                at: now,
            };
        }
    }

    /// A lookup that a disk leaves unanswered goes to another one, if there is another.
    fn give_up_stalled(&mut self, now: Moment) {
        let stalled = |lookup: &Lookup| match lookup.state {
            State::Sent { at, .. } => now.since(at) >= STALL_MS,
            _ => false,
        };
        let ids: Vec<u64> = self
            .lookups
            .all
            .iter()
            .filter(|(_, lookup)| stalled(lookup))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let Some(lookup) = self.lookups.all.get(&id) else {
                continue;
            };
            let pg = self.group_of(lookup.part.index);
            // A shard that is late can be had from others.
            if self.choose(now, pg, lookup).is_some() || !self.substitutes(now, id).is_empty() {
                self.lookup_again(id, None);
            }
        }
    }

    /// Nobody looks for shards for the sake of this one any more.
    pub(super) fn drop_children(&mut self, id: u64) {
        for child in self.lookups.children_of(id) {
            self.end_lookup(child);
        }
    }

    /// Makes a lookup ready to be sent once more.
    pub(super) fn lookup_again(&mut self, id: u64, not_before: Option<Moment>) {
        if let Some(lookup) = self.lookups.all.get_mut(&id) {
            lookup.state = State::Idle;
            lookup.not_before = not_before;
            self.lookups.ready.insert(id);
        }
    }

    /// The lookups in flight of a group whose interval changed are asked again.
    pub(super) fn lookups_again(&mut self, pg: PgId) {
        let sent = |lookup: &Lookup| matches!(lookup.state, State::Sent { .. });
        let ids: Vec<u64> = self
            .lookups
            .all
            .iter()
            .filter(|(_, lookup)| sent(lookup) && self.group_of(lookup.part.index) == pg)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.lookup_again(id, None);
        }
    }

    /// The connection on which a lookup was in flight is gone.
    pub(super) fn lookup_lost(&mut self, id: u64, lost: u64) {
        let current = |lookup: &Lookup| matches!(lookup.state, State::Sent { number, .. } if number == lost);
        if self.lookups.all.get(&id).is_some_and(current) {
            self.lookup_again(id, None);
        }
    }
}

/// How many bytes a lookup brings that its reader waits for.
fn weight(purpose: Purpose, part: &Part) -> usize {
    match purpose {
        Purpose::Read => part.range.byte_len(),
        Purpose::Map | Purpose::Learn | Purpose::Shard => 0,
    }
}

//! Reads of volumes in pools that encode rows: each block comes from where the layout says, and from any k shards if the
//! one that has it cannot be read.
//!
//! The layout shows what is acknowledged. A place, and a front's blocks, may be given to something newer while a read of
//! them is under way: then the read is begun anew (see [`Area`]).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use protocol::rows::{Row, RowPlace, rows_index};
use protocol::storage::{MapRun, ObjectState};
use protocol::{BlockRange, DiskId, LayerId, PgId, Stamp};

use super::Area;
use crate::moment::Moment;
use crate::owner::Owner;
use crate::owner::event::{Action, Failure};
use crate::owner::group::Group;
use crate::owner::lookup::{Answer, Purpose, State};
use crate::owner::operation::Part;
use crate::rows::layout::{Layout, Source};

/// Where a lookup looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::owner) enum Target {
    /// At any copy.
    Copies,
    /// It must be cut up by the layout first.
    Range,
    /// At any copy of the front; how often it had moved when this was decided.
    Front { row: Row, moves: u64 },
    /// At the disk that keeps a shard; whether for the sake of another lookup, which rebuilds.
    Shard {
        row: Row,
        shard: u8,
        place: RowPlace,
        blocks: BlockRange,
        moves: u64,
        parent: Option<u64>,
    },
    /// What there is of the front, or of the rows.
    Column { rows: bool },
}

/// Shards that have come of a row that is rebuilt.
#[derive(Debug, Default)]
pub(in crate::owner) struct Rebuilding {
    have: BTreeMap<u8, Bytes>,
}

impl Owner {
    /// Asks what there is of a range, once.
    pub(super) fn learn_range(&mut self, index: u32) {
        let range = self.writes.ranges.entry(index);
        if std::mem::replace(&mut range.learning, true) {
            return;
        }
        for rows in [false, true] {
            self.ask_column(index, rows);
        }
    }

    fn ask_column(&mut self, index: u32, rows: bool) {
        let part = Part {
            sequence: 0,
            index,
            range: BlockRange::OBJECT,
            offset: 0,
        };
        self.add_piece(Purpose::Learn, part, Target::Column { rows });
    }

    /// A disk told what there is of the front or of the rows.
    pub(in crate::owner) fn column_came(
        &mut self,
        id: u64,
        disk: DiskId,
        objects: Vec<ObjectState>,
        out: &mut Vec<Action>,
    ) {
        let Some(lookup) = self.end_lookup(id) else { return };
        let index = lookup.part.index;
        let shard = self
            .groups
            .get(&self.group_of(index))
            .and_then(|group| group.shard_of(disk));
        let Target::Column { rows } = lookup.target else {
            return;
        };
        let learning = self.writes.ranges.get(index).is_some_and(|range| range.learning);
        if !learning {
            return; // The head changed, and nobody has asked since.
        }
        let (true, Some(shard)) = (lookup.layer == self.view.head, shard) else {
            return self.ask_column(index, rows);
        };
        let range = self.writes.ranges.entry(index);
        if rows {
            range.rows = Some((shard, objects));
        } else {
            range.front = Some(objects);
        }
        self.resolve_range(index, out);
    }

    fn resolve_range(&mut self, index: u32, out: &mut Vec<Action>) {
        let head = self.view.head;
        let Some(encoding) = &self.encoding else { return };
        let range = self.writes.ranges.entry(index);
        let (Some(front), Some((shard, rows))) = (&range.front, &range.rows) else {
            return;
        };
        let layout = Layout::resolve(encoding.shape.profile(), head, front, (*shard, rows));
        let stamps = [
            (index, stamp_in(front, head)),
            (rows_index(index), stamp_in(rows, head)),
        ];
        range.layout = Some(layout);
        range.learning = false;
        (range.front, range.rows) = (None, None);
        for (index, stamp) in stamps {
            self.writes.objects.entry(index).or_default().stamp = Some(stamp);
        }
        self.note_spare(index);
        self.note_resting(index);
        self.begin_known(index, out);
    }

    /// Cuts up the lookups that may be sent, as far as their ranges are known.
    pub(in crate::owner) fn cut_lookups(&mut self, now: Moment, out: &mut Vec<Action>) {
        for id in self.lookups.uncut(now) {
            let Some(part) = self.lookups.get(id).map(|lookup| lookup.part.clone()) else {
                continue;
            };
            let Some(layout) = self.writes.ranges.layout(part.index) else {
                self.learn_range(part.index);
                continue;
            };
            let (sources, map) = (layout.sources(part.range), layout.map(part.range));
            let Some(lookup) = self.end_lookup(id) else {
                continue;
            };
            if lookup.purpose == Purpose::Map {
                let length = |run: &MapRun| (run.range.byte_len() as u64, run.kind);
                self.operations.runs(&part, map.iter().map(length).collect());
                self.operations.part_done(part.sequence, None, out);
            } else {
                self.begin_pieces(&part, &sources, out);
            }
        }
    }

    fn begin_pieces(&mut self, part: &Part, sources: &[(BlockRange, Source)], out: &mut Vec<Action>) {
        let Some(shape) = self.encoding.as_ref().map(|encoding| encoding.shape) else {
            return;
        };
        let cut = sources.iter().flat_map(|(range, source)| {
            let pieces = super::pieces(shape, *range).into_iter();
            pieces.map(move |(row, piece)| (row, piece, *source))
        });
        let pieces: Vec<(Row, BlockRange, Source)> = cut.collect();
        self.operations.split(part.sequence, pieces.len());
        for (row, range, source) in pieces {
            let piece = part.piece(range);
            let moves = |area| self.writes.ranges.moves(part.index, row, area);
            match source {
                Source::Hole | Source::Zero => {
                    self.operations
                        .data(&piece, Bytes::from(vec![0; range.byte_len()]));
                    self.operations.part_done(piece.sequence, None, out);
                }
                Source::Front => {
                    let moves = moves(Area::Front);
                    self.add_piece(Purpose::Read, piece, Target::Front { row, moves });
                }
                Source::Row {
                    shard, place, blocks, ..
                } => {
                    let target = Target::Shard {
                        row,
                        shard,
                        place,
                        blocks,
                        moves: moves(Area::Place(place)),
                        parent: None,
                    };
                    self.add_piece(Purpose::Read, piece, target);
                }
            }
        }
    }

    /// Whether what a lookup looked for may have gone from there meanwhile.
    pub(in crate::owner) fn has_moved(&self, index: u32, target: Target) -> bool {
        let (row, area, moves) = match target {
            Target::Front { row, moves } => (row, Area::Front, moves),
            Target::Shard {
                row, place, moves, ..
            } => (row, Area::Place(place), moves),
            Target::Copies | Target::Range | Target::Column { .. } => return false,
        };
        self.writes.ranges.moves(index, row, area) != moves
    }

    /// Begins a lookup anew, from the layout on.
    pub(in crate::owner) fn look_anew(&mut self, id: u64) {
        let Some(lookup) = self.end_lookup(id) else { return };
        match lookup.target {
            // Whoever rebuilds finds out by itself.
            Target::Shard {
                parent: Some(parent), ..
            } => {
                self.drop_children(parent);
                self.look_anew(parent);
            }
            _ => self.add_lookup(lookup.purpose, lookup.part),
        }
    }

    /// A shard that is wanted to rebuild another one, and whose keeper has left, is waited for only if another one can be had
    /// instead. Else what is to be rebuilt is looked for anew, where it was damaged: it is mended by now, or the read fails.
    pub(in crate::owner) fn give_up_rebuilding(&mut self, now: Moment) {
        for (id, shard) in self.lookups.wanted_shards() {
            let lookup = self.lookups.get(id);
            let group = lookup.and_then(|lookup| self.groups.get(&self.group_of(lookup.part.index)));
            let left = group.is_some_and(|group| group.serving() && group.keeper(shard).is_none());
            if left && self.substitutes(now, id).is_empty() {
                self.look_anew(id);
            }
        }
    }

    /// Whether a disk may answer a lookup, by the shard that it keeps.
    pub(in crate::owner) fn may_answer(&self, pg: PgId, disk: DiskId, target: Target) -> bool {
        let (Some(encoding), Some(group)) = (&self.encoding, self.groups.get(&pg)) else {
            return true;
        };
        let Some(keeps) = group.shard_of(disk) else {
            return false;
        };
        match target {
            Target::Copies | Target::Range => true,
            Target::Front { .. } | Target::Column { rows: false } => encoding.fronts().contains(&keeps),
            Target::Shard { shard, .. } => shard == keeps,
            // The first shard and those of parity have something of each row, which tells rows of zeros.
            Target::Column { rows: true } => {
                let telling = |shard: u8| shard == 0 || shard >= encoding.data();
                let others = group
                    .in_sync()
                    .filter_map(|disk| group.shard_of(disk))
                    .any(telling);
                telling(keeps) || !others
            }
        }
    }

    /// Whoever keeps a shard cannot be asked now: it is rebuilt from others, if there are enough. False: it must wait.
    pub(in crate::owner) fn rebuild_instead(&mut self, now: Moment, id: u64) -> bool {
        let Some(lookup) = self.lookups.get(id) else {
            return false;
        };
        let Target::Shard { shard, parent, .. } = lookup.target else {
            return false;
        };
        let pg = self.group_of(lookup.part.index);
        let keeper = self.groups.get(&pg).and_then(|group| group.keeper(shard));
        let only_full = keeper.is_some_and(|disk| {
            let connected = self.links.get(&disk).is_some_and(|link| link.connected);
            connected && !lookup.tried.contains(&disk) && !lookup.damaged.contains_key(&disk)
        });
        if only_full {
            return false;
        }
        let others = self.substitutes(now, id);
        if others.is_empty() {
            return false;
        }
        if parent.is_some() {
            self.end_lookup(id);
        } else {
            let state = State::Rebuilding(Rebuilding::default());
            self.lookups.set_state(id, state);
        }
        self.ask_shards(parent.unwrap_or(id), &others);
        true
    }

    /// The shards that can be asked for instead of the one that a lookup looks for: for the sake of another lookup one,
    /// else k. None if there are too few.
    pub(in crate::owner) fn substitutes(&self, now: Moment, id: u64) -> Vec<u8> {
        let lookup = self.lookups.get(id);
        let Some((Target::Shard { shard, parent, .. }, part)) =
            lookup.map(|lookup| (lookup.target, &lookup.part))
        else {
            return Vec::new();
        };
        let subject = self.lookups.get(parent.unwrap_or(id));
        let (Some(encoding), Some(group), Some(subject)) = (
            &self.encoding,
            self.groups.get(&self.group_of(part.index)),
            subject,
        ) else {
            return Vec::new();
        };
        let asked = |other: u8| match &subject.state {
            State::Rebuilding(rebuilding) => {
                rebuilding.have.contains_key(&other) || self.lookups.looks_for(parent.unwrap_or(id), other)
            }
            _ => other == shard,
        };
        let readable = |other: &u8| {
            let disk = group.keeper(*other);
            let open = disk
                .and_then(|disk| self.links.get(&disk))
                .is_some_and(|link| link.open(now));
            let damaged = disk.is_some_and(|disk| subject.damaged.contains_key(&disk));
            open && !damaged && !asked(*other)
        };
        let needed = if parent.is_some() {
            1
        } else {
            usize::from(encoding.data())
        };
        let width = encoding.shape.profile().width();
        let others: Vec<u8> = (0..width).filter(readable).take(needed).collect();
        if others.len() < needed || !group.serving() {
            return Vec::new();
        }
        others
    }

    fn ask_shards(&mut self, id: u64, shards: &[u8]) {
        let Some(lookup) = self.lookups.get(id) else {
            return;
        };
        let Target::Shard {
            row,
            place,
            blocks,
            moves,
            ..
        } = lookup.target
        else {
            return;
        };
        let part = lookup.part.clone();
        for shard in shards {
            let target = Target::Shard {
                row,
                shard: *shard,
                place,
                blocks,
                moves,
                parent: Some(id),
            };
            self.add_piece(Purpose::Shard, part.clone(), target);
        }
    }

    /// A shard came for a lookup that rebuilds. With k of them, or with the one that it looked for, it is done.
    pub(in crate::owner) fn shard_came(
        &mut self,
        parent: u64,
        shard: u8,
        bytes: Bytes,
        out: &mut Vec<Action>,
    ) {
        let Some(Target::Shard { shard: wanted, .. }) = self.lookups.get(parent).map(|lookup| lookup.target)
        else {
            return;
        };
        let Some(encoding) = &self.encoding else { return };
        let (data, width) = (usize::from(encoding.data()), encoding.shape.profile().width());
        let Some(State::Rebuilding(rebuilding)) = self.lookups.state_mut(parent) else {
            return;
        };
        rebuilding.have.insert(shard, bytes);
        if rebuilding.have.len() < data && shard != wanted {
            return;
        }
        if let Some(bytes) = rebuilding.have.remove(&wanted) {
            self.drop_children(parent);
            return self.found(parent, None, Answer::Data(bytes), out);
        }
        let have = |shard: u8| rebuilding.have.get(&shard).map(|bytes| bytes.to_vec());
        let rebuilt = encoding.code.rebuild((0..width).map(have).collect());
        let Some(bytes) =
            rebuilt.and_then(|mut shards| shards.get_mut(usize::from(wanted)).map(std::mem::take))
        else {
            return self.fail_lookup(parent, out);
        };
        self.drop_children(parent);
        self.found(parent, None, Answer::Data(Bytes::from(bytes)), out);
    }

    /// A shard is damaged on its disk. If too few are left, the blocks are lost until the disks have them again.
    pub(in crate::owner) fn shard_damaged(
        &mut self,
        now: Moment,
        id: u64,
        (disk, block): (DiskId, u32),
        out: &mut Vec<Action>,
    ) {
        let Some(Target::Shard { parent, .. }) = self.lookups.get(id).map(|lookup| lookup.target) else {
            return;
        };
        let subject = parent.unwrap_or(id);
        self.lookups.note_damage(subject, disk, block);
        let Some(lookup) = self.lookups.get(subject) else {
            return;
        };
        let Some(group) = self.groups.get(&self.group_of(lookup.part.index)) else {
            return;
        };
        if self.is_lost(group, &lookup.damaged) {
            self.drop_children(subject);
            self.fail_lookup(subject, out);
        } else {
            self.lookup_again(id, None);
            self.rebuild_instead(now, id);
        }
    }

    /// Whether too few shards are left on disks in sync that have not said that theirs is damaged.
    pub(in crate::owner) fn is_lost(&self, group: &Group, damaged: &BTreeMap<DiskId, u32>) -> bool {
        let good = group.in_sync().filter(|disk| !damaged.contains_key(disk));
        let shards: BTreeSet<u8> = good.filter_map(|disk| group.shard_of(disk)).collect();
        let encoding = self.encoding.as_ref();
        encoding.is_some_and(|encoding| shards.len() < usize::from(encoding.data()))
    }

    /// Each block is read alone, so that only those fail that cannot be had.
    fn fail_lookup(&mut self, id: u64, out: &mut Vec<Action>) {
        let Some(lookup) = self.end_lookup(id) else { return };
        let part = lookup.part;
        if part.range.count() > 1 {
            self.read_alone(&part);
        } else {
            let failure = Failure::Damaged { offset: part.offset };
            self.operations.part_done(part.sequence, Some(failure), out);
        }
    }
}

/// The stamp of the object in a layer, of those in a column.
fn stamp_in(column: &[ObjectState], layer: LayerId) -> Stamp {
    let object = column.iter().find(|state| state.object.layer == layer);
    object.map_or(Stamp::ZERO, |state| state.stamp)
}

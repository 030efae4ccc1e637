//! One column of rows on a disk that comes back to a group of shards: what k disks in sync have of it, what of that this
//! disk lacks, and its shards of that, rebuilt from theirs (`docs/decisions/0054-rows-come-back.md`). Who asks whom, and
//! when, is not known here.
//!
//! A chunk of a rows object is known by its stamp: it is the shard of one write of one row, whatever layer it lies in by
//! now. So k sources need not stand at one stamp. What each of them has is taken as far as the one that is furthest
//! behind; what they have had since lies in the rows' other places, and comes here as writes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use protocol::rows::{RowCode, Rows};
use protocol::storage::{ChunkState, ObjectDelta, ObjectState};
use protocol::{DiskId, LayerId, ObjectId, Stamp};

use super::shards::{Shards, chunks_in, made_of};
use super::{absent, replacement};
use crate::mutation::{self, Mutation};

/// A column on its way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rebuilding {
    shape: Rows,
    /// The range, as any of its objects: the layer says nothing.
    range: ObjectId,
    /// Which shard this disk keeps.
    shard: u8,
    /// The source by whose layers this disk goes.
    first: DiskId,
    sources: BTreeMap<DiskId, Source>,
    own: Option<Vec<ObjectState>>,
    /// What is to be changed here, what is newest first.
    changes: VecDeque<Change>,
    /// Questions that are not answered, and to whom.
    pub(crate) asked: BTreeMap<u64, DiskId>,
}

/// One of the disks that are asked.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    shard: u8,
    column: Option<Vec<ObjectState>>,
    /// Chunks that came for the change at the front, as `None` if they are zeros.
    chunks: BTreeMap<(u8, Stamp), Option<Bytes>>,
    doubt: bool,
}

/// What is to be changed of one object here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) object: ObjectId,
    /// Its stamp, before and after.
    pub(crate) follows: Stamp,
    pub(crate) stamp: Stamp,
    /// Chunks that it lacks.
    wanted: BTreeMap<u8, Stamp>,
    /// Chunks that it has, and should not have.
    gone: BTreeSet<u8>,
}

/// A question to a source: an object, and what of it need not be sent.
pub(crate) type Wish = (DiskId, ObjectId, Vec<ChunkState>);

impl Rebuilding {
    /// Of the column of `range`, for the disk that keeps `shard`, from these disks with their shards: k of them, or one that
    /// keeps the same shard.
    pub(crate) fn new(
        shape: Rows,
        range: ObjectId,
        shard: u8,
        first: DiskId,
        sources: impl Iterator<Item = (DiskId, u8)>,
    ) -> Self {
        let source = |(disk, shard)| {
            let source = Source {
                shard,
                column: None,
                chunks: BTreeMap::new(),
                doubt: false,
            };
            (disk, source)
        };
        Self {
            shape,
            range,
            shard,
            first,
            sources: sources.map(source).collect(),
            own: None,
            changes: VecDeque::new(),
            asked: BTreeMap::new(),
        }
    }

    /// Any object of the column.
    pub(crate) fn range(&self) -> ObjectId {
        self.range
    }

    /// A source told what it has.
    pub(crate) fn column(&mut self, disk: DiskId, objects: Vec<ObjectState>) {
        if let Some(source) = self.sources.get_mut(&disk) {
            source.column = Some(objects);
        }
    }

    /// This is here.
    pub(crate) fn own(&mut self, objects: Vec<ObjectState>) {
        self.own = Some(objects);
    }

    /// Whether all have told.
    pub(crate) fn is_known(&self) -> bool {
        self.own.is_some() && self.sources.values().all(|source| source.column.is_some())
    }

    /// All layers that somebody has something in.
    pub(crate) fn layers(&self) -> BTreeSet<LayerId> {
        let told = self.sources.values().filter_map(|source| source.column.as_ref());
        let states = told.chain(&self.own).flatten();
        states.map(|state| state.object.layer).collect()
    }

    /// Finds out what is to be changed. `is_head` says of a layer whether writes may be on their way to it, and `confirmed`
    /// of what this disk has at a stamp whether it may have said ok to that (W1, V3).
    pub(crate) fn plan(
        &mut self,
        is_head: impl Fn(LayerId) -> bool,
        confirmed: impl Fn(ObjectId, Stamp) -> bool,
    ) {
        let empty = Vec::new();
        let own = self.own.as_ref().unwrap_or(&empty);
        let first = self
            .sources
            .get(&self.first)
            .and_then(|source| source.column.as_ref());
        let first = first.unwrap_or(&empty);
        let layers: BTreeSet<LayerId> = own.iter().chain(first).map(|state| state.object.layer).collect();
        let mut changes = VecDeque::new();
        for layer in layers.into_iter().rev() {
            let object = ObjectId { layer, ..self.range };
            let stamp = self.stamp_of(object, is_head(layer));
            let stays = |at: Stamp| at > stamp && confirmed(object, at);
            let (ours, theirs) = (of_layer(own, layer), of_layer(first, layer));
            let change = self.change(object, stamp, (ours, theirs), stays);
            // What a merge left here without a stamp and a chunk is as good as nothing, but stays when its layer is gone.
            let left = theirs.is_none() && ours.is_some_and(is_nothing);
            if left || change.is_needed() {
                changes.push_back(change);
            }
        }
        self.changes = changes;
    }

    /// How far all sources are with an object. Of a sealed one there are no writes under way, and some sources may have
    /// merged it already.
    fn stamp_of(&self, object: ObjectId, is_head: bool) -> Stamp {
        let stamp = |source: &Source| {
            let column = source.column.as_ref()?;
            Some(of_layer(column, object.layer)?.stamp)
        };
        let stamps = self
            .sources
            .iter()
            .filter(|(disk, _)| is_head || **disk == self.first)
            .map(|(_, source)| stamp(source).unwrap_or(Stamp::ZERO));
        stamps.min().unwrap_or(Stamp::ZERO)
    }

    fn change(
        &self,
        object: ObjectId,
        stamp: Stamp,
        (ours, theirs): (Option<&ObjectState>, Option<&ObjectState>),
        stays: impl Fn(Stamp) -> bool,
    ) -> Change {
        let follows = ours.map_or(Stamp::ZERO, |ours| ours.stamp);
        let mut change = Change {
            object,
            follows,
            stamp: if stays(follows) { follows } else { stamp },
            wanted: BTreeMap::new(),
            gone: BTreeSet::new(),
        };
        let (here, there) = (chunks_of(ours), chunks_of(theirs));
        for (number, at) in &here {
            if there.get(number) != Some(at) && !stays(*at) {
                change.gone.insert(*number);
            }
        }
        for (&number, &at) in &there {
            if mutation::active(Mutation::NewestVersionOnly)
                && there.get(&(number ^ 1)).is_some_and(|other| *other > at)
            {
                continue;
            }
            let known = here.get(&number);
            let fine = known.is_some_and(|known| *known == at || stays(*known));
            if !fine && self.all_have(number, at) {
                change.gone.remove(&number);
                change.wanted.insert(number, at);
            }
        }
        change
    }

    /// Whether each source has a chunk of this stamp, in whatever layer.
    fn all_have(&self, number: u8, at: Stamp) -> bool {
        let has = |source: &Source| {
            let mut objects = source.column.iter().flatten();
            objects.any(|state| has_chunk(state, number, at))
        };
        self.sources.values().all(has)
    }

    /// What is to be changed next.
    pub(crate) fn next(&self) -> Option<&Change> {
        self.changes.front()
    }

    /// What to ask for it. Each source is asked for the object, even if no chunk of it is wanted: whether it is in doubt
    /// there counts here (W2).
    pub(crate) fn wishes(&mut self) -> Vec<Wish> {
        let Some(change) = self.changes.front() else {
            return Vec::new();
        };
        let mut wishes = Vec::new();
        for (disk, source) in &mut self.sources {
            source.chunks.clear();
            source.doubt = false;
            let mut missing = change.wanted.clone();
            let mut objects: Vec<&ObjectState> = source.column.iter().flatten().collect();
            objects.sort_unstable_by_key(|state| std::cmp::Reverse(state.object.layer));
            for state in objects {
                let mut have = state.chunks.clone();
                have.retain(|chunk| missing.get(&chunk.chunk) != Some(&chunk.stamp));
                let wanted = have.len() < state.chunks.len();
                if wanted || state.object == change.object {
                    missing.retain(|number, at| !has_chunk(state, *number, *at));
                    wishes.push((*disk, state.object, have));
                }
            }
        }
        wishes
    }

    /// A source sent chunks of an object.
    pub(crate) fn sent(&mut self, disk: DiskId, delta: &ObjectDelta, doubt: bool) {
        let Some(source) = self.sources.get_mut(&disk) else {
            return;
        };
        source.doubt |= doubt;
        source.chunks.extend(chunks_in(delta));
    }

    /// What to store for the change at the front, and whether it is in doubt at a source. Nothing if a chunk has gone
    /// meanwhile: then all is looked at again.
    pub(crate) fn delta(&self, code: &dyn RowCode) -> Option<(ObjectDelta, bool)> {
        let change = self.changes.front()?;
        let mut states: BTreeMap<u8, ChunkState> = BTreeMap::new();
        for number in &change.gone {
            states.insert(*number, absent(u32::from(*number))?);
        }
        let mut bytes = BytesMut::new();
        for (number, stamp) in &change.wanted {
            let shards = self.shards(*number, *stamp)?;
            let shard = made_of(&shards, (self.shape, *number, self.shard), code)?;
            let state = ChunkState {
                chunk: *number,
                stamp: *stamp,
                present: u16::MAX,
                zero: if shard.is_empty() { u16::MAX } else { 0 },
            };
            states.insert(*number, state);
            bytes.extend_from_slice(&shard);
        }
        let doubt = self.sources.values().any(|source| source.doubt);
        let states = states.into_values().collect();
        let delta = replacement(change.object, change.stamp, states, bytes.freeze());
        Some((delta, doubt))
    }

    fn shards(&self, number: u8, stamp: Stamp) -> Option<Shards> {
        let sent = |source: &Source| Some((source.shard, source.chunks.get(&(number, stamp))?.clone()));
        self.sources.values().map(sent).collect()
    }

    /// The change at the front is done.
    pub(crate) fn stored(&mut self) {
        self.changes.pop_front();
    }
}

impl Change {
    fn is_needed(&self) -> bool {
        self.follows != self.stamp || !self.wanted.is_empty() || !self.gone.is_empty()
    }
}

fn is_nothing(state: &ObjectState) -> bool {
    state.stamp == Stamp::ZERO && state.chunks.is_empty()
}

fn of_layer(objects: &[ObjectState], layer: LayerId) -> Option<&ObjectState> {
    objects.iter().find(|state| state.object.layer == layer)
}

fn chunks_of(object: Option<&ObjectState>) -> BTreeMap<u8, Stamp> {
    let chunks = object.into_iter().flat_map(|state| &state.chunks);
    chunks
        .filter(|chunk| chunk.present != 0)
        .map(|chunk| (chunk.chunk, chunk.stamp))
        .collect()
}

fn has_chunk(state: &ObjectState, number: u8, at: Stamp) -> bool {
    let mut chunks = state.chunks.iter();
    chunks.any(|chunk| chunk.chunk == number && chunk.stamp == at && chunk.present != 0)
}

#[cfg(test)]
#[path = "rebuilding/tests.rs"]
mod tests;

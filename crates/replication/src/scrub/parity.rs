//! What a look at parity has come to know (`docs/decisions/0060-scrub-compares-parity.md`). Who is asked, and what follows, is
//! `replica::parity`'s business.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use protocol::storage::{ChunkState, ObjectState};
use protocol::{DiskId, ObjectId, Stamp};

use super::first_of;
use crate::rows::shards::Shards;

/// A look at the parity of some rows of an object: at most [`protocol::storage::VERIFY_CHUNKS`] chunks, of 64 KiB each, of
/// every disk.
#[derive(Debug)]
pub(crate) struct ParityLook {
    pub(crate) object: ObjectId,
    /// All chunks of the object but those to be looked at: what is not asked for.
    pub(crate) have: Vec<ChunkState>,
    /// Who keeps the data, by shard, and how many of them were asked.
    keepers: Vec<DiskId>,
    asked: u8,
    /// Our shards, by chunk and version.
    pub(crate) own: BTreeMap<(u8, Stamp), Option<Bytes>>,
    /// The data of the same versions.
    pub(crate) data: BTreeMap<(u8, Stamp), Shards>,
    /// Blocks of ours.
    pub(crate) blocks: u64,
    /// How often something was found wrong.
    pub(crate) looks: u8,
}

impl ParityLook {
    /// The looks that an object takes.
    pub(crate) fn of_object<'a>(
        state: &'a ObjectState,
        keepers: &'a [DiskId],
    ) -> impl Iterator<Item = Self> + 'a {
        let whole = state.chunks.iter().filter(|chunk| chunk.present == u16::MAX);
        let firsts: BTreeSet<u8> = whole.map(|chunk| first_of(chunk.chunk)).collect();
        firsts.into_iter().map(move |first| {
            let others = state.chunks.iter().filter(|chunk| first_of(chunk.chunk) != first);
            Self {
                object: state.object,
                have: others.cloned().collect(),
                keepers: keepers.to_vec(),
                asked: 0,
                own: BTreeMap::new(),
                data: BTreeMap::new(),
                blocks: 0,
                looks: 0,
            }
        })
    }

    /// Whom to ask next, for which shard.
    pub(crate) fn next_keeper(&mut self) -> Option<(DiskId, u8)> {
        let shard = self.asked;
        let keeper = self.keepers.get(usize::from(shard)).copied()?;
        self.asked += 1;
        Some((keeper, shard))
    }

    /// Something is wrong: everybody is asked once more.
    pub(crate) fn begin_again(&mut self) {
        self.looks += 1;
        self.asked = 0;
        self.own.clear();
        self.data.clear();
    }
}

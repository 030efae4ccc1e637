//! A deep scrub's look at parity (`docs/decisions/0060-scrub-compares-parity.md`): whether our shard of each row is what
//! the data of the same version make of it.
//!
//! Whoever keeps parity looks, some rows at a time, after its own blocks were read and their checksums held. What is found
//! is told and never mended: all shards are what was written, and nothing says which of them should not have been.

use std::collections::VecDeque;

use protocol::recovery::Ask;
use protocol::rows::{Rows, is_rows};
use protocol::session::SlotState;
use protocol::storage::{ObjectDelta, ObjectState, StorageRequest};
use protocol::{BLOCK_SIZE, DiskId, PgId};

use super::Replica;
use super::event::Action;
use crate::rows::shards::{Shards, chunks_in, made_of};
use crate::scrub::{Doing, Finding, ParityLook, Progress};

/// How often a row must be found wrong before it counts as that.
const LOOKS: u8 = 2;

impl Replica {
    /// The rows of a column whose parity is here and can be looked at: those whose data are all in sync.
    pub(super) fn parities_of(&self, column: &[ObjectState]) -> VecDeque<ParityLook> {
        let rows = column.first().filter(|state| is_rows(state.object.index));
        let keepers = rows.and_then(|state| {
            let pg = self.map.placement(state.object.family, state.object.index)?;
            let keepers = self.keepers_of_data(pg)?;
            (usize::from(self.shard_of(pg, self.disk)?) >= keepers.len()).then_some(keepers)
        });
        let keepers = keepers.unwrap_or_default();
        let looked_at = if keepers.is_empty() { &[] } else { column };
        let looks = |state| ParityLook::of_object(state, &keepers);
        looked_at.iter().flat_map(looks).collect()
    }

    /// The disk in sync of each shard of data of a group of rows.
    fn keepers_of_data(&self, pg: PgId) -> Option<Vec<DiskId>> {
        let profile = self.map.profile(pg)?;
        let slots = &self.map.group(pg)?.slots;
        let keeper = |shard| {
            let mut keepers = slots.iter().filter(|slot| slot.shard == shard);
            let keeper = keepers.find(|slot| slot.state == SlotState::InSync)?;
            Some(keeper.disk)
        };
        (0..profile.data()).map(keeper).collect()
    }

    /// Begins with our own shards of some rows.
    pub(super) fn look_at_parity(&mut self, look: ParityLook, out: &mut Vec<Action>) {
        let request = StorageRequest::Difference {
            object: look.object,
            have: look.have.clone(),
        };
        self.scrub.doing = Doing::ParityHere(look);
        self.ask_for_scrub(request, out);
    }

    /// Our own shards are here: the data are asked for, one disk after the other.
    pub(super) fn parity_here(&mut self, mut look: ParityLook, delta: &ObjectDelta, out: &mut Vec<Action>) {
        look.blocks = (delta.bytes.len() / BLOCK_SIZE as usize) as u64;
        look.own = chunks_in(delta);
        self.next_data(look, out);
    }

    fn next_data(&mut self, mut look: ParityLook, out: &mut Vec<Action>) {
        let Some((disk, shard)) = look.next_keeper() else {
            return self.compare_parity(look, out);
        };
        let (object, have) = (look.object, look.have.clone());
        self.scrub.doing = Doing::ParityThere(look, shard);
        self.ask_peer(disk, object, Ask::Difference { object, have }, out);
    }

    /// A disk sent its shards of data.
    pub(super) fn parity_there(
        &mut self,
        mut look: ParityLook,
        shard: u8,
        delta: &ObjectDelta,
        out: &mut Vec<Action>,
    ) {
        for (row, bytes) in chunks_in(delta) {
            if look.own.contains_key(&row) {
                look.data.entry(row).or_default().insert(shard, bytes);
            }
        }
        self.next_data(look, out);
    }

    fn compare_parity(&mut self, mut look: ParityLook, out: &mut Vec<Action>) {
        let wrong = self.wrong_parity(&look);
        let progress = match wrong {
            None => Progress::Step {
                objects: 0,
                blocks: look.blocks,
            },
            Some(chunk) if look.looks + 1 >= LOOKS => Progress::Found(Finding::ParityDiffers {
                object: look.object,
                chunk,
            }),
            Some(_) => {
                look.begin_again();
                if let Some(run) = self.scrub.run() {
                    run.parities.push_back(look);
                }
                Progress::Rest
            }
        };
        self.tell(progress, out);
    }

    /// The first chunk that is not what the data of the same version make of it. A row of which not all data have this
    /// version is written just now, or was not written to the end: rule 7 is for those.
    fn wrong_parity(&self, look: &ParityLook) -> Option<u8> {
        let pg = self.map.placement(look.object.family, look.object.index)?;
        let (profile, own, code) = (
            self.map.profile(pg)?,
            self.shard_of(pg, self.disk)?,
            self.row_code(pg)?,
        );
        let shape = Rows::new(profile);
        let none = Shards::new();
        look.own.iter().find_map(|((chunk, stamp), bytes)| {
            let data = look.data.get(&(*chunk, *stamp)).unwrap_or(&none);
            if data.len() < usize::from(profile.data()) {
                return None;
            }
            let made = made_of(data, (shape, *chunk, own), code.as_ref())?;
            // Zeros may be told as none.
            let ours = bytes.as_deref().unwrap_or_default();
            let zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
            let same = made[..] == *ours || (zeros(&made) && zeros(ours));
            (!same).then_some(*chunk)
        })
    }
}

//! A volume moves to another pool (`docs/decisions/0058-retype.md`): what it has becomes a nameless volume's, it goes on
//! with a new, empty head in the other pool, and its owner copies from the one to the other, from the start to the end.
//!
//! Who copies is not decided here: only what the records say, and on what conditions they change.

use std::collections::BTreeMap;

use admin_api::names::check_name;
use admin_api::sizes::format_size;
use coordination::keys::Key;
use coordination::map::Versioned;
use coordination::records::{
    FORMAT_OF_MOVES, FamilyRecord, LayerRecord, MoveRecord, PoolRecord, VolumeRecord, encode, encode_as,
};
use coordination::{ClusterMap, Compare, Transaction};
use protocol::limits::VolumeLimits;
use protocol::{FamilyId, Generation, LayerId, PoolId, VolumeId};

use super::{Decision, OperationError, Plan, Volumes, event, find};
use crate::moment::wall_clock_ms;

/// The most that is copied a second unless told otherwise, in bytes: guests come first, and one disk of rust gives as much.
pub const RATE_DEFAULT: u64 = 100 << 20;
/// The least, in bytes a second: slower than this nothing ends.
pub const RATE_MIN: u64 = 1 << 20;

/// Identities that nobody has.
struct Fresh {
    source: VolumeId,
    family: FamilyId,
    layer: LayerId,
}

/// What an owner's word of how far it is means.
#[derive(Debug, PartialEq)]
pub(crate) enum Progress {
    /// Nothing new.
    Known,
    /// To be noted so.
    News(Transaction),
    /// The volume is somebody else's.
    NotTheirs,
}

impl Volumes {
    /// Lets a volume move to another pool, or changes how fast it does. It may be open.
    pub async fn retype(
        &self,
        name: &str,
        pool: &str,
        rate: Option<u64>,
    ) -> Result<VolumeId, OperationError> {
        check_name(pool)?;
        let rate = checked_rate(rate)?;
        let map = self.fresh_map().await?;
        let id = find(&map, name)?;
        if map.moving(id).is_some() {
            self.carry_out(|map| plan_rate(map, id, name, pool, rate)).await?;
            return Ok(id);
        }
        // Before anybody is made to wait: is there anything that would refuse?
        check(&map, id, name, pool)?;
        let fresh = Fresh {
            source: self.new_volume().await?,
            family: self.new_family().await?,
            layer: self.new_layer().await?,
        };
        let rest = self.owners.bring_to_rest(&[id]).await?;
        let holds = super::at_rest(rest.as_ref(), id)?;
        let begun = self
            .carry_out(|map| plan(map, id, name, pool, rate, &fresh, &holds))
            .await;
        rest.end(self.map().revision()).await;
        begun.map(|()| id)
    }
}

fn checked_rate(rate: Option<u64>) -> Result<u64, OperationError> {
    match rate {
        Some(rate) if rate < RATE_MIN => Err(OperationError::Invalid(format!(
            "a rate of {rate} bytes a second is too low: give at least {}",
            format_size(RATE_MIN)
        ))),
        rate => Ok(rate.unwrap_or(RATE_DEFAULT)),
    }
}

/// The pool to move to, if the volume can.
fn check<'a>(
    map: &'a ClusterMap,
    id: VolumeId,
    name: &str,
    pool: &str,
) -> Result<(PoolId, &'a Versioned<PoolRecord>), OperationError> {
    let volume = super::volume(map, id)?;
    let target = map.pool_named(pool);
    let (to, record) =
        target.ok_or_else(|| OperationError::NotFound(format!("there is no pool {pool:?}")))?;
    if record.record.closing {
        let message = format!("the pool {pool:?} is being deleted: use another one");
        return Err(OperationError::Conflict(message));
    }
    let family = map.family(volume.record.family);
    if family.and_then(|family| family.pool()) == Some(to) {
        let message = format!("volume {name:?} is in pool {pool:?} already");
        return Err(OperationError::Conflict(message));
    }
    let snapshots = family.map_or(0, |family| family.snapshots_of(id).count());
    if snapshots > 0 {
        let message = format!(
            "volume {name:?} has {}, which stay where they are and are needed there: delete them first, or copy the volume \
             (`storagectl image`)",
            super::counted(snapshots, "snapshot")
        );
        return Err(OperationError::HasSnapshots(message));
    }
    super::refuse_unfinished_shrink(&volume.record)?;
    refuse_older_programs(map, id, name)?;
    Ok((to, record))
}

/// Refuses while somebody might work with the volume who knows nothing of moves.
fn refuse_older_programs(map: &ClusterMap, id: VolumeId, name: &str) -> Result<(), OperationError> {
    let mut up = map.up().iter();
    if let Some((node, up)) = up.find(|(_, up)| !up.record.reads(FORMAT_OF_MOVES)) {
        return Err(OperationError::Conflict(format!(
            "{node} runs storaged {}, which knows nothing of volumes that move: finish the upgrade first",
            up.record.version
        )));
    }
    match map.owner(id) {
        Some(owner) if !owner.record.moves => Err(OperationError::Conflict(format!(
            "volume {name:?} is open by {} (process {} on {}), an older program, which cannot go on with it while it \
             moves: start that anew first (a guest can be migrated for that)",
            owner.record.program, owner.record.pid, owner.record.node
        ))),
        _ => Ok(()),
    }
}

fn plan(
    map: &ClusterMap,
    id: VolumeId,
    name: &str,
    pool: &str,
    rate: u64,
    fresh: &Fresh,
    holds: &[Compare],
) -> Result<Decision<()>, OperationError> {
    let (to, target) = check(map, id, name, pool)?;
    let volume = super::volume(map, id)?;
    let now = wall_clock_ms();
    let source = VolumeRecord {
        origin: None,
        labels: BTreeMap::new(),
        limits: VolumeLimits::default(),
        ..volume.record.clone()
    };
    let record = VolumeRecord {
        family: fresh.family,
        head: fresh.layer,
        ..volume.record.clone()
    };
    let moving = MoveRecord {
        source: fresh.source,
        moved: 0,
        rate,
        started_ms: now,
    };
    let layer = LayerRecord {
        parent: None,
        created_ms: now,
    };
    let key = Key::Volume(id).to_text();
    let move_key = Key::Move(id).to_text();
    let transaction = super::on(holds)
        .when(Compare::Modified(key.clone(), volume.modified))
        .when(Compare::Absent(move_key.clone()))
        .when(Compare::Modified(Key::Pool(to).to_text(), target.modified))
        .put(key, encode(&record)?)
        .put(move_key, encode(&moving)?)
        .put(Key::Volume(fresh.source).to_text(), encode(&source)?)
        .put(
            Key::Family(fresh.family).to_text(),
            encode(&FamilyRecord { pool: to })?,
        )
        .put(
            Key::Layer(fresh.family, fresh.layer).to_text(),
            encode_as(FORMAT_OF_MOVES, &layer)?,
        );
    let message = format!("volume {name} began to move to pool {pool}");
    Ok(Plan::decide(
        transaction,
        event("volume_retype_begun", name, message),
        (),
    ))
}

fn plan_rate(
    map: &ClusterMap,
    id: VolumeId,
    name: &str,
    pool: &str,
    rate: u64,
) -> Result<Decision<()>, OperationError> {
    let family = super::volume(map, id)?.record.family;
    let to = map.family(family).and_then(|family| family.pool());
    let to = to.and_then(|to| map.pool(to)).map(|to| to.record.name.as_str());
    let Some(moving) = map.moving(id) else {
        return Err(OperationError::contended());
    };
    if to != Some(pool) {
        return Err(OperationError::Conflict(format!(
            "volume {name:?} moves to pool {:?} just now: wait until that is done",
            to.unwrap_or_default()
        )));
    }
    if moving.record.rate == rate {
        return Ok(Decision::Unchanged(()));
    }
    let record = MoveRecord {
        rate,
        ..moving.record
    };
    let key = Key::Move(id).to_text();
    let transaction = Transaction::new()
        .when(Compare::Modified(key.clone(), moving.modified))
        .put(key, encode(&record)?);
    Ok(Plan::decide_quietly(transaction, ()))
}

/// What an owner's word that so many bytes are moved changes.
pub(crate) fn progress(
    map: &ClusterMap,
    id: VolumeId,
    generation: Generation,
    moved: u64,
) -> Result<Progress, OperationError> {
    if map.generation(id) != Some(generation) {
        return Ok(Progress::NotTheirs);
    }
    let Some(moving) = map.moving(id) else {
        // It was noted before that all of it is.
        return Ok(Progress::Known);
    };
    let volume = super::volume(map, id)?;
    let size = volume.record.size;
    if moved > size || !moved.is_multiple_of(u64::from(protocol::BLOCK_SIZE)) {
        return Err(OperationError::Invalid(format!(
            "{moved} bytes cannot be moved of a volume of {size}"
        )));
    }
    if moved < size && moved <= moving.record.moved {
        return Ok(Progress::Known);
    }
    let key = Key::Move(id).to_text();
    let transaction = Transaction::new()
        .when(super::owned_by(id, generation))
        .when(Compare::Modified(key.clone(), moving.modified));
    if moved < size {
        let record = MoveRecord {
            moved,
            ..moving.record
        };
        return Ok(Progress::News(transaction.put(key, encode(&record)?)));
    }
    finish(map, id, volume, moving.record.source, transaction.delete(key)).map(Progress::News)
}

/// Nothing is left of the move: the nameless volume goes, and with it what it had.
fn finish(
    map: &ClusterMap,
    id: VolumeId,
    volume: &Versioned<VolumeRecord>,
    source: VolumeId,
    transaction: Transaction,
) -> Result<Transaction, OperationError> {
    let (family, head) = (volume.record.family, volume.record.head);
    let layers = map.family(family).map(|family| family.layers());
    let layer = layers.and_then(|layers| layers.get(&head));
    let layer = layer.ok_or_else(|| OperationError::Internal(format!("{head} is not in the tree")))?;
    Ok(transaction
        // It may have grown since.
        .when(Compare::Modified(Key::Volume(id).to_text(), volume.modified))
        .delete(Key::Volume(source).to_text())
        .put(Key::Layer(family, head).to_text(), encode(layer)?))
}

/// Refuses what cannot be done to a volume while it moves.
pub(super) fn refuse_moving(map: &ClusterMap, id: VolumeId, name: &str) -> Result<(), OperationError> {
    match map.moving(id) {
        None => Ok(()),
        Some(_) => Err(OperationError::Conflict(format!(
            "volume {name:?} moves to another pool: wait until that is done (`storagectl volume info` shows how far it is)"
        ))),
    }
}

/// What goes with a volume that is deleted while it moves.
pub(super) fn with_source(map: &ClusterMap, id: VolumeId, transaction: Transaction) -> Transaction {
    match map.moving(id) {
        // One that began since has changed the volume's record too.
        None => transaction,
        Some(moving) => transaction
            .delete(Key::Move(id).to_text())
            .delete(Key::Volume(moving.record.source).to_text()),
    }
}

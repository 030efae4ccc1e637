//! Another size for a volume. Growing is one record; an open volume's owner is told. Shrinking
//! needs a volume that nobody has open, and leaves bytes to be discarded: until that is done the
//! volume cannot grow, for what was cut off must not come back.

use admin_api::sizes::{SizeInput, format_size};
use coordination::keys::Key;
use coordination::records::{VolumeRecord, encode};
use coordination::{ClusterMap, Compare, Transaction};
use protocol::VolumeId;

use super::create::checked_size;
use super::{Decision, OperationError, Plan, Volumes, event, find};

/// How a resize ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resized {
    /// The volume.
    pub volume: VolumeId,
    /// What the asker should know.
    pub notes: Vec<String>,
    /// Whether bytes beyond the new end are to be discarded in the background.
    pub discards: bool,
}

impl Volumes {
    /// Changes a volume's size.
    pub async fn resize(
        &self,
        name: &str,
        size: &SizeInput,
        allow_shrink: bool,
    ) -> Result<Resized, OperationError> {
        let (size, notes) = checked_size(size)?;
        let map = self.fresh_map().await?;
        let id = find(&map, name)?;
        let present = super::volume(&map, id)?.record.size;
        if size >= present {
            self.carry_out(|map| plan_growth(map, id, name, size)).await?;
            return Ok(Resized {
                volume: id,
                notes,
                discards: false,
            });
        }
        if !allow_shrink {
            let message = format!(
                "volume {name:?} has {}: {} would cut data off; say that it may shrink if that is meant",
                format_size(present),
                format_size(size)
            );
            return Err(OperationError::WouldShrink(message));
        }
        super::retype::refuse_moving(&map, id, name)?;
        self.refuse_used(id, name).await?;
        let rest = self.owners.bring_to_rest(&[id]).await?;
        let holds = super::at_rest(rest.as_ref(), id)?;
        let shrunk = self
            .carry_out(|map| plan_shrink(map, id, name, size, &holds))
            .await;
        rest.end(self.map().revision()).await;
        shrunk?;
        Ok(Resized {
            volume: id,
            notes,
            discards: true,
        })
    }

    /// Notes that the bytes cut off by a shrink up to `discarded_to` are gone.
    pub async fn finish_shrink(&self, id: VolumeId, discarded_to: u64) -> Result<(), OperationError> {
        self.carry_out(|map| plan_finish(map, id, discarded_to)).await
    }
}

fn put_volume(id: VolumeId, map: &ClusterMap, record: &VolumeRecord) -> Result<Transaction, OperationError> {
    let key = Key::Volume(id).to_text();
    let modified = super::volume(map, id)?.modified;
    Ok(Transaction::new()
        .when(Compare::Modified(key.clone(), modified))
        .put(key, encode(record)?))
}

fn plan_growth(
    map: &ClusterMap,
    id: VolumeId,
    name: &str,
    size: u64,
) -> Result<Decision<()>, OperationError> {
    let mut record = super::volume(map, id)?.record.clone();
    if size == record.size {
        return Ok(Decision::Unchanged(()));
    }
    if size < record.size {
        // It was smaller a moment ago, and somebody else grew it.
        return Err(OperationError::contended());
    }
    super::refuse_unfinished_shrink(&record)?;
    let message = format!(
        "volume {name} grew from {} to {}",
        format_size(record.size),
        format_size(size)
    );
    record.size = size;
    Ok(Plan::decide(
        put_volume(id, map, &record)?,
        event("volume_grown", name, message),
        (),
    ))
}

fn plan_shrink(
    map: &ClusterMap,
    id: VolumeId,
    name: &str,
    size: u64,
    holds: &[Compare],
) -> Result<Decision<()>, OperationError> {
    let mut record = super::volume(map, id)?.record.clone();
    if size >= record.size {
        return Err(OperationError::contended());
    }
    super::retype::refuse_moving(map, id, name)?;
    let message = format!(
        "volume {name} shrank from {} to {}",
        format_size(record.size),
        format_size(size)
    );
    record.discard_to = Some(record.discard_to.unwrap_or(0).max(record.size));
    record.size = size;
    let mut transaction = put_volume(id, map, &record)?;
    transaction.compares.extend_from_slice(holds);
    Ok(Plan::decide(
        transaction,
        event("volume_shrunk", name, message),
        (),
    ))
}

fn plan_finish(map: &ClusterMap, id: VolumeId, discarded_to: u64) -> Result<Decision<()>, OperationError> {
    let mut record = super::volume(map, id)?.record.clone();
    if record.discard_to.is_none_or(|to| to > discarded_to) {
        return Ok(Decision::Unchanged(()));
    }
    record.discard_to = None;
    let message = format!("what volume {} had beyond its new end is discarded", record.name);
    let event = event("volume_discarded", record.name.clone(), message);
    Ok(Plan::decide(put_volume(id, map, &record)?, event, ()))
}

//! Ends the generation of whoever has a volume open, because an operator says so: for a guest whose host is lost, and
//! which somebody waits to run elsewhere.
//!
//! The owner key goes, and the note of who opened the volume last is written anew, so that the former owner cannot go
//! on by itself. What it has sent to disks may still be carried out until the next owner fences them; it is not asked.

use coordination::keys::Key;
use coordination::records::{LastOwnerRecord, encode};
use coordination::{ClusterMap, Transaction};
use protocol::{Generation, VolumeId};

use super::{Decision, OperationError, Plan, Volumes, event, find};
use crate::moment::wall_clock_ms;

impl Volumes {
    /// Takes a volume from its present owner, if that still has this generation (whoever it is, if none is given).
    pub async fn take_over(&self, name: &str, generation: Option<u64>) -> Result<VolumeId, OperationError> {
        let map = self.fresh_map().await?;
        let id = find(&map, name)?;
        self.carry_out(|map| plan(map, id, name, generation.map(Generation)))
            .await?;
        Ok(id)
    }
}

fn plan(
    map: &ClusterMap,
    id: VolumeId,
    name: &str,
    expected: Option<Generation>,
) -> Result<Decision<()>, OperationError> {
    super::volume(map, id)?;
    let Some(owner) = map.owner(id) else {
        return Err(OperationError::Conflict(format!(
            "nobody has volume {name:?} open: there is nothing to take over, whoever opens it gets it"
        )));
    };
    if super::is_shrinking(map, id) {
        return Err(OperationError::InUse(super::unfinished_shrink(name)));
    }
    let generation = Generation(owner.created.0);
    let who = format!(
        "{} (process {} on {})",
        owner.record.program, owner.record.pid, owner.record.node
    );
    if expected.is_some_and(|expected| expected != generation) {
        return Err(OperationError::Conflict(format!(
            "volume {name:?} has another owner by now: {who}, {generation}"
        )));
    }
    let last = LastOwnerRecord {
        by: "an operator (storagectl volume take-over)".to_owned(),
        shared: owner.record.attachment.is_some(),
        // Whoever it was may not come again.
        closed: true,
        opened_ms: wall_clock_ms(),
        generation: None,
        went_on_from: None,
    };
    let transaction = Transaction::new()
        .when(super::owned_by(id, generation))
        .delete(Key::Owner(id).to_text())
        .put(Key::LastOwner(id).to_text(), encode(&last)?);
    let message = format!("volume {name} was taken from {who}: whoever waits for it opens it");
    Ok(Plan::decide(
        transaction,
        event("volume_taken_over", name, message),
        (),
    ))
}
